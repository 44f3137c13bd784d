"""From a request of /v1/messages to the chat request that says the same."""

from __future__ import annotations

from typing import Any

import msgspec

from ...engine_core.errors import InvalidRequestError
from ..generation.chat_form import ChatMessages, chat_request, refuse_foreign
from ..http.errors import ApiError, unsupported
from ..http.messages_error import PATH
from ..http.request_body import convert
from ..prompts.conversation import content_texts
from ..protocol.chat import ChatCompletionRequest
from ..protocol.constraint import JsonSchemaFormat, ResponseFormat
from ..protocol.messages import InputMessage, InputToolResult, InputToolUse, TokenCountRequest, Tool, ToolChoice

NAMES = {
    r"\bresponse_format\b": "output_config.format",
    r"\bjson_schema\.schema\b": "schema",
    r"^stop\b": "stop_sequences",
    r"^continue_final_message$": "messages",
    r"(tools\[\d+\])\.function\.parameters\b": r"\1.input_schema",
    r"(tools\[\d+\]|tool_choice)\.function\b": r"\1",
}
"""What the chat path calls otherwise: see `errors_in_words_of`."""

_ADVICE = {
    "response_format": "The form of the answer is output_config.format.",
    "stop": "Stop strings are stop_sequences.",
    "stream_options": "A stream always tells the usage.",
    "output_format": "It is output_config.format now.",
}

_UNSUPPORTED = {
    "container": "A container",
    "context_management": "Editing of the context",
    "inference_geo": "A choice of the region",
    "mcp_servers": "A tool that the server runs",
    "speed": "A choice of the speed",
}

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_form(request: TokenCountRequest) -> ChatCompletionRequest:
    """The chat request. Raises `InvalidRequestError` and `ApiError`, with the field by its name here."""
    _refuse(request)
    messages = _messages(request)
    # As in the Anthropic API, an answer goes on with a message of the assistant at the end.
    continues = messages[-1]["role"] == "assistant"
    config = request.output_config
    return chat_request(
        request,
        messages=messages,
        continue_final_message=continues,
        add_generation_prompt=not continues,
        max_completion_tokens=None,
        stop=request.stop_sequences,
        user=request.user or (request.metadata.user_id if request.metadata else None),
        reasoning_effort=config.effort if config else None,
        response_format=_response_format(request),
        chat_template_kwargs=request.chat_template_kwargs,
        **_tool_fields(request),
    )


def _refuse(request: TokenCountRequest) -> None:
    """Refuse what we know and cannot honour."""
    refuse_foreign(request, PATH, _ADVICE)
    for name, what in _UNSUPPORTED.items():
        if getattr(request, name) not in (None, []):
            raise unsupported(name, what)
    if request.thinking is not None and request.thinking.type != "disabled":
        raise unsupported("thinking", "Any thinking but disabled")


def _messages(request: TokenCountRequest) -> list[dict[str, Any]]:
    if not request.messages:
        raise InvalidRequestError("messages", "messages must not be empty.")
    conversation = ChatMessages()
    if request.system:
        conversation.add_text("system", content_texts(request.system, "system"))
    for i, message in enumerate(request.messages):
        _add_message(conversation, message, f"messages[{i}]")
    last, where = conversation.messages[-1], f"messages[{len(request.messages) - 1}]"
    if last.get("tool_calls"):
        raise InvalidRequestError(where, f"{where} ends with tool_use: a message with its tool_result must follow.")
    if last["role"] == "assistant" and not last["content"]:
        raise InvalidRequestError(
            where, f"{where} is of the assistant, but has no text that the answer could go on with."
        )
    return conversation.messages


def _add_message(conversation: ChatMessages, message: InputMessage, where: str) -> None:
    """Add a message; neighbours of one role are one turn."""
    if isinstance(message.content, str):
        conversation.add_text(message.role, [message.content], joins=True)
        return
    if not message.content:
        raise InvalidRequestError(f"{where}.content", f"{where}.content must not be empty.")
    for i, block in enumerate(message.content):
        place = f"{where}.content[{i}]"
        kind = block.get("type")
        if kind == "tool_use" and message.role == "assistant":
            call = convert(block, InputToolUse, place)
            conversation.add_tool_call(call.id, call.name, msgspec.json.encode(call.input).decode())
        elif kind == "tool_result" and message.role == "user":
            result = convert(block, InputToolResult, place)
            texts = content_texts(result.content, f"{place}.content")
            if result.is_error:
                texts = ["Error: " + "\n".join(texts)]
            conversation.add_tool_output(result.tool_use_id, texts, f"{place}.tool_use_id")
        elif kind == "text":
            conversation.add_text(message.role, content_texts([block], f"{where}.content"), joins=True)
        elif kind in ("image", "document"):
            raise InvalidRequestError(place, f"{place} is of type {kind!r}, but this is not a multimodal model.")
        else:
            taken = "text and tool_use" if message.role == "assistant" else "text and tool_result"
            raise InvalidRequestError(
                f"{place}.type", f"{place}.type is {str(kind)[:80]!r}; a message of the {message.role} has {taken}."
            )


def _tool_fields(request: TokenCountRequest) -> dict[str, Any]:
    """The fields of tool calling, where the request is about it."""
    choice = request.tool_choice
    if not request.tools and (choice is None or choice.type in ("auto", "none")):
        return {}
    return {
        "tools": [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools or ())] or None,
        "tool_choice": _tool_choice(choice),
        "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
    }


def _tool(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise ApiError(
            400,
            f"{where} is of type {tool.type[:80]!r}; the tools that are supported are those that the client runs: "
            "custom, or without a type.",
            param=f"{where}.type",
            type="NotImplementedError",
        )
    if tool.input_schema is None:
        raise InvalidRequestError(f"{where}.input_schema", f"{where}.input_schema is required.")
    for name in ("defer_loading", "input_examples"):
        if getattr(tool, name):
            raise unsupported(f"{where}.{name}", f"{name} of a tool")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    for name in ("description", "strict"):
        if getattr(tool, name) is not None:
            function[name] = getattr(tool, name)
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.type == "tool":
        if not choice.name:
            raise InvalidRequestError("tool_choice.name", "tool_choice.name is required with the type tool.")
        return {"type": "function", "function": {"name": choice.name}}
    return _CHOICES[choice.type]


def _response_format(request: TokenCountRequest) -> ResponseFormat | None:
    given = request.output_config.format if request.output_config else None
    if given is None:
        return None
    return ResponseFormat(type="json_schema", json_schema=JsonSchemaFormat(schema=given.schema))
