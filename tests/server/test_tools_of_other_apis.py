"""Tools in /v1/responses and /v1/messages, through the packages of both APIs.

The server's template shows tools and calls, in the format hermes; a regex makes the model write what a test is about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from tests.running_server import RunningServer, start_server
from tests.server.typed_answers import MESSAGES, RESPONSES

TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.tool_call_id or '' }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "day": {"enum": ["today"]}},
    "required": ["city", "day"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "The weather of a city."}
CHAT_TOOL = {"type": "function", "function": {**FUNCTION, "parameters": SCHEMA}}
RESPONSES_TOOL = {"type": "function", **FUNCTION, "parameters": SCHEMA}
MESSAGES_TOOL = {**FUNCTION, "input_schema": SCHEMA}
QUESTION = "Is it warm?"
ASKED_OF_RESPONSES = {"input": QUESTION, "tools": [RESPONSES_TOOL], "max_output_tokens": 150}
ASKED_OF_MESSAGES = {
    "messages": [{"role": "user", "content": QUESTION}],
    "tools": [MESSAGES_TOOL],
    "max_tokens": 150,
}
CALL = r'<tool_call>\n\{"name": "weather", "arguments": \{"city": "(Paris|Rome)", "day": "today"\}\}\n</tool_call>'
TWO_CALLS = {"guided_regex": rf"Let me see\.\n{CALL}\n{CALL}", "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    flags = ["--chat-template", TEMPLATE, "--tool-call-parser", "hermes", "--enable-prompt-tokens-details"]
    running = start_server(tmp_path_factory.mktemp("tools") / "log", *flags, "--kv-cache-memory", "32M")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def claude(server: RunningServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=server.api_key, max_retries=0, timeout=60)


def respond(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return RESPONSES.post(http, {**ASKED_OF_RESPONSES, **body})


def response_events(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    return RESPONSES.events(http, {**ASKED_OF_RESPONSES, **body})


def message(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return MESSAGES.post(http, {**ASKED_OF_MESSAGES, **body})


def message_events(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    return MESSAGES.events(http, {**ASKED_OF_MESSAGES, **body})


def is_held(arguments: dict[str, Any]) -> bool:
    return set(arguments) == {"city", "day"} and arguments["city"] in ("Paris", "Rome") and arguments["day"] == "today"


def count(http: httpx.Client, messages: list[dict[str, Any]]) -> int:
    return http.post("/tokenize", json={"messages": messages, "tools": [CHAT_TOOL]}).json()["count"]


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in items]


def test_response_has_the_text_and_the_calls_that_the_model_wrote(http: httpx.Client) -> None:
    answer = respond(http, **TWO_CALLS)
    text, *calls = answer["output"]
    assert text["content"][0]["text"] == "Let me see."
    assert [call["name"] for call in calls] == ["weather", "weather"]
    assert all(is_held(json.loads(call["arguments"])) for call in calls)
    assert len({call["call_id"] for call in calls}) == 2
    assert {item["status"] for item in answer["output"]} == {answer["status"]} == {"completed"}
    assert (answer["tools"], answer["tool_choice"]) == ([{**RESPONSES_TOOL, "strict": None}], "auto")


def test_stream_of_a_response_makes_the_unary_items(http: httpx.Client) -> None:
    found = response_events(http, **TWO_CALLS)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    final = found[-1]["response"]
    assert without_ids(final["output"]) == without_ids(respond(http, **TWO_CALLS)["output"])
    assert [event["item"] for event in found if event["type"] == "response.output_item.done"] == final["output"]
    added = [event["item"] for event in found if event["type"] == "response.output_item.added"]
    assert [item["id"] for item in added] == [item["id"] for item in final["output"]]
    for index, item in list(enumerate(final["output"]))[1:]:
        own = [event for event in found if event.get("item_id") == item["id"]]
        *deltas, done = own
        assert {event["type"] for event in deltas} == {"response.function_call_arguments.delta"}
        assert done["type"] == "response.function_call_arguments.done"
        assert "".join(event["delta"] for event in deltas) == done["arguments"] == item["arguments"]
        assert {event["output_index"] for event in own} == {index}


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]},
    ],
)
def test_choice_of_a_response_holds_the_arguments(http: httpx.Client, choice: Any) -> None:
    answer = respond(http, tool_choice=choice, parallel_tool_calls=False)
    (call,) = answer["output"]
    assert is_held(json.loads(call["arguments"]))
    assert (answer["tool_choice"], answer["parallel_tool_calls"]) == (choice, False)


def test_call_of_a_response_that_is_cut_is_incomplete(http: httpx.Client) -> None:
    arguments = {"tool_choice": "required", "temperature": 0, "max_output_tokens": 20}
    answer = respond(http, **arguments)
    assert (answer["status"], answer["output"][-1]["status"]) == ("incomplete", "incomplete")
    assert without_ids(response_events(http, **arguments)[-1]["response"]["output"]) == without_ids(answer["output"])


def test_choice_of_none_leaves_text(http: httpx.Client) -> None:
    (item,) = respond(http, tool_choice="none", **TWO_CALLS)["output"]
    assert item["content"][0]["text"].startswith("Let me see.\n<tool_call>")
    (block,) = message(http, tool_choice={"type": "none"}, **TWO_CALLS)["content"]
    assert block["text"].startswith("Let me see.\n<tool_call>")


def test_calls_and_outputs_are_input_of_the_next_response(http: httpx.Client, server: RunningServer) -> None:
    client = server.openai()
    tools: Any = [RESPONSES_TOOL]
    conversation: list[Any] = [{"role": "user", "content": QUESTION}]
    first = client.responses.create(model="demo", input=conversation, tools=tools, extra_body=TWO_CALLS)
    conversation += [item.model_dump(exclude_none=True) for item in first.output]
    calls = [item for item in first.output if item.type == "function_call"]
    for call in calls:
        conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": "Warm."})
    second = client.responses.create(model="demo", input=conversation, tools=tools, max_output_tokens=5)
    assert second.usage is not None
    chat_calls = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Let me see.", "tool_calls": chat_calls},
        *({"role": "tool", "tool_call_id": call.call_id, "content": "Warm."} for call in calls),
    ]
    assert second.usage.input_tokens == count(http, messages)
    assert second.usage.input_tokens_details.cached_tokens > 0


def test_message_has_the_text_and_the_calls_that_the_model_wrote(http: httpx.Client) -> None:
    answer = message(http, **TWO_CALLS)
    text, *calls = answer["content"]
    assert text["text"] == "Let me see."
    assert [call["name"] for call in calls] == ["weather", "weather"]
    assert all(is_held(call["input"]) for call in calls)
    assert answer["stop_reason"] == "tool_use"


def test_stream_of_a_message_makes_the_unary_blocks(http: httpx.Client, claude: anthropic.Anthropic) -> None:
    whole = message(http, **TWO_CALLS)
    found = message_events(http, **TWO_CALLS)
    starts = [event for event in found if event["type"] == "content_block_start"]
    assert [event["index"] for event in starts] == [0, 1, 2]
    assert [event["index"] for event in found if event["type"] == "content_block_stop"] == [0, 1, 2]
    for index in (1, 2):
        assert starts[index]["content_block"]["input"] == {}
        pieces = [
            event["delta"]["partial_json"]
            for event in found
            if event["type"] == "content_block_delta" and event["index"] == index
        ]
        assert json.loads("".join(pieces)) == whole["content"][index]["input"]
    with claude.messages.stream(
        model="demo",
        max_tokens=150,
        messages=[{"role": "user", "content": QUESTION}],
        tools=[MESSAGES_TOOL],  # pyright: ignore
        extra_body=TWO_CALLS,
    ) as stream:
        final = stream.get_final_message()
    kept = {"text", "type", "name", "input"}
    blocks = [block.model_dump(include=kept) for block in final.content]
    assert blocks == [{key: block[key] for key in block if key in kept} for block in whole["content"]]
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
def test_choice_of_a_message_holds_the_input(http: httpx.Client, choice: dict[str, Any]) -> None:
    answer = message(http, tool_choice={**choice, "disable_parallel_tool_use": True})
    (call,) = answer["content"]
    assert is_held(call["input"])
    assert answer["stop_reason"] == "tool_use"


def test_call_of_a_message_that_is_cut_says_so(http: httpx.Client) -> None:
    arguments = {"tool_choice": {"type": "any"}, "temperature": 0, "max_tokens": 20}
    answer = message(http, **arguments)
    assert answer["stop_reason"] == "max_tokens"
    assert answer["content"][-1]["input"] == {}
    assert message_events(http, **arguments)[-2]["delta"]["stop_reason"] == "max_tokens"


def test_calls_and_results_are_messages_of_the_next(http: httpx.Client, claude: anthropic.Anthropic) -> None:
    tools: Any = [MESSAGES_TOOL]
    conversation: list[Any] = [{"role": "user", "content": QUESTION}]
    first: Any = claude.messages.create(
        model="demo", max_tokens=150, messages=conversation, tools=tools, extra_body=TWO_CALLS
    )
    _, one, two = first.content
    assert one.type == two.type == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": one.id, "content": "Warm."},
        {
            "type": "tool_result",
            "tool_use_id": two.id,
            "content": [{"type": "text", "text": "No such city."}],
            "is_error": True,
        },
        {"type": "text", "text": "And now?"},
    ]
    conversation += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
    second = claude.messages.create(model="demo", max_tokens=5, messages=conversation, tools=tools)
    chat_calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.input)}}
        for call in (one, two)
    ]
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "Let me see.", "tool_calls": chat_calls},
        {"role": "tool", "tool_call_id": one.id, "content": "Warm."},
        {"role": "tool", "tool_call_id": two.id, "content": "Error: No such city."},
        {"role": "user", "content": "And now?"},
    ]
    usage = second.usage
    assert usage.cache_read_input_tokens is not None
    assert usage.input_tokens + usage.cache_read_input_tokens == count(http, messages)
    assert usage.cache_read_input_tokens > 0
    counted = claude.messages.count_tokens(model="demo", messages=conversation, tools=tools)
    assert counted.input_tokens == count(http, messages)


def test_logprobs_beside_tools_are_refused(http: httpx.Client) -> None:
    body = {"input": QUESTION, "tools": [RESPONSES_TOOL], "include": ["message.output_text.logprobs"]}
    response = http.post("/v1/responses", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "include"
