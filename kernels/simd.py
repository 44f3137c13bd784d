"""Sixteen-lane float32 building blocks for the numba kernels, written as LLVM IR.

Numba leaves vectorisation to LLVM's guess; these say it. Each lane sees a fixed sequence of fused multiply-adds, so a
value has the same bits however many rows are computed beside it: that is what makes a request's logits independent of
the batch. LLVM lowers the sixteen lanes to whatever the processor has.

All addresses are int64 and count bytes; strides count elements.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import vector_ir as vir
from .vector_ir import LANES

CACHE_LINE = 64
TILE = 64
"""Keys of an attention tile, and columns of a wide multiply-add tile: four vectors."""


def instruction(function: Callable[..., Any]) -> Any:
    """numba's `intrinsic`, typed as what a kernel calls: without the typing context that numba passes first."""
    return intrinsic(function)


@instruction
def address_of(_typing, pointer):
    """The address that a kernel's argument pointer holds."""

    def generate(_context, builder, _signature, arguments):
        return builder.ptrtoint(arguments[0], vir.I64)

    return types.int64(types.CPointer(types.int64)), generate


@instruction
def prefetch(_typing, address):
    """Ask for a cache line into the second cache."""

    def generate(context, builder, _signature, arguments):
        vir.prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@instruction
