"""Endpoints of OpenAI's API: what a line of each may say, what it needs, how its answer looks."""
