"""From a request of /v1/responses to the chat request that says the same."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from ...engine_core.errors import InvalidRequestError
from ..generation.chat_form import ChatMessages, chat_request, refuse_foreign
from ..http.errors import ApiError, unsupported
from ..http.request_body import convert
from ..prompts.conversation import content_texts
from ..protocol.chat import ChatCompletionRequest
from ..protocol.constraint import JsonSchemaFormat, ResponseFormat
from ..protocol.responses import (
    TEXT_FORMATS,
    FunctionTool,
    InputFunctionCall,
    InputFunctionCallOutput,
    InputMessage,
    ResponsesRequest,
    TextFormat,
)

PATH = "/v1/responses"
NOTHING_IS_STORED = "This server stores no responses"
LOGPROBS = "message.output_text.logprobs"

NAMES = {
    r"\bmax_tokens\b": "max_output_tokens",
    r"\bresponse_format\.type\b": "text.format.type",
    r"\bresponse_format\b": "text.format",
    r"\bjson_schema\.schema\b": "schema",
    r"^messages\b": "input",
    r"\btool_choice\.allowed_tools\b": "tool_choice",
    r"(tools\[\d+\]|tool_choice)\.function\b": r"\1",
}
"""What the chat path calls otherwise: see `errors_in_words_of`."""

_ADVICE = {
    "max_tokens": "The limit is max_output_tokens.",
    "response_format": "The form of the answer is text.format.",
}

_INCLUDABLE = (LOGPROBS, "reasoning.encrypted_content")
"""The second asks for more of reasoning items, of which there are none."""

_STATEFUL = {
    "previous_response_id": "send the items of the earlier response in input",
    "conversation": "send the whole conversation in input",
    "prompt": "send instructions and input",
}

_UNSUPPORTED = {
    "background": "Answering in the background",
    "max_tool_calls": "A limit on calls of built-in tools",
    "context_management": "Compaction of the context",
    "moderation": "Moderation",
}


def chat_form(request: ResponsesRequest) -> ChatCompletionRequest:
    """The chat request. Raises `InvalidRequestError` and `ApiError`, with the field by its name here."""
    _refuse(request)
    asks_logprobs = LOGPROBS in (request.include or ())
    if request.top_logprobs and not asks_logprobs:
        raise InvalidRequestError("top_logprobs", f"top_logprobs needs {LOGPROBS!r} in include.")
    if request.tools and asks_logprobs:
        raise InvalidRequestError("include", f"{LOGPROBS!r} cannot be included in an answer that may call tools.")
    return chat_request(
        request,
        messages=_messages(request),
        max_completion_tokens=None,
        max_tokens=request.max_output_tokens,
        logprobs=asks_logprobs or None,
        top_logprobs=request.top_logprobs if asks_logprobs else None,
        response_format=_response_format(request),
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        chat_template_kwargs=request.chat_template_kwargs,
        **_tool_fields(request),
    )


def _refuse(request: ResponsesRequest) -> None:
    """Refuse what we know and cannot honour."""
    refuse_foreign(request, PATH, _ADVICE)
    for name, what_to_do in _STATEFUL.items():
        if getattr(request, name) is not None:
            raise InvalidRequestError(name, f"{NOTHING_IS_STORED}, so {name} names nothing: {what_to_do}.")
    for name, what in _UNSUPPORTED.items():
        if getattr(request, name) not in (None, False):
            raise unsupported(name, what)
    for i, name in enumerate(request.include or ()):
        if name not in _INCLUDABLE:
            raise InvalidRequestError(f"include[{i}]", f"include[{i}] must be one of {', '.join(_INCLUDABLE)}.")
    if request.service_tier not in (None, "auto", "default"):
        raise InvalidRequestError("service_tier", "service_tier must be auto or default: there is one tier.")
    if request.reasoning and (request.reasoning.summary or request.reasoning.generate_summary):
        raise unsupported("reasoning.summary", "A summary of the reasoning")
    if request.text and request.text.verbosity not in (None, "medium"):
        raise unsupported("text.verbosity", "Any verbosity but medium")
    if request.stream_options and request.stream_options.continuous_usage_stats:
        raise InvalidRequestError("stream_options", "stream_options.continuous_usage_stats is told only by chat.")


def _messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    conversation = ChatMessages()
    if request.instructions:
        conversation.add_text("system", [request.instructions])
    if isinstance(request.input, str):
        conversation.add_text("user", [request.input])
        return conversation.messages
    if not request.input:
        raise InvalidRequestError("input", "input must not be empty.")
    for i, item in enumerate(request.input):
        _add_item(conversation, item, f"input[{i}]")
    return conversation.messages


def _add_item(conversation: ChatMessages, item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        message = convert(item, InputMessage, where)
        conversation.add_text(message.role, content_texts(message.content, f"{where}.content"))
    elif kind == "function_call":
        call = convert(item, InputFunctionCall, where)
        conversation.add_tool_call(call.call_id, call.name, call.arguments)
    elif kind == "function_call_output":
        output = convert(item, InputFunctionCallOutput, where)
        texts = content_texts(output.output, f"{where}.output")
        conversation.add_tool_output(output.call_id, texts, f"{where}.call_id")
    elif kind == "item_reference":
        raise InvalidRequestError(where, f"{NOTHING_IS_STORED}, so {where} refers to nothing: send the item itself.")
    else:
        raise InvalidRequestError(
            f"{where}.type",
            f"{where}.type must be message, function_call or function_call_output, got {str(kind)[:80]!r}.",
        )


def _tool_fields(request: ResponsesRequest) -> dict[str, Any]:
    """The fields of tool calling, where the request is about it: this API takes a choice of none without tools."""
    if not request.tools and request.tool_choice in (None, "none", "auto"):
        return {}
    return {
        "tools": [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools or ())] or None,
        "tool_choice": _tool_choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _tool(tool: FunctionTool, where: str) -> dict[str, Any]:
    if tool.type != "function":
        raise ApiError(
            400,
            f"{where} is of type {tool.type[:80]!r}; tools of type function are supported.",
            param=f"{where}.type",
            type="NotImplementedError",
        )
    if not tool.name:
        raise InvalidRequestError(f"{where}.name", f"{where}.name is required.")
    function: dict[str, Any] = {"name": tool.name}
    for name in ("description", "parameters", "strict"):
        if getattr(tool, name) is not None:
            function[name] = getattr(tool, name)
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """The choice as chat has it: there, the names stand one level deeper."""
    if not isinstance(choice, dict):
        return choice
    kind = choice.get("type")
    if kind == "function":
        if not isinstance(choice.get("name"), str):
            raise InvalidRequestError("tool_choice.name", "tool_choice.name is required with the type function.")
        return {"type": kind, "function": {"name": choice["name"]}}
    if kind == "allowed_tools":
        return {"type": kind, kind: {"mode": choice.get("mode"), "tools": _allowed_tools(choice.get("tools"))}}
    raise unsupported("tool_choice", f"A tool_choice of type {str(kind)[:80]!r}")


def _allowed_tools(tools: Any) -> Any:
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": tool} if isinstance(tool, dict) and tool.get("type") == "function" else tool
        for tool in tools
    ]


def _response_format(request: ResponsesRequest) -> ResponseFormat | None:
    given = request.text.format if request.text else None
    if given is None:
        return None
    if given.type not in TEXT_FORMATS:
        raise InvalidRequestError(
            "text.format.type", f"text.format.type must be text, json_object or json_schema, got {given.type[:80]!r}."
        )
    return ResponseFormat(type=given.type, json_schema=_json_schema(given))


def _json_schema(given: TextFormat) -> JsonSchemaFormat:
    return JsonSchemaFormat(
        name=given.name,
        description=given.description,
        schema=msgspec.Raw() if given.schema is UNSET else given.schema,
        strict=given.strict,
    )
