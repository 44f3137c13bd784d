"""Paged attention on a GPU: rotation and cache write, then decode and prompt kernels side by side; `paged_attention`'s
twin with the same call.

Cache layout, of one layer (see `attention_tile`):
    keys   [num_blocks, num_kv_heads, block_size, head_dim]
    values [num_blocks, num_kv_heads, block_size, value_dim]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..attention_batch import AttentionBatch
from ..rotary import Rotary
from .decode_attention import DecodeScratch, decode_launches
from .launch import Launch
from .prefill_attention import prefill_launch, prefill_tile
from .rotary import rotate_launch

_TYPES = {"int32": torch.int32, "int64": torch.int64, "float32": torch.float32}


@dataclass(frozen=True)
class DeviceBatch:
    """What one step's attention needs, the same for every layer; tensors on the device, int32 but for the slots."""

    query_start: torch.Tensor
    """[num_seqs + 1]: flat number of each sequence's first token."""
    num_keys: torch.Tensor
    """[num_seqs]: tokens in the cache once the step's are written."""
    block_table: torch.Tensor
    """[num_seqs, max_blocks]."""
    slots: torch.Tensor
    """int64 [num_tokens]: where each token's key and value go."""
    decode_seqs: torch.Tensor
    """The sequences that compute one token."""
    item_seq: torch.Tensor
    """With `item_start`: a sequence and the first of its tokens, of each program for the others."""
    item_start: torch.Tensor
    tokens_per_item: int
    num_splits: int
    """Of the longest sequence of `decode_seqs`."""
    split: int
    """Positions of a split; see `decode_attention`."""
    scratch: DecodeScratch | None = None
    """Room for the splits of any layer; None: the attention's own, which may move between steps."""


