"""The levels of a cascade give what attention of each row by itself gives, and read each shared slot once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from blendrun.engine.cascade.groups import groups_of
from blendrun.engine.cascade.levels import Grouped, Level, levels_of

HEADS, WIDTH = 3, 8


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[np.ndarray]]:
    """A request table with rows of documents and answers, which of it decode, and their lengths."""
    rng = np.random.default_rng(seed)
    slots = iter(rng.permutation(2000))

    def take(count: int) -> list[int]:
        return [int(next(slots)) for _ in range(count)]

    documents = [take(30), take(50)]
    lines = [documents[rng.integers(2)][: rng.integers(1, 51)] + take(int(rng.integers(1, 20))) for _ in range(8)]
    lines += [take(2), take(40)]
    table = torch.zeros((16, 80), dtype=torch.int32)
    rows = torch.from_numpy(rng.permutation(16)[: len(lines)])
    for row, line in zip(rows.tolist(), lines, strict=True):
        table[row, : len(line)] = torch.tensor(line, dtype=torch.int32)
    lengths = torch.tensor([len(line) for line in lines])
    return table, rows, lengths, [np.array(line, dtype=np.int32) for line in lines]


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one query (heads, width) over slots (n, heads, width): output and log of the sum of exponents by head."""
    scores = torch.einsum("hw,nhw->hn", query, keys) / math.sqrt(WIDTH)
    return torch.einsum("hn,nhw->hw", scores.softmax(dim=1), values), torch.logsumexp(scores, dim=1)


def run(
    level: Level, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> list[tuple[torch.Tensor, ...]]:
    found: list[tuple[torch.Tensor, ...]] = []
    for piece in range(len(level.last)):
        slots = level.slots[level.slots_begin[piece] : level.slots_begin[piece + 1]].long()
        for query in range(int(level.queries[piece]), int(level.queries[piece + 1])):
            found.append(attend(queries[query], keys[slots], values[slots]))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [1, 10, 1000])
def test_both_levels_together_are_plain_attention(seed: int, least: int) -> None:
    table, rows, lengths, lines = batch(seed)
    groups = groups_of(lines, least)
    grouped = Grouped.of(groups, "cpu")
    shared, own = levels_of(grouped, table, rows, lengths)
    torch.manual_seed(seed)
    keys, values = torch.randn(2000, HEADS, WIDTH), torch.randn(2000, HEADS, WIDTH)
    queries = torch.randn(len(lines), HEADS, WIDTH)
    merged = []
    for (one, log_one), (other, log_other) in zip(
        run(shared, queries[grouped.rows], keys, values), run(own, queries[grouped.rows], keys, values), strict=True
    ):
        weight = torch.sigmoid(log_one - log_other)[:, None]
        merged.append(weight * one + (1 - weight) * other)
    output = torch.stack(merged)[grouped.place]
    for row, line in enumerate(lines):
        slots = torch.from_numpy(line).long()
        plain, _ = attend(queries[row], keys[slots], values[slots])
        torch.testing.assert_close(output[row], plain, rtol=1e-4, atol=1e-5)
    assert len(shared.slots) + len(own.slots) == int(lengths.sum()) - groups.spared
    assert (torch.diff(own.slots_begin) > 0).all()
    assert (torch.diff(shared.slots_begin) > 0).all()


def test_answers_grow_behind_the_same_groups() -> None:
    table, rows, lengths, lines = batch(1)
    grouped = Grouped.of(groups_of(lines, 10), "cpu")
    before = levels_of(grouped, table, rows, lengths)
    after = levels_of(grouped, table, rows, lengths + 1)
    assert torch.equal(before[0].slots, after[0].slots)
    assert len(after[1].slots) == len(before[1].slots) + len(lines)
