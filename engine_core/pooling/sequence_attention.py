"""Attention of an encoder over many texts laid end to end, without padding and without a cache.

Registered with transformers like `attention.AttentionLayers`; the texts of a batch stand sorted by their length, so
that those of one length are one call of torch's attention. `encoder_model` sets the batch.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import UnsupportedModelError


class SequenceAttention:
    """The attention function of one encoder: each token sees all tokens of its own text."""

    def __init__(self) -> None:
        self.name = f"zqserve_{uuid.uuid4().hex}"
        """What `attn_implementation` must say for the model to call this object."""
        self._batch = threading.local()
        """Each thread runs batches of its own."""
        # The registry lives as long as the process; the model, whose weights this object does not hold, may not.
        reference = weakref.ref(self)

        def forward(module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
            attention = reference()
            assert attention is not None, "the model outlived its attention"
            return attention._forward(module, *args, **kwargs), None

        ALL_ATTENTION_FUNCTIONS.register(self.name, forward)

    def set_batch(self, shapes: Sequence[tuple[int, int]]) -> None:
        """What the next forward of this thread computes: (number of texts, their length), one after another."""
        self._batch.shapes = list(shapes)

    def _forward(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """query, key, value [1, num_heads, num_tokens, head_dim]; returns [1, num_tokens, num_heads, head_dim]."""
        self._refuse_what_is_not_plain(module, attention_mask, kwargs)
        out = torch.empty(query.shape[2], query.shape[1], value.shape[3], dtype=query.dtype, device=query.device)
        start = 0
        for count, length in self._batch.shapes:
            end = start + count * length
            # [heads, tokens, dim] -> [texts, heads, tokens of a text, dim]
            q, k, v = (x[0, :, start:end].unflatten(1, (count, length)).transpose(0, 1) for x in (query, key, value))
            attended = scaled_dot_product_attention(q, k, v, scale=scaling, enable_gqa=q.shape[1] != k.shape[1])
            out[start:end].view(count, length, *out.shape[1:]).copy_(attended.transpose(1, 2))
            start = end
        return out.unsqueeze(0)

    def _refuse_what_is_not_plain(
        self, module: Any, attention_mask: torch.Tensor | None, kwargs: dict[str, Any]
    ) -> None:
        special = [name for name in ("sliding_window", "softcap", "s_aux", "position_bias") if kwargs.get(name)]
        if attention_mask is not None or special or getattr(module, "is_causal", False) or kwargs.get("is_causal"):
            raise UnsupportedModelError(f"{type(module).__name__} does not attend to all tokens of a text alike.")
