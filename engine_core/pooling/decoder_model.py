"""A decoder whose last layer is asked for: the paged model, run over whole texts in a small cache of its own.

All layers of a shape share that cache: within one forward no layer reads what another one wrote, and no text is
continued in a later step. So the model that generates can also embed, at the cost of one layer's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...kernels.attention_batch import make_batch
from ..model import kv_cache
from ..model.device import Device
from ..model.model_loader import LoadedModel
from .text_group import TextGroup


class DecoderModel:
    """Runs a decoder, with or without a classification head."""

    def __init__(
        self, loaded: LoadedModel, device: Device, *, block_size: int, max_tokens: int, max_texts: int
    ) -> None:
        """max_tokens, max_texts: the most of one step."""
        self._model = loaded.model
        self._attention = loaded.attention
        self._device = device
        self._block_size = block_size
        self._head: Any = getattr(loaded.model, "score", None)
        geometry = loaded.attention.geometry
        self._max_group = max(layer.num_heads // layer.num_kv_heads for layer in geometry.values())
        # Each text may leave a part of its last block empty.
        num_blocks = -(-max_tokens // block_size) + max_texts
        dtype = kv_cache.cache_dtype(loaded.dtype, device)
        by_shape = {shape: layer for layer, shape in geometry.items()}
        shared = kv_cache.make_caches(
            {layer: geometry[layer] for layer in by_shape.values()}, num_blocks, block_size, dtype, device
        )
        self._caches = {layer: shared[by_shape[shape]] for layer, shape in geometry.items()}

    def run(self, groups: Sequence[TextGroup]) -> list[tuple[TextGroup, torch.Tensor]]:
        """Each group with the states of the last layer, or a classifier's output for the last token."""
        device = self._device.torch_device
        lens = np.concatenate([np.full(count, length, np.int32) for count, length in (g.shape for g in groups)])
        token_ids = torch.cat([group.token_ids.flatten() for group in groups])
        positions = torch.cat(
            [torch.arange(length, device=device).repeat(count) for count, length in (g.shape for g in groups)]
        )
        batch = make_batch(lens, np.zeros_like(lens), self._block_tables(lens), self._block_size, self._max_group)
        self._device.prepare(len(token_ids))
        with self._attention.other_caches(self._caches):
            self._attention.set_batch(batch)
            output = self._model.base_model(input_ids=token_ids[None], position_ids=positions[None], use_cache=False)
        parts = output.last_hidden_state[0].split([group.num_tokens for group in groups])
        states = [part.view(*group.shape, -1) for group, part in zip(groups, parts, strict=True)]
        results = states if self._head is None else [self._head(state[:, -1]) for state in states]
        return list(zip(groups, results, strict=True))

    def _block_tables(self, lens: np.ndarray) -> np.ndarray:
        """Blocks of each text, one after another: int32 [texts, most blocks of a text]."""
        counts = -(-lens // self._block_size)
        firsts = np.cumsum(counts) - counts
        return (firsts[:, None] + np.minimum(np.arange(counts.max()), counts[:, None] - 1)).astype(np.int32)
