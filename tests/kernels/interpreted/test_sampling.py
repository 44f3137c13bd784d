"""Drawing, penalties, masks and logprobs against float64 over whole rows, and Philox against the CPU's."""

from __future__ import annotations

from collections import Counter

import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels import philox
from zqserve.kernels.reference import kept_weights
from zqserve.kernels.triton.launch import Launch
from zqserve.kernels.triton.logits import IN_PROMPT, adjust_launch
from zqserve.kernels.triton.philox import uniform
from zqserve.kernels.triton.sampling import SamplingState, sample_launch, score_launch

VOCAB_SIZE = 5_000
"""More than one tile of the kernels."""


@triton.jit
def _uniform_kernel(out, seed, sample_index, position):
    row = tl.program_id(0)
    tl.store(out + row, uniform(tl.load(seed + row), tl.load(sample_index + row), tl.load(position + row)))


def test_a_seed_gives_the_number_that_it_gives_on_a_cpu() -> None:
    generator = torch.Generator().manual_seed(1)
    seed, index, position = torch.randint(-(2**63), 2**63 - 1, (3, 20), generator=generator)
    position[:10] &= 0xFFFF
    out = torch.empty(20, dtype=torch.float64)
    arguments = {"out": out, "seed": seed, "sample_index": index, "position": position}
    Launch(_uniform_kernel, (20,), arguments, {}).run()
    numbers = zip(seed.tolist(), index.tolist(), position.tolist(), strict=True)
    assert out.tolist() == [philox.uniform(*number) for number in numbers]


rows = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 1.0, 1.7]),  # temperature
        st.sampled_from([0, 1, 7, 900, VOCAB_SIZE]),  # top_k
        st.sampled_from([1e-6, 0.1, 0.6, 0.95, 1.0]),  # top_p
        st.sampled_from([0.0, 0.001, 0.2]),  # min_p
        st.integers(-(2**63), 2**63 - 1),  # seed
        st.integers(0, 2**40),  # position
    ),
    min_size=1,
    max_size=5,
)


@given(rows, st.booleans(), st.integers(0, 2**30))
@settings(max_examples=20)
def test_a_draw_falls_where_whole_rows_in_float64_say(drawn: list[tuple], alike: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(drawn), VOCAB_SIZE, generator=generator)
    if alike:
        logits = logits.round()  # many equal weights at every limit
    requests = torch.randperm(8, generator=generator)[: len(drawn)].int()
    state = _state(8)
    for request, (temperature, top_k, top_p, min_p, key, position) in zip(requests.tolist(), drawn, strict=True):
        state.temperature[request], state.top_k[request], state.top_p[request] = temperature, top_k, top_p
        state.min_p[request], state.seed[request], state.position[request] = min_p, key, position
    seen = torch.zeros(8, VOCAB_SIZE, dtype=torch.int32)
    tokens = torch.empty(len(drawn), dtype=torch.int64)
    sample_launch(tokens, logits, requests, state, seen).run()
    for i, (temperature, top_k, top_p, min_p, key, position) in enumerate(drawn):
        token = int(tokens[i])
        if temperature == 0:
            assert token == int(logits[i].argmax())
        else:
            weights = kept_weights(logits[i], temperature, top_k, top_p, min_p)
            running = weights.cumsum(0)
            target = philox.uniform(key, 0, position) * float(running[-1])
            slack = 1e-6 * float(running[-1])
            before = float(running[token]) - float(weights[token])
            assert weights[token] > 0
            assert before - slack <= target < float(running[token]) + slack
        assert seen[requests[i]].nonzero().flatten().tolist() == [token]


def test_a_row_without_a_finite_logit_has_no_token() -> None:
    logits = torch.randn(3, 50)
    logits[0] = -torch.inf
    logits[2, 4] = torch.inf
    state, tokens = _state(3), torch.empty(3, dtype=torch.int64)
    sample_launch(tokens, logits, torch.arange(3).int(), state).run()
    assert tokens.tolist() == [-1, int(logits[1].argmax()), -1]


def test_penalties_and_masks() -> None:
    generator = torch.Generator().manual_seed(2)
    size = 1_500
    logits = torch.randn(3, size, generator=generator)
    logits[2, 11] = 1.0
    before = logits.double()
    penalties = torch.tensor([[1.0, 0.0, 0.0], [1.3, 0.5, -0.25], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    prompt, output = [3, 11, 700], [11, 5, 5, 5, 1_400]
    seen = torch.zeros(4, size, dtype=torch.int32)
    for request in (1, 2):
        seen[request, prompt] |= IN_PROMPT
        for token in output:
            seen[request, token] += 1
    words = torch.randint(-(2**31), 2**31 - 1, (2, 48), generator=generator, dtype=torch.int32)
    mask_of = torch.tensor([-1, 1, -1]).int()
    adjust_launch(logits, torch.tensor([0, 1, 2]).int(), seen, penalties, mask_of, words).run()
    expected = before.clone()
    for row in (1, 2):
        repetition, frequency, presence = penalties[row].tolist()
        for token in {*prompt, *output}:
            value = expected[row, token]
            expected[row, token] = value / repetition if value > 0 else value * repetition
        for token, count in Counter(output).items():
            expected[row, token] -= frequency * count + presence
    bits = (words[1, torch.arange(size) // 32] >> (torch.arange(size) % 32)) & 1
    expected[1, bits == 0] = -torch.inf
    torch.testing.assert_close(logits.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(logits[0].double(), before[0])


@given(st.integers(1, 4), st.sampled_from([1, 37, 4_096, VOCAB_SIZE]), st.integers(0, 2**30))
@settings(max_examples=8)
def test_logprobs_and_ranks(num_rows: int, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(num_rows, size, generator=generator)
    tokens = torch.randint(0, size, (num_rows,), generator=generator)
    log_sums, logprobs = torch.empty(2, num_rows, dtype=torch.float64)
    ranks = torch.empty(num_rows, dtype=torch.int64)
    score_launch(log_sums, logprobs, ranks, logits, tokens).run()
    chosen = logits.gather(1, tokens[:, None])
    torch.testing.assert_close(log_sums, logits.double().logsumexp(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logprobs, chosen[:, 0].double() - log_sums)
    assert ranks.tolist() == ((logits > chosen).sum(1) + 1).tolist()


def _state(num_requests: int) -> SamplingState:
    floats = [torch.zeros(num_requests) for _ in range(3)]
    return SamplingState(*floats, *(torch.zeros(num_requests, dtype=torch.int64) for _ in range(4)))
