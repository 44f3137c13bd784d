"""Server-sent events: whatever the text of an answer, its events bring it whole, wherever the network cuts them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

CASES = 12
SNARES = (
    *("\n", "\r", "\r\n", "\n\n", "\0", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", "\ufeff", " "),
    *("data: ", "data:", "event: done\n\n", "\n\ndata: [DONE]\n\n", "id: 1", "retry: 0", ":", ": keep-alive\n\n"),
    *("\U0001f600", "\U0001f469\u200d\U0001f680", "e\u0301", "é", "\u4e2d", "\U0010ffff", '"', "\\", "\\n", "\ufffd"),
)
"""What means something to a reader of lines or of JSON."""
TEXTS = st.lists(st.sampled_from(SNARES) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map(
    "".join
)
CUTS = st.lists(st.floats(0, 1), max_size=12)
"""Where the bytes of a stream are cut, from its beginning to its end."""
MESSAGES = [{"role": "user", "content": "Say it."}]


@dataclass(frozen=True)
class Event:
    """As the standard has it."""

    type: str
    data: str


def events_of_standard(stream: bytes) -> Iterator[Event]:
    """The events of a whole stream, by the steps of WHATWG's standard."""
    type_, data = "", list[str]()
    *lines, rest = re.split("\r\n|\n|\r", stream.decode().removeprefix("\ufeff"))
    assert rest == ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(type_ or "message", "\n".join(data))
            type_, data = "", []
        elif name == "event":
            type_ = value
        elif name == "data":
            data.append(value)


def events_of_sdk(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Those of a stream as it arrives, by the decoder of the SDK."""
    for event in SSEDecoder().iter_bytes(iter(chunks)):
        yield Event(event.event or "message", event.data)


def cut(stream: bytes, places: list[float]) -> list[bytes]:
    ends = [0, *sorted(int(place * len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


def constrained(text: str) -> dict[str, Any]:
    return {"guided_choice": [text], "max_tokens": 400}


def calling(text: str) -> dict[str, Any]:
    """A conversation whose answer is a call with the text in its arguments."""
    parameters = {"type": "object", "properties": {"said": {"const": text}}, "required": ["said"]}
    function = {"name": "say", "parameters": parameters}
    choice = {"type": "function", "function": {"name": "say"}}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": choice, "max_tokens": 400, "seed": 1}


def arguments_of(call: dict[str, Any]) -> str:
    return (call.get("function") or {}).get("arguments") or ""


@dataclass(frozen=True)
class Door:
    """An endpoint that streams: a request for a text, and where it stands."""

    path: str
    body: Callable[[str], dict[str, Any]]
    whole: Callable[[Any], str]
    """The text of an answer that is not streamed."""
    piece: Callable[[Any], str]
    """The text in an event."""
    said: Callable[[str], str] = str
    """What the text was to say."""


DOORS = {
    "completions": Door(
        "/v1/completions",
        lambda text: {"prompt": "Say it:", **constrained(text)},
        lambda answer: answer["choices"][0]["text"],
        lambda event: "".join(choice["text"] for choice in event["choices"]),
    ),
    "echo": Door(
        "/v1/completions",
        lambda text: {"prompt": text, "echo": True, "max_tokens": 0},
        lambda answer: answer["choices"][0]["text"],
        lambda event: "".join(choice["text"] for choice in event["choices"]),
    ),
    "chat": Door(
        "/v1/chat/completions",
        lambda text: {"messages": MESSAGES, **constrained(text)},
        lambda answer: answer["choices"][0]["message"]["content"],
        lambda event: "".join(choice["delta"].get("content") or "" for choice in event["choices"]),
    ),
    "tools": Door(
        "/v1/chat/completions",
        lambda text: {"messages": MESSAGES, **calling(text)},
        lambda answer: arguments_of(answer["choices"][0]["message"]["tool_calls"][0]),
        lambda event: "".join(
            arguments_of(call) for choice in event["choices"] for call in choice["delta"].get("tool_calls") or ()
        ),
        said=lambda arguments: json.loads(arguments)["said"],
    ),
    "responses": Door(
        "/v1/responses",
        lambda text: {"input": "Say it.", "guided_choice": [text], "max_output_tokens": 400},
        lambda answer: answer["output"][0]["content"][0]["text"],
        lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
    ),
    "messages": Door(
        "/v1/messages",
        lambda text: {"messages": MESSAGES, **constrained(text)},
        lambda answer: answer["content"][0]["text"],
        lambda event: event["delta"]["text"] if event["type"] == "content_block_delta" else "",
    ),
}


def ask(http: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response


def joined(door: Door, stream: bytes, places: list[float]) -> str:
    """The text of the stream, which both readers find in it, however it is cut."""
    events = list(events_of_standard(stream))
    for chunks in (cut(stream, places), [bytes([byte]) for byte in stream]):
        assert list(events_of_sdk(chunks)) == events
    data = [event.data for event in events]
    if data[-1] == "[DONE]":
        data.pop()
    objects = [json.loads(text) for text in data]
    named = [(event.type, item["type"]) for event, item in zip(events, objects, strict=False) if "type" in item]
    assert all(name == type_ for name, type_ in named)
    return "".join(map(door.piece, objects))


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_any_text_comes_through_a_stream(http: httpx.Client, door: Door) -> None:
    @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(text=TEXTS, places=CUTS)
    @example(text="".join(SNARES), places=[0.5])
    def check(text: str, places: list[float]) -> None:
        body = door.body(text)
        streamed = joined(door, ask(http, door.path, {**body, "stream": True}).content, places)
        assert streamed == door.whole(ask(http, door.path, body).json())
        assert door.said(streamed) == text

    check()


@pytest.mark.parametrize("name", ["completions", "chat"])
def test_halves_of_characters_are_the_same_in_a_stream(http: httpx.Client, name: str) -> None:
    """Tokens that each are a part of a character, in any order."""
    door = DOORS[name]
    parts = ask(http, "/tokenize", {"prompt": "\U0001f600\U00010348\u4e2dé", "add_special_tokens": False}).json()[
        "tokens"
    ]

    @settings(max_examples=CASES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32), places=CUTS)
    def check(seed: int, places: list[float]) -> None:
        asked = {"allowed_token_ids": parts, "temperature": 2.0, "seed": seed, "max_tokens": 24, "ignore_eos": True}
        body = {**door.body("x"), "guided_choice": None, **asked}
        whole = door.whole(ask(http, door.path, body).json())
        assert "\ufffd" in whole
        assert joined(door, ask(http, door.path, {**body, "stream": True}).content, places) == whole

    check()
