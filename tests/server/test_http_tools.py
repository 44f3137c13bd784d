"""Tools on /v1/chat/completions through the OpenAI SDK: choices, streams, errors, and the way back into the prompt."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest
from openai import BadRequestError, OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field

from tests.running_server import RunningServer
from tests.sdk_types import read_chat_completion, read_chat_event

MESSAGES: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
WEATHER_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", "Bergen"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER_SCHEMA}}
NOW: Any = {"type": "function", "function": {"name": "now", "description": "The time."}}
TOOLS = [WEATHER, NOW]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
CALLS = (
    r"I look it up\.\n<tool_call>\n\{\"name\": \"get_weather\", \"arguments\": \{\"city\": \"Oslo\", \"days\": 2\}\}\n"
    r"</tool_call>\n<tool_call>\n\{\"name\": \"now\"\}\n</tool_call>"
)
"""A pattern that makes the demo model write what a model writes that was trained on tools."""
TEMPLATE = (
    "{% for tool in tools or [] %}<{{ tool.function.name }}>{% endfor %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for call in m.tool_calls or [] %}"
    "[{{ call.function.name }} {{ call.function.arguments.city }}]{% endfor %}"
    "{% if m.tool_call_id %}({{ m.tool_call_id }} {{ m.name }}){% endif %};{% endfor %}"
)


@pytest.fixture(scope="module")
def client(tool_server: RunningServer) -> OpenAI:
    return tool_server.openai()


def ask(client: OpenAI, **fields: Any) -> Any:
    arguments: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 200, "seed": 1}
    return client.chat.completions.create(**arguments | fields)


def streamed(client: OpenAI, **fields: Any) -> tuple[str, list[dict[str, str]], str | None]:
    """Content, calls and finish reason that a stream's deltas make together."""
    content, calls, reason = "", [], None
    for chunk in ask(client, stream=True, **fields):
        choices: Any = read_chat_event(chunk.to_dict()).choices
        (choice,) = choices
        assert reason is None
        content += choice.delta.content or ""
        reason = choice.finish_reason
        for call in choice.delta.tool_calls or []:
            if call.index == len(calls):
                assert call.id.startswith("chatcmpl-tool-")
                assert call.type == "function"
                calls.append({"name": call.function.name, "arguments": ""})
            else:
                assert call.index == len(calls) - 1
                assert (call.id, call.type, call.function.name) == (None, None, None)
            calls[-1]["arguments"] += call.function.arguments
    return content, calls, reason


def whole(client: OpenAI, **fields: Any) -> tuple[str, list[dict[str, str]], str | None]:
    """The same of a whole answer."""
    (choice,) = read_chat_completion(ask(client, **fields).to_dict()).choices
    calls: Any = [call.to_dict()["function"] for call in choice.message.tool_calls or []]
    return choice.message.content or "", calls, choice.finish_reason


def both(client: OpenAI, **fields: Any) -> tuple[str, list[dict[str, str]], str | None]:
    answer = whole(client, **fields)
    assert streamed(client, **fields) == answer
    return answer


def prompt(server: RunningServer, **body: Any) -> str:
    """The prompt's text as the server's template makes it of a request."""
    body = {"messages": MESSAGES, "chat_template": TEMPLATE, "max_tokens": 1, "return_prompt_text": True, **body}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=server.headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["prompt_text"]


@pytest.mark.parametrize("parser", ["hermes", "none"])
def test_required_calls_are_held_to_the_schemas(server: RunningServer, client: OpenAI, parser: str) -> None:
    asked = client if parser == "hermes" else server.openai()
    content, calls, reason = both(asked, tool_choice="required", parallel_tool_calls=False)
    assert (content, len(calls), reason) == ("", 1, "tool_calls")
    schema = WEATHER_SCHEMA if calls[0]["name"] == "get_weather" else {"maxProperties": 0}
    jsonschema.validate(json.loads(calls[0]["arguments"]), schema)


@pytest.mark.parametrize("parser", ["hermes", "none"])
def test_named_function_is_called_and_the_reason_is_stop(server: RunningServer, client: OpenAI, parser: str) -> None:
    asked = client if parser == "hermes" else server.openai()
    content, calls, reason = both(asked, tool_choice=NAMED)
    assert (content, reason) == ("", "stop")
    assert [call["name"] for call in calls] == ["get_weather"]
    jsonschema.validate(json.loads(calls[0]["arguments"]), WEATHER_SCHEMA)


def test_message_with_calls_alone_has_null_for_content(client: OpenAI) -> None:
    (choice,) = ask(client, tool_choice=NAMED).choices
    assert choice.message.content is None
    assert choice.message.tool_calls[0].id.startswith("chatcmpl-tool-")
    assert choice.message.tool_calls[0].type == "function"


