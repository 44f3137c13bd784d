"""Sampling against a plain form, and the generator against the published test vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels.philox import philox
from zqserve.kernels.reference import ReferenceSampling, kept_weights
from zqserve.kernels.sampling import AllowedTokens, SamplingKernel, SamplingRows
from zqserve.kernels.thread_pool import ThreadPool


def _rows(count: int, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seed=7, first_position=0) -> SamplingRows:
    return SamplingRows(
        temperature=np.full(count, temperature, np.float32),
        top_k=np.full(count, top_k, np.int64),
        top_p=np.full(count, top_p, np.float32),
        min_p=np.full(count, min_p, np.float32),
        seed=np.full(count, seed, np.int64),
        sample_index=np.zeros(count, np.int64),
        position=np.arange(first_position, first_position + count, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB)),
    ],
)
def test_philox_gives_the_published_words(counter, key, words) -> None:
    assert tuple(int(word) for word in philox(*(np.uint64(n) for n in (*counter, *key)))) == words


def test_greedy_takes_the_first_of_the_largest_logits() -> None:
    logits = torch.zeros(3, 1000)
    logits[0, [300, 999]] = 2.0
    logits[1, 999] = 1.0
    assert SamplingKernel(1000, ThreadPool(2)).sample(logits, _rows(3, temperature=0.0)).tolist() == [300, 999, 0]


@given(
    size=st.integers(1, 700),
    spread=st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 50, 10_000]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(-(2**63), 2**63 - 1),
)
@settings(max_examples=150, deadline=None)
def test_every_draw_lies_in_what_the_limits_keep(size, spread, temperature, top_k, top_p, min_p, seed) -> None:
    generator = torch.Generator().manual_seed(size)
    # Rounded logits bring ties, which the limits must treat alike in both forms.
    logits = (torch.randn(size, generator=generator) * spread).mul(8).round().div(8)
    rows = _rows(20, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    found = SamplingKernel(size, ThreadPool(1)).sample(logits.repeat(20, 1), rows)
    # A hair wider, for a token whose running sum differs from top_p by rounding alone.
    wider = kept_weights(logits, temperature, top_k, min(1.0, top_p * 1.0001 + 1e-7), min_p * 0.9999)
    assert (wider[torch.from_numpy(found)] > 0).all()


@pytest.mark.parametrize(
    "limits", [{}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}, {"temperature": 0.6, "top_k": 9}]
)
def test_draws_follow_the_weights(limits) -> None:
    logits = torch.randn(300, generator=torch.Generator().manual_seed(2)) * 2
    count = 100_000
    found = SamplingKernel(300, ThreadPool(2)).sample(logits.repeat(count, 1), _rows(count, **limits))
    weights = kept_weights(
        logits,
        limits.get("temperature", 1.0),
        limits.get("top_k", 0),
        limits.get("top_p", 1.0),
        limits.get("min_p", 0.0),
    )
    expected = (weights / weights.sum()).numpy()
    assert 0.5 * np.abs(np.bincount(found, minlength=300) / count - expected).sum() < 0.03


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    logits = torch.randn(64, 5000, generator=torch.Generator().manual_seed(1))
    kernel = SamplingKernel(5000, ThreadPool(2))
    together = kernel.sample(logits, _rows(64, top_p=0.9))
    alone = [kernel.sample(logits[i : i + 1].contiguous(), _rows(1, top_p=0.9, first_position=i))[0] for i in range(64)]
    assert together.tolist() == alone


def test_a_row_without_a_finite_logit_is_reported_and_costs_no_other() -> None:
    logits = torch.zeros(3, 100)
    logits[0] = torch.nan
    logits[1] = -torch.inf
    logits[2, 4] = 9.0
    assert SamplingKernel(100, ThreadPool(1)).sample(logits, _rows(3, temperature=0.0)).tolist() == [-1, -1, 4]


@pytest.mark.parametrize("form", ["numba", "torch"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_only_allowed_tokens_are_drawn_and_free_rows_are_as_before(form: str, temperature: float) -> None:
    kernel = SamplingKernel(1000, ThreadPool(2)) if form == "numba" else ReferenceSampling()
    generator = np.random.default_rng(2)
    logits = torch.randn(40, 1000, generator=torch.Generator().manual_seed(3))
    chosen = generator.random((20, 1000)) < 0.01
    chosen[0], chosen[1], chosen[2, 1:] = True, False, False
    words = np.zeros((20, 32), np.uint32)
    words.view(np.uint8)[:, :125] = np.packbits(chosen, axis=1, bitorder="little")
    row = np.full(40, -1)
    row[::2] = np.arange(20)
    rows = _rows(40, temperature=temperature)
    free = kernel.sample(logits.clone(), rows)
    masked = kernel.sample(logits.clone(), rows, AllowedTokens(words, row))
    assert masked[1::2].tolist() == free[1::2].tolist()
    assert masked[0] == free[0]
    assert masked[2] == -1
    for mask, token in enumerate(masked[::2].tolist()):
        assert token == -1 if not chosen[mask].any() else chosen[mask, token]
        if temperature == 0.0 and token >= 0:
            assert token == logits[2 * mask].masked_fill(torch.from_numpy(~chosen[mask]), -torch.inf).argmax()


@given(size=st.integers(1, 400), density=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]), seed=st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_masks_of_any_width_leave_the_largest_of_the_allowed_logits(size: int, density: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = torch.from_numpy(generator.normal(size=(4, size)).astype(np.float32))
    chosen = generator.random((4, size)) < density
    words = np.zeros((4, 2 * -(-size // 64)), np.uint32)
    packed = np.packbits(chosen, axis=1, bitorder="little")
    words.view(np.uint8)[:, : packed.shape[1]] = packed
    masked = logits.masked_fill(torch.from_numpy(~chosen), -torch.inf)
    kernel = SamplingKernel(size, ThreadPool(1))
    allowed = AllowedTokens(words, np.arange(4))
    greedy = kernel.sample(logits.clone(), _rows(4, temperature=0.0), allowed).tolist()
    drawn = kernel.sample(logits, _rows(4), allowed).tolist()
    for row in range(4):
        assert greedy[row] == (int(masked[row].argmax()) if chosen[row].any() else -1)
        assert drawn[row] == -1 if not chosen[row].any() else chosen[row, drawn[row]]
    assert torch.equal(logits, masked)


def test_scores_equal_those_of_plain_torch() -> None:
    logits = torch.randn(9, 777, generator=torch.Generator().manual_seed(6)) * 5
    tokens = np.arange(9) * 80
    for found, expected in zip(
        SamplingKernel(777, ThreadPool(2)).score(logits, tokens), ReferenceSampling().score(logits, tokens), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
