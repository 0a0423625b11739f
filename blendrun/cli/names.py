"""Values of options, for all commands; nothing here makes `--help` load NumPy."""

from __future__ import annotations

from enum import StrEnum


class EngineName(StrEnum):
    """sglang: the real runtime. replay: no model; placeholder answers on a virtual clock."""

    SGLANG = "sglang"
    REPLAY = "replay"


class OrderName(StrEnum):
    """Mirrors `blendrun.blend.base.OrderName`, which would make `--help` load NumPy; auto: the plan chooses."""

    AUTO = "auto"
    GIVEN = "given"
    SHUFFLED = "shuffled"
    SORTED = "sorted"
    LOF = "lof"
    BLENDED = "blended"


class OverlapName(StrEnum):
    """Mirrors `blendrun.simulate.base.Overlap`; auto: the plan chooses, not pdmux."""

    AUTO = "auto"
    EXCLUSIVE = "exclusive"
    MIXED = "mixed"
    PDMUX = "pdmux"


class DeviceName(StrEnum):
    """Where the engine runs; auto: a GPU if this machine has one."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
