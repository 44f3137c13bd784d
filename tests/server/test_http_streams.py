"""Streams: what is held back, what ends one that fails, many at once, and clients that leave."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer
from tests.sdk_types import NumberedError

from . import test_http_chat, test_http_completions

NUM_STREAMS = 64
NUM_ANSWERS = 32


def arguments(number: int) -> dict[str, Any]:
    return {
        "model": "demo",
        "prompt": f"Question {number}: What is the capital of France?",
        "max_tokens": 8 + number % 9,
        "temperature": 0.0 if number % 2 else 1.1,
        "seed": number,
    }


def test_many_streams_at_once_equal_their_unary_twins(server: RunningServer) -> None:
    async def run() -> tuple[list[str], list[str]]:
        client = server.async_openai()

        async def unary(number: int) -> str:
            return (await client.completions.create(**arguments(number))).choices[0].text

        async def streamed(number: int) -> str:
            stream = await client.completions.create(stream=True, **arguments(number))
            return "".join([chunk.choices[0].text async for chunk in stream])

        streams = await asyncio.gather(*(streamed(number) for number in range(NUM_STREAMS)))
        twins = [await unary(number) for number in range(NUM_STREAMS)]
        return streams, twins

    streams, twins = asyncio.run(run())
    assert streams == twins


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_client_that_leaves_ends_its_request(server: RunningServer, stream: bool) -> None:
    limit = httpx.get(f"{server.url}/v1/models/demo", headers=server.headers, timeout=60).json()["max_model_len"]
    body = {"prompt": "Hello", "n": NUM_ANSWERS, "ignore_eos": True, "max_tokens": limit - 50, "stream": stream}
    before = metric(server, "generation_tokens_total")
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), server.headers)
    wait_until(lambda: metric(server, "generation_tokens_total") > before)
    connection.close()
    wait_until(lambda: metric(server, "num_requests_running") == 0)
    assert metric(server, "generation_tokens_total") - before < NUM_ANSWERS * (limit - 50)


def test_the_beginning_of_a_stop_string_is_told_once_it_is_none(server: RunningServer) -> None:
    fields = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 6, "return_token_ids": True}
    whole = test_http_completions.post(server, **fields)["choices"][0]
    assert whole["text"] == " Paris."
    *before, last = test_http_completions.events(server, stop=[" Paris!", ". And", "x"], **fields)
    shown, num_tokens = "", 0
    for event in before:
        shown += event["choices"][0]["text"]
        num_tokens += len(event["choices"][0]["token_ids"])
        assert shown in ("", " Paris")
        assert not shown or num_tokens >= 2  # the next token told that it was no " Paris!"
    assert shown + last["choices"][0]["text"] == whole["text"]  # the end told that it was no ". And"
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["stop_reason"]) == ("stop", None)


def test_no_event_holds_half_a_character_and_logprobs_have_the_bytes(server: RunningServer) -> None:
    written = "😀é日本"
    fields = {"guided_choice": [written], "logprobs": True, "max_tokens": 40, "temperature": 1}
    whole = test_http_chat.post(server, **fields)["choices"][0]
    assert whole["message"]["content"] == written
    entries = whole["logprobs"]["content"]
    assert len(entries) > len(written)
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == written
    pieces = [event["choices"][0]["delta"].get("content", "") for event in test_http_chat.events(server, **fields)]
    assert "".join(pieces) == written
    assert not any("\ufffd" in piece for piece in pieces)
    stream = test_http_completions.events(server, prompt="Draw:", guided_choice=[written], max_tokens=40, logprobs=0)
    texts = [event["choices"][0]["text"] for event in stream]
    assert "".join(texts) == written
    assert not any("\ufffd" in text for text in texts)


def test_a_character_that_the_limit_cuts_is_shown_as_one_that_is_broken(server: RunningServer) -> None:
    fields = {"prompt": "Draw:", "guided_choice": ["é😀"], "max_tokens": 4}
    (choice,) = test_http_completions.post(server, **fields)["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("é\ufffd", "length")
    stream = [event["choices"][0] for event in test_http_completions.events(server, **fields)]
    assert "".join(piece["text"] for piece in stream) == choice["text"]
    assert "\ufffd" not in "".join(piece["text"] for piece in stream[:-1])


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_failure_after_the_start_is_the_last_event(server: RunningServer, path: str) -> None:
    body = {"prompt": "a", "add_special_tokens": False}
    letter = httpx.post(f"{server.url}/tokenize", json=body, headers=server.headers, timeout=60).json()["tokens"]
    dead_end = {"guided_regex": "(a|aa){200}b", "allowed_token_ids": letter}
    asked = {"messages": [{"role": "user", "content": "b"}]} if "chat" in path else {"prompt": "b"}
    fields = {**asked, **dead_end, "max_tokens": 900, "stream_options": {"include_usage": True}}
    response = httpx.post(server.url + path, json={**fields, "stream": True}, headers=server.headers, timeout=60)
    assert response.status_code == 200
    *told, failed, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in told)
    assert told
    error = json.loads(failed.removeprefix("data: "))
    assert set(error) == {"error"}
    read = NumberedError.model_validate(error["error"], strict=True)
    assert (read.code, read.type, read.param) == (400, "BadRequestError", None)
    assert "No token is left" in read.message
    client = server.openai()
    create: Any = client.chat.completions.create if "chat" in path else client.completions.create
    with pytest.raises(openai.APIError, match="No token is left"):
        list(create(model="demo", stream=True, max_tokens=900, extra_body=dead_end, **asked))
