"""A job cut into parts for engines that work side by side: equal in compute and in memory work, at the borders of
prefix groups.

The paper closes a part when its two-ended scan has taken enough of both ends (docs/paper.md#several-devices). Here the
tree stays in one piece instead (docs/paper.md#parts-are-arcs-of-a-ring). Its leaves in depth-first order are bent into
a ring; a ring with two kinds of work on it always has an arc that holds any wanted share of both at once (Stromquist
and Woodall, Sets on which several measures agree, 1985). That arc is a part; what is left of the ring is closed again
and gives the next one. So n parts cost 2 (n - 1) cuts, and each cut one path from the root to where the ring is cut.
Among the arcs that are near enough, the one is taken whose ends share the shortest prefixes with what lies beyond them.
What all cuts cost is known at the end: then the parts are cut again, to their share of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.balance import path_sum
from blendrun.cost.base import Demand
from blendrun.errors import UsageError
from blendrun.tree.base import PrefixTree
from blendrun.tree.shared import SharedPrefix

# How far a part may be from its share, in compute and in memory work, where requests are small enough.
BALANCE = 0.02
# Each arc is to be nearer than that: the last part takes what is left over.
_NEAR = 0.5
_PASSES = 8
# Of its share, what a part is taken to have at least when shares are corrected.
_LEAST = 0.5
# More parts than this are halved first: to take them one by one from the whole ring would take long.
_MOST = 64
# Starts of an arc that are looked at closely, and ends of each.
_STARTS, _ENDS = 256, 512

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """M prompts in n parts.

    part: i32 (M,), part of each prompt. compute, memory: f64 (n,), each part's share of the work of all parts.
    flops: of all parts, what two of them compute both counted twice.
    kept_sharing: tokens that infinite caches save, one for each part, over what one for all saves; 1 where nothing is
        shared.
    """

    part: NDArray[np.int32]
    compute: Floats
    memory: Floats
    flops: float
    kept_sharing: float

    def __len__(self) -> int:
        return len(self.compute)

    def prompts(self, part: int) -> Places:
        """Numbers of a part's prompts, ascending."""
        return np.flatnonzero(self.part == part)

    def imbalance(self, shares: Sequence[float] | None = None) -> tuple[float, float]:
        """How far the part furthest from its share (None: equal) is from it, in compute and in memory: 0.02 is 2 %."""
        wanted = _shares(len(self), shares)
        compute, memory = (float(np.abs(each / wanted - 1).max()) for each in (self.compute, self.memory))
        return compute, memory if self.memory.any() else 0.0


def partition(tree: PrefixTree, demand: Demand, parts: int, *, shares: Sequence[float] | None = None) -> Partition:
    """Cut a job into `parts`. shares: of each part in the work, in any unit; None for equal ones.

    Where requests are few or large, parts are as equal as they can be made. Time: about M for each part.
    Raises UsageError for a number of parts, or a share, that is not above 0.
    """
    if parts < 1:
        raise UsageError(f"a job has 1 part or more, not {parts}")
    if shares is not None and min(shares) <= 0:
        raise UsageError("the share of a part must be above 0")
    wanted = _shares(parts, shares)
    # The largest one last: it takes what the others' errors leave.
    turn = np.argsort(wanted, kind="stable")
    found = np.empty(tree.prompts, dtype=np.int32)
    cutter, best = _Cutter(tree, demand), None
    compute = wanted
    for _ in range(_PASSES):
        for number, places in zip(turn, cutter.cut(compute[turn], wanted[turn]), strict=True):
            found[tree.prompt[places]] = number
        made = measure(tree, demand, found.copy(), parts)
        if best is None or max(made.imbalance(shares)) < max(best.imbalance(shares)):
            best = made
        if max(best.imbalance(shares)) <= BALANCE:
            break
        # What was cut last computes more paths again than what was cut first.
        compute = compute * wanted / np.maximum(made.compute, _LEAST * wanted)
    assert best is not None
    return best


def measure(tree: PrefixTree, demand: Demand, part: NDArray[np.int32], parts: int) -> Partition:
    """What a division comes to. part: i32 (M,), of each prompt, 0 to `parts` - 1."""
    compute, memory = np.zeros(parts), np.zeros(parts)
    segment = tree.segment.astype(np.int64)
    distinct = 0
    of_leaf = part[tree.prompt]
    for number in range(parts):
        mine = np.concatenate(([0], np.cumsum(of_leaf == number)))
        visited = mine[tree.leaf_end] > mine[tree.leaf_begin]
        compute[number], memory[number] = demand.flops[visited].sum(), demand.kv_bytes[visited].sum()
        distinct += int(segment[visited].sum())
    kept = (tree.prompt_tokens - distinct) / tree.shared_tokens if tree.shared_tokens else 1.0
    flops = float(compute.sum())
    return Partition(part, compute / max(flops, 1e-30), memory / max(memory.sum(), 1e-30), flops, kept)


def _shares(parts: int, shares: Sequence[float] | None) -> Floats:
    wanted = np.ones(parts) if shares is None else np.asarray(shares, dtype=np.float64)
    result: Floats = wanted / wanted.sum()
    return result


