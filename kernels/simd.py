"""Sixteen-lane float32 building blocks for the numba kernels, written as LLVM IR.

Numba leaves vectorisation to LLVM's guess; these say it. Each lane sees a fixed sequence of fused multiply-adds, so a
value has the same bits however many rows are computed beside it: that is what makes a request's logits independent of
the batch. LLVM lowers the sixteen lanes to whatever the processor has.

All addresses are int64 and count bytes; strides count elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
TILE = 64
"""Keys of an attention tile, and columns of a wide multiply-add tile: four vectors."""

_F32 = ir.FloatType()
_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_V_F32 = ir.VectorType(_F32, LANES)
_V_I16 = ir.VectorType(_I16, LANES)
_V_I32 = ir.VectorType(_I32, LANES)


def instruction(function: Callable[..., Any]) -> Any:
    """numba's `intrinsic`, typed as what a kernel calls: without the typing context that numba passes first."""
    return intrinsic(function)


def _pointer(builder: Any, address: Any, pointee: ir.Type) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


def _load(builder: Any, address: Any, vector: ir.Type, align: int) -> Any:
    return builder.load(_pointer(builder, address, vector), align=align, typ=vector)


def _store(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, _pointer(builder, address, value.type), align=align)


def _offset(builder: Any, address: Any, index: Any, size: int) -> Any:
    return builder.add(address, builder.mul(index, ir.Constant(_I64, size)))


def _broadcast(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_V_F32, ir.Undefined)
    single = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(_V_I32, [0] * LANES))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_V_F32, [_V_F32] * 3), f"llvm.fma.v{LANES}f32"
    )
    return builder.call(function, [a, b, c])


