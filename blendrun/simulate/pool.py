"""The KV pool as a radix cache: what is held, what may be evicted, what can be used."""

from __future__ import annotations

from typing import Any

import numpy as np

from blendrun.simulate.state import ABSENT, COMING, HOSTED, READY, Number, Truth
from blendrun.tree.compiled import inlined

# What nothing runs on stands in one of two rings by age, the oldest next to the ring's head. A node's last use is never
# before that of a node below it, so what is evicted first has nothing cached below. The ring of what no waiting request
# can use goes first; where the next use is not known, it stays empty.


@inlined
def useless(nodes: Any) -> Number:
    return len(nodes) - 2


@inlined
def useful(nodes: Any) -> Number:
    return len(nodes) - 1


@inlined
def size_of(nodes: Any, node: Number) -> Number:
    return nodes[node].depth - nodes[nodes[node].parent].depth


@inlined
def put_newest(nodes: Any, ring: Number, node: Number) -> None:
    newest = nodes[ring].older
    nodes[node].older, nodes[node].newer = newest, ring
    nodes[newest].newer, nodes[ring].older = node, node


@inlined
def evict(state: Any, nodes: Any) -> None:
    """Drop what nothing runs on until the pool is no more than full, or nothing is left to drop."""
    while state.used > state.pool:
        node = nodes[useless(nodes)].newer
        if node == useless(nodes):
            node = nodes[useful(nodes)].newer
            if node == useful(nodes):
                return
        gone = nodes[node].kept
        if gone > 0:
            # An answer stands behind its prompt and goes before it.
            nodes[node].kept = 0
        else:
            gone = size_of(nodes, node)
            nodes[node].state = ABSENT
            if nodes[node].waiting > 0 and state.hosted + gone <= state.host:
                nodes[node].state = HOSTED
                state.hosted += gone
            older, newer = nodes[node].older, nodes[node].newer
            nodes[older].newer, nodes[newer].older = newer, older
        state.used -= gone
        state.evictable -= gone


@inlined
def lock(state: Any, nodes: Any, leaf: Number) -> None:
    """Hold the path of a request; what is absent begins to come, and what the host has comes back.

    Room for it is made when all of a step are chosen.
    """
    node, usable = leaf, np.int32(0)
    if state.host > 0:
        usable = usable_tokens(nodes, leaf)
    while node > 0:
        if nodes[node].refs == 0:
            if nodes[node].state == ABSENT or nodes[node].state == HOSTED:
                if nodes[node].state == HOSTED:
                    state.hosted -= size_of(nodes, node)
                if nodes[node].depth <= usable:
                    nodes[node].state = READY
                    state.loading += size_of(nodes, node)
                else:
                    nodes[node].state, nodes[node].part = COMING, 0
                state.used += size_of(nodes, node)
            else:
                older, newer = nodes[node].older, nodes[node].newer
                nodes[older].newer, nodes[newer].older = newer, older
                state.evictable -= size_of(nodes, node)
        nodes[node].refs += 1
        nodes[node].waiting -= 1
        node = nodes[node].parent


@inlined
def unlock(state: Any, nodes: Any, leaf: Number, again: Number) -> None:
    """Let go of a path whose prefill is over. again: 1 where its request will come back, else 0."""
    node = leaf
    while node > 0:
        nodes[node].refs -= 1
        nodes[node].waiting += again
        if nodes[node].refs == 0:
            state.evictable += size_of(nodes, node) + nodes[node].kept
            idle = state.next_use and nodes[node].waiting == 0
            put_newest(nodes, useless(nodes) if idle else useful(nodes), node)
        node = nodes[node].parent


@inlined
def touch(nodes: Any, leaf: Number) -> None:
    """Count what is usable of a path as just used."""
    node = leaf
    while node > 0 and nodes[node].state != READY:
        node = nodes[node].parent
    while node > 0 and nodes[node].refs == 0:
        older, newer = nodes[node].older, nodes[node].newer
        nodes[older].newer, nodes[newer].older = newer, older
        put_newest(nodes, useful(nodes), node)
        node = nodes[node].parent


@inlined
def share_reads(state: Any, nodes: Any, leaf: Number, rows: Number) -> None:
    """Count rows that decode behind a path, or (below 0) no longer do: of a segment, all but one read nothing."""
    node = leaf
    while state.shared > 0 and node > 0:
        size = size_of(nodes, node)
        if size >= state.shared:
            before = nodes[node].rows
            nodes[node].rows = before + rows
            state.spared += size * (max(before + rows - 1, 0) - max(before - 1, 0))
        node = nodes[node].parent


@inlined
def publish(nodes: Any, leaf: Number, depth: Number) -> None:
    """Make usable what is computed of a path: its first `depth` tokens."""
    node = leaf
    while node > 0 and nodes[node].state != READY:
        # What has been dropped since it was computed stays away.
        if nodes[node].state == COMING:
            if nodes[node].depth <= depth:
                nodes[node].state = READY
            elif nodes[nodes[node].parent].depth < depth:
                nodes[node].part = max(nodes[node].part, depth)
        node = nodes[node].parent


@inlined
def absent_tokens(nodes: Any, leaf: Number) -> Number:
    """Prompt tokens of a path that are neither in the pool nor being computed."""
    node = leaf
    while node > 0 and nodes[node].state == ABSENT:
        node = nodes[node].parent
    return nodes[leaf].depth - nodes[node].depth


@inlined
def usable_tokens(nodes: Any, leaf: Number) -> Number:
    """Prompt tokens of a path that are computed and in the pool, or behind that in the host's memory.

    A part of a prefix that is half in is included.
    """
    node, end, part = leaf, leaf, np.int32(0)
    while node > 0 and nodes[node].state != READY:
        if nodes[node].state != HOSTED:
            end = nodes[node].parent
            part = nodes[node].part if nodes[node].state == COMING else np.int32(0)
        node = nodes[node].parent
    return max(nodes[end].depth, part)


@inlined
def unheld_tokens(nodes: Any, leaf: Number) -> Number:
    """Prompt tokens of a path that nothing running holds."""
    node = leaf
    while node > 0 and nodes[node].refs == 0:
        node = nodes[node].parent
    return nodes[leaf].depth - nodes[node].depth


@inlined
def is_coming(nodes: Any, leaf: Number, worth: Number) -> Truth:
    """Whether a prefill in flight computes `worth` tokens (1 or more) that this path could use."""
    node, end = leaf, np.int64(0)
    while node > 0 and nodes[node].state != READY:
        if end == 0 and nodes[node].state == COMING:
            end = nodes[node].depth
        node = nodes[node].parent
    return end - usable_tokens(nodes, leaf) >= worth
