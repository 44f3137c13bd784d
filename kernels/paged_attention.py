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
from .attention_tiles import (
    MOST_DIRECT_ROWS,
    load_tile,
    multiply_cached_keys,
    multiply_cached_values,
    multiply_queries,
    multiply_values,
    prefetch_tile,
    reads_directly,
    soften_row,
    store_row,
)
from .kernel_sequence import Buffer, KernelSequence
from .rms_norm import copy_row, narrow_row
from .rotary import ARGUMENTS_SIZE, Rotary, RotaryBuffers, load_head, write_arguments, write_norm
from .simd import (
    LANES,
    TILE,
    address_of,
    fill_16,
    load_f32,
    load_f64,
    load_i32,
    load_u16,
    store_f32,
    store_u16,
    sum_of_16,
)
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

QUERY_ROTARY, KEY_ROTARY = 30, 30 + ARGUMENTS_SIZE
"""Where the kernels' arguments hold those of `rotary`."""
ITEMS_PER_THREAD = 8
"""As long as there are so many, an item takes several heads."""


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
        v[28] = min(heads.num_kv_heads, max(1, TILE_ROWS // max(group, MOST_DIRECT_ROWS)))
        v[29] = ITEMS_PER_THREAD * self._threads.size


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
    """Kernel: attention of all query tokens of a step. Items are (query tokens, some key/value heads)."""
    base = address_of(args)
    scratch = args[16] + 4 * args[17] * atomic_add(base + 8, 1)
    together = _heads_together(args)
    parts = (args[9] + together - 1) // together
    num_items = of_batch(args, NUM_ITEMS) * parts
    item = atomic_add(base, 1)
    while item < num_items:
        number, first = item // parts, item % parts * together
        end = min(args[9], first + together)
        seq, start, num_queries, _ = _queries_of(args, number)
        if load_i32(of_batch(args, WRITTEN_EARLY) + 4 * seq) == 0:
            for head in range(first, end):
                _write_tokens(args, seq, 0, start + num_queries, head, scratch)
        # Each takes the next item, if there is one, before it has done with this one.
        if reads_directly(args, num_queries * args[10]):
            item = _attend_directly(args, number, first, end, scratch, num_items)
        else:
            item = _attend_in_scratch(args, number, first, end, scratch)


@njit(error_model="numpy")
def _heads_together(args):
    """Key/value heads of an item: many, which lie behind each other in a block, as long as there are items for all."""
    together = args[28]
    while together > 1 and of_batch(args, NUM_ITEMS) * ((args[9] + together - 1) // together) < args[29]:
        together = (together + 1) // 2
    return together


@njit(error_model="numpy")
def _attend_in_scratch(args, number, first, end, scratch):
    """The query tokens of a work item with the heads [first, end), one head after another; the next item's number."""
    base = address_of(args)
    group, head_dim, padded_dim, window = args[10], args[11], args[13], args[15]
    scale, softcap = load_f64(base + 8 * 20), load_f64(base + 8 * 21)
    seq, _, num_queries, position = _queries_of(args, number)
    rows = num_queries * group
    keys, values, queries, scores, outputs, sums, maxima = _parts_of(scratch, args, rows)
    num_keys = position + num_queries
    first_tile = _first_tile(position, window)
    table = of_batch(args, BLOCK_TABLE) + 4 * seq * of_batch(args, TABLE_WIDTH)
    for head in range(first, end):
        prefetch_tile(args, table, head, first_tile, num_keys)
        _begin_rows(args, number, head, rows, queries, outputs, sums, maxima)
        for tile in range(first_tile, (num_keys + TILE - 1) // TILE):
            count = min(TILE, num_keys - tile * TILE)
            load_tile(keys, values, args, table, head, tile, count)
            prefetch_tile(args, table, head, tile + 1, num_keys)
            multiply_queries(queries, keys, scores, rows, head_dim)
            for row in range(rows):
                row_position = position + row // group
                row_start = max(0, row_position - window + 1) if window > 0 else 0
                soften_row(
                    scores + 4 * TILE * row, sums + 4 * LANES * row, maxima + 4 * row,
                    outputs + 4 * padded_dim * row, padded_dim,
                    row_start - tile * TILE, row_position + 1 - tile * TILE, scale, softcap,
                )  # fmt: skip
            multiply_values(scores, values, outputs, rows, count, padded_dim)
        _end_rows(args, number, head, rows, outputs, sums, maxima)
    return atomic_add(base, 1)


@njit(error_model="numpy")
def _attend_directly(args, number, first, end, scratch, num_items):
    """The same, reading a bfloat16 cache as it lies: tile after tile, in each of them head after head.

    While a head's keys and values of a tile are multiplied, those that come next are asked for; behind the last ones
    these are the first of the next item.
    """
    base = address_of(args)
    group, head_dim, padded_dim, window = args[10], args[11], args[13], args[15]
    scale, softcap = load_f64(base + 8 * 20), load_f64(base + 8 * 21)
    seq, _, num_queries, position = _queries_of(args, number)
    rows = num_queries * group
    _, _, queries, scores, outputs, sums, maxima = _parts_of(scratch, args, rows * (end - first))
    for head in range(first, end):
        row = rows * (head - first)
        _begin_rows(
            args, number, head, rows, queries + 4 * head_dim * row, outputs + 4 * padded_dim * row,
            sums + 4 * LANES * row, maxima + 4 * row,
        )  # fmt: skip
    num_keys = position + num_queries
    last_tile = (num_keys - 1) // TILE
    table = of_batch(args, BLOCK_TABLE) + 4 * seq * of_batch(args, TABLE_WIDTH)
    item = num_items
    for tile in range(_first_tile(position, window), last_tile + 1):
        count = min(TILE, num_keys - tile * TILE)
        for head in range(first, end):
            next_table, next_head, next_tile, next_count = table, head + 1, tile, count
            if head + 1 == end:
                next_head, next_tile, next_count = first, tile + 1, min(TILE, num_keys - (tile + 1) * TILE)
                if tile == last_tile:
                    item = atomic_add(base, 1)
                    next_table, next_head, next_tile, next_count = _start_of(args, item, num_items)
            row = rows * (head - first)
            out = outputs + 4 * padded_dim * row
            multiply_cached_keys(
                queries + 4 * head_dim * row, scores, args, table, head, tile, rows, count,
                next_table, next_head, next_tile, next_count,
            )  # fmt: skip
            for i in range(rows):
                row_position = position + i // group
                row_start = max(0, row_position - window + 1) if window > 0 else 0
                soften_row(
                    scores + 4 * TILE * i, sums + 4 * LANES * (row + i), maxima + 4 * (row + i),
                    out + 4 * padded_dim * i, padded_dim,
                    row_start - tile * TILE, row_position + 1 - tile * TILE, scale, softcap,
                )  # fmt: skip
            multiply_cached_values(
                scores, out, args, table, head, tile, rows, count, next_table, next_head, next_tile, next_count
            )
    for head in range(first, end):
        row = rows * (head - first)
        _end_rows(
            args, number, head, rows, outputs + 4 * padded_dim * row, sums + 4 * LANES * row, maxima + 4 * row
        )  # fmt: skip
    return item


@njit(error_model="numpy")
def _parts_of(scratch, args, rows):
    """A thread's scratch for so many rows."""
    head_dim, padded_dim = args[11], args[13]
    values = scratch + 4 * TILE * head_dim
    queries = values + 4 * TILE * padded_dim
    scores = queries + 4 * rows * head_dim
    outputs = scores + 4 * rows * TILE
    sums = outputs + 4 * rows * padded_dim
    return scratch, values, queries, scores, outputs, sums, sums + 4 * rows * LANES


@njit(error_model="numpy")
def _first_tile(position, window):
    """The first that a token at this position sees."""
    return max(0, position - window + 1) // TILE if window > 0 else 0


@njit(error_model="numpy")
def _start_of(args, item, num_items):
    """Where an item begins to read: block table, head, tile, and the keys of the tile; 0 if there is no such item."""
    if item >= num_items:
        return args[2], 0, 0, 0
    together = _heads_together(args)
    parts = (args[9] + together - 1) // together
    seq, _, num_queries, position = _queries_of(args, item // parts)
    tile = _first_tile(position, args[15])
    table = of_batch(args, BLOCK_TABLE) + 4 * seq * of_batch(args, TABLE_WIDTH)
    return table, item % parts * together, tile, min(TILE, position + num_queries - tile * TILE)


@njit(error_model="numpy")
def _begin_rows(args, number, head, rows, queries, outputs, sums, maxima):
    """Nothing has been seen yet by the queries of a work item with one head."""
    seq, start, _, _ = _queries_of(args, number)
    flat = load_i32(of_batch(args, QUERY_START) + 4 * seq) + start
    _load_queries(queries, args, flat, head, rows, sums)
    for i in range(0, rows * args[13], LANES):
        fill_16(outputs + 4 * i, np.float32(0.0))
    for row in range(rows):
        fill_16(sums + 4 * LANES * row, np.float32(0.0))
        store_f32(maxima + 4 * row, np.float32(-np.inf))


@njit(error_model="numpy")
def _end_rows(args, number, head, rows, outputs, sums, maxima):
    """Their outputs to where they belong."""
    num_kv_heads, group, value_dim, padded_dim = args[9], args[10], args[12], args[13]
    seq, start, _, _ = _queries_of(args, number)
    flat = load_i32(of_batch(args, QUERY_START) + 4 * seq) + start
    for row in range(rows):
        total = sum_of_16(sums + 4 * LANES * row)
        query_head = head * group + row % group
        if args[19] != 0:
            sink = load_f32(args[19] + 4 * query_head)
            total += np.float32(math.exp(sink - load_f32(maxima + 4 * row)))
        target = (flat + row // group) * num_kv_heads * group + query_head
        store_row(args[8], target * value_dim, outputs + 4 * padded_dim * row, total, value_dim, args[18])


@njit(error_model="numpy")
def _queries_of(args, number):
    """The query tokens of a work item: their sequence, the first of them, how many they are, the first's position."""
    seq = load_i32(of_batch(args, ITEM_SEQ) + 4 * number)
    start = load_i32(of_batch(args, ITEM_START) + 4 * number)
    flat = load_i32(of_batch(args, QUERY_START) + 4 * seq)
    query_len = load_i32(of_batch(args, QUERY_START) + 4 * seq + 4) - flat
    num_queries = min(of_batch(args, TOKENS_PER_ITEM), query_len - start)
    return seq, start, num_queries, load_i32(of_batch(args, CONTEXT_LEN) + 4 * seq) + start


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
