"""How many requests of three traces make a job of a wanted density and sharing.

docs/paper.md#requests-of-each-trace.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceCost:
    """A trace by the means of its requests.

    prompt: prompt tokens. shared: of these, tokens that a cache saves.
    compute, memory: seconds of one request (Comp after sharing, and Mem).
    """

    prompt: float
    shared: float
    compute: float
    memory: float


@dataclass(frozen=True, slots=True)
class Mix:
    """Requests of each trace; fractions are for the caller to round."""

    compute: float
    sharing: float
    memory: float


def solve_mix(
    compute: TraceCost, sharing: TraceCost, memory: TraceCost, *, requests: float, density: float, shared: float
) -> Mix:
    """`requests` of the compute-heavy and the sharing trace, and as many of the memory-heavy one as the density needs.

    density: sum of compute over sum of memory that the whole job is to have.
    shared: cached over all prompt tokens that the first two traces are to have; the third is left out, being few.
    Raises ValueError where no mix of these traces has that density or sharing.
    """
    gain = sharing.shared - shared * sharing.prompt
    lack = shared * compute.prompt - compute.shared
    share = lack / (gain + lack) if gain + lack else -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"these traces cannot share {shared:.0%} of their prompt tokens")
    second = share * requests
    first = requests - second
    work = first * compute.compute + second * sharing.compute
    reads = first * compute.memory + second * sharing.memory
    missing = density * memory.memory - memory.compute
    third = (work - density * reads) / missing if missing > 0 else -1.0
    if third < 0:
        raise ValueError(f"these traces cannot make a density of {density:g}")
    return Mix(compute=first, sharing=second, memory=third)
