"""What a parser of tool calls makes of an answer's text, in order."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Content(msgspec.Struct, frozen=True):
    """Text for the user."""

    text: str


class ToolCallStart(msgspec.Struct, frozen=True):
    """A call begins; its arguments follow."""

    index: int
    """Number of the call in its answer, from 0."""
    id: str
    name: str


class ToolCallArguments(msgspec.Struct, frozen=True):
    """The next piece of a call's arguments, which together are the text of a JSON object."""

    index: int
    text: str


Piece = Content | ToolCallStart | ToolCallArguments


class ToolCall(msgspec.Struct):
    """A whole call."""

    id: str
    name: str
    arguments: str
    """JSON text of an object; the beginning of one where the answer was cut."""


def gathered(pieces: Iterable[Piece]) -> tuple[str, list[ToolCall]]:
    """The content and the calls that all pieces of an answer make together."""
    content: list[str] = []
    calls: list[tuple[ToolCallStart, list[str]]] = []
    for piece in pieces:
        match piece:
            case Content(text):
                content.append(text)
            case ToolCallStart():
                calls.append((piece, []))
            case ToolCallArguments(index, text):
                calls[index][1].append(text)
    return "".join(content), [ToolCall(start.id, start.name, "".join(texts)) for start, texts in calls]