class _Cutter:
    """The leaves of one tree, with the work of each and the cost of every path."""

    def __init__(self, tree: PrefixTree, demand: Demand) -> None:
        self._prefix = SharedPrefix(tree)
        inner = demand.flops.copy()
        inner[tree.leaf] = 0.0
        self._compute: Floats = demand.flops[tree.leaf].astype(np.float64)
        self._memory: Floats = demand.kv_bytes[tree.leaf].astype(np.float64)
        self._above: Floats = tree.start[tree.leaf].astype(np.float64)
        path = path_sum(tree, inner)[tree.leaf]
        # Arithmetic of a token of the path above each leaf.
        self._token = np.divide(path, self._above, out=np.zeros_like(path), where=self._above > 0)

    def cut(self, compute: Floats, memory: Floats) -> list[Places]:
        """Leaf places of each part. compute, memory: f64 (n,), share of each."""
        return self._divide(np.arange(len(self._compute), dtype=np.int64), np.stack((compute, memory)))

    def _divide(self, ring: Places, shares: Floats) -> list[Places]:
        """shares: f64 (2, n)."""
        count = shares.shape[1]
        if count > _MOST:
            half = count // 2
            inside, outside = self._arc(ring, shares[:, :half].sum(axis=1) / shares.sum(axis=1))
            return self._divide(inside, shares[:, :half]) + self._divide(outside, shares[:, half:])
        found = []
        for number in range(count - 1):
            inside, ring = self._arc(ring, shares[:, number] / shares[:, number:].sum(axis=1))
            found.append(inside)
        return [*found, ring]

    def _arc(self, ring: Places, share: Floats) -> tuple[Places, Places]:
        """An arc with its share of the ring's compute and memory work, and the rest; both in depth-first order."""
        if len(ring) < 2:
            return ring, ring[:0]
        lost = np.empty(len(ring), dtype=np.int64)
        lost[1:] = self._prefix(ring[:-1], ring[1:])
        lost[0] = self._prefix(ring[-1:], ring[:1])[0]
        # Of the path above it, a leaf computes what the one before it leaves, and all of it where it is the first.
        token = self._token[ring]
        own = self._compute[ring] + token * np.maximum(self._above[ring] - lost, 0.0)
        memory = self._memory[ring]
        begin, end = _Arcs(
            _around(own),
            _around(memory),
            token * np.minimum(self._above[ring], lost),
            lost,
            float(share[0] * own.sum()),
            float(share[1] * memory.sum()),
        ).best()
        # An arc may run over the end of the array.
        return _between(ring, begin, end), _between(ring, end, begin)


class _Arcs:
    """The arcs of one ring. compute, memory: running sums over twice the ring; again: f64, compute of a cut at each
    place; lost: tokens of it; flops, kv_bytes: wanted."""

    def __init__(
        self, compute: Floats, memory: Floats, again: Floats, lost: Places, flops: float, kv_bytes: float
    ) -> None:
        self._compute, self._memory, self._again, self._lost = compute, memory, again, lost
        self._flops, self._kv_bytes = flops, kv_bytes

    def best(self) -> tuple[int, int]:
        """Where an arc begins and ends: of those near enough the one that loses least, else the nearest one."""
        count = len(self._lost)
        begin = np.arange(count)
        end = self._cursor(begin)
        error, tolerance = self._error(begin, end), _NEAR * BALANCE
        # Those near enough by what they lose, then the others by how near they are.
        chosen = np.lexsort((np.where(error <= tolerance, self._lost, error), error > tolerance))[:_STARTS]
        # Ends around the one that was found: a less costly or a nearer one may be among them.
        ends = end[chosen][:, None] + np.arange(-_ENDS // 2, _ENDS // 2)[None, :]
        ends = np.clip(ends, chosen[:, None] + 1, chosen[:, None] + count - 1)
        begins = np.broadcast_to(chosen[:, None], ends.shape)
        errors = self._error(begins, ends)
        near = errors <= tolerance
        cost = np.where(near, self._lost[begins] + self._lost[ends % count], np.inf) if near.any() else errors
        row, column = np.unravel_index(int(np.argmin(cost)), cost.shape)
        return int(chosen[row]), int(ends[row, column]) % count

    def _cursor(self, begin: Places) -> Places:
        """Where an arc from each place has its compute."""
        end = np.searchsorted(self._compute, self._compute[begin] + self._flops - self._again[begin])
        # The nearer one of both sides of it; no arc is empty, and none is the whole ring.
        low, high = (np.clip(each, begin + 1, begin + len(self._lost) - 1) for each in (end - 1, end))
        nearer: Places = np.where(self._error(begin, low) <= self._error(begin, high), low, high).astype(np.int64)
        return nearer

    def _error(self, begin: Places, end: Places) -> Floats:
        """How far an arc is from what is wanted, in the kind of work in which it is further."""
        own = self._compute[end] - self._compute[begin] + self._again[begin]
        worst: Floats = np.abs(own / max(self._flops, 1e-30) - 1)
        if self._kv_bytes > 0:
            worst = np.maximum(worst, np.abs((self._memory[end] - self._memory[begin]) / self._kv_bytes - 1))
        return worst


def _around(own: Floats) -> Floats:
    """Running sums over twice the ring: f64 (2 M + 1,)."""
    return np.concatenate(([0.0], np.cumsum(np.concatenate((own, own)))))


def _between(ring: Places, begin: int, end: int) -> Places:
    """From `begin` up to `end`, over the end of the array if need be."""
    return ring[begin:end] if begin <= end else np.concatenate((ring[:end], ring[begin:]))
