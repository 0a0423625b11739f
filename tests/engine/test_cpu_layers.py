"""What the CPU runtime puts in place of torch's products and SGLang's plain layers computes the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import linear as torch_linear
from torch.nn.functional import silu as torch_silu

from blendrun.engine.cpu import layers, products

pytestmark = pytest.mark.runtime

# Alone, and on several threads.
ROWS = [1, 5, 700]


def stock(*_: Any, **__: Any) -> Any:
    raise AssertionError("float32 must not fall back")


def is_stock(*_: Any, **__: Any) -> str:
    return "stock"


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bias", [False, True])
def test_products(rows: int, bias: bool) -> None:
    layer = SimpleNamespace(weight=torch.nn.Parameter(torch.randn(96, 40), requires_grad=False))
    x, more = torch.randn(rows, 40), torch.randn(96) if bias else None
    expected = torch_linear(x.double(), layer.weight.double(), None if more is None else more.double())
    for _ in range(2):
        found = products.linear(stock, None, layer, x, more)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
        assert layer.weight.is_mkldnn and layer.weight.shape == (96, 40)


def test_a_packed_weight_cannot_be_read_by_mistake() -> None:
    weight = products.packed(torch.randn(96, 40))
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch_linear(torch.randn(2, 40), weight)


def test_weights_of_16_bits_stay_as_they_are() -> None:
    layer = SimpleNamespace(weight=torch.nn.Parameter(torch.randn(96, 40).bfloat16(), requires_grad=False))
    assert products.linear(is_stock, None, layer, torch.randn(2, 40).bfloat16()) == "stock"
    assert not layer.weight.is_mkldnn


def test_logits_and_the_embedding_share_a_weight() -> None:
    head, hidden = SimpleNamespace(weight=torch.randn(300, 40)), torch.randn(3, 40)
    for _ in range(2):
        logits = products.lm_head(stock, None, hidden, head, None)
        torch.testing.assert_close(logits, hidden @ head.weight.T, rtol=1e-4, atol=1e-4)
    assert not head.weight.is_mkldnn


def test_adapters_on_the_logits_are_left_to_sglang() -> None:
    head = SimpleNamespace(weight=torch.randn(300, 40), set_lora=None)
    assert products.lm_head(is_stock, None, torch.randn(3, 40), head) == "stock"


@pytest.mark.parametrize("rows", ROWS)
def test_norm(rows: int) -> None:
    x, residual, weight = torch.randn(rows, 200) * 3, torch.randn(rows, 200), torch.randn(200)
    layer = SimpleNamespace(weight=weight, variance_size_override=None, variance_epsilon=1e-5)

    def expected(x: torch.Tensor) -> torch.Tensor:
        return (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight.double()).float()

    before = x.clone()
    torch.testing.assert_close(layers.norm(stock, layer, x), expected(x.double()), rtol=1e-5, atol=1e-6)
    normed, total = layers.norm(stock, layer, x, residual)
    torch.testing.assert_close(total, x + residual, rtol=0, atol=0)
    torch.testing.assert_close(normed, expected((x + residual).double()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_forms_of_the_norm_that_are_sglangs() -> None:
    plain = {"weight": torch.randn(8), "variance_size_override": None, "variance_epsilon": 1e-5}
    x = torch.randn(2, 8)
    assert layers.norm(is_stock, SimpleNamespace(**plain), x, x, x) == "stock"
    assert layers.norm(is_stock, SimpleNamespace(**plain), x, post_residual_addition=x) == "stock"
    assert layers.norm(is_stock, SimpleNamespace(**plain | {"variance_size_override": 4}), x) == "stock"
    assert layers.norm(is_stock, SimpleNamespace(**plain), x.bfloat16()) == "stock"


@pytest.mark.parametrize("rows", ROWS)
def test_gated_silu(rows: int) -> None:
    x = torch.randn(rows, 2 * 120) * 10
    x[0, :4] = torch.tensor([0.0, -200.0, 200.0, -0.0])
    expected = torch_silu(x[:, :120].double()) * x[:, 120:].double()
    torch.testing.assert_close(layers.silu(stock, None, x).double(), expected, rtol=1e-5, atol=1e-6)


def turned(x: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor, size: int) -> torch.Tensor:
    cosines, sines = cache[positions].unsqueeze(1).chunk(2, -1)
    one, other = x.reshape(x.shape[0], -1, size).chunk(2, -1)
    return torch.cat((one * cosines - other * sines, other * cosines + one * sines), -1).reshape(x.shape)


@pytest.mark.parametrize("rows", ROWS)
def test_rotary(rows: int) -> None:
    angles = torch.outer(torch.arange(900.0), 10000 ** -(torch.arange(0, 32, 2) / 32))
    layer = SimpleNamespace(head_size=32, rotary_dim=32, is_neox_style=True)
    layer.cos_sin_cache = torch.cat((angles.cos(), angles.sin()), -1)
    # As layers give them: side by side with the values.
    query, key, _ = torch.randn(rows, 32 * 8).split((32 * 4, 32 * 2, 32 * 2), -1)
    positions = torch.randint(0, 900, (rows,))
    for found, x in zip(layers.rotary(stock, layer, positions, query, key), (query, key), strict=True):
        torch.testing.assert_close(found, turned(x, positions, layer.cos_sin_cache, 32), rtol=1e-6, atol=1e-6)
    layer.is_neox_style = False
    assert layers.rotary(is_stock, layer, positions, query, key) == "stock"
    layer.is_neox_style, layer.rotary_dim = True, 16
    assert layers.rotary(is_stock, layer, positions, query, key) == "stock"
