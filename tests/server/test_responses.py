"""POST /v1/responses through the OpenAI SDK, whose types are the judge, and on the wire."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseInputItem
from pydantic import BaseModel, Field, TypeAdapter

from tests.running_server import RunningServer
from tests.server.typed_answers import RESPONSES

PATH = RESPONSES.path
QUESTION = "What is the capital of France?"
ASKED = {"input": QUESTION, "temperature": 0, "max_output_tokens": 30}
LOGPROBS = "message.output_text.logprobs"


class City(BaseModel):
    name: Annotated[str, Field(max_length=8)]
    size: Literal["small", "large"]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> OpenAI:
    return server.openai()


def post(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return RESPONSES.post(http, {**ASKED, **body})


def events(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, which are numbered through."""
    found = RESPONSES.events(http, {**ASKED, **body})
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def refused(http: httpx.Client, status: int, param: str | None, said: str, **body: Any) -> None:
    response = http.post(PATH, json={**ASKED, **body})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (status, param), error
    is_unsupported = " supported" in error["message"]
    kind = {400: "BadRequestError", 404: "NotFoundError"}[status]
    assert error["type"] == ("NotImplementedError" if is_unsupported else kind), error
    assert said in error["message"], error


def text(answer: dict[str, Any]) -> str:
    (item,) = answer["output"]
    (part,) = item["content"]
    return part["text"]


def chat_text(http: httpx.Client, messages: list[dict[str, Any]]) -> str:
    """What the chat endpoint answers to the same conversation."""
    body = {"messages": messages, "temperature": 0, "max_tokens": ASKED["max_output_tokens"]}
    return http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def test_answer_is_that_of_chat_in_the_shape_of_the_api(http: httpx.Client) -> None:
    answer = post(http, metadata={"run": "7"}, user="somebody")
    assert answer["id"].startswith("resp_")
    assert (answer["object"], answer["status"], answer["error"]) == ("response", "completed", None)
    assert text(answer) == chat_text(http, [{"role": "user", "content": QUESTION}])
    (item,) = answer["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    usage = answer["usage"]
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]
    assert (answer["metadata"], answer["user"], answer["store"]) == ({"run": "7"}, "somebody", False)
    assert (answer["max_output_tokens"], answer["temperature"], answer["truncation"]) == (30, 0.0, "disabled")


