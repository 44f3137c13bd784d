"""Paged attention on the CPU: one kernel for decode steps, prompt chunks and any mix of them.

The keys and values of all sequences lie in blocks of one cache; a block table a sequence says which. A work item is a
few query tokens of one sequence and one key/value head (all query heads that share it): its keys are brought, 64
positions at a time, into a float32 tile, and FlashAttention's running softmax (Dao et al., arXiv:2205.14135) goes over
the tiles.

A query row meets its keys in the same tiles, at the same absolute positions and with the same chain of operations
whatever stands beside it, so its result has the same bits alone, batched, chunked, prefix-cached or recomputed.

Cache layout, of one layer:
    keys   [num_blocks, num_kv_heads, head_dim, block_size]      transposed: sixteen keys fill a vector
    values [num_blocks, num_kv_heads, block_size, value_dim]     `value_dim` padded to a multiple of 16
in float32 or bfloat16; `block_size` is a multiple of 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

from .simd import (
    LANES,
    TILE,
    address_of,
    copy_16,
    exp_of_tile,
    fill_16,
    load_f32,
    load_f64,
    load_i32,
    load_u16,
    max_of_tile,
    multiply_add_1x1,
    multiply_add_1x4,
    multiply_add_4x1,
    multiply_add_4x4,
    narrow,
    scale_16,
    store_f32,
    store_u16,
    sum_of_16,
    tanh_of_tile,
    widen,
    widen_16,
)
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

TILE_ROWS = 32
"""Query rows (tokens times query heads of a group) that share one pass over the keys."""


@dataclass(frozen=True)
class AttentionBatch:
    """What one step's attention needs, the same for every layer. All int32 numpy arrays.

    query_start[s] .. query_start[s + 1] are the flat token numbers of sequence s, whose first has position
    `context_len[s]`; `block_table` is [num_seqs, max_blocks]; `item_seq` and `item_start` name the work items (a
    sequence and the first of its query tokens), the costly ones first.
    """

    query_start: np.ndarray
    context_len: np.ndarray
    block_table: np.ndarray
    item_seq: np.ndarray
    item_start: np.ndarray
    tokens_per_item: int
    slot_block: np.ndarray
    """[num_tokens] block of each token's keys and values."""
    slot_offset: np.ndarray
    """[num_tokens] place inside that block."""


