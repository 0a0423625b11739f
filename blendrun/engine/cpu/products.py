"""Matrix products on the CPU by oneDNN, with weights in the order in which it reads them.

torch gives products of float32 matrices to MKL, which uses the longest vectors of Intel's processors only, and puts
weights in order anew at each call. oneDNN asks the processor what it can: on AMD's with AVX-512 it takes less than half
the time, and a few rows at a time a third of it, there and elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import psutil
import torch

from blendrun.engine.sglang_names import LINEAR, LM_HEAD

# oneDNN's order is for a number of rows; that for this many is as fast for any other.
_ROWS = 64
# Copies of weights that are also needed as they are: as long as they take this share of free memory at most.
_SHARE = 0.25


def hooks() -> dict[str, Callable[..., Any]]:
    """By what they go around."""
    return {LINEAR: linear, LM_HEAD: lm_head}


@cache
def works() -> bool:
    """Whether this build of torch has oneDNN, and it is right. Not to be asked before a fork: it may start threads."""
    with torch.inference_mode():
        rows, weight = torch.arange(12.0).view(3, 4), torch.arange(20.0).view(5, 4)
        try:
            return bool(torch.allclose(product(rows, packed(weight), None), rows @ weight.T))
        except (AttributeError, RuntimeError, NotImplementedError):
            return False


def packed(weight: torch.Tensor) -> torch.Tensor:
    """The weight (out, in) in oneDNN's order; of use for `product` alone."""
    result: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
    return result


def product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """(..., in) and a packed weight (out, in) to (..., out)."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return result


def linear(
    original: Callable[..., torch.Tensor], method: Any, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x (..., in) to (..., out). The first time the layer's weight gives way to the packed one.

    By then whatever SGLang makes of loaded weights is made. Who reads this one otherwise from then on gets an error of
    torch's, not wrong numbers.
    """
    if not layer.weight.is_mkldnn:
        if not _plain(layer.weight) or x.dtype != torch.float32:
            return original(method, layer, x, bias)
        with torch.inference_mode(False), torch.no_grad():
            layer.weight = torch.nn.Parameter(packed(layer.weight.data), requires_grad=False)
    return product(x, layer.weight, bias)


def lm_head(
    original: Callable[..., torch.Tensor], processor: Any, hidden: torch.Tensor, head: Any, *more: Any, **named: Any
) -> torch.Tensor:
    """hidden (rows, in) to logits (rows, vocabulary). The weight may be the embedding's, too: a copy is packed."""
    weight = getattr(head, "weight", None)
    if weight is None or hasattr(head, "set_lora") or not _plain(weight) or hidden.dtype != weight.dtype:
        return original(processor, hidden, head, *more, **named)
    copy = getattr(head, "blendrun_packed", None)
    if copy is None:
        if weight.nbytes > _SHARE * psutil.virtual_memory().available:
            return original(processor, hidden, head, *more, **named)
        copy = head.blendrun_packed = packed(weight.data)
    return product(hidden, copy, None)


def _plain(weight: torch.Tensor) -> bool:
    return (
        works()
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and not weight.is_mkldnn
        and weight.dim() == 2
    )
