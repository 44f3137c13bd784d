"""A decoder layer of two residual branches, in place of transformers' module that computes the same.

The branches add to the residual themselves, where the last product of each is written. Which modules can be replaced is
found out by trying, with stand-ins in the place of their parts. Used by `model_surgery`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...kernels.kernel_sequence import Buffer
from .fused_norm import FusedRMSNorm
from .gated_mlp import GatedMLP
from .rotary_attention import PROBE_TOKENS, RotaryAttention
from .stand_ins import Call, agree, probe_values, stand_ins
from .step_buffers import StepBuffers

ATTENTION, MLP = "self_attn", "mlp"
NORMS = ("input_layernorm", "post_attention_layernorm")


class PreNormDecoderLayer(nn.Module):
    """`h = x + attention(norm(x))`, then `h + mlp(norm(h))`."""

    def __init__(
        self, attention_norm: nn.Module, attention: RotaryAttention, mlp_norm: nn.Module, mlp: GatedMLP
    ) -> None:
        super().__init__()
        self._attention_norm = attention_norm
        self._attention = attention
        self._mlp_norm = mlp_norm
        self._mlp = mlp

    def forward(
        self,
        hidden_states: torch.Tensor,
        *_args: Any,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        **_kwargs: Any,
    ) -> torch.Tensor:
        """hidden_states [1, num_tokens, hidden_size] to the same shape."""
        attended, _ = self._attention(self._attention_norm(hidden_states), position_embeddings, residual=hidden_states)
        return self._mlp(self._mlp_norm(attended), attended)

    @property
    def can_be_appended(self) -> bool:
        """Whether `append_to` may be used."""
        norms = isinstance(self._attention_norm, FusedRMSNorm) and isinstance(self._mlp_norm, FusedRMSNorm)
        return norms and self._attention.can_be_appended and self._mlp.can_be_appended

    def append_to(self, hidden: Buffer, buffers: StepBuffers) -> None:
        """Add what `forward` does to a sequence of kernels; `hidden` is both input and output."""
        assert isinstance(self._attention_norm, FusedRMSNorm)
        assert isinstance(self._mlp_norm, FusedRMSNorm)
        normed = buffers.get("normed", hidden.row_bytes)
        between = buffers.get("between", hidden.row_bytes)
        self._attention_norm.kernel.append_to(buffers.sequence, hidden, normed)
        self._attention.append_to(normed, between, hidden, buffers)
        self._mlp_norm.kernel.append_to(buffers.sequence, between, normed)
        self._mlp.append_to(normed, hidden, between, buffers)


def fuse_decoder_layer(module: nn.Module, call: Call) -> PreNormDecoderLayer | None:
    """The faster form of a decoder layer whose attention and MLP have been fused, or None where it is another."""
    parts: list[Any] = [getattr(module, name, None) for name in (NORMS[0], ATTENTION, NORMS[1], MLP)]
    if not isinstance(parts[1], RotaryAttention) or not isinstance(parts[3], GatedMLP) or None in parts:
        return None
    hidden = call.args[0] if call.args else call.kwargs.get("hidden_states")
    if not isinstance(hidden, torch.Tensor) or "position_embeddings" not in call.kwargs:
        return None
    shape, dtype = (1, PROBE_TOKENS, hidden.shape[-1]), hidden.dtype
    x, normed, attended, normed_again, output = (probe_values(*shape, dtype=dtype, seed=seed) for seed in range(5))
    outputs = {NORMS[0]: normed, ATTENTION: (attended, None), NORMS[1]: normed_again, MLP: output}
    try:
        with stand_ins(module, outputs) as placed:
            result = module(x.clone(), *call.args[1:], **{k: v for k, v in call.kwargs.items() if k != "hidden_states"})
    except Exception:  # whatever a module of another kind raises when its parts are not what it expects
        return None
    inputs = [placed[name].input for name in (NORMS[0], ATTENTION, NORMS[1], MLP)]
    expected = [x, normed, x + attended, normed_again, x + attended + output]
    found = [*inputs, result]
    if not all(isinstance(f, torch.Tensor) and agree(f, e) for f, e in zip(found, expected, strict=True)):
        return None
    layer = PreNormDecoderLayer(*parts)
    # The model may read what is noted on its layers, such as the kind of attention.
    layer.__dict__.update({name: value for name, value in vars(module).items() if not name.startswith("_")})
    return layer
