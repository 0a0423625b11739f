"""What a tree may be cut into, and how much of its sharing is kept at each threshold of the cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blendrun.tree.compiled import I32_IN, I32_TABLE_IN, I64, I64_IN, compiled
from blendrun.tree.shared import SharedPrefix, least_between


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Nodes that are units at one threshold or another, in the order of the row. All (P,).

    node: i32. cut, cut_above: i32, number of the first threshold at which the node is cut, and its parent.
    inside: i64, tokens that the node saves when it is fed as a whole, beyond those in use at any time.
    stem: i32, of the nodes on its path that are not in use at any time the first one, or the node: with other stems it
    shares nothing beyond what is. head: i32, place of its first leaf. resident: i32, tokens of that leaf in use at any
    time.
    """

    node: NDArray[np.int32]
    cut: NDArray[np.int32]
    cut_above: NDArray[np.int32]
    inside: NDArray[np.int64]
    stem: NDArray[np.int32]
    head: NDArray[np.int32]
    resident: NDArray[np.int32]

    def units(self, threshold: int) -> NDArray[np.int32]:
        """Nodes of the units at a threshold, by its number."""
        return self.node[(self.cut_above <= threshold) & (self.cut > threshold)]

    def kept_tokens(self, threshold: int, prefix: SharedPrefix) -> int:
        """Tokens beyond those in use at any time that are shared inside units, or by the heads of neighbours."""
        columns = (self.cut, self.cut_above, self.inside, self.stem, self.head, self.resident)
        return int(_kept_tokens(*columns, *prefix.columns, threshold))


@compiled(I32_IN, I32_IN, I64_IN, I32_IN, I32_IN, I32_IN, I32_IN, I32_IN, I32_TABLE_IN, I64)
def _kept_tokens(
    cut: NDArray[np.int32],
    cut_above: NDArray[np.int32],
    inside: NDArray[np.int64],
    stem: NDArray[np.int32],
    head: NDArray[np.int32],
    resident: NDArray[np.int32],
    shared: NDArray[np.int32],
    length: NDArray[np.int32],
    table: NDArray[np.int32],
    threshold: int,
) -> int:
    kept, before = 0, -1
    for piece in range(len(cut)):
        if cut_above[piece] > threshold or cut[piece] <= threshold:
            continue
        kept += inside[piece]
        if before >= 0 and stem[before] == stem[piece]:
            one, other = head[before], head[piece]
            both = least_between(shared, length, table, min(one, other), max(one, other))
            kept += max(both - resident[piece], 0)
        before = piece
    return kept
