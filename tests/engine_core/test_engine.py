"""What the engine core answers: endings, resumption, errors; and that one bad request or step harms no other."""

from __future__ import annotations

import logging

import pytest

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineOutput, EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams

from .paged_model import EOS, VOCAB_SIZE, PagedModel, generate_alone

PROMPT = [7, 11, 13, 17, 19, 23]


def request(key: int = 0, prompt: list[int] | None = None, **fields: object) -> EngineRequest:
    """A request; names that are not those of `EngineRequest` go to its `SamplingParams`."""
    own = {name: fields.pop(name) for name in ("output_token_ids", "eos_token_ids", "arrival_time") if name in fields}
    params = SamplingParams(**fields)  # pyright: ignore[reportArgumentType]
    own.setdefault("eos_token_ids", [EOS])
    prompt = PROMPT if prompt is None else prompt
    return EngineRequest(key=key, prompt_token_ids=prompt, params=params, **own)  # pyright: ignore[reportArgumentType]


def engine_with(max_model_len: int = 64, num_blocks: int = 32, **config: object) -> EngineCore:
    model = PagedModel(num_blocks=num_blocks, block_size=4, max_model_len=max_model_len)
    return EngineCore(model, EngineConfig(model="", **config))  # pyright: ignore[reportArgumentType]


def answers(engine: EngineCore, *messages: EngineRequest) -> dict[int, list[EngineOutput]]:
    for message in messages:
        engine.add_request(message)
    outputs: dict[int, list[EngineOutput]] = {}
    while engine.has_unfinished():
        for output in engine.step().get(b"", []):
            outputs.setdefault(output.key, []).append(output)
    return outputs


def tokens(outputs: list[EngineOutput]) -> list[int]:
    return [token_id for output in outputs for token_id in output.token_ids]


def greedy_tokens(num_tokens: int) -> list[int]:
    """What the model says after `PROMPT`."""
    return generate_alone(request(max_tokens=num_tokens, ignore_eos=True), 10_000)[0]


def test_max_tokens_ends_with_length() -> None:
    outputs = answers(engine_with(), request(max_tokens=5, ignore_eos=True))[0]
    assert tokens(outputs) == greedy_tokens(5)
    assert (outputs[-1].finish_reason, outputs[-1].stop_reason) == ("length", None)


def test_eos_is_sent_and_ends_with_stop_and_no_stop_reason() -> None:
    expected = greedy_tokens(6)
    outputs = answers(engine_with(), request(max_tokens=20, eos_token_ids=[expected[3]]))[0]
    assert tokens(outputs) == expected[: expected.index(expected[3]) + 1]
    assert (outputs[-1].finish_reason, outputs[-1].stop_reason) == ("stop", None)


def test_a_stop_token_is_sent_and_is_the_stop_reason() -> None:
    expected = greedy_tokens(6)
    outputs = answers(engine_with(), request(max_tokens=20, stop_token_ids=[expected[3]], ignore_eos=True))[0]
    assert tokens(outputs) == expected[: expected.index(expected[3]) + 1]
    assert (outputs[-1].finish_reason, outputs[-1].stop_reason) == ("stop", expected[3])


def test_an_ignored_eos_that_is_also_a_stop_token_is_the_stop_reason() -> None:
    eos = greedy_tokens(1)[0]
    message = request(max_tokens=20, eos_token_ids=[eos], stop_token_ids=[eos], ignore_eos=True)
    outputs = answers(engine_with(), message)[0]
    assert (tokens(outputs), outputs[-1].finish_reason, outputs[-1].stop_reason) == ([eos], "stop", eos)


def test_nothing_stops_a_request_before_min_tokens() -> None:
    expected = greedy_tokens(7)
    message = request(max_tokens=7, min_tokens=6, eos_token_ids=[expected[2]], stop_token_ids=[expected[1]])
    outputs = answers(engine_with(), message)[0]
    assert tokens(outputs)[:6] == expected[:6]


def test_the_context_ends_with_length_and_is_used_to_its_last_token() -> None:
    outputs = answers(engine_with(max_model_len=16), request(max_tokens=100, ignore_eos=True))[0]
    assert tokens(outputs) == greedy_tokens(10)
    assert outputs[-1].finish_reason == "length"


def test_max_tokens_0_gives_the_prompt_logprobs_and_no_token() -> None:
    outputs = answers(engine_with(max_num_batched_tokens=4), request(max_tokens=0, prompt_logprobs=1, logprobs=1))[0]
    positions = [-entry.logprobs[0] for output in outputs for entry in output.prompt_logprobs or []]
    assert positions == [1, 2, 3, 4, 5]
    assert tokens(outputs) == []
    assert [output.finish_reason for output in outputs] == [None, "length"]


def test_max_tokens_0_may_fill_the_whole_context_with_the_prompt() -> None:
    outputs = answers(engine_with(max_model_len=6), request(max_tokens=0))[0]
    assert outputs[-1].finish_reason == "length"


def test_a_resumed_request_goes_on_after_its_tokens_and_sends_only_new_ones() -> None:
    expected = greedy_tokens(9)
    message = request(max_tokens=9, ignore_eos=True, output_token_ids=expected[:4], prompt_logprobs=1)
    outputs = answers(engine_with(), message)[0]
    assert tokens(outputs) == expected[4:]
    assert outputs[-1].finish_reason == "length"
    assert all(output.prompt_logprobs is None for output in outputs)


