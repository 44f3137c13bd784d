"""Requests of every kind that a server on the demo model answers, and what of an answer must be the same each time.

`good_requests` are greedy or seeded, so each has one right answer: `content` takes from what came back all that a
disturbance must not change. `bad_requests` are each refused with a status. `slow_grammar` makes a constraint that
nobody has asked for yet and that takes long to compile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

OK = 200
_TOWN = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 16}, "size": {"type": "integer"}},
    "required": ["name", "size"],
}
_TOOLS = [{"type": "function", "function": {"name": "find_town", "description": "Finds a town.", "parameters": _TOWN}}]
_LIST = '{"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 12, "maxItems": 12}'
_VOLATILE = frozenset(
    ("id", "created", "created_at", "completed_at", "call_id", "item_id", "usage", "model", "metrics")
)
"""Fields that differ from answer to answer, or with what happened to be in the prefix cache."""


@dataclass(frozen=True)
class MixedRequest:
    """One POST."""

    kind: str
    path: str
    body: bytes
    status: int = OK
    """What it is answered."""

    @property
    def is_stream(self) -> bool:
        return b'"stream": true' in self.body


def good_requests() -> list[MixedRequest]:
    """One of each kind and seed."""
    return [*_completions(), *_chats(), *_other_apis()]


def burst_request(number: int) -> MixedRequest:
    """A short one, as a crowd sends it."""
    return _request("burst", "/v1/completions", prompt=f"{number}: Hello", max_tokens=4, ignore_eos=True, temperature=0)


def slow_grammar(number: int) -> MixedRequest:
    """Its compilation takes seconds."""
    letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
    pattern = f"{letters}([a-z]{{1,40}}(foo|bar)[^q]{{0,40}}){{1,60}}"
    return _request("slow grammar", "/v1/completions", prompt="Say", max_tokens=4, guided_regex=pattern)


def bad_requests() -> list[MixedRequest]:
    """One for each way to be wrong."""
    completions, chat = "/v1/completions", "/v1/chat/completions"
    return [
        MixedRequest("no JSON", completions, b'{"prompt": "Hello', 400),
        MixedRequest("no UTF-8", completions, b'{"prompt": "\xff"}', 400),
        MixedRequest("too deep", chat, b'{"messages": ' + b"[" * 5000, 400),
        _request("no prompt", completions, 400, max_tokens=4),
        _request("wrong type", completions, 400, prompt="a", max_tokens="many"),
        _request("out of range", completions, 400, prompt="a", temperature=-1),
        _request("too long", completions, 400, prompt="word " * 9000),
        _request("no such model", completions, 404, prompt="a", model="nobody"),
        _request("no such path", "/v1/nothing", 404, prompt="a"),
        _request("broken regex", completions, 400, prompt="a", guided_regex="(["),
        _request("broken schema", chat, 400, messages=_messages("a"), guided_json={"type": "nothing"}),
        _request("no messages", chat, 400, messages=[]),
        _request("template that fails", chat, 400, messages=_messages("a"), chat_template="{{ 1 / 0 }}"),
    ]


def content(request: MixedRequest, body: bytes) -> str:
    """What must be the same in each answer. Raises ValueError for an answer that is broken off or tells of an error."""
    if not request.is_stream:
        return json.dumps(_without_volatile(json.loads(body)), sort_keys=True)
    pieces: dict[str, str] = {}
    is_complete = False
    for data in _events(body):
        if data == "[DONE]":
            is_complete = True
            continue
        event = json.loads(data)
        if event.get("error") or event.get("type") in ("error", "response.failed"):
            raise ValueError(f"the stream tells of an error: {data[:200]}")
        is_complete = is_complete or event.get("type") in ("message_stop", "response.completed")
        for place, text in _texts(event):
            pieces[place] = pieces.get(place, "") + text
    if not is_complete:
        raise ValueError("the stream broke off")
    return json.dumps(pieces, sort_keys=True)


def _completions() -> Iterator[MixedRequest]:
    kinds: dict[str, dict[str, Any]] = {
        "completion": {"temperature": 0},
        "seeded, n 2": {"n": 2, "top_p": 0.9},
        "logprobs": {"logprobs": 2, "top_k": 40},
        "stop, penalties": {"stop": ["zq"], "repetition_penalty": 1.2, "frequency_penalty": 0.4},
        "regex": {"guided_regex": "([a-z]{2,9} ){20}"},
        "JSON": {"guided_json": json.loads(_LIST), "max_tokens": 300},
        "choice": {"guided_choice": ["red", "green", "blue as the sea"]},
        "grammar": {"guided_grammar": 'root ::= ("ab" | "cd"){3,30} "."'},
    }
    for seed in (1, 2):
        for kind, fields in kinds.items():
            for stream in (True, False):
                common = {"prompt": f"Question {seed}: where is Paris?", "seed": seed, "max_tokens": 60 * seed}
                if "guided" not in "".join(fields):
                    common["ignore_eos"] = True
                yield _request(kind, "/v1/completions", **{**common, "stream": stream, **fields})
    beams = {"use_beam_search": True, "n": 3, "max_tokens": 24, "temperature": 0}
    yield _request("beam search", "/v1/completions", prompt="The capital of France is", **beams)
    best = {"best_of": 3, "seed": 5, "max_tokens": 40, "temperature": 1.0}
    yield _request("best of 3", "/v1/completions", prompt="The capital of France is", **best)
    scored = {"echo": True, "logprobs": 1, "max_tokens": 4, "temperature": 0}
    yield _request("long prompt", "/v1/completions", prompt="The capital of France is Paris. " * 60, **scored)


def _chats() -> Iterator[MixedRequest]:
    schema = {"type": "json_schema", "json_schema": {"name": "town", "schema": _TOWN}}
    named = {"type": "function", "function": {"name": "find_town"}}
    kinds: dict[str, dict[str, Any]] = {
        "chat": {"temperature": 0},
        "chat, n 2": {"n": 2, "temperature": 1.0},
        "chat, JSON Schema": {"response_format": schema},
        "tools, required": {"tools": _TOOLS, "tool_choice": "required"},
        "tools, named": {"tools": _TOOLS, "tool_choice": named},
    }
    for kind, fields in kinds.items():
        for stream in (True, False):
            common = {"messages": _messages("What is the capital of Italy?"), "seed": 3, "max_tokens": 80}
            yield _request(kind, "/v1/chat/completions", **{**common, "stream": stream, **fields})
    template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
    brought = {"chat_template": template, "max_tokens": 20, "temperature": 0}
    yield _request("template", "/v1/chat/completions", messages=_messages("Hello"), **brought)


def _other_apis() -> Iterator[MixedRequest]:
    for stream in (True, False):
        answer = {"input": "What is the capital of Spain?", "max_output_tokens": 40, "temperature": 0}
        yield _request("responses", "/v1/responses", **answer, stream=stream)
        message = {"messages": _messages("What is the capital of Spain?"), "max_tokens": 40, "temperature": 0}
        yield _request("messages", "/v1/messages", **message, stream=stream)
    yield _request("generate", "/generate", prompt="The capital of France is", max_tokens=16, temperature=0)
    yield _request("embeddings", "/v1/embeddings", input=[f"text {number} " * 9 for number in range(8)])
    yield _request("tokenize", "/tokenize", prompt="How many tokens are these?")


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _request(kind: str, path: str, status: int = OK, **fields: Any) -> MixedRequest:
    if path.startswith("/v1/") and path != "/v1/nothing":
        fields.setdefault("model", "demo")
    return MixedRequest(kind, path, json.dumps(fields).encode(), status)


def _events(body: bytes) -> Iterator[str]:
    for line in body.decode().split("\n"):
        if line.startswith("data: "):
            yield line.removeprefix("data: ").rstrip("\r")


def _texts(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What an event adds to which part of the answer."""
    for choice in event.get("choices") or ():
        place = f"choice {choice['index']}"
        delta = choice.get("delta") or {}
        yield place, choice.get("text") or delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            yield f"{place} call {call['index']}", (function.get("name") or "") + (function.get("arguments") or "")
        if choice.get("finish_reason"):
            yield f"{place} end", choice["finish_reason"]
    if event.get("type") == "response.completed":
        yield "output", json.dumps(_without_volatile(event["response"]["output"]), sort_keys=True)
    elif event.get("type") == "content_block_delta":
        delta = event["delta"]
        yield f"block {event['index']}", delta.get("text") or delta.get("partial_json") or ""


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_volatile(inner) for name, inner in value.items() if name not in _VOLATILE}
    return [_without_volatile(inner) for inner in value] if isinstance(value, list) else value
