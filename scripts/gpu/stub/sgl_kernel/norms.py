"""RMS norm, alone and behind an addition: one program a row, sums in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _norm(  # type: ignore[no-untyped-def]
    source, added, weight, target, epsilon, width, add: tl.constexpr, block: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * width
    place = tl.arange(0, block)
    inside = place < width
    value = tl.load(source + row + place, mask=inside, other=0.0).to(tl.float32)
    if add:
        value += tl.load(added + row + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(added + row + place, value.to(added.dtype.element_ty), mask=inside)
        value = value.to(added.dtype.element_ty).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + epsilon)
    scaled = value * scale * tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + row + place, scaled.to(target.dtype.element_ty), mask=inside)


def rmsnorm(
    input: torch.Tensor,  # the compiled function's name for it
    weight: torch.Tensor,
    eps: float = 1e-6,
    out: torch.Tensor | None = None,
    enable_pdl: bool | None = None,
) -> torch.Tensor:
    """Each row over its root mean square, times `weight`. input: (rows, width), rows without gaps."""
    target = torch.empty_like(input) if out is None else out
    _launch(input, input, weight, target, eps, add=False)
    return target


def fused_add_rmsnorm(
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    eps: float = 1e-6,
    enable_pdl: bool | None = None,
) -> None:
    """`residual` becomes the sum of both, `input` the norm of that sum; shapes as in `rmsnorm`."""
    _launch(input, residual, weight, input, eps, add=True)


def _launch(
    source: torch.Tensor, added: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, epsilon: float, *, add: bool
) -> None:
    width = source.shape[-1]
    rows = source.numel() // width
    if not source.is_contiguous() or not added.is_contiguous() or not target.is_contiguous():
        raise ValueError("norms want rows without gaps")
    if rows:
        block = triton.next_power_of_2(width)
        _norm[(rows,)](
            source, added, weight, target, epsilon, width, add, block, num_warps=min(max(block // 512, 1), 16)
        )
