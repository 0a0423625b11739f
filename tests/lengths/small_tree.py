"""A prefix tree of a few lists of numbers, and the prompts that go with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree


def make_tree(prompts: Sequence[Sequence[int]]) -> PrefixTree:
    """Sort, take common prefixes of neighbours, keep the open path on a stack: nodes are made where prompts part."""
    order = sorted(range(len(prompts)), key=lambda number: (list(prompts[number]), number))
    begin, depth, parent = [0], [0], [-1]  # of each node, in the order of making
    end: dict[int, int] = {}
    leaves: list[int] = []
    shared: list[int] = []
    path = [0]
    for place, number in enumerate(order):
        common = _common(prompts[order[place - 1]], prompts[number]) if place else 0
        shared.append(common)
        below = None
        while depth[path[-1]] > common or path[-1] in leaves[-1:]:
            below = path.pop()
            end[below] = place
        if depth[path[-1]] < common:
            assert below is not None
            begin.append(begin[below])
            depth.append(common)
            parent.append(path[-1])
            parent[below] = len(begin) - 1
            path.append(parent[below])
        begin.append(place)
        depth.append(len(prompts[number]))
        parent.append(path[-1])
        leaves.append(len(begin) - 1)
        path.append(leaves[-1])
    end |= dict.fromkeys(path, len(order))
    return _in_preorder(begin, end, depth, parent, leaves, shared, order)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are equal, by halves: slices are compared much faster than tokens."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if one[least:middle] == other[least:middle] else (least, middle - 1)
    return least


def _in_preorder(
    begin: list[int],
    end: dict[int, int],
    depth: list[int],
    parent: list[int],
    leaves: list[int],
    shared: list[int],
    order: list[int],
) -> PrefixTree:
    leaf_of = set(leaves)
    made = sorted(range(len(begin)), key=lambda node: (begin[node], -end[node], node in leaf_of, depth[node]))
    name = {node: place for place, node in enumerate(made)}
    above = [name[parent[node]] if parent[node] >= 0 else -1 for node in made]
    last = list(range(1, len(made) + 1))
    for node in range(len(made) - 1, 0, -1):
        last[above[node]] = max(last[above[node]], last[node])

    def column(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    return PrefixTree(
        parent=column(above),
        end=column(last),
        start=column([0 if above[node] < 0 else depth[made[above[node]]] for node in range(len(made))]),
        depth=column([depth[node] for node in made]),
        leaf_begin=column([begin[node] for node in made]),
        leaf_end=column([end[node] for node in made]),
        leaf=column([name[node] for node in leaves]),
        prompt=np.array(order, dtype=np.int64),
        shared=column(shared),
    )


def make_prompts(
    units: Sequence[Sequence[int]],
    *,
    bound: int | Sequence[int] = 1024,
    cluster: int | Sequence[int] = 7,
    choices: int | Sequence[int] = 1,
    reference: int | Sequence[int] = -1,
    known: bool | Sequence[bool] = False,
) -> Prompts:
    count = len(units)
    sizes = np.array([len(part) for part in units], dtype=np.int64)

    def column(value: object, kind: type) -> np.ndarray:
        return np.broadcast_to(np.array(value, dtype=kind), (count,)).copy()

    return Prompts(
        row=np.arange(count, dtype=np.int64),
        units=np.array([unit for part in units for unit in part], dtype=np.int32),
        offsets=np.concatenate(([0], np.cumsum(sizes))),
        unit_tokens=1,
        prompt_tokens=sizes.astype(np.int32),
        root=np.zeros(count, dtype=np.uint64),
        cluster=column(cluster, np.uint64),
        bound=column(bound, np.int32),
        choices=column(choices, np.int32),
        reference=column(reference, np.int32),
        known=column(known, np.bool_),
    )
