"""The gate of a gated feed-forward layer on a GPU: `gated_activation`'s twin, with the same roundings."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..gated_activation import ACTIVATIONS
from .attention_tile import LOG2E
from .launch import Launch

BLOCK = 1024


class GatedActivation:
    """`activation(gate) * up` where gate and up are the halves of each row."""

    def __init__(self, activation: str) -> None:
        """activation: one of `ACTIVATIONS`."""
        self._activation = ACTIVATIONS.index(activation)

    def __call__(self, gate_and_up: torch.Tensor) -> torch.Tensor:
        """gate_and_up [..., 2 * size], the gate first; to [..., size] in the same dtype."""
        gate_and_up = gate_and_up.contiguous()
        out = gate_and_up.new_empty((*gate_and_up.shape[:-1], gate_and_up.shape[-1] // 2))
        self.launch(out, gate_and_up).run()
        return out

    def launch(self, out: torch.Tensor, gate_and_up: torch.Tensor) -> Launch:
        """Both contiguous."""
        size = out.shape[-1]
        return Launch(
            gate_kernel,
            (out.numel() // size, -(-size // BLOCK)),
            {"out": out, "gate_and_up": gate_and_up, "size": size},
            {"ACTIVATION": self._activation, "BLOCK": BLOCK},
            num_warps=4,
        )


@triton.jit
def gate_kernel(out, gate_and_up, size, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    """Grid [rows, parts of a row]; ACTIVATION is an index of `ACTIVATIONS`."""
    dtype: tl.constexpr = out.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    gate = tl.load(gate_and_up + row * size * 2 + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_and_up + row * size * 2 + size + place, mask=inside, other=0.0).to(tl.float32)
    exponent = gate
    if ACTIVATION == 1:
        # 0.5 * (1 + tanh(u)) is the sigmoid of 2u, and u = sqrt(2 / pi) * (x + 0.044715 * x^3).
        exponent = 1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate)
    active = gate / (1.0 + tl.exp2(-exponent * LOG2E))
    tl.store(out + row * size + place, (active.to(dtype).to(tl.float32) * up).to(dtype), mask=inside)
