"""The row that the blend is read from: a job from its compute-heavy to its memory-heavy end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.split import UnitRow
from blendrun.tree.compiled import F64_IN, compiled

# Stands for the infinite density of work that decodes nothing.
_DENSEST = 1e12


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """What each leaf of the row asks of the pool, in the row's order.

    prompt: f64 (M,), tokens of the prompt.
    rows: f64 (M,), answers decoded side by side; each grows by a token a step.
    steps: f64 (M,), expected decode steps, at least 1: a prefill holds its prompt for a step too.
    reads: f64 (M,), KV tokens read over its life.
    reach: f64 (M,), tokens that its answer may well have (`Lengths.reach`).
    compute, memory: f64 (M,), seconds at the machine's rates, prefix shared with the neighbour on its left not counted.
    """

    prompt: NDArray[np.float64]
    rows: NDArray[np.float64]
    steps: NDArray[np.float64]
    reads: NDArray[np.float64]
    reach: NDArray[np.float64]
    compute: NDArray[np.float64]
    memory: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScanRow:
    """The job from its compute-heavy to its memory-heavy end, with all that a reader of both ends has to know.

    unit: i64 (M,), unit of each leaf, ascending. held: what each asks of the pool.
    own_left, own_right: f64 (M,), prompt tokens that are new to a side that has just fed the neighbour, and not in use
        all the time: the left side comes from the front, the right side from the back.
    density: f64 (U,), compute over memory of each unit, or of all that are alike (`UnitRow`): where units stand by
        chance, the next one says nothing of those behind it.
    reads: f64 (U,), KV tokens read over KV tokens held, by the step; likewise.
    keep_left, keep_right: bool (M,), leaves that a side feeds right behind their neighbour, whatever its share: all
        that is left of those that share the neighbour's prefix is less than that prefix, so that to come back for them
        later, when it is no longer cached, would cost more than they do.
    """

    unit: NDArray[np.int64]
    held: Footprint
    own_left: NDArray[np.float64]
    own_right: NDArray[np.float64]
    density: NDArray[np.float64]
    reads: NDArray[np.float64]
    keep_left: NDArray[np.bool_]
    keep_right: NDArray[np.bool_]

    @property
    def size(self) -> NDArray[np.float64]:
        """Tokens of each leaf at its end: f64 (M,). Once all that is left fits the pool, it is fed longest first."""
        sizes: NDArray[np.float64] = self.own_left + self.held.rows * self.held.steps
        return sizes

    @classmethod
    def of(cls, units: UnitRow, held: Footprint) -> ScanRow:
        own = held.prompt - np.maximum(units.shared, units.always_resident)
        own_right = held.prompt - np.maximum(np.concatenate((units.shared[1:], [0])), units.always_resident)
        shared, always_resident, growth = (
            units.shared.astype(np.float64),
            units.always_resident.astype(np.float64),
            held.rows * held.steps,
        )
        from_right = np.concatenate(([0.0], shared[:0:-1]))
        unit = np.repeat(np.arange(units.units, dtype=np.int64), np.diff(units.first))
        kind = units.alike[unit]

        def total(each: NDArray[np.float64]) -> NDArray[np.float64]:
            """Sum over the leaves of each unit and of those alike: f64 (U,)."""
            # A job without prompts has one unit without leaves.
            sums = np.bincount(kind, weights=each, minlength=len(units.alike)).astype(np.float64)
            alike: NDArray[np.float64] = sums[units.alike]
            return alike

        density = total(held.compute) / np.maximum(total(held.memory), 1e-30)
        held_steps = total((own + held.rows * held.steps / 2) * held.steps)
        return cls(
            unit=unit,
            held=held,
            own_left=own,
            own_right=own_right,
            density=np.minimum(density, _DENSEST),
            reads=np.maximum(total(held.reads), 1e-9) / np.maximum(held_steps, 1e-9),
            keep_left=_stays(shared, always_resident, own + growth),
            keep_right=_stays(from_right, always_resident[::-1].copy(), (own_right + growth)[::-1].copy())[::-1].copy(),
        )


@compiled(F64_IN, F64_IN, F64_IN)
def _stays(
    shared: NDArray[np.float64], always_resident: NDArray[np.float64], size: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the rest of a leaf's group is smaller than the prefix it shares with the leaf before: bool (M,).

    All f64 (M,), tokens. shared: with the leaf before, 0 for the first. always_resident: of the prefix.
    size: of each leaf once the one before it was fed. A leaf's group: it and what follows, as far as all share as much.
    """
    count = len(size)
    before = np.zeros(count + 1)
    for place in range(count):
        before[place + 1] = before[place] + size[place]
    stays = np.zeros(count, dtype=np.bool_)
    # Places behind, each the next that shares less than the one above it on the stack.
    stack, depth = np.empty(count + 1, dtype=np.int64), 1
    stack[0] = count
    for place in range(count - 1, 0, -1):
        while depth > 1 and shared[stack[depth - 1]] >= shared[place]:
            depth -= 1
        stays[place] = before[stack[depth - 1]] - before[place] < shared[place] - always_resident[place]
        stack[depth] = place
        depth += 1
    return stays
