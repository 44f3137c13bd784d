"""/v1/completions: request, answer and stream events."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from .limits import TopCount
from .sampling import GenerationFields, PromptLogprobs, UsageInfo


class CompletionRequest(GenerationFields, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str | list[str | int | list[int]]
    """A text, several texts, the token ids of one prompt or of several."""
    logprobs: TopCount | None = None
    suffix: Any = None
    """Not served yet."""


class CompletionLogprobs(msgspec.Struct):
    """Four lists of one length, an entry a token; the first token of an echoed prompt has null logprobs."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, gc=False):
    """An answer, or one piece of it in a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET


class CompletionResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: UsageInfo
    system_fingerprint: None = None
    service_tier: None = None
