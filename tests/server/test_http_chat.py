"""POST /v1/chat/completions through the OpenAI SDK and on the wire."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.running_server import RunningServer
from tests.sdk_types import read_chat_completion, read_chat_event

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def client(server: RunningServer) -> OpenAI:
    return server.openai()


def ask(server: RunningServer, **body: Any) -> httpx.Response:
    body = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0, **body}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=server.headers, timeout=60)


def post(server: RunningServer, **body: Any) -> dict[str, Any]:
    response = ask(server, **body)
    assert response.status_code == 200, response.text
    read_chat_completion(response.json())
    return response.json()


def events(server: RunningServer, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream; checks each of them, and that it ends with `[DONE]` and nothing behind it."""
    response = ask(server, stream=True, **body)
    assert response.status_code == 200, response.text
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    found = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    for event in found:
        read_chat_event(event)
    return found


def test_answer_has_the_shape_of_the_api(server: RunningServer) -> None:
    answer = post(server, ignore_eos=True)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["completion_tokens"] == 8
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["message"]["refusal"] is None
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)


def test_stream_begins_with_the_role_and_ends_with_the_reason(server: RunningServer) -> None:
    whole = post(server)["choices"][0]
    first, *middle, last = events(server)
    assert list(first) == ["id", "object", "created", "model", "choices"]
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert all("role" not in event["choices"][0]["delta"] for event in [*middle, last])
    assert all(event["choices"][0]["finish_reason"] is None for event in middle)
    assert last["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert "stop_reason" in last["choices"][0]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in [first, *middle, last])
    assert text == whole["message"]["content"]
    assert len({(event["id"], event["created"]) for event in [first, *middle, last]}) == 1


def test_sdk_reads_answers_and_streams(client: OpenAI) -> None:
    arguments: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "temperature": 0, "max_completion_tokens": 8}
    whole = client.chat.completions.create(**arguments)
    stream = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **arguments)
    text, usage = "", None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
    assert text == whole.choices[0].message.content
    assert usage == whole.usage


def test_each_choice_of_a_stream_has_its_role_event_and_ends_once(server: RunningServer) -> None:
    arguments = {"n": 3, "temperature": 1.2, "seed": 4, "max_tokens": 5, "ignore_eos": True}
    whole = [choice["message"]["content"] for choice in post(server, **arguments)["choices"]]
    stream = events(server, **arguments)
    choices = [event["choices"][0] for event in stream]
    for index in range(3):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert [choice["finish_reason"] for choice in own].count("length") == 1
        assert own[-1]["finish_reason"] == "length"
        assert "".join(choice["delta"].get("content", "") for choice in own) == whole[index]


