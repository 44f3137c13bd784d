"""Requests reach the engine complete, and nothing that the model cannot do reaches it at all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.server import tiny_tokenizers
from zqserve.engine_core.errors import InvalidRequestError
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.tokenizer import Tokenizer
from zqserve.server.engine_link.input_processor import InputProcessor, Prompt, TruncationSide
from zqserve.server.engine_link.model_info import ModelInfo

VOCAB_SIZE = 512
MAX_MODEL_LEN = 32


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny_tokenizers.byte_level(tmp_path_factory.mktemp("tokenizer"))


def make_processor(tokenizer: Tokenizer, **options: Any) -> InputProcessor:
    model = ModelInfo("model", "Llama", MAX_MODEL_LEN, [2, 0], VOCAB_SIZE, {})
    return InputProcessor(model, tokenizer, **options)


@pytest.fixture(scope="module")
def processor(tokenizer: Tokenizer) -> InputProcessor:
    return make_processor(tokenizer)


def test_every_answer_is_a_request_that_differs_in_its_sample_index(processor: InputProcessor) -> None:
    params = SamplingParams(n=2, best_of=3, seed=5, max_tokens=4)
    requests = processor.requests(Prompt([7, 8]), params, first_key=10, priority=3, cache_salt="s")
    assert [(r.key, r.sample_index) for r in requests] == [(10, 0), (11, 1), (12, 2)]
    for request in requests:
        assert request.prompt_token_ids == [7, 8]
        assert request.params.seed == 5
        assert request.eos_token_ids == [2, 0]
        assert (request.priority, request.cache_salt) == (3, "s")
        assert request.arrival_time > 0


def test_a_request_without_a_seed_is_given_one_for_all_its_answers(processor: InputProcessor) -> None:
    seeds = [{r.params.seed for r in processor.requests(Prompt([1]), SamplingParams(n=3))} for _ in range(2)]
    assert [len(seed) for seed in seeds] == [1, 1]
    assert seeds[0] != seeds[1]
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds[0] | seeds[1])


def test_candidates_are_ranked_by_logprobs_that_nobody_asked_for(processor: InputProcessor) -> None:
    (first, _) = processor.requests(Prompt([1]), SamplingParams(n=1, best_of=2))
    assert first.params.logprobs == 0
    (only,) = processor.requests(Prompt([1]), SamplingParams())
    assert only.params.logprobs is None


def test_prompt_logprobs_are_computed_once(processor: InputProcessor) -> None:
    requests = processor.requests(Prompt([1, 2]), SamplingParams(n=2, prompt_logprobs=3))
    assert [r.params.prompt_logprobs for r in requests] == [3, None]


def test_output_ends_with_the_context(processor: InputProcessor) -> None:
    for max_tokens, expected in ((None, 22), (30, 22), (5, 5), (0, 0)):
        (request,) = processor.requests(Prompt([1] * 10), SamplingParams(max_tokens=max_tokens))
        assert request.params.max_tokens == expected


@pytest.mark.parametrize("length", [MAX_MODEL_LEN, MAX_MODEL_LEN + 5])
def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(length: int, processor: InputProcessor) -> None:
    with pytest.raises(InvalidRequestError, match=rf"{MAX_MODEL_LEN} tokens.*{length} tokens"):
        processor.requests(Prompt([1] * length), SamplingParams())


def test_a_full_context_can_be_scored_without_generating(processor: InputProcessor) -> None:
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    (request,) = processor.requests(Prompt([1] * MAX_MODEL_LEN), params)
    assert request.params.max_tokens == 0


def test_a_hopelessly_long_text_is_refused_without_tokenising_it(processor: InputProcessor) -> None:
    with pytest.raises(InvalidRequestError, match=r"32 tokens.*1000000 characters"):
        processor.encode_prompt_now("x" * 1_000_000)


@pytest.mark.parametrize(
    ("params", "param", "words"),
    [
        ({"max_tokens": 33}, "max_tokens", "33.*32"),
        ({"stop_token_ids": [VOCAB_SIZE]}, "stop_token_ids", "512.*511"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids", "-1"),
        ({"logit_bias": {"9999": 1.0}}, "logit_bias", "9999"),
        ({"logprobs": 21}, "logprobs", "20.*21"),
        ({"logprobs": -1}, "logprobs", "20"),
        ({"prompt_logprobs": 21}, "prompt_logprobs", "20.*21"),
    ],
)
def test_what_the_model_has_not_is_refused(
    params: dict[str, Any], param: str, words: str, processor: InputProcessor
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as error:
        processor.requests(Prompt([1]), SamplingParams(**params))
    assert error.value.param == param


def test_the_whole_vocabulary_is_told_where_the_server_allows_it(tokenizer: Tokenizer) -> None:
    processor = make_processor(tokenizer, max_logprobs=-1)
    for logprobs in (-1, VOCAB_SIZE):
        (request,) = processor.requests(Prompt([1]), SamplingParams(logprobs=logprobs))
        assert request.params.logprobs == logprobs
    with pytest.raises(InvalidRequestError):
        processor.requests(Prompt([1]), SamplingParams(logprobs=VOCAB_SIZE + 1))


@pytest.mark.parametrize("prompt", ["", []])
def test_an_empty_prompt_is_refused(prompt: Any, processor: InputProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="empty") as error:
        processor.encode_prompt_now(prompt)
    assert error.value.param == "prompt"


def test_a_prompt_of_ids_outside_of_the_vocabulary_is_refused(processor: InputProcessor) -> None:
    with pytest.raises(InvalidRequestError, match=r"600.*511") as error:
        processor.encode_prompt_now([1, 600])
    assert error.value.param == "prompt"


def test_truncation_keeps_the_last_tokens_and_their_text(processor: InputProcessor, tokenizer: Tokenizer) -> None:
    text = "The quick brown fox jumps over"
    token_ids = tokenizer.encode(text)
    assert len(token_ids) > 4
    last = processor.encode_prompt_now(text, truncate_prompt_tokens=3)
    assert last.token_ids == token_ids[-3:]
    assert last.text == tokenizer.decode(token_ids[-3:])
    first = processor.encode_prompt_now(text, truncate_prompt_tokens=3, truncation_side="right")
    assert first.token_ids == token_ids[:3]
    assert processor.encode_prompt_now(text, truncate_prompt_tokens=30).text == text
    assert processor.encode_prompt_now(list(range(3, 9)), truncate_prompt_tokens=2) == Prompt([7, 8])


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_keeps_the_token_that_begins_every_text(tmp_path: Path, side: TruncationSide) -> None:
    tokenizer = tiny_tokenizers.sentencepiece(tmp_path)
    processor = make_processor(tokenizer)
    (begin,) = tokenizer.encode("")
    _, *text = tokenizer.encode("The quick brown fox jumps over")
    for limit in (1, 2, 4):
        kept = text[len(text) - limit + 1 :] if side == "left" else text[: limit - 1]
        prompt = processor.encode_prompt_now(
            "The quick brown fox jumps over", truncate_prompt_tokens=limit, truncation_side=side
        )
        assert prompt.token_ids == [begin, *kept]
    plain = processor.encode_prompt_now("The quick brown fox", add_special_tokens=False, truncate_prompt_tokens=2)
    assert plain.token_ids == tokenizer.encode("The quick brown fox", add_special_tokens=False)[-2:]


def test_truncation_to_the_context_leaves_room_for_an_answer(processor: InputProcessor) -> None:
    prompt = processor.encode_prompt_now("x y z " * 10_000, truncate_prompt_tokens=-1)
    (request,) = processor.requests(prompt, SamplingParams())
    assert len(request.prompt_token_ids) == MAX_MODEL_LEN - 1
    with pytest.raises(InvalidRequestError, match=r"32.*33"):
        processor.encode_prompt_now("x", truncate_prompt_tokens=33)


def test_a_long_text_gives_the_same_ids_in_a_thread(processor: InputProcessor, tokenizer: Tokenizer) -> None:
    text = "The end. " * 2000
    prompt = asyncio.run(processor.encode_prompt(text, truncate_prompt_tokens=10))
    assert prompt.token_ids == tokenizer.encode(text)[-10:]
    assert asyncio.run(processor.tokenize(text)) == tokenizer.encode(text)
    assert asyncio.run(processor.tokenize("")) == []


def test_bad_words_are_banned_with_and_without_a_space_before_them(
    processor: InputProcessor, tokenizer: Tokenizer
) -> None:
    (request,) = processor.requests(Prompt([1]), SamplingParams(bad_words=["fox", " the"]))
    texts = sorted(tokenizer.decode(ids) for ids in request.bad_words_token_ids)
    assert texts == [" fox", " the", "fox", "the"]
    assert not request.params.bad_words


def test_added_bos_counts_and_can_be_left_out(tmp_path: Path) -> None:
    processor = make_processor(tiny_tokenizers.sentencepiece(tmp_path))
    with_bos = processor.encode_prompt_now("fox").token_ids
    assert processor.encode_prompt_now("fox", add_special_tokens=False).token_ids == with_bos[1:]
    assert with_bos[0] == 1
