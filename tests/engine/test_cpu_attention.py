"""The CPU attention hooks compute what SGLang's stock code computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from blendrun.engine.cpu.attention import _alike, decode_together, extend_new_rows

pytestmark = pytest.mark.runtime

HEADS, KV_HEADS, HEAD_SIZE, SLOTS, CONTEXT = 6, 2, 16, 400, 64


def reference(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Attention of the last rows of a sequence, by the definition: (rows, heads, size)."""
    new, length = query.shape[0], keys.shape[0]
    mask = torch.ones(new, length, dtype=torch.bool).tril(length - new)
    keys, values = (tensor.repeat_interleave(HEADS // KV_HEADS, dim=1).movedim(0, 1) for tensor in (keys, values))
    return scaled_dot_product_attention(query.movedim(0, 1), keys, values, attn_mask=mask).movedim(1, 0)


def pool() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(SLOTS, KV_HEADS, HEAD_SIZE, generator=generator) for _ in range(2))
    return keys, values, torch.stack([torch.randperm(SLOTS, generator=generator)[:CONTEXT] for _ in range(5)])


def stock(*_: Any, **__: Any) -> torch.Tensor:
    raise AssertionError("plain decoder attention must not fall back")


@pytest.mark.parametrize("cached", [[0, 0], [5, 0], [40, 1], [63, 30]])
@pytest.mark.parametrize("new", [[1, 1], [1, 7], [12, 3]])
def test_extend_attends_the_new_rows_as_the_definition_says(cached: list[int], new: list[int]) -> None:
    keys, values, slots = pool()
    lengths = [min(CONTEXT, before + more) for before, more in zip(cached, new, strict=True)]
    new = [length - before for length, before in zip(lengths, cached, strict=True)]
    query = torch.randn(sum(new), HEADS, HEAD_SIZE, generator=torch.Generator().manual_seed(2))
    indices = torch.tensor([3, 1])
    output = extend_new_rows(
        stock, None, query, torch.empty_like(query), keys, values, slots, indices,
        torch.tensor(lengths), torch.tensor(cached), torch.tensor(new), enable_gqa=True, causal=True,
    )  # fmt: skip
    start = 0
    for index, length, count in zip(indices.tolist(), lengths, new, strict=True):
        places = slots[index, :length]
        expected = reference(query[start : start + count], keys[places], values[places])
        torch.testing.assert_close(output[start : start + count], expected)
        start += count


@pytest.mark.parametrize("lengths", [[1], [64, 64], [1, 2, 3], [10, 64, 12, 1, 33]])
def test_decode_together_is_decode_one_by_one(lengths: list[int]) -> None:
    keys, values, slots = pool()
    indices = torch.tensor([4, 2, 0, 1, 3][: len(lengths)])
    query = torch.randn(len(lengths), HEADS, HEAD_SIZE, generator=torch.Generator().manual_seed(3))
    output = decode_together(
        stock, None, query, torch.empty_like(query), keys, values, slots, indices, torch.tensor(lengths)
    )
    for row, (index, length) in enumerate(zip(indices.tolist(), lengths, strict=True)):
        places = slots[index, :length]
        torch.testing.assert_close(output[row : row + 1], reference(query[row : row + 1], keys[places], values[places]))


@pytest.mark.parametrize("hook", ["decode", "extend"])
def test_a_pool_of_16_bits_goes_through_torch(hook: str) -> None:
    keys, values, slots = pool()
    keys, values, slots = keys.bfloat16(), values.bfloat16(), slots.to(torch.int32)
    query = torch.randn(1, HEADS, HEAD_SIZE, generator=torch.Generator().manual_seed(3))
    given = (stock, None, query, torch.empty_like(query), keys, values, slots, torch.tensor([2]), torch.tensor([40]))
    if hook == "decode":
        output = decode_together(*given)
    else:
        output = extend_new_rows(*given, torch.tensor([39]), torch.tensor([1]), enable_gqa=True, causal=True)
    places = slots[2, :40]
    torch.testing.assert_close(output, reference(query, keys[places].float(), values[places].float()))


def test_lengths_go_in_groups_of_a_bounded_spread() -> None:
    groups = _alike([100, 10, 140, 14, 16, 1000])
    assert sorted(place for group in groups for place in group) == list(range(6))
    assert groups == [[1, 3], [4], [0, 2], [5]]
