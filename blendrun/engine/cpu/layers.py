"""What a layer does to each token by itself, in one pass over its values: RMS norm, rotary embedding, gated SiLU.

SGLang's plain code takes five to ten passes of torch for each, and as many calls. It still runs for other kinds of
numbers, and for other forms of these layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import carray
from numpy.typing import NDArray

from blendrun.engine.cpu import team
from blendrun.engine.cpu.arithmetic import exp_of_negative
from blendrun.engine.cpu.instructions import fetch_add, pointer, real_of
from blendrun.engine.sglang_names import NORM, ROTARY, SILU
from blendrun.tree.compiled import I64, Kernel, compiled, inlined, reordered

Reals = NDArray[np.float32]

# Below so many values the threads' start takes longer than the work.
_ALONE = 1 << 16
_PIECES_A_THREAD = 4
_REAL = 4
_F = np.float32
_ZERO, _ONE = _F(0), _F(1)
# Places in a job: the counter, rows in all, rows of a piece, then what each loop needs.
_ROWS, _PIECE, _FIRST, _JOB = 1, 2, 3, 10


def hooks() -> dict[str, Callable[..., Any]]:
    """By what they go around; none where torch's threads are not to be had."""
    return {} if team.starter() is None else {NORM: norm, ROTARY: rotary, SILU: silu}


def norm(
    original: Callable[..., Any],
    layer: Any,
    x: torch.Tensor,
    residual: torch.Tensor | None = None,
    *more: Any,
    **named: Any,
) -> Any:
    """x (rows, width), normed, and with a residual (alike) the sum of both, from which the norm is taken."""
    added = more[0] if more else named.get("post_residual_addition")
    given = (x, layer.weight) if residual is None else (x, layer.weight, residual)
    if added is not None or layer.variance_size_override is not None or not _plain(*given) or x.dim() != 2:
        return original(layer, x, residual, *more, **named)
    if x.shape[1] != layer.weight.shape[0] or (residual is not None and residual.shape != x.shape):
        return original(layer, x, residual, *more, **named)
    out = torch.empty_like(x)
    total = out if residual is None else torch.empty_like(x)
    others = (0, 0) if residual is None else (residual.data_ptr(), total.data_ptr())
    _run(
        _norm_rows,
        *x.shape,
        x.data_ptr(),
        *others,
        layer.weight.data_ptr(),
        out.data_ptr(),
        _bits(layer.variance_epsilon),
    )
    return out if residual is None else (out, total)


def silu(original: Callable[..., torch.Tensor], layer: Any, x: torch.Tensor) -> torch.Tensor:
    """x (rows, 2 * width): SiLU of the first half of each row times the second."""
    if x.dim() != 2 or not _plain(x):
        return original(layer, x)
    width = x.shape[1] // 2
    out = x.new_empty(x.shape[0], width)
    _run(_silu_rows, x.shape[0], width, x.data_ptr(), out.data_ptr())
    return out


def rotary(
    original: Callable[..., Any],
    layer: Any,
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    *more: Any,
    **named: Any,
) -> Any:
    """query, key (rows, heads * head size), turned by the row's position."""
    size, turns = layer.head_size, layer.cos_sin_cache
    known = not more and not any(value is not None for value in named.values()) and not hasattr(layer, "sin_cos_cache")
    if not (
        known and layer.is_neox_style and layer.rotary_dim == size and _turnable(positions, query, key, turns, size)
    ):
        return original(layer, positions, query, key, *more, **named)
    new_query, new_key = query.new_empty(query.shape), key.new_empty(key.shape)
    for old, new in ((query, new_query), (key, new_key)):
        _run(
            _turn_rows,
            *old.shape,
            old.data_ptr(),
            old.stride(0),
            new.data_ptr(),
            positions.data_ptr(),
            turns.data_ptr(),
            size,
        )
    return new_query, new_key


def _turnable(positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor, turns: torch.Tensor, size: int) -> bool:
    return (
        positions.dim() == 1
        and positions.dtype == torch.int64
        and positions.is_contiguous()
        and _plain(turns)
        and size % 2 == 0
        and all(
            each.dtype == torch.float32 and each.dim() == 2 and each.stride(1) == 1 and each.shape[1] % size == 0
            for each in (query, key)
        )
    )


