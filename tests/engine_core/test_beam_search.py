"""The rules of the search against a naive one, and beam searches on an engine whose model checks every block."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import BeamOutput, EngineOutput, EngineRequest
from zqserve.engine_core.scheduling.beam_search import Beam, BeamSearch, EarlyStopping, Ending

from .naive_beam_search import Found, search
from .paged_model import EOS, VOCAB_SIZE, PagedModel, generate_alone, log_probabilities, next_fingerprint
from .test_scheduler import COMMON_PROMPT, collect, make_engine, make_request, run_to_end

EARLY_STOPPING: list[EarlyStopping] = [False, True, "never"]


@given(
    seed=st.integers(0, 10_000),
    vocab_size=st.integers(1, 7),
    width=st.integers(1, 5),
    max_tokens=st.integers(1, 7),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    early_stopping=st.sampled_from(EARLY_STOPPING),
    num_forbidden=st.integers(0, 3),
)
@settings(max_examples=400, deadline=None)
def test_a_search_finds_what_sorting_all_continuations_finds(
    seed: int,
    vocab_size: int,
    width: int,
    max_tokens: int,
    length_penalty: float,
    early_stopping: EarlyStopping,
    num_forbidden: int,
) -> None:
    end_ids = {0, vocab_size - 1} if seed % 2 else {0}

    def of(tokens: tuple[int, ...]) -> list[float]:
        draw = random.Random(repr((seed, tokens)))
        values = [-draw.expovariate(1.0) for _ in range(vocab_size)]
        for _ in range(num_forbidden):
            values[draw.randrange(vocab_size)] = float("-inf")
        return values

    ours = BeamSearch(width=width, max_tokens=max_tokens, length_penalty=length_penalty, early_stopping=early_stopping)
    while not ours.is_over:
        continuations = [
            Beam(
                before=beam,
                parent=parent,
                token_id=token_id,
                num_tokens=beam.num_tokens + 1,
                score=beam.score + value,
                logprob=beam.logprob + value,
                ending=Ending("stop") if token_id in end_ids or beam.num_tokens + 1 == max_tokens else None,
            )
            for parent, beam in enumerate(ours.running)
            for token_id, value in enumerate(of(tuple(_tokens(beam))))
            if value > float("-inf")
        ]
        continuations.sort(key=lambda beam: -beam.score)
        ours.advance(continuations[: ours.num_candidates(len(end_ids))])
    naive = search(
        of,
        width=width,
        max_tokens=max_tokens,
        end_ids=end_ids,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
    )
    assert [tuple(beam.output().token_ids) for beam in ours.ended] == [found.token_ids for found in naive]
    assert [beam.output().cumulative_logprob for beam in ours.ended] == [found.score for found in naive]


def _tokens(beam: Beam) -> list[int]:
    """The tokens of a beam that has not ended."""
    return [] if beam.before is None else [*_tokens(beam.before), beam.token_id]


def beam_request(key: int, prompt: list[int], width: int, **params: Any) -> EngineRequest:
    return make_request(key, prompt, use_beam_search=True, n=width, temperature=0.0, **params)


def search_alone(message: EngineRequest, max_model_len: int) -> list[Found]:
    """What a beam-search request must find with the `PagedModel`."""
    params = message.params
    prompt = 0
    for token_id in message.prompt_token_ids:
        prompt = next_fingerprint(prompt, token_id)

    def of(tokens: tuple[int, ...]) -> list[float]:
        fingerprint = prompt
        for token_id in tokens:
            fingerprint = next_fingerprint(fingerprint, token_id)
        return log_probabilities(fingerprint)

    return search(
        of,
        width=params.num_samples,
        max_tokens=min(params.max_tokens or max_model_len, max_model_len - len(message.prompt_token_ids)),
        end_ids={*([] if params.ignore_eos else [EOS]), *(params.stop_token_ids or ())},
        min_tokens=params.min_tokens,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
    )[: params.n]


def check_beams(beams: list[BeamOutput] | None, message: EngineRequest, max_model_len: int) -> None:
    expected = search_alone(message, max_model_len)
    assert beams is not None
    assert [tuple(beam.token_ids) for beam in beams] == [found.token_ids for found in expected]
    for beam, found in zip(beams, expected, strict=True):
        assert beam.cumulative_logprob == pytest.approx(found.score)
        ends = beam.token_ids[-1] in {EOS, *(message.params.stop_token_ids or ())}
        assert beam.finish_reason == "stop" if ends and not message.params.ignore_eos else True


def check_no_leak(engine: EngineCore, model: PagedModel) -> None:
    assert round(engine.stats().kv_cache_usage * model.num_blocks) == model.num_held_blocks()


@given(
    data=st.data(),
    block_size=st.integers(1, 4),
    num_blocks=st.integers(8, 28),
    budget=st.integers(1, 24),
    prefix_caching=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_searches_beside_other_requests_on_a_tiny_pool_end_as_if_alone(
    data: st.DataObject, block_size: int, num_blocks: int, budget: int, prefix_caching: bool
) -> None:
    max_model_len = min(40, num_blocks * block_size)
    engine, model = make_engine(
        num_blocks=num_blocks,
        block_size=block_size,
        max_model_len=max_model_len,
        max_num_batched_tokens=budget,
        max_num_seqs=6,
        enable_prefix_caching=prefix_caching,
        scheduling_policy=data.draw(st.sampled_from(["fcfs", "priority"])),
    )
    requests: dict[int, EngineRequest] = {}
    outputs: dict[int, list[EngineOutput]] = defaultdict(list)
    aborted: set[int] = set()
    for key in range(8):
        num_common = data.draw(st.integers(1, min(len(COMMON_PROMPT), max_model_len - 3)))
        params: dict[str, Any] = {
            "priority": data.draw(st.integers(0, 2)),
            "max_tokens": data.draw(st.sampled_from([1, 2, 5, 12, 30])),
            "ignore_eos": data.draw(st.booleans()),
            "stop_token_ids": data.draw(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=4, unique=True)),
        }
        prompt = [*COMMON_PROMPT[:num_common], data.draw(st.integers(3, 5))]
        if data.draw(st.booleans()):
            width = data.draw(st.integers(1, 6))
            params["early_stopping"] = data.draw(st.sampled_from(EARLY_STOPPING))
            params["length_penalty"] = data.draw(st.sampled_from([0.0, 1.0, 2.0]))
            request = beam_request(key, prompt, width, **params)
        else:
            request = make_request(key, prompt, **params)
        requests[key] = request
        engine.add_request(request)
        for _ in range(data.draw(st.sampled_from([0, 0, 1, 3]))):
            model.fail_next_step = data.draw(st.integers(0, 29)) == 0
            model.fail_next_request = data.draw(st.integers(0, 29)) == 0
            collect(outputs, engine.step())
            model.fail_next_step = model.fail_next_request = False
            check_no_leak(engine, model)
        if data.draw(st.integers(0, 9)) == 0:
            key = data.draw(st.sampled_from(sorted(requests)))
            aborted.add(key)
            engine.abort(b"", [key])
            check_no_leak(engine, model)
    while engine.has_unfinished():
        collect(outputs, engine.step())
        check_no_leak(engine, model)
    assert engine.stats().kv_cache_usage == 0
    assert not model.live
    event(f"preemptions: {min(engine.stats().num_preemptions, 5)}")
    for key in requests.keys() - aborted:
        request, last = requests[key], outputs[key][-1]
        if last.finish_reason == "error":
            continue
        if request.params.use_beam_search:
            assert len(outputs[key]) == 1
            check_beams(last.beams, request, max_model_len)
        else:
            token_ids = [token_id for output in outputs[key] for token_id in output.token_ids]
            assert token_ids == generate_alone(request, max_model_len)[0]


def test_beams_share_the_blocks_of_what_they_have_in_common() -> None:
    engine, model = make_engine(num_blocks=64, block_size=4)
    engine.add_request(beam_request(0, COMMON_PROMPT[:16], 4, max_tokens=8, ignore_eos=True))
    engine.step()
    held = []
    while engine.has_unfinished():
        held.append(round(engine.stats().kv_cache_usage * 64))
        engine.step()
    # Four blocks of the prompt, and at most two of each beam.
    assert held[0] == 4
    assert max(held) <= 4 + 4 * 2
    assert [sum(step.values()) for step in model.steps] == [16] + [4] * 7


def test_a_preempted_search_is_computed_again_and_finds_the_same() -> None:
    engine, model = make_engine(num_blocks=24, block_size=2, max_model_len=28)
    requests = [
        make_request(0, [7] * 4, max_tokens=20, ignore_eos=True),
        beam_request(1, [11] * 5, 2, max_tokens=20, ignore_eos=True),
    ]
    for request in requests:
        engine.add_request(request)
    outputs = run_to_end(engine)
    assert engine.stats().num_preemptions > 0
    check_beams(outputs[1][-1].beams, requests[1], 28)
    assert not model.live


def test_a_search_that_can_never_fit_is_refused_with_the_figures() -> None:
    engine, _ = make_engine(num_blocks=16, block_size=4, max_model_len=64, max_num_seqs=4)
    engine.add_request(beam_request(0, [7] * 4, 5, max_tokens=4))
    engine.add_request(beam_request(1, [7] * 4, 4, max_tokens=17))
    engine.add_request(beam_request(2, [7] * 4, 3, max_tokens=16))
    outputs = run_to_end(engine)
    assert outputs[0][0].error == "A beam search takes at most 4 beams (--max-num-seqs), got 5."
    assert "4 beams of up to 17 tokens need 84 tokens of the KV cache, which has 64" in (outputs[1][0].error or "")
    assert outputs[2][0].error is None


def test_the_statistics_count_a_search_as_one_request() -> None:
    engine, _ = make_engine(max_num_seqs=4)
    for key in range(2):
        engine.add_request(beam_request(key, [3 + key, 4, 5], 3, max_tokens=4, ignore_eos=True))
    engine.step()
    stats = engine.stats()
    assert (stats.num_running, stats.num_waiting) == (1, 1)
    run_to_end(engine)


def test_the_prompts_logprobs_come_before_what_was_found() -> None:
    engine, _ = make_engine(max_num_batched_tokens=8)
    engine.add_request(beam_request(0, COMMON_PROMPT, 2, max_tokens=3, prompt_logprobs=1))
    outputs = run_to_end(engine)[0]
    positions = [-entry.logprobs[0] for output in outputs for entry in output.prompt_logprobs or []]
    assert positions == list(range(1, len(COMMON_PROMPT)))
    assert [output.beams is not None for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert outputs[0].queue_seconds is not None
