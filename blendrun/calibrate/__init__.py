"""What this machine really does: rates, and the constants of a step's time, measured on the engine that runs jobs.

The parent process stays free of torch: raw rates come from a child (`python -m blendrun.calibrate.worker`), steps from
the engine's own process.
"""

from __future__ import annotations

from blendrun.calibrate.base import Calibration, Fit, Observation, Point, Rates
from blendrun.calibrate.card import card_path, check_writable, make_card, write_card
from blendrun.calibrate.fit import fit
from blendrun.calibrate.measure import Task, calibrate

__all__ = [
    "Calibration",
    "Fit",
    "Observation",
    "Point",
    "Rates",
    "Task",
    "calibrate",
    "card_path",
    "check_writable",
    "fit",
    "make_card",
    "write_card",
]
