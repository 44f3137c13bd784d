"""What `gpu_surgery` puts into a model on a GPU: layers around Triton's kernels and the library's matrix products.

Their weights lie on the device from the start.
"""

from __future__ import annotations

import torch
from torch import nn

from ...kernels.triton.gated_activation import GatedActivation
from ...kernels.triton.rms_norm import RMSNormKernel


class StackedLinear(nn.Module):
    """One product for several linear layers that read the same input, their outputs behind each other."""

    def __init__(self, linears: list[nn.Linear], device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([linear.weight.to(device) for linear in linears]), requires_grad=False)
        biases = [linear.bias.to(device) for linear in linears if linear.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None

    @staticmethod
    def can_stack(linears: list[nn.Linear]) -> bool:
        """Whether all have a bias, or none."""
        return len({linear.bias is None for linear in linears}) == 1

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x [..., in_features]; with `residual` [..., out_features], whose memory becomes the output's, added to it."""
        if residual is None:
            return nn.functional.linear(x, self.weight, self.bias)
        flat = residual.view(-1, residual.shape[-1])
        flat.addmm_(x.reshape(-1, x.shape[-1]), self.weight.t())
        return residual if self.bias is None else residual.add_(self.bias)


class GatedProduct(nn.Module):
    """`activation(gate(x)) * up(x)`."""

    def __init__(self, gate_and_up: StackedLinear, activation: GatedActivation) -> None:
        super().__init__()
        self._gate_and_up = gate_and_up
        self._activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._activation(self._gate_and_up(x))


class GpuRMSNorm(nn.Module):
    """An RMSNorm module around the kernel."""

    def __init__(self, kernel: RMSNormKernel) -> None:
        super().__init__()
        self._kernel = kernel

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self._kernel(hidden_states)
