"""What a tree may be cut into, and how much of its sharing is kept at each threshold of the cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blendrun.blend.stems import Stems
from blendrun.tree.compiled import I32_IN, I32_TABLE_IN, I64, compiled
from blendrun.tree.shared import least_between

# Records, so that putting pieces into another order goes to memory once for each and not once for each column.
PIECE = np.dtype(
    [
        *(("node", "i4"), ("cut", "i4"), ("cut_above", "i4"), ("stem", "i4"), ("head", "i4"), ("resident", "i4")),
        ("inside", "i8"),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Nodes that are units at one threshold or another.

    records: PIECE (P,), in the tree's order or, `put` so, in that of the row.
        cut, cut_above: number of the first threshold at which the node is cut, and its parent.
        inside: tokens that the node saves when it is fed as a whole, beyond those in use at any time.
        stem: as of `Stems`. head: place of its first leaf. resident: tokens of that leaf in use at any time.
    """

    records: NDArray[Any]

    def put(self, order: NDArray[np.int64]) -> Pieces:
        """In another order: i64 (P,), places."""
        # Rows of numbers are copied as one piece of memory, records field by field.
        whole = self.records.view(np.int64).reshape(-1, PIECE.itemsize // 8)
        return Pieces(whole.take(order, axis=0).reshape(-1).view(PIECE))

    def units(self, threshold: int) -> NDArray[np.int32]:
        """Nodes of the units at a threshold, by its number."""
        each = self.records
        nodes: NDArray[np.int32] = each["node"][(each["cut_above"] <= threshold) & (each["cut"] > threshold)]
        return nodes

    def kept_tokens(self, threshold: int, stems: Stems) -> int:
        """Tokens beyond those in use at any time that are shared inside units, or by the heads of neighbours."""
        return int(_kept_tokens(self.records, *stems.columns, threshold))


@compiled(PIECE, I32_IN, I32_IN, I32_TABLE_IN, I32_TABLE_IN, I64)
def _kept_tokens(
    pieces: NDArray[Any],
    shared: NDArray[np.int32],
    length: NDArray[np.int32],
    sides: NDArray[np.int32],
    table: NDArray[np.int32],
    threshold: int,
) -> int:
    kept, before = 0, -1
    for piece in range(len(pieces)):
        if pieces[piece].cut_above > threshold or pieces[piece].cut <= threshold:
            continue
        kept += pieces[piece].inside
        if before >= 0 and pieces[before].stem == pieces[piece].stem:
            one, other = pieces[before].head, pieces[piece].head
            both = least_between(shared, length, sides, table, min(one, other), max(one, other))
            kept += max(both - pieces[piece].resident, 0)
        before = piece
    return kept
