"""What loops compiled by Numba need and its Python has no word for: memory by its address, vectors, atomic counters.

Addresses are integers, and lengths and strides count float32 values, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

# Values of a vector as the products below are written. Where the machine's are shorter, LLVM makes several of one.
LANES = 16
_REAL, _WORD, _SHORT = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_REAL, LANES)


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def fetch_add(_: Any, address: Any, more: Any) -> Any:
    """The integer at `address` (of 64 bits), to which `more` is added at the same moment, whichever threads do so."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), write


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def pointer(_: Any, address: Any) -> Any:
    """The address, for `numba.carray`."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), write


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def prefetch(_: Any, address: Any) -> Any:
    """Have the processor fetch the 64 bytes around the address; an address of nothing does no harm."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _SHORT, _SHORT, _SHORT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To read, into the second level of caches, data.
        place = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        builder.call(function, [place, *(ir.Constant(_SHORT, value) for value in (0, 2, 1))])
        return arguments[0]

    return types.int64(types.int64), write


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def real_of(_: Any, bits: Any) -> Any:
    """The float32 that has these bits (i32)."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _REAL)

    return types.float32(types.int32), write


@intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
def turn(_: Any, columns: Any, stride: Any, rows: Any, row_stride: Any, places: Any, last: Any) -> Any:
    """16 rows, cut to 16 values, become columns: columns[j * stride + i] = rows[places[i] * row_stride + j].

    columns, rows: addresses. places: address of integers of 64 bits. last: the place that all behind it stand for.
    """

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        columns, stride, rows, row_stride, places, last = arguments
        lines = []
        for i in range(LANES):
            number = ir.Constant(_WORD, i)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            place = builder.load(_at(builder, places, number, _WORD, 8))
            lines.append(builder.load(_at(builder, rows, builder.mul(place, row_stride), _VECTOR), align=4))
        # Four perfect shuffles: each deals two halves of the rows into one another.
        low = [half * LANES + i for i in range(LANES // 2) for half in (0, 1)]
        masks = [
            ir.Constant(ir.VectorType(_SHORT, LANES), [place + start for place in low]) for start in (0, LANES // 2)
        ]
        for _ in range(LANES.bit_length() - 1):
            pairs = zip(lines[: LANES // 2], lines[LANES // 2 :], strict=True)
            lines = [builder.shuffle_vector(one, other, mask) for one, other in pairs for mask in masks]
        for j, line in enumerate(lines):
            place = _at(builder, columns, builder.mul(stride, ir.Constant(_WORD, j)), _VECTOR)
            builder.store(line, place, align=4)
        return ir.Constant(_WORD, 0)

    return types.int64(*(types.int64,) * 6), write


def _at(builder: Any, base: Any, offset: Any, kind: Any, width: int = 4) -> Any:
    """A pointer `offset` values of so many bytes behind an address."""
    return builder.inttoptr(builder.add(base, builder.mul(offset, ir.Constant(_WORD, width))), kind.as_pointer())


def _product(vectors: int) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]  # Numba has no types
    def product(
        _: Any, c: Any, c_stride: Any, a: Any, a_stride: Any, b: Any, places: Any, b_stride: Any, n: Any
    ) -> Any:
        """C[i, j] += sum over k < n of A[i, k] * B[places[k], j], for 4 rows i and 16 * `vectors` columns j.

        c, a, b: addresses of the first values of C, A and B. places: address of n integers of 64 bits.
        """

        def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _write_product(builder, vectors, *arguments)
            return ir.Constant(_WORD, 0)

        return types.int64(*(types.int64,) * 8), write

    return product


# Columns that one call computes: its sums are in 16 and 4 registers.
WIDE, NARROW = 4 * LANES, LANES
product_wide, product_narrow = _product(WIDE // LANES), _product(NARROW // LANES)
ROWS = 4


def _write_product(
    builder: Any, vectors: int, c: Any, c_stride: Any, a: Any, a_stride: Any, b: Any, places: Any, b_stride: Any, n: Any
) -> None:
    def number(value: int) -> Any:
        return ir.Constant(_WORD, value)

    def at(base: Any, offset: Any, kind: Any) -> Any:
        return _at(builder, base, offset, kind)

    def each(make: Callable[[int, int], Any]) -> list[list[Any]]:
        return [[make(row, vector) for vector in range(vectors)] for row in range(ROWS)]

    results = each(
        lambda i, j: at(c, builder.add(builder.mul(c_stride, number(i)), number(j * LANES)), _VECTOR),
    )
    sums = each(lambda i, j: cgutils.alloca_once(builder, _VECTOR))
    each(lambda i, j: builder.store(builder.load(results[i][j], align=4), sums[i][j]))
    with cgutils.for_range(builder, n) as loop:
        k = loop.index
        place = builder.load(_at(builder, places, k, _WORD, 8))
        start = builder.mul(place, b_stride)
        right = [builder.load(at(b, builder.add(start, number(j * LANES)), _VECTOR), align=4) for j in range(vectors)]
        for i in range(ROWS):
            value = builder.load(at(a, builder.add(builder.mul(a_stride, number(i)), k), _REAL))
            left = _in_all_lanes(builder, value)
            for j in range(vectors):
                fused = builder.fmul(left, right[j], flags=("contract",))
                builder.store(builder.fadd(builder.load(sums[i][j]), fused, flags=("contract",)), sums[i][j])
    each(lambda i, j: builder.store(builder.load(sums[i][j]), results[i][j], align=4))


def _in_all_lanes(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_SHORT, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_SHORT, LANES), [0] * LANES))