def _plain(*tensors: torch.Tensor) -> bool:
    return all(each.dtype == torch.float32 and each.device.type == "cpu" and each.is_contiguous() for each in tensors)


def _run(loop: Kernel[..., Any], rows: int, *arguments: int) -> None:
    """A loop over `rows`, whose width is the first argument: here, or on all threads where that pays."""
    job = team.new_job(_JOB)
    job[_ROWS] = rows
    job[_FIRST : _FIRST + len(arguments)] = list(arguments)
    if rows * arguments[0] < _ALONE:
        job[_PIECE] = rows
        team.run_alone(loop.address, job)
    else:
        threads = torch.get_num_threads()
        job[_PIECE] = -(-rows // (_PIECES_A_THREAD * threads))
        team.run(loop.address, job, threads)


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


@inlined
def _reals(address: int, offset: int, count: int) -> Any:
    return carray(pointer(address + _REAL * offset), (count,), _F)


@inlined
def _next_rows(address: int, job: NDArray[np.int64]) -> tuple[int, int]:
    """A range of rows that no other thread has; empty at the end."""
    start = fetch_add(address, job[_PIECE])
    return start, min(start + job[_PIECE], job[_ROWS])


@reordered
def _squares(x: Reals, width: int) -> np.float32:
    total = _ZERO
    for i in range(width):
        total += x[i] * x[i]
    return total


@compiled(I64)
def _norm_rows(address: int) -> int:
    """Job: width, addresses of x, residual or 0, sums, weight and what comes out, epsilon's bits."""
    job = carray(pointer(address), (_JOB,), np.int64)
    width, x, residual, sums, weight_s, out = job[_FIRST : _FIRST + 6]
    epsilon, weight = real_of(np.int32(job[_FIRST + 6])), _reals(weight_s, 0, width)
    while True:
        start, end = _next_rows(address, job)
        if start >= end:
            return 0
        for row in range(start, end):
            values = _reals(x, row * width, width)
            if residual:
                total, more = _reals(sums, row * width, width), _reals(residual, row * width, width)
                for i in range(width):
                    total[i] = values[i] + more[i]
                values = total
            factor = _ONE / np.sqrt(_squares(values, width) / _F(width) + epsilon)
            result = _reals(out, row * width, width)
            for i in range(width):
                result[i] = values[i] * factor * weight[i]


@compiled(I64)
def _silu_rows(address: int) -> int:
    """Job: width, addresses of x and what comes out."""
    job = carray(pointer(address), (_JOB,), np.int64)
    width, x, out = job[_FIRST : _FIRST + 3]
    while True:
        start, end = _next_rows(address, job)
        if start >= end:
            return 0
        for row in range(start, end):
            _silu_row(
                _reals(x, 2 * row * width, width),
                _reals(x, (2 * row + 1) * width, width),
                _reals(out, row * width, width),
            )


@inlined
def _silu_row(gate: Reals, value: Reals, result: Reals) -> None:
    for i in range(result.size):
        e = exp_of_negative(-abs(gate[i]))
        above = _ONE if gate[i] > _ZERO else e
        result[i] = gate[i] * above / (_ONE + e) * value[i]


@compiled(I64)
def _turn_rows(address: int) -> int:
    """Job: width, address and stride of x, addresses of what comes out, of positions and of turns, head size."""
    job = carray(pointer(address), (_JOB,), np.int64)
    width, x, stride, out, positions_s, turns, size = job[_FIRST : _FIRST + 7]
    positions, half = carray(pointer(positions_s), (job[_ROWS],), np.int64), size // 2
    while True:
        start, end = _next_rows(address, job)
        if start >= end:
            return 0
        for row in range(start, end):
            cosines, sines = (
                _reals(turns, positions[row] * size, half),
                _reals(turns, positions[row] * size + half, half),
            )
            for head in range(0, width, size):
                _turn_head(
                    _reals(x, row * stride + head, half), _reals(x, row * stride + head + half, half), cosines, sines,
                    _reals(out, row * width + head, half), _reals(out, row * width + head + half, half),
                )  # fmt: skip


@inlined
def _turn_head(one: Reals, other: Reals, cosines: Reals, sines: Reals, new_one: Reals, new_other: Reals) -> None:
    for i in range(one.size):
        a, b = one[i], other[i]
        new_one[i] = a * cosines[i] - b * sines[i]
        new_other[i] = b * cosines[i] + a * sines[i]
