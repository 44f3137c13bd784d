"""Puts paged attention into transformers' modelling code.

transformers lets a model be built with an attention function of one's own. Ours reads and writes the paged cache of
the layer that calls it; what the step's batch looks like is set on this object before the model runs. The first forward
is a probe: it finds out which layers call and with which shapes, and refuses a model whose layers do not all call.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...kernels.kernel_sequence import Buffer, KernelSequence
from ...kernels.paged_attention import HeadShapes, PagedAttention
from ...kernels.rotary import Rotary, RotaryBuffers
from ..errors import UnsupportedModelError
from .device import Attention, Batch


@dataclass(frozen=True)
class LayerGeometry:
    """Shapes of one layer's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    sliding_window: int
    """Positions that a token sees, itself included; 0: all."""


class AttentionLayers:
    """The attention function of one model, with the caches of its layers."""

    def __init__(self, kernel: Attention) -> None:
        self.name = f"zqserve_{uuid.uuid4().hex}"
        """What `attn_implementation` must say for the model to call this object."""
        self.geometry: dict[int, LayerGeometry] = {}
        self._kernel = kernel
        self._caches: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._sinks: dict[int, torch.Tensor] = {}
        self._batch: Any = None
        self._interceptor: Callable[..., torch.Tensor] | None = None
        # The registry lives as long as the process: it must not keep the caches of a model that is gone.
        reference = weakref.ref(self)

        def forward(module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
            layers = reference()
            assert layers is not None, "the model outlived its attention"
            function = layers._interceptor or layers._forward
            return function(module, *args, **kwargs), None

        ALL_ATTENTION_FUNCTIONS.register(self.name, forward)

    def set_caches(self, caches: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Key and value cache of each layer, as `kernels.paged_attention` lays them out; ends the probing."""
        self._caches = caches
        self._sinks = {layer: sinks.to(caches[layer][0].device) for layer, sinks in self._sinks.items()}

    def caches(self) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Key and value cache of each layer, as they were set."""
        return self._caches.values()

    def set_batch(self, batch: Batch) -> None:
        """What the next forward computes, as the device's kernel takes it."""
        self._batch = batch

    @contextmanager
    def intercepted(self, function: Callable[..., torch.Tensor]) -> Iterator[None]:
        """Within the context the model calls `function` in the place of attention, as transformers calls it."""
        self._interceptor = function
        try:
            yield
        finally:
            self._interceptor = None

    @contextmanager
    def other_caches(self, caches: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
        """Within the context the model reads and writes these caches."""
        own, self._caches = self._caches, caches
        try:
            yield
        finally:
            self._caches = own

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scale: float | None,
        sliding_window: int | None,
        softcap: float | None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """Attention of the set batch in one layer; query, key and value [num_tokens, heads, dim] in the dtype of the
        cache. Returns [num_tokens, num_heads, value_dim].
        """
        assert self._batch is not None
        key_cache, value_cache = self._caches[layer]
        return self._kernel(
            query,
            key,
            value,
            key_cache,
            value_cache,
            self._batch,
            scale=query.shape[-1] ** -0.5 if scale is None else scale,
            sliding_window=sliding_window or 0,
            softcap=softcap or 0.0,
            sinks=self._sinks.get(layer),
            rotary=rotary,
        )

    def append_to(
        self,
        sequence: KernelSequence,
        layer: int,
        projected: Buffer,
        out: Buffer,
        heads: HeadShapes,
        batch: np.ndarray,
        *,
        scale: float | None,
        sliding_window: int | None,
        softcap: float | None,
        rotary: RotaryBuffers,
    ) -> None:
        """Add `attend` of one layer to a sequence of kernels; see `PagedAttention.append_to`. The caches are set."""
        assert isinstance(self._kernel, PagedAttention)
        key_cache, value_cache = self._caches[layer]
        self._kernel.append_to(
            sequence,
            projected,
            out,
            heads,
            key_cache,
            value_cache,
            batch,
            scale=heads.head_dim**-0.5 if scale is None else scale,
            sliding_window=sliding_window or 0,
            softcap=softcap or 0.0,
            sinks=self._sinks.get(layer),
            rotary=rotary,
        )

    def check_layers(self, architecture: str, num_layers: int) -> None:
        """Raise `UnsupportedModelError` unless the probe saw every layer once."""
        missing = sorted(set(range(num_layers)) - set(self.geometry))
        if missing:
            raise UnsupportedModelError(
                f"{architecture} cannot be served: {len(missing)} of its {num_layers} layers (the first is layer "
                f"{missing[0]}) compute attention, or something else, without calling the attention function that "
                "transformers lets us set, so the paged cache would miss them and the answers would be wrong."
            )

    def _forward(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """query [1, num_heads, num_tokens, head_dim], key and value alike; returns [1, num_tokens, num_heads, dim]."""
        if module.layer_idx not in self._caches:
            return self._probe(module, query, key, value, sliding_window, s_aux, kwargs)
        dtype = query.dtype
        cache_dtype = self._caches[module.layer_idx][0].dtype
        out = self.attend(
            module.layer_idx,
            _rows(query, cache_dtype),
            _rows(key, cache_dtype),
            _rows(value, cache_dtype),
            scale=scaling,
            sliding_window=sliding_window,
            softcap=softcap,
        )
        return out.to(dtype).unsqueeze(0)

    def _probe(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sliding_window: int | None,
        s_aux: torch.Tensor | None,
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        if kwargs.get("position_bias") is not None or kwargs.get("is_causal") is False:
            raise UnsupportedModelError(
                f"{type(module).__name__} needs attention of a kind that the paged kernels do not have "
                "(a position bias, or attention to later tokens)."
            )
        self.geometry[module.layer_idx] = LayerGeometry(
            num_heads=query.shape[1],
            num_kv_heads=key.shape[1],
            head_dim=key.shape[3],
            value_dim=value.shape[3],
            sliding_window=sliding_window or 0,
        )
        if s_aux is not None:
            self._sinks[module.layer_idx] = s_aux.detach().float().contiguous()
        group = query.shape[1] // value.shape[1]
        # One token attends to itself alone.
        return value.repeat_interleave(group, 1).transpose(1, 2)


def _rows(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[1, heads, tokens, dim] to [tokens, heads, dim] in the cache's dtype, the last dimension contiguous."""
    rows = states[0].transpose(0, 1).to(dtype)
    return rows if rows.stride(2) == 1 else rows.contiguous()
