"""A bfloat16 linear layer on Intel's matrix unit (AMX) whose rows have the same bits in every batch.

Every element of the output is one chain of float32 sums over the inputs in their order, then the bias, then one
rounding. How many rows there are, where a row stands among them and how many threads work does not enter. (oneDNN,
behind `F.linear` and `packed_linear`, cuts the inputs by the number of rows, so that the last bit of one value in
20,000 changes with the batch.)
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from . import amx
from .amx_gemm import AmxGemm, panels_of
from .kernel_sequence import Buffer, KernelSequence
from .thread_pool import ThreadPool

STEP = 32
"""Inputs of a row of a tile."""


class AmxLinear(nn.Module):
    """`x @ weight.T + bias` with a packed bfloat16 weight [out_features, in_features]; made by `pack_amx`.

    With an activation, one of `gated_activation.ACTIVATIONS`, the outputs are gates and values by turns, sixteen of
    each: `activation(gates) * values` is returned in their place, half as wide.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, threads: ThreadPool, activation: str | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._padding = -self.in_features % STEP
        self._gemm = AmxGemm(panels_of(weight), bias, self.out_features, threads, activation)

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., in_features] to [..., out_features], plus `residual` of that shape; all bfloat16."""
        if x.dtype != torch.bfloat16 or x.shape[-1] != self.in_features:
            raise ValueError(f"expected bfloat16 [..., {self.in_features}], got {x.dtype} {tuple(x.shape)}")
        out = x.new_empty((*x.shape[:-1], self._gemm.width))
        if residual is not None:
            residual = residual.expand_as(out).contiguous()
        rows = F.pad(x, (0, self._padding)) if self._padding else x.contiguous()
        self._gemm.run(rows, out, x.numel() // self.in_features, residual)
        return out

    @property
    def can_be_appended(self) -> bool:
        """Whether `append_to` may be used: not where the input must be padded first."""
        return self._padding == 0

    @property
    def out_bytes(self) -> int:
        """Of a row of the output."""
        return self._gemm.out_bytes

    def append_to(self, sequence: KernelSequence, x: Buffer, out: Buffer, residual: Buffer | None = None) -> None:
        """Add the layer to a sequence; the buffers' rows are as `forward` has them. In a buffer of twice the width the
        output is stored as float32, for who would widen it next.
        """
        self._gemm.append_to(sequence, x, out, residual)


def is_available() -> bool:
    """Whether this machine can run an `AmxLinear`."""
    return amx.is_available()


def pack_amx(
    weight: torch.Tensor, bias: torch.Tensor | None, threads: ThreadPool, activation: str | None = None
) -> AmxLinear | None:
    """A packed layer that computes `F.linear(x, weight, bias)`, or None where it can't be had.

    `activation`: see `AmxLinear`.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not is_available():
        return None
    return AmxLinear(weight, bias, threads, activation)
