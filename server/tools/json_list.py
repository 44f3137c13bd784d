"""The form of calls that any model can be held to where it has none of its own.

Several tools: `[{"name": "f", "parameters": {…}}, …]`, as in vLLM. One that was named: its arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .answer_text import AnswerText, Reading
from .json_call import call_tags, read_json_calls
from .tool_definitions import Tool
from .tool_format import TagFormat, at_least_one, constant, names, sequence


def list_of_calls(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    """The structural tag of a list of calls, arguments held to the schemas."""
    return sequence(constant("["), at_least_one(call_tags(tools, "parameters"), ", ", only_one), constant("]"))


def read_list(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    """Read an answer that is such a list."""
    yield from answer.skip_space()
    if (yield from read_json_calls(answer, names(tools))):
        yield from answer.skip_space()
        answer.end_call()
    else:
        answer.no_call()
    yield from answer.rest_is_content()


def reader_of_arguments(name: str) -> Callable[[AnswerText], Reading[None]]:
    """What reads an answer that is the arguments of one function."""

    def read(answer: AnswerText) -> Reading[None]:
        if not (yield from answer.peek()):
            return
        answer.start_call(name)
        yield from answer.json_value(answer.arguments)
        yield from answer.rest_is_content()

    return read
