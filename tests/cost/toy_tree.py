"""A job of a few lists of numbers: its prompts, its tree built by plain recursion, and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.lengths.base import Lengths
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

Item = tuple[list[int], int]


@dataclass
class _Nodes:
    parent: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    leaf_begin: list[int] = field(default_factory=list)
    leaf_end: list[int] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)

    def add(self, items: list[Item], parent: int, start: int, depth: int, *, leaf: bool) -> None:
        node = len(self.parent)
        self.parent.append(parent)
        self.start.append(start)
        self.depth.append(depth)
        self.leaf_begin.append(len(self.leaf))
        self.end.append(0)
        self.leaf_end.append(0)
        if leaf:
            self.leaf.append(node)
            self.prompt.append(items[0][1])
        else:
            self._children(items, node, depth)
        self.end[node] = len(self.parent)
        self.leaf_end[node] = len(self.leaf)

    def _children(self, items: list[Item], node: int, depth: int) -> None:
        for item in items:
            if len(item[0]) == depth:
                self.add([item], node, depth, depth, leaf=True)
        longer = [item for item in items if len(item[0]) > depth]
        for _, group in groupby(longer, key=lambda item: item[0][depth]):
            below = list(group)
            common = _common(below[0][0], below[-1][0])
            self.add(below, node, depth, common, leaf=len(below) == 1)


def _common(first: list[int], last: list[int]) -> int:
    """Units that two lists begin with alike; of the first and the last of a sorted list, what all have in common."""
    unlike = (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1])
    return next(unlike, min(len(first), len(last)))


def make_tree(prompts: Sequence[Sequence[int]]) -> PrefixTree:
    """The prefix tree of `prompts`, all of one root key."""
    items = sorted((list(prompt), number) for number, prompt in enumerate(prompts))
    nodes = _Nodes()
    nodes.add(items, -1, 0, 0, leaf=False)
    ordered = [list(prompts[number]) for number in nodes.prompt]
    shared = [0] + [_common(*pair) for pair in pairwise(ordered)]
    columns: dict[str, NDArray[Any]] = {
        name: np.array(getattr(nodes, name), dtype=np.int32) for name in nodes.__dataclass_fields__
    }
    return PrefixTree(
        **{**columns, "prompt": columns["prompt"].astype(np.int64)},
        shared=np.array(shared[: len(prompts)], dtype=np.int32),
    )


def make_prompts(prompts: Sequence[Sequence[int]], choices: Sequence[int] | None = None) -> Prompts:
    """The columns that the cost model reads are filled in; the others are zero."""
    count = len(prompts)
    tokens = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    return Prompts(
        row=np.arange(count),
        units=np.array([unit for prompt in prompts for unit in prompt], dtype=np.int32),
        offsets=np.concatenate(([0], np.cumsum(tokens, dtype=np.int64))),
        unit_tokens=1,
        prompt_tokens=tokens,
        root=np.zeros(count, dtype=np.uint64),
        cluster=np.zeros(count, dtype=np.uint64),
        bound=np.full(count, 1 << 20, dtype=np.int32),
        choices=np.array(choices or [1] * count, dtype=np.int32),
        reference=np.full(count, -1, dtype=np.int32),
        known=np.zeros(count, dtype=np.bool_),
    )


def make_lengths(mean: Sequence[float], square: Sequence[float] | None = None) -> Lengths:
    """Lengths by their means; certain where no mean squares are given."""
    means = np.array(mean, dtype=np.float64)
    return Lengths(
        mean=means,
        square=means**2 if square is None else np.array(square, dtype=np.float64),
        bound=np.full(len(means), 1 << 20, dtype=np.int32),
        source=np.zeros(len(means), dtype=np.uint8),
    )
