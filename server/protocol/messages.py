"""/v1/messages: request, answer, stream events and errors, as the Anthropic API has them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .limits import AnswerTokens
from .sampling import GenerationFields

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class InputMessage(msgspec.Struct, kw_only=True):
    """A message of the conversation: a text, or blocks of type `text`, `tool_use` and `tool_result`."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class InputToolUse(msgspec.Struct, kw_only=True):
    """A block of type `tool_use`: a call that an earlier answer asked for."""

    id: str
    name: str
    input: dict[str, Any]


class InputToolResult(msgspec.Struct, kw_only=True):
    """A block of type `tool_result`: what a call gave."""

    tool_use_id: str
    content: str | list[Any] | None = None
    is_error: bool | None = None
    """The model reads `Error: ` before the content."""


class Tool(msgspec.Struct, kw_only=True):
    """An entry of `tools`; only those that the client runs are served: `custom`, or without a type."""

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None

    # Known; anything but null, false and an empty list is refused.
    defer_loading: bool | None = None
    input_examples: list[Any] | None = None


class ToolChoice(msgspec.Struct, kw_only=True):
    """`tool_choice`: auto, any, none, or the tool of a name."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(msgspec.Struct, kw_only=True):
    """`metadata`: who asks, as `user` elsewhere."""

    user_id: str | None = None


class Thinking(msgspec.Struct, kw_only=True):
    """`thinking`: only `disabled` is taken."""

    type: str


class OutputFormat(msgspec.Struct, kw_only=True):
    """`output_config.format`: a JSON Schema that the answer is held to."""

    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, kw_only=True):
    """`output_config`."""

    effort: str | None = None
    """Goes to the chat template as `reasoning_effort`."""
    format: OutputFormat | None = None


class TokenCountRequest(GenerationFields, kw_only=True):
    """The body of POST /v1/messages/count_tokens: that of /v1/messages, with `max_tokens` or without."""

    messages: list[InputMessage]
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    """Both are the one tier there is."""
    cache_control: Any = None
    """A hint that is not needed, here and in blocks: prefixes are found by their content."""
    chat_template_kwargs: dict[str, Any] | None = None

    # Known; anything but null (of `thinking`, disabled) is refused by `messages_input.py`.
    thinking: Thinking | None = None
    container: Any = None
    context_management: Any = None
    inference_geo: str | None = None
    mcp_servers: list[Any] | None = None
    output_format: Any = None
    speed: str | None = None


class MessagesRequest(TokenCountRequest, kw_only=True):
    """The body of POST /v1/messages."""

    max_tokens: AnswerTokens  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """Text of the answer."""

    text: str
    citations: None = None


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A tool to call."""

    id: str
    name: str
    input: dict[str, Any]


Block = TextBlock | ToolUseBlock


class MessageUsage(msgspec.Struct, kw_only=True):
    """Token counts. What was found in the prefix cache is told with --enable-prompt-tokens-details, and then is no
    part of `input_tokens`.
    """

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: None = None
    cache_read_input_tokens: int | None = None
    service_tier: Literal["standard"] = "standard"


class Message(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    """The answer of POST /v1/messages."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(msgspec.Struct):
    """The answer of POST /v1/messages/count_tokens."""

    input_tokens: int


class TextDelta(msgspec.Struct, tag_field="type", tag="text_delta"):
    """More text."""

    text: str


class InputJsonDelta(msgspec.Struct, tag_field="type", tag="input_json_delta"):
    """More of the JSON text of a tool's input."""

    partial_json: str


class StopDelta(msgspec.Struct):
    """How the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageStart(msgspec.Struct, tag_field="type", tag="message_start"):
    """The first event: the message without content."""

    message: Message


class ContentBlockStart(msgspec.Struct, tag_field="type", tag="content_block_start"):
    """A block begins, still empty."""

    index: int
    content_block: Block


class ContentBlockDelta(msgspec.Struct, tag_field="type", tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: TextDelta | InputJsonDelta


class ContentBlockStop(msgspec.Struct, tag_field="type", tag="content_block_stop"):
    """A block is complete."""

    index: int


class MessageDelta(msgspec.Struct, tag_field="type", tag="message_delta"):
    """The end of the message, with the final counts."""

    delta: StopDelta
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag_field="type", tag="message_stop"):
    """The last event."""


class MessageErrorInfo(msgspec.Struct):
    """What went wrong, and of which of the API's kinds it is."""

    type: str
    message: str


class MessageError(msgspec.Struct, tag_field="type", tag="error"):
    """The body of a request that failed, and the last event of a stream that did."""

    error: MessageErrorInfo


MessageEvent = (
    MessageStart | ContentBlockStart | ContentBlockDelta | ContentBlockStop | MessageDelta | MessageStop | MessageError
)
