"""The messages of a chat request, as chat templates expect them.

Content becomes one string or a list of parts, by what the template reads; the developer role becomes system where the
template does not know it; arguments of tool calls become objects, as templates write them out themselves, and the
results of tools get the function's name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from ...engine_core.errors import InvalidRequestError
from .template_sandbox import plain

TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
"""Types of content parts that are text, and the key that it stands under."""

MEDIA_PARTS = frozenset(
    {
        "image",
        "image_url",
        "input_image",
        "image_pil",
        "image_embeds",
        "audio_url",
        "input_audio",
        "audio_embeds",
        "video_url",
        "file",
        "input_file",
        "prompt_embeds",
    }
)
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning; templates read the first one, or (GPT-OSS) the second."""


def template_messages(
    messages: Sequence[dict[str, Any]],
    *,
    content_format: Literal["string", "openai"],
    knows_developer: bool,
) -> list[dict[str, Any]]:
    """Fresh copies of the messages for a template. Raises `InvalidRequestError` with the place in the input."""
    if not messages:
        raise InvalidRequestError("messages", "messages must not be empty.")
    conversation = [
        _template_message(message, f"messages[{i}]", content_format, knows_developer)
        for i, message in enumerate(messages)
    ]
    _name_tools(conversation)
    return conversation


def _name_tools(conversation: list[dict[str, Any]]) -> None:
    """Give results of tools the name of the function, which some templates want and clients leave out."""
    names: dict[str, str] = {}
    for message in conversation:
        for call in message.get("tool_calls", ()):
            identifier, name = call.get("id"), call["function"].get("name")
            if isinstance(identifier, str) and isinstance(name, str):
                names[identifier] = name
        answered = message.get("tool_call_id")
        if message["role"] == "tool" and isinstance(answered, str) and answered in names:
            message.setdefault("name", names[answered])


def _template_message(
    message: dict[str, Any], where: str, content_format: Literal["string", "openai"], knows_developer: bool
) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise InvalidRequestError(f"{where}.role", f"{where} must be an object with a role, which is a string.")
    result: dict[str, Any] = plain(message)
    if result["role"] == "developer" and not knows_developer:
        result["role"] = "system"
    texts = content_texts(result.get("content"), f"{where}.content")
    if content_format == "openai":
        result["content"] = [{"type": "text", "text": text} for text in texts]
    else:
        result["content"] = "\n".join(texts)
    reasoning = next((result[key] for key in _REASONING_KEYS if result.get(key) is not None), None)
    if reasoning is not None:
        result = {"thinking": reasoning, **result, "reasoning_content": reasoning}
    calls = result.pop("tool_calls", None)
    if calls:
        result["tool_calls"] = _tool_calls(calls, where)  # templates ask whether the key is there
    return result


def content_texts(content: Any, where: str) -> list[str]:
    """The texts of a message's content, which is null, a string, or a list of parts. Raises `InvalidRequestError`."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise InvalidRequestError(where, f"{where} must be a string, null, or a list of parts.")
    return [_text(part, f"{where}[{i}]") for i, part in enumerate(content)]


def _text(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise InvalidRequestError(where, f"{where} must be a string or an object with a type.")
    if kind in MEDIA_PARTS:
        raise InvalidRequestError(where, f"{where} is of type {kind!r}, but this is not a multimodal model.")
    if kind not in TEXT_PARTS:
        raise InvalidRequestError(
            where, f"{where} has the unknown type {kind[:80]!r}; known are {', '.join(TEXT_PARTS)}."
        )
    text = part.get(TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise InvalidRequestError(where, f"{where}.{TEXT_PARTS[kind]} must be a string.")
    return text


def _tool_calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Tool calls with their arguments as objects; the API has them as JSON texts."""
    if not isinstance(calls, list):
        raise InvalidRequestError(f"{where}.tool_calls", f"{where}.tool_calls must be a list.")
    result = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise InvalidRequestError(
                f"{where}.tool_calls[{i}]", f"{where}.tool_calls[{i}] must be an object with a function."
            )
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                place = f"{where}.tool_calls[{i}].function.arguments"
                raise InvalidRequestError(place, f"{place} is not JSON.") from None
        result.append({**call, "function": {**function, "arguments": arguments if arguments is not None else {}}})
    return result
