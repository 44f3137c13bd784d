"""Attention of several tokens of a sequence: prompts and chunks of them, behind any number of cached tokens.

A program takes a few tokens with all query heads of one key/value head, as rows of one tile: heads that share keys read
them once.
"""

# Inside a kernel Triton's functions have other types than their signatures say.
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from .attention_tile import LOG2E, NO_WINDOW, attend_tile, finish_rows
from .launch import Launch, next_power_of_2


@dataclass(frozen=True)
class PrefillTile:
    """What one program takes: rows (tokens times heads of a group), and keys at a time."""

    rows: int
    keys: int
    num_warps: int


def prefill_tile(head_dim: int, element_size: int, capability: int) -> PrefillTile:
    """The largest that a chip of this capability (80: A100, 90: H100) has registers for."""
    if next_power_of_2(head_dim) * element_size > 256:
        return PrefillTile(64, 32, 8)
    # Before Hopper registers, not shared memory, hold what the matrix units read.
    return PrefillTile(128, 64, 8) if capability >= 90 else PrefillTile(64, 32, 4)


def prefill_launch(
    out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    num_keys: torch.Tensor,
    query_start: torch.Tensor,
    item_seq: torch.Tensor,
    item_start: torch.Tensor,
    *,
    tokens_per_item: int,
    scale: float,
    sliding_window: int,
    softcap: float,
    sinks: torch.Tensor | None,
    capability: int,
) -> Launch:
    """Attention of the work items on a chip of this capability; see `paged_attention.PagedAttention` for the rest."""
    num_heads, head_dim = query.shape[1:]
    num_kv_heads, block_size, value_dim = value_cache.shape[1:]
    group = num_heads // num_kv_heads
    head_pad, value_pad = next_power_of_2(max(16, head_dim)), next_power_of_2(max(16, value_dim))
    tile = prefill_tile(max(head_dim, value_dim), query.element_size(), capability)
    return Launch(
        prefill_attention_kernel,
        (len(item_seq), num_kv_heads),
        {
            "out": out,
            "query": query,
            "query_stride": query.stride(0),
            "query_head_stride": query.stride(1),
            "key_cache": key_cache,
            "key_stride": key_cache.stride(0),
            "value_cache": value_cache,
            "value_stride": value_cache.stride(0),
            "block_table": block_table,
            "table_stride": block_table.stride(0),
            "num_keys": num_keys,
            "query_start": query_start,
            "item_seq": item_seq,
            "item_start": item_start,
            "sinks": sinks,
            "scale": scale,
            "softcap": softcap,
            "window": sliding_window or NO_WINDOW,
        },
        {
            "NUM_HEADS": num_heads,
            "GROUP": group,
            "TOKENS": tokens_per_item,
            "ROWS": next_power_of_2(max(16, tokens_per_item * group)),
            "BLOCK_SIZE": block_size,
            "TILE": tile.keys,
            "HEAD_DIM": head_dim,
            "HEAD_PAD": head_pad,
            "VALUE_DIM": value_dim,
            "VALUE_PAD": value_pad,
            "HAS_SOFTCAP": softcap > 0,
            "HAS_WINDOW": sliding_window > 0,
        },
        num_warps=tile.num_warps,
        num_stages=2,
    )


@triton.jit
def prefill_attention_kernel(
    out,
    query,
    query_stride,
    query_head_stride,
    key_cache,
    key_stride,
    value_cache,
    value_stride,
    block_table,
    table_stride,
    num_keys,
    query_start,
    item_seq,
    item_start,
    sinks,
    scale,
    softcap,
    window,
    NUM_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
):
    """Grid [items, key/value heads]; row r is query head r % GROUP of the item's token r // GROUP."""
    item = tl.program_id(0)
    kv_head = tl.program_id(1)
    seq = tl.load(item_seq + item)
    first = tl.load(item_start + item)
    flat = tl.load(query_start + seq)
    query_len = tl.load(query_start + seq + 1) - flat
    context_len = tl.load(num_keys + seq) - query_len
    num_tokens = tl.minimum(query_len - first, TOKENS)
    row = tl.arange(0, ROWS)
    live_row = row < num_tokens * GROUP
    token = (flat + first + row // GROUP).to(tl.int64)
    head = kv_head * GROUP + row % GROUP
    first_position = context_len + first
    row_position = first_position + row // GROUP
    dim = tl.arange(0, HEAD_PAD)
    value_dim = tl.arange(0, VALUE_PAD)
    query_at = query + (token * query_stride + head * query_head_stride)[:, None] + dim[None, :]
    queries = tl.load(query_at, mask=live_row[:, None] & (dim[None, :] < HEAD_DIM), other=0.0)
    keys = key_cache + kv_head * (BLOCK_SIZE * HEAD_DIM)
    values = value_cache + kv_head * (BLOCK_SIZE * VALUE_DIM)
    table = block_table + seq.to(tl.int64) * table_stride
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, VALUE_PAD], tl.float32)
    end = first_position + num_tokens
    start = tl.maximum(first_position - window + 1, 0) // TILE * TILE
    seen_by_all = start
    if not HAS_WINDOW:
        seen_by_all = (first_position + 1) // TILE * TILE
        for tile in range(start, seen_by_all, TILE):
            maximum, total, sums = attend_tile(
                queries, row_position, maximum, total, sums, keys, values, table, tile, end,
                key_stride, value_stride, scale, softcap, window,
                BLOCK_SIZE, TILE, HEAD_DIM, HEAD_PAD, VALUE_DIM, VALUE_PAD, HAS_SOFTCAP, False,
            )  # fmt: skip
    for tile in range(seen_by_all, end, TILE):
        maximum, total, sums = attend_tile(
            queries, row_position, maximum, total, sums, keys, values, table, tile, end,
            key_stride, value_stride, scale, softcap, window,
            BLOCK_SIZE, TILE, HEAD_DIM, HEAD_PAD, VALUE_DIM, VALUE_PAD, HAS_SOFTCAP, True,
        )  # fmt: skip
    sink = tl.full([ROWS], float("-inf"), tl.float32)
    if sinks is not None:
        sink = tl.load(sinks + head) * LOG2E
    outputs = finish_rows(maximum, total, sums, sink).to(out.dtype.element_ty)
    out_at = out + ((token * NUM_HEADS + head) * VALUE_DIM)[:, None] + value_dim[None, :]
    tl.store(out_at, outputs, mask=live_row[:, None] & (value_dim[None, :] < VALUE_DIM))
