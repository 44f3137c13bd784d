"""What a format of tool calls is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .answer_text import AnswerText, Reading, call_id
from .tool_definitions import Tool

TagFormat = dict[str, Any]
"""A `format` of a structural tag (`guided/grammars/structural_tag.py`)."""


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """A way in which models write calls."""

    name: str
    """As --tool-call-parser has it."""
    read: Callable[[AnswerText, Sequence[Tool]], Reading[None]]
    """Reads an answer: text, and calls of these tools."""
    calls: Callable[[Sequence[Tool], bool], TagFormat | None]
    """Answers that are one or more calls (True: exactly one), arguments held to the schemas; None where this format
    cannot hold them.
    """
    free: Callable[[Sequence[Tool], bool], TagFormat | None]
    """The same for text with calls in it, or none."""
    shown_by: Callable[[str], bool]
    """Whether a chat template teaches it."""
    mark: str = ""
    """Text without which there is no call. In a tokenizer where it is a special token, answers must show those, and
    grammars, which are of text, cannot have it.
    """
    make_id: Callable[[], str] = call_id


def at_least_one(tags: list[TagFormat], separator: str, only_one: bool) -> TagFormat:
    """One or more tags."""
    return {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": only_one,
    }


def constant(text: str) -> TagFormat:
    """This text."""
    return {"type": "const_string", "value": text}


def sequence(*elements: TagFormat) -> TagFormat:
    """One after another."""
    return {"type": "sequence", "elements": list(elements)}


def either(*elements: TagFormat) -> TagFormat:
    """One of them."""
    return {"type": "or", "elements": list(elements)}


def regex(pattern: str) -> TagFormat:
    """A text that the pattern matches as a whole."""
    return {"type": "regex", "pattern": pattern}


def names(tools: Collection[Tool]) -> frozenset[str]:
    """The names of the tools."""
    return frozenset(tool.name for tool in tools)