def test_answer_that_is_cut_is_incomplete(http: httpx.Client) -> None:
    answer = post(http, max_output_tokens=3)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["output"][0]["status"] == "incomplete"
    assert answer["usage"]["output_tokens"] == 3
    *_, last = events(http, max_output_tokens=3)
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_stream_tells_the_items_in_order_and_ends_with_the_unary_answer(http: httpx.Client) -> None:
    found = events(http)
    kinds = [event["type"] for event in found]
    deltas = [event for event in found if event["type"] == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    whole, streamed = post(http), found[-1]["response"]
    assert "".join(event["delta"] for event in deltas) == text(whole) == text(streamed)
    assert found[0]["response"]["output"] == []
    assert found[0]["response"]["usage"] is None
    assert streamed["usage"] == whole["usage"]
    assert len({event["response"]["id"] for event in found if "response" in event}) == 1
    assert set(streamed) == set(whole)


def test_answer_without_a_word_is_an_empty_message(http: httpx.Client) -> None:
    arguments = {"guided_choice": [""]}
    assert text(post(http, **arguments)) == ""
    assert text(events(http, **arguments)[-1]["response"]) == ""


def test_failure_after_the_start_ends_the_stream_with_what_there_is(http: httpx.Client) -> None:
    letter = http.post("/tokenize", json={"prompt": "a", "add_special_tokens": False}).json()["tokens"]
    dead_end = {"guided_regex": "(a|aa)b", "allowed_token_ids": letter}
    *_, done, failed = events(http, **dead_end)
    assert done["type"] == "response.output_item.done"
    assert failed["type"] == "response.failed"
    answer = failed["response"]
    assert answer["status"] == "failed"
    assert answer["error"]["code"] == "server_error"
    assert "No token is left" in answer["error"]["message"]
    assert answer["output"] == [done["item"]]
    assert (done["item"]["status"], done["item"]["content"][0]["text"].strip("a")) == ("incomplete", "")
    refused(http, 400, None, "No token is left", **dead_end)


def test_sdk_creates_streams_and_parses(client: OpenAI) -> None:
    arguments: dict[str, Any] = {"model": "demo", "input": QUESTION, "temperature": 0}
    whole = client.responses.create(**arguments)
    assert whole.output_text
    with client.responses.stream(**arguments) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(pieces) == final.output_text == whole.output_text
    parsed = client.responses.parse(text_format=City, **arguments).output_parsed
    assert isinstance(parsed, City)
    with client.responses.stream(text_format=City, **arguments) as stream:
        assert stream.get_final_response().output_parsed == parsed


def test_async_sdk_streams(server: RunningServer) -> None:
    async def run() -> tuple[str, str]:
        client = server.async_openai()
        whole = await client.responses.create(model="demo", input=QUESTION, temperature=0)
        stream = await client.responses.create(model="demo", input=QUESTION, temperature=0, stream=True)
        pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        return whole.output_text, "".join(pieces)

    whole, streamed = asyncio.run(run())
    assert whole == streamed


def test_text_format_holds_the_answer(http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    given = {"type": "json_schema", "name": "number", "schema": schema, "strict": True}
    answer = post(http, text={"format": given})
    assert json.loads(text(answer))["n"] in (1, 2)
    assert answer["text"]["format"] == given
    assert post(http, text={"format": {"type": "text"}})["output"][0]["content"] == post(http)["output"][0]["content"]
    object_text = text(post(http, text={"format": {"type": "json_object"}}, max_output_tokens=60))
    assert object_text.startswith("{")


def test_other_constraints_and_sampling_fields_are_taken(http: httpx.Client) -> None:
    assert text(post(http, guided_choice=["Lyon", "Nice"])) in ("Lyon", "Nice")
    assert text(post(http, structured_outputs={"regex": "[ab]{3}"})).strip("ab") == ""
    drawn = {"temperature": 1.5, "seed": 3, "top_k": 50, "top_p": 0.9}
    answer = post(http, **drawn)
    assert text(answer) == text(post(http, **drawn))
    assert (answer["temperature"], answer["top_p"]) == (1.5, 0.9)


def test_items_make_the_conversation_that_chat_would_have(http: httpx.Client) -> None:
    items = [
        {"role": "user", "content": "Hello"},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello!", "annotations": []}],
        },
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]},
    ]
    TypeAdapter(list[ResponseInputItem]).validate_python(items)
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": QUESTION},
    ]
    answer = post(http, input=items, instructions="Be short.")
    assert text(answer) == chat_text(http, messages)
    assert answer["instructions"] == "Be short."
    count = http.post("/tokenize", json={"messages": messages}).json()["count"]
    assert answer["usage"]["input_tokens"] == count
    counted = http.post(f"{PATH}/input_tokens", json={"input": items, "instructions": "Be short."})
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": count}


def test_output_of_one_answer_is_input_of_the_next(client: OpenAI) -> None:
    first = client.responses.create(model="demo", input=QUESTION, temperature=0)
    conversation: Any = [{"role": "user", "content": QUESTION}, *(item.model_dump() for item in first.output)]
    conversation.append({"role": "user", "content": "And of Italy?"})
    second = client.responses.create(model="demo", input=conversation, temperature=0, store=True)
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.total_tokens


def test_logprobs_are_told_where_they_are_included(http: httpx.Client) -> None:
    arguments = {"include": [LOGPROBS], "top_logprobs": 2}
    answer = post(http, **arguments)
    logprobs = answer["output"][0]["content"][0]["logprobs"]
    assert len(logprobs) == answer["usage"]["output_tokens"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in logprobs)
    assert answer["top_logprobs"] == 2
    found = events(http, **arguments)
    streamed = [
        entry for event in found if event["type"] == "response.output_text.delta" for entry in event["logprobs"]
    ]
    assert streamed == logprobs
    assert found[-1]["response"]["output"][0]["content"][0]["logprobs"] == logprobs
    assert post(http)["output"][0]["content"][0]["logprobs"] == []


