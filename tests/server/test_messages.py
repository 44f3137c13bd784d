"""POST /v1/messages through the `anthropic` package, whose types are the judge, and on the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, MessageParam

from tests.running_server import RunningServer
from tests.server.typed_answers import MESSAGES

PATH = MESSAGES.path
QUESTION: list[MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
ASKED = {"messages": QUESTION, "temperature": 0, "max_tokens": 30}
GREEDY = {"temperature": 0}
"""The package has no argument for it any more."""


@pytest.fixture(scope="module")
def http(server: RunningServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"x-api-key": server.api_key}, timeout=60)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=server.api_key, max_retries=0, timeout=60)


def post(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return MESSAGES.post(http, {**ASKED, **body})


def events(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    return MESSAGES.events(http, {**ASKED, **body})


def refused(response: httpx.Response, status: int, kind: str, said: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"type", "error"}
    assert response.json()["type"] == "error"
    error = response.json()["error"]
    assert set(error) == {"type", "message"}
    assert error["type"] == kind
    assert said in error["message"], error


def text(message: dict[str, Any]) -> str:
    (block,) = message["content"]
    return block["text"]


def count(http: httpx.Client, messages: list[dict[str, Any]]) -> int:
    return http.post("/tokenize", json={"messages": messages}).json()["count"]


def test_answer_is_that_of_chat_in_the_shape_of_the_api(http: httpx.Client) -> None:
    message = post(http)
    chat = http.post("/v1/chat/completions", json=ASKED).json()
    assert text(message) == chat["choices"][0]["message"]["content"]
    assert message["id"].startswith("msg_")
    assert (message["type"], message["role"]) == ("message", "assistant")
    assert (message["stop_reason"], message["stop_sequence"]) == ("end_turn", None)
    assert message["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert message["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]


def test_stop_reason_says_what_ended_the_answer(http: httpx.Client) -> None:
    assert post(http, max_tokens=2)["stop_reason"] == "max_tokens"
    stopped = post(http, stop_sequences=["of", "never"])
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "of")
    assert text(stopped) == text(post(http)).partition("of")[0]


def test_stream_tells_one_block_and_the_unary_answer(http: httpx.Client) -> None:
    found = events(http)
    deltas = found[2:-3]
    assert [event["type"] for event in found] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * len(deltas),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    whole = post(http)
    assert "".join(event["delta"]["text"] for event in deltas) == text(whole)
    start, end = found[0]["message"], found[-2]
    assert (start["content"], start["stop_reason"]) == ([], None)
    assert start["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert end["usage"] == whole["usage"]


def test_answer_without_a_word_has_no_content(http: httpx.Client) -> None:
    assert post(http, guided_choice=[""])["content"] == []
    kinds = [event["type"] for event in events(http, guided_choice=[""])]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_failure_after_the_start_is_an_error_event(http: httpx.Client, client: anthropic.Anthropic) -> None:
    letter = http.post("/tokenize", json={"prompt": "a", "add_special_tokens": False}).json()["tokens"]
    dead_end = {"guided_regex": "(a|aa)b", "allowed_token_ids": letter}
    refused(http.post(PATH, json={**ASKED, **dead_end}), 400, "invalid_request_error", "No token is left")
    with (
        pytest.raises(anthropic.APIStatusError, match="No token is left") as raised,
        client.messages.stream(model="demo", max_tokens=9, messages=QUESTION, extra_body=dead_end) as stream,
    ):
        assert "".join(stream.text_stream) in ("a", "aa")
    assert "invalid_request_error" in str(raised.value.body)


def test_package_creates_and_streams(client: anthropic.Anthropic) -> None:
    arguments: dict[str, Any] = {"model": "demo", "max_tokens": 30, "messages": QUESTION, "extra_body": GREEDY}
    whole = client.messages.create(**arguments)
    with client.messages.stream(**arguments) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    (block,) = whole.content
    assert block.type == "text"
    assert "".join(pieces) == block.text == final.content[0].text  # pyright: ignore
    assert (final.stop_reason, final.usage) == (whole.stop_reason, whole.usage)


def test_async_package_streams(server: RunningServer) -> None:
    async def run() -> tuple[Message, Message]:
        client = anthropic.AsyncAnthropic(base_url=server.url, api_key=server.api_key, max_retries=0)
        arguments: dict[str, Any] = {"model": "demo", "max_tokens": 30, "messages": QUESTION, "extra_body": GREEDY}
        async with client.messages.stream(**arguments) as stream:
            return await client.messages.create(**arguments), await stream.get_final_message()

    whole, streamed = asyncio.run(run())
    assert [block.model_dump() for block in whole.content] == [
        block.model_dump(exclude={"parsed_output"}) for block in streamed.content
    ]


def test_system_and_blocks_make_the_conversation_that_chat_would_have(http: httpx.Client) -> None:
    blocks = [
        {"type": "text", "text": "What is the capital", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "of France?"},
    ]
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What is the capital\nof France?"},
    ]
    as_blocks = {"system": [{"type": "text", "text": "Be short."}], "messages": [{"role": "user", "content": blocks}]}
    number = count(http, messages)
    assert post(http, **as_blocks)["usage"]["input_tokens"] == number
    assert post(http, system="Be short.", messages=messages[1:])["usage"]["input_tokens"] == number
    assert http.post(f"{PATH}/count_tokens", json=as_blocks).json() == {"input_tokens": number}


def test_neighbours_of_one_role_are_one_turn(http: httpx.Client) -> None:
    parts = [{"role": "user", "content": "Hello."}, *QUESTION]
    joined = [{"role": "user", "content": "Hello.\nWhat is the capital of France?"}]
    assert post(http, messages=parts)["usage"]["input_tokens"] == count(http, joined)


def test_answer_goes_on_with_a_last_message_of_the_assistant(http: httpx.Client) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of Fra"}]
    answer = post(http, messages=begun)
    chat = http.post(
        "/v1/chat/completions",
        json={**ASKED, "messages": begun, "continue_final_message": True, "add_generation_prompt": False},
    ).json()
    assert text(answer) == chat["choices"][0]["message"]["content"]
    assert answer["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]


def test_count_of_tokens_is_that_of_the_answer(client: anthropic.Anthropic) -> None:
    number = client.messages.count_tokens(model="demo", messages=QUESTION).input_tokens
    assert number == client.messages.create(model="demo", messages=QUESTION, max_tokens=1).usage.input_tokens


def test_output_config_holds_the_answer(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    message = client.messages.create(
        model="demo",
        max_tokens=30,
        messages=QUESTION,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert json.loads(message.content[0].text)["n"] in (1, 2)  # pyright: ignore


def test_our_own_fields_are_taken(http: httpx.Client) -> None:
    assert text(post(http, guided_choice=["Lyon", "Nice"])) in ("Lyon", "Nice")
    drawn = {"temperature": 1.5, "seed": 3, "top_k": 50, "top_p": 0.9}
    assert text(post(http, **drawn)) == text(post(http, **drawn))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"max_tokens": None}, "max_tokens: expected `int`"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": 10**9}, "max_tokens is 1000000000"),
        ({"messages": None}, "messages: expected `array`"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is required"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content must not be empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "not a multimodal model"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "text and tool_result"),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]}, "text and tool_use"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]}]},
            "messages[0].content[0].tool_use_id is '1', but no call",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f"}]}]},
            "messages[0].content[0].input is required",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}
                ]
            },
            "messages[0] ends with tool_use",
        ),
        ({"messages": [*QUESTION, {"role": "assistant", "content": ""}]}, "messages[1] is of the assistant"),
        ({"system": [{"type": "image"}]}, "system[0]"),
        ({"stop_sequences": [""]}, "stop_sequences must not hold an empty string"),
        ({"stop": ["a"]}, "stop_sequences"),
        ({"temperature": 3}, "2.0"),
        ({"n": 2}, "one answer"),
        ({"stream": True, "stream_options": {"include_usage": True}}, "always tells the usage"),
        ({"response_format": {"type": "json_object"}}, "output_config.format"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "nonsense"}}}},
            "output_config.format",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema is required"),
        ({"tools": [{"name": "f", "input_schema": {"type": "array"}}], "tool_choice": {"type": "any"}}, "input_schema"),
        ({"tool_choice": {"type": "any"}}, "needs tools"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name is required"),
        ({"tool_choice": "auto"}, "tool_choice"),
    ],
)
def test_wrong_value_is_told_in_the_form_of_the_api(http: httpx.Client, body: dict[str, Any], said: str) -> None:
    answer = http.post(PATH, json={**ASKED, **body})
    refused(answer, 400, "invalid_request_error", said)
    if body != {"max_tokens": None}:
        assert http.post(f"{PATH}/count_tokens", json={**ASKED, **body}).json() == answer.json()


def test_other_errors_have_the_form_of_the_api(http: httpx.Client, server: RunningServer) -> None:
    refused(http.post(PATH, content=b"{"), 400, "invalid_request_error", "not JSON")
    refused(http.post(PATH, json={"messages": QUESTION}), 400, "invalid_request_error", "max_tokens is required")
    refused(http.post(PATH, json={**ASKED, "model": "gpt-5"}), 404, "not_found_error", "gpt-5")
    refused(http.post(f"{PATH}/batches", json={}), 404, "not_found_error", "/v1/messages/batches")
    refused(http.get(PATH), 405, "invalid_request_error", "GET")
    refused(http.post(PATH, content=b" " * 50_000_000), 413, "request_too_large", "33554432")
    for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"authorization": server.api_key}):
        answer = httpx.post(f"{server.url}{PATH}", json=ASKED, headers=headers, timeout=60)
        refused(answer, 401, "authentication_error", "API key")


def test_key_is_taken_from_either_header(server: RunningServer) -> None:
    for headers in (
        {"x-api-key": server.api_key},
        {"authorization": f"Bearer {server.api_key}"},
        {"x-api-key": "another-key", "authorization": "Bearer wrong"},
    ):
        assert httpx.get(f"{server.url}/v1/models", headers=headers, timeout=60).status_code == 200


def test_package_raises_its_own_errors(server: RunningServer, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match=r"at most|between"):
        client.messages.create(model="demo", max_tokens=5, messages=QUESTION, extra_body={"temperature": 3})
    with pytest.raises(anthropic.NotFoundError, match="gpt-5"):
        client.messages.create(model="gpt-5", max_tokens=5, messages=QUESTION)
    with pytest.raises(anthropic.AuthenticationError, match="API key"):
        client.with_options(api_key="wrong").messages.create(model="demo", max_tokens=5, messages=QUESTION)
