"""What clients are told of the engine's outputs: text, stop strings, logprobs, the best of several answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server import tiny_tokenizers
from zqserve.engine_core.messages import EngineOutput, EngineRequest, TokenLogprobs
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.tokenizer import Tokenizer
from zqserve.server.engine_link.output_processor import OutputProcessor, RequestState, SampleDelta, merge_deltas

EOS = 2
PROMPT = [50, 51, 52]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny_tokenizers.byte_level(tmp_path_factory.mktemp("tokenizer"))


def expect(processor: OutputProcessor, params: SamplingParams) -> RequestState:
    """Register the requests of one prompt; their keys are the sample indices."""
    requests = [
        EngineRequest(key=i, prompt_token_ids=PROMPT, params=params, sample_index=i) for i in range(params.num_samples)
    ]
    return processor.add(requests, params)


def stream(
    processor: OutputProcessor, token_ids: list[int], *, finish: str = "length", step: int = 1, key: int = 0
) -> list[SampleDelta]:
    """The deltas of tokens that come `step` at a time; the last output has the finish reason."""
    deltas: list[SampleDelta] = []
    starts = range(0, max(1, len(token_ids)), step)
    for start in starts:
        last = start == starts[-1]
        output = EngineOutput(key, token_ids[start : start + step], finish if last else None)  # type: ignore[arg-type]
        result = processor.process(output)
        if result is None:
            break
        deltas += result[1]
    return deltas


def logprobs(*values: float) -> list[TokenLogprobs]:
    return [TokenLogprobs([7], [value], 1) for value in values]


def test_pieces_join_to_the_text_and_the_last_one_tells_the_end(tokenizer: Tokenizer) -> None:
    text = "The naïve fox 😀."
    token_ids = tokenizer.encode(text)
    processor = OutputProcessor(tokenizer)
    state = expect(processor, SamplingParams())
    deltas = stream(processor, token_ids)
    assert "".join(delta.text for delta in deltas) == text
    assert [token_id for delta in deltas for token_id in delta.token_ids] == token_ids
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert state.finished
    assert state.num_output_tokens == len(token_ids)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "fox"),
        ({"include_stop_str_in_output": True}, "fox"),
        ({"skip_special_tokens": False}, "fox"),
        ({"skip_special_tokens": False, "include_stop_str_in_output": True}, "fox<|im_end|>"),
    ],
)
def test_the_token_that_ends_an_answer_is_shown_only_when_asked_for(
    fields: dict[str, Any], expected: str, tokenizer: Tokenizer
) -> None:
    processor = OutputProcessor(tokenizer)
    state = expect(processor, SamplingParams(**fields))
    deltas = stream(processor, [*tokenizer.encode("fox"), EOS], finish="stop")
    assert "".join(delta.text for delta in deltas) == expected
    assert deltas[-1].token_ids == [EOS]
    assert deltas[-1].stop_reason is None
    assert state.num_output_tokens == len(tokenizer.encode("fox")) + 1


def test_the_stop_token_that_was_asked_for_is_told(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    expect(processor, SamplingParams(stop_token_ids=[9]))
    result = processor.process(EngineOutput(0, [9], "stop", stop_reason=9))
    assert result is not None
    assert result[1] == [SampleDelta(0, "", [9], finish_reason="stop", stop_reason=9)]


@given(step=st.integers(1, 8), include=st.booleans())
@settings(deadline=None)
def test_a_stop_string_cuts_text_and_tokens_however_they_come(step: int, include: bool, tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    params = SamplingParams(stop=["jumps ov"], include_stop_str_in_output=include)
    state = expect(processor, params)
    token_ids = tokenizer.encode("The fox jumps over the dog")
    needed = next(i for i in range(len(token_ids)) if "jumps ov" in tokenizer.decode(token_ids[:i]))
    whole = merge_deltas(stream(processor, token_ids, step=step))
    assert whole.text == ("The fox jumps ov" if include else "The fox ")
    assert whole.token_ids == token_ids[:needed]
    assert (whole.finish_reason, whole.stop_reason) == ("stop", "jumps ov")
    assert state.finished
    still_running = -(-needed // step) * step < len(token_ids)
    assert processor.take_aborts() == ([0] if still_running else [])
    assert processor.take_aborts() == []
    assert processor.process(EngineOutput(0, [9])) is None


def test_held_back_text_is_told_at_the_end(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    expect(processor, SamplingParams(stop=["fox!"]))
    deltas = stream(processor, tokenizer.encode("The fox"))
    assert merge_deltas(deltas).text == "The fox"
    assert deltas[-1].text.endswith("fox")


def test_stop_strings_count_only_behind_min_tokens(tokenizer: Tokenizer) -> None:
    text = "a STOP b STOP c"
    token_ids = tokenizer.encode(text)
    first_end = next(i for i in range(len(token_ids)) if "STOP" in tokenizer.decode(token_ids[:i]))
    for min_tokens, expected in ((0, "a "), (first_end - 1, "a "), (first_end, "a STOP b ")):
        for step in (1, 3, 99):
            processor = OutputProcessor(tokenizer)
            expect(processor, SamplingParams(stop=["STOP"], min_tokens=min_tokens, max_tokens=99))
            assert merge_deltas(stream(processor, token_ids, step=step)).text == expected


def test_without_detokenising_there_are_only_ids(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    expect(processor, SamplingParams(detokenize=False))
    assert merge_deltas(stream(processor, [60, 61])) == SampleDelta(0, "", [60, 61], finish_reason="length")


def test_logprobs_go_with_their_tokens_and_are_summed(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    expect(processor, SamplingParams(logprobs=0))
    processor.process(EngineOutput(0, [60], logprobs=logprobs(-1.0)))
    result = processor.process(EngineOutput(0, [61], "length", logprobs=logprobs(-2.5)))
    assert result is not None
    (delta,) = result[1]
    assert delta.logprobs == logprobs(-2.5)
    assert delta.cumulative_logprob == -3.5


def test_prompt_logprobs_are_complete_before_any_answer_is_told(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    state = expect(processor, SamplingParams(n=2, prompt_logprobs=0))
    early = processor.process(EngineOutput(1, [60], queue_seconds=0.5, num_cached_tokens=2))
    assert early == (state, [])
    assert processor.process(EngineOutput(0, [], prompt_logprobs=logprobs(-1.0))) == (state, [])
    result = processor.process(EngineOutput(0, [61], prompt_logprobs=logprobs(-2.0)))
    assert result is not None
    assert [(delta.index, delta.token_ids) for delta in result[1]] == [(1, [60]), (0, [61])]
    assert state.prompt_logprobs == logprobs(-1.0, -2.0)
    assert (state.queue_seconds, state.num_cached_tokens) == (0.5, 2)


def test_only_the_best_candidates_are_told_best_first(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    state = expect(processor, SamplingParams(n=2, best_of=3))
    told: list[SampleDelta] = []
    for key, sums in enumerate([(-1.0, -4.0), (-0.5, -0.5), (-1.0, -1.5)]):
        for number, value in enumerate(sums):
            output = EngineOutput(key, [60 + key], "length" if number else None, logprobs=logprobs(value))
            result = processor.process(output)
            assert result is not None
            told += result[1]
    assert [(delta.index, delta.token_ids) for delta in told] == [(0, [61, 61]), (1, [62, 62])]
    assert [delta.logprobs for delta in told] == [None, None]
    assert state.num_output_tokens == 6


def test_an_error_of_the_engine_is_kept_with_the_request(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    state = expect(processor, SamplingParams())
    processor.process(EngineOutput(0, [], "error", error="It broke."))
    assert (state.error, state.finished) == ("It broke.", True)


def test_a_removed_request_brings_nothing_more(tokenizer: Tokenizer) -> None:
    processor = OutputProcessor(tokenizer)
    state = expect(processor, SamplingParams(n=3))
    processor.process(EngineOutput(1, [60], "length"))
    assert sorted(processor.remove(state)) == [0, 2]
    assert processor.remove(state) == []
    assert processor.process(EngineOutput(0, [60])) is None
