"""Small matrix products in registers, C += A·B, as LLVM IR: what the attention and float32 kernels are built of.

Every element of C is one chain of fused multiply-adds in the order of `depth`, however many rows and columns are
computed beside it, and a bfloat16 counts as the float32 that it stands for: so all forms here give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from . import vector_ir as vir
from .simd import CACHE_LINE, LANES, TILE, instruction

LINES_AHEAD = 32
"""Of int8 weights, one for each turn: as many as come from memory while so many turns are taken."""


def make_multiply_add(rows: int, vectors: int, *, prefetches: bool = False) -> Any:
    """An intrinsic `(a, a_stride, b, b_stride, c, c_stride, depth)`: C += A·B in registers.

    A is [rows, depth], B [depth, 16 * vectors], C [rows, 16 * vectors], all float32 and row-major. Every element of C
    is one chain of fused multiply-adds in the order of `depth`, whatever `rows` and `vectors` are.

    With `prefetches` there is one more argument, an address: `depth` cache lines from there on are asked for meanwhile.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, a_stride, b, b_stride, c, c_stride, depth = arguments[:7]

        def row_of_b(index: Any) -> list[Any]:
            b_row = vir.offset(builder, b, builder.mul(index, b_stride), 4)
            if prefetches:
                vir.prefetch(builder, vir.offset(builder, arguments[7], index, CACHE_LINE))
            return [
                vir.load(builder, builder.add(b_row, ir.Constant(vir.I64, 4 * LANES * v)), vir.V_F32, 4)
                for v in range(vectors)
            ]

        _multiply(builder, a, a_stride, row_of_b, c, c_stride, depth, rows, vectors)
        return _context.get_dummy_value()

    @instruction
    def multiply_add(_typing, a, a_stride, b, b_stride, c, c_stride, depth):
        return types.void(*[types.int64] * 7), generate

    @instruction
    def multiply_add_and_prefetch(_typing, a, a_stride, b, b_stride, c, c_stride, depth, ahead):
        return types.void(*[types.int64] * 8), generate

    return multiply_add_and_prefetch if prefetches else multiply_add


def make_multiply_add_bfloat16(rows: int) -> Any:
    """An intrinsic `(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead)`: C += A·B in registers, B in
    bfloat16.

    A is float32 [rows, depth], C float32 [rows, 64]. The sixteen columns of B behind each other are at four addresses
    of their own, each [depth, 16] with rows `b_stride` elements apart. Meanwhile 2 · `depth` cache lines from the
    address `ahead` on are asked for.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, a_stride, *b, b_stride, c, c_stride, depth, ahead = arguments

        def row_of_b(index: Any) -> list[Any]:
            line = vir.offset(builder, ahead, index, 2 * CACHE_LINE)
            vir.prefetch(builder, line, cache=1)
            vir.prefetch(builder, builder.add(line, ir.Constant(vir.I64, CACHE_LINE)), cache=1)
            element = builder.mul(index, b_stride)
            return [
                vir.widen(builder, vir.load(builder, vir.offset(builder, at, element, 2), vir.V_I16, 2)) for at in b
            ]

        _multiply(builder, a, a_stride, row_of_b, c, c_stride, depth, rows, len(b))
        return _context.get_dummy_value()

    @instruction
    def multiply_add(_typing, a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead):
        return types.void(*[types.int64] * 11), generate

    return multiply_add


def make_multiply_add_int8(rows: int) -> Any:
    """An intrinsic `(a, a_stride, b, c, c_stride, depth)`: C += A·B in registers, B in int8.

    A is float32 [rows, depth], B contiguous [depth, 64], C float32 [rows, 64]. Meanwhile the cache lines that follow
    are asked for, behind the end of B too: with a few rows the processor fetches them too late by itself.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, a_stride, b, c, c_stride, depth = arguments
        vectors = TILE // LANES

        def row_of_b(index: Any) -> list[Any]:
            b_row = vir.offset(builder, b, index, TILE)
            vir.prefetch(builder, builder.add(b_row, ir.Constant(vir.I64, LINES_AHEAD * CACHE_LINE)), cache=1)
            places = [builder.add(b_row, ir.Constant(vir.I64, LANES * v)) for v in range(vectors)]
            return [vir.widen_int8(builder, vir.load(builder, place, vir.V_I8, 1)) for place in places]

        _multiply(builder, a, a_stride, row_of_b, c, c_stride, depth, rows, vectors)
        return _context.get_dummy_value()

    @instruction
    def multiply_add(_typing, a, a_stride, b, c, c_stride, depth):
        return types.void(*[types.int64] * 6), generate

    return multiply_add


def _multiply(
    builder: Any,
    a: Any,
    a_stride: Any,
    row_of_b: Callable[[Any], list[Any]],
    c: Any,
    c_stride: Any,
    depth: Any,
    rows: int,
    vectors: int,
) -> None:
    """C += A·B, a row of B after the other; `row_of_b` brings one as float32 vectors."""
    c_address = [
        builder.add(
            vir.offset(builder, c, builder.mul(c_stride, ir.Constant(vir.I64, r)), 4),
            ir.Constant(vir.I64, 4 * LANES * v),
        )
        for r in range(rows)
        for v in range(vectors)
    ]
    a_row = [vir.offset(builder, a, builder.mul(a_stride, ir.Constant(vir.I64, r)), 4) for r in range(rows)]
    start = [vir.load(builder, address, vir.V_F32, 4) for address in c_address]
    index, sums = vir.begin_loop(builder, "multiply_add", depth, start)
    following: list[Any] = []
    b_vectors = row_of_b(index)
    for r, address in enumerate(a_row):
        place = vir.pointer(builder, vir.offset(builder, address, index, 4), vir.F32)
        factor = vir.broadcast(builder, builder.load(place, align=4, typ=vir.F32))
        row = sums[r * vectors : (r + 1) * vectors]
        following += [vir.fma(builder, factor, b, so_far) for b, so_far in zip(b_vectors, row, strict=True)]
    vir.end_loop(builder, index, sums, following)
    for value, address in zip(sums, c_address, strict=True):
        vir.store(builder, value, address, 4)


multiply_add_4x4 = make_multiply_add(4, 4)
multiply_add_3x4 = make_multiply_add(3, 4)
multiply_add_2x4 = make_multiply_add(2, 4)
multiply_add_1x4 = make_multiply_add(1, 4)
multiply_add_4x1 = make_multiply_add(4, 1)
multiply_add_1x1 = make_multiply_add(1, 1)
multiply_add_bfloat16_4x4 = make_multiply_add_bfloat16(4)
multiply_add_bfloat16_3x4 = make_multiply_add_bfloat16(3)
multiply_add_bfloat16_2x4 = make_multiply_add_bfloat16(2)
multiply_add_bfloat16_1x4 = make_multiply_add_bfloat16(1)
