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

from .attention_batch import (
    BLOCK_TABLE,
    CONTEXT_LEN,
    ITEM_SEQ,
    ITEM_START,
    NUM_ITEMS,
    NUM_WRITES,
    QUERY_START,
    TABLE_WIDTH,
    TILE_ROWS,
    TOKENS_PER_ITEM,
    WRITE_SEQ,
    WRITE_START,
    WRITE_TOKENS,
    WRITTEN_EARLY,
    AttentionBatch,
    of_batch,
)
from .kernel_sequence import Buffer, KernelSequence
from .rms_norm import copy_row, narrow_row
from .rotary import ARGUMENTS_SIZE, Rotary, RotaryBuffers, load_head, write_arguments, write_norm
from .simd import (
    CACHE_LINE,
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
    multiply_add_2x4,
    multiply_add_3x4,
    multiply_add_4x1,
    multiply_add_4x4,
    narrow,
    prefetch,
    scale_16,
    store_f32,
    store_u16,
    sum_of_16,
    tanh_of_tile,
    widen_16,
)
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

QUERY_ROTARY, KEY_ROTARY = 28, 28 + ARGUMENTS_SIZE
"""Where the kernels' arguments hold those of `rotary`."""


@dataclass(frozen=True)
class HeadShapes:
    """Heads of a layer and their sizes."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int


class PagedAttention:
    """Writes keys and values of a step into one layer's cache and attends; holds the scratch memory between calls."""

    def __init__(self, threads: ThreadPool) -> None:
        self._threads = threads
        self._arguments = KernelArguments(KEY_ROTARY + ARGUMENTS_SIZE)
        self._scratch = torch.empty(0)
        self._write = compile_kernel(_write)
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
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """Attend.

        query [num_tokens, num_heads, head_dim], key [num_tokens, num_kv_heads, head_dim], value [num_tokens,
        num_kv_heads, value_dim]: bfloat16 or float32, the last dimension contiguous. `sliding_window` is the number of
        last positions that a token sees, itself included (0: all); `sinks` is float32 [num_heads]; `rotary` turns
        queries and keys first.
        Returns [num_tokens, num_heads, value_dim] in the dtype of `query`.
        """
        num_tokens, num_heads, head_dim = query.shape
        num_kv_heads, value_dim = value.shape[1], value.shape[2]
        out = torch.empty(num_tokens, num_heads, value_dim, dtype=query.dtype)
        v = self._arguments.values
        v[2] = batch.values.ctypes.data
        v[3] = query.data_ptr()
        v[4] = query.stride(0)
        v[5] = query.stride(1)
        v[8] = out.data_ptr()
        v[22] = key.data_ptr()
        v[23] = key.stride(0)
        v[24] = key.stride(1)
        v[25] = value.data_ptr()
        v[26] = value.stride(0)
        v[27] = value.stride(1)
        heads = HeadShapes(num_heads, num_kv_heads, head_dim, value_dim)
        self._describe(v, heads, key_cache, value_cache, scale, sliding_window, softcap, sinks)
        write_arguments(v[QUERY_ROTARY:], rotary, rotary and rotary.query_norm)
        write_arguments(v[KEY_ROTARY:], rotary, rotary and rotary.key_norm)
        if batch.num_writes:
            v[0] = 0
            v[1] = 0
            self._threads.run(self._write, self._arguments, parallel=batch.num_writes > 1)
        v[0] = 0
        v[1] = 0
        self._threads.run(self._attend, self._arguments)
        return out

    def append_to(
        self,
        sequence: KernelSequence,
        projected: Buffer,
        out: Buffer,
        heads: HeadShapes,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        batch: np.ndarray,
        *,
        scale: float,
        sliding_window: int,
        softcap: float,
        sinks: torch.Tensor | None,
        rotary: RotaryBuffers,
    ) -> None:
        """Add the layer's attention to a sequence: `projected` holds each token's queries, keys and values end to end.

        batch: int64 [BATCH_SIZE], which holds the `values` of the step's `AttentionBatch` when the sequence runs.
        """
        v, itemsize = np.zeros_like(self._arguments.values), key_cache.itemsize
        v[2] = batch.ctypes.data
        v[4] = v[23] = v[26] = projected.row_bytes // itemsize
        v[5] = v[24] = heads.head_dim
        v[27] = heads.value_dim
        keys_from = itemsize * heads.num_heads * heads.head_dim
        values_from = keys_from + itemsize * heads.num_kv_heads * heads.head_dim
        self._describe(v, heads, key_cache, value_cache, scale, sliding_window, softcap, sinks)
        buffers = {3: projected, 8: out, 22: projected.at(keys_from), 25: projected.at(values_from)}
        for place, norm in ((QUERY_ROTARY, rotary.query_norm), (KEY_ROTARY, rotary.key_norm)):
            v[place + 2] = rotary.cos.row_bytes // itemsize
            write_norm(v[place:], norm)
            buffers |= {place: rotary.cos, place + 1: rotary.sin}
        keep = (self._scratch, key_cache, value_cache, batch, sinks, rotary)
        sequence.append(self._write, v, buffers, count=out.count, parallel_from=WRITE_TOKENS, keep=keep)
        sequence.append(self._attend, v, buffers, count=out.count, parallel_from=1, keep=keep)

    def _describe(
        self,
        v: np.ndarray,
        heads: HeadShapes,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        scale: float,
        sliding_window: int,
        softcap: float,
        sinks: torch.Tensor | None,
    ) -> None:
        """Fill the arguments that are the same for all steps."""
        group = heads.num_heads // heads.num_kv_heads
        padded_dim = value_cache.shape[3]
        scratch_floats = _scratch_floats(max(TILE_ROWS, group), heads.head_dim, padded_dim)
        if self._scratch.numel() < scratch_floats * self._threads.size:
            self._scratch = torch.empty(scratch_floats * self._threads.size)
        v[6] = key_cache.data_ptr()
        v[7] = value_cache.data_ptr()
        v[9] = heads.num_kv_heads
        v[10] = group
        v[11] = heads.head_dim
        v[12] = heads.value_dim
        v[13] = padded_dim
        v[14] = value_cache.shape[2]
        v[15] = sliding_window
        v[16] = self._scratch.data_ptr()
        v[17] = scratch_floats
        v[18] = key_cache.dtype == torch.bfloat16
        v[19] = 0 if sinks is None else sinks.data_ptr()
        v[20:21].view(np.float64)[0] = scale
        v[21:22].view(np.float64)[0] = softcap


