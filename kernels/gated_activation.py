"""The gate of a gated feed-forward layer (SwiGLU and GeGLU, Shazeer, arXiv:2002.05202) on the CPU, in one pass.

It stands between the stacked product of gate and up projection and the down projection. Each element is computed by
itself, in float32 and with the roundings of two tensor operations: the activation, then the product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import njit, types

from . import vector_ir as vir
from .simd import LANES, address_of, instruction, load_u16, store_u16
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

ACTIVATIONS = ("silu", "gelu_tanh")
"""silu(x) = x / (1 + exp(-x)); gelu_tanh is the tanh form of GELU."""

ELEMENTS_PER_ITEM = 8_192


class GatedActivation:
    """`activation(gate) * up` where gate and up are the halves of each row."""

    def __init__(self, activation: str, threads: ThreadPool) -> None:
        """activation: one of `ACTIVATIONS`."""
        self._threads = threads
        self._scratch = torch.empty(threads.size, 3 * LANES)
        self._kernel = compile_kernel(_gate)
        self._arguments = KernelArguments(10)
        self._arguments.values[7] = ACTIVATIONS.index(activation)
        self._arguments.values[8] = self._scratch.data_ptr()

    def __call__(self, gate_and_up: torch.Tensor) -> torch.Tensor:
        """gate_and_up [..., 2 * size] in bfloat16 or float32, the gate first; to [..., size] in the same dtype."""
        gate_and_up = gate_and_up.contiguous()
        size = gate_and_up.shape[-1] // 2
        out = gate_and_up.new_empty((*gate_and_up.shape[:-1], size))
        v = self._arguments.values
        v[0] = 0
        v[1] = 0
        v[2] = size
        v[3] = out.numel() // size
        v[4] = gate_and_up.data_ptr()
        v[5] = out.data_ptr()
        v[6] = out.dtype == torch.bfloat16
        self._threads.run(self._kernel, self._arguments, parallel=out.numel() >= 2 * ELEMENTS_PER_ITEM)
        return out


def _gate(args):
    """Kernel: items are parts of rows."""
    base = address_of(args)
    size, num_rows = args[2], args[3]
    scratch = args[8] + 4 * 3 * LANES * atomic_add(base + 8, 1)
    parts = (size + ELEMENTS_PER_ITEM - 1) // ELEMENTS_PER_ITEM
    rows_per_item = max(1, ELEMENTS_PER_ITEM // size)
    num_items = parts * ((num_rows + rows_per_item - 1) // rows_per_item)
    while True:
        item = atomic_add(base, 1)
        if item >= num_items:
            return
        first_row = item // parts * rows_per_item
        first = item % parts * ELEMENTS_PER_ITEM
        count = min(ELEMENTS_PER_ITEM, size - first)
        item_size = 2 if args[6] != 0 else 4
        for row in range(first_row, min(first_row + rows_per_item, num_rows)):
            gate = args[4] + item_size * (2 * size * row + first)
            target = args[5] + item_size * (size * row + first)
            _gate_row(target, gate, gate + item_size * size, count, item_size, args[7], scratch)


@njit(error_model="numpy")
def _gate_row(target, gate, up, count, item_size, activation, scratch):
    step = item_size * LANES
    whole = item_size * (count - count % LANES)
    for i in range(0, whole, step):
        _gate_16(target + i, gate + i, up + i, item_size, activation)
    rest = item_size * count - whole
    if rest > 0:
        _copy(scratch, gate + whole, rest)
        _copy(scratch + step, up + whole, rest)
        _gate_16(scratch + 2 * step, scratch, scratch + step, item_size, activation)
        _copy(target + whole, scratch + 2 * step, rest)


@njit(error_model="numpy")
def _gate_16(target, gate, up, item_size, activation):
    if item_size == 4:
        gate_16_float32(target, gate, up, activation)
    elif activation == 0:
        _silu_gate_bfloat16(target, gate, up)
    else:
        _gelu_gate_bfloat16(target, gate, up)


@njit(error_model="numpy")
def gate_16_float32(target, gate, up, activation):
    """Sixteen times `target = activation(gate) * up` in float32; `activation` is an index of `ACTIVATIONS`."""
    if activation == 0:
        _silu_gate_float32(target, gate, up)
    else:
        _gelu_gate_float32(target, gate, up)


@njit(error_model="numpy")
def gate_sums_bfloat16(target, sums, bias, activation):
    """The same to bfloat16; gate and up are the halves of 32 float32 `sums` plus `bias`, each rounded first."""
    if activation == 0:
        _silu_gate_sums(target, sums, bias)
    else:
        _gelu_gate_sums(target, sums, bias)


@njit(error_model="numpy")
def _copy(target, source, num_bytes):
    for i in range(0, num_bytes, 2):
        store_u16(target + i, load_u16(source + i))


def _make_gate(activation: Callable[[Any, Any], Any], *, bfloat16: bool) -> Any:
    """An intrinsic `(target, gate, up)`: sixteen times `target = activation(gate) * up`."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, gate, up = arguments
        if bfloat16:
            gate, up = (vir.widen(builder, vir.load(builder, source, vir.V_I16, 2)) for source in (gate, up))
            _store_bfloat16(builder, activation, gate, up, target)
        else:
            gate, up = (vir.load(builder, source, vir.V_F32, 4) for source in (gate, up))
            vir.store(builder, builder.fmul(activation(builder, gate), up), target, 4)
        return context.get_dummy_value()

    @instruction
    def gate_16(_typing, target, gate, up):
        return types.void(*[types.int64] * 3), generate

    return gate_16