def test_calls_that_the_model_decides_on_are_read_from_its_text(client: OpenAI) -> None:
    for choice in ({}, {"tool_choice": "auto"}):
        content, calls, reason = both(client, extra_body={"guided_regex": CALLS}, **choice)
        assert (content, reason) == ("I look it up.", "tool_calls")
        assert calls == [
            {"name": "get_weather", "arguments": '{"city": "Oslo", "days": 2}'},
            {"name": "now", "arguments": "{}"},
        ]


def test_only_the_first_call_counts_where_no_parallel_ones_are_wanted(client: OpenAI) -> None:
    _, calls, _ = both(client, parallel_tool_calls=False, extra_body={"guided_regex": CALLS})
    assert [call["name"] for call in calls] == ["get_weather"]


def test_answer_without_calls_is_content_as_ever(client: OpenAI) -> None:
    plain = whole(client, tools=None, max_tokens=8, temperature=0)
    assert plain[2] in ("stop", "length")
    assert both(client, max_tokens=8, temperature=0) == plain  # the demo model's template shows no tools
    looks_like_one = {"guided_choice": ["<tool_call>{'name': 'now'}</tool_call>"]}
    assert both(client, extra_body=looks_like_one) == (looks_like_one["guided_choice"][0], [], "stop")
    assert "tool_calls" not in ask(client, max_tokens=8).choices[0].message.to_dict()


def test_none_leaves_the_text_alone(client: OpenAI) -> None:
    content, calls, reason = both(client, tool_choice="none", extra_body={"guided_regex": CALLS})
    assert content.count("<tool_call>") == 2
    assert (calls, reason) == ([], "stop")


def test_cut_answer_has_the_same_partial_call_streamed_and_whole(client: OpenAI) -> None:
    seen = set()
    for num_tokens in range(1, 60, 3):
        content, calls, reason = both(client, tool_choice=NAMED, max_tokens=num_tokens)
        assert content == ""
        if reason == "stop":
            break
        assert reason == "length"
        seen.add(tuple(call["arguments"] for call in calls))
    assert len(seen) > 2
    assert whole(client, max_tokens=20, extra_body={"guided_regex": CALLS})[2] == "length"


def test_strict_tools_of_the_sdk_are_parsed(client: OpenAI) -> None:
    class SetAlarm(BaseModel):
        hour: int = Field(ge=0, le=23)
        silent: bool

    tool = pydantic_function_tool(SetAlarm)
    answer = client.chat.completions.parse(
        model="demo", messages=MESSAGES, tools=[tool], tool_choice="required", parallel_tool_calls=False, seed=1
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, SetAlarm)
    with client.chat.completions.stream(
        model="demo", messages=MESSAGES, tools=[tool], tool_choice="required", parallel_tool_calls=False, seed=1
    ) as stream:
        stream.until_done()
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, SetAlarm)


def test_response_format_describes_the_content_beside_calls(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    response_format: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    content, calls, _ = both(client, response_format=response_format, parallel_tool_calls=False, temperature=1)
    assert (json.loads(content) == {"a": 1}) if content else (len(calls) == 1)
    _, calls, reason = both(client, response_format=response_format, tool_choice=NAMED)
    assert (len(calls), reason) == (1, "stop")


def test_other_fields_go_with_calls(client: OpenAI) -> None:
    fields: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False, "n": 3}
    answer = ask(client, logprobs=True, top_logprobs=2, **fields)
    assert len(answer.choices) == 3
    assert all(len(choice.message.tool_calls) == 1 for choice in answer.choices)
    num_tokens = sum(len(choice.logprobs.content) for choice in answer.choices)
    assert num_tokens == answer.usage.completion_tokens
    chunks = list(ask(client, stream=True, logprobs=True, stream_options={"include_usage": True}, **fields))
    told = [choice for chunk in chunks for choice in chunk.choices]
    assert sum(len(choice.logprobs.content) for choice in told if choice.logprobs) == num_tokens
    assert chunks[-1].usage.completion_tokens == num_tokens
    assert sorted(choice.index for choice in told if choice.finish_reason) == [0, 1, 2]
    stopped = ask(client, tool_choice=NAMED, stop=['days"'])
    assert (stopped.choices[0].finish_reason, stopped.choices[0].stop_reason) == ("stop", 'days"')


def test_tool_messages_reach_the_template(server: RunningServer, tool_server: RunningServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": "Rain.", "tool_calls": []},
    ]
    spoken = (
        "user:What is the weather in Oslo?;assistant:[get_weather Oslo];tool:rain(call_1 get_weather);assistant:Rain.;"
    )
    assert prompt(tool_server, messages=messages, tools=TOOLS) == "<get_weather><now>" + spoken
    assert prompt(tool_server, messages=messages, tools=TOOLS, tool_choice="none") == spoken
    assert prompt(server, messages=messages, tools=TOOLS, tool_choice="none") == "<get_weather><now>" + spoken


