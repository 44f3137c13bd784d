"""Qwen 3 Coder: each parameter in a tag of its own, anywhere in the text.

    <tool_call>
    <function=f>
    <parameter=a>
    value
    </parameter>
    </function>
    </tool_call>

Models forget the outer tag at times. The function's schema tells how a value is to be read: strings stand there as they
are, all else as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .answer_text import AnswerText, Reading
from .parameter_types import ANNOTATIONS, DEFINITIONS, Parameter, is_any_string, plain_parameters, types_of
from .tool_definitions import NAME, Tool
from .tool_format import TagFormat, ToolFormat, at_least_one, constant, either, sequence

BEGIN, END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"

_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


def _read(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    by_name = {tool.name: tool for tool in tools}
    while mark := (yield from answer.content_until(BEGIN, FUNCTION)):
        if mark == BEGIN:
            yield from answer.skip_space()
        if (mark == BEGIN and not (yield from answer.accept(FUNCTION))) or not (
            yield from _read_function(answer, by_name)
        ):
            answer.no_call()
            continue
        answer.pass_markup()
        yield from answer.skip_space()
        if (yield from answer.accept(END)):
            yield from answer.skip_space()
            answer.end_call()
        else:
            answer.no_call()


def _read_function(answer: AnswerText, tools: dict[str, Tool]) -> Reading[bool]:
    """Read from the function's name to its end."""
    name = yield from answer.run_of(lambda character: NAME.fullmatch(character) is not None)
    if not NAME.fullmatch(name) or not (yield from answer.accept(">")):
        return False
    tool = tools.get(name)
    properties = tool.parameters.get("properties") if tool else None
    schemas: dict[str, Any] = properties if isinstance(properties, dict) else {}
    definitions = tool.parameters if tool else {}
    answer.start_call(name)
    given: set[str] = set()
    while True:
        yield from answer.skip_space()
        if (yield from answer.accept(FUNCTION_END)):
            answer.arguments("}" if given else "{}")
            return True
        if not (yield from answer.accept(PARAMETER)):
            return False
        parameter = yield from answer.run_of(lambda character: character not in "<>\n")
        if not parameter or parameter in given or not (yield from answer.accept(">")):
            return False
        yield from answer.accept("\n")
        answer.arguments(f"{', ' if given else '{'}{json.dumps(parameter, ensure_ascii=False)}: ")
        given.add(parameter)
        if not (yield from _read_value(answer, types_of(schemas.get(parameter), definitions))):
            return False


def _read_value(answer: AnswerText, kinds: frozenset[str]) -> Reading[bool]:
    """Read a value and the end of its parameter."""
    if kinds <= {"string"}:
        answer.arguments('"')
        text = _WithoutLastNewline(lambda text: answer.arguments(json.dumps(text, ensure_ascii=False)[1:-1]))
        if not (yield from answer.until(PARAMETER_END, text.add)):
            return False
        answer.arguments('"')
        return True
    pieces: list[str] = []
    if not (yield from answer.until(PARAMETER_END, pieces.append)):
        return False
    answer.arguments(_json("".join(pieces).removesuffix("\n"), kinds))
    return True


class _WithoutLastNewline:
    """Passes text on, but for a line break at its end."""

    def __init__(self, into: Callable[[str], None]) -> None:
        self._into = into
        self._held = ""

    def add(self, text: str) -> None:
        text = self._held + text
        self._held = "\n" if text.endswith("\n") else ""
        text = text.removesuffix("\n")
        if text:
            self._into(text)


def _json(text: str, kinds: frozenset[str]) -> str:
    """The JSON text of a value that may be something else than a string."""
    given = text.strip()
    given = _PYTHON_WORDS.get(given, given)
    try:
        value = msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    fits = {
        str: False,  # strings stand without quotes
        bool: "boolean" in kinds,
        int: bool(kinds & {"integer", "number"}),
        float: "number" in kinds,
        list: "array" in kinds,
        dict: "object" in kinds,
        type(None): "null" in kinds,
    }[type(value)]
    return given if fits or "string" not in kinds else json.dumps(text, ensure_ascii=False)


def _tags(tools: Sequence[Tool]) -> list[TagFormat] | None:
    tags = []
    for tool in tools:
        parameters = plain_parameters(tool)
        values = None if parameters is None else [_parameter(parameter) for parameter in parameters]
        if values is None or None in values:
            return None
        content = sequence(constant(""), *(value for value in values if value is not None))
        begin, end = f"{BEGIN}\n{FUNCTION}{tool.name}>\n", f"{FUNCTION_END}\n{END}"
        tags.append({"type": "tag", "begin": begin, "content": content, "end": end})
    return tags


def _parameter(parameter: Parameter) -> TagFormat | None:
    """The whole of a parameter; None where its values cannot be held to their schema in this form."""
    value = _value(parameter.schema)
    if value is None:
        return None
    begin = f"{PARAMETER}{parameter.name}>\n"
    end = PARAMETER_END if value["type"] == "any_text" else f"\n{PARAMETER_END}"
    whole = sequence({"type": "tag", "begin": begin, "content": value, "end": end}, constant("\n"))
    return whole if parameter.is_required else {"type": "optional", "content": whole}


def _value(schema: dict[str, Any]) -> TagFormat | None:
    if is_any_string(schema):
        return {"type": "any_text"}
    kinds = types_of(schema, schema)
    if kinds and "string" not in kinds:
        return {"type": "json_schema", "json_schema": schema}
    texts = schema.get("enum")
    words = set(schema) - DEFINITIONS - ANNOTATIONS
    if not isinstance(texts, list) or not texts or words - {"type", "enum"}:
        return None
    if all(isinstance(text, str) and text == text.strip("\n") and PARAMETER_END not in text for text in texts):
        return either(*map(constant, texts))
    return None


def _calls(tools: Sequence[Tool], only_one: bool) -> TagFormat | None:
    tags = _tags(tools)
    return None if tags is None else at_least_one(tags, "\n", only_one)


def _free(tools: Sequence[Tool], only_one: bool) -> TagFormat | None:
    tags = _tags(tools)
    if tags is None:
        return None
    # A call may begin without <tool_call>; here it may not.
    return {
        "type": "triggered_tags",
        "triggers": [BEGIN],
        "tags": tags,
        "excludes": [FUNCTION],
        "stop_after_first": only_one,
    }


QWEN3_XML = ToolFormat(
    name="qwen3_xml",
    read=_read,
    calls=_calls,
    free=_free,
    shown_by=lambda template: FUNCTION in template and PARAMETER in template,
    mark=BEGIN,
)