def load_i64(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.load(vir.pointer(builder, arguments[0], vir.I64), align=8, typ=vir.I64)

    return types.int64(types.int64), generate


@instruction
def store_i64(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        vir.store(builder, arguments[1], arguments[0], 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def store_f64(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        vir.store(builder, arguments[1], arguments[0], 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.float64), generate


@instruction
def bits_of(_typing, value):
    """The 32 bits of a float32; of two positive numbers the larger has the larger bits."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], vir.I32)

    return types.uint32(types.float32), generate


@instruction
def load_i32(_typing, address):
    def generate(_context, builder, _signature, arguments):
        value = builder.load(vir.pointer(builder, arguments[0], vir.I32), align=4, typ=vir.I32)
        return builder.sext(value, vir.I64)

    return types.int64(types.int64), generate


@instruction
def load_f32(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.load(vir.pointer(builder, arguments[0], vir.F32), align=4, typ=vir.F32)

    return types.float32(types.int64), generate


@instruction
def store_f32(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        vir.store(builder, arguments[1], arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def load_f64(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.load(vir.pointer(builder, arguments[0], ir.DoubleType()), align=8, typ=ir.DoubleType())

    return types.float64(types.int64), generate


@instruction
def load_u16(_typing, address):
    def generate(_context, builder, _signature, arguments):
        value = builder.load(vir.pointer(builder, arguments[0], vir.I16), align=2, typ=vir.I16)
        return builder.zext(value, vir.I32)

    return types.uint32(types.int64), generate


@instruction
def widen(_typing, bits):
    """The float32 of the bfloat16 in the low half of `bits`."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(builder.shl(arguments[0], ir.Constant(vir.I32, 16)), vir.F32)

    return types.float32(types.uint32), generate


@instruction
def narrow(_typing, value):
    """The bfloat16 nearest to `value` (ties to even), in the low half of the result; NaN stays NaN."""

    def generate(_context, builder, _signature, arguments):
        value = arguments[0]
        bits = builder.bitcast(value, vir.I32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(vir.I32, 16)), ir.Constant(vir.I32, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(vir.I32, 0x7FFF)), odd)
        nan = builder.fcmp_unordered("uno", value, value)
        return builder.select(nan, ir.Constant(vir.I32, 0x7FC0), builder.lshr(rounded, ir.Constant(vir.I32, 16)))

    return types.uint32(types.float32), generate


@instruction
def store_u16(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        vir.store(builder, builder.trunc(arguments[1], vir.I16), arguments[0], 2)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint32), generate


@instruction
def widen_16(_typing, target, source):
    """Sixteen bfloat16 values to float32."""

    def generate(context, builder, _signature, arguments):
        values = vir.widen(builder, vir.load(builder, arguments[1], vir.V_I16, 2))
        vir.store(builder, values, arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def widen_int8_16(_typing, target, source):
    """Sixteen int8 values to float32."""

    def generate(context, builder, _signature, arguments):
        values = vir.widen_int8(builder, vir.load(builder, arguments[1], vir.V_I8, 1))
        vir.store(builder, values, arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def copy_16(_typing, target, source):
    """Sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        vir.store(builder, vir.load(builder, arguments[1], vir.V_F32, 4), arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def fill_16(_typing, target, value):
    def generate(context, builder, _signature, arguments):
        vir.store(builder, vir.broadcast(builder, arguments[1]), arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def forbid_16(_typing, target, bits):
    """Of sixteen float32 values those whose bit (the lowest is the first one's) is not set become -inf."""

    def generate(context, builder, _signature, arguments):
        target, bits = arguments
        allowed = builder.bitcast(builder.trunc(bits, vir.I16), ir.VectorType(ir.IntType(1), LANES))
        values = builder.select(allowed, vir.load(builder, target, vir.V_F32, 4), vir.splat(float("-inf")))
        vir.store(builder, values, target, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def scale_16(_typing, target, factor):
    """Sixteen float32 values times `factor`, in place."""

    def generate(context, builder, _signature, arguments):
        target, factor = arguments
        scaled = builder.fmul(vir.load(builder, target, vir.V_F32, 4), vir.broadcast(builder, factor))
        vir.store(builder, scaled, target, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def divide_16(_typing, target, divisor):
    def generate(context, builder, _signature, arguments):
        quotient = builder.fdiv(vir.load(builder, arguments[0], vir.V_F32, 4), vir.broadcast(builder, arguments[1]))
        vir.store(builder, quotient, arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def multiply_16(_typing, target, source):
    """`target[i] *= source[i]` over sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        target, source = arguments
        product = builder.fmul(vir.load(builder, target, vir.V_F32, 4), vir.load(builder, source, vir.V_F32, 4))
        vir.store(builder, product, target, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def add_16(_typing, target, a, b):
    """`target[i] = a[i] + b[i]` over sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        target, a, b = arguments
        total = builder.fadd(vir.load(builder, a, vir.V_F32, 4), vir.load(builder, b, vir.V_F32, 4))
        vir.store(builder, total, target, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@instruction
def add_squares_16(_typing, sums, source):
    """`sums[i] += source[i]²` over sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        sums, source = arguments
        vector = vir.load(builder, source, vir.V_F32, 4)
        vir.store(builder, vir.fma(builder, vector, vector, vir.load(builder, sums, vir.V_F32, 4)), sums, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def narrow_16(_typing, target, source):
    """Sixteen float32 values to the nearest bfloat16 (ties to even)."""

    def generate(context, builder, _signature, arguments):
        narrowed = vir.narrow(builder, vir.load(builder, arguments[1], vir.V_F32, 4))
        vir.store(builder, narrowed, arguments[0], 2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def round_16(_typing, target):
    """Sixteen float32 values to the nearest that bfloat16 can hold, in place."""

    def generate(context, builder, _signature, arguments):
        rounded = vir.round_to_bfloat16(builder, vir.load(builder, arguments[0], vir.V_F32, 4))
        vir.store(builder, rounded, arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@instruction
def max_of_tile(_typing, source):
    """The largest of the 64 float32 values of a row."""

    def generate(_context, builder, _signature, arguments):
        vectors = _row_vectors(builder, arguments[0])
        best = vectors[0]
        for vector in vectors[1:]:
            best = vir.maximum(builder, best, vector)
        return _largest_lane(builder, best)

    return types.float32(types.int64), generate


@instruction
def max_of_tiles(_typing, source, num_tiles):
    """The largest of so many times 64 float32 values that follow each other; NaN is passed over."""

    def generate(_context, builder, _signature, arguments):
        source, num_tiles = arguments
        least = vir.splat(float("-inf"))
        index, best = vir.begin_loop(builder, "max_of_tiles", num_tiles, [least] * (TILE // LANES))
        vectors = _row_vectors(builder, vir.offset(builder, source, index, 4 * TILE))
        pairs = zip(best, vectors, strict=True)
        vir.end_loop(builder, index, best, [vir.maximum(builder, vector, so_far) for so_far, vector in pairs])
        return _largest_lane(builder, functools.reduce(functools.partial(vir.maximum, builder), best))

    return types.float32(types.int64, types.int64), generate


def _largest_lane(builder: Any, best: Any) -> Any:
    width = LANES
    while width > 1:
        width //= 2
        lanes = [lane + width if lane < width else lane for lane in range(LANES)]
        other = builder.shuffle_vector(best, best, ir.Constant(vir.V_I32, lanes))
        best = vir.maximum(builder, best, other)
    return builder.extract_element(best, ir.Constant(vir.I32, 0))


@instruction
def exp_of_tile(_typing, row, maximum, sums):
    """`row[i] = exp(row[i] - maximum)` over 64 values, and their sum added lane by lane to `sums` [16]."""

    def generate(context, builder, _signature, arguments):
        row, maximum, sums = arguments
        shift = vir.broadcast(builder, maximum)
        total = vir.load(builder, sums, vir.V_F32, 4)
        for v, vector in enumerate(_row_vectors(builder, row)):
            power = vir.exp(builder, builder.fsub(vector, shift))
            vir.store(builder, power, builder.add(row, ir.Constant(vir.I64, 4 * LANES * v)), 4)
            total = builder.fadd(total, power)
        vir.store(builder, total, sums, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), generate


@instruction
def tanh_of_tile(_typing, row, scale, factor):
    """`row[i] = factor * tanh(scale * row[i])` over 64 values (the soft cap of attention scores)."""

    def generate(context, builder, _signature, arguments):
        row, scale, factor = arguments
        twice = vir.broadcast(builder, builder.fmul(scale, ir.Constant(vir.F32, 2.0)))
        factor = vir.broadcast(builder, factor)
        one, two = vir.splat(1.0), vir.splat(2.0)
        for v, vector in enumerate(_row_vectors(builder, row)):
            # tanh(x) = 1 - 2 / (exp(2x) + 1); exp is clamped, so large x gives exactly 1 or -1.
            power = vir.exp(builder, builder.fmul(vector, twice))
            tanh = builder.fsub(one, builder.fdiv(two, builder.fadd(power, one)))
            address = builder.add(row, ir.Constant(vir.I64, 4 * LANES * v))
            vir.store(builder, builder.fmul(factor, tanh), address, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.float32), generate


@instruction
def sum_of_16(_typing, source):
    """The sum of sixteen float32 values, folded in halves."""

    def generate(_context, builder, _signature, arguments):
        return _folded_sum(builder, vir.load(builder, arguments[0], vir.V_F32, 4))

    return types.float32(types.int64), generate


@instruction
def sum_of_tile(_typing, source):
    """The sum of the 64 float32 values of a row."""

    def generate(_context, builder, _signature, arguments):
        first, *others = _row_vectors(builder, arguments[0])
        for vector in others:
            first = builder.fadd(first, vector)
        return _folded_sum(builder, first)

    return types.float32(types.int64), generate


def _folded_sum(builder: Any, total: Any) -> Any:
    width = LANES
    while width > 1:
        width //= 2
        lanes = [(lane + width) % LANES for lane in range(LANES)]
        total = builder.fadd(total, builder.shuffle_vector(total, total, ir.Constant(vir.V_I32, lanes)))
    return builder.extract_element(total, ir.Constant(vir.I32, 0))


def _row_vectors(builder: Any, row: Any) -> list[Any]:
    return [
        vir.load(builder, builder.add(row, ir.Constant(vir.I64, 4 * LANES * v)), vir.V_F32, 4)
        for v in range(TILE // LANES)
    ]
