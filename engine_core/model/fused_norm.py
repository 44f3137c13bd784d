"""An RMSNorm module in place of transformers' own. Put into models by `model_surgery`."""

from __future__ import annotations

import torch
from torch import nn

from ...kernels.rms_norm import RMSNormKernel


class FusedRMSNorm(nn.Module):
    """An RMSNorm module around the kernel."""

    def __init__(self, kernel: RMSNormKernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.kernel(hidden_states)
