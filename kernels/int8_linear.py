"""A linear layer with an int8 weight: half the bytes to read for each token, which is what a decode step waits for.

`pack_int8` makes one: `Int8Linear` where the processor has Intel's matrix unit (AMX), elsewhere `fma_int8_linear`.

The weight is rounded once, symmetrically, with one scale for each output. Inputs are bfloat16; each row of them becomes
integers of 16 bits with one scale for the row, which moves a value by no more than 1/65,000 of the row's largest: less
than the weight's rounding by two orders of magnitude, and than the output's own. Products and sums are integers and
exact, so a row has the same bits in every batch.

The matrix unit multiplies int8: a row of inputs goes in as two rows, the upper limb and the lower one, which as many
multiplications as bfloat16 would take, and the weight goes from memory to the tiles as it is.
"""

from __future__ import annotations

import torch
from numba import njit
from torch import nn

from . import amx
from .amx import CACHE_LINE, keep_magnitudes_32, largest_of_32, split_32
from .amx_gemm import LIMBS, AmxGemm, panels_of
from .fma_int8_linear import FmaInt8Linear
from .int8_weight import Int8Rounding, Int8Weight
from .kernel_sequence import Buffer, KernelSequence
from .simd import address_of, fill_16, store_f32
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

LARGEST_INPUT = 127 * 256 + 127

STEP = 64
"""Inputs of a row of a tile."""

MAX_IN_FEATURES = 1 << 17
"""More would not fit the int32 sums of limbs."""

MIN_OUT_FEATURES = 32

ROW_SCALE_BYTES = 4
ROWS_PER_ITEM = 8
MIN_PARALLEL_INPUTS = 1 << 16
"""Inputs of a batch below which one thread splits them faster than two."""


class Int8Linear(nn.Module):
    """`x @ weight.T + bias` on the matrix unit, with an int8 weight [out_features, in_features]; x is bfloat16.

    With an activation, one of `gated_activation.ACTIVATIONS`, the outputs are gates and values by turns, sixteen of
    each: `activation(gates) * values` is returned in their place, half as wide.
    """

    def __init__(
        self,
        weight: Int8Weight,
        bias: torch.Tensor | None,
        threads: ThreadPool,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.values.shape
        self._threads = threads
        self._row_bytes = LIMBS * -(-self.in_features // STEP) * STEP
        self._gemm = AmxGemm(panels_of(weight.values), bias, self.out_features, threads, activation, weight.scales)
        self._split = compile_kernel(_split_rows)
        self._arguments = KernelArguments(8)
        self._arguments.values[6] = self.in_features
        self._arguments.values[7] = self._row_bytes

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., in_features] to [..., out_features], plus `residual` of that shape; all bfloat16."""
        if x.dtype != torch.bfloat16 or x.shape[-1] != self.in_features:
            raise ValueError(f"expected bfloat16 [..., {self.in_features}], got {x.dtype} {tuple(x.shape)}")
        num_rows = x.numel() // self.in_features
        out = x.new_empty((*x.shape[:-1], self._gemm.width))
        if residual is not None:
            residual = residual.expand_as(out).contiguous()
        x = x.contiguous()
        limbs = torch.empty(num_rows * self._row_bytes, dtype=torch.int8)
        row_scales = torch.empty(num_rows)
        v = self._arguments.values
        v[0] = 0
        v[2] = num_rows
        v[3] = x.data_ptr()
        v[4] = limbs.data_ptr()
        v[5] = row_scales.data_ptr()
        self._threads.run(self._split, self._arguments, parallel=x.numel() >= MIN_PARALLEL_INPUTS)
        self._gemm.run(limbs, out, num_rows, residual, row_scales)
        return out

    can_be_appended = True

    @property
    def out_bytes(self) -> int:
        """Of a row of the output."""
        return self._gemm.out_bytes

    def append_to(self, sequence: KernelSequence, x: Buffer, out: Buffer, residual: Buffer | None = None) -> None:
        """Add the layer to a sequence; the buffers' rows are as `forward` has them. In a buffer of twice the width the
        output is stored as float32, for who would widen it next.
        """
        limbs, row_scales = (sequence.passing_buffer(size, x.count) for size in (self._row_bytes, ROW_SCALE_BYTES))
        sequence.append(
            self._split,
            self._arguments.values,
            {3: x, 4: limbs, 5: row_scales},
            count=x.count,
            rows_at=2,
            parallel_from=-(-MIN_PARALLEL_INPUTS // self.in_features),
            keep=self,
        )
        self._gemm.append_to(sequence, limbs, out, residual, row_scales)


def is_available() -> bool:
    """Whether this machine can run an `Int8Linear`."""
    return amx.is_available()


def pack_int8(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    threads: ThreadPool,
    rounding: Int8Rounding,
    activation: str | None = None,
) -> Int8Linear | FmaInt8Linear | None:
    """A layer that computes `F.linear(x, weight, bias)` with its bfloat16 weight rounded, or None where it can't be
    had, and for a layer of a few outputs: those choose between experts or classes, and are no work.
    """
    out_features, in_features = weight.shape
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or out_features < MIN_OUT_FEATURES:
        return None
    if rounding.matrix_unit and is_available() and in_features <= MAX_IN_FEATURES:
        return Int8Linear(rounding.round(weight), bias, threads, activation)
    return FmaInt8Linear(rounding.round(weight), bias, threads, activation)


def _split_rows(args):
    """Kernel: items are groups of rows of x, bfloat16 [num_rows, in_features]; each becomes two rows of limbs, padded
    with zeros to whole steps, and a scale.
    """
    base = address_of(args)
    num_rows, in_features, row_bytes = args[2], args[6], args[7]
    while True:
        first = atomic_add(base, 1) * ROWS_PER_ITEM
        if first >= num_rows:
            return
        for row in range(first, min(first + ROWS_PER_ITEM, num_rows)):
            source, limbs = args[3] + 2 * in_features * row, args[4] + row_bytes * row
            store_f32(args[5] + ROW_SCALE_BYTES * row, _split_row(limbs, source, in_features, row_bytes // LIMBS))


@njit(error_model="numpy")
def _split_row(limbs, source, in_features, limb_bytes):
    """Write both limbs of a row; returns its scale."""
    # The first bytes of the limbs hold the largest magnitudes until they are known.
    fill_16(limbs, 0.0)
    for i in range(0, in_features, CACHE_LINE // 2):
        keep_magnitudes_32(limbs, source + 2 * i, in_features - i)
    largest = largest_of_32(limbs)
    # Infinite for a row of zeros, or of nearly nothing: its limbs are then zeros.
    factor = LARGEST_INPUT / largest
    for i in range(0, limb_bytes, CACHE_LINE // 2):
        split_32(limbs + i, limbs + limb_bytes + i, source + 2 * i, in_features - i, factor)
    return largest / LARGEST_INPUT
