"""The compiled attention computes what the definition says, for rows that share prefixes, whatever lies around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from blendrun.engine.cpu import attention_plan
from blendrun.engine.cpu.attention import begin, decode_together, extend_new_rows
from blendrun.engine.cpu.attention_loop import MOST_ROWS, Piece

pytestmark = pytest.mark.runtime

SLOTS, REQUESTS, CONTEXT = 6000, 140, 600


class Backend:
    """What a hook is told it was called on."""


def stock(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("plain decoder attention must not fall back")


def pool(kv_heads: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(SLOTS, kv_heads, size, generator=generator) for _ in range(2))
    return keys, values


def table(shared: list[tuple[int, int]]) -> torch.Tensor:
    """Slots at random, and for (requests, tokens) as many of the next requests beginning with the same ones."""
    generator = torch.Generator().manual_seed(2)
    slots = torch.stack([torch.randperm(SLOTS, generator=generator)[:CONTEXT] for _ in range(REQUESTS)])
    first = 0
    for requests, tokens in shared:
        slots[first : first + requests, :tokens] = slots[first, :tokens]
        first += requests
    return slots.to(torch.int32)


def expected(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Attention of the last rows of a sequence in float64: (rows, heads, size)."""
    new, length, times = query.shape[0], places.shape[0], query.shape[1] // keys.shape[1]
    mask = torch.ones(new, length, dtype=torch.bool).tril(length - new)
    keys, values = (
        each[places.long()].double().repeat_interleave(times, dim=1).movedim(0, 1) for each in (keys, values)
    )
    return scaled_dot_product_attention(query.double().movedim(0, 1), keys, values, attn_mask=mask).movedim(1, 0)


def check(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=3e-6)


SHARED: dict[str, tuple[list[tuple[int, int]], list[int]]] = {
    "one": ([], [1]),
    "short": ([], [1, 2, 15, 16, 17, 63, 64, 65]),
    "none shared": ([], [600, 1, 333, 64, 128]),
    "all shared": ([(9, 500)], [501 + 7 * row for row in range(9)]),
    "two groups and a loner": ([(3, 100), (4, 577)], [600, 101, 350, 600, 578, 590, 580, 40]),
    "too little to pay": ([(6, 20)], [600, 30, 21, 22, 500, 44]),
    "more than one piece takes": ([(MOST_ROWS + 30, 96)], [97 + row % 5 for row in range(MOST_ROWS + 30)]),
}


@pytest.mark.parametrize("heads, kv_heads, size", [(9, 3, 64), (4, 4, 16), (8, 1, 80), (2, 2, 128)])
@pytest.mark.parametrize("batch", SHARED)
def test_decode(batch: str, heads: int, kv_heads: int, size: int) -> None:
    shared, lengths = SHARED[batch]
    slots, (keys, values) = table(shared), pool(kv_heads, size)
    requests = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(3))
    lengths = [lengths[request] for request in requests.tolist()]
    query = torch.randn(len(lengths), heads, size)
    output = torch.full_like(query, torch.nan)
    decode_together(stock, None, query, output, keys, values, slots, requests, torch.tensor(lengths), scaling=None)
    for row, (request, length) in enumerate(zip(requests.tolist(), lengths, strict=True)):
        check(output[row : row + 1], expected(query[row : row + 1], keys, values, slots[request, :length]))


def test_a_prefix_that_contains_another_is_read_once() -> None:
    """Ten requests share 64 slots, the first four of them 128 more: (64 + 128 + their own) of 10 lists are read."""
    slots = table([(10, 64)])
    slots[:4, 64:192] = slots[0, 64:192]
    lengths = np.full(10, 200)
    plan = attention_plan.decode(slots.numpy(), np.arange(10), lengths, kv_heads=2, threads=2)
    read = (plan.pieces[:, Piece.END] - plan.pieces[:, Piece.START]).sum()
    assert read == 64 + 128 + 4 * (200 - 192) + 6 * (200 - 64)
    assert sorted(plan.merges[:, 0].tolist()) == list(range(10))


@pytest.mark.parametrize("heads, kv_heads, size", [(9, 3, 64), (4, 4, 16), (8, 1, 80)])
@pytest.mark.parametrize(
    "cached, new", [([0], [1]), ([0, 0], [64, 65]), ([130, 0, 599], [70, 200, 1]), ([64, 1], [64, 63]), ([500], [100])]
)
def test_extend(cached: list[int], new: list[int], heads: int, kv_heads: int, size: int) -> None:
    slots, (keys, values) = table([]), pool(kv_heads, size)
    lengths = [before + more for before, more in zip(cached, new, strict=True)]
    requests = torch.arange(len(new)) + 2
    # As layers without a rotary embedding give it: a view into queries, keys and values side by side.
    query = torch.randn(sum(new), heads + 2 * kv_heads, size)[:, :heads]
    output = torch.full((sum(new), heads, size), torch.nan)
    extend_new_rows(
        stock, None, query, output, keys, values, slots, requests,
        torch.tensor(lengths), torch.tensor(cached), torch.tensor(new), enable_gqa=True, causal=True,
    )  # fmt: skip
    start = 0
    for request, length, count in zip(requests.tolist(), lengths, new, strict=True):
        rows = slice(start, start + count)
        check(output[rows], expected(query[rows], keys, values, slots[request, :length]))
        start += count


def test_large_scores_do_not_overflow() -> None:
    slots, (keys, values) = table([]), pool(2, 64)
    query = torch.randn(1, 4, 64) * 300
    output = torch.empty_like(query)
    decode_together(stock, None, query, output, keys, values, slots, torch.tensor([0]), torch.tensor([300]))
    torch.testing.assert_close(output.double(), expected(query, keys, values, slots[0, :300]), rtol=1e-3, atol=1e-3)


def test_layers_of_a_step_share_a_plan_and_steps_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[attention_plan.Plan] = []
    plan = attention_plan.decode

    def counted(*arguments: Any) -> attention_plan.Plan:
        made.append(plan(*arguments))
        return made[-1]

    monkeypatch.setattr(attention_plan, "decode", counted)
    slots, (keys, values), backend = table([]), pool(2, 64), Backend()
    lengths, requests, query = torch.tensor([10, 20]), torch.tensor([0, 1]), torch.randn(2, 4, 64)

    def layer() -> None:
        output = torch.empty_like(query)
        decode_together(stock, backend, query, output, keys, values, slots, requests, lengths)
        for row, length in enumerate(lengths.tolist()):
            check(output[row : row + 1], expected(query[row : row + 1], keys, values, slots[row, :length]))

    begin(backend)
    layer()
    layer()
    assert len(made) == 1
    lengths += 1
    begin(backend)
    layer()
    assert len(made) == 2


def test_where_nobody_tells_of_steps_nothing_is_kept() -> None:
    slots, (keys, values), backend = table([]), pool(2, 64), Backend()
    lengths, query = torch.tensor([10]), torch.randn(1, 4, 64)
    for _ in range(2):
        output = torch.empty_like(query)
        decode_together(stock, backend, query, output, keys, values, slots, torch.tensor([0]), lengths)
        check(output, expected(query, keys, values, slots[0, : int(lengths)]))
        lengths += 5
