"""Rotary position embedding (Su et al., arXiv:2104.09864) of query and key heads, inside the attention kernels.

A head is normalised first where the model does that (RMSNorm over the head), then its first `rotary_dim` elements are
rotated: element i with element i + rotary_dim / 2. The roundings are those of the tensor operations that transformers
has for it, so a head's bits are too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numba import njit, types

from . import vector_ir as vir
from .kernel_sequence import Buffer
from .rms_norm import RMSNormKernel, copy_row, normalise, widen_row
from .simd import LANES, instruction, load_f32, load_f64, load_i64, load_u16, narrow, store_f32, widen

ARGUMENTS_SIZE = 6
"""int64 arguments that `write_arguments` fills."""


@dataclass(frozen=True)
class Rotary:
    """What happens to queries and keys before they meet."""

    cos: torch.Tensor
    """[num_tokens, rotary_dim], bfloat16 or float32 as the queries are, contiguous; so is `sin`."""
    sin: torch.Tensor
    query_norm: RMSNormKernel | None = None
    key_norm: RMSNormKernel | None = None
    """Over the elements of a head."""


@dataclass(frozen=True)
class RotaryBuffers:
    """The same within a sequence of kernels."""

    cos: Buffer
    sin: Buffer
    query_norm: RMSNormKernel | None
    key_norm: RMSNormKernel | None


def write_arguments(values: np.ndarray, rotary: Rotary | None, norm: RMSNormKernel | None) -> None:
    """Fill `values` [ARGUMENTS_SIZE] with what `load_head` reads: int64, the address of a float64 as its bits."""
    if rotary is None:
        values[0] = values[1] = values[2] = values[3] = 0
        return
    values[0] = rotary.cos.data_ptr()
    values[1] = rotary.sin.data_ptr()
    values[2] = rotary.cos.shape[-1]
    write_norm(values, norm)


def write_norm(values: np.ndarray, norm: RMSNormKernel | None) -> None:
    """Fill the part of `values` [ARGUMENTS_SIZE] that says how heads are normalised."""
    values[3] = 0
    if norm is not None:
        values[3] = norm.weight.data_ptr()
        values[4:5].view(np.float64)[0] = norm.eps
        values[5] = norm.round_before_weight


@njit(error_model="numpy")
def load_head(target, source, head_dim, token, arguments, bfloat16, sums):
    """A head [head_dim] at `source` to float32, normalised and rotated as `arguments` (an address) say.

    `sums` is scratch: float32 [16].
    """
    if bfloat16 != 0:
        widen_row(target, source, head_dim)
    else:
        copy_row(target, source, head_dim)
    weight = load_i64(arguments + 24)
    if weight != 0:
        early = bfloat16 * load_i64(arguments + 40)
        normalise(target, head_dim, weight, load_f64(arguments + 32), early, bfloat16, sums)
    rotary_dim = load_i64(arguments + 16)
    if rotary_dim != 0:
        row = token * rotary_dim * (2 if bfloat16 != 0 else 4)
        _rotate(target, rotary_dim // 2, load_i64(arguments) + row, load_i64(arguments + 8) + row, bfloat16)


@njit(error_model="numpy")
def _rotate(values, half, cos, sin, bfloat16):
    whole = half - half % LANES
    other = values + 4 * half
    if bfloat16 != 0:
        for i in range(0, whole, LANES):
            _rotate_16_bfloat16(values + 4 * i, other + 4 * i, cos + 2 * i, sin + 2 * i, 2 * half)
        for i in range(whole, half):
            a, b = load_f32(values + 4 * i), load_f32(other + 4 * i)
            low, high = 2 * i, 2 * (half + i)
            store_f32(values + 4 * i, _rounded_sum(a, cos + low, -b, sin + low))
            store_f32(other + 4 * i, _rounded_sum(b, cos + high, a, sin + high))
    else:
        for i in range(0, whole, LANES):
            _rotate_16_float32(values + 4 * i, other + 4 * i, cos + 4 * i, sin + 4 * i, 4 * half)
        for i in range(whole, half):
            a, b = load_f32(values + 4 * i), load_f32(other + 4 * i)
            low, high = 4 * i, 4 * (half + i)
            store_f32(values + 4 * i, a * load_f32(cos + low) + -b * load_f32(sin + low))
            store_f32(other + 4 * i, b * load_f32(cos + high) + a * load_f32(sin + high))


@njit(error_model="numpy")
def _rounded_sum(a, cos, b, sin):
    first = widen(narrow(a * widen(load_u16(cos))))
    second = widen(narrow(b * widen(load_u16(sin))))
    return widen(narrow(first + second))


def _make_rotate(load: Callable[[Any, Any], Any], rounded: Callable[[Any, Any], Any]) -> Any:
    """An intrinsic `(values, others, cos, sin, second_half)` that rotates sixteen pairs of float32 in place.

    `cos` and `sin` are those of the first half; those of the second lie `second_half` bytes further.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        values, others, cos, sin, second_half = arguments
        a, b = vir.load(builder, values, vir.V_F32, 4), vir.load(builder, others, vir.V_F32, 4)

        def turned(x: Any, cos: Any, y: Any, sin: Any) -> Any:
            first = rounded(builder, builder.fmul(x, load(builder, cos)))
            second = rounded(builder, builder.fmul(y, load(builder, sin)))
            return rounded(builder, builder.fadd(first, second))

        cos_high, sin_high = builder.add(cos, second_half), builder.add(sin, second_half)
        low, high = turned(a, cos, builder.fneg(b), sin), turned(b, cos_high, a, sin_high)
        vir.store(builder, low, values, 4)
        vir.store(builder, high, others, 4)
        return context.get_dummy_value()

    @instruction
    def rotate_16(_typing, values, others, cos, sin, second_half):
        return types.void(*[types.int64] * 5), generate

    return rotate_16


_rotate_16_bfloat16 = _make_rotate(
    lambda builder, address: vir.widen(builder, vir.load(builder, address, vir.V_I16, 2)), vir.round_to_bfloat16
)
_rotate_16_float32 = _make_rotate(
    lambda builder, address: vir.load(builder, address, vir.V_F32, 4), lambda _builder, value: value
)