def test_max_completion_tokens_wins_over_max_tokens(server: RunningServer) -> None:
    answer = post(server, max_tokens=9, max_completion_tokens=2, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 2


def test_logprobs_name_tokens_bytes_and_the_most_likely(server: RunningServer) -> None:
    arguments = {"logprobs": True, "top_logprobs": 3, "return_token_ids": True}
    choice = post(server, **arguments)["choices"][0]
    content = choice["logprobs"]["content"]
    assert len(content) == len(choice["token_ids"])
    for entry in content:
        assert len(entry["top_logprobs"]) == 3
        ordered = [top["logprob"] for top in entry["top_logprobs"]]
        assert ordered == sorted(ordered, reverse=True)
        assert entry["logprob"] == ordered[0]  # greedy
    text = b"".join(bytes(entry["bytes"]) for entry in content).decode(errors="replace")
    assert text.startswith(choice["message"]["content"])
    streamed = [
        entry
        for event in events(server, **arguments)
        for entry in (event["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == content


def test_logprobs_without_top_logprobs_has_the_chosen_token_alone(server: RunningServer) -> None:
    content = post(server, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert content
    assert all(entry["top_logprobs"] == [] for entry in content)


def test_content_may_be_parts(server: RunningServer) -> None:
    parts = [{"type": "text", "text": MESSAGES[0]["content"]}]
    assert post(server, messages=[{"role": "user", "content": parts}])["choices"] == post(server)["choices"]


def test_template_of_the_request_makes_the_prompt(server: RunningServer) -> None:
    answer = post(server, chat_template=TEMPLATE, return_prompt_text=True, max_tokens=1)
    assert answer["prompt_text"] == "user: What is the capital of France?\n"
    kwargs = {"chat_template": "{{ greeting }}", "chat_template_kwargs": {"greeting": "Hello"}}
    assert post(server, return_prompt_text=True, max_tokens=1, **kwargs)["prompt_text"] == "Hello"
    documents = {"chat_template": "{{ documents[0].title }}", "documents": [{"title": "T", "text": "x"}]}
    assert post(server, return_prompt_text=True, max_tokens=1, **documents)["prompt_text"] == "T"


def test_final_message_is_continued_and_echoed(server: RunningServer) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "The capital of"}]
    arguments = {"messages": messages, "continue_final_message": True, "return_prompt_text": True}
    plain = post(server, **arguments)
    assert plain["prompt_text"].endswith("The capital of")
    assert plain["choices"][0]["message"]["role"] == "assistant"
    text = plain["choices"][0]["message"]["content"]
    echoed = post(server, echo=True, **arguments)["choices"][0]["message"]["content"]
    assert echoed == "The capital of" + text
    stream = events(server, echo=True, messages=messages, continue_final_message=True)
    deltas = [event["choices"][0]["delta"] for event in stream]
    assert deltas[:2] == [{"role": "assistant", "content": ""}, {"content": "The capital of"}]
    assert "".join(delta.get("content", "") for delta in deltas) == echoed


def test_generation_prompt_may_be_left_out(server: RunningServer) -> None:
    with_it = post(server, return_prompt_text=True)
    without = ask(server, add_generation_prompt=False, return_prompt_text=True).json()
    assert without["choices"][0]["message"]["role"] == "user"  # the answer goes on with the last message
    assert with_it["prompt_text"].startswith(without["prompt_text"])
    assert len(with_it["prompt_text"]) > len(without["prompt_text"])


def test_prompt_logprobs_stand_beside_the_choices(server: RunningServer) -> None:
    answer = post(server, prompt_logprobs=1, return_token_ids=True)
    assert len(answer["prompt_logprobs"]) == len(answer["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]


def test_system_developer_and_tool_roles_are_taken(server: RunningServer) -> None:
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "1", "content": "result"},
        {"role": "user", "content": "And now?", "name": "somebody"},
    ]
    assert post(server, messages=messages)["choices"][0]["message"]["role"] == "assistant"


def test_whole_answer_has_exactly_the_keys_of_the_api(server: RunningServer) -> None:
    answer = post(server)
    assert list(answer) == [
        *("id", "object", "created", "model", "choices", "usage", "prompt_logprobs"),
        *("system_fingerprint", "service_tier"),
    ]
    assert [answer[name] for name in ("prompt_logprobs", "system_fingerprint", "service_tier")] == [None] * 3
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason", "stop_reason"]
    message = choice["message"]
    nulls = {name: value for name, value in message.items() if name not in ("role", "content")}
    assert nulls == dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))


def test_usage_event_comes_last_and_has_no_choices(server: RunningServer) -> None:
    whole = post(server, n=2)
    *others, last = events(server, n=2, stream_options={"include_usage": True})
    assert all(event["usage"] is None for event in others)
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert not any("usage" in event for event in events(server, n=2))
    running = events(server, stream_options={"include_usage": True, "continuous_usage_stats": True})
    counts = [event["usage"]["completion_tokens"] for event in running]
    assert counts == sorted(counts)
    assert counts[0] == 0  # the role
    assert counts[-1] == counts[-2]


def test_tokens_may_be_written_as_ids(server: RunningServer) -> None:
    arguments = {"logprobs": True, "top_logprobs": 1, "return_tokens_as_token_ids": True, "return_token_ids": True}
    choice = post(server, **arguments)["choices"][0]
    written = [f"token_id:{token_id}" for token_id in choice["token_ids"]]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == written
    assert [entry["top_logprobs"][0]["token"] for entry in choice["logprobs"]["content"]] == written


def test_token_ids_stand_beside_the_texts(server: RunningServer) -> None:
    whole = post(server, return_token_ids=True)
    prompt = httpx.post(
        f"{server.url}/tokenize", json={"messages": MESSAGES}, headers=server.headers, timeout=60
    ).json()
    assert whole["prompt_token_ids"] == prompt["tokens"]
    body = {"tokens": whole["choices"][0]["token_ids"]}
    text = httpx.post(f"{server.url}/detokenize", json=body, headers=server.headers, timeout=60).json()["prompt"]
    assert text.startswith(whole["choices"][0]["message"]["content"])
    stream = events(server, return_token_ids=True)
    told = [token_id for event in stream for token_id in event["choices"][0].get("token_ids", [])]
    assert told == whole["choices"][0]["token_ids"]
