"""How a server calls tools: in which format its model writes calls, and what the flags say."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ...engine_core.tokenizer import Tokenizer
from .formats import FORMATS, detect_format
from .tool_format import ToolFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ToolSettings:
    """Made once at start."""

    format: ToolFormat | None
    """None where nobody said it and the chat template does not show it."""
    serves_auto: bool
    """Whether the model may be left to decide on calls."""
    excludes_tools_when_none: bool
    """Whether the template does not see the tools when none may be called."""
    mark_is_special: bool
    """Whether the mark of the format's calls is a special token of the model."""


def load_tool_settings(
    parser: str | None,
    *,
    enable_auto: bool | None,
    exclude_tools_when_none: bool,
    template: str | None,
    tokenizer: Tokenizer,
) -> ToolSettings:
    """The settings of a server with this chat template. Raises ValueError when they contradict each other.

    `parser` names a format; None and "auto" look for it in the template. `enable_auto`: None, where a format is known.
    """
    if parser not in (None, "auto", *FORMATS):
        raise ValueError(f"--tool-call-parser takes auto, {', '.join(FORMATS)}; it does not take {parser!r}.")
    format = detect_format(template) if parser in (None, "auto") else FORMATS[parser]
    if format is None and (enable_auto or parser == "auto"):
        raise ValueError(
            "The chat template does not show in which format the model writes tool calls: name it with "
            f"--tool-call-parser ({', '.join(FORMATS)})."
        )
    if format is not None:
        logger.info("Tool calls are read in the format %s.", format.name)
    special = {tokenizer.token_text(token_id) for token_id in tokenizer.all_special_ids}
    return ToolSettings(
        format=format,
        serves_auto=format is not None and enable_auto is not False,
        excludes_tools_when_none=exclude_tools_when_none,
        mark_is_special=format is not None and format.mark in special,
    )
