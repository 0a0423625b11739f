"""What a request costs the machine: arithmetic, KV reads, their ratio."""

from __future__ import annotations

from blendrun.cost.balance import Bound, bound_seconds, density, path_sum
from blendrun.cost.base import Demand, Figure, HardwareCard, Machine, Origin
from blendrun.cost.capacity import KvPool, kv_pool
from blendrun.cost.detect import detect_hardware
from blendrun.cost.formulas import demand
from blendrun.cost.hardware import list_hardware, load_hardware, machine, user_hardware_folder
from blendrun.cost.step import RESIDENT_SHARE, step_budget, weight_bound_tokens, weight_bytes

__all__ = [
    "RESIDENT_SHARE",
    "Bound",
    "Demand",
    "Figure",
    "HardwareCard",
    "KvPool",
    "Machine",
    "Origin",
    "bound_seconds",
    "demand",
    "density",
    "detect_hardware",
    "kv_pool",
    "list_hardware",
    "load_hardware",
    "machine",
    "path_sum",
    "step_budget",
    "user_hardware_folder",
    "weight_bound_tokens",
    "weight_bytes",
]
