"""What the tools of a request mean for its answer: what the template shows, what the answer must match, how it is read.

`tools`, `tool_choice` and `parallel_tool_calls` become a `ToolPlan`; `shown_tools` is for the template. The chat
endpoints read each answer with `plan.parser()`; `Generation` has the schemas checked and the answer held to
`plan.constraint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from ...engine_core.errors import InvalidRequestError
from ...engine_core.guided_params import backend_options
from ..constraints.constraint import Constraint
from .answer_text import AnswerText, Reading, call_id
from .formats import FORMATS
from .json_list import list_of_calls, read_list, reader_of_arguments
from .parser import ToolCallParser
from .tool_definitions import Tool, read_tools
from .tool_format import TagFormat, ToolFormat, either
from .tool_settings import ToolSettings

Mode = Literal["none", "auto", "required", "named"]
CHOICES = '"none", "auto", "required", {"type": "function", "function": {"name": …}} or {"type": "allowed_tools", …}'

ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, kw_only=True)
class ToolPlan:
    """What tools mean for the answers to one request."""

    constraint: Constraint | None
    """What each answer must match, its calls among it; None: nothing."""
    schemas: tuple[Constraint, ...]
    """The schema of each tool: to be compiled where the constraint has it, else only looked at."""
    shows_special_tokens: bool
    """Whether the text must show special tokens for the calls in it to be seen."""
    mode: Mode
    read: Callable[[AnswerText], Reading[None]] | None
    make_id: Callable[[], str]
    max_calls: int | None

    def parser(self) -> ToolCallParser | None:
        """What reads one answer; None where answers are content alone."""
        if self.read is None:
            return None
        only_calls = self.mode in ("required", "named")
        return ToolCallParser(self.read, AnswerText(self.make_id, max_calls=self.max_calls, only_calls=only_calls))

    def finish_reason(self, reason: str | None, *, has_calls: bool) -> str | None:
        """The reason to tell for one of the engine's: "tool_calls" for an answer that ended with calls of its own."""
        return "tool_calls" if reason == "stop" and has_calls and self.mode != "named" else reason


def shown_tools(
    settings: ToolSettings, tools: Sequence[dict[str, Any]] | None, tool_choice: str | dict[str, Any] | None = None
) -> list[dict[str, Any]] | None:
    """What the chat template sees of the tools of a request. Raises `InvalidRequestError`."""
    if tools is None:
        return None
    offered = read_tools(tools)
    mode, chosen = _choice(tool_choice, offered)
    if mode == "none" and settings.excludes_tools_when_none:
        return None
    return [tool for tool, read in zip(tools, offered, strict=True) if mode == "named" or read in chosen]


