"""The compiled attention against plain torch, and the promise that a row's bits do not depend on its batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels.attention_batch import make_batch
from zqserve.kernels.paged_attention import PagedAttention
from zqserve.kernels.reference import ReferenceAttention, rotate_heads
from zqserve.kernels.rms_norm import RMSNormKernel
from zqserve.kernels.rotary import Rotary
from zqserve.kernels.thread_pool import ThreadPool


@dataclass
class Shape:
    """One attention problem: `lens` are (tokens in the cache, tokens to compute) of each sequence."""

    lens: list[tuple[int, int]]
    num_kv_heads: int = 2
    group: int = 2
    head_dim: int = 16
    value_dim: int = 16
    block_size: int = 16
    sliding_window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    dtype: torch.dtype = torch.float32


def _attend(
    kernel: PagedAttention | ReferenceAttention,
    shape: Shape,
    states: list[list[torch.Tensor]],
    rotary: Rotary | None = None,
) -> torch.Tensor:
    """Attention of the new tokens of every sequence; `states` are each sequence's queries, keys and values.

    Blocks are handed out in a shuffled order, and what no token wrote holds NaN.
    """
    blocks_of = [-(-(context + new) // shape.block_size) for context, new in shape.lens]
    order = np.random.default_rng(3).permutation(sum(blocks_of)).astype(np.int32)
    table = np.zeros((len(shape.lens), max(blocks_of)), np.int32)
    key_cache = torch.full((len(order), shape.num_kv_heads, shape.head_dim, shape.block_size), torch.nan).to(
        shape.dtype
    )
    padded = -(-shape.value_dim // 16) * 16
    value_cache = torch.full((len(order), shape.num_kv_heads, shape.block_size, padded), torch.nan).to(shape.dtype)
    first = 0
    for seq, count in enumerate(blocks_of):
        table[seq, :count] = order[first : first + count]
        first += count
        _, keys, values = states[seq]
        for position in range(shape.lens[seq][0]):
            block, offset = table[seq, position // shape.block_size], position % shape.block_size
            key_cache[block, :, :, offset] = keys[position]
            value_cache[block, :, offset, : shape.value_dim] = values[position]
    new = [[s[i][context:] for s, (context, _) in zip(states, shape.lens, strict=True)] for i in range(3)]
    query, key, value = (torch.cat(parts) for parts in new)
    lens = np.array(shape.lens, np.int32)
    batch = make_batch(lens[:, 1].copy(), lens[:, 0].copy(), table, shape.block_size, shape.group)
    generator = torch.Generator().manual_seed(8)
    num_heads = shape.num_kv_heads * shape.group
    return kernel(
        query,
        key,
        value,
        key_cache,
        value_cache,
        batch,
        scale=0.3,
        sliding_window=shape.sliding_window,
        softcap=shape.softcap,
        sinks=torch.randn(num_heads, generator=generator) if shape.sinks else None,
        rotary=rotary,
    )


def _states(shape: Shape) -> list[list[torch.Tensor]]:
    """Random queries, keys and values of every sequence, positions from 0."""
    generator = torch.Generator().manual_seed(4)
    num_heads = shape.num_kv_heads * shape.group

    def draw(length: int, heads: int, dim: int) -> torch.Tensor:
        return torch.randn(length, heads, dim, generator=generator).to(shape.dtype)

    return [
        [
            draw(context + new, num_heads, shape.head_dim),
            draw(context + new, shape.num_kv_heads, shape.head_dim),
            draw(context + new, shape.num_kv_heads, shape.value_dim),
        ]
        for context, new in shape.lens
    ]


shapes = st.builds(
    Shape,
    lens=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 80)), min_size=1, max_size=5),
    num_kv_heads=st.sampled_from([1, 2, 3]),
    group=st.sampled_from([1, 2, 3, 8]),
    head_dim=st.sampled_from([8, 16, 20, 64, 96]),
    value_dim=st.sampled_from([8, 16, 24, 64, 80]),
    block_size=st.sampled_from([16, 32, 64, 128]),
    sliding_window=st.sampled_from([0, 1, 7, 64, 100]),
    softcap=st.sampled_from([0.0, 4.0]),
    sinks=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_any_mix_of_chunks_and_decodes_equals_the_plain_form(shape: Shape) -> None:
    states = _states(shape)
    found = _attend(PagedAttention(ThreadPool(2)), shape, states)
    expected = _attend(ReferenceAttention(), shape, states)
    tolerance = 1e-4 if shape.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


decode_shapes = st.builds(
    Shape,
    lens=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3)), min_size=1, max_size=20),
    num_kv_heads=st.integers(1, 5),
    group=st.integers(1, 9),
    head_dim=st.sampled_from([20, 64, 80, 96, 128]),
    value_dim=st.sampled_from([64, 120, 128]),
    sliding_window=st.sampled_from([0, 1, 7, 64, 100]),
    softcap=st.sampled_from([0.0, 4.0]),
    sinks=st.booleans(),
    dtype=st.just(torch.bfloat16),
)


@given(decode_shapes)
@settings(max_examples=40, deadline=None)
def test_a_cache_that_is_read_as_it_lies_gives_the_bits_of_tiles_that_are_widened_first(shape: Shape) -> None:
    # Blocks of sixteen keys are read as they lie where few rows need them, larger ones never.
    states = _states(shape)
    directly = _attend(PagedAttention(ThreadPool(2)), shape, states)
    widened = _attend(PagedAttention(ThreadPool(2)), replace(shape, block_size=32), states)
    assert torch.equal(directly, widened)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sliding_window", [0, 50])
def test_a_sequence_has_the_same_bits_alone_chunked_and_batched(dtype: torch.dtype, sliding_window: int) -> None:
    length = 150
    whole = Shape([(0, length)], group=3, head_dim=64, value_dim=64, dtype=dtype, sliding_window=sliding_window)
    (state,) = _states(whole)
    expected = _attend(PagedAttention(ThreadPool(1)), whole, [state])
    for start, count in ((0, 1), (0, 64), (63, 2), (64, 86), (149, 1), (100, 33)):
        prefix = [part[: start + count] for part in state]
        alone = Shape([(start, count)], **_rest(whole))
        assert torch.equal(_attend(PagedAttention(ThreadPool(1)), alone, [prefix]), expected[start : start + count])
        others = Shape([(90, 1), (start, count), (0, 70), (17, 1)], **_rest(whole))
        states = _states(others)
        states[1] = prefix
        batched = _attend(PagedAttention(ThreadPool(2)), others, states)
        assert torch.equal(batched[1 : 1 + count], expected[start : start + count])


@pytest.mark.parametrize("filler", [1, 6, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sequence_may_share_the_blocks_that_another_fills_in_the_same_step(filler: int, dtype: torch.dtype) -> None:
    block_size, group, dim = 16, 2, 32
    context = 48 - filler
    table = np.array([[2, 0, 1, 3], [2, 0, 1, 4]], np.int32)
    batch = make_batch(np.array([filler, 1], np.int32), np.array([context, 48], np.int32), table, block_size, group)
    generator = torch.Generator().manual_seed(6)
    caches = [torch.randn(5, 2, dim, block_size, generator=generator).to(dtype)]
    caches.append(torch.randn(5, 2, block_size, dim, generator=generator).to(dtype))
    heads = (2 * group, 2, 2)
    states = [torch.randn(filler + 1, count, dim, generator=generator).to(dtype) for count in heads]
    for _ in range(20):
        found, expected = (
            kernel(*states, *(cache.clone() for cache in caches), batch, scale=0.3)
            for kernel in (PagedAttention(ThreadPool(2)), ReferenceAttention())
        )
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(64, 64), (64, 32), (20, 20), (96, 24)])
@pytest.mark.parametrize("normed", [True, False])
def test_queries_and_keys_are_rotated_on_their_way(
    dtype: torch.dtype, head_dim: int, rotary_dim: int, normed: bool
) -> None:
    shape = Shape([(0, 40), (30, 3), (63, 1), (5, 1)], group=3, head_dim=head_dim, value_dim=24, dtype=dtype)
    num_tokens = sum(new for _, new in shape.lens)
    generator = torch.Generator().manual_seed(5)
    threads = ThreadPool(2)
    weights = [1 + torch.rand(head_dim, generator=generator) for _ in range(2)]
    norms = [RMSNormKernel(w, 1e-6, round_before_weight=True, threads=threads) if normed else None for w in weights]
    cos, sin = (torch.randn(num_tokens, rotary_dim, generator=generator).to(dtype) for _ in range(2))
    rotary = Rotary(cos, sin, *norms)
    states = _states(shape)
    found = _attend(PagedAttention(threads), shape, states, rotary)
    first = 0
    for (context, new), (query, key, _) in zip(shape.lens, states, strict=True):
        part = slice(first, first + new)
        for heads, norm in ((query, norms[0]), (key, norms[1])):
            heads[context:] = rotate_heads(heads[context:], cos[part], sin[part], norm)
        first += new
    assert torch.equal(found, _attend(PagedAttention(threads), shape, states))


def _rest(shape: Shape) -> dict[str, object]:
    return {name: value for name, value in vars(shape).items() if name != "lens"}
