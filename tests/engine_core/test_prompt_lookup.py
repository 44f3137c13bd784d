"""Guessed tokens change how many steps an answer takes, and nothing of the answer."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from zqserve import LLM, SamplingParams
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineOutput, EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams as EngineParams
from zqserve.engine_core.scheduling.prompt_lookup import LONGEST_PAUSE, PromptLookup, PromptLookupConfig

from ..running_server import DEMO_MODEL
from .paged_model import EOS, PagedModel, generate_alone

NUM_CHOICES = 3
"""So few tokens that guesses are often right."""


def make_config(
    num_speculative_tokens: int = 4, prompt_lookup_max: int = 3, prompt_lookup_min: int = 1, batch_size: int = 99
) -> PromptLookupConfig:
    return PromptLookupConfig(
        num_speculative_tokens=num_speculative_tokens,
        prompt_lookup_max=prompt_lookup_max,
        prompt_lookup_min=prompt_lookup_min,
        disable_by_batch_size=batch_size,
    )


configs = st.integers(1, 3).flatmap(
    lambda least: st.builds(
        make_config,
        num_speculative_tokens=st.integers(1, 6),
        prompt_lookup_max=st.integers(least, 5),
        prompt_lookup_min=st.just(least),
    )
)


def guess_plainly(tokens: list[int], config: PromptLookupConfig) -> list[int]:
    """What followed the latest of the places that share most tokens with the end."""
    best, most = None, config.prompt_lookup_min - 1
    for place in range(len(tokens) - 2, -1, -1):
        shared = 0
        while shared <= place and shared < config.prompt_lookup_max and tokens[place - shared] == tokens[-1 - shared]:
            shared += 1
        if shared > most:
            best, most = place, shared
    if best is None:
        return []
    longer = list(tokens)
    for number in range(config.num_speculative_tokens):
        longer.append(longer[best + 1 + number])
    return longer[len(tokens) :]


@given(tokens=st.lists(st.integers(0, 2), max_size=16), config=configs)
def test_what_followed_the_longest_earlier_match_is_guessed(tokens: list[int], config: PromptLookupConfig) -> None:
    lookup = PromptLookup(config)
    for end in range(1, len(tokens) + 1):
        assert lookup.draft(tokens[:end], 99) == guess_plainly(tokens[:end], config)


def test_a_guess_is_as_long_as_there_is_room() -> None:
    lookup = PromptLookup(make_config())
    assert [lookup.draft([1, 2, 3, 1, 2], most) for most in (0, 1, 2, 9)] == [[], [3], [3, 1], [3, 1, 2, 3]]


def test_wrong_guesses_get_shorter_and_pause_and_right_ones_get_longer() -> None:
    lookup = PromptLookup(make_config())
    tokens = [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert lookup.draft(tokens, 9) == [3, 4, 5, 6]
    lookup.verified(len(tokens), 4, 1)
    assert lookup.draft(tokens, 9) == [3, 4]
    lookup.verified(len(tokens), 2, 2)
    assert lookup.draft(tokens, 9) == [3, 4, 5, 6]
    pauses = []
    for _ in range(9):
        lookup.verified(len(tokens), 1, 0)
        pause = 0
        while not lookup.draft(tokens, 9):
            tokens += [1, 2]
            pause += 2
        pauses.append(pause)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2
    assert pauses[-1] == LONGEST_PAUSE


def test_a_long_prompt_is_indexed_over_several_steps() -> None:
    lookup = PromptLookup(make_config(prompt_lookup_min=2))
    tokens = [*range(9000), 5, 6]
    drafts = [lookup.draft(tokens, 9) for _ in range(6)]
    assert drafts == [[], [], [], [], [7, 8, 9, 10], [7, 8, 9, 10]]


@given(
    data=st.data(),
    config=configs,
    block_size=st.integers(1, 4),
    num_blocks=st.integers(6, 16),
    budget=st.integers(3, 20),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_guessed_on_a_tiny_pool_each_request_ends_as_if_alone(
    data: st.DataObject, config: PromptLookupConfig, block_size: int, num_blocks: int, budget: int
) -> None:
    model = PagedModel(
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_len=num_blocks * block_size,
        max_num_batched_tokens=budget,
        max_num_seqs=6,
        num_choices=NUM_CHOICES,
    )
    engine = EngineCore(
        model, EngineConfig(model="", max_num_batched_tokens=budget, max_num_seqs=6, prompt_lookup=config)
    )
    requests: list[EngineRequest] = []
    outputs: dict[int, list[EngineOutput]] = defaultdict(list)

    def step() -> None:
        for output in engine.step().get(b"", []):
            outputs[output.key].append(output)
        engine.check()

    for key in range(8):
        most = num_blocks * block_size - 2
        request = EngineRequest(
            key=key,
            prompt_token_ids=data.draw(st.lists(st.integers(0, NUM_CHOICES - 1), min_size=1, max_size=min(12, most))),
            params=EngineParams(
                max_tokens=data.draw(st.integers(1, 40)),
                min_tokens=data.draw(st.sampled_from([0, 0, 1])),
                ignore_eos=data.draw(st.booleans()),
                logprobs=0,
                prompt_logprobs=data.draw(st.sampled_from([None, None, 0])),
            ),
            eos_token_ids=[EOS],
        )
        requests.append(request)
        engine.add_request(request)
        for _ in range(data.draw(st.sampled_from([0, 0, 1, 3]))):
            step()
    for _ in range(3000):
        if not engine.has_unfinished():
            break
        step()
    stats = engine.stats()
    event(f"accepted: {min(stats.num_accepted_tokens, 5)}, preemptions: {min(stats.num_preemptions, 2)}")
    for request in requests:
        told = outputs[request.key]
        token_ids = [token_id for output in told for token_id in output.token_ids]
        expected = generate_alone(request, model.max_model_len, NUM_CHOICES)
        assert (token_ids, told[-1].finish_reason, told[-1].stop_reason) == expected
        assert [entry.token_ids[0] for output in told for entry in output.logprobs or []] == token_ids
    assert stats.kv_cache_usage == 0
    assert stats.num_accepted_tokens <= stats.num_draft_tokens


def test_the_next_turn_finds_the_blocks_that_guessed_tokens_filled() -> None:
    model = PagedModel(num_choices=2)
    engine = EngineCore(model, EngineConfig(model="", prompt_lookup=make_config()))
    first = EngineRequest(key=0, prompt_token_ids=[1] * 6, params=EngineParams(max_tokens=43, ignore_eos=True))
    engine.add_request(first)
    while engine.has_unfinished():
        engine.step()
    assert engine.stats().num_accepted_tokens > 5
    conversation = [1] * 6 + generate_alone(first, 128, 2)[0]
    engine.add_request(EngineRequest(key=1, prompt_token_ids=[*conversation, 3], params=EngineParams(max_tokens=1)))
    engine.step()
    # Of the 49 tokens the last was never fed back: 48 have their keys and values, 12 blocks.
    assert model.steps[-1] == {1: 2}


@pytest.fixture(scope="module")
def plain() -> LLM:
    return LLM(str(DEMO_MODEL), num_gpu_blocks_override=64)


@pytest.fixture(scope="module")
def guessing() -> LLM:
    config = {"method": "ngram", "prompt_lookup_min": 1}
    return LLM(str(DEMO_MODEL), num_gpu_blocks_override=64, speculative_config=config)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=2),
        SamplingParams(temperature=0.6, top_p=0.9, seed=5, max_tokens=64, n=2, logprobs=1),
        SamplingParams(temperature=0, max_tokens=64, min_tokens=30, stop=["Rome"], logit_bias={7: -3.0}),
        SamplingParams(temperature=0, max_tokens=40, repetition_penalty=1.2, frequency_penalty=0.5),
    ],
    ids=["greedy", "drawn", "stop", "penalties"],
)
def test_tokens_and_logprobs_of_a_model_are_the_same_to_the_bit(
    plain: LLM, guessing: LLM, params: SamplingParams
) -> None:
    prompts = [
        "The capital of France is Paris. The capital of Italy is Rome. " * 3 + "The capital of France is",
        "one two three one two three one two",
        "Say something.",
    ]
    for one, other in zip(plain.generate(prompts, params), guessing.generate(prompts, params), strict=True):
        for expected, got in zip(one.outputs, other.outputs, strict=True):
            assert (got.token_ids, got.text, got.logprobs) == (expected.token_ids, expected.text, expected.logprobs)
            assert (got.finish_reason, got.stop_reason) == (expected.finish_reason, expected.stop_reason)
