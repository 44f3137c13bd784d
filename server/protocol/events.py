"""The events of a stream as a whole, for `/openapi.json`; `event_encoder.py` writes the same piece by piece."""

from __future__ import annotations

from typing import Literal

import msgspec

from .chat import ChatChunkChoice
from .completions import CompletionChoice
from .sampling import UsageInfo


class CompletionEvent(msgspec.Struct, kw_only=True):
    """An event of a streamed completion; `data: [DONE]` comes behind the last one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    """One choice; none in the event that has the usage of the whole request."""
    usage: UsageInfo | None = None


class ChatCompletionEvent(msgspec.Struct, kw_only=True):
    """An event of a streamed chat completion; `data: [DONE]` comes behind the last one."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    """One choice; none in the event that has the usage of the whole request."""
    usage: UsageInfo | None = None
