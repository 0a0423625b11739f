"""The two levels of a cascade as FlashInfer plans them: which slots each reads, for which queries, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from blendrun.engine.cascade.groups import Groups


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One level over Q queries in B pieces, pages of one slot. All i32.

    queries: (B + 1,), where the queries of each piece begin, and Q. slots_begin: (B + 1,), the same in `slots`.
    slots: (N,), read by each piece. last: (B,), slots of each piece's last page: 1.
    """

    queries: torch.Tensor
    slots_begin: torch.Tensor
    slots: torch.Tensor
    last: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """A batch's groups on a device.

    rows: i64 (R,), rows in the order of the groups. place: i64 (R,), where each row of the batch stands in it.
    first: i32 (G + 1,). shared: i64 (G,); of_row: i64 (R,), the same by row, in the order of the groups.
    """

    rows: torch.Tensor
    place: torch.Tensor
    first: torch.Tensor
    shared: torch.Tensor
    of_row: torch.Tensor

    @classmethod
    def of(cls, groups: Groups, device: torch.device | str) -> Grouped:
        rows, first = torch.from_numpy(groups.rows), torch.from_numpy(groups.first)
        shared = torch.from_numpy(groups.shared)
        return cls(
            rows=rows.to(device),
            place=torch.argsort(rows).to(device),
            first=first.to(device, torch.int32),
            shared=shared.to(device),
            of_row=torch.repeat_interleave(shared, first[1:] - first[:-1]).to(device),
        )


def levels_of(
    grouped: Grouped, table: torch.Tensor, table_rows: torch.Tensor, lengths: torch.Tensor
) -> tuple[Level, Level]:
    """The prefixes of the groups, then the rest of each row, both over the rows in the order of the groups.

    table: i32 (T, L), slots of each request by token. table_rows: i64 (R,), of the batch's rows in `table`.
    lengths: i64 (R,), tokens of each row in the cache, the one being decoded among them.
    """
    ordered, own = table_rows[grouped.rows], lengths[grouped.rows] - grouped.of_row
    heads = ordered[grouped.first[:-1].long()]
    each = torch.arange(len(ordered) + 1, dtype=torch.int32, device=table.device)
    return (
        _level(grouped.first, table, heads, torch.zeros_like(grouped.shared), grouped.shared),
        _level(each, table, ordered, grouped.of_row, own),
    )


def _level(
    queries: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, begin: torch.Tensor, count: torch.Tensor
) -> Level:
    """begin, count: i64 (B,), which part of each row of `table` a piece reads."""
    ends = torch.cumsum(count, dim=0)
    piece = torch.repeat_interleave(torch.arange(len(count), device=table.device), count)
    place = torch.arange(len(piece), device=table.device) - (ends - count)[piece] + begin[piece]
    zero = torch.zeros(1, dtype=torch.int32, device=table.device)
    return Level(
        queries=queries,
        slots_begin=torch.cat((zero, ends.to(torch.int32))),
        slots=table[rows[piece], place].to(torch.int32),
        last=torch.ones(len(count), dtype=torch.int32, device=table.device),
    )
