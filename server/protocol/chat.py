"""/v1/chat/completions: request, answer and stream events."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from .limits import Conversation, Count, TopCount
from .sampling import GenerationFields, PromptLogprobs, UsageInfo


class ChatCompletionRequest(GenerationFields, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Conversation
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None
    return_prompt_text: bool | None = None

    tools: list[dict[str, Any]] | None = None
    """Functions that the model may call, each `{"type": "function", "function": {…}}`."""
    tool_choice: str | dict[str, Any] | None = None
    """none, auto (the default with tools), required, or an object that names a function or the allowed ones."""
    parallel_tool_calls: bool | None = None
    """false: at most one call an answer."""

    # Deprecated: anything but null is refused.
    functions: Any = None
    function_call: Any = None


class ChatBatchRequest(GenerationFields, kw_only=True):
    """The body of POST /v1/chat/completions/batch; what only one conversation can have is refused."""

    messages: list[Conversation]
    """A list of conversations."""
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopCount | None = None

    # Refused, where they ask for anything but what is done anyway.
    add_generation_prompt: Any = None
    continue_final_message: Any = None
    return_prompt_text: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None


class TopLogprob(msgspec.Struct):
    """One of the most likely tokens at a position."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatTokenLogprob(msgspec.Struct):
    """The chosen token at a position, and the most likely ones."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    """Logprobs of an answer, an entry a token."""

    content: list[ChatTokenLogprob]


class FunctionCall(msgspec.Struct):
    """Which function is called."""

    name: str
    arguments: str
    """JSON text of an object; the beginning of one where the answer was cut."""


class ChatToolCall(msgspec.Struct, kw_only=True):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(msgspec.Struct, kw_only=True):
    """The answer's message. The null fields are those that clients of the OpenAI API may look for."""

    role: str
    content: str | None
    """null where there are tool calls alone."""
    tool_calls: list[ChatToolCall] | UnsetType = UNSET
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    reasoning: None = None


class ChatChoice(msgspec.Struct, kw_only=True):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletionResponse(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: UsageInfo
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType = UNSET
    system_fingerprint: None = None
    service_tier: None = None


class FunctionCallDelta(msgspec.Struct, omit_defaults=True):
    """What a stream event adds to a call: the name first, then pieces of the arguments."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ChatToolCallDelta(msgspec.Struct, omit_defaults=True):
    """A call that begins, with its id and type, or goes on."""

    index: int
    """Number of the call in its answer, from 0."""
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionCallDelta | UnsetType = UNSET


class ChatDelta(msgspec.Struct, omit_defaults=True):
    """What a stream event adds to a message."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[ChatToolCallDelta] | UnsetType = UNSET


class ChatChunkChoice(msgspec.Struct):
    """A choice in a stream event; `stop_reason` comes with the last one."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET
