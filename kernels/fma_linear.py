"""A float32 linear layer on the CPU's fused multiply-adds.

The weight is laid out once in panels of 64 outputs, `[panels, in_features, 64]`, so that a small batch streams it from
memory once and in order. Every output is one chain of multiply-adds in the order of the input features, whatever rows
stand beside it: a row has the same bits in any batch.
"""

from __future__ import annotations

from typing import Any

import torch
from numba import njit
from torch import nn

from . import huge_pages
from .gated_activation import ACTIVATIONS, gate_16_float32
from .kernel_sequence import Buffer, KernelSequence
from .multiply_add import make_multiply_add
from .rms_norm import copy_row
from .simd import CACHE_LINE, LANES, TILE, add_16, address_of, copy_16, load_f32, store_f32
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

NO_ACTIVATION = -1

ROWS_PER_ITEM = 48
"""Rows that one work item takes through a panel, while the panel stays in the core's cache."""

SMALL = 1 << 18
"""Multiply-adds below which one thread is done before a second one has woken up."""

SMALL_IN_SEQUENCE = 1 << 15
"""The same within a sequence, where the other threads are awake."""

PANEL_LINES = TILE * 4 // CACHE_LINE
"""Cache lines of a panel for each input."""

_multiply_add_6x4 = make_multiply_add(6, 4, prefetches=True)
_multiply_add_5x4 = make_multiply_add(5, 4, prefetches=True)
_multiply_add_4x4 = make_multiply_add(4, 4, prefetches=True)
_multiply_add_3x4 = make_multiply_add(3, 4, prefetches=True)
_multiply_add_2x4 = make_multiply_add(2, 4, prefetches=True)
_multiply_add_1x4 = make_multiply_add(1, 4, prefetches=True)


