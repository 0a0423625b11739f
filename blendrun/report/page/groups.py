"""Requests of a run by the sub-trees that they hang on, and how many of each ran when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.report.schemas.icicle import IcicleNode
from blendrun.report.schemas.prefix_text import KEPT
from blendrun.text import cut, plural

_BINS = 120
_GROUPS = 10
_REST = "all others"
# Characters of a prefix that name it.
_LONGEST_NAME = 24


@dataclass(frozen=True, slots=True)
class Group:
    """Requests of one sub-tree. running: how many were in the engine's batch, on the mean of each of T buckets of the
    run's time; where the engine logged no steps, how many it had.
    """

    label: str
    requests: int
    running: tuple[float, ...]


def name_of(node: IcicleNode, longest: int = KEPT) -> str:
    """What a block of the tree is called: by its text, or by the first request that has it where none is known."""
    if node.merged:
        return f"{plural(node.merged, 'smaller prefix', 'smaller prefixes')}, the first of {node.example}"
    if node.text:
        return f"“{cut(node.text, longest)}”"
    return f"beginning of {node.example}" if node.requests > 1 else node.example


def group_requests(
    tree: Sequence[IcicleNode],
    subtree: NDArray[np.int64],
    begun: NDArray[np.float64],
    ended: NDArray[np.float64],
    seconds: float,
) -> list[Group]:
    """subtree, begun, ended: of each request, its node (-1 for none) and its time in the batch; seconds: of the run."""
    chosen = _cut(tree)
    number = np.full(len(begun), len(chosen), dtype=np.int64)
    for place, node in enumerate(chosen):
        number[(subtree >= node.node) & (subtree < node.end)] = place
    groups = []
    for place in range(len(chosen) + 1):
        mine = number == place
        if not mine.any():
            continue
        label = _label(chosen[place]) if place < len(chosen) else _REST if chosen else "all requests"
        groups.append(Group(label, int(mine.sum()), _running(begun[mine], ended[mine], seconds)))
    return groups


def _label(node: IcicleNode) -> str:
    return f"{name_of(node, _LONGEST_NAME)}, {plural(node.depth, 'token')}, {plural(node.requests, 'request')}"


def _cut(tree: Sequence[IcicleNode]) -> list[IcicleNode]:
    """Up to `_GROUPS` disjoint sub-trees, found by opening the largest one again and again."""
    nodes = [node for node in tree if node.node >= 0]
    if not nodes:
        return []
    below: dict[int, list[IcicleNode]] = {}
    parents: list[IcicleNode] = []
    for node in sorted(nodes, key=lambda each: each.node):
        while parents and parents[-1].end <= node.node:
            parents.pop()
        if parents:
            below.setdefault(parents[-1].node, []).append(node)
        parents.append(node)
    groups = [node for node in nodes if node.level == 0]
    while True:
        # What is shared by one request alone is no group.
        open_ = [node for node in groups if any(child.requests > 1 for child in below.get(node.node, []))]
        if not open_:
            break
        largest = max(open_, key=lambda each: each.requests)
        children = [child for child in below[largest.node] if child.requests > 1]
        if len(groups) - 1 + len(children) > _GROUPS and len(groups) > 1:
            break
        groups.remove(largest)
        groups += sorted(children, key=lambda each: -each.requests)[:_GROUPS]
    return sorted((node for node in groups if node.level > 0), key=lambda each: -each.requests)


def _running(begun: NDArray[np.float64], ended: NDArray[np.float64], seconds: float) -> tuple[float, ...]:
    """Mean number at once in each of `_BINS` buckets: the slope of the time that all spend between two moments."""
    grid = np.linspace(0.0, max(seconds, 1e-9), _BINS + 1)
    starts, ends = np.sort(begun), np.sort(ended)
    spent = _before(starts, grid) - _before(ends, grid)
    mean = np.diff(spent) / grid[1]
    # What rounding leaves of nothing is nothing.
    return tuple(float(f"{value:.4g}") for value in np.where(mean > 1e-6, mean, 0.0))


def _before(moments: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the seconds from each of `moments` (sorted) to each of `grid`, those to come left out."""
    total = np.concatenate(([0.0], np.cumsum(moments)))
    count = np.searchsorted(moments, grid)
    return np.asarray(count * grid - total[count], dtype=np.float64)