def test_tokenize_counts_the_tools(tool_server: RunningServer) -> None:
    def post(path: str, **more: Any) -> Any:
        body = {"messages": MESSAGES, "chat_template": TEMPLATE, "tools": TOOLS, "add_generation_prompt": False, **more}
        return httpx.post(f"{tool_server.url}{path}", json=body, headers=tool_server.headers, timeout=60).json()

    count = post("/tokenize")["count"]
    assert count == post("/v1/chat/completions", max_tokens=1)["usage"]["prompt_tokens"]
    assert count > post("/tokenize", tools=None)["count"]


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": []}, "tools", "at least one"),
        ({"tools": {"a": 1}}, "tools", "array"),
        ({"tools": [NOW] * 513}, "tools", "512"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "function"),
        ({"tools": [NOW, {"type": "function"}]}, "tools[1].function", "name"),
        ({"tools": [function(name="a b")]}, "tools[0].function.name", "a-z"),
        ({"tools": [function(name="a" * 129)]}, "tools[0].function.name", "128"),
        ({"tools": [NOW, WEATHER, NOW]}, "tools[2].function.name", "tools[0]"),
        ({"tools": [function(description=1)]}, "tools[0].function.description", "string"),
        ({"tools": [function(strict="yes")]}, "tools[0].function.strict", "true or false"),
        ({"tools": [function(parameters=[])]}, "tools[0].function.parameters", "object"),
        ({"tools": [function(parameters={"type": "string"})]}, "tools[0].function.parameters", "/type"),
        (
            {"tools": [NOW, function(parameters={"properties": {"a": {"type": "objekt"}}})]},
            "tools[1].function.parameters",
            "/properties/a",
        ),
        (
            {"tools": [function(parameters={"properties": {"a": {"$ref": "#/$defs/b"}}})], "tool_choice": "required"},
            "tools[0].function.parameters",
            "/properties/a",
        ),
        (
            {
                "tools": [function(parameters={"properties": {"a": False}, "required": ["a"]})],
                "tool_choice": "required",
            },
            "tools[0].function.parameters",
            "satisfies",
        ),
        ({"tools": None, "tool_choice": "auto"}, "tool_choice", "needs tools"),
        ({"tools": None, "tool_choice": NAMED}, "tool_choice", "needs tools"),
        ({"tool_choice": "any"}, "tool_choice", "required"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "name"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice.function.name",
            "not among the tools",
        ),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools.mode", "auto"),
        ({"tool_choice": "required", "guided_regex": "a"}, "guided_regex", "tool calls alone"),
        (
            {"tool_choice": NAMED, "response_format": {"type": "structural_tag", "format": {"type": "any_text"}}},
            "response_format",
            "tool calls alone",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "bool"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"function_call": "auto"}, "function_call", "use tool_choice"),
    ],
)
def test_wrong_fields_are_refused_with_their_place(
    client: OpenAI, fields: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(client, extra_body=fields)
    body: Any = refused.value.body
    assert (body["type"], body["code"], body["param"]) == ("BadRequestError", 400, param)
    assert words in body["message"]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}]},
            ".tool_calls[0].function.arguments",
        ),
        ({"tool_calls": {"a": 1}}, ".tool_calls"),
    ],
)
def test_wrong_calls_in_messages_are_refused(client: OpenAI, message: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(client, messages=[*MESSAGES, {"role": "assistant", **message}])
    body: Any = refused.value.body
    assert body["param"] == f"messages[1]{param}"


def test_schema_that_cannot_be_enforced_matters_only_where_it_is_to_be(client: OpenAI) -> None:
    hard = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"^(a)\1$"}}}
    tools = [function(parameters=hard)]
    assert ask(client, tools=tools, max_tokens=4).choices[0].finish_reason in ("stop", "length")
    with pytest.raises(BadRequestError) as refused:
        ask(client, tools=tools, tool_choice="required")
    body: Any = refused.value.body
    assert body["param"] == "tools[0].function.parameters"
    assert "/properties/a" in body["message"]


def test_auto_is_refused_where_nobody_knows_how_the_model_calls(server: RunningServer) -> None:
    for choice in ({}, {"tool_choice": "auto"}):
        with pytest.raises(BadRequestError) as refused:
            ask(server.openai(), **choice)
        body: Any = refused.value.body
        assert body["param"] == "tool_choice"
        assert "--tool-call-parser" in body["message"]
