"""Rotary embedding of queries and keys, their norms before it, and the write into the paged cache: one launch a layer.

Keys go to the cache alone, since attention reads them there. Computed in float32 and rounded once, but for the norm,
which rounds as the model's own.
"""

# Inside a kernel Triton's functions have other types than their signatures say.
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..rotary import Rotary
from .launch import Launch, next_power_of_2

TILE_ELEMENTS = 1024
"""Elements of heads that one program takes."""


def rotate_launch(
    query_out: torch.Tensor | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slots: torch.Tensor,
    rotary: Rotary | None,
    *,
    interleaved: bool = False,
) -> Launch:
    """Write keys and values to `slots`, int64 [num_tokens]: block times block_size plus offset, -1 for no write.

    With `rotary`, the turned queries go to `query_out` [num_tokens, num_heads, head_dim], contiguous. `interleaved`
    pairs element 2i with 2i + 1 instead of i with i + rotary_dim / 2; cosines and sines stand at the element's place.
    """
    num_heads, head_dim = query.shape[1:]
    num_kv_heads, block_size, value_dim = value_cache.shape[1:]
    heads = max(1, TILE_ELEMENTS // next_power_of_2(max(head_dim, value_dim)))
    query_norm = None if rotary is None else rotary.query_norm
    key_norm = None if rotary is None else rotary.key_norm
    rotary_dim = 0 if rotary is None else rotary.cos.shape[-1]
    query_parts = 0 if query_out is None else -(-num_heads // heads)
    kv_parts = -(-num_kv_heads // heads)
    return Launch(
        rotate_and_write_kernel,
        (len(key), query_parts + 2 * kv_parts),
        {
            "query_out": query_out,
            "query": query,
            "query_stride": query.stride(0),
            "query_head_stride": query.stride(1),
            "key": key,
            "key_stride": key.stride(0),
            "key_head_stride": key.stride(1),
            "value": value,
            "value_stride": value.stride(0),
            "value_head_stride": value.stride(1),
            "key_cache": key_cache,
            "key_block_stride": key_cache.stride(0),
            "value_cache": value_cache,
            "value_block_stride": value_cache.stride(0),
            "slots": slots,
            "cos": None if rotary is None else rotary.cos,
            "sin": None if rotary is None else rotary.sin,
            "query_weight": None if query_norm is None else query_norm.weight,
            "query_eps": 0.0 if query_norm is None else query_norm.eps,
            "key_weight": None if key_norm is None else key_norm.weight,
            "key_eps": 0.0 if key_norm is None else key_norm.eps,
        },
        {
            "NUM_HEADS": num_heads,
            "NUM_KV_HEADS": num_kv_heads,
            "QUERY_PARTS": query_parts,
            "KV_PARTS": kv_parts,
            "HEADS": heads,
            "HEAD_DIM": head_dim,
            "ROTARY_DIM": rotary_dim,
            "HALF_PAD": next_power_of_2(max(1, rotary_dim // 2)),
            "REST_PAD": next_power_of_2(max(1, head_dim - rotary_dim)),
            "VALUE_DIM": value_dim,
            "VALUE_PAD": next_power_of_2(value_dim),
            "BLOCK_SIZE": block_size,
            "INTERLEAVED": interleaved,
            "ROUND_EARLY": query_norm is not None and query_norm.round_before_weight,
        },
        num_warps=4 if heads > 1 else 1,
    )


@triton.jit
def _normalised(x, scale, weight, dim, inside, dtype: tl.constexpr, ROUND_EARLY: tl.constexpr):
    x = x * scale[:, None]
    if ROUND_EARLY:
        x = x.to(dtype).to(tl.float32)
    x = x * tl.load(weight + dim, mask=inside, other=0.0)[None, :]
    return x.to(dtype).to(tl.float32)


@triton.jit
def _turn_heads(
    target,
    target_head_stride,
    source,
    source_head_stride,
    head,
    live,
    cos,
    sin,
    weight,
    eps,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    HALF_PAD: tl.constexpr,
    REST_PAD: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROUND_EARLY: tl.constexpr,
):
    """Normalise and rotate some heads of a token: from `source` to `target`, pointers to its head 0."""
    half: tl.constexpr = ROTARY_DIM // 2
    dtype: tl.constexpr = source.dtype.element_ty
    pair = tl.arange(0, HALF_PAD)
    is_pair = pair < half
    dim = 2 * pair if INTERLEAVED else pair
    partner = 2 * pair + 1 if INTERLEAVED else pair + half
    rest = ROTARY_DIM + tl.arange(0, REST_PAD)
    is_rest = rest < HEAD_DIM
    here = (source + head * source_head_stride)[:, None]
    there = (target + head * target_head_stride)[:, None]
    live_pair = live[:, None] & is_pair[None, :]
    live_rest = live[:, None] & is_rest[None, :]
    x = tl.load(here + dim[None, :], mask=live_pair, other=0.0).to(tl.float32)
    y = tl.load(here + partner[None, :], mask=live_pair, other=0.0).to(tl.float32)
    if ROTARY_DIM < HEAD_DIM:
        z = tl.load(here + rest[None, :], mask=live_rest, other=0.0).to(tl.float32)
    if weight is not None:
        squares = tl.sum(x * x, 1) + tl.sum(y * y, 1)
        if ROTARY_DIM < HEAD_DIM:
            squares += tl.sum(z * z, 1)  # pyright: ignore[reportPossiblyUnboundVariable]
        scale = tl.rsqrt(squares / HEAD_DIM + eps)
        x = _normalised(x, scale, weight, dim, is_pair, dtype, ROUND_EARLY)
        y = _normalised(y, scale, weight, partner, is_pair, dtype, ROUND_EARLY)
        if ROTARY_DIM < HEAD_DIM:
            z = _normalised(z, scale, weight, rest, is_rest, dtype, ROUND_EARLY)  # pyright: ignore[reportPossiblyUnboundVariable]
    if ROTARY_DIM > 0:
        cos_x = tl.load(cos + dim, mask=is_pair, other=0.0).to(tl.float32)[None, :]
        sin_x = tl.load(sin + dim, mask=is_pair, other=0.0).to(tl.float32)[None, :]
        cos_y = tl.load(cos + partner, mask=is_pair, other=0.0).to(tl.float32)[None, :]
        sin_y = tl.load(sin + partner, mask=is_pair, other=0.0).to(tl.float32)[None, :]
        tl.store(there + dim[None, :], (x * cos_x - y * sin_x).to(dtype), mask=live_pair)
        tl.store(there + partner[None, :], (y * cos_y + x * sin_y).to(dtype), mask=live_pair)
    if ROTARY_DIM < HEAD_DIM:
        tl.store(there + rest[None, :], z.to(dtype), mask=live_rest)  # pyright: ignore[reportPossiblyUnboundVariable]


@triton.jit
def rotate_and_write_kernel(
    query_out,
    query,
    query_stride,
    query_head_stride,
    key,
    key_stride,
    key_head_stride,
    value,
    value_stride,
    value_head_stride,
    key_cache,
    key_block_stride,
    value_cache,
    value_block_stride,
    slots,
    cos,
    sin,
    query_weight,
    query_eps,
    key_weight,
    key_eps,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    QUERY_PARTS: tl.constexpr,
    KV_PARTS: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    HALF_PAD: tl.constexpr,
    REST_PAD: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    VALUE_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROUND_EARLY: tl.constexpr,
):
    """Grid [tokens, parts]: some query heads, then some key heads, then some value heads."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    cos_row = cos
    sin_row = sin
    if ROTARY_DIM > 0:
        cos_row = cos + token * ROTARY_DIM
        sin_row = sin + token * ROTARY_DIM
    if part < QUERY_PARTS:
        if QUERY_PARTS > 0:
            head = part * HEADS + tl.arange(0, HEADS)
            _turn_heads(
                query_out + token * (NUM_HEADS * HEAD_DIM), HEAD_DIM, query + token * query_stride, query_head_stride,
                head, head < NUM_HEADS, cos_row, sin_row, query_weight, query_eps,
                HEAD_DIM, ROTARY_DIM, HALF_PAD, REST_PAD, INTERLEAVED, ROUND_EARLY,
            )  # fmt: skip
    else:
        slot = tl.load(slots + token)
        if slot >= 0:
            block = slot // BLOCK_SIZE
            offset = slot % BLOCK_SIZE
            if part < QUERY_PARTS + KV_PARTS:
                head = (part - QUERY_PARTS) * HEADS + tl.arange(0, HEADS)
                _turn_heads(
                    key_cache + block * key_block_stride + offset * HEAD_DIM, BLOCK_SIZE * HEAD_DIM,
                    key + token * key_stride, key_head_stride,
                    head, head < NUM_KV_HEADS, cos_row, sin_row, key_weight, key_eps,
                    HEAD_DIM, ROTARY_DIM, HALF_PAD, REST_PAD, INTERLEAVED, ROUND_EARLY,
                )  # fmt: skip
            else:
                head = (part - QUERY_PARTS - KV_PARTS) * HEADS + tl.arange(0, HEADS)
                dim = tl.arange(0, VALUE_PAD)
                live = (head < NUM_KV_HEADS)[:, None] & (dim < VALUE_DIM)[None, :]
                source = value + token * value_stride + (head * value_head_stride)[:, None] + dim[None, :]
                target = value_cache + block * value_block_stride + offset * VALUE_DIM
                target += (head * (BLOCK_SIZE * VALUE_DIM))[:, None] + dim[None, :]
                tl.store(target, tl.load(source, mask=live), mask=live)
