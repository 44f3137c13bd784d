"""Intel's matrix unit (AMX) for the numba kernels, as LLVM intrinsics.

A processor with AMX has eight tile registers of 16 rows by 64 bytes. `multiply_tiles` multiplies two tiles of bfloat16
into a tile of float32 sums, or two of int8 into int32 sums; each sum takes its products one after the other, whatever
the other rows hold.

Addresses and strides are int64 and count bytes; tile numbers are literals.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import vector_ir as vir

TILE_ROWS = 16
TILE_ROW_BYTES = 64
TILE_BYTES = TILE_ROWS * TILE_ROW_BYTES
CONFIG_BYTES = 64
CACHE_LINE = 64

_I8 = ir.IntType(8)
_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_POINTER = _I8.as_pointer()
_HALVES = ir.VectorType(_I16, 32)

_SYS_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18


def _instruction(function: Callable[..., Any]) -> Any:
    """numba's `intrinsic`, typed as what a kernel calls: without the typing context that numba passes first."""
    return intrinsic(prefer_literal=True)(function)


@functools.cache
def is_available() -> bool:
    """Whether the processor multiplies bfloat16 tiles and Linux lets this process do it, which is asked for here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    features = binding.get_host_cpu_features()  # LLVM's own view: what it lacks it could not compile either
    if not all(features.get(name, False) for name in ("amx-tile", "amx-bf16", "amx-int8", "avx512bw")):
        return False
    # Linux saves the large state of the tiles only for a process that has asked; all its threads then may use them.
    libc = ctypes.CDLL(None)
    return libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0


@_instruction
def configure_tiles(_typing, config):
    """Take the shapes of all tiles from the 64 bytes at `config`; clears the tiles."""

    def generate(context, builder, _signature, arguments):
        _call(builder, "llvm.x86.ldtilecfg", [builder.inttoptr(arguments[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@_instruction
def release_tiles(_typing):
    """Give the tiles back, so that the system no longer saves them for this thread."""

    def generate(context, builder, _signature, _arguments):
        _call(builder, "llvm.x86.tilerelease", [])
        return context.get_dummy_value()

    return types.void(), generate


@_instruction
def zero_tile(_typing, tile):
    def generate(context, builder, _signature, _arguments):
        _call(builder, "llvm.x86.tilezero", [_tile(tile)])
        return context.get_dummy_value()

    return types.void(tile), generate


@_instruction
def load_tile(_typing, tile, address, stride):
    """Row r of the tile comes from `address + r * stride`."""

    def generate(context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[1], _POINTER)
        _call(builder, "llvm.x86.tileloadd64", [_tile(tile), pointer, arguments[2]])
        return context.get_dummy_value()

    return types.void(tile, types.int64, types.int64), generate


@_instruction
def store_tile(_typing, tile, address, stride):
    """Row r of the tile goes to `address + r * stride`."""

    def generate(context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[1], _POINTER)
        _call(builder, "llvm.x86.tilestored64", [_tile(tile), pointer, arguments[2]])
        return context.get_dummy_value()

    return types.void(tile, types.int64, types.int64), generate


@_instruction
def multiply_tiles(_typing, sums, a, b, is_int8):
    """sums [rows, 16] += a · b, all tiles. bfloat16: float32 sums, a [rows, 32], b [16 pairs, 16 columns, 2].
    int8: int32 sums, a [rows, 64], b [16 fours, 16 columns, 4].
    """

    def generate(context, builder, _signature, arguments):
        tiles = [_tile(sums), _tile(a), _tile(b)]
        with builder.if_else(builder.icmp_signed("!=", arguments[3], ir.Constant(arguments[3].type, 0))) as (yes, no):
            with yes:
                _call(builder, "llvm.x86.tdpbssd", tiles)
            with no:
                _call(builder, "llvm.x86.tdpbf16ps", tiles)
        return context.get_dummy_value()

    return types.void(sums, a, b, types.int64), generate


@_instruction
def join_and_scale_32(_typing, upper, lower, scale, scales):
    """32 times `upper[i] = (256 * upper[i] + lower[i]) * scale * scales[i]`: of int32 limbs, float32 in place."""

    def generate(context, builder, _signature, arguments):
        upper, lower, scale, scales = arguments
        for half in (0, 4 * vir.LANES):
            place, low, factors = (
                builder.add(address, ir.Constant(vir.I64, half)) for address in (upper, lower, scales)
            )
            limbs = (builder.sitofp(vir.load(builder, address, vir.V_I32, 4), vir.V_F32) for address in (place, low))
            total = vir.fma(builder, next(limbs), vir.splat(256.0), next(limbs))
            total = builder.fmul(total, vir.broadcast(builder, scale))
            vir.store(builder, builder.fmul(total, vir.load(builder, factors, vir.V_F32, 4)), place, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64), generate


@_instruction
def keep_magnitudes_32(_typing, target, source, count):
    """`target[i] = max(target[i], |source[i]|)` for 32 bfloat16 values, of which those from `count` on count as 0."""

    def generate(context, builder, _signature, arguments):
        target, source, count = arguments
        magnitudes = builder.and_(_load_first(builder, source, count), ir.Constant(_HALVES, [0x7FFF] * 32))
        held = vir.load(builder, target, _HALVES, 2)
        # The order of magnitudes is that of their bits; NaN stands above infinity.
        larger = builder.select(builder.icmp_unsigned(">", magnitudes, held), magnitudes, held)
        vir.store(builder, larger, target, 2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


@_instruction
def largest_of_32(_typing, source):
    """The largest of 32 positive bfloat16 values, as float32."""

    def generate(_context, builder, _signature, arguments):
        values = vir.load(builder, arguments[0], _HALVES, 2)
        bits = _call(builder, "llvm.vector.reduce.umax.v32i16", [values], _I16)
        return builder.bitcast(builder.shl(builder.zext(bits, _I32), ir.Constant(_I32, 16)), vir.F32)

    return types.float32(types.int64), generate


@_instruction
def split_32(_typing, upper, lower, source, count, factor):
    """32 bfloat16 values times `factor`, rounded to integers of 16 bits, as limbs of 8: `256 * upper[i] + lower[i]`,
    each -128 to 127. Those of values from `count` on, and of what becomes infinite or NaN, are 0.
    """

    def generate(context, builder, _signature, arguments):
        upper, lower, source, count, factor = arguments
        bits, factor = _load_first(builder, source, count), vir.broadcast(builder, factor)
        bytes_16 = ir.VectorType(_I8, vir.LANES)
        for first in (0, vir.LANES):
            lanes = ir.Constant(vir.V_I32, list(range(first, first + vir.LANES)))
            values = vir.widen(builder, builder.shuffle_vector(bits, bits, lanes))
            rounded = _rounded_integers(builder, builder.fmul(values, factor))
            rest = builder.add(rounded, ir.Constant(vir.V_I32, [128] * vir.LANES))
            high = builder.ashr(rest, ir.Constant(vir.V_I32, [8] * vir.LANES))
            for whole, target in ((high, upper), (rounded, lower)):
                place = builder.add(target, ir.Constant(vir.I64, first))
                vir.store(builder, builder.trunc(whole, bytes_16), place, 1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, types.float32), generate


@_instruction
def add_and_narrow_32(_typing, target, a, b, count):
    """`target[i] = a[i] + b[i]` for i below `count` (at most 32): float32, rounded once to bfloat16 (ties to even)."""

    def generate(context, builder, _signature, arguments):
        target, a, b, count = arguments
        _store_first(builder, _narrowed_sum(builder, a, b), target, count)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@_instruction
def add_and_narrow_onto_32(_typing, target, a, b, residual, count):
    """As `add_and_narrow_32`; then `residual`, bfloat16 too, is added and the sum rounded again."""

    def generate(context, builder, _signature, arguments):
        target, a, b, residual, count = arguments
        floats = ir.VectorType(ir.FloatType(), 32)
        bits = _load_first(builder, residual, count)
        terms = [builder.bitcast(bits, ir.VectorType(_BFloat(), 32)), _narrowed_sum(builder, a, b)]
        total = builder.fadd(*(builder.fpext(term, floats) for term in terms))
        _store_first(builder, builder.fptrunc(total, ir.VectorType(_BFloat(), 32)), target, count)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@_instruction
def add_and_round_32(_typing, target, a, b, count):
    """As `add_and_narrow_32`, but the bfloat16 values are stored as float32."""

    def generate(context, builder, _signature, arguments):
        target, a, b, count = arguments
        floats = ir.VectorType(ir.FloatType(), 32)
        values = builder.fpext(_narrowed_sum(builder, a, b), floats)
        pointer = builder.inttoptr(target, _POINTER)
        stored = [values, pointer, ir.Constant(_I32, 4), _first_lanes(builder, count)]
        _call(builder, "llvm.masked.store.v32f32.p0", stored)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


class _BFloat(ir.Type):
    """LLVM's bfloat16, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _narrowed_sum(builder: Any, a: Any, b: Any) -> Any:
    """Sum of 32 float32 values at each of two addresses, as bfloat16."""
    floats = ir.VectorType(ir.FloatType(), 32)
    a, b = (builder.load(builder.inttoptr(source, _POINTER), align=4, typ=floats) for source in (a, b))
    return builder.fptrunc(builder.fadd(a, b), ir.VectorType(_BFloat(), 32))


