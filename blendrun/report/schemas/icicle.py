"""The prefix tree cut down to what a picture can show: an icicle, in which small neighbours stand as one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.cost.base import Demand, Machine
from blendrun.report.schemas.prefix_text import PrefixTexts
from blendrun.tree.base import PrefixTree

_NODES = 400
# Narrower nodes than this part of the job are no wider than a pixel.
_NARROWEST = 1 / 1500


@dataclass(frozen=True, slots=True)
class IcicleNode:
    """A prefix, or several small ones below one parent (`merged` of them, `node` -1).

    node, end: its range in the tree's depth-first order. level: 0 for the root. begin: requests to its left.
    requests: that have it. segment_tokens: of its own segment; of merged ones, own prompt tokens a request.
    depth: tokens to its end. saved_tokens: by sharing its segment. density: compute over memory seconds of all below
    it, null where nothing is decoded. example: the first request that has it. text: how its own segment begins, as the
    request gives it; empty for merged ones, for what a chat template puts first, and where no text is known.
    """

    node: int
    end: int
    level: int
    begin: int
    requests: int
    segment_tokens: float
    depth: int
    saved_tokens: int
    density: float | None
    example: str
    merged: int = 0
    text: str = ""


def icicle(
    tree: PrefixTree,
    demand: Demand,
    machine: Machine,
    name: Callable[[int], str],
    limit: int = _NODES,
    words: Callable[[int], str] = lambda _: "",
) -> tuple[IcicleNode, ...]:
    """At most about `limit` nodes and as many merged ones, parents before children. name, words: of a prompt number,
    what it is called and its text.
    """
    return tuple(_Icicle(tree, demand, machine, name, PrefixTexts(tree, words)).nodes(limit))


class _Icicle:
    def __init__(
        self, tree: PrefixTree, demand: Demand, machine: Machine, name: Callable[[int], str], texts: PrefixTexts
    ) -> None:
        self._tree, self._name, self._texts = tree, name, texts
        self._requests = (tree.leaf_end - tree.leaf_begin).astype(np.int64)
        self._own = demand.flops / machine.flops, demand.kv_bytes / machine.bandwidth
        self._below = tree.subtree_sum(self._own[0]), tree.subtree_sum(self._own[1])
        self._tokens = tree.subtree_sum(tree.segment.astype(np.float64))
        self._children = np.bincount(tree.parent[1:], minlength=len(tree))
        self._found: list[IcicleNode] = []

    def nodes(self, limit: int) -> list[IcicleNode]:
        kept = self._kept(limit)
        below: dict[int, list[int]] = {}
        for node in kept.tolist()[1:]:
            # With a node its parents are kept.
            below.setdefault(int(self._tree.parent[node]), []).append(node)
        waiting = [(0, 0, 0)]
        while waiting:
            node, level, begin = waiting.pop()
            self._found.append(self._node(node, level, begin))
            at = begin
            children = below.get(node, [])
            for child in children:
                waiting.append((child, level + 1, at))
                at += int(self._requests[child])
            self._merge(node, level + 1, at, children)
        return sorted(self._found, key=lambda each: (each.level, each.begin))

    def _kept(self, limit: int) -> NDArray[np.int64]:
        tree = self._tree
        area = self._requests * tree.segment
        area[self._requests < tree.prompts * _NARROWEST] = 0
        kept = np.zeros(len(tree), dtype=np.bool_)
        kept[0] = True
        heavy = np.argsort(-area, kind="stable")[:limit]
        for node in heavy[area[heavy] > 0].tolist():
            while not kept[node]:
                kept[node] = True
                node = int(tree.parent[node])
        return np.flatnonzero(kept)

    def _node(self, node: int, level: int, begin: int) -> IcicleNode:
        tree, requests = self._tree, int(self._requests[node])
        segment = int(tree.depth[node] - tree.start[node])
        return IcicleNode(
            node=node,
            end=int(tree.end[node]),
            level=level,
            begin=begin,
            requests=requests,
            segment_tokens=segment,
            depth=int(tree.depth[node]),
            saved_tokens=(requests - 1) * segment,
            density=_density(self._below[0][node], self._below[1][node]),
            example=self._name(int(tree.prompt[tree.leaf_begin[node]])) if requests else "",
            text=self._texts.of(node) if requests else "",
        )

    def _merge(self, node: int, level: int, begin: int, kept: list[int]) -> None:
        """What is below `node` and not in `kept`, as one."""
        requests = int(self._requests[node]) - sum(int(self._requests[child]) for child in kept)
        count = int(self._children[node]) - len(kept)
        if requests <= 0 or count <= 0:
            return
        first = self._first_other(node, kept)
        compute, memory = (
            float(below[node] - own[node] - sum(below[child] for child in kept))
            for below, own in zip(self._below, self._own, strict=True)
        )
        segment = int(self._tree.depth[node] - self._tree.start[node])
        tokens = float(self._tokens[node] - segment - sum(self._tokens[child] for child in kept))
        self._found.append(
            IcicleNode(
                node=-1,
                end=-1,
                level=level,
                begin=begin,
                requests=requests,
                segment_tokens=round(tokens / requests, 1),
                depth=int(self._tree.depth[node]) + round(tokens / requests),
                saved_tokens=0,
                density=_density(compute, memory),
                example=self._name(int(self._tree.prompt[self._tree.leaf_begin[first]])),
                merged=count,
            )
        )

    def _first_other(self, node: int, kept: list[int]) -> int:
        """The first child of `node` that is not in `kept`."""
        child, known = node + 1, set(kept)
        while child in known:
            child = int(self._tree.end[child])
        return child


def _density(compute: float, memory: float) -> float | None:
    if memory <= 0 or not math.isfinite(compute / memory):
        return None
    return float(f"{max(compute, 0.0) / memory:.4g}")
