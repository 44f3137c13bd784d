"""Llama 3.2 and 4 among others: the answer is a Python list of calls, `[f(a=1, b="x"), g()]`.

Values become JSON; nothing is evaluated (`python_literal.py`). A list is one of calls only if they name tools of the
request, since nothing else tells it from other text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from .answer_text import AnswerText, Reading
from .parameter_types import Parameter, plain_parameters, types_of
from .python_literal import read_literal
from .tool_definitions import NAME, Tool
from .tool_format import TagFormat, ToolFormat, at_least_one, constant, either, names, regex, sequence


def _read(answer: AnswerText, tools: Sequence[Tool]) -> Reading[None]:
    offered = names(tools)
    if (yield from answer.skip_space()) == "[":
        yield from answer.accept("[")
        yield from answer.skip_space()
        while (yield from _read_call(answer, offered)):
            answer.pass_markup()
            behind = yield from answer.skip_space()
            if behind and behind in ",]":
                yield from answer.accept(behind)
                yield from answer.skip_space()
                answer.end_call()
            if behind != ",":
                break
    yield from answer.rest_is_content()


def _read_call(answer: AnswerText, offered: frozenset[str]) -> Reading[bool]:
    name = yield from answer.run_of(lambda character: NAME.fullmatch(character) is not None)
    if name not in offered or not (yield from answer.accept("(")):
        return False
    answer.name_call(name)
    if (yield from answer.skip_space()) == ")":
        yield from answer.accept(")")
        answer.start_call(name)
        answer.arguments("{}")
        return True
    given: set[str] = set()
    while True:
        parameter = yield from answer.run_of(lambda character: character.isalnum() or character == "_")
        yield from answer.skip_space()
        if not parameter.isidentifier() or parameter in given or not (yield from answer.accept("=")):
            return False
        if not given:
            answer.start_call(name)
        answer.arguments(f"{', ' if given else '{'}{json.dumps(parameter, ensure_ascii=False)}: ")
        given.add(parameter)
        yield from answer.skip_space()
        if not (yield from read_literal(answer, answer.arguments)):
            return False
        behind = yield from answer.skip_space()
        if behind == ",":
            yield from answer.accept(",")
            behind = yield from answer.skip_space()
        elif behind != ")":
            return False
        if behind == ")":
            yield from answer.accept(")")
            answer.arguments("}")
            return True


def _calls(tools: Sequence[Tool], only_one: bool) -> TagFormat | None:
    tags = []
    for tool in tools:
        parameters = plain_parameters(tool)
        if parameters is None:
            return None
        tags.append({"type": "tag", "begin": f"{tool.name}(", "content": _arguments(parameters), "end": ")"})
    return sequence(constant("["), at_least_one(tags, ", ", only_one), constant("]"))


def _free(tools: Sequence[Tool], only_one: bool) -> TagFormat | None:
    calls = _calls(tools, only_one)
    return None if calls is None else either(calls, regex(r"(?s:\s*([^\s\[].*)?)"))


def _arguments(parameters: list[Parameter]) -> TagFormat:
    """`a=1, b=2` with the required ones, and the others or not."""
    comma = constant(", ")
    required = next((i for i, parameter in enumerate(parameters) if parameter.is_required), None)
    if required is not None:
        before = [_optional(sequence(_argument(parameter), comma)) for parameter in parameters[:required]]
        return sequence(*before, _argument(parameters[required]), *_behind(parameters[required + 1 :]))
    firsts = [sequence(_argument(parameter), *_behind(parameters[i + 1 :])) for i, parameter in enumerate(parameters)]
    return either(constant(""), *firsts)


def _behind(parameters: list[Parameter]) -> list[TagFormat]:
    """Each of these, with a comma before it."""
    return [
        given if parameter.is_required else _optional(given)
        for parameter in parameters
        for given in [sequence(constant(", "), _argument(parameter))]
    ]


def _argument(parameter: Parameter) -> TagFormat:
    value: TagFormat = {"type": "json_schema", "json_schema": parameter.schema}
    if types_of(parameter.schema, parameter.schema) == {"boolean"} and not {"enum", "const"} & set(parameter.schema):
        value = either(constant("True"), constant("False"))
    return sequence(constant(f"{parameter.name}="), value)


def _optional(content: TagFormat) -> TagFormat:
    return {"type": "optional", "content": content}


PYTHONIC = ToolFormat(
    name="pythonic",
    read=_read,
    calls=_calls,
    free=_free,
    shown_by=lambda template: "[func_name1(" in template,
)