def make_batch(
    query_lens: np.ndarray,
    context_lens: np.ndarray,
    block_table: np.ndarray,
    block_size: int,
    *,
    tokens_per_item: int,
    split: int,
    device: torch.device,
) -> DeviceBatch:
    """Cut a step into programs and send what they read to the device, in one copy.

    query_lens, context_lens: int32 [num_seqs], tokens to compute and tokens already in the cache; block_table: int32
    [num_seqs, max_blocks]; tokens_per_item: what a program for several tokens takes; split: see `decode_attention`.
    """
    num_seqs = len(query_lens)
    query_start = np.zeros(num_seqs + 1, np.int32)
    np.cumsum(query_lens, out=query_start[1:])
    num_keys = context_lens + query_lens
    decodes = np.flatnonzero(query_lens == 1)
    pieces = np.where(query_lens > 1, -(-query_lens // tokens_per_item), 0)
    item_seq = np.repeat(np.arange(num_seqs), pieces)
    first_piece = np.cumsum(pieces) - pieces
    item_start = (np.arange(len(item_seq)) - first_piece[item_seq]) * tokens_per_item
    # The longest first, so that the chip is not left with one long program at the end.
    order = np.argsort(-(context_lens[item_seq] + item_start), kind="stable")
    seq = np.repeat(np.arange(num_seqs), query_lens)
    position = np.arange(query_start[-1]) - query_start[seq] + context_lens[seq]
    slots = block_table[seq, position // block_size].astype(np.int64) * block_size + position % block_size
    parts = [slots.view(np.int32), query_start, num_keys, decodes, item_seq[order], item_start[order], block_table]
    sent = send_together(parts, device)
    return DeviceBatch(
        query_start=sent[1],
        num_keys=sent[2],
        block_table=sent[6].view(block_table.shape),
        slots=sent[0].view(torch.int64),
        decode_seqs=sent[3],
        item_seq=sent[4],
        item_start=sent[5],
        tokens_per_item=tokens_per_item,
        num_splits=-(-int(num_keys[decodes].max(initial=1)) // split),
        split=split,
    )


ALIGNMENT = 4
"""int32 numbers: kernels are compiled for pointers at multiples of 16 bytes."""


def send_together(parts: list[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Arrays of integers as int32 [size] on the device, each at its own aligned place of one buffer.

    On CUDA the copy is of pinned memory, and waits for nothing.
    """
    starts = np.cumsum([0, *(-(-part.size // ALIGNMENT) * ALIGNMENT for part in parts)])
    buffer = torch.empty(int(starts[-1]), dtype=torch.int32, pin_memory=device.type == "cuda")
    flat = buffer.numpy()
    for start, part in zip(starts, parts, strict=False):
        flat[start : start + part.size] = part.ravel()
    sent = buffer.to(device, non_blocking=True)
    return [sent[start : start + part.size] for start, part in zip(starts, parts, strict=False)]


def send_arrays(arrays: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Arrays of int32, int64 or float32 on the device, in one copy."""
    sent = send_together([np.ascontiguousarray(array).reshape(-1).view(np.int32) for array in arrays], device)
    return [part.view(_TYPES[array.dtype.name]).view(array.shape) for part, array in zip(sent, arrays, strict=True)]


class PagedAttention:
    """Writes keys and values of a step into one layer's cache and attends."""

    def __init__(self, capability: int, split: int) -> None:
        """capability: of the chip, 80 for an A100, 90 for an H100; split: see `decode_attention.split_size`."""
        self._capability = capability
        self._split = split
        self._scratch: DecodeScratch | None = None
        self._batch: AttentionBatch | None = None
        self._sent: dict[int, DeviceBatch] = {}
        """`_batch` on the device, by the tokens that one program takes, which not all layers need have the same."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        batch: AttentionBatch | DeviceBatch,
        *,
        scale: float,
        sliding_window: int = 0,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """See `kernels.paged_attention.PagedAttention.__call__`. The first layer sends the batch to the device, where
        it is not there yet.
        """
        group_size = query.shape[1] // value_cache.shape[1]
        head_dim = max(query.shape[2], value_cache.shape[3])
        is_there = isinstance(batch, DeviceBatch)
        sent = batch if is_there else self._on_device(batch, value_cache, head_dim, group_size)
        out = query.new_empty(query.shape[0], query.shape[1], value_cache.shape[3])
        turned = None if rotary is None else torch.empty_like(query, memory_format=torch.contiguous_format)
        rotate_launch(turned, query, key, value, key_cache, value_cache, sent.slots, rotary).run()
        queries = query if turned is None else turned
        for launch in self.attend_launches(
            out, queries, key_cache, value_cache, sent, scale, sliding_window, softcap, sinks
        ):
            launch.run()
        return out

    def _on_device(
        self, batch: AttentionBatch, value_cache: torch.Tensor, head_dim: int, group_size: int
    ) -> DeviceBatch:
        if batch is not self._batch:
            self._batch = batch
            self._sent.clear()
        tokens_per_item = self.tokens_per_item(head_dim, group_size, value_cache.element_size())
        if tokens_per_item not in self._sent:
            self._sent[tokens_per_item] = make_batch(
                np.diff(batch.query_start),
                batch.context_len,
                batch.block_table,
                value_cache.shape[2],
                tokens_per_item=tokens_per_item,
                split=self._split,
                device=value_cache.device,
            )
        return self._sent[tokens_per_item]

    def tokens_per_item(self, head_dim: int, group_size: int, element_size: int) -> int:
        """Tokens that one program takes where a sequence computes several; element_size: bytes of a cached number."""
        return max(1, prefill_tile(head_dim, element_size, self._capability).rows // group_size)

    def attend_launches(
        self,
        out: torch.Tensor,
        query: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        batch: DeviceBatch,
        scale: float,
        sliding_window: int,
        softcap: float,
        sinks: torch.Tensor | None,
    ) -> list[Launch]:
        """Attention of a batch whose keys and values are in the cache."""
        options = {"scale": scale, "sliding_window": sliding_window, "softcap": softcap, "sinks": sinks}
        table, num_keys, query_start = batch.block_table, batch.num_keys, batch.query_start
        launches = []
        if len(batch.decode_seqs):
            scratch = self._decode_scratch(batch, out)
            launches += decode_launches(
                *(out, query, key_cache, value_cache, table, num_keys, query_start, batch.decode_seqs, scratch),
                split=batch.split,
                **options,
            )
        if len(batch.item_seq):
            launches.append(
                prefill_launch(
                    *(out, query, key_cache, value_cache, table, num_keys, query_start, batch.item_seq),
                    batch.item_start,
                    tokens_per_item=batch.tokens_per_item,
                    capability=self._capability,
                    **options,
                )
            )
        return launches

    def _decode_scratch(self, batch: DeviceBatch, out: torch.Tensor) -> DecodeScratch:
        """Room for the splits, kept between calls; layers follow each other on one stream."""
        num_heads, value_dim = out.shape[1:]
        shape = (len(batch.decode_seqs), num_heads, batch.num_splits)
        needed = math.prod(shape)
        kept = batch.scratch or self._scratch
        if kept is None or kept.sums.numel() < needed * value_dim or kept.stats.numel() < needed * 2:
            kept = DecodeScratch(
                torch.empty(needed * value_dim, device=out.device), torch.empty(needed * 2, device=out.device)
            )
            self._scratch = kept
        sums, stats = kept.sums.view(-1)[: needed * value_dim], kept.stats.view(-1)[: needed * 2]
        return DecodeScratch(sums.view(*shape, value_dim), stats.view(*shape, 2))
