"""A call as a JSON object, `{"name": "f", "arguments": {…}}`, which several formats have within their own markup."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from .answer_text import AnswerText, Reading
from .tool_definitions import Tool

ARGUMENTS = ("arguments", "parameters")
"""Names of the arguments; models mix them up."""


def read_json_call(answer: AnswerText, offered: Collection[str] | None = None) -> Reading[bool]:
    """Read a call. False where the text is none, or stops being one; what is then kept is not of a call.

    `offered`: the only names that a call may have, where nothing but the object's form tells it from other JSON. It
    must then also have the name before the arguments, and nothing unusual beside them.
    The arguments are passed on as they come once the name is known. An object without arguments is a call with none.
    """
    call = _Call(answer, offered)
    if not (yield from answer.accept("{")):
        return False
    if (yield from answer.skip_space()) == "}":
        return False
    while True:
        key = yield from _string(answer)
        if key is None or (yield from answer.skip_space()) != ":":
            return False
        yield from answer.accept(":")
        yield from answer.skip_space()
        if not (yield from call.read_value(key)):
            return False
        behind = yield from answer.skip_space()
        if behind == "}":
            yield from answer.accept("}")
            return call.end()
        if behind != ",":
            return False
        yield from answer.accept(",")
        yield from answer.skip_space()


def read_json_calls(answer: AnswerText, offered: Collection[str] | None = None) -> Reading[bool]:
    """Read a list of calls. False where the text is none, or stops being one."""
    if not (yield from answer.accept("[")):
        return False
    yield from answer.skip_space()
    while (yield from read_json_call(answer, offered)):
        answer.end_call()
        behind = yield from answer.skip_space()
        if behind not in ("", ",", "]"):
            return False
        yield from answer.accept(behind)
        if behind != ",":
            return True
        yield from answer.skip_space()
        answer.pass_markup()
    return False


def call_tags(tools: Sequence[Tool], key: str, *, begin: str = "", end: str = "") -> list[dict[str, Any]]:
    """A tag of a structural tag for each tool: a call of it, with `key` for its arguments."""
    return [
        {
            "type": "tag",
            "begin": f'{begin}{{"name": {json.dumps(tool.name)}, "{key}": ',
            "content": {"type": "json_schema", "json_schema": tool.parameters},
            "end": "}" + end,
        }
        for tool in tools
    ]


class _Call:
    """The members of one object, as they are read."""

    def __init__(self, answer: AnswerText, offered: Collection[str] | None) -> None:
        self._answer = answer
        self._offered = offered
        self._name: str | None = None
        self._early: str | None = None
        """Arguments that came before the name."""
        self._has_started = False

    def read_value(self, key: str) -> Reading[bool]:
        """Read the value under a key. False where it cannot be that of a call."""
        if key == "name":
            return (yield from self._read_name())
        if key not in ARGUMENTS:
            return (yield from self._read_other(key))
        if self._has_started or self._early is not None or (self._offered is not None and self._name is None):
            return False
        if self._name is not None and (yield from self._answer.peek()) == "{":
            self._start(self._name)
            return (yield from self._answer.json_value(self._answer.arguments))
        text = yield from self._arguments_text()
        if text is None:
            return False
        if self._name is None:
            self._early = text
        else:
            self._start(self._name)
            self._answer.arguments(text)
        return True

    def end(self) -> bool:
        """The object is complete: whether it is a call."""
        if self._has_started:
            return True
        if self._name is None:
            return False
        self._start(self._name)
        self._answer.arguments("{}")
        return True

    def _read_name(self) -> Reading[bool]:
        name = yield from _string(self._answer)
        if not name or self._name is not None or (self._offered is not None and name not in self._offered):
            return False
        self._name = name
        self._answer.name_call(name)
        if self._early is not None:
            self._start(name)
            self._answer.arguments(self._early)
        return True

    def _read_other(self, key: str) -> Reading[bool]:
        """Read a member that has no part in the call."""
        if self._offered is None:
            return (yield from _skipped(self._answer))
        value = yield from _string(self._answer)
        return value is not None and (key == "id" or (key, value) == ("type", "function"))

    def _start(self, name: str) -> None:
        self._has_started = True
        self._answer.start_call(name)

    def _arguments_text(self) -> Reading[str | None]:
        """Arguments that do not stream: an object, the JSON text of one as a string, or null."""
        first = yield from self._answer.peek()
        if first == '"':
            text = yield from _string(self._answer)
            return text if text is not None and _is_object(text) else None
        if first == "n":
            return "{}" if (yield from self._answer.accept("null")) else None
        pieces: list[str] = []
        if first != "{" or not (yield from self._answer.json_value(pieces.append)):
            return None
        return "".join(pieces)


def _string(answer: AnswerText) -> Reading[str | None]:
    """Read a JSON string; None where there is none, or half a character in it."""
    if (yield from answer.peek()) != '"':
        return None
    pieces: list[str] = []
    if not (yield from answer.json_value(pieces.append)):
        return None
    text = json.loads("".join(pieces))
    return None if any("\ud800" <= character <= "\udfff" for character in text) else text


def _skipped(answer: AnswerText) -> Reading[bool]:
    """Read a value that does not matter."""
    first = yield from answer.peek()
    if first and first in '{["':
        return (yield from answer.json_value(lambda text: None))
    return bool((yield from answer.run_of(lambda character: character.isalnum() or character in "+-.")))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