class FmaLinear(nn.Module):
    """`x @ weight.T + bias` in float32.

    With an activation, one of `gated_activation.ACTIVATIONS`, the outputs are gates and values by turns, sixteen of
    each: `activation(gates) * values` is returned in their place, half as wide.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, threads: ThreadPool, activation: str | None = None
    ) -> None:
        """weight: float32 [out_features, in_features]; bias: float32 [out_features]."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._threads = threads
        num_panels = -(-self.out_features // TILE)
        self._panels = huge_pages.copied(padded(weight).view(num_panels, TILE, -1).transpose(1, 2))
        self._bias = torch.zeros(num_panels * TILE) if bias is None else padded(bias)
        self._scratch = torch.empty(threads.size, ROWS_PER_ITEM * TILE)
        self._kernel = compile_kernel(_linear)
        self._width = self.out_features if activation is None else self.out_features // 2
        self._arguments = KernelArguments(14)
        v = self._arguments.values
        v[2] = num_panels
        v[3] = self.in_features
        v[4] = self._width
        v[5] = self._panels.data_ptr()
        v[6] = self._bias.data_ptr()
        v[7] = self._scratch.data_ptr()
        v[12] = NO_ACTIVATION if activation is None else ACTIVATIONS.index(activation)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x float32 [..., in_features] to [..., out_features]; `residual` of that shape is added to the output."""
        rows = x.contiguous()
        num_rows = rows.numel() // self.in_features
        out = torch.empty(*x.shape[:-1], self._width)
        if residual is not None:
            residual = residual.expand_as(out).contiguous()
        parallel = num_rows * self.in_features * self.out_features >= SMALL
        run_on_rows(self._threads, self._kernel, self._arguments, num_rows, rows, out, residual, parallel=parallel)
        return out

    can_be_appended = True

    @property
    def out_bytes(self) -> int:
        """Of a row of the output."""
        return 4 * self._width

    def append_to(self, sequence: KernelSequence, x: Buffer, out: Buffer, residual: Buffer | None = None) -> None:
        """Add the layer to a sequence; the buffers' rows are as `forward` has them."""
        values = self._arguments.values.copy()
        values[11] = 0
        buffers = {9: x, 10: out} if residual is None else {9: x, 10: out, 11: residual}
        parallel_from = -(-SMALL_IN_SEQUENCE // (self.in_features * self.out_features))
        sequence.append(self._kernel, values, buffers, count=x.count, rows_at=8, parallel_from=parallel_from, keep=self)


def padded(values: torch.Tensor) -> torch.Tensor:
    """The values of each output, [out_features, ...], and zeros up to whole panels."""
    whole = values.new_zeros(-(-values.shape[0] // TILE) * TILE, *values.shape[1:])
    whole[: values.shape[0]] = values.detach()
    return whole


def run_on_rows(
    threads: ThreadPool,
    kernel: Any,
    arguments: KernelArguments,
    num_rows: int,
    x: torch.Tensor,
    out: torch.Tensor,
    residual: torch.Tensor | None,
    *,
    parallel: bool,
) -> None:
    """Run a linear layer's kernel whose arguments 8 to 11 are the rows of a batch; those before say the layer."""
    v = arguments.values
    v[0] = 0
    v[1] = 0
    v[8] = num_rows
    v[9] = x.data_ptr()
    v[10] = out.data_ptr()
    v[11] = 0 if residual is None else residual.data_ptr()
    threads.run(kernel, arguments, parallel=parallel)


def _linear(args):
    """Kernel: items are (panel, block of rows), the blocks of one panel one after another."""
    base = address_of(args)
    num_panels, depth, width, num_rows = args[2], args[3], args[4], args[8]
    scratch = args[7] + 4 * ROWS_PER_ITEM * TILE * atomic_add(base + 8, 1)
    num_blocks = (num_rows + ROWS_PER_ITEM - 1) // ROWS_PER_ITEM
    next_item = atomic_add(base, 1)
    while next_item < num_panels * num_blocks:
        item = next_item
        next_item = atomic_add(base, 1)
        panel, block = item // num_blocks, item % num_blocks
        next_panel = min(next_item // num_blocks, num_panels - 1)
        first = block * ROWS_PER_ITEM
        rows = min(ROWS_PER_ITEM, num_rows - first)
        bias = args[6] + 4 * TILE * panel
        for row in range(rows):
            for i in range(0, TILE, LANES):
                copy_16(scratch + 4 * (TILE * row + i), bias + 4 * i)
        weight, ahead = args[5] + 4 * TILE * depth * panel, args[5] + 4 * TILE * depth * next_panel
        multiply_rows(args[9] + 4 * depth * first, depth, weight, scratch, rows, depth, ahead)
        panel_width = TILE if args[12] == NO_ACTIVATION else TILE // 2
        live = min(panel_width, width - panel * panel_width)
        element = first * width + panel * panel_width
        for row in range(rows):
            sums, target = scratch + 4 * TILE * row, args[10] + 4 * element
            if args[12] != NO_ACTIVATION:
                _store_gated(target, sums, live, args[12])
            elif args[11] != 0:
                _store_sums(target, sums, args[11] + 4 * element, live)
            else:
                copy_row(target, sums, live)
            element += width


@njit(error_model="numpy")
def multiply_rows(x, x_stride, panel, sums, rows, depth, ahead):
    """sums [rows, 64] += x [rows, depth] · panel [depth, 64], all float32; the rows of x are `x_stride` apart.

    Each group of rows asks for a quarter of the panel at `ahead`, so that it comes from memory while this one is used.
    """
    # Groups of four to six rows where that is possible: smaller ones leave the multipliers waiting for each other.
    groups = (rows + 5) // 6
    row = 0
    for group in range(groups):
        count = (rows * (group + 1)) // groups - row
        a = x + 4 * x_stride * row
        c = sums + 4 * TILE * row
        quarter = ahead + group % PANEL_LINES * depth * CACHE_LINE
        if count == 6:
            _multiply_add_6x4(a, x_stride, panel, TILE, c, TILE, depth, quarter)
        elif count == 5:
            _multiply_add_5x4(a, x_stride, panel, TILE, c, TILE, depth, quarter)
        elif count == 4:
            _multiply_add_4x4(a, x_stride, panel, TILE, c, TILE, depth, quarter)
        elif count == 3:
            _multiply_add_3x4(a, x_stride, panel, TILE, c, TILE, depth, quarter)
        elif count == 2:
            _multiply_add_2x4(a, x_stride, panel, TILE, c, TILE, depth, quarter)
        else:
            _multiply_add_1x4(a, x_stride, panel, TILE, c, TILE, depth, quarter)
        row += count


@njit(error_model="numpy")
def _store_sums(target, source, residual, live):
    whole = live - live % LANES
    for i in range(0, whole, LANES):
        add_16(target + 4 * i, source + 4 * i, residual + 4 * i)
    for i in range(whole, live):
        store_f32(target + 4 * i, load_f32(source + 4 * i) + load_f32(residual + 4 * i))


@njit(error_model="numpy")
def _store_gated(target, source, live, activation):
    for i in range(0, live, LANES):
        gate_16_float32(target + 4 * i, source + 8 * i, source + 8 * i + 4 * LANES, activation)
