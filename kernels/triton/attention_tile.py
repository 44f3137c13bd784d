"""One step of FlashAttention's running softmax (Dao et al., arXiv:2205.14135) over keys in a paged cache.

Shared by the kernels for decode and for prompts. Scores are kept in units of log 2, for the chip's exp2.

Cache layout on a GPU, of one layer: keys [num_blocks, num_kv_heads, block_size, head_dim], values the same with
`value_dim`. A block of one head is one run of memory, which one program reads from end to end.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
NO_WINDOW = 1 << 30
"""A sliding window that hides nothing."""


@triton.jit
def attend_tile(
    query,
    row_position,
    maximum,
    total,
    sums,
    keys,
    values,
    table,
    start,
    num_keys,
    key_stride,
    value_stride,
    scale,
    softcap,
    window,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_PAD: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    MASKED: tl.constexpr,
):
    """The rows' running maximum, total and weighted sums after the keys at positions [start, start + TILE).

    query [rows, HEAD_PAD]; `keys` and `values` point to one head of block 0; `table` to the sequence's blocks, which
    are `key_stride` and `value_stride` elements apart. Without MASKED every row sees every key of the tile.
    """
    place = start + tl.arange(0, TILE)
    live = place < num_keys
    block = tl.load(table + place // BLOCK_SIZE, mask=live, other=0).to(tl.int64)
    dim = tl.arange(0, HEAD_PAD)
    key_at = keys + block * key_stride + (place % BLOCK_SIZE) * HEAD_DIM
    key = tl.load(key_at[None, :] + dim[:, None], mask=live[None, :] & (dim[:, None] < HEAD_DIM), other=0.0)
    scores = tl.dot(query, key, input_precision="ieee") * scale
    if HAS_SOFTCAP:
        # tanh(x) = 1 - 2 / (exp(2x) + 1), which is right at both ends.
        power = tl.exp2(scores * (2.0 * LOG2E / softcap))
        scores = softcap * (1.0 - 2.0 / (power + 1.0))
    scores = scores * LOG2E
    if MASKED:
        hidden = (place[None, :] > row_position[:, None]) | (place[None, :] <= row_position[:, None] - window)
        scores = tl.where(hidden, float("-inf"), scores)
    new_maximum = tl.maximum(maximum, tl.max(scores, 1))
    # A row that has seen no key yet: any finite number in the place of its maximum gives weights of 0, never NaN.
    shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
    weights = tl.exp2(scores - shift[:, None])
    rescale = tl.exp2(maximum - shift)
    value_dim = tl.arange(0, VALUE_PAD)
    value_at = values + block * value_stride + (place % BLOCK_SIZE) * VALUE_DIM
    value = tl.load(
        value_at[:, None] + value_dim[None, :], mask=live[:, None] & (value_dim[None, :] < VALUE_DIM), other=0.0
    )
    sums = tl.dot(weights.to(value.dtype), value, sums * rescale[:, None], input_precision="ieee")
    return new_maximum, total * rescale + tl.sum(weights, 1), sums


@triton.jit
def finish_rows(maximum, total, sums, sink):
    """The rows' outputs; `sink` [rows], in units of log 2, is one more score that has no value."""
    shift = tl.maximum(maximum, sink)
    rescale = tl.exp2(maximum - shift)
    return sums * (rescale / (total * rescale + tl.exp2(sink - shift)))[:, None]