def _maximum(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def make_multiply_add(rows: int, vectors: int) -> Any:
    """An intrinsic `(a, a_stride, b, b_stride, c, c_stride, depth)`: C += A·B in registers.

    A is [rows, depth], B [depth, 16 * vectors], C [rows, 16 * vectors], all float32 and row-major. Every element of C
    is one chain of fused multiply-adds in the order of `depth`, whatever `rows` and `vectors` are.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        a, a_stride, b, b_stride, c, c_stride, depth = arguments
        c_address = [
            [
                builder.add(
                    _offset(builder, c, builder.mul(c_stride, ir.Constant(_I64, r)), 4),
                    ir.Constant(_I64, 4 * LANES * v),
                )
                for v in range(vectors)
            ]
            for r in range(rows)
        ]
        a_row = [_offset(builder, a, builder.mul(a_stride, ir.Constant(_I64, r)), 4) for r in range(rows)]
        start = [[_load(builder, c_address[r][v], _V_F32, 4) for v in range(vectors)] for r in range(rows)]
        entry = builder.block
        head = builder.append_basic_block("multiply_add_head")
        body = builder.append_basic_block("multiply_add_body")
        done = builder.append_basic_block("multiply_add_done")
        builder.branch(head)

        builder.position_at_end(head)
        index = builder.phi(_I64)
        index.add_incoming(ir.Constant(_I64, 0), entry)
        sums = [[builder.phi(_V_F32) for _ in range(vectors)] for _ in range(rows)]
        for r in range(rows):
            for v in range(vectors):
                sums[r][v].add_incoming(start[r][v], entry)
        builder.cbranch(builder.icmp_signed("<", index, depth), body, done)

        builder.position_at_end(body)
        b_row = _offset(builder, b, builder.mul(index, b_stride), 4)
        b_vectors = [
            _load(builder, builder.add(b_row, ir.Constant(_I64, 4 * LANES * v)), _V_F32, 4) for v in range(vectors)
        ]
        for r in range(rows):
            scalar = builder.load(_pointer(builder, _offset(builder, a_row[r], index, 4), _F32), align=4, typ=_F32)
            factor = _broadcast(builder, scalar)
            for v in range(vectors):
                sums[r][v].add_incoming(_fma(builder, factor, b_vectors[v], sums[r][v]), body)
        index.add_incoming(builder.add(index, ir.Constant(_I64, 1)), body)
        builder.branch(head)

        builder.position_at_end(done)
        for r in range(rows):
            for v in range(vectors):
                _store(builder, sums[r][v], c_address[r][v], 4)
        return _context.get_dummy_value()

    @instruction
    def multiply_add(_typing, a, a_stride, b, b_stride, c, c_stride, depth):
        return types.void(*[types.int64] * 7), generate

    return multiply_add


multiply_add_4x4 = make_multiply_add(4, 4)
multiply_add_1x4 = make_multiply_add(1, 4)
multiply_add_4x1 = make_multiply_add(4, 1)
multiply_add_1x1 = make_multiply_add(1, 1)


@instruction
def address_of(_typing, pointer):
    """The address that a kernel's argument pointer holds."""

    def generate(_context, builder, _signature, arguments):
        return builder.ptrtoint(arguments[0], _I64)

    return types.int64(types.CPointer(types.int64)), generate


@instruction
def load_i64(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.load(_pointer(builder, arguments[0], _I64), align=8, typ=_I64)

    return types.int64(types.int64), generate


@instruction
def store_i64(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        _store(builder, arguments[1], arguments[0], 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def store_f64(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        _store(builder, arguments[1], arguments[0], 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.float64), generate


@instruction
def bits_of(_typing, value):
    """The 32 bits of a float32; of two positive numbers the larger has the larger bits."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], _I32)

    return types.uint32(types.float32), generate


@instruction
def load_i32(_typing, address):
    def generate(_context, builder, _signature, arguments):
        value = builder.load(_pointer(builder, arguments[0], _I32), align=4, typ=_I32)
        return builder.sext(value, _I64)

    return types.int64(types.int64), generate


@instruction
def load_f32(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.load(_pointer(builder, arguments[0], _F32), align=4, typ=_F32)

    return types.float32(types.int64), generate


@instruction
def store_f32(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        _store(builder, arguments[1], arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def load_f64(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.load(_pointer(builder, arguments[0], ir.DoubleType()), align=8, typ=ir.DoubleType())

    return types.float64(types.int64), generate


@instruction
def load_u16(_typing, address):
    def generate(_context, builder, _signature, arguments):
        value = builder.load(_pointer(builder, arguments[0], _I16), align=2, typ=_I16)
        return builder.zext(value, _I32)

    return types.uint32(types.int64), generate


@instruction
def widen(_typing, bits):
    """The float32 of the bfloat16 in the low half of `bits`."""

    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(builder.shl(arguments[0], ir.Constant(_I32, 16)), _F32)

    return types.float32(types.uint32), generate


@instruction
def narrow(_typing, value):
    """The bfloat16 nearest to `value` (ties to even), in the low half of the result; NaN stays NaN."""

    def generate(_context, builder, _signature, arguments):
        value = arguments[0]
        bits = builder.bitcast(value, _I32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(_I32, 0x7FFF)), odd)
        nan = builder.fcmp_unordered("uno", value, value)
        return builder.select(nan, ir.Constant(_I32, 0x7FC0), builder.lshr(rounded, ir.Constant(_I32, 16)))

    return types.uint32(types.float32), generate


@instruction
def store_u16(_typing, address, value):
    def generate(context, builder, _signature, arguments):
        _store(builder, builder.trunc(arguments[1], _I16), arguments[0], 2)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint32), generate


@instruction
def widen_16(_typing, target, source):
    """Sixteen bfloat16 values to float32."""

    def generate(context, builder, _signature, arguments):
        bits = builder.zext(_load(builder, arguments[1], _V_I16, 2), _V_I32)
        shifted = builder.shl(bits, ir.Constant(_V_I32, [16] * LANES))
        _store(builder, builder.bitcast(shifted, _V_F32), arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def copy_16(_typing, target, source):
    """Sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        _store(builder, _load(builder, arguments[1], _V_F32, 4), arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def fill_16(_typing, target, value):
    def generate(context, builder, _signature, arguments):
        _store(builder, _broadcast(builder, arguments[1]), arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def scale_16(_typing, target, factor):
    """Sixteen float32 values times `factor`, in place."""

    def generate(context, builder, _signature, arguments):
        target, factor = arguments
        scaled = builder.fmul(_load(builder, target, _V_F32, 4), _broadcast(builder, factor))
        _store(builder, scaled, target, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@instruction
def multiply_16(_typing, target, source):
    """`target[i] *= source[i]` over sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        target, source = arguments
        product = builder.fmul(_load(builder, target, _V_F32, 4), _load(builder, source, _V_F32, 4))
        _store(builder, product, target, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def add_squares_16(_typing, sums, source):
    """`sums[i] += source[i]²` over sixteen float32 values."""

    def generate(context, builder, _signature, arguments):
        sums, source = arguments
        vector = _load(builder, source, _V_F32, 4)
        _store(builder, _fma(builder, vector, vector, _load(builder, sums, _V_F32, 4)), sums, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def narrow_16(_typing, target, source):
    """Sixteen float32 values to the nearest bfloat16 (ties to even)."""

    def generate(context, builder, _signature, arguments):
        bits = _rounded_bits(builder, _load(builder, arguments[1], _V_F32, 4))
        _store(builder, builder.trunc(bits, _V_I16), arguments[0], 2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def round_16(_typing, target):
    """Sixteen float32 values to the nearest that bfloat16 can hold, in place."""

    def generate(context, builder, _signature, arguments):
        bits = _rounded_bits(builder, _load(builder, arguments[0], _V_F32, 4))
        shifted = builder.shl(bits, ir.Constant(_V_I32, [16] * LANES))
        _store(builder, builder.bitcast(shifted, _V_F32), arguments[0], 4)
        return context.get_dummy_value()

    return types.void(types.int64), generate


@instruction
def max_of_tile(_typing, source):
    """The largest of the 64 float32 values of a row."""

    def generate(_context, builder, _signature, arguments):
        vectors = _row_vectors(builder, arguments[0])
        best = vectors[0]
        for vector in vectors[1:]:
            best = _maximum(builder, best, vector)
        width = LANES
        while width > 1:
            width //= 2
            lanes = [lane + width if lane < width else lane for lane in range(LANES)]
            other = builder.shuffle_vector(best, best, ir.Constant(_V_I32, lanes))
            best = _maximum(builder, best, other)
        return builder.extract_element(best, ir.Constant(_I32, 0))

    return types.float32(types.int64), generate


@instruction
def exp_of_tile(_typing, row, maximum, sums):
    """`row[i] = exp(row[i] - maximum)` over 64 values, and their sum added lane by lane to `sums` [16]."""

    def generate(context, builder, _signature, arguments):
        row, maximum, sums = arguments
        shift = _broadcast(builder, maximum)
        total = _load(builder, sums, _V_F32, 4)
        for v, vector in enumerate(_row_vectors(builder, row)):
            power = _exp(builder, builder.fsub(vector, shift))
            _store(builder, power, builder.add(row, ir.Constant(_I64, 4 * LANES * v)), 4)
            total = builder.fadd(total, power)
        _store(builder, total, sums, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), generate


@instruction
def tanh_of_tile(_typing, row, scale, factor):
    """`row[i] = factor * tanh(scale * row[i])` over 64 values (the soft cap of attention scores)."""

    def generate(context, builder, _signature, arguments):
        row, scale, factor = arguments
        twice = _broadcast(builder, builder.fmul(scale, ir.Constant(_F32, 2.0)))
        factor = _broadcast(builder, factor)
        one, two = _constant(1.0), _constant(2.0)
        for v, vector in enumerate(_row_vectors(builder, row)):
            # tanh(x) = 1 - 2 / (exp(2x) + 1); exp is clamped, so large x gives exactly 1 or -1.
            power = _exp(builder, builder.fmul(vector, twice))
            tanh = builder.fsub(one, builder.fdiv(two, builder.fadd(power, one)))
            address = builder.add(row, ir.Constant(_I64, 4 * LANES * v))
            _store(builder, builder.fmul(factor, tanh), address, 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.float32), generate


@instruction
def sum_of_16(_typing, source):
    """The sum of sixteen float32 values, folded in halves."""

    def generate(_context, builder, _signature, arguments):
        total = _load(builder, arguments[0], _V_F32, 4)
        width = LANES
        while width > 1:
            width //= 2
            lanes = [(lane + width) % LANES for lane in range(LANES)]
            total = builder.fadd(total, builder.shuffle_vector(total, total, ir.Constant(_V_I32, lanes)))
        return builder.extract_element(total, ir.Constant(_I32, 0))

    return types.float32(types.int64), generate


def _row_vectors(builder: Any, row: Any) -> list[Any]:
    return [_load(builder, builder.add(row, ir.Constant(_I64, 4 * LANES * v)), _V_F32, 4) for v in range(TILE // LANES)]


def _constant(value: float) -> Any:
    return ir.Constant(_V_F32, [value] * LANES)


def _exp(builder: Any, x: Any) -> Any:
    """exp of sixteen lanes: 2^n times a polynomial on [-ln2/2, ln2/2] (the coefficients of Cephes' expf, 1 ulp).

    Below -87.3 the result is 0 (also for -inf), above 88.3 it is held at the largest power.
    """
    low, high = _constant(-87.33654), _constant(88.3762626647949)
    clamped = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    clamped = builder.select(builder.fcmp_ordered(">", clamped, low), clamped, low)
    rounded = _call_unary(builder, "llvm.rint", builder.fmul(clamped, _constant(1.44269504088896341)))
    rest = _fma(builder, rounded, _constant(-0.693359375), clamped)
    rest = _fma(builder, rounded, _constant(2.12194440e-4), rest)
    poly = _constant(1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        poly = _fma(builder, poly, rest, _constant(coefficient))
    power = builder.fadd(_fma(builder, poly, builder.fmul(rest, rest), rest), _constant(1.0))
    exponent = builder.fptosi(rounded, _V_I32)
    bits = builder.shl(builder.add(exponent, ir.Constant(_V_I32, [127] * LANES)), ir.Constant(_V_I32, [23] * LANES))
    result = builder.fmul(power, builder.bitcast(bits, _V_F32))
    return builder.select(builder.fcmp_unordered("<", x, low), _constant(0.0), result)


def _call_unary(builder: Any, name: str, value: Any) -> Any:
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_V_F32, [_V_F32]), f"{name}.v{LANES}f32")
    return builder.call(function, [value])


def _rounded_bits(builder: Any, value: Any) -> Any:
    """The bits of the nearest bfloat16 of each lane, in the low halves of int32 lanes."""

    def splat(number: int) -> Any:
        return ir.Constant(_V_I32, [number] * LANES)

    bits = builder.bitcast(value, _V_I32)
    odd = builder.and_(builder.lshr(bits, splat(16)), splat(1))
    rounded = builder.lshr(builder.add(builder.add(bits, splat(0x7FFF)), odd), splat(16))
    return builder.select(builder.fcmp_unordered("uno", value, value), splat(0x7FC0), rounded)
