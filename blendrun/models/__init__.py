"""Models: their cards (dimensions and costs), and from a name to a folder that an engine loads."""
