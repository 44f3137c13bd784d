"""Paged attention against dense attention in float64, over shapes drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels.attention_batch import AttentionBatch, make_batch
from zqserve.kernels.triton.paged_attention import PagedAttention

BLOCK_SIZE = 16
SCALE = 0.21


@dataclass
class Shape:
    """One attention problem: `lens` are (tokens in the cache, tokens to compute) of each sequence."""

    lens: list[tuple[int, int]]
    num_kv_heads: int = 2
    group: int = 2
    head_dim: int = 64
    value_dim: int = 64
    sliding_window: int = 0
    softcap: float = 0.0
    sinks: bool = False
    dtype: torch.dtype = torch.float32
    split: int = 64


@dataclass
class Problem:
    """Random states of every sequence, positions from 0; the cache holds those before the step, and NaN elsewhere."""

    shape: Shape
    states: list[list[torch.Tensor]]
    key_cache: torch.Tensor
    value_cache: torch.Tensor
    sinks: torch.Tensor | None
    batch: AttentionBatch

    @staticmethod
    def of(shape: Shape) -> Problem:
        generator = torch.Generator().manual_seed(4)

        def draw(*size: int) -> torch.Tensor:
            return torch.randn(*size, generator=generator).to(shape.dtype)

        num_heads = shape.num_kv_heads * shape.group
        blocks_of = [-(-(context + new) // BLOCK_SIZE) for context, new in shape.lens]
        order = np.random.default_rng(3).permutation(sum(blocks_of)).astype(np.int32)
        table = np.zeros((len(shape.lens), max(blocks_of)), np.int32)
        key_cache = torch.full((len(order), shape.num_kv_heads, BLOCK_SIZE, shape.head_dim), torch.nan)
        value_cache = torch.full((len(order), shape.num_kv_heads, BLOCK_SIZE, shape.value_dim), torch.nan)
        key_cache, value_cache = key_cache.to(shape.dtype), value_cache.to(shape.dtype)
        states = []
        first = 0
        for seq, (context, new) in enumerate(shape.lens):
            table[seq, : blocks_of[seq]] = order[first : first + blocks_of[seq]]
            first += blocks_of[seq]
            length = context + new
            keys = draw(length, shape.num_kv_heads, shape.head_dim)
            values = draw(length, shape.num_kv_heads, shape.value_dim)
            states.append([draw(length, num_heads, shape.head_dim), keys, values])
            position = torch.arange(context)
            blocks = torch.from_numpy(table[seq])[position // BLOCK_SIZE].long()
            key_cache[blocks, :, position % BLOCK_SIZE] = keys[:context]
            value_cache[blocks, :, position % BLOCK_SIZE] = values[:context]
        lens = np.array(shape.lens, np.int32)
        batch = make_batch(lens[:, 1].copy(), lens[:, 0].copy(), table, BLOCK_SIZE, shape.group)
        sinks = torch.randn(num_heads, generator=generator) if shape.sinks else None
        return Problem(shape, states, key_cache, value_cache, sinks, batch)

    def found(self) -> torch.Tensor:
        """What the kernels make of it."""
        starts = [context for context, _ in self.shape.lens]
        query, key, value = (
            torch.cat([state[i][start:] for state, start in zip(self.states, starts, strict=True)]) for i in range(3)
        )
        return PagedAttention(capability=80, split=self.shape.split)(
            *(query, key, value, self.key_cache, self.value_cache, self.batch),
            scale=SCALE,
            sliding_window=self.shape.sliding_window,
            softcap=self.shape.softcap,
            sinks=self.sinks,
        )

    def expected(self) -> torch.Tensor:
        """The same, of whole matrices in float64."""
        return torch.cat(
            [self._dense(state, context) for state, (context, _) in zip(self.states, self.shape.lens, strict=True)]
        )

    def _dense(self, state: list[torch.Tensor], context: int) -> torch.Tensor:
        query, keys, values = (part.double() for part in state)
        keys, values = (part.repeat_interleave(self.shape.group, 1) for part in (keys, values))
        scores = torch.einsum("nhd,mhd->hnm", query[context:], keys) * SCALE
        if self.shape.softcap:
            scores = self.shape.softcap * torch.tanh(scores / self.shape.softcap)
        position, place = torch.arange(context, len(keys))[:, None], torch.arange(len(keys))[None, :]
        hidden = place > position
        if self.shape.sliding_window:
            hidden |= place <= position - self.shape.sliding_window
        weights = scores.masked_fill(hidden, -torch.inf).exp()
        total = weights.sum(-1, keepdim=True)
        if self.sinks is not None:
            total = total + self.sinks.double().exp()[:, None, None]
        return torch.einsum("hnm,mhd->nhd", weights / total, values)


def _check(shape: Shape) -> None:
    problem = Problem.of(shape)
    found = problem.found()
    assert found.dtype == shape.dtype
    tolerance = 2e-5 if shape.dtype == torch.float32 else 4e-3
    torch.testing.assert_close(found.double(), problem.expected(), rtol=tolerance, atol=tolerance)


options = {
    "num_kv_heads": st.sampled_from([1, 2]),
    "group": st.sampled_from([1, 3, 4]),
    "head_dim": st.sampled_from([16, 64, 80, 96, 128, 256]),
    "value_dim": st.sampled_from([16, 64, 128]),
    "sliding_window": st.sampled_from([0, 1, 17, 100]),
    "softcap": st.sampled_from([0.0, 4.0]),
    "sinks": st.booleans(),
    "dtype": st.sampled_from([torch.float32, torch.float16]),
}


@given(
    st.builds(
        Shape,
        lens=st.lists(st.tuples(st.integers(0, 300), st.just(1)), min_size=1, max_size=3),
        split=st.sampled_from([64, 128, 512]),
        **options,
    )
)
@settings(max_examples=10)
def test_decode(shape: Shape) -> None:
    _check(shape)


@given(
    st.builds(
        Shape, lens=st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50)), min_size=1, max_size=3), **options
    )
)
@settings(max_examples=10)
def test_chunks_of_prompts_with_decodes_among_them(shape: Shape) -> None:
    _check(shape)


def test_a_decode_has_the_same_bits_in_any_batch() -> None:
    alone = Problem.of(Shape(lens=[(200, 1)], head_dim=32, value_dim=32)).found()
    among = Problem.of(Shape(lens=[(200, 1), (450, 1), (3, 1), (0, 5)], head_dim=32, value_dim=32)).found()
    assert torch.equal(alone[0], among[0])
