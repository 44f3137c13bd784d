"""Hermes, Qwen 2.5 and Qwen 3: `<tool_call>{"name": "f", "arguments": {…}}</tool_call>`, anywhere in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .answer_text import AnswerText, Reading
from .json_call import call_tags, read_json_call
from .tool_definitions import Tool
from .tool_format import TagFormat, ToolFormat, at_least_one

BEGIN, END = "<tool_call>", "</tool_call>"


def _read(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    while (yield from answer.content_until(BEGIN)):
        yield from answer.skip_space()
        if not (yield from read_json_call(answer)):
            answer.no_call()
            continue
        answer.pass_markup()
        yield from answer.skip_space()
        if (yield from answer.accept(END)):
            yield from answer.skip_space()
            answer.end_call()
        else:
            answer.no_call()


def _tags(tools: Sequence[Tool]) -> list[TagFormat]:
    return call_tags(tools, "arguments", begin=f"{BEGIN}\n", end=f"\n{END}")


def _calls(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    return at_least_one(_tags(tools), "\n", only_one)


def _free(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    return {"type": "triggered_tags", "triggers": [BEGIN], "tags": _tags(tools), "stop_after_first": only_one}


def _is_shown(template: str) -> bool:
    """Other formats have the same tag, but no JSON object in it."""
    return BEGIN in template and "<function=" not in template and _ARGUMENTS.search(template) is not None


_ARGUMENTS = re.compile(r'\\?"arguments\\?":')

HERMES = ToolFormat(
    name="hermes",
    read=_read,
    calls=_calls,
    free=_free,
    shown_by=_is_shown,
    mark=BEGIN,
)