def plan_tools(
    settings: ToolSettings,
    *,
    tools: Sequence[dict[str, Any]] | None,
    tool_choice: str | dict[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
    constraint: Constraint | None = None,
    backend: str = "auto",
) -> ToolPlan | None:
    """The plan of a request with tools; None for one without. Raises `InvalidRequestError` that names the field.

    `constraint` is what the request's other fields ask for, `backend` its guided_decoding_backend.
    """
    if tools is None:
        if tool_choice not in (None, "none"):
            raise InvalidRequestError("tool_choice", "tool_choice needs tools.")
        return None
    offered = read_tools(tools)
    mode, chosen = _choice(tool_choice, offered)
    if mode == "none":
        return _no_calls(offered, constraint)
    only_one = parallel_tool_calls is False
    if mode == "auto":
        answer = _free(settings, chosen, only_one, constraint)
    elif constraint is not None and not _is_json_format(constraint):
        message = (
            f"{constraint.param} cannot hold beside tool_choice {mode!r}, by which the answer is tool calls alone."
        )
        raise InvalidRequestError(constraint.param, message)
    else:
        answer = _held(settings, chosen, mode, only_one)
    format = settings.format
    schemas = [_schema(tool, is_held=tool in answer.held) for tool in offered]
    if constraint is not None and answer.tag is not None:
        schemas.append(constraint)  # the errors of one are clearer than those of all together
    return ToolPlan(
        constraint=_with_options(answer, constraint, backend),
        schemas=tuple(schemas),
        shows_special_tokens=settings.mark_is_special and answer.is_in_format,
        mode=mode,
        read=answer.read,
        make_id=call_id if format is None else format.make_id,
        max_calls=1 if only_one or mode == "named" else None,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """How answers are read, and what they must match."""

    read: Callable[[AnswerText], Reading[None]]
    tag: TagFormat | None
    """Of a structural tag."""
    held: Sequence[Tool]
    """Those whose arguments follow their schemas."""
    is_in_format: bool
    """Whether calls are written as the model writes them by itself."""


def _choice(choice: Any, tools: list[Tool]) -> tuple[Mode, list[Tool]]:
    """What is to be done, and with which tools."""
    if choice is None:
        return "auto", tools
    if choice in ("none", "auto", "required"):
        return choice, tools
    if isinstance(choice, dict) and choice.get("type") == "function":
        return "named", [_named(choice, "tool_choice", tools)]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return _allowed(choice.get("allowed_tools"), tools)
    given = choice.get("type") if isinstance(choice, dict) else choice
    raise InvalidRequestError("tool_choice", f"tool_choice must be {CHOICES}; got {str(given)[:80]!r}.")


def _named(reference: Any, place: str, tools: list[Tool]) -> Tool:
    """The tool that `{"type": "function", "function": {"name": …}}` names."""
    function = reference.get("function") if isinstance(reference, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequestError(place, f'{place} must be {{"type": "function", "function": {{"name": …}}}}.')
    for tool in tools:
        if tool.name == name:
            return tool
    raise InvalidRequestError(f"{place}.function.name", f"{place} names {name[:80]!r}, which is not among the tools.")


def _allowed(allowed: Any, tools: list[Tool]) -> tuple[Mode, list[Tool]]:
    """The choice among a part of the tools."""
    place = "tool_choice.allowed_tools"
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    if mode not in ("auto", "required"):
        raise InvalidRequestError(f"{place}.mode", f'{place}.mode must be "auto" or "required".')
    references = allowed.get("tools")
    if not isinstance(references, list) or not references:
        raise InvalidRequestError(f"{place}.tools", f"{place}.tools must be a list of at least one tool.")
    named = [_named(reference, f"{place}.tools[{index}]", tools) for index, reference in enumerate(references)]
    return mode, [tool for tool in tools if tool in named]


def _no_calls(tools: list[Tool], constraint: Constraint | None) -> ToolPlan:
    """The tools are there, but none is to be called: the answer is text, whatever it looks like."""
    return ToolPlan(
        constraint=constraint,
        schemas=tuple(_schema(tool, is_held=False) for tool in tools),
        shows_special_tokens=False,
        mode="none",
        read=None,
        make_id=call_id,
        max_calls=None,
    )


def _held(settings: ToolSettings, tools: list[Tool], mode: Mode, only_one: bool) -> _Answer:
    """Answers that are calls: in the model's own format where that can hold the arguments to their schemas."""
    format = _writable_format(settings)
    only_one = only_one or mode == "named"
    tag = format.calls(tools, only_one) if format is not None else None
    if format is not None and tag is not None:
        return _Answer(_reader(format, tools), tag, tools, is_in_format=True)
    if mode == "named":
        tag = {"type": "json_schema", "json_schema": tools[0].parameters}
        return _Answer(reader_of_arguments(tools[0].name), tag, tools, is_in_format=False)
    tag = list_of_calls(tools, only_one)
    return _Answer(lambda answer: read_list(answer, tools), tag, tools, is_in_format=False)


def _free(settings: ToolSettings, tools: list[Tool], only_one: bool, constraint: Constraint | None) -> _Answer:
    """Answers that are text with calls in it, or none, as the model likes."""
    format = settings.format
    if format is None or not settings.serves_auto:
        raise InvalidRequestError("tool_choice", _no_auto(settings))
    read = _reader(format, tools)
    if constraint is not None and not _is_json_format(constraint):
        return _Answer(read, None, (), is_in_format=True)  # it describes the whole text, calls and all
    writable = _writable_format(settings)
    if constraint is not None:
        tag = writable.calls(tools, only_one) if writable is not None else None
        if tag is None:
            message = (
                f"response_format cannot be kept to beside these tools, with calls in the format {format.name}: give "
                'tool_choice "none" or "required", or leave response_format out.'
            )
            raise InvalidRequestError("response_format", message)
        content = {"type": "json_schema", "json_schema": _schema_of_content(constraint)}
        return _Answer(read, either(tag, content), tools, is_in_format=True)
    strict = [tool for tool in tools if tool.strict]
    if not strict and not only_one:
        return _Answer(read, None, (), is_in_format=True)
    for held in (strict, tools):
        candidates = [tool if tool in held else replace(tool, parameters=ANY_OBJECT) for tool in tools]
        tag = writable.free(candidates, only_one) if writable is not None else None
        if tag is not None:
            return _Answer(read, tag, held, is_in_format=True)
    if strict:
        param = f"{strict[0].param}.strict"
        message = (
            f"{param}: with tool_choice auto, arguments cannot be held to this schema in the format {format.name}: "
            'leave strict out, or give tool_choice "required".'
        )
        raise InvalidRequestError(param, message)
    return _Answer(read, None, (), is_in_format=True)  # the parser takes the first call alone


def _no_auto(settings: ToolSettings) -> str:
    if settings.format is None:
        why = "this server does not know in which format the model writes calls; start it with --tool-call-parser "
        why += f"({', '.join(FORMATS)})"
    else:
        why = "this server was started with --no-enable-auto-tool-choice"
    return (
        f'tool_choice "auto", the default with tools, is not served: {why}, or give "none", "required" or a function.'
    )


def _writable_format(settings: ToolSettings) -> ToolFormat | None:
    """The model's format, where a grammar, which is one of text, can have its mark."""
    return None if settings.mark_is_special else settings.format


def _reader(format: ToolFormat, tools: Sequence[Tool]) -> Callable[[AnswerText], Reading[None]]:
    return lambda answer: format.read(answer, tools)


def _is_json_format(constraint: Constraint) -> bool:
    """Whether it says, in the way of the OpenAI API, what the content is to be."""
    return constraint.param == "response_format" and constraint.kind in ("json", "json_object")


def _schema_of_content(constraint: Constraint) -> msgspec.Raw:
    """The schema of a response_format, as it was written."""
    if constraint.kind == "json_object":
        return msgspec.Raw(b'{"type":"object"}')
    try:
        return msgspec.json.decode(constraint.text, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise InvalidRequestError("response_format", f"response_format: the schema is not JSON: {error}") from None


def _with_options(answer: _Answer, constraint: Constraint | None, backend: str) -> Constraint | None:
    """The constraint of an answer, or the request's own."""
    if answer.tag is None:
        return constraint
    options = backend_options("guided_decoding_backend", backend)
    return Constraint(
        param="tools",
        kind="structural_tag",
        text=msgspec.json.encode({"type": "structural_tag", "format": answer.tag}).decode(),
        whitespace_pattern=None if constraint is None else constraint.whitespace_pattern,
        any_whitespace="disable-any-whitespace" not in options if constraint is None else constraint.any_whitespace,
        additional_properties=False,
        any_order="any-property-order" in options if constraint is None else constraint.any_order,
    )


def _schema(tool: Tool, *, is_held: bool) -> Constraint:
    text = msgspec.json.encode(tool.parameters).decode()
    return Constraint(
        param=f"{tool.param}.parameters",
        kind="json",
        text=text,
        additional_properties=False,
        check_only=not is_held,
    )
