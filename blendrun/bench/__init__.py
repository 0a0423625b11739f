"""Benchmarks: what orders take on workloads that are made for it, or on the user's own."""

from blendrun.bench.grid import parse_values
from blendrun.bench.simulate import Cell, Refused, cells_of_file, cells_of_recipe

__all__ = ["Cell", "Refused", "cells_of_file", "cells_of_recipe", "parse_values"]
