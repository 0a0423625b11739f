"""Overlap modes that a run takes unasked, the same for `run` and for `plan`."""

from __future__ import annotations

from typing import Any

from blendrun.engine.base import Platform
from blendrun.engine.overlap import JobFacts, OverlapRefusal, overlap_arguments
from blendrun.names import Overlap


def automatic_modes(platform: Platform) -> tuple[Overlap, ...]:
    """What is chosen from where nobody named a mode, simplest first."""
    # On a CPU one step's arithmetic hides under no other's reads. The split of a GPU is only for those who ask.
    return (Overlap.EXCLUSIVE, Overlap.MIXED) if platform == "gpu" else (Overlap.EXCLUSIVE,)


def mode_refused(mode: Overlap, platform: Platform, arguments: dict[str, Any], facts: JobFacts) -> str | None:
    """Why an engine with these arguments cannot be run in a mode, a sentence; None where it can."""
    found = overlap_arguments(mode.value, platform, arguments, facts)
    return found.sentence if isinstance(found, OverlapRefusal) else None
