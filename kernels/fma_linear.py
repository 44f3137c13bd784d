"""A float32 linear layer on the CPU's fused multiply-adds.

The weight is laid out once in panels of 64 outputs, `[panels, in_features, 64]`, so that a small batch streams it from
memory once and in order. Every output is one chain of multiply-adds in the order of the input features, whatever rows
stand beside it: a row has the same bits in any batch.
"""

from __future__ import annotations

import torch
from numba import njit
from torch import nn

from .simd import (
    LANES,
    TILE,
    address_of,
    copy_16,
    load_f32,
    make_multiply_add,
    multiply_add_1x4,
    multiply_add_4x4,
    store_f32,
)
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

ROWS_PER_ITEM = 48
"""Rows that one work item takes through a panel, while the panel stays in the core's cache."""

SMALL = 1 << 18
"""Multiply-adds below which one thread is done before a second one has woken up."""

_multiply_add_6x4 = make_multiply_add(6, 4)
_multiply_add_5x4 = make_multiply_add(5, 4)
_multiply_add_3x4 = make_multiply_add(3, 4)
_multiply_add_2x4 = make_multiply_add(2, 4)


class FmaLinear(nn.Module):
    """`x @ weight.T + bias` in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, threads: ThreadPool) -> None:
        """weight: float32 [out_features, in_features]; bias: float32 [out_features]."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._threads = threads
        num_panels = -(-self.out_features // TILE)
        padded = torch.zeros(num_panels * TILE, self.in_features)
        padded[: self.out_features] = weight.detach()
        self._panels = padded.view(num_panels, TILE, self.in_features).transpose(1, 2).contiguous()
        self._bias = torch.zeros(num_panels * TILE)
        if bias is not None:
            self._bias[: self.out_features] = bias.detach()
        self._scratch = torch.empty(threads.size, ROWS_PER_ITEM * TILE)
        self._kernel = compile_kernel(_linear)
        self._arguments = KernelArguments(12)
        v = self._arguments.values
        v[2] = num_panels
        v[3] = self.in_features
        v[4] = self.out_features
        v[5] = self._panels.data_ptr()
        v[6] = self._bias.data_ptr()
        v[7] = self._scratch.data_ptr()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x float32 [..., in_features] to [..., out_features]."""
        rows = x.contiguous()
        num_rows = rows.numel() // self.in_features
        out = torch.empty(*x.shape[:-1], self.out_features)
        v = self._arguments.values
        v[0] = 0
        v[1] = 0
        v[8] = num_rows
        v[9] = rows.data_ptr()
        v[10] = out.data_ptr()
        small = num_rows * self.in_features * self.out_features < SMALL
        self._threads.run(self._kernel, self._arguments, parallel=not small)
        return out


def _linear(args):
    """Kernel: items are (panel, block of rows), the blocks of one panel one after another."""
    base = address_of(args)
    num_panels, depth, width, num_rows = args[2], args[3], args[4], args[8]
    scratch = args[7] + 4 * ROWS_PER_ITEM * TILE * atomic_add(base + 8, 1)
    num_blocks = (num_rows + ROWS_PER_ITEM - 1) // ROWS_PER_ITEM
    while True:
        item = atomic_add(base, 1)
        if item >= num_panels * num_blocks:
            return
        panel, block = item // num_blocks, item % num_blocks
        first = block * ROWS_PER_ITEM
        rows = min(ROWS_PER_ITEM, num_rows - first)
        bias = args[6] + 4 * TILE * panel
        for row in range(rows):
            for i in range(0, TILE, LANES):
                copy_16(scratch + 4 * (TILE * row + i), bias + 4 * i)
        _multiply_rows(args[9] + 4 * depth * first, args[5] + 4 * TILE * depth * panel, scratch, rows, depth)
        live = min(TILE, width - panel * TILE)
        target = args[10] + 4 * (first * width + panel * TILE)
        for row in range(rows):
            _store_columns(target + 4 * width * row, scratch + 4 * TILE * row, live)


@njit(error_model="numpy")
def _multiply_rows(x, panel, sums, rows, depth):
    """sums [rows, 64] += x [rows, depth] · panel [depth, 64]."""
    # Groups of four to six rows where that is possible: smaller ones leave the multipliers waiting for each other.
    groups = (rows + 5) // 6
    row = 0
    for group in range(groups):
        count = (rows * (group + 1)) // groups - row
        a = x + 4 * depth * row
        c = sums + 4 * TILE * row
        if count == 6:
            _multiply_add_6x4(a, depth, panel, TILE, c, TILE, depth)
        elif count == 5:
            _multiply_add_5x4(a, depth, panel, TILE, c, TILE, depth)
        elif count == 4:
            multiply_add_4x4(a, depth, panel, TILE, c, TILE, depth)
        elif count == 3:
            _multiply_add_3x4(a, depth, panel, TILE, c, TILE, depth)
        elif count == 2:
            _multiply_add_2x4(a, depth, panel, TILE, c, TILE, depth)
        else:
            multiply_add_1x4(a, depth, panel, TILE, c, TILE, depth)
        row += count


@njit(error_model="numpy")
def _store_columns(target, source, live):
    whole = live - live % LANES
    for i in range(0, whole, LANES):
        copy_16(target + 4 * i, source + 4 * i)
    for i in range(whole, live):
        store_f32(target + 4 * i, load_f32(source + 4 * i))