def _make_gate_sums(activation: Callable[[Any, Any], Any]) -> Any:
    """An intrinsic `(target, sums, bias)`, see `gate_sums_bfloat16`."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        target, sums, bias = arguments

        def half(distance: int) -> Any:
            places = [builder.add(address, ir.Constant(vir.I64, distance)) for address in (sums, bias)]
            total = builder.fadd(*(vir.load(builder, place, vir.V_F32, 4) for place in places))
            return vir.round_to_bfloat16(builder, total)

        _store_bfloat16(builder, activation, half(0), half(4 * LANES), target)
        return context.get_dummy_value()

    @instruction
    def gate_sums(_typing, target, sums, bias):
        return types.void(*[types.int64] * 3), generate

    return gate_sums


def _store_bfloat16(builder: Any, activation: Callable[[Any, Any], Any], gate: Any, up: Any, target: Any) -> None:
    active = vir.round_to_bfloat16(builder, activation(builder, gate))
    vir.store(builder, vir.narrow(builder, builder.fmul(active, up)), target, 2)


def _silu(builder: Any, x: Any) -> Any:
    return _times_sigmoid(builder, x, x)


def _gelu_tanh(builder: Any, x: Any) -> Any:
    # 0.5 * (1 + tanh(u)) is the sigmoid of 2u, and u = sqrt(2 / pi) * (x + 0.044715 * x^3).
    cubic = vir.fma(builder, vir.splat(0.044715), builder.fmul(x, x), vir.splat(1.0))
    return _times_sigmoid(builder, x, builder.fmul(builder.fmul(vir.splat(1.5957691216057308), x), cubic))


def _times_sigmoid(builder: Any, x: Any, exponent: Any) -> Any:
    """`x / (1 + exp(-exponent))`."""
    power = vir.exp(builder, builder.fneg(exponent))
    return builder.fdiv(x, builder.fadd(vir.splat(1.0), power))


_silu_gate_bfloat16 = _make_gate(_silu, bfloat16=True)
_silu_gate_float32 = _make_gate(_silu, bfloat16=False)
_gelu_gate_bfloat16 = _make_gate(_gelu_tanh, bfloat16=True)
_gelu_gate_float32 = _make_gate(_gelu_tanh, bfloat16=False)
_silu_gate_sums = _make_gate_sums(_silu)
_gelu_gate_sums = _make_gate_sums(_gelu_tanh)
