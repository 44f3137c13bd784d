"""/v1/responses: request, answer and stream events."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from .chat import ChatTokenLogprob
from .limits import Count, NumTokens
from .sampling import GenerationFields

Status = Literal["in_progress", "completed", "incomplete", "failed"]
TEXT_FORMATS = ("text", "json_object", "json_schema")
"""Types of `text.format`."""


class TextFormat(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`text.format`. The schema is always kept to, whatever `strict` says."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(TEXT_FORMATS)})]
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw | UnsetType = UNSET
    strict: bool | None = None


class TextConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`text`: the form of the answer."""

    format: TextFormat | None = None
    verbosity: str | None = None
    """Only what the API has as its default is taken: medium."""


class ReasoningConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`reasoning`: the effort goes to the chat template."""

    effort: str | None = None
    summary: str | None = None
    """Refused: no summary is made."""
    generate_summary: str | None = None
    """The older name of `summary`."""


class FunctionTool(msgspec.Struct, kw_only=True):
    """An entry of `tools`; of the types that the API has, the function is served."""

    type: str = "function"
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesRequest(GenerationFields, kw_only=True):
    """The body of POST /v1/responses."""

    input: str | list[dict[str, Any]]
    """A text, or items: messages, function calls and their outputs."""
    instructions: str | None = None
    max_output_tokens: Count | None = None
    text: TextConfig | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningConfig | None = None
    include: list[str] | None = None
    top_logprobs: NumTokens | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    """Taken either way: nothing is stored, and the answer says so."""
    safety_identifier: str | None = None
    """Names the user, as `user` does."""
    prompt_cache_key: str | None = None
    """A hint that is not needed: prefixes are found by their content."""
    chat_template_kwargs: dict[str, Any] | None = None

    # Known; anything but null, false or the default of the API is refused by `responses_input.py`.
    background: bool | None = None
    conversation: Any = None
    previous_response_id: str | None = None
    prompt: Any = None
    max_tool_calls: int | None = None
    service_tier: str | None = None
    context_management: Any = None
    moderation: Any = None


class InputMessage(msgspec.Struct, kw_only=True):
    """An input item of type `message`, which may go without its type. Content parts are texts."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Any]


class InputFunctionCall(msgspec.Struct, kw_only=True):
    """An input item of type `function_call`: what an earlier answer asked for."""

    call_id: str
    name: str
    arguments: str


class InputFunctionCallOutput(msgspec.Struct, kw_only=True):
    """An input item of type `function_call_output`: what the function returned."""

    call_id: str
    output: str | list[Any]


class OutputText(msgspec.Struct, tag_field="type", tag="output_text", kw_only=True):
    """The one content part of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[ChatTokenLogprob] = []


class OutputMessage(msgspec.Struct, tag_field="type", tag="message", kw_only=True):
    """An output item: text."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: Status
    content: list[OutputText]


class OutputFunctionCall(msgspec.Struct, tag_field="type", tag="function_call", kw_only=True):
    """An output item: a function to call, with its arguments as JSON text."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status


OutputItem = OutputMessage | OutputFunctionCall


class IncompleteDetails(msgspec.Struct):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(msgspec.Struct):
    """Why an answer failed after its stream had begun."""

    message: str
    code: Literal["server_error"] = "server_error"


class InputTokensDetails(msgspec.Struct):
    """Where the input's tokens came from."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    """Always 0: nothing is charged for keeping a prefix."""


class OutputTokensDetails(msgspec.Struct):
    """What the output's tokens were for."""

    reasoning_tokens: int = 0
    """Always 0: reasoning is not told apart from the answer."""


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = msgspec.field(default_factory=OutputTokensDetails)
    total_tokens: int


class ReasoningEcho(msgspec.Struct):
    """`reasoning` in the answer."""

    effort: str | None
    summary: None = None


class Response(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/responses; most of it says what was asked for."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: Literal[False] = False
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None = None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: None = None
    prompt_cache_key: str | None
    reasoning: ReasoningEcho
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: Literal[False] = False
    temperature: float
    text: TextConfig
    tool_choice: str | dict[str, Any]
    tools: list[FunctionTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]


class ResponseEvent(msgspec.Struct, kw_only=True):
    """What all stream events have; they count up from 0."""

    sequence_number: int = 0


class ResponseCreated(ResponseEvent, tag_field="type", tag="response.created", kw_only=True):
    """The first event."""

    response: Response


class ResponseInProgress(ResponseEvent, tag_field="type", tag="response.in_progress", kw_only=True):
    """The second event."""

    response: Response


class ResponseCompleted(ResponseEvent, tag_field="type", tag="response.completed", kw_only=True):
    """The last event: the whole answer."""

    response: Response


class ResponseIncomplete(ResponseEvent, tag_field="type", tag="response.incomplete", kw_only=True):
    """The last event of an answer that was cut by `max_output_tokens` or the context."""

    response: Response


class ResponseFailed(ResponseEvent, tag_field="type", tag="response.failed", kw_only=True):
    """The last event of an answer that the server could not finish."""

    response: Response


class OutputItemAdded(ResponseEvent, tag_field="type", tag="response.output_item.added", kw_only=True):
    """An output item begins."""

    output_index: int
    item: OutputItem


class OutputItemDone(ResponseEvent, tag_field="type", tag="response.output_item.done", kw_only=True):
    """An output item is as it will be in the answer."""

    output_index: int
    item: OutputItem


class ContentPartAdded(ResponseEvent, tag_field="type", tag="response.content_part.added", kw_only=True):
    """The text of a message begins."""

    item_id: str
    output_index: int
    content_index: int = 0
    part: OutputText


class ContentPartDone(ResponseEvent, tag_field="type", tag="response.content_part.done", kw_only=True):
    """The text of a message is complete."""

    item_id: str
    output_index: int
    content_index: int = 0
    part: OutputText


class OutputTextDelta(ResponseEvent, tag_field="type", tag="response.output_text.delta", kw_only=True):
    """More text."""

    item_id: str
    output_index: int
    content_index: int = 0
    delta: str
    logprobs: list[ChatTokenLogprob]


class OutputTextDone(ResponseEvent, tag_field="type", tag="response.output_text.done", kw_only=True):
    """The whole text."""

    item_id: str
    output_index: int
    content_index: int = 0
    text: str
    logprobs: list[ChatTokenLogprob]


class FunctionCallArgumentsDelta(
    ResponseEvent, tag_field="type", tag="response.function_call_arguments.delta", kw_only=True
):
    """More of the arguments' JSON text."""

    item_id: str
    output_index: int
    delta: str


class FunctionCallArgumentsDone(
    ResponseEvent, tag_field="type", tag="response.function_call_arguments.done", kw_only=True
):
    """The arguments' whole JSON text."""

    item_id: str
    output_index: int
    arguments: str


class InputTokens(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/responses/input_tokens."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int
