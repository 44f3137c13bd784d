"""The examples and the table of docs/clients.md."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.resources.chat.completions import Completions as ChatCompletions
from openai.resources.completions import Completions

from tests.docs.page import PAGE_URL, read_page, run_python
from zqserve.server.protocol.chat import ChatCompletionRequest
from zqserve.server.protocol.completions import CompletionRequest

PAGE = read_page("docs/clients.md")
REFUSED = {"logits_processors", "logprob_token_ids", "prompt_embeds"}
"""Fields that are known and always answered 400."""

FIELDS: list[tuple[str, str, Any]] = [
    (name, of, json.loads(value))
    for name, of, value in re.findall(r"^\| `(\w+)` \| (t c|t|c) \| `(.*?)` \| \S", PAGE.text, re.MULTILINE)
]


@pytest.mark.parametrize(
    ("containing", "printed"),
    [
        ("logprobs=1", [r"The capital of France is Paris\.", r" Paris \[-0\.\d+\]"]),
        ("content.done", [r"(.*cold.*)", r".*cold.*", "stop"]),
        ("AsyncOpenAI", [r"The capital of France is Paris\.", r"The capital of Italy is Rome\."]),
        ("class Review", ["Review (positive|negative) [1-5]"]),
        ("NotFoundError", [r"temperature .*between 0.* and 2.*", "model 404"]),
        ("job-17", ["cmpl-job-17"]),
        ("httpx.stream", [" Paris.*"]),
        ("extra_body=", [r" [A-Z][a-z]+ [1-4]"]),
    ],
)
def test_a_python_example_prints_what_it_says(containing: str, printed: list[str], demo_url: str) -> None:
    lines = run_python(PAGE.block("python", containing), demo_url)
    assert len(lines) == len(printed)
    for line, pattern in zip(lines, printed, strict=True):
        assert re.fullmatch(pattern, line), line


def test_the_curl_lines_are_answered(demo_url: str) -> None:
    assert PAGE.curl('"max_tokens": 1', demo_url).json()["choices"][0]["text"] == " Paris"
    events = PAGE.curl("curl -N", demo_url).text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert json.loads(events[-3].removeprefix("data: "))["usage"]["completion_tokens"] > 1


def test_the_base_url_of_the_environment_is_enough(demo_url: str) -> None:
    *settings, python, flag, code = shlex.split(PAGE.block("bash", "OPENAI_BASE_URL"))
    assert (python, flag) == ("python", "-c")
    environment = dict(setting.replace(PAGE_URL, demo_url).split("=", 1) for setting in settings)
    assert run_python(code, demo_url, **environment) == [" Paris"]


def test_what_langchain_sends_is_answered(demo_url: str) -> None:
    """Structured output by either of its methods, tools that must be called: the bodies are those of ChatOpenAI."""
    schema = {
        "title": "City",
        "type": "object",
        "properties": {"name": {"title": "Name", "type": "string", "maxLength": 8}},
        "required": ["name"],
        "additionalProperties": False,
    }
    json_schema = {"name": "City", "strict": True, "schema": schema}
    function = {"name": "City", "description": "A city.", "parameters": schema}
    tools = {"tools": [{"type": "function", "function": function}]}
    named = {"tool_choice": {"type": "function", "function": {"name": "City"}}, "parallel_tool_calls": False}
    for fields in (
        {"response_format": {"type": "json_schema", "json_schema": json_schema}},
        {**tools, **named},
        {**tools, "tool_choice": "required", "parallel_tool_calls": False},
    ):
        body = {"model": "demo/model", "stream": False, "temperature": 0.0, "max_tokens": 60, **fields}
        messages = [{"role": "user", "content": "Name a city."}]
        answer = httpx.post(f"{demo_url}/v1/chat/completions", json={**body, "messages": messages}, timeout=60).json()
        message = answer["choices"][0]["message"]
        made = message["tool_calls"][0]["function"]["arguments"] if "tools" in fields else message["content"]
        assert set(json.loads(made)) == {"name"}


@pytest.mark.parametrize("kind", ["t", "c"])
def test_the_table_has_every_field_that_the_sdk_lacks(kind: Literal["t", "c"]) -> None:
    request = CompletionRequest if kind == "t" else ChatCompletionRequest
    create = Completions.create if kind == "t" else ChatCompletions.create
    lacking = set(request.__struct_fields__) - set(inspect.signature(create).parameters) - REFUSED
    listed = {name for name, of, _ in FIELDS if kind in of.split()}
    assert listed == lacking


@pytest.mark.parametrize(("name", "of", "value"), FIELDS, ids=[name for name, _, _ in FIELDS])
def test_a_field_of_the_table_is_taken(name: str, of: str, value: Any, demo_url: str) -> None:
    body = value if isinstance(value, dict) and name in value else {name: value}
    client = openai.OpenAI(base_url=f"{demo_url}/v1", api_key="none", max_retries=0, timeout=60)
    if "t" in of:
        answer = client.completions.create(
            model="demo/model", prompt="The capital of France is", max_tokens=8, extra_body=body
        )
        assert answer.choices[0].finish_reason in ("stop", "length")
    if "c" in of:
        messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
        if name in ("continue_final_message", "echo"):
            messages.append({"role": "assistant", "content": "It is"})
        chat = client.chat.completions.create(model="demo/model", messages=messages, max_tokens=8, extra_body=body)
        assert chat.choices[0].finish_reason in ("stop", "length")
