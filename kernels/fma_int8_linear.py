"""A linear layer with an int8 weight on the CPU's fused multiply-adds, for processors without a matrix unit; made by
`int8_linear.pack_int8`.

The weight stays int8 in memory, in panels of 64 outputs, `[panels, in_features, 64]`. It becomes float32 in registers,
or for more than a few rows in the first cache. Inputs and outputs are bfloat16; the inputs are widened before all else.

Every output is one chain of float32 multiply-adds in the order of the inputs, whatever rows stand beside it, then the
output's scale, the bias and one rounding: a row has the same bits in any batch.
"""

from __future__ import annotations

import torch
from numba import njit
from torch import nn

from . import huge_pages
from .fma_linear import NO_ACTIVATION, ROWS_PER_ITEM, SMALL, SMALL_IN_SEQUENCE, multiply_rows, padded, run_on_rows
from .gated_activation import ACTIVATIONS, gate_sums_bfloat16
from .int8_weight import Int8Weight
from .kernel_sequence import Buffer, KernelSequence
from .multiply_add import make_multiply_add_int8
from .rms_norm import copy_row, narrow_row, widen_row
from .simd import LANES, TILE, add_16, address_of, fill_16, multiply_16, round_16, widen_int8_16
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

ROWS_IN_REGISTERS = 6
"""Rows up to which a weight is used once when it has become float32."""

WIDENED_DEPTH = 96
"""Inputs whose weights, of a panel, are float32 at a time: the first cache holds them beside the rows' own."""

SCRATCH_SIZE = (ROWS_PER_ITEM + WIDENED_DEPTH) * TILE
"""Of a thread, in float32: the sums of an item, and the weights above."""

WIDENED_PER_ITEM = 1 << 14
"""Inputs of one work item that widens them."""

_multiply_add_1x4 = make_multiply_add_int8(1)
_multiply_add_2x4 = make_multiply_add_int8(2)
_multiply_add_3x4 = make_multiply_add_int8(3)
_multiply_add_4x4 = make_multiply_add_int8(4)
_multiply_add_5x4 = make_multiply_add_int8(5)
_multiply_add_6x4 = make_multiply_add_int8(6)


