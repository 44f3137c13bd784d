"""Llama 3: the answer is `{"name": "f", "parameters": {…}}`, or several with `;` between them.

`<|python_tag|>` may stand before it, and then text before that. An object is a call only if it names a tool of the
request: without the tag nothing else tells a call from an answer that is JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from .answer_text import AnswerText, Reading
from .json_call import call_tags, read_json_call
from .tool_definitions import Tool
from .tool_format import TagFormat, ToolFormat, at_least_one, either, names, regex, sequence

TAG = "<|python_tag|>"


def _read(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    yield from answer.skip_space()
    yield from _read_calls(answer, tools)
    while (yield from answer.content_until(TAG)):
        yield from _read_calls(answer, tools)


def _read_calls(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    """Read calls, if the text goes on with one."""
    offered = names(tools)
    yield from answer.accept(TAG)
    yield from answer.skip_space()
    while (yield from read_json_call(answer, offered)):
        answer.pass_markup()
        behind = yield from answer.skip_space()
        answer.end_call()
        if behind not in (";", ","):
            return
        yield from answer.accept(behind)
        if (yield from answer.skip_space()) in ("", "{"):
            answer.pass_markup()
    answer.no_call()


def _calls(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    return at_least_one(call_tags(tools, "parameters"), "; ", only_one)


def _free(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    text = sequence(regex(r"\s*([^\s{<]|<[^|])"), {"type": "any_text", "excludes": [TAG]})
    return either(_calls(tools, only_one), regex(r"\s*<?"), text)


_EXPLAINED = '"name": function name, "parameters":'
"""From the sentence by which Llama's templates explain the format."""

LLAMA3_JSON = ToolFormat(
    name="llama3_json",
    read=_read,
    calls=_calls,
    free=_free,
    shown_by=lambda template: _EXPLAINED in template,
)