def test_a_resumed_request_that_was_complete_ends_at_once() -> None:
    expected = greedy_tokens(3)
    outputs = answers(engine_with(), request(max_tokens=3, ignore_eos=True, output_token_ids=expected))[0]
    assert [(output.token_ids, output.finish_reason) for output in outputs] == [([], "length")]


def test_the_queue_time_is_sent_once_and_runs_from_the_arrival() -> None:
    outputs = answers(engine_with(), request(max_tokens=3, ignore_eos=True, arrival_time=1.0))[0]
    assert outputs[0].queue_seconds is not None
    assert outputs[0].queue_seconds > 1_000_000
    assert [output.queue_seconds for output in outputs[1:]] == [None, None]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (request(prompt=[]), "The prompt is empty."),
        (request(prompt=[3] * 64), "The prompt has 64 tokens; with the output, max_model_len is 64."),
        (
            request(prompt=[3] * 65, max_tokens=0),
            "The prompt has 65 tokens; with the output, max_model_len is 64.",
        ),
        (request(prompt=[3, VOCAB_SIZE]), "A token id is outside of the vocabulary of 64."),
        (request(prompt=[3, -1]), "A token id is outside of the vocabulary of 64."),
        (request(output_token_ids=[VOCAB_SIZE]), "A token id is outside of the vocabulary of 64."),
    ],
)
def test_a_request_that_cannot_be_served_is_answered_with_an_error(message: EngineRequest, error: str) -> None:
    outputs = answers(engine_with(), message, request(1, max_tokens=2, ignore_eos=True))
    assert [(output.finish_reason, output.error) for output in outputs[0]] == [("error", error)]
    assert tokens(outputs[1]) == greedy_tokens(2)


def test_a_key_that_is_in_use_is_an_error_and_free_again_afterwards() -> None:
    engine = engine_with()
    outputs = answers(engine, request(0, max_tokens=2, ignore_eos=True), request(0))[0]
    assert outputs[0].error == "A request with the key 0 is already running."
    assert tokens(outputs) == greedy_tokens(2)
    assert tokens(answers(engine, request(0, max_tokens=2, ignore_eos=True))[0]) == greedy_tokens(2)


def test_equal_keys_of_two_clients_are_two_requests_and_aborts_keep_to_their_client() -> None:
    engine = engine_with()
    for client in (b"a", b"b", b"c"):
        engine.add_request(request(0, max_tokens=9, ignore_eos=True), client)
    assert set(engine.step()) == {b"a", b"b", b"c"}
    engine.abort(b"a", [0, 0, 99])
    assert engine.abort_client(b"c") == [0]
    assert engine.abort_client(b"nobody") == []
    assert set(engine.step()) == {b"b"}
    assert engine.stats().num_running == 1


def test_an_aborted_request_gives_its_blocks_back_at_once() -> None:
    engine = engine_with()
    engine.add_request(request(0, max_tokens=9))
    engine.step()
    engine.abort(b"", [0])
    assert engine.stats().kv_cache_usage == 0
    assert not engine.has_unfinished()
    assert engine.step() == {}


def test_a_step_that_fails_ends_its_requests_with_no_word_of_the_cause_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = PagedModel(num_blocks=32, block_size=4, max_model_len=64)
    engine = EngineCore(model, EngineConfig(model="", max_num_seqs=2))
    for key in range(4):
        engine.add_request(request(key, max_tokens=3, ignore_eos=True))
    model.fail_next_step = True
    with caplog.at_level(logging.ERROR):
        outputs = answers(engine)
    for key in (0, 1):
        assert [(output.finish_reason, output.error) for output in outputs[key]] == [
            ("error", "The engine failed to compute this request.")
        ]
    for key in (2, 3):
        assert tokens(outputs[key]) == greedy_tokens(3)
    assert "the model broke" in caplog.text
    assert engine.stats().kv_cache_usage == 0


def test_what_a_failed_step_wrote_is_shared_with_nobody() -> None:
    model = PagedModel(num_blocks=32, block_size=4, max_model_len=64)
    engine = EngineCore(model, EngineConfig(model=""))
    model.fail_next_step = True
    answers(engine, request(0, max_tokens=3, ignore_eos=True))
    outputs = answers(engine, request(1, max_tokens=3, ignore_eos=True))[1]
    assert tokens(outputs) == greedy_tokens(3)
    assert outputs[0].num_cached_tokens == 0


def test_an_error_of_one_request_ends_only_that_one() -> None:
    model = PagedModel(num_blocks=32, block_size=4, max_model_len=64)
    engine = EngineCore(model, EngineConfig(model=""))
    model.fail_next_request = True
    outputs = answers(engine, *(request(key, max_tokens=3, ignore_eos=True) for key in range(3)))
    assert [output.error for output in outputs[2]] == ["the sampler broke"]
    assert tokens(outputs[0]) == tokens(outputs[1]) == greedy_tokens(3)


def test_max_model_len_is_lowered_to_what_the_cache_holds(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = engine_with(max_model_len=64, num_blocks=5)
    assert "The KV cache holds 20 tokens: max_model_len is lowered from 64 to 20." in caplog.text
    assert engine.describe().max_model_len == 20
    outputs = answers(engine, request(max_tokens=100, ignore_eos=True))[0]
    assert tokens(outputs) == greedy_tokens(14)
    assert outputs[-1].finish_reason == "length"


@pytest.mark.parametrize("limit", ["max_num_seqs", "max_num_batched_tokens"])
def test_a_limit_below_1_is_refused_at_the_start(limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} must be at least 1, got 0"):
        engine_with(**{limit: 0})