def make_batch(
    query_lens: np.ndarray,
    context_lens: np.ndarray,
    block_table: np.ndarray,
    block_size: int,
    group_size: int,
) -> AttentionBatch:
    """Cut a step into work items.

    query_lens, context_lens: int32 [num_seqs], tokens to compute and tokens already in the cache;
    block_table: int32 [num_seqs, max_blocks], C-contiguous; group_size: query heads a key/value head.
    """
    num_seqs = len(query_lens)
    query_start = np.zeros(num_seqs + 1, np.int32)
    np.cumsum(query_lens, out=query_start[1:])
    num_tokens = int(query_start[-1])
    token_seq = np.repeat(np.arange(num_seqs, dtype=np.int32), query_lens)
    token_position = np.arange(num_tokens, dtype=np.int32) - query_start[token_seq] + context_lens[token_seq]
    tokens_per_item = max(1, TILE_ROWS // group_size)
    tiles = -(-query_lens // tokens_per_item)
    item_seq = np.repeat(np.arange(num_seqs, dtype=np.int32), tiles)
    first_item = np.cumsum(tiles) - tiles
    item_start = ((np.arange(len(item_seq)) - first_item[item_seq]) * tokens_per_item).astype(np.int32)
    # The longest items first, so that no thread is left with a long one at the end.
    order = np.argsort(-(context_lens[item_seq] + item_start), kind="stable")
    return AttentionBatch(
        query_start=query_start,
        context_len=np.ascontiguousarray(context_lens, np.int32),
        block_table=block_table,
        item_seq=np.ascontiguousarray(item_seq[order]),
        item_start=np.ascontiguousarray(item_start[order]),
        tokens_per_item=tokens_per_item,
        slot_block=np.ascontiguousarray(block_table[token_seq, token_position // block_size]),
        slot_offset=np.ascontiguousarray(token_position % block_size),
    )


class PagedAttention:
    """Writes keys and values of a step into one layer's cache and attends; holds the scratch memory between calls."""

    def __init__(self, threads: ThreadPool) -> None:
        self._threads = threads
        self._write_arguments = KernelArguments(20)
        self._attend_arguments = KernelArguments(40)
        self._scratch = torch.empty(0)
        self._write_cache = compile_kernel(_write_cache)
        self._attend = compile_kernel(_attend)

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        batch: AttentionBatch,
        *,
        scale: float,
        sliding_window: int = 0,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend.

        query [num_tokens, num_heads, head_dim], key [num_tokens, num_kv_heads, head_dim], value [num_tokens,
        num_kv_heads, value_dim]: bfloat16 or float32, the last dimension contiguous. `sliding_window` is the number of
        last positions that a token sees, itself included (0: all); `sinks` is float32 [num_heads].
        Returns [num_tokens, num_heads, value_dim] in the dtype of `query`.
        """
        num_tokens, num_heads, head_dim = query.shape
        num_kv_heads, value_dim = value.shape[1], value.shape[2]
        block_size, padded_dim = value_cache.shape[2], value_cache.shape[3]
        group = num_heads // num_kv_heads
        out = torch.empty(num_tokens, num_heads, value_dim, dtype=query.dtype)
        self._write(key, value, key_cache, value_cache, batch)

        rows = batch.tokens_per_item * group
        scratch_floats = _scratch_floats(rows, head_dim, padded_dim)
        if self._scratch.numel() < scratch_floats * self._threads.size:
            self._scratch = torch.empty(scratch_floats * self._threads.size)
        arguments = self._attend_arguments
        v = arguments.values
        v[0] = 0
        v[1] = 0
        v[2] = len(batch.item_seq)
        v[3] = batch.item_seq.ctypes.data
        v[4] = batch.item_start.ctypes.data
        v[5] = batch.query_start.ctypes.data
        v[6] = batch.context_len.ctypes.data
        v[7] = batch.block_table.ctypes.data
        v[8] = batch.block_table.shape[1]
        v[9] = batch.tokens_per_item
        v[10] = query.data_ptr()
        v[11] = query.stride(0)
        v[12] = query.stride(1)
        v[13] = key_cache.data_ptr()
        v[14] = value_cache.data_ptr()
        v[15] = out.data_ptr()
        v[16] = num_kv_heads
        v[17] = group
        v[18] = head_dim
        v[19] = value_dim
        v[20] = padded_dim
        v[21] = block_size
        v[22] = sliding_window
        v[23] = self._scratch.data_ptr()
        v[24] = scratch_floats
        v[25] = query.dtype == torch.bfloat16
        v[26] = key_cache.dtype == torch.bfloat16
        v[27] = 0 if sinks is None else sinks.data_ptr()
        v[28:29].view(np.float64)[0] = scale
        v[29:30].view(np.float64)[0] = softcap
        self._threads.run(self._attend, arguments)
        return out

    def _write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        batch: AttentionBatch,
    ) -> None:
        v = self._write_arguments.values
        v[0] = 0
        v[1] = key.shape[0]
        v[2] = key.shape[1]
        v[3] = key.shape[2]
        v[4] = value.shape[2]
        v[5] = value_cache.shape[3]
        v[6] = value_cache.shape[2]
        v[7] = key.data_ptr()
        v[8] = key.stride(0)
        v[9] = key.stride(1)
        v[10] = value.data_ptr()
        v[11] = value.stride(0)
        v[12] = value.stride(1)
        v[13] = key_cache.data_ptr()
        v[14] = value_cache.data_ptr()
        v[15] = batch.slot_block.ctypes.data
        v[16] = batch.slot_offset.ctypes.data
        v[17] = key_cache.element_size()
        small = key.shape[0] * key.shape[1] * key.shape[2] < 4_096
        self._threads.run(self._write_cache, self._write_arguments, parallel=not small)


def _scratch_floats(rows: int, head_dim: int, padded_dim: int) -> int:
    """Floats of one thread's scratch: key and value tiles, queries, scores, outputs, maxima and sums of the rows."""
    return TILE * (head_dim + padded_dim) + rows * (head_dim + TILE + padded_dim + 1 + LANES) + LANES


def _write_cache(args):
    """Kernel: copy each new token's keys and values to its slot. Items are tokens."""
    base = address_of(args)
    num_tokens, num_heads, head_dim, value_dim = args[1], args[2], args[3], args[4]
    padded_dim, block_size, item_size = args[5], args[6], args[17]
    while True:
        token = atomic_add(base, 1)
        if token >= num_tokens:
            return
        block = load_i32(args[15] + 4 * token)
        offset = load_i32(args[16] + 4 * token)
        for head in range(num_heads):
            source = args[7] + item_size * (token * args[8] + head * args[9])
            target = args[13] + item_size * ((block * num_heads + head) * head_dim * block_size + offset)
            _copy_elements(source, item_size, target, item_size * block_size, head_dim, item_size)
            source = args[10] + item_size * (token * args[11] + head * args[12])
            target = args[14] + item_size * ((block * num_heads + head) * block_size + offset) * padded_dim
            _copy_elements(source, item_size, target, item_size, value_dim, item_size)


@njit(error_model="numpy")
def _copy_elements(source, source_step, target, target_step, count, item_size):
    if item_size == 2:
        for i in range(count):
            store_u16(target + i * target_step, load_u16(source + i * source_step))
    else:
        for i in range(count):
            store_f32(target + i * target_step, load_f32(source + i * source_step))


def _attend(args):
    """Kernel: attention of all query tokens of a step. Items are (query tokens, key/value head)."""
    base = address_of(args)
    num_kv_heads, group, head_dim = args[16], args[17], args[18]
    value_dim, padded_dim, window = args[19], args[20], args[22]
    scale, softcap = load_f64(base + 8 * 28), load_f64(base + 8 * 29)
    rows_per_item = args[9] * group

    keys = args[23] + 4 * args[24] * atomic_add(base + 8, 1)
    values = keys + 4 * TILE * head_dim
    queries = values + 4 * TILE * padded_dim
    scores = queries + 4 * rows_per_item * head_dim
    outputs = scores + 4 * rows_per_item * TILE
    sums = outputs + 4 * rows_per_item * padded_dim
    maxima = sums + 4 * rows_per_item * LANES

    num_items = args[2] * num_kv_heads
    while True:
        item = atomic_add(base, 1)
        if item >= num_items:
            return
        head, item = item % num_kv_heads, item // num_kv_heads
        seq = load_i32(args[3] + 4 * item)
        start = load_i32(args[4] + 4 * item)
        flat = load_i32(args[5] + 4 * seq)
        query_len = load_i32(args[5] + 4 * seq + 4) - flat
        num_queries = min(args[9], query_len - start)
        flat += start
        position = load_i32(args[6] + 4 * seq) + start
        rows = num_queries * group
        _load_queries(queries, args, flat, head, rows)
        for i in range(0, rows * padded_dim, LANES):
            fill_16(outputs + 4 * i, np.float32(0.0))
        for row in range(rows):
            fill_16(sums + 4 * LANES * row, np.float32(0.0))
            store_f32(maxima + 4 * row, np.float32(-np.inf))

        num_keys = position + num_queries
        first_tile = max(0, position - window + 1) // TILE if window > 0 else 0
        table = args[7] + 4 * seq * args[8]
        for tile in range(first_tile, (num_keys + TILE - 1) // TILE):
            count = min(TILE, num_keys - tile * TILE)
            _load_tile(keys, values, args, table, head, tile, count)
            _multiply_queries(queries, keys, scores, rows, head_dim)
            for row in range(rows):
                row_position = position + row // group
                row_start = max(0, row_position - window + 1) if window > 0 else 0
                _soften_row(
                    scores + 4 * TILE * row, sums + 4 * LANES * row, maxima + 4 * row,
                    outputs + 4 * padded_dim * row, padded_dim,
                    row_start - tile * TILE, row_position + 1 - tile * TILE, scale, softcap,
                )  # fmt: skip
            _multiply_values(scores, values, outputs, rows, count, padded_dim)

        for row in range(rows):
            total = sum_of_16(sums + 4 * LANES * row)
            query_head = head * group + row % group
            if args[27] != 0:
                sink = load_f32(args[27] + 4 * query_head)
                total += np.float32(math.exp(sink - load_f32(maxima + 4 * row)))
            target = (flat + row // group) * num_kv_heads * group + query_head
            _store_row(args[15], target * value_dim, outputs + 4 * padded_dim * row, total, value_dim, args[25])


@njit(error_model="numpy")
def _load_queries(queries, args, flat, head, rows):
    """Row r of `queries` is query head r % group of token flat + r // group, in float32."""
    group, head_dim = args[17], args[18]
    for row in range(rows):
        element = (flat + row // group) * args[11] + (head * group + row % group) * args[12]
        target = queries + 4 * head_dim * row
        if args[25] != 0:
            for i in range(head_dim):
                store_f32(target + 4 * i, widen(load_u16(args[10] + 2 * (element + i))))
        else:
            for i in range(head_dim):
                store_f32(target + 4 * i, load_f32(args[10] + 4 * (element + i)))


@njit(error_model="numpy")
def _load_tile(keys, values, args, table, head, tile, count):
    """Keys of positions [64 * tile, 64 * tile + 64) as [head_dim, 64], values as [64, padded_dim].

    Places from `count` on hold zeros, never what another sequence left in the block.
    """
    num_kv_heads, head_dim, padded_dim, block_size = args[16], args[18], args[20], args[21]
    for part in range(0, TILE, LANES):
        position = tile * TILE + part
        if part >= count:
            for d in range(head_dim):
                fill_16(keys + 4 * (d * TILE + part), np.float32(0.0))
            continue
        block = load_i32(table + 4 * (position // block_size)) * num_kv_heads + head
        offset = position % block_size
        source = block * head_dim * block_size + offset
        value_row = (block * block_size + offset) * padded_dim
        live = min(LANES, count - part)
        if args[26] != 0:
            for d in range(head_dim):
                widen_16(keys + 4 * (d * TILE + part), args[13] + 2 * (source + d * block_size))
            for i in range(0, live * padded_dim, LANES):
                widen_16(values + 4 * (part * padded_dim + i), args[14] + 2 * (value_row + i))
        else:
            for d in range(head_dim):
                copy_16(keys + 4 * (d * TILE + part), args[13] + 4 * (source + d * block_size))
            for i in range(0, live * padded_dim, LANES):
                copy_16(values + 4 * (part * padded_dim + i), args[14] + 4 * (value_row + i))


@njit(error_model="numpy")
def _multiply_queries(queries, keys, scores, rows, head_dim):
    """scores [rows, 64] = queries [rows, head_dim] · keys [head_dim, 64]."""
    for i in range(0, rows * TILE, LANES):
        fill_16(scores + 4 * i, np.float32(0.0))
    row = 0
    while row + 4 <= rows:
        multiply_add_4x4(queries + 4 * head_dim * row, head_dim, keys, TILE, scores + 4 * TILE * row, TILE, head_dim)
        row += 4
    while row < rows:
        multiply_add_1x4(queries + 4 * head_dim * row, head_dim, keys, TILE, scores + 4 * TILE * row, TILE, head_dim)
        row += 1


@njit(error_model="numpy")
def _soften_row(scores, sums, maximum, outputs, padded_dim, first, last, scale, softcap):
    """Scores to weights exp(score - maximum so far); a larger maximum rescales the row's sum and output.

    Only keys [first, last) of the tile are visible to this row; the others get the weight 0.
    """
    if last <= 0 or first >= TILE:
        for i in range(0, TILE, LANES):
            fill_16(scores + 4 * i, np.float32(0.0))
        return
    for i in range(0, TILE, LANES):
        scale_16(scores + 4 * i, np.float32(scale))
    if softcap > 0.0:
        tanh_of_tile(scores, np.float32(1.0 / softcap), np.float32(softcap))
    for i in range(first):
        store_f32(scores + 4 * i, np.float32(-np.inf))
    for i in range(max(0, last), TILE):
        store_f32(scores + 4 * i, np.float32(-np.inf))
    old = load_f32(maximum)
    new = max(old, max_of_tile(scores))
    if new > old:
        rescale = np.float32(math.exp(old - new)) if old > np.float32(-np.inf) else np.float32(0.0)
        scale_16(sums, rescale)
        for i in range(0, padded_dim, LANES):
            scale_16(outputs + 4 * i, rescale)
        store_f32(maximum, new)
    exp_of_tile(scores, new, sums)


@njit(error_model="numpy")
def _multiply_values(scores, values, outputs, rows, count, padded_dim):
    """outputs [rows, padded_dim] += scores [rows, count] · values [count, padded_dim]."""
    column = 0
    while column < padded_dim:
        wide = column + TILE <= padded_dim
        row = 0
        while row < rows:
            a = scores + 4 * TILE * row
            b = values + 4 * column
            c = outputs + 4 * (padded_dim * row + column)
            if row + 4 <= rows:
                if wide:
                    multiply_add_4x4(a, TILE, b, padded_dim, c, padded_dim, count)
                else:
                    multiply_add_4x1(a, TILE, b, padded_dim, c, padded_dim, count)
                row += 4
            else:
                if wide:
                    multiply_add_1x4(a, TILE, b, padded_dim, c, padded_dim, count)
                else:
                    multiply_add_1x1(a, TILE, b, padded_dim, c, padded_dim, count)
                row += 1
        column += TILE if wide else LANES


@njit(error_model="numpy")
def _store_row(out, element, outputs, total, value_dim, bfloat16):
    if bfloat16 != 0:
        for i in range(value_dim):
            store_u16(out + 2 * (element + i), narrow(load_f32(outputs + 4 * i) / total))
    else:
        for i in range(value_dim):
            store_f32(out + 4 * (element + i), load_f32(outputs + 4 * i) / total)
