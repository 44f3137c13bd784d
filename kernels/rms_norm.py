"""RMSNorm (Zhang and Sennrich, arXiv:1910.07467) on the CPU: one pass a row instead of six tensor operations.

The sum of squares of a row is taken in one fixed order, so a row's result does not depend on the rows beside it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit

from .kernel_sequence import Buffer, KernelSequence
from .simd import (
    LANES,
    add_squares_16,
    address_of,
    copy_16,
    fill_16,
    load_f32,
    load_f64,
    load_u16,
    multiply_16,
    narrow,
    narrow_16,
    round_16,
    scale_16,
    store_f32,
    store_u16,
    sum_of_16,
    widen,
    widen_16,
)
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add


class RMSNormKernel:
    """`y = x / sqrt(mean(x²) + eps) * weight` over the last dimension, computed in float32.

    `round_before_weight`: round the normalised value to the dtype of x before it meets the weight (Llama's way), or
    multiply in float32 and round once (Gemma's way).
    """

    def __init__(self, weight: torch.Tensor, eps: float, *, round_before_weight: bool, threads: ThreadPool) -> None:
        self.weight = weight.detach().to(torch.float32).contiguous()
        self.eps = eps
        self.round_before_weight = round_before_weight
        self._threads = threads
        self._kernel = compile_kernel(_rms_norm)
        self._arguments = KernelArguments(12)
        v = self._arguments.values
        v[2] = self.weight.numel()
        v[5] = self.weight.data_ptr()
        v[6:7].view(np.float64)[0] = eps
        v[7] = round_before_weight
        self._scratch = torch.empty(threads.size * self.weight.numel() + LANES * threads.size)
        v[8] = self._scratch.data_ptr()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., size] in bfloat16 or float32, to the same shape and dtype."""
        x = x.contiguous()
        out = torch.empty_like(x)
        v = self._arguments.values
        size = self.weight.numel()
        v[0] = 0
        v[1] = 0
        v[3] = x.data_ptr()
        v[4] = out.data_ptr()
        v[9] = x.numel() // size
        v[10] = x.dtype == torch.bfloat16
        self._threads.run(self._kernel, self._arguments, parallel=x.numel() >= 32_768)
        return out

    def append_to(self, sequence: KernelSequence, x: Buffer, out: Buffer) -> None:
        """Add the norm to a sequence; both buffers hold [num_rows, size]."""
        values = self._arguments.values.copy()
        values[10] = x.row_bytes == 2 * self.weight.numel()
        parallel_from = max(2 * ROWS_PER_ITEM, MIN_SEQUENCE_ELEMENTS // self.weight.numel())
        sequence.append(
            self._kernel, values, {3: x, 4: out}, count=x.count, rows_at=9, parallel_from=parallel_from, keep=self
        )


ROWS_PER_ITEM = 4
MIN_SEQUENCE_ELEMENTS = 4_096
"""Elements from which a norm within a sequence, where the other threads are awake, is worth sharing."""


def _rms_norm(args):
    """Kernel: normalise rows; items are groups of rows."""
    base = address_of(args)
    size, weight, early, num_rows = args[2], args[5], args[7], args[9]
    eps = load_f64(base + 48)
    sums = args[8] + 4 * (size + LANES) * atomic_add(base + 8, 1)
    values = sums + 4 * LANES
    while True:
        first = atomic_add(base, 1) * ROWS_PER_ITEM
        if first >= num_rows:
            return
        for row in range(first, min(first + ROWS_PER_ITEM, num_rows)):
            if args[10] != 0:
                widen_row(values, args[3] + 2 * row * size, size)
                normalise(values, size, weight, eps, early, 0, sums)
                narrow_row(args[4] + 2 * row * size, values, size)
            else:
                target = args[4] + 4 * row * size
                copy_row(target, args[3] + 4 * row * size, size)
                normalise(target, size, weight, eps, 0, 0, sums)


@njit(error_model="numpy")
def normalise(values, size, weight, eps, round_before_weight, round_result, sums):
    """Normalise float32 `values` [size] in place; `sums` is scratch [16]. Rounding is to what bfloat16 can hold."""
    whole = size - size % LANES
    fill_16(sums, np.float32(0.0))
    for i in range(0, whole, LANES):
        add_squares_16(sums, values + 4 * i)
    total = sum_of_16(sums)
    for i in range(whole, size):
        value = load_f32(values + 4 * i)
        total += value * value
    scale = np.float32(1.0 / math.sqrt(total / size + eps))
    for i in range(0, whole, LANES):
        scale_16(values + 4 * i, scale)
        if round_before_weight != 0:
            round_16(values + 4 * i)
        multiply_16(values + 4 * i, weight + 4 * i)
        if round_result != 0:
            round_16(values + 4 * i)
    for i in range(whole, size):
        value = load_f32(values + 4 * i) * scale
        if round_before_weight != 0:
            value = widen(narrow(value))
        value *= load_f32(weight + 4 * i)
        if round_result != 0:
            value = widen(narrow(value))
        store_f32(values + 4 * i, value)


@njit(error_model="numpy")
def widen_row(target, source, size):
    """bfloat16 [size] to float32."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        widen_16(target + 4 * i, source + 2 * i)
    for i in range(whole, size):
        store_f32(target + 4 * i, widen(load_u16(source + 2 * i)))


@njit(error_model="numpy")
def narrow_row(target, source, size):
    """float32 [size] to bfloat16."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        narrow_16(target + 2 * i, source + 4 * i)
    for i in range(whole, size):
        store_u16(target + 2 * i, narrow(load_f32(source + 4 * i)))


@njit(error_model="numpy")
def copy_row(target, source, size):
    """float32 [size]."""
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        copy_16(target + 4 * i, source + 4 * i)
    for i in range(whole, size):
        store_f32(target + 4 * i, load_f32(source + 4 * i))
