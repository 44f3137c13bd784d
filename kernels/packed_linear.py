"""Chooses the packed form of a linear layer: a weight laid out once for the processor that runs it.

`F.linear` lays the weight out anew, or reads it row by row, at each call; packed, a decode step is up to twice as fast,
and the forms chosen here give a row the same bits in every batch: bfloat16 on AMX (`amx_linear`), bfloat16 elsewhere
(oneDNN's own packed form, whose sums depend on the batch only for a single row), float32 (`fma_linear`).
"""

from __future__ import annotations

import torch
from torch import nn

from .amx_linear import pack_amx
from .fma_linear import FmaLinear
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in_features] to [..., out_features]."""
        if x.numel() == self.in_features:
            # One row alone would take oneDNN's vector path, which sums in another order than every larger batch.
            rows = x.reshape(1, self.in_features).expand(2, -1).contiguous()
            y = self._linear(rows, self._packed, self._bias, "none", [], "")[:1]
            return y.view(*x.shape[:-1], self.out_features)
        return self._linear(x, self._packed, self._bias, "none", [], "")


def pack(weight: torch.Tensor, bias: torch.Tensor | None, threads: ThreadPool) -> nn.Module | None:
    """A packed layer that gives what `F.linear(x, weight, bias)` gives, or None where none fits.

    weight: [out_features, in_features]; bias: [out_features].
    """
    if weight.device.type != "cpu":
        return None
    if weight.dtype == torch.float32:
        return FmaLinear(weight, bias, threads)
    linear = pack_amx(weight, bias, threads)
    if linear is not None:
        return linear
    if weight.dtype != torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)
    return PackedLinear(packed, None if bias is None else bias.detach(), weight.shape[1], weight.shape[0])
