"""The fields that say how tokens are chosen: each changes the answer as it says, in chat as in completions."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.running_server import RunningServer
from tests.sdk_types import read_error

from . import test_http_chat, test_http_completions

PROMPT = "The capital of France is"
AS_IT_IS = "{{ messages[0].content }}"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
DRAWN: dict[str, Any] = {"temperature": 1.6, "seed": 5, "max_tokens": 12, "ignore_eos": True}
EOS, END_OF_TEXT = 2, 0


def complete(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    return test_http_completions.post(server, **{"prompt": PROMPT, **fields})["choices"]


def text(server: RunningServer, **fields: Any) -> str:
    (choice,) = complete(server, **fields)
    return choice["text"]


def chat_texts(server: RunningServer, **fields: Any) -> list[str]:
    """The answers of a chat whose prompt is the same."""
    messages = [{"role": "user", "content": PROMPT}]
    answer = test_http_chat.post(server, messages=messages, chat_template=AS_IT_IS, **fields)
    return [choice["message"]["content"] for choice in answer["choices"]]


def token_id(server: RunningServer, piece: str) -> int:
    """The id of a text that is one token."""
    body = {"prompt": piece, "add_special_tokens": False}
    (found,) = httpx.post(f"{server.url}/tokenize", json=body, headers=server.headers, timeout=60).json()["tokens"]
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1.1},
        {"top_p": 0.5},
        {"top_k": 3},
        {"min_p": 0.3},
        {"presence_penalty": 2.0},
        {"frequency_penalty": -2.0},
        {"repetition_penalty": 1.8},
        {"seed": 6},
        {"stop": ["a", "e"]},
        {"stop": "i", "include_stop_str_in_output": True},
        {"stop_token_ids": list(range(3, 1500))},
        {"skip_special_tokens": False, "ignore_eos": True, "logit_bias": {str(EOS): 5}},
        {"logit_bias": {"77": 9}},
        {"allowed_token_ids": [77, 78, 79, 80]},
        {"bad_words": ["the", "The", "a", "is", "."], "temperature": 1},
        {"truncate_prompt_tokens": 2},
        {"truncate_prompt_tokens": 2, "truncation_side": "right"},
        {"n": 3},
        {"best_of": 3},
        {"n": 2, "best_of": 4},
        {"use_beam_search": True, "temperature": 0, "n": 3},
        {"use_beam_search": True, "temperature": 0, "length_penalty": 3, "ignore_eos": False, "n": 4},
        {"max_tokens": 5},
        {"guided_regex": "[a-z ]{3,9}"},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_a_field_changes_the_answer_and_means_the_same_in_chat(server: RunningServer, fields: dict[str, Any]) -> None:
    texts = [choice["text"] for choice in complete(server, **DRAWN | fields)]
    assert texts != [text(server, **DRAWN)]
    assert chat_texts(server, **DRAWN | fields) == texts


@pytest.mark.parametrize(("field", "value"), [("top_k", 1), ("top_p", 1e-9), ("min_p", 1.0)])
def test_the_narrowest_choice_is_the_most_likely_token(server: RunningServer, field: str, value: float) -> None:
    assert text(server, **DRAWN | {field: value}) == text(server, **DRAWN | {"temperature": 0})


def test_the_widest_choice_is_that_of_the_defaults(server: RunningServer) -> None:
    widest = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "n": 1}
    nothing = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "stop": [], "stop_token_ids": [], "bad_words": []}
    assert text(server, **DRAWN | widest | nothing) == text(server, **DRAWN) == text(server, **DRAWN, top_k=0)
    assert text(server, **DRAWN | {"temperature": None}) == text(server, **DRAWN | {"temperature": 1.0})


def test_temperature_of_chat_is_1_where_nobody_says_otherwise(server: RunningServer) -> None:
    silent = {name: value for name, value in DRAWN.items() if name != "temperature"}
    assert chat_texts(server, **silent, temperature=None) == chat_texts(server, **silent, temperature=1.0)
    assert chat_texts(server, **silent, temperature=None) != chat_texts(server, **silent, temperature=0.7)


def test_answers_without_a_draw_are_equal(server: RunningServer) -> None:
    choices = complete(server, n=3, **GREEDY)
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert {choice["text"] for choice in choices} == {text(server, **GREEDY)}
    assert set(chat_texts(server, n=3, **GREEDY)) == {text(server, **GREEDY)}


def test_a_seed_of_minus_1_is_none(server: RunningServer) -> None:
    answers = {text(server, **DRAWN | {"seed": -1}) for _ in range(3)}
    assert len(answers) == 3


@pytest.mark.parametrize("seed", [0, 2**63 - 1, -(2**63)])
def test_every_seed_of_64_bits_is_one(server: RunningServer, seed: int) -> None:
    assert text(server, **DRAWN | {"seed": seed}) == text(server, **DRAWN | {"seed": seed})


@pytest.mark.parametrize("field", ["n", "best_of"])
def test_16384_answers_are_the_most(server: RunningServer, field: str) -> None:
    for number, param in ((16_384, "temperature"), (16_385, field)):  # it is looked at before the temperature
        body = {"prompt": PROMPT, field: number, "temperature": 3}
        error = read_error(httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60))
        assert (error.code, error.type, error.param) == (400, "BadRequestError", param)


def test_ignored_ends_are_passed_by(server: RunningServer) -> None:
    (ended,) = complete(server, **GREEDY)
    (ignored,) = complete(server, ignore_eos=True, **GREEDY)
    assert (ended["finish_reason"], ended["stop_reason"]) == ("stop", None)
    assert ignored["finish_reason"] == "length"
    assert ignored["text"].startswith(ended["text"])
    assert chat_texts(server, ignore_eos=True, **GREEDY) == [ignored["text"]]


def test_special_tokens_are_shown_where_they_are_not_skipped(server: RunningServer) -> None:
    fields = {"ignore_eos": True, "logit_bias": {str(EOS): 100}, "max_tokens": 2, "temperature": 0}
    assert text(server, **fields) == ""
    assert text(server, skip_special_tokens=False, **fields) == "<|im_end|>" * 2
    for spaces in (True, False):  # no tokenizer whose tokens are bytes puts any
        shown = text(server, skip_special_tokens=False, spaces_between_special_tokens=spaces, **fields)
        assert shown == "<|im_end|>" * 2


def test_a_stop_string_is_shown_where_it_is_to_be_included(server: RunningServer) -> None:
    for included, expected in ((False, " Par"), (True, " Paris")):
        (choice,) = complete(server, stop=["nowhere", "is"], include_stop_str_in_output=included, **GREEDY)
        assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (expected, "stop", "is")


def test_64_stop_strings_are_taken(server: RunningServer) -> None:
    stop = [*(f"never {number}" for number in range(63)), "is"]
    assert complete(server, stop=stop, **GREEDY)[0]["stop_reason"] == "is"


@pytest.mark.parametrize("num_tokens", [1, 9])
def test_before_min_tokens_nothing_ends_an_answer(server: RunningServer, num_tokens: int) -> None:
    dot = token_id(server, ".")
    ends = {"stop_token_ids": [dot], "logit_bias": {str(each): 100 for each in (EOS, END_OF_TEXT, dot)}}
    fields = {**GREEDY, **ends, "min_tokens": num_tokens, "return_token_ids": True}
    (choice,) = complete(server, **fields)
    assert len(choice["token_ids"]) == num_tokens + 1
    assert choice["token_ids"][-1] in (EOS, END_OF_TEXT, dot)
    assert not {EOS, END_OF_TEXT, dot} & set(choice["token_ids"][:-1])
    (bare,) = complete(server, **fields | {"min_tokens": 0})
    assert len(bare["token_ids"]) == 1


def test_before_min_tokens_no_stop_string_is_looked_for(server: RunningServer) -> None:
    fields = {**GREEDY, "ignore_eos": True, "stop": ["is", "ines"]}
    assert complete(server, **fields)[0]["stop_reason"] == "is"
    (late,) = complete(server, min_tokens=4, **fields)
    assert late["stop_reason"] == "ines"
    assert " Paris" in late["text"]


def test_bad_words_come_neither_with_nor_without_a_space(server: RunningServer) -> None:
    spellings = {token_id(server, "day"), token_id(server, " day")}
    fields = {**GREEDY, "logit_bias": dict.fromkeys(map(str, spellings), 100), "return_token_ids": True}
    assert spellings & set(complete(server, **fields)[0]["token_ids"])
    for word in ("day", " day"):
        assert not spellings & set(complete(server, bad_words=[word], **fields)[0]["token_ids"])


def test_of_a_bad_word_of_several_tokens_the_last_is_forbidden(server: RunningServer) -> None:
    ids = [token_id(server, piece) for piece in ("a", "b")]
    fields = {**GREEDY, "allowed_token_ids": ids, "ignore_eos": True, "max_tokens": 8, "temperature": 2, "n": 8}
    assert any("ab" in choice["text"] for choice in complete(server, seed=1, **fields))
    banned = [choice["text"] for choice in complete(server, seed=1, bad_words=["abb"], **fields)]
    assert not any("abb" in each for each in banned)
    assert any("ab" in each for each in banned)


def test_a_search_takes_each_way_to_end_early(server: RunningServer) -> None:
    found = [
        complete(server, use_beam_search=True, early_stopping=early, n=2, best_of=4, **GREEDY)
        for early in (True, False, "never", None)
    ]
    assert found[1] == found[3]
    assert all(len(choices) == 2 for choices in found)


@pytest.mark.parametrize("penalty", [-2, 0, 1])
def test_ended_beams_are_ranked_by_the_length_penalty(server: RunningServer, penalty: float) -> None:
    choices = complete(server, use_beam_search=True, length_penalty=penalty, n=6, logprobs=0, **GREEDY)
    lengths = [len(choice["logprobs"]["tokens"]) for choice in choices]
    assert len(set(lengths)) > 1
    scores = [sum(c["logprobs"]["token_logprobs"]) / n**penalty for c, n in zip(choices, lengths, strict=True)]
    assert scores == sorted(scores, reverse=True)


def test_logprobs_are_the_models_own_whatever_is_drawn_from(server: RunningServer) -> None:
    fields = {"logprobs": 5, "max_tokens": 1, "seed": 1, "return_tokens_as_token_ids": True}
    (plain,) = complete(server, **fields)
    likeliest = dict(list(plain["logprobs"]["top_logprobs"][0].items())[:5])
    for changed in (
        {"temperature": 0.2},
        {"temperature": 0, "logit_bias": {"77": 100}},
        {"top_k": 1},
        {"presence_penalty": 2, "repetition_penalty": 2},
        {"allowed_token_ids": [78, 79]},
        {"guided_choice": ["xyz"]},
    ):
        (choice,) = complete(server, **fields | changed)
        assert likeliest.items() <= choice["logprobs"]["top_logprobs"][0].items()


def test_the_end_of_the_context_ends_an_answer_with_length(server: RunningServer) -> None:
    limit = httpx.get(f"{server.url}/v1/models/demo", headers=server.headers, timeout=60).json()["max_model_len"]
    prompt = [5 + number % 90 for number in range(limit - 6)]
    fields = {"prompt": prompt, "ignore_eos": True, "temperature": 0}
    answer = test_http_completions.post(server, max_tokens=limit, **fields)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == limit
    stream = test_http_completions.events(server, max_tokens=limit, stream_options={"include_usage": True}, **fields)
    assert stream[-1]["usage"] == answer["usage"]
    assert stream[-2]["choices"][0]["finish_reason"] == "length"


def test_a_chat_without_a_limit_fills_the_context(server: RunningServer) -> None:
    limit = httpx.get(f"{server.url}/v1/models/demo", headers=server.headers, timeout=60).json()["max_model_len"]
    messages = [{"role": "user", "content": "a " * (limit - 200)}]
    fields = {"messages": messages, "chat_template": AS_IT_IS, "ignore_eos": True, "max_tokens": None}
    answer = test_http_chat.post(server, **fields)
    assert answer["usage"]["total_tokens"] == limit
    assert answer["choices"][0]["finish_reason"] == "length"
