"""The version of blendrun, on the ground floor: files and pages say who wrote them."""

__version__ = "0.2.0"
