"""The leaves of SGLang's tree that may be evicted, in the order in which they go.

SGLang's Python tree keeps them in a set, and puts all of them in order at each eviction; a full pool evicts at every
step. Here the set keeps its order from one eviction to the next. A leaf's value may have grown since it was put in:
that is found out when its turn comes. One that shrinks has to be added again, as the tree does with what it unlocks:
a node that an insert passes and marks anew is locked by the request whose tokens are inserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any

# Entries of leaves that are none any more are cleared out when they are as many as the others, and at least these.
_SPARE = 1024


class Leaves(set[Any]):
    """A set of nodes that knows its smallest."""

    def __init__(self, nodes: Iterable[Any], value: Callable[[Any], Any]) -> None:
        """value: of a node; those that change while it is in the set may only grow."""
        super().__init__(nodes)
        self._value = value
        self._put_in_order()

    def add(self, node: Any, /) -> None:
        super().add(node)
        value, known = self._value(node), self._values.get(node)
        if known is None or value < known:
            self._values[node] = value
            heappush(self._heap, (value, node))
            if len(self._heap) > 2 * len(self) + _SPARE:
                self._put_in_order()

    def first(self) -> tuple[Any, Any] | None:
        """The smallest value, and its node; None where the set is empty."""
        heap, values = self._heap, self._values
        while heap:
            value, node = heap[0]
            if node in self and values.get(node) == value:
                now = self._value(node)
                if now == value:
                    return heap[0]
                values[node] = now
                heapreplace(heap, (now, node))
                continue
            heappop(heap)
            if node not in self:
                values.pop(node, None)
        return None

    def _put_in_order(self) -> None:
        self._values = {node: self._value(node) for node in self}
        self._heap = [(value, node) for node, value in self._values.items()]
        heapify(self._heap)