def test_truncation_drops_the_oldest_turns(http: httpx.Client) -> None:
    limit = http.get("/v1/models/demo").json()["max_model_len"]
    turn = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "Yes."}]
    items = [*turn * (limit // 100), {"role": "user", "content": QUESTION}]
    refused(http, 400, "input_tokens", str(limit), input=items)
    answer = post(http, input=items, instructions="Be short.", truncation="auto")
    assert answer["truncation"] == "auto"
    assert limit // 2 < answer["usage"]["input_tokens"] <= limit - ASKED["max_output_tokens"]
    short = items[-3:]
    assert text(post(http, input=short, truncation="auto")) == text(post(http, input=short))
    long = [{"role": "user", "content": "word " * 10 * limit}]
    refused(http, 400, "input_tokens", str(limit), input=long, truncation="auto")


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": 5}, "input", "`str"),
        ({"input": []}, "input", "empty"),
        ({"input": ["Hello"]}, "input[0]", "`object`"),
        ({"input": [{"role": "user"}]}, "input[0].content", "required"),
        ({"input": [{"role": "wizard", "content": "a"}]}, "input[0].role", "wizard"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]", "multimodal"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]", "multimodal"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "stores no responses"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "function_call_output"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}, "input[0].arguments", "required"),
        (
            {"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]},
            "input[0].call_id",
            "no call with this id",
        ),
        ({"instructions": 5}, "instructions", "`str"),
        ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens must be at least 1"),
        ({"max_output_tokens": 10**9}, "max_output_tokens", "max_output_tokens is 1000000000"),
        ({"max_tokens": 5}, "max_tokens", "max_output_tokens"),
        ({"temperature": 3}, "temperature", "2.0"),
        ({"n": 2}, "n", "one answer"),
        ({"echo": True}, "echo", "takes no echo"),
        ({"response_format": {"type": "json_object"}}, "response_format", "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format", "needs schema"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "nonsense"}}}},
            "text.format",
            "nonsense",
        ),
        ({"text": {"verbosity": "high"}}, "text.verbosity", "not supported"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "stores no responses"),
        ({"conversation": "conv_1"}, "conversation", "stores no responses"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "stores no responses"),
        ({"background": True}, "background", "not supported"),
        ({"max_tool_calls": 3}, "max_tool_calls", "not supported"),
        ({"service_tier": "flex"}, "service_tier", "one tier"),
        ({"truncation": "middle"}, "truncation", "middle"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "not supported"),
        ({"reasoning": {"mode": "pro"}}, "reasoning", "mode"),
        ({"include": ["file_search_call.results"]}, "include[0]", LOGPROBS),
        ({"top_logprobs": 3}, "top_logprobs", LOGPROBS),
        ({"top_logprobs": 21, "include": [LOGPROBS]}, "top_logprobs", "20"),
        ({"metadata": {"a": 5}}, "metadata", "`str`"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options", "stream"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "not supported",
        ),
        ({"use_beam_search": True}, "use_beam_search", "/v1/completions"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "required"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "web_search"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name", "required"),
    ],
)
def test_wrong_value_is_named_by_its_name_here(http: httpx.Client, body: dict[str, Any], param: str, said: str) -> None:
    refused(http, 400, param, said, **body)
    counted, answered = (http.post(path, json={**ASKED, **body}) for path in (f"{PATH}/input_tokens", PATH))
    assert (counted.status_code, counted.json()) == (400, answered.json())


def test_unknown_model_is_404(http: httpx.Client) -> None:
    refused(http, 404, "model", "gpt-5", model="gpt-5")


def test_path_that_looks_like_a_stored_response_tells_what_it_takes(http: httpx.Client) -> None:
    answer = http.put(f"{PATH}/input_tokens")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert http.put(f"{PATH}/resp_1").headers["allow"] == "DELETE, GET, HEAD"


def test_nothing_is_stored(client: OpenAI) -> None:
    answer = client.responses.create(model="demo", input=QUESTION, max_output_tokens=1, store=True)
    id = answer.id
    assert answer.store is False  # pyright: ignore[reportAttributeAccessIssue]
    for call in (
        client.responses.retrieve,
        client.responses.delete,
        client.responses.cancel,
        client.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError, match="stores no responses"):
            call(id)
