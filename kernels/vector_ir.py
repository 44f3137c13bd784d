"""What the vector instructions of `simd` and other kernels are written with: sixteen float32 lanes as LLVM values.

Each function adds instructions to an llvmlite builder and returns the value. Addresses are int64 values that count
bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 16
F32 = ir.FloatType()
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
V_F32 = ir.VectorType(F32, LANES)
V_I8 = ir.VectorType(ir.IntType(8), LANES)
V_I16 = ir.VectorType(I16, LANES)
V_I32 = ir.VectorType(I32, LANES)


def pointer(builder: Any, address: Any, pointee: ir.Type) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


def load(builder: Any, address: Any, vector: ir.Type, align: int) -> Any:
    return builder.load(pointer(builder, address, vector), align=align, typ=vector)


def store(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, pointer(builder, address, value.type), align=align)


def offset(builder: Any, address: Any, index: Any, size: int) -> Any:
    return builder.add(address, builder.mul(index, ir.Constant(I64, size)))


def broadcast(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(V_F32, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(V_I32, [0] * LANES))


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(V_F32, [V_F32] * 3), f"llvm.fma.v{LANES}f32"
    )
    return builder.call(function, [a, b, c])


def maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def splat(value: float) -> Any:
    return ir.Constant(V_F32, [value] * LANES)


def begin_loop(builder: Any, name: str, count: Any, starts: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Go into the body of a loop of `count` turns: the number of the turn, and the values that it carries along, which
    are `starts` at first. `end_loop` ends the body.
    """
    before = builder.block
    head, body = builder.append_basic_block(f"{name}_head"), builder.append_basic_block(f"{name}_body")
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(ir.Constant(I64, 0), before)
    carried = []
    for start in starts:
        carried.append(builder.phi(start.type))
        carried[-1].add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", index, count), body, builder.append_basic_block(f"{name}_done"))
    builder.position_at_end(body)
    return index, carried


def end_loop(builder: Any, index: Any, carried: Sequence[Any], following: Sequence[Any]) -> None:
    """End a loop's body, behind which `following` are carried on. Behind the loop `carried` are what it has left."""
    body, head = builder.block, index.parent
    index.add_incoming(builder.add(index, ir.Constant(I64, 1)), body)
    for value, next_value in zip(carried, following, strict=True):
        value.add_incoming(next_value, body)
    builder.branch(head)
    builder.position_at_end(head.terminator.operands[2])


def exp(builder: Any, x: Any) -> Any:
    """exp of sixteen lanes: 2^n times a polynomial on [-ln2/2, ln2/2] (the coefficients of Cephes' expf, 1 ulp).

    Below -87.3 the result is 0 (also for -inf), above 88.3 it is held at the largest power.
    """
    low, high = splat(-87.33654), splat(88.3762626647949)
    clamped = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    clamped = builder.select(builder.fcmp_ordered(">", clamped, low), clamped, low)
    rounded = _call_unary(builder, "llvm.rint", builder.fmul(clamped, splat(1.44269504088896341)))
    rest = fma(builder, rounded, splat(-0.693359375), clamped)
    rest = fma(builder, rounded, splat(2.12194440e-4), rest)
    poly = splat(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        poly = fma(builder, poly, rest, splat(coefficient))
    power = builder.fadd(fma(builder, poly, builder.fmul(rest, rest), rest), splat(1.0))
    exponent = builder.fptosi(rounded, V_I32)
    bits = builder.shl(builder.add(exponent, ir.Constant(V_I32, [127] * LANES)), ir.Constant(V_I32, [23] * LANES))
    result = builder.fmul(power, builder.bitcast(bits, V_F32))
    return builder.select(builder.fcmp_unordered("<", x, low), splat(0.0), result)


def _call_unary(builder: Any, name: str, value: Any) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(V_F32, [V_F32]), f"{name}.v{LANES}f32")
    return builder.call(function, [value])


def prefetch(builder: Any, address: Any, *, cache: int = 2) -> None:
    """Ask for a cache line into the first or the second cache."""
    target = builder.inttoptr(address, ir.IntType(8).as_pointer())
    arguments = [target, *(ir.Constant(I32, value) for value in (0, 4 - cache, 1))]  # to read, how near, data
    function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0"), arguments)


def widen(builder: Any, bits: Any) -> Any:
    """The float32 of each bfloat16 in sixteen int16 lanes."""
    return builder.bitcast(builder.shl(builder.zext(bits, V_I32), _splat_i32(16)), V_F32)


def widen_int8(builder: Any, values: Any) -> Any:
    """The float32 of each of sixteen int8 lanes."""
    return builder.sitofp(builder.sext(values, V_I32), V_F32)


def narrow(builder: Any, value: Any) -> Any:
    """The nearest bfloat16 (ties to even) of each lane, in sixteen int16 lanes; NaN stays NaN."""
    return builder.trunc(_rounded_bits(builder, value), V_I16)


def round_to_bfloat16(builder: Any, value: Any) -> Any:
    """The nearest value that bfloat16 can hold, as float32."""
    return builder.bitcast(builder.shl(_rounded_bits(builder, value), _splat_i32(16)), V_F32)


def _rounded_bits(builder: Any, value: Any) -> Any:
    """The bits of the nearest bfloat16 of each lane, in the low halves of int32 lanes."""
    bits = builder.bitcast(value, V_I32)
    odd = builder.and_(builder.lshr(bits, _splat_i32(16)), _splat_i32(1))
    rounded = builder.lshr(builder.add(builder.add(bits, _splat_i32(0x7FFF)), odd), _splat_i32(16))
    return builder.select(builder.fcmp_unordered("uno", value, value), _splat_i32(0x7FC0), rounded)


def _splat_i32(number: int) -> Any:
    return ir.Constant(V_I32, [number] * LANES)
