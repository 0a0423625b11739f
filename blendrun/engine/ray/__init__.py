"""Engines on the nodes of a Ray cluster. Ray places, starts and ends them; the run drives them like any other."""