def _load_first(builder: Any, source: Any, count: Any) -> Any:
    """The first `count` of 32 bfloat16 values as their bits, and zeros after them."""
    pointer, nothing = builder.inttoptr(source, _POINTER), ir.Constant(_HALVES, [0] * 32)
    arguments = [pointer, ir.Constant(_I32, 2), _first_lanes(builder, count), nothing]
    return _call(builder, "llvm.masked.load.v32i16.p0", arguments, _HALVES)


def _store_first(builder: Any, values: Any, target: Any, count: Any) -> None:
    """Store the first `count` of 32 bfloat16 values."""
    pointer = builder.inttoptr(target, _POINTER)
    arguments = [builder.bitcast(values, _HALVES), pointer, ir.Constant(_I32, 2), _first_lanes(builder, count)]
    _call(builder, "llvm.masked.store.v32i16.p0", arguments)


def _first_lanes(builder: Any, count: Any) -> Any:
    """A mask of 32 lanes, of which the first `count` are wanted."""
    lanes = ir.VectorType(_I32, 32)
    undefined = ir.Constant(lanes, ir.Undefined)
    limit = builder.insert_element(undefined, builder.trunc(count, _I32), ir.Constant(_I32, 0))
    limit = builder.shuffle_vector(limit, undefined, ir.Constant(lanes, [0] * 32))
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(32))), limit)


def _rounded_integers(builder: Any, values: Any) -> Any:
    """The nearest int32 (ties to even) of sixteen float32 values; -2^31, whose limbs are 0, where there is none."""
    whole, as_set = ir.Constant(_I16, -1), ir.Constant(_I32, 4)
    arguments = [values, ir.Constant(vir.V_I32, [0] * vir.LANES), whole, as_set]
    return _call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", arguments, vir.V_I32)


def _tile(number: types.IntegerLiteral) -> Any:
    return ir.Constant(_I8, number.literal_value)


def _call(builder: Any, name: str, arguments: list[Any], result: ir.Type | None = None) -> Any:
    function = ir.FunctionType(result or ir.VoidType(), [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)
