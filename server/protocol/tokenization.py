"""/tokenize and /detokenize: requests and answers."""

from __future__ import annotations

from typing import Any

import msgspec

from .limits import Conversation


class TokenizeCompletionRequest(msgspec.Struct, kw_only=True):
    """The body of POST /tokenize for a text."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    """Default: true."""
    return_token_strs: bool | None = None


class TokenizeChatRequest(msgspec.Struct, kw_only=True):
    """The body of POST /tokenize for a conversation; fields as in chat completions."""

    model: str | None = None
    messages: Conversation
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None


class TokenizeResponse(msgspec.Struct):
    """The answer of POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[int]


class DetokenizeResponse(msgspec.Struct):
    """The answer of POST /detokenize."""

    prompt: str
