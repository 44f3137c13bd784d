"""Chooses the packed form of a linear layer: a weight laid out once for the processor that runs it.

`F.linear` lays the weight out anew, or reads it row by row, at each call; packed, a decode step is up to twice as fast,
and the forms chosen here give a row the same bits in every batch: bfloat16 on AMX (`amx_linear`), bfloat16 elsewhere
(oneDNN's own packed form, whose sums depend on the batch only for a single row), float32 (`fma_linear`). With an
`Int8Rounding`, bfloat16 weights become int8 (`int8_linear` on AMX, `fma_int8_linear` elsewhere).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import nn

from .amx_linear import AmxLinear, pack_amx
from .fma_int8_linear import FmaInt8Linear
from .fma_linear import FmaLinear
from .gated_activation import GatedActivation
from .int8_linear import Int8Linear, pack_int8
from .int8_weight import Int8Rounding
from .simd import LANES
from .thread_pool import ThreadPool


class PackedLinear(nn.Module):
    """`x @ weight.T + bias` in bfloat16 by oneDNN, with a weight that it has packed."""

    def __init__(self, packed: torch.Tensor, bias: torch.Tensor | None, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self._packed = packed
        self._bias = bias
        self._linear = torch.ops.mkldnn._linear_pointwise.default

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., in_features] to [..., out_features]; `residual` of that shape is added to the output."""
        y = self._product(x)
        return y if residual is None else residual + y

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() == self.in_features:
            # One row alone would take oneDNN's vector path, which sums in another order than every larger batch.
            rows = x.reshape(1, self.in_features).expand(2, -1).contiguous()
            y = self._linear(rows, self._packed, self._bias, "none", [], "")[:1]
            return y.view(*x.shape[:-1], self.out_features)
        return self._linear(x, self._packed, self._bias, "none", [], "")


Appendable = AmxLinear | Int8Linear | FmaInt8Linear | FmaLinear
"""Layers that a sequence of kernels can take."""


def can_be_appended(linear: nn.Module) -> TypeGuard[Appendable]:
    return isinstance(linear, Appendable) and linear.can_be_appended


def pack(
    weight: torch.Tensor, bias: torch.Tensor | None, threads: ThreadPool, rounding: Int8Rounding | None = None
) -> nn.Module | None:
    """A packed layer that gives what `F.linear(x, weight, bias)` gives, or None where none fits.

    weight: [out_features, in_features]; bias: [out_features]. With `rounding` a bfloat16 weight becomes int8.
    """
    if weight.device.type != "cpu":
        return None
    if weight.dtype == torch.float32:
        return FmaLinear(weight, bias, threads)
    linear = _pack_panels(weight, bias, threads, rounding)
    if linear is not None:
        return linear
    if weight.dtype != torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    return PackedLinear(packed, None if bias is None else bias.detach(), weight.shape[1], weight.shape[0])


class GatedLinear(nn.Module):
    """A layer whose outputs are gates, then values, and the activation between them, as two kernels."""

    def __init__(self, linear: nn.Module, activation: GatedActivation) -> None:
        super().__init__()
        self._linear = linear
        self._activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._activation(self._linear(x))


def _pack_panels(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    threads: ThreadPool,
    rounding: Int8Rounding | None,
    activation: str | None = None,
) -> nn.Module | None:
    """A layer with an int8 weight or one on the matrix unit, or None where neither can be had."""
    linear = None if rounding is None else pack_int8(weight, bias, threads, rounding, activation)
    return pack_amx(weight, bias, threads, activation) if linear is None else linear


def pack_gated(
    linears: Sequence[nn.Linear], activation: str, threads: ThreadPool, rounding: Int8Rounding | None = None
) -> nn.Module | None:
    """A packed layer that computes `activation(gate) * up`, [..., size], or None where none fits.

    `linears` make gate and up: two layers, or one whose output holds the gate first; `activation` is one of
    `gated_activation.ACTIVATIONS`.
    """
    stacked = _stack(linears)
    if stacked is None:
        return None
    weight, bias = stacked
    size = weight.shape[0] // 2
    if weight.device.type == "cpu" and size % LANES == 0:
        # Gates and values by turns, so that both are at hand where a panel's sums are written.
        order = torch.arange(2 * size).view(2, -1, LANES).transpose(0, 1).flatten()
        by_turns, bias_by_turns = weight[order], None if bias is None else bias[order]
        if weight.dtype == torch.float32:
            return FmaLinear(by_turns, bias_by_turns, threads, activation)
        linear = _pack_panels(by_turns, bias_by_turns, threads, rounding, activation)
        if linear is not None:
            return linear
    linear = pack(weight, bias, threads, rounding)
    return None if linear is None else GatedLinear(linear, GatedActivation(activation, threads))


def pack_together(
    linears: Sequence[nn.Linear], threads: ThreadPool, rounding: Int8Rounding | None = None
) -> nn.Module | None:
    """One packed layer that gives the outputs of several layers of one input end to end, or None where none fits."""
    stacked = _stack(linears)
    return None if stacked is None else pack(*stacked, threads, rounding)


def _stack(linears: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Weight and bias of several layers of one input, end to end; None where they differ in kind."""
    first = linears[0]
    for linear in linears[1:]:
        same = linear.in_features == first.in_features and linear.weight.dtype == first.weight.dtype
        if not same or (linear.bias is None) != (first.bias is None):
            return None
    if len(linears) == 1:
        return first.weight.detach(), first.bias
    weight = torch.cat([linear.weight.detach() for linear in linears])
    return weight, None if first.bias is None else torch.cat([linear.bias.detach() for linear in linears])