def _scratch_floats(rows: int, head_dim: int, padded_dim: int) -> int:
    """Floats of one thread's scratch: key and value tiles, queries, scores, outputs, maxima and sums of the rows."""
    return TILE * (head_dim + padded_dim) + rows * (head_dim + TILE + padded_dim + 1 + LANES) + LANES


def _write(args):
    """Kernel: the keys and values that are written early to their slots. Items are groups of tokens."""
    base = address_of(args)
    scratch = args[16] + 4 * args[17] * atomic_add(base + 8, 1)
    while True:
        item = atomic_add(base, 1)
        if item >= of_batch(args, NUM_WRITES):
            return
        seq, start = load_i32(of_batch(args, WRITE_SEQ) + 4 * item), load_i32(of_batch(args, WRITE_START) + 4 * item)
        count = min(
            WRITE_TOKENS,
            load_i32(of_batch(args, QUERY_START) + 4 * seq + 4)
            - load_i32(of_batch(args, QUERY_START) + 4 * seq)
            - start,
        )
        for head in range(args[9]):
            _write_tokens(args, seq, start, count, head, scratch)


@njit(error_model="numpy")
def _write_tokens(args, seq, start, count, head, scratch):
    """One head's keys and values of the new tokens [start, start + count) of a sequence to their slots."""
    num_heads, head_dim, value_dim, padded_dim, block_size = args[9], args[11], args[12], args[13], args[14]
    item_size = 2 if args[18] != 0 else 4
    values = scratch + 4 * LANES
    narrowed = values + 4 * head_dim
    for i in range(start, start + count):
        token = load_i32(of_batch(args, QUERY_START) + 4 * seq) + i
        position = load_i32(of_batch(args, CONTEXT_LEN) + 4 * seq) + i
        block = (
            load_i32(of_batch(args, BLOCK_TABLE) + 4 * (seq * of_batch(args, TABLE_WIDTH) + position // block_size))
            * num_heads
            + head
        )
        offset = position % block_size
        source = args[22] + item_size * (token * args[23] + head * args[24])
        target = args[6] + item_size * (block * head_dim * block_size + offset)
        load_head(values, source, head_dim, token, address_of(args) + 8 * KEY_ROTARY, args[18], scratch)
        if item_size == 2:
            narrow_row(narrowed, values, head_dim)
            for d in range(head_dim):
                store_u16(target + 2 * d * block_size, load_u16(narrowed + 2 * d))
        else:
            for d in range(head_dim):
                store_f32(target + 4 * d * block_size, load_f32(values + 4 * d))
        source = args[25] + item_size * (token * args[26] + head * args[27])
        target = args[7] + item_size * (block * block_size + offset) * padded_dim
        if item_size == 2:
            for d in range(value_dim):
                store_u16(target + 2 * d, load_u16(source + 2 * d))
        else:
            copy_row(target, source, value_dim)


def _attend(args):
    """Kernel: attention of all query tokens of a step. Items are (query tokens, key/value head)."""
    base = address_of(args)
    num_kv_heads, group, head_dim = args[9], args[10], args[11]
    value_dim, padded_dim, window = args[12], args[13], args[15]
    scale, softcap = load_f64(base + 8 * 20), load_f64(base + 8 * 21)
    rows_per_item = of_batch(args, TOKENS_PER_ITEM) * group

    keys = args[16] + 4 * args[17] * atomic_add(base + 8, 1)
    values = keys + 4 * TILE * head_dim
    queries = values + 4 * TILE * padded_dim
    scores = queries + 4 * rows_per_item * head_dim
    outputs = scores + 4 * rows_per_item * TILE
    sums = outputs + 4 * rows_per_item * padded_dim
    maxima = sums + 4 * rows_per_item * LANES

    num_items = of_batch(args, NUM_ITEMS) * num_kv_heads
    while True:
        item = atomic_add(base, 1)
        if item >= num_items:
            return
        head, item = item % num_kv_heads, item // num_kv_heads
        seq = load_i32(of_batch(args, ITEM_SEQ) + 4 * item)
        start = load_i32(of_batch(args, ITEM_START) + 4 * item)
        flat = load_i32(of_batch(args, QUERY_START) + 4 * seq)
        query_len = load_i32(of_batch(args, QUERY_START) + 4 * seq + 4) - flat
        num_queries = min(of_batch(args, TOKENS_PER_ITEM), query_len - start)
        flat += start
        position = load_i32(of_batch(args, CONTEXT_LEN) + 4 * seq) + start
        rows = num_queries * group
        if load_i32(of_batch(args, WRITTEN_EARLY) + 4 * seq) == 0:
            _write_tokens(args, seq, 0, query_len, head, keys)
        num_keys = position + num_queries
        first_tile = max(0, position - window + 1) // TILE if window > 0 else 0
        table = of_batch(args, BLOCK_TABLE) + 4 * seq * of_batch(args, TABLE_WIDTH)
        _prefetch_tile(args, table, head, first_tile, num_keys)
        _load_queries(queries, args, flat, head, rows, sums)
        for i in range(0, rows * padded_dim, LANES):
            fill_16(outputs + 4 * i, np.float32(0.0))
        for row in range(rows):
            fill_16(sums + 4 * LANES * row, np.float32(0.0))
            store_f32(maxima + 4 * row, np.float32(-np.inf))

        for tile in range(first_tile, (num_keys + TILE - 1) // TILE):
            count = min(TILE, num_keys - tile * TILE)
            _load_tile(keys, values, args, table, head, tile, count)
            _prefetch_tile(args, table, head, tile + 1, num_keys)
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
            if args[19] != 0:
                sink = load_f32(args[19] + 4 * query_head)
                total += np.float32(math.exp(sink - load_f32(maxima + 4 * row)))
            target = (flat + row // group) * num_kv_heads * group + query_head
            _store_row(args[8], target * value_dim, outputs + 4 * padded_dim * row, total, value_dim, args[18])


@njit(error_model="numpy")
def _load_queries(queries, args, flat, head, rows, scratch):
    """Row r of `queries` is query head r % group of token flat + r // group, in float32."""
    group, head_dim = args[10], args[11]
    item_size = 2 if args[18] != 0 else 4
    rotary = address_of(args) + 8 * QUERY_ROTARY
    for row in range(rows):
        token = flat + row // group
        source = args[3] + item_size * (token * args[4] + (head * group + row % group) * args[5])
        load_head(queries + 4 * head_dim * row, source, head_dim, token, rotary, args[18], scratch)


@njit(error_model="numpy")
def _load_tile(keys, values, args, table, head, tile, count):
    """Keys of positions [64 * tile, 64 * tile + 64) as [head_dim, 64], values as [64, padded_dim].

    Places from `count` on hold zeros, never what another sequence left in the block.
    """
    num_kv_heads, head_dim, padded_dim, block_size = args[9], args[11], args[13], args[14]
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
        if args[18] != 0:
            for d in range(head_dim):
                widen_16(keys + 4 * (d * TILE + part), args[6] + 2 * (source + d * block_size))
            for i in range(0, live * padded_dim, LANES):
                widen_16(values + 4 * (part * padded_dim + i), args[7] + 2 * (value_row + i))
        else:
            for d in range(head_dim):
                copy_16(keys + 4 * (d * TILE + part), args[6] + 4 * (source + d * block_size))
            for i in range(0, live * padded_dim, LANES):
                copy_16(values + 4 * (part * padded_dim + i), args[7] + 4 * (value_row + i))


@njit(error_model="numpy")
def _prefetch_tile(args, table, head, tile, num_keys):
    """Ask for the keys and values that `_load_tile` will read next, so that they come while others are multiplied."""
    num_kv_heads, head_dim, padded_dim, block_size = args[9], args[11], args[13], args[14]
    item_size = 2 if args[18] != 0 else 4
    key_step = max(1, CACHE_LINE // (item_size * block_size))
    for position in range(tile * TILE, min((tile + 1) * TILE, num_keys), LANES):
        block = load_i32(table + 4 * (position // block_size)) * num_kv_heads + head
        offset = position % block_size
        keys = args[6] + item_size * (block * head_dim * block_size + offset)
        for d in range(0, head_dim, key_step):
            prefetch(keys + item_size * d * block_size)
        values = args[7] + item_size * (block * block_size + offset) * padded_dim
        for i in range(0, item_size * LANES * padded_dim, CACHE_LINE):
            prefetch(values + i)


@njit(error_model="numpy")
def _multiply_queries(queries, keys, scores, rows, head_dim):
    """scores [rows, 64] = queries [rows, head_dim] · keys [head_dim, 64]."""
    for i in range(0, rows * TILE, LANES):
        fill_16(scores + 4 * i, np.float32(0.0))
    row = 0
    while row + 4 <= rows:
        multiply_add_4x4(queries + 4 * head_dim * row, head_dim, keys, TILE, scores + 4 * TILE * row, TILE, head_dim)
        row += 4
    a, c = queries + 4 * head_dim * row, scores + 4 * TILE * row
    if row + 3 == rows:
        multiply_add_3x4(a, head_dim, keys, TILE, c, TILE, head_dim)
    elif row + 2 == rows:
        multiply_add_2x4(a, head_dim, keys, TILE, c, TILE, head_dim)
    elif row + 1 == rows:
        multiply_add_1x4(a, head_dim, keys, TILE, c, TILE, head_dim)


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
            together = min(4, rows - row)
            if not wide:
                _multiply_narrow(a, b, c, together, padded_dim, count)
            elif together == 4:
                multiply_add_4x4(a, TILE, b, padded_dim, c, padded_dim, count)
            elif together == 3:
                multiply_add_3x4(a, TILE, b, padded_dim, c, padded_dim, count)
            elif together == 2:
                multiply_add_2x4(a, TILE, b, padded_dim, c, padded_dim, count)
            else:
                multiply_add_1x4(a, TILE, b, padded_dim, c, padded_dim, count)
            row += together
        column += TILE if wide else LANES


@njit(error_model="numpy")
def _multiply_narrow(a, b, c, rows, padded_dim, count):
    """As `_multiply_values`, for up to four rows and sixteen columns."""
    if rows == 4:
        multiply_add_4x1(a, TILE, b, padded_dim, c, padded_dim, count)
        return
    for row in range(rows):
        multiply_add_1x1(a + 4 * TILE * row, TILE, b, padded_dim, c + 4 * padded_dim * row, padded_dim, count)


@njit(error_model="numpy")
def _store_row(out, element, outputs, total, value_dim, bfloat16):
    if bfloat16 != 0:
        for i in range(value_dim):
            store_u16(out + 2 * (element + i), narrow(load_f32(outputs + 4 * i) / total))
    else:
        for i in range(value_dim):
            store_f32(out + 4 * (element + i), load_f32(outputs + 4 * i) / total)
