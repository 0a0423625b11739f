"""Prompts made of plain lists, and what a tree over them should be, worked out slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

# (root, unit, place in the unit), or (root, "own", number of the prompt, place).
Token = tuple[Any, ...]


def prompts_of(
    units: Sequence[Sequence[int]],
    *,
    unit_tokens: int = 1,
    prompt_tokens: Sequence[int] | None = None,
    root: Sequence[int] | None = None,
) -> Prompts:
    count = len(units)
    lengths = [len(each) for each in units]
    tokens = [length * unit_tokens for length in lengths] if prompt_tokens is None else prompt_tokens
    return Prompts(
        row=np.arange(count, dtype=np.int64),
        units=np.array([unit for each in units for unit in each], dtype=np.int32),
        offsets=np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
        unit_tokens=unit_tokens,
        prompt_tokens=np.array(tokens, dtype=np.int32),
        root=np.array([0] * count if root is None else root, dtype=np.uint64),
        cluster=np.zeros(count, dtype=np.uint64),
        bound=np.ones(count, dtype=np.int32),
        choices=np.ones(count, dtype=np.int32),
        reference=np.full(count, -1, dtype=np.int32),
        known=np.zeros(count, dtype=np.bool_),
    )


# Few different units and short prompts: long shared prefixes, copies, prompts within prompts and empty ones abound.
unit_lists = st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=24)


def token_strings(prompts: Prompts) -> list[tuple[Token, ...]]:
    """Each prompt as its tokens, each of which knows its root; tokens that no unit accounts for are nobody else's."""
    strings: list[tuple[Token, ...]] = []
    for number in range(len(prompts)):
        units = prompts.units[prompts.offsets[number] : prompts.offsets[number + 1]].tolist()
        root, length = int(prompts.root[number]), int(prompts.prompt_tokens[number])
        known = [(root, unit, place) for unit in units for place in range(prompts.unit_tokens)][:length]
        strings.append((*known, *((root, "own", number, place) for place in range(length - len(known)))))
    return strings


def common(a: Sequence[object], b: Sequence[object]) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


def paths(tree: PrefixTree, strings: Sequence[tuple[Token, ...]]) -> list[tuple[Token, ...]]:
    """For each leaf its tokens, put together from the segments of the nodes above; segments are read from the first
    prompt of each node, so they are right only where all its prompts agree."""
    result = []
    for leaf in tree.leaf.tolist():
        path: tuple[Token, ...] = ()
        node = leaf
        while node >= 0:
            first = strings[tree.prompt[tree.leaf_begin[node]]]
            path = first[tree.start[node] : tree.depth[node]] + path
            node = int(tree.parent[node])
        result.append(path)
    return result


def same_arrays(a: PrefixTree, b: PrefixTree) -> bool:
    names = ("parent", "end", "start", "depth", "leaf_begin", "leaf_end", "leaf", "prompt", "shared")
    pairs = [(getattr(a, name), getattr(b, name)) for name in names]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)