class FmaInt8Linear(nn.Module):
    """`x @ weight.T + bias` with an int8 weight [out_features, in_features]; x is bfloat16.

    With an activation, one of `gated_activation.ACTIVATIONS`, the outputs are gates and values by turns, sixteen of
    each: `activation(gates) * values` is returned in their place, half as wide.
    """

    def __init__(
        self, weight: Int8Weight, bias: torch.Tensor | None, threads: ThreadPool, activation: str | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.values.shape
        self._threads = threads
        num_panels = -(-self.out_features // TILE)
        self._panels = huge_pages.copied(padded(weight.values).view(num_panels, TILE, -1).transpose(1, 2))
        self._bias = torch.zeros(num_panels * TILE) if bias is None else padded(bias.detach().float())
        self._scales = padded(weight.scales)
        self._scratch = torch.empty(threads.size, SCRATCH_SIZE)
        self._width = self.out_features if activation is None else self.out_features // 2
        self._widen = compile_kernel(_widen_rows)
        self._widening = KernelArguments(6)
        self._widening.values[3] = self.in_features
        self._kernel = compile_kernel(_multiply)
        self._arguments = KernelArguments(15)
        v = self._arguments.values
        v[2] = num_panels
        v[3] = self.in_features
        v[4] = self._width
        v[5] = self._panels.data_ptr()
        v[6] = self._bias.data_ptr()
        v[7] = self._scales.data_ptr()
        v[12] = NO_ACTIVATION if activation is None else ACTIVATIONS.index(activation)
        v[13] = self._scratch.data_ptr()

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., in_features] to [..., out_features], plus `residual` of that shape; all bfloat16."""
        if x.dtype != torch.bfloat16 or x.shape[-1] != self.in_features:
            raise ValueError(f"expected bfloat16 [..., {self.in_features}], got {x.dtype} {tuple(x.shape)}")
        num_rows = x.numel() // self.in_features
        out = x.new_empty((*x.shape[:-1], self._width))
        if residual is not None:
            residual = residual.expand_as(out).contiguous()
        x = x.contiguous()
        widened = torch.empty(x.numel())
        v = self._widening.values
        v[0] = 0
        v[2] = num_rows
        v[4] = x.data_ptr()
        v[5] = widened.data_ptr()
        self._threads.run(self._widen, self._widening, parallel=x.numel() >= 2 * WIDENED_PER_ITEM)
        parallel = num_rows * self.in_features * self.out_features >= SMALL
        run_on_rows(self._threads, self._kernel, self._arguments, num_rows, widened, out, residual, parallel=parallel)
        return out

    can_be_appended = True

    @property
    def out_bytes(self) -> int:
        """Of a row of the output."""
        return 2 * self._width

    def append_to(self, sequence: KernelSequence, x: Buffer, out: Buffer, residual: Buffer | None = None) -> None:
        """Add the layer to a sequence; the buffers' rows are as `forward` has them. In a buffer of twice the width the
        output is stored as float32, for who would widen it next.
        """
        widened = sequence.passing_buffer(4 * self.in_features, x.count)
        sequence.append(
            self._widen,
            self._widening.values,
            {4: x, 5: widened},
            count=x.count,
            rows_at=2,
            parallel_from=-(-2 * WIDENED_PER_ITEM // self.in_features),
            keep=self,
        )
        values = self._arguments.values.copy()
        values[11] = 0
        values[14] = out.row_bytes == 2 * self.out_bytes
        buffers = {9: widened, 10: out} if residual is None else {9: widened, 10: out, 11: residual}
        parallel_from = -(-SMALL_IN_SEQUENCE // (self.in_features * self.out_features))
        sequence.append(self._kernel, values, buffers, count=x.count, rows_at=8, parallel_from=parallel_from, keep=self)


def _widen_rows(args):
    """Kernel: bfloat16 [num_rows, in_features] to float32; items are groups of rows."""
    base = address_of(args)
    num_rows, in_features = args[2], args[3]
    rows_per_item = max(1, WIDENED_PER_ITEM // in_features)
    while True:
        first = atomic_add(base, 1) * rows_per_item
        if first >= num_rows:
            return
        size = min(rows_per_item, num_rows - first) * in_features
        widen_row(args[5] + 4 * in_features * first, args[4] + 2 * in_features * first, size)


def _multiply(args):
    """Kernel: items are (panel, block of rows), the blocks of one panel one after another."""
    base = address_of(args)
    num_panels, depth, num_rows = args[2], args[3], args[8]
    sums = args[13] + 4 * SCRATCH_SIZE * atomic_add(base + 8, 1)
    widened = sums + 4 * ROWS_PER_ITEM * TILE
    num_blocks = (num_rows + ROWS_PER_ITEM - 1) // ROWS_PER_ITEM
    item = atomic_add(base, 1)
    while item < num_panels * num_blocks:
        panel, first = item // num_blocks, item % num_blocks * ROWS_PER_ITEM
        rows = min(ROWS_PER_ITEM, num_rows - first)
        x, weight = args[9] + 4 * depth * first, args[5] + TILE * depth * panel
        for i in range(0, rows * TILE, LANES):
            fill_16(sums + 4 * i, 0.0)
        if rows <= ROWS_IN_REGISTERS:
            _multiply_few(x, depth, weight, sums, rows)
        else:
            _multiply_many(x, depth, weight, sums, rows, widened)
        _write_output(args, sums, panel, first, rows, widened)
        item = atomic_add(base, 1)


@njit(error_model="numpy")
def _multiply_few(x, depth, weight, sums, rows):
    """sums [rows, 64] += x [rows, depth] · weight [depth, 64]; at most `ROWS_IN_REGISTERS` rows."""
    if rows == 6:
        _multiply_add_6x4(x, depth, weight, sums, TILE, depth)
    elif rows == 5:
        _multiply_add_5x4(x, depth, weight, sums, TILE, depth)
    elif rows == 4:
        _multiply_add_4x4(x, depth, weight, sums, TILE, depth)
    elif rows == 3:
        _multiply_add_3x4(x, depth, weight, sums, TILE, depth)
    elif rows == 2:
        _multiply_add_2x4(x, depth, weight, sums, TILE, depth)
    else:
        _multiply_add_1x4(x, depth, weight, sums, TILE, depth)


@njit(error_model="numpy")
def _multiply_many(x, depth, weight, sums, rows, widened):
    """The same for more rows; `widened` is scratch [WIDENED_DEPTH, 64]."""
    for start in range(0, depth, WIDENED_DEPTH):
        size = min(WIDENED_DEPTH, depth - start)
        source = weight + TILE * start
        for i in range(0, TILE * size, LANES):
            widen_int8_16(widened + 4 * i, source + i)
        multiply_rows(x + 4 * start, depth, widened, sums, rows, size, source + TILE * size)


@njit(error_model="numpy")
def _write_output(args, sums, panel, first, rows, widened):
    """Scale the sums [rows, 64] of a panel, and write what becomes of them.

    `first` is the number of the first row; `widened` is scratch of as many float32 as a row of sums.
    """
    width, activation, residual, is_float32 = args[4], args[12], args[11], args[14] != 0
    bias, scales = args[6] + 4 * TILE * panel, args[7] + 4 * TILE * panel
    columns = TILE if activation == NO_ACTIVATION else TILE // 2
    column = panel * columns
    live = min(columns, width - column)
    for row in range(first, first + rows):
        element = row * width + column
        for i in range(0, TILE, LANES):
            multiply_16(sums + 4 * i, scales + 4 * i)
        if activation != NO_ACTIVATION:
            for i in range(0, live, LANES):
                gate_sums_bfloat16(args[10] + 2 * (element + i), sums + 8 * i, bias + 8 * i, activation)
        else:
            for i in range(0, TILE, LANES):
                add_16(sums + 4 * i, sums + 4 * i, bias + 4 * i)
                if is_float32 or residual != 0:
                    round_16(sums + 4 * i)
            if is_float32:
                copy_row(args[10] + 4 * element, sums, live)
            elif residual != 0:
                widen_row(widened, residual + 2 * element, live)
                for i in range(0, TILE, LANES):
                    add_16(sums + 4 * i, sums + 4 * i, widened + 4 * i)
                narrow_row(args[10] + 2 * element, sums, live)
            else:
                narrow_row(args[10] + 2 * element, sums, live)
        sums += 4 * TILE
