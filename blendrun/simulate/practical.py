"""The practical bound of a job: the least time that the model of a step's time allows any order, on any overlap mode.

Beside arithmetic and reads that overlap as well as the parts of one device can, it counts what no order gets around:
decode steps there must be, as the longest answer takes one a token and the pool holds only so much at once, and each
of them reads the weights. Derivation and what is assumed: docs/paper.md#the-practical-bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.names import Overlap
from blendrun.simulate.base import StepTime
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree
from blendrun.tree.compiled import F64_OUT, I32_IN, compiled

# Where both streams of a device are busy, what a second of reads costs those of arithmetic at least, and the other way
# round: the sides of the convex hull of the interference table (`simulator.RATES`), whose corner is at a share of 0.4.
_READS_BESIDE, _ARITHMETIC_BESIDE = 1 / 2, 1 / 3


@dataclass(frozen=True, slots=True)
class PracticalBound:
    """The bound of a job, and what it is made of.

    path_steps: decode steps of the longest answer. pool_steps: those that the pool and the rows allowed ask for.
    prefill, decode: seconds of each alone, reads of the cache included; decode with the weights read once a step where
    that takes longer than the rows' arithmetic. together: seconds of both in the same steps, where prefill hides under
    the weights' reads as far as it goes. other: seconds that nothing hides: of steps, rows and requests.
    """

    path_steps: int
    pool_steps: int
    prefill: float
    decode: float
    together: float
    other: float

    @property
    def steps(self) -> int:
        """Decode steps that any order takes."""
        return max(self.path_steps, self.pool_steps)

    def seconds(self, overlaps: Iterable[Overlap] = tuple(Overlap)) -> float:
        """The least of these modes."""
        return min(self._of(overlap) for overlap in overlaps)

    def _of(self, overlap: Overlap) -> float:
        if overlap is Overlap.EXCLUSIVE:
            return self.prefill + self.decode + self.other
        if overlap is Overlap.MIXED:
            return self.together + self.other
        beside = max(
            self.prefill + _READS_BESIDE * self.decode,
            self.decode + _ARITHMETIC_BESIDE * self.prefill,
        )
        return beside + self.other


def practical_bound(
    tree: PrefixTree,
    prompts: Prompts,
    outputs: NDArray[np.int64],
    step: StepTime,
    *,
    pool_tokens: int,
    max_running: int | None = None,
    shared_reads: int | None = None,
) -> PracticalBound:
    """The bound of a job of M prompts on one engine, whose answers are as long as `outputs` says: i64 (M,).

    Every prefix is computed once and held once, and, where reads are shared, read as often as its longest answer has
    steps. pool_tokens, max_running, shared_reads: as of `SimulatedEngine`; of an engine without drafts.
    """
    choices = prompts.choices.astype(np.float64)
    steps = np.maximum(outputs - 1, 0).astype(np.float64)
    rows = float((choices * steps).sum())
    longest = _longest_below(tree, steps)
    reads = float((choices * steps * (steps + 1) / 2).sum())
    reads += float((tree.segment * _steps_that_read(tree, choices * steps, longest, shared_reads)).sum())
    depth, start = tree.depth.astype(np.float64), tree.start.astype(np.float64)
    prefill = step.prefill_token * float((depth - start).sum())
    square = step.prefill_square * float((depth**2 - start**2).sum())
    decode, memory = step.decode_token * rows, step.kv_token * reads
    path = int(steps.max(initial=0.0))
    pool = max(
        _steps_of_area(tree, choices, steps, longest, pool_tokens),
        _steps_of_overlap(tree, choices, steps, pool_tokens),
        0 if max_running is None else math.ceil(rows / max_running),
    )
    least = max(path, pool)
    # A step of one token reads the fewest experts.
    sweep = step.weights - step.experts * step.expert_miss
    # Nothing can decode in the first step.
    first = max(sweep, step.prefill_token) if len(prompts) else 0.0
    return PracticalBound(
        path_steps=path,
        pool_steps=pool,
        prefill=prefill + square,
        decode=max(decode, sweep * least) + memory,
        together=max(prefill + decode, sweep * least + first) + square + memory,
        other=step.step * (least + (len(prompts) > 0)) + step.row * rows + step.request * len(prompts),
    )


def _longest_below(tree: PrefixTree, steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decode steps of the longest answer behind each node: f64 (K,)."""
    longest = np.zeros(len(tree))
    np.maximum.at(longest, tree.leaf, steps[tree.prompt])
    _most_below(tree.parent, longest)
    return longest


def _steps_that_read(
    tree: PrefixTree, rows: NDArray[np.float64], longest: NDArray[np.float64], shared_reads: int | None
) -> NDArray[np.float64]:
    """How often the segment of each node is read at least: f64 (K,). rows: f64 (M,), decode steps times choices."""
    own = np.bincount(tree.leaf, weights=rows[tree.prompt], minlength=len(tree)).astype(np.float64)
    below = tree.subtree_sum(own)
    if shared_reads is None:
        return below
    return np.where(tree.segment >= shared_reads, longest, below)


def _steps_of_area(
    tree: PrefixTree,
    choices: NDArray[np.float64],
    steps: NDArray[np.float64],
    longest: NDArray[np.float64],
    pool_tokens: int,
) -> int:
    """Tokens held times steps of the whole job, over the pool. A prefix stays with the longest answer behind it."""
    prompts = float((tree.segment * longest).sum())
    answers = float((choices * steps * (steps + 1) / 2).sum())
    return math.ceil((prompts + answers) / pool_tokens - 1e-9)


def _steps_of_overlap(
    tree: PrefixTree, choices: NDArray[np.float64], steps: NDArray[np.float64], pool_tokens: int
) -> int:
    """Decode steps without which the longest answers would have to be in the pool together and do not fit.

    In a run of N decode steps an answer of L takes place at step t where N - L < t <= L, and has at least t - (N - L)
    tokens then. At t = L_j, of the j longest: sum(own + choices (L_j - N + L_i)) <= pool while N < 2 L_j.
    """
    order = np.argsort(-steps, kind="stable")
    long, many = steps[order], choices[order]
    own = tree.segment[tree.leaf[tree.position[order]]].astype(np.float64)
    need = np.cumsum(own + many * long)
    least = np.minimum(long + (need - pool_tokens) / np.cumsum(many), 2 * long)
    return math.ceil(float(least.max(initial=0.0)) - 1e-9)


@compiled(I32_IN, F64_OUT)
def _most_below(parent: NDArray[np.int32], value: NDArray[np.float64]) -> None:
    """Raise the value of each node to the largest in its sub-tree."""
    for node in range(len(parent) - 1, 0, -1):
        above = parent[node]
        value[above] = max(value[above], value[node])
