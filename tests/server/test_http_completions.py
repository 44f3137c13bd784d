"""POST /v1/completions through the OpenAI SDK and on the wire."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.running_server import RunningServer
from tests.sdk_types import read_completion, read_completion_event, read_error

PROMPT = "Question: What is the capital of France?\nAnswer:"


@pytest.fixture(scope="module")
def client(server: RunningServer) -> OpenAI:
    return server.openai()


def post(server: RunningServer, **body: Any) -> dict[str, Any]:
    response = httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60)
    assert response.status_code == 200, response.text
    read_completion(response.json())
    return response.json()


def events(server: RunningServer, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream; checks each of them, and that it ends with `[DONE]` and nothing behind it."""
    url = f"{server.url}/v1/completions"
    response = httpx.post(url, json={**body, "stream": True}, headers=server.headers, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    found = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    for event in found:
        read_completion_event(event)
    return found


def test_answer_has_the_shape_of_the_api(server: RunningServer) -> None:
    answer = post(server, prompt=PROMPT, max_tokens=4, temperature=0, ignore_eos=True)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert answer["model"] == "demo"
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 4
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["text"]
    assert (choice["finish_reason"], choice["stop_reason"], choice["logprobs"]) == ("length", None, None)


def test_max_tokens_is_16_where_nothing_is_said(server: RunningServer) -> None:
    assert post(server, prompt=PROMPT, ignore_eos=True)["usage"]["completion_tokens"] == 16


def test_every_name_is_answered_and_the_first_stands_in_the_answers(client: OpenAI) -> None:
    for name in ("demo", "alias"):
        assert client.completions.create(model=name, prompt=PROMPT, max_tokens=1).model == "demo"


def test_stream_joins_to_the_unary_text_under_one_id(client: OpenAI) -> None:
    whole = client.completions.create(model="demo", prompt=PROMPT, max_tokens=12, temperature=0)
    chunks = list(client.completions.create(model="demo", prompt=PROMPT, max_tokens=12, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert len({(chunk.id, chunk.created, chunk.object, chunk.model) for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] == whole.choices[0].finish_reason
    assert set(reasons[:-1]) <= {None}


def test_stream_event_has_exactly_the_keys_of_the_api(server: RunningServer) -> None:
    first = events(server, prompt=PROMPT, max_tokens=3, temperature=0, ignore_eos=True)[0]
    assert list(first) == ["id", "object", "created", "model", "choices"]
    assert list(first["choices"][0]) == ["index", "text", "logprobs", "finish_reason", "stop_reason"]


def test_usage_event_comes_last_and_has_no_choices(server: RunningServer) -> None:
    stream = events(server, prompt=PROMPT, max_tokens=3, ignore_eos=True, stream_options={"include_usage": True})
    *text_events, last = stream
    assert all(event["usage"] is None for event in text_events)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 3


def test_continuous_usage_counts_the_tokens_of_each_choice(server: RunningServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *text_events, last = events(
        server, prompt=PROMPT, max_tokens=4, n=2, seed=5, ignore_eos=True, stream_options=options
    )
    for index in (0, 1):
        counts = [e["usage"]["completion_tokens"] for e in text_events if e["choices"][0]["index"] == index]
        assert counts == sorted(counts)
        assert counts[-1] == 4
    assert last["usage"]["completion_tokens"] == 8


def test_stream_interval_puts_tokens_together(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 9, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    stream = events(server, stream_interval=4, **arguments)
    lengths = [len(event["choices"][0]["token_ids"]) for event in stream]
    assert sum(lengths) == 9
    assert all(length >= 4 for length in lengths[:-1])  # more where the front-end takes in two steps at once
    whole = post(server, **arguments)["choices"][0]
    assert "".join(event["choices"][0]["text"] for event in stream) == whole["text"]
    assert [token_id for event in stream for token_id in event["choices"][0]["token_ids"]] == whole["token_ids"]


def test_prompts_may_be_texts_or_token_ids(server: RunningServer) -> None:
    texts = ["Question: What is the capital of France?", "The opposite of hot is"]
    ids = [
        httpx.post(f"{server.url}/tokenize", json={"prompt": text}, headers=server.headers, timeout=60).json()["tokens"]
        for text in texts
    ]
    arguments = {"max_tokens": 5, "temperature": 0}
    of_texts = post(server, prompt=texts, **arguments)
    of_ids = post(server, prompt=ids, **arguments)
    assert [choice["text"] for choice in of_texts["choices"]] == [choice["text"] for choice in of_ids["choices"]]
    assert of_texts["usage"] == of_ids["usage"]
    assert of_texts["usage"]["prompt_tokens"] == sum(map(len, ids))
    alone = [post(server, prompt=prompt, **arguments)["choices"][0]["text"] for prompt in (texts[0], ids[1])]
    assert [choice["text"] for choice in of_texts["choices"]] == alone


def test_index_is_prompt_times_n_plus_sample_and_prompts_count_once(server: RunningServer) -> None:
    prompts = [PROMPT, "The opposite of hot is"]
    arguments = {"max_tokens": 3, "n": 2, "seed": 1, "ignore_eos": True}
    both = post(server, prompt=prompts, **arguments)
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    alone = [post(server, prompt=prompt, **arguments) for prompt in prompts]
    assert [choice["text"] for choice in both["choices"]] == [c["text"] for a in alone for c in a["choices"]]
    assert both["usage"]["prompt_tokens"] == sum(a["usage"]["prompt_tokens"] for a in alone)
    assert both["usage"]["completion_tokens"] == 12
    streamed = [""] * 4
    ends = []
    for event in events(server, prompt=prompts, **arguments):
        (choice,) = event["choices"]
        streamed[choice["index"]] += choice["text"]
        ends += [choice["index"]] if choice["finish_reason"] else []
    assert streamed == [choice["text"] for choice in both["choices"]]
    assert sorted(ends) == [0, 1, 2, 3]


def test_best_of_returns_the_best_candidates(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 6, "temperature": 1.5, "seed": 3, "logprobs": 0, "ignore_eos": True}
    candidates = post(server, n=6, **arguments)["choices"]
    best = sorted((sum(c["logprobs"]["token_logprobs"]) for c in candidates), reverse=True)[:2]
    answer = post(server, n=2, best_of=6, **arguments)
    sums = [sum(choice["logprobs"]["token_logprobs"]) for choice in answer["choices"]]
    assert sums == pytest.approx(best, abs=1e-4)
    assert answer["usage"]["completion_tokens"] == 36


def test_stop_string_ends_the_answer_and_is_named(server: RunningServer) -> None:
    text = post(server, prompt=PROMPT, max_tokens=12, temperature=0, ignore_eos=True)["choices"][0]["text"]
    stop = text[len(text) // 2 :][:3]
    choice = post(server, prompt=PROMPT, max_tokens=12, temperature=0, ignore_eos=True, stop=[stop])["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    stream = events(server, prompt=PROMPT, max_tokens=12, temperature=0, ignore_eos=True, stop=stop)
    assert "".join(event["choices"][0]["text"] for event in stream) == choice["text"]
    assert stream[-1]["choices"][0]["stop_reason"] == stop


def test_stop_token_id_ends_the_answer_and_is_named(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    ids = post(server, return_token_ids=True, **arguments)["choices"][0]["token_ids"]
    choice = post(server, stop_token_ids=[ids[2]], **arguments)["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ids[2])


def test_echo_puts_the_prompt_in_front_unary_and_streamed(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 4, "temperature": 0}
    plain = post(server, **arguments)["choices"][0]["text"]
    assert post(server, echo=True, **arguments)["choices"][0]["text"] == PROMPT + plain
    stream = events(server, echo=True, **arguments)
    assert stream[0]["choices"][0]["text"].startswith(PROMPT)
    assert "".join(event["choices"][0]["text"] for event in stream) == PROMPT + plain


def test_echo_of_no_tokens_gives_the_prompt_and_its_logprobs(server: RunningServer) -> None:
    answer = post(server, prompt=PROMPT, echo=True, max_tokens=0, logprobs=2)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (PROMPT, "length")
    assert answer["usage"]["completion_tokens"] == 0
    logprobs = choice["logprobs"]
    num_tokens = answer["usage"]["prompt_tokens"]
    assert [len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == (
        [num_tokens] * 4
    )
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(logprob <= 0 for logprob in logprobs["token_logprobs"][1:])


def test_text_offsets_point_at_the_tokens_in_an_echoed_answer(server: RunningServer) -> None:
    choice = post(server, prompt=PROMPT, echo=True, max_tokens=5, temperature=0, logprobs=0)["choices"][0]
    logprobs = choice["logprobs"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        shown = choice["text"][offset : offset + len(token)]
        assert shown in (token, ""), (token, offset)  # a special token has no text


@pytest.mark.parametrize("count", [0, 1, 5])
def test_logprobs_are_parallel_lists_that_hold_the_chosen_token(server: RunningServer, count: int) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 4, "temperature": 1.3, "seed": 11, "logprobs": count}
    logprobs = post(server, **arguments)["choices"][0]["logprobs"]
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top[token] == logprob
        assert max(count, 1) <= len(top) <= count + 1
    joined: dict[str, list[Any]] = {name: [] for name in logprobs}
    for event in events(server, **arguments):
        for name, values in (event["choices"][0]["logprobs"] or {}).items():
            joined[name] += values
    assert joined == logprobs


def test_tokens_may_be_written_as_ids(server: RunningServer) -> None:
    choice = post(
        server, prompt=PROMPT, max_tokens=3, logprobs=1, return_tokens_as_token_ids=True, return_token_ids=True
    )["choices"][0]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token_id}" for token_id in choice["token_ids"]]


def test_prompt_logprobs_have_an_entry_for_each_token(server: RunningServer) -> None:
    choice = post(server, prompt=PROMPT, max_tokens=1, prompt_logprobs=2, return_token_ids=True)["choices"][0]
    assert len(choice["prompt_logprobs"]) == len(choice["prompt_token_ids"])
    assert choice["prompt_logprobs"][0] is None
    for token_id, entries in zip(choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:], strict=True):
        chosen = entries[str(token_id)]
        assert set(chosen) == {"logprob", "rank", "decoded_token"}
        assert 2 <= len(entries) <= 3
        by_rank = sorted(entries.values(), key=lambda entry: entry["rank"])
        assert [entry["logprob"] for entry in by_rank] == sorted((e["logprob"] for e in by_rank), reverse=True)


def test_sample_of_a_seed_is_the_same_again_and_streamed(server: RunningServer) -> None:
    arguments = {"prompt": "Once upon a time", "max_tokens": 20, "temperature": 1.2, "seed": 42, "n": 2}
    first = [choice["text"] for choice in post(server, **arguments)["choices"]]
    assert first[0] != first[1]
    assert [choice["text"] for choice in post(server, **arguments)["choices"]] == first
    streamed = ["", ""]
    for event in events(server, **arguments):
        streamed[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert streamed == first


def test_logit_bias_and_allowed_tokens_steer_the_choice(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 3, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
    assert post(server, logit_bias={"77": 100}, **arguments)["choices"][0]["token_ids"] == [77] * 3
    assert post(server, allowed_token_ids=[78], **arguments)["choices"][0]["token_ids"] == [78] * 3


def test_truncated_prompt_keeps_its_end(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 1, "return_token_ids": True}
    whole = post(server, **arguments)["choices"][0]["prompt_token_ids"]
    cut = post(server, truncate_prompt_tokens=3, **arguments)
    assert cut["usage"]["prompt_tokens"] == 3
    assert cut["choices"][0]["prompt_token_ids"] == whole[-3:]


def test_request_id_of_header_or_body_becomes_part_of_the_answer_id(server: RunningServer) -> None:
    headers = {**server.headers, "x-request-id": "of header"}
    body = {"prompt": PROMPT, "max_tokens": 1}
    response = httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=60)
    assert response.headers["x-request-id"] == "ofheader"
    assert response.json()["id"] == "cmpl-ofheader"
    assert post(server, request_id="of-body", **body)["id"] == "cmpl-of-body"
    assert post(server, request_id='of "body"\n', **body)["id"] == "cmpl-ofbody"
    assert post(server, request_id="x" * 500, **body)["id"] == "cmpl-" + "x" * 128


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain; charset=latin-1", "image/png", ""])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": PROMPT, "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "é"}], "max_tokens": 1}),
        ("/tokenize", {"prompt": PROMPT}),
    ],
)
def test_body_is_read_as_json_whatever_its_content_type(
    server: RunningServer, path: str, body: dict[str, Any], kind: str
) -> None:
    headers = {**server.headers, "content-type": kind}
    assert httpx.post(server.url + path, content=json.dumps(body), headers=headers, timeout=60).status_code == 200


def test_null_is_the_same_as_absent_and_unknown_fields_are_let_pass(server: RunningServer) -> None:
    nulls = dict.fromkeys(("n", "temperature", "top_p", "stop", "logprobs", "stream", "seed", "suffix", "tools"))
    answer = post(server, prompt=PROMPT, max_tokens=1, use_beam_search=False, something_new={"a": 1}, **nulls)
    assert len(answer["choices"]) == 1


def test_whole_answer_has_exactly_the_keys_of_the_api(server: RunningServer) -> None:
    answer = post(server, prompt=PROMPT, max_tokens=None, ignore_eos=True)
    assert list(answer) == [
        *("id", "object", "created", "model", "choices", "usage"),
        *("system_fingerprint", "service_tier"),
    ]
    assert (answer["system_fingerprint"], answer["service_tier"]) == (None, None)
    assert list(answer["choices"][0]) == ["index", "text", "logprobs", "finish_reason", "stop_reason"]
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert answer["usage"]["completion_tokens"] == 16


def test_as_many_logprobs_as_the_limit_says_are_told(server: RunningServer) -> None:
    (choice,) = post(server, prompt=PROMPT, max_tokens=1, logprobs=20, prompt_logprobs=20, temperature=0)["choices"]
    assert len(choice["logprobs"]["top_logprobs"][0]) == 20
    assert all(len(entries) in (20, 21) for entries in choice["prompt_logprobs"][1:])
    for field, number in itertools.product(("logprobs", "prompt_logprobs"), (21, -1)):
        body = {"prompt": PROMPT, "max_tokens": 1, field: number}
        error = read_error(httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60))
        assert (error.code, error.type, error.param) == (400, "BadRequestError", field)
        assert f"{field} must be at most 20 (max_logprobs), got {number}" in error.message


@pytest.mark.parametrize("options", [None, {}, {"include_usage": None}, {"include_usage": False}])
def test_usage_is_streamed_only_where_it_is_asked_for(server: RunningServer, options: dict[str, Any] | None) -> None:
    stream = events(server, prompt=PROMPT, max_tokens=2, ignore_eos=True, stream_options=options)
    assert not any("usage" in event for event in stream)
    assert all(event["choices"] for event in stream)


def test_streamed_token_ids_join_and_the_first_event_has_those_of_the_prompt(server: RunningServer) -> None:
    arguments = {"prompt": PROMPT, "max_tokens": 6, "n": 2, "seed": 4, "ignore_eos": True, "return_token_ids": True}
    whole = post(server, **arguments)["choices"]
    stream = [event["choices"][0] for event in events(server, **arguments)]
    for choice in whole:
        first, *others = [piece for piece in stream if piece["index"] == choice["index"]]
        assert first["prompt_token_ids"] == choice["prompt_token_ids"]
        assert not any("prompt_token_ids" in piece for piece in others)
        assert [token_id for piece in [first, *others] for token_id in piece["token_ids"]] == choice["token_ids"]


def test_streamed_answers_to_several_prompts_each_begin_with_their_own(server: RunningServer) -> None:
    arguments = {"prompt": [PROMPT, "Once"], "n": 2, "echo": True, "max_tokens": 5, "seed": 2, "logprobs": 1}
    whole = post(server, **arguments)["choices"]
    stream = [event["choices"][0] for event in events(server, **arguments)]
    for choice in whole:
        pieces = [piece for piece in stream if piece["index"] == choice["index"]]
        assert pieces[0]["text"].startswith(arguments["prompt"][choice["index"] // 2])
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert [piece["finish_reason"] for piece in pieces if piece["finish_reason"]] == [choice["finish_reason"]]
        for name, values in choice["logprobs"].items():
            assert [value for piece in pieces for value in (piece["logprobs"] or {name: []})[name]] == values


def test_salts_have_at_most_128_characters(server: RunningServer) -> None:
    longest = {"prompt": PROMPT, "max_tokens": 1, "cache_salt": "é" * 128}
    assert post(server, **longest)["choices"]
    body = {**longest, "cache_salt": "é" * 129}
    error = read_error(httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60))
    assert (error.code, error.type, error.param) == (400, "BadRequestError", "cache_salt")
    assert "128" in error.message
