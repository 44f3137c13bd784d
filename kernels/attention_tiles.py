"""What paged attention does with a tile of 64 keys: brings it, multiplies queries with keys and weights with values,
and turns scores into weights. See `paged_attention`; `args` are its kernels' arguments.

There are two ways, with equal bits. Many rows share a tile: it is widened once into float32 scratch. A few rows of a
bfloat16 cache read the cache as it lies, and widen in registers: nothing is written and read again.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .multiply_add import (
    multiply_add_1x1,
    multiply_add_1x4,
    multiply_add_2x4,
    multiply_add_3x4,
    multiply_add_4x1,
    multiply_add_4x4,
    multiply_add_bfloat16_1x4,
    multiply_add_bfloat16_2x4,
    multiply_add_bfloat16_3x4,
    multiply_add_bfloat16_4x4,
)
from .rms_norm import copy_row, narrow_row
from .simd import (
    CACHE_LINE,
    LANES,
    TILE,
    copy_16,
    divide_16,
    exp_of_tile,
    fill_16,
    load_f32,
    load_i32,
    max_of_tile,
    prefetch,
    scale_16,
    store_f32,
    tanh_of_tile,
    widen_16,
)

MOST_DIRECT_ROWS = 8
"""Each four of them widen a tile anew."""


@njit(error_model="numpy")
def reads_directly(args, rows):
    """Whether so many rows multiply with the cache as it lies."""
    return args[18] != 0 and rows <= MOST_DIRECT_ROWS and args[13] % TILE == 0 and args[14] == LANES


@njit(error_model="numpy")
def _keys_at(args, table, head, position):
    """The address of sixteen keys [head_dim, 16] in a bfloat16 cache with blocks of sixteen."""
    return args[6] + 2 * LANES * args[11] * (load_i32(table + 4 * (position // LANES)) * args[9] + head)


@njit(error_model="numpy")
def _values_at(args, table, head, position):
    """The address of their values [16, padded_dim]."""
    return args[7] + 2 * LANES * args[13] * (load_i32(table + 4 * (position // LANES)) * args[9] + head)


@njit(error_model="numpy")
def multiply_cached_keys(
    queries, scores, args, table, head, tile, rows, count, next_table, next_head, next_tile, next_count
):
    """scores [rows, 64] = queries [rows, head_dim] · keys of the tile. Those from `count` on mean nothing.

    Meanwhile the keys of the tile that comes next are asked for, `next_count` of them.
    """
    head_dim = args[11]
    for i in range(0, rows * TILE, LANES):
        fill_16(scores + 4 * i, np.float32(0.0))
    first, following = tile * TILE, next_tile * TILE
    # Behind the last key there may be no block: any other's keys will do.
    b0 = _keys_at(args, table, head, first)
    b1 = _keys_at(args, table, head, first + LANES) if count > LANES else b0
    b2 = _keys_at(args, table, head, first + 2 * LANES) if count > 2 * LANES else b0
    b3 = _keys_at(args, table, head, first + 3 * LANES) if count > 3 * LANES else b0
    for depth in range(0, head_dim, LANES):
        part = 4 * depth // head_dim
        ahead = b0
        if LANES * part < next_count:
            ahead = _keys_at(args, next_table, next_head, following + LANES * part)
            ahead += 2 * LANES * (4 * depth - part * head_dim)
        at = 2 * LANES * depth
        _multiply_rows(
            queries + 4 * depth, head_dim, b0 + at, b1 + at, b2 + at, b3 + at, LANES,
            scores, TILE, min(LANES, head_dim - depth), rows, ahead,
        )  # fmt: skip


@njit(error_model="numpy")
def multiply_cached_values(
    scores, outputs, args, table, head, tile, rows, count, next_table, next_head, next_tile, next_count
):
    """outputs [rows, padded_dim] += scores [rows, count] · values of the tile.

    Meanwhile the values of the tile that comes next are asked for, `next_count` of them.
    """
    padded_dim, following = args[13], next_tile * TILE
    for part in range(0, count, LANES):
        values = _values_at(args, table, head, tile * TILE + part)
        ahead = _values_at(args, next_table, next_head, following + part) if part < next_count else values
        for column in range(0, padded_dim, TILE):
            b = values + 2 * column
            _multiply_rows(
                scores + 4 * part, TILE, b, b + 2 * LANES, b + 4 * LANES, b + 6 * LANES, padded_dim,
                outputs + 4 * column, padded_dim, min(LANES, count - part), rows, ahead + 2 * LANES * column,
            )  # fmt: skip


@njit(error_model="numpy")
def _multiply_rows(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, rows, ahead):
    while rows > 4:
        multiply_add_bfloat16_4x4(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead)
        a, c, rows = a + 16 * a_stride, c + 16 * c_stride, rows - 4
    if rows == 4:
        multiply_add_bfloat16_4x4(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead)
    elif rows == 3:
        multiply_add_bfloat16_3x4(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead)
    elif rows == 2:
        multiply_add_bfloat16_2x4(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead)
    else:
        multiply_add_bfloat16_1x4(a, a_stride, b0, b1, b2, b3, b_stride, c, c_stride, depth, ahead)


@njit(error_model="numpy")
def load_tile(keys, values, args, table, head, tile, count):
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
def prefetch_tile(args, table, head, tile, num_keys):
    """Ask for the keys and values that `load_tile` will read next, so that they come while others are multiplied."""
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
def multiply_queries(queries, keys, scores, rows, head_dim):
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
def soften_row(scores, sums, maximum, outputs, padded_dim, first, last, scale, softcap):
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
def multiply_values(scores, values, outputs, rows, count, padded_dim):
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
    """As `multiply_values`, for up to four rows and sixteen columns."""
    if rows == 4:
        multiply_add_4x1(a, TILE, b, padded_dim, c, padded_dim, count)
        return
    for row in range(rows):
        multiply_add_1x1(a + 4 * TILE * row, TILE, b, padded_dim, c + 4 * padded_dim * row, padded_dim, count)


@njit(error_model="numpy")
def store_row(out, element, outputs, total, value_dim, bfloat16):
    """One query head's output, divided by the sum of its weights. `outputs` is padded to whole vectors."""
    for i in range(0, value_dim, LANES):
        divide_16(outputs + 4 * i, total)
    if bfloat16 != 0:
        narrow_row(out + 2 * element, outputs, value_dim)
    else:
        copy_row(out + 4 * element, outputs, value_dim)
