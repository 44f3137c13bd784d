"""Attention of sequences that compute one token: each sequence's keys are split among programs, then combined.

A split is a run of positions of fixed length and place (as in Flash-Decoding), so what a sequence gets depends on its
own keys alone, not on the batch: the same bits in any batch. Programs take splits in turns, so a grid of any size fits.
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

MIN_SPLIT = 256
MAX_SPLITS = 64


def split_size(max_model_len: int) -> int:
    """Positions of one split, for sequences up to this length; fixed as long as an engine lives."""
    return max(MIN_SPLIT, next_power_of_2(-(-max_model_len // MAX_SPLITS)))


@dataclass(frozen=True)
class DecodeScratch:
    """What the splits leave for the combination: float32 on the device."""

    sums: torch.Tensor
    """[num_decodes, num_heads, num_splits, value_dim]; weighted sums of values, not normalised."""
    stats: torch.Tensor
    """[num_decodes, num_heads, num_splits, 2]: maximum and total of the weights."""


def decode_launches(
    out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    num_keys: torch.Tensor,
    query_start: torch.Tensor,
    decode_seqs: torch.Tensor,
    scratch: DecodeScratch,
    *,
    split: int,
    scale: float,
    sliding_window: int,
    softcap: float,
    sinks: torch.Tensor | None,
) -> list[Launch]:
    """Attention of the sequences `decode_seqs`; see `paged_attention.PagedAttention` for the rest."""
    num_heads, head_dim = query.shape[1:]
    num_kv_heads, block_size, value_dim = value_cache.shape[1:]
    num_splits = scratch.stats.shape[2]
    group = num_heads // num_kv_heads
    head_pad, value_pad = next_power_of_2(max(16, head_dim)), next_power_of_2(max(16, value_dim))
    shared = {
        "num_keys": num_keys,
        "query_start": query_start,
        "decode_seqs": decode_seqs,
        "sinks": sinks,
        "out": out,
        "sums_scratch": scratch.sums,
        "stats_scratch": scratch.stats,
        "window": sliding_window or NO_WINDOW,
        "num_splits": num_splits,
    }
    shape = {"NUM_HEADS": num_heads, "VALUE_DIM": value_dim, "VALUE_PAD": value_pad, "SPLIT": split}
    attend = Launch(
        split_attention_kernel,
        (len(decode_seqs), num_kv_heads, min(num_splits, _programs_a_head(len(decode_seqs), num_kv_heads))),
        {
            **shared,
            "query": query,
            "query_stride": query.stride(0),
            "query_head_stride": query.stride(1),
            "key_cache": key_cache,
            "key_stride": key_cache.stride(0),
            "value_cache": value_cache,
            "value_stride": value_cache.stride(0),
            "block_table": block_table,
            "table_stride": block_table.stride(0),
            "scale": scale,
            "softcap": softcap,
        },
        {
            **shape,
            "GROUP": group,
            "ROWS": next_power_of_2(max(16, group)),
            "BLOCK_SIZE": block_size,
            "TILE": 32 if max(head_pad, value_pad) * query.element_size() > 256 else 64,
            "HEAD_DIM": head_dim,
            "HEAD_PAD": head_pad,
            "HAS_SOFTCAP": softcap > 0,
        },
        num_warps=4,
        num_stages=5,
    )
    combine = Launch(
        combine_splits_kernel,
        (len(decode_seqs), num_heads),
        shared,
        # Always as wide: a sum over another number of splits would run in another order.
        {**shape, "SPLITS_PAD": MAX_SPLITS},
        num_warps=4,
    )
    return [attend, combine] if num_splits > 1 else [attend]


TARGET_PROGRAMS = 2048
"""Enough to fill any chip several times over; more would only cost launches of programs without work."""


def _programs_a_head(num_decodes: int, num_kv_heads: int) -> int:
    return max(1, TARGET_PROGRAMS // max(1, num_decodes * num_kv_heads))


@triton.jit
def _first_split(length, window, SPLIT: tl.constexpr):
    return tl.maximum(length - window, 0) // SPLIT


@triton.jit
def split_attention_kernel(
    num_keys,
    query_start,
    decode_seqs,
    sinks,
    out,
    sums_scratch,
    stats_scratch,
    window,
    num_splits,
    query,
    query_stride,
    query_head_stride,
    key_cache,
    key_stride,
    value_cache,
    value_stride,
    block_table,
    table_stride,
    scale,
    softcap,
    NUM_HEADS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    SPLIT: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
):
    """Grid [sequences, key/value heads, programs that share a sequence's splits]; the rows are a group's heads."""
    decode = tl.program_id(0)
    kv_head = tl.program_id(1)
    seq = tl.load(decode_seqs + decode)
    length = tl.load(num_keys + seq)
    token = tl.load(query_start + seq).to(tl.int64)
    row = tl.arange(0, ROWS)
    head = kv_head * GROUP + row
    live_row = row < GROUP
    dim = tl.arange(0, HEAD_PAD)
    value_dim = tl.arange(0, VALUE_PAD)
    query_at = query + token * query_stride + head[:, None] * query_head_stride + dim[None, :]
    queries = tl.load(query_at, mask=live_row[:, None] & (dim[None, :] < HEAD_DIM), other=0.0)
    row_position = tl.zeros([ROWS], tl.int32) + (length - 1)
    keys = key_cache + kv_head * (BLOCK_SIZE * HEAD_DIM)
    values = value_cache + kv_head * (BLOCK_SIZE * VALUE_DIM)
    table = block_table + seq.to(tl.int64) * table_stride
    first_key = tl.maximum(length - window, 0)
    first_split = _first_split(length, window, SPLIT)
    splits_end = tl.cdiv(length, SPLIT)
    stored = live_row[:, None] & (value_dim[None, :] < VALUE_DIM)
    for split in range(first_split + tl.program_id(2), splits_end, tl.num_programs(2)):
        maximum = tl.full([ROWS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS], tl.float32)
        sums = tl.zeros([ROWS, VALUE_PAD], tl.float32)
        start = tl.maximum(split * SPLIT, first_key // TILE * TILE)
        for tile in range(start, tl.minimum(length, split * SPLIT + SPLIT), TILE):
            maximum, total, sums = attend_tile(
                queries, row_position, maximum, total, sums, keys, values, table, tile, length,
                key_stride, value_stride, scale, softcap, window,
                BLOCK_SIZE, TILE, HEAD_DIM, HEAD_PAD, VALUE_DIM, VALUE_PAD, HAS_SOFTCAP, True,
            )  # fmt: skip
        if splits_end - first_split == 1:
            sink = tl.full([ROWS], float("-inf"), tl.float32)
            if sinks is not None:
                sink = tl.load(sinks + head, mask=live_row, other=0.0) * LOG2E
            outputs = finish_rows(maximum, total, sums, sink).to(out.dtype.element_ty)
            out_at = out + (token * NUM_HEADS + head[:, None]) * VALUE_DIM + value_dim[None, :]
            tl.store(out_at, outputs, mask=stored)
        else:
            place = (decode.to(tl.int64) * NUM_HEADS + head) * num_splits + split
            tl.store(sums_scratch + place[:, None] * VALUE_DIM + value_dim[None, :], sums, mask=stored)
            tl.store(stats_scratch + place * 2, maximum, mask=live_row)
            tl.store(stats_scratch + place * 2 + 1, total, mask=live_row)


@triton.jit
def combine_splits_kernel(
    num_keys,
    query_start,
    decode_seqs,
    sinks,
    out,
    sums_scratch,
    stats_scratch,
    window,
    num_splits,
    NUM_HEADS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    SPLIT: tl.constexpr,
    SPLITS_PAD: tl.constexpr,
):
    """Grid [sequences, heads]; a sequence of one split is done already."""
    decode = tl.program_id(0)
    head = tl.program_id(1)
    seq = tl.load(decode_seqs + decode)
    length = tl.load(num_keys + seq)
    first_split = _first_split(length, window, SPLIT)
    splits_end = tl.cdiv(length, SPLIT)
    if splits_end - first_split <= 1:
        return
    split = tl.arange(0, SPLITS_PAD)
    live = (split >= first_split) & (split < splits_end)
    place = (decode.to(tl.int64) * NUM_HEADS + head) * num_splits + split
    maximum = tl.load(stats_scratch + place * 2, mask=live, other=float("-inf"))
    total = tl.load(stats_scratch + place * 2 + 1, mask=live, other=0.0)
    highest = tl.max(maximum, 0)
    if sinks is not None:
        sink = tl.load(sinks + head) * LOG2E
        highest = tl.maximum(highest, sink)
    weights = tl.exp2(maximum - highest)
    mass = tl.sum(weights * total, 0)
    if sinks is not None:
        mass += tl.exp2(sink - highest)  # pyright: ignore[reportPossiblyUnboundVariable]
    value_dim = tl.arange(0, VALUE_PAD)
    inside = value_dim < VALUE_DIM
    sums = tl.load(
        sums_scratch + place[:, None] * VALUE_DIM + value_dim[None, :],
        mask=live[:, None] & inside[None, :],
        other=0.0,
    )
    outputs = tl.sum(sums * weights[:, None], 0) / mass
    token = tl.load(query_start + seq).to(tl.int64)
    out_at = out + (token * NUM_HEADS + head) * VALUE_DIM + value_dim
    tl.store(out_at, outputs.to(out.dtype.element_ty), mask=inside)
