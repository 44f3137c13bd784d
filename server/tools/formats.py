"""The formats of tool calls, by the names that --tool-call-parser takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .answer_text import AnswerText
from .hermes import HERMES
from .llama3_json import LLAMA3_JSON
from .mistral import MISTRAL
from .parser import ToolCallParser
from .pieces import ToolCall, gathered
from .pythonic import PYTHONIC
from .qwen3_xml import QWEN3_XML
from .tool_definitions import read_tools
from .tool_format import ToolFormat

FORMATS: dict[str, ToolFormat] = {
    "hermes": HERMES,
    "llama3_json": LLAMA3_JSON,
    "mistral": MISTRAL,
    "pythonic": PYTHONIC,
    "qwen3_xml": QWEN3_XML,
    "qwen3_coder": QWEN3_XML,
}


def parse_tool_calls(text: str, format: str, tools: Sequence[dict[str, Any]]) -> tuple[str, list[ToolCall]]:
    """The content of a whole answer, and its calls, by the name of their format. `tools` in the form of the OpenAI API.

    Raises `InvalidRequestError` for tools that are none, KeyError for an unknown format.
    """
    offered, known = read_tools(tools), FORMATS[format]
    parser = ToolCallParser(lambda answer: known.read(answer, offered), AnswerText(known.make_id))
    return gathered([*parser.feed(text), *parser.finish()])


def detect_format(template: str | None) -> ToolFormat | None:
    """The format that a chat template teaches; None where it teaches none of these, or more than one."""
    shown = {format.name: format for format in FORMATS.values() if format.shown_by(template or "")}
    return next(iter(shown.values())) if len(shown) == 1 else None
