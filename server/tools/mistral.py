"""Mistral: `[TOOL_CALLS][{"name": "f", "arguments": {…}}, …]` behind the text, or, in newer models,
`[TOOL_CALLS]f[ARGS]{…}` for each call (also without `[ARGS]`).
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

from .answer_text import AnswerText, Reading
from .json_call import call_tags, read_json_calls
from .tool_definitions import NAME, Tool
from .tool_format import TagFormat, ToolFormat, at_least_one, constant, sequence

MARK = "[TOOL_CALLS]"


def _read(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    while (yield from answer.content_until(MARK)):
        if (yield from answer.skip_space()) == "[":
            is_call = yield from read_json_calls(answer)
        else:
            is_call = yield from _read_named(answer)
        if is_call:
            yield from answer.skip_space()
            answer.end_call()
        else:
            answer.no_call()


def _read_named(answer: AnswerText) -> Reading[bool]:
    """Read a call of the newer form; False where the text is none, or stops being one."""
    name = yield from answer.run_of(lambda character: NAME.fullmatch(character) is not None)
    if not NAME.fullmatch(name):
        return False
    if (yield from answer.accept("[CALL_ID]")):
        yield from answer.run_of(str.isalnum)
    yield from answer.accept("[ARGS]")
    if (yield from answer.skip_space()) != "{":
        return False
    answer.start_call(name)
    return (yield from answer.json_value(answer.arguments))


def _calls(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    return sequence(constant(f"{MARK} ["), _list(tools, only_one), constant("]"))


def _free(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    tag = {"type": "tag", "begin": f"{MARK} [", "content": _list(tools, only_one), "end": "]"}
    return {"type": "triggered_tags", "triggers": [MARK], "tags": [tag], "stop_after_first": True}


def _list(tools: Sequence[Tool], only_one: bool) -> TagFormat:
    return at_least_one(call_tags(tools, "arguments"), ", ", only_one)


def _call_id() -> str:
    """Mistral's templates refuse any id that is not of nine letters and digits."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=9))


MISTRAL = ToolFormat(
    name="mistral",
    read=_read,
    calls=_calls,
    free=_free,
    shown_by=lambda template: MARK in template,
    mark=MARK,
    make_id=_call_id,
)
