"""What tests expect of the version of SGLang that is installed."""

from __future__ import annotations

from collections.abc import Iterable

from blendrun.engine import sglang_names


def unexpected(notes: Iterable[str]) -> list[str]:
    """Notes of an engine that tell of a fault. Older versions have others: what they lack, what starts threads."""
    older = not sglang_names.has("next_use")
    return [note for note in notes if "did not take" in note or not older]


def reserves_as_simulated() -> bool:
    """Whether SGLang, where blendrun leaves its reservation alone, admits as the simulator has it: older ones more."""
    return sglang_names.reaches("0.5.22")
