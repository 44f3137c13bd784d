"""From the fields of a chat request to the prompt's text; shared by chat completions and /tokenize."""

from __future__ import annotations

import asyncio
from typing import Any

from ...engine_core.errors import InvalidRequestError
from ..protocol.chat import ChatCompletionRequest
from ..protocol.tokenization import TokenizeChatRequest
from ..services import Services
from ..tools.tool_choice import shown_tools
from .chat_template import render

INLINE_SIZE = 20_000
"""Conversations up to about this size are rendered at once; longer ones in a thread."""
SIZE_OF_VALUE = 20
"""Of any value, beside the characters of texts."""


async def render_chat_prompt(services: Services, request: ChatCompletionRequest | TokenizeChatRequest) -> str:
    """The prompt's text. Raises `InvalidRequestError`."""
    if request.chat_template is not None and not services.config.trust_request_chat_template:
        raise InvalidRequestError("chat_template", "This server takes no chat_template from requests.")
    template_kwargs = {**services.config.default_chat_template_kwargs, **(request.chat_template_kwargs or {})}
    if request.reasoning_effort is not None:
        template_kwargs.setdefault("reasoning_effort", request.reasoning_effort)
    tools = shown_tools(services.tools, request.tools, request.tool_choice)
    rendering = services.chat_template.rendering(
        request.messages,
        add_generation_prompt=generation_prompt_wanted(request),
        continue_final_message=bool(request.continue_final_message),
        tools=tools,
        documents=request.documents,
        chat_template=request.chat_template,
        chat_template_kwargs=template_kwargs,
    )
    try:
        if rendering.comes_with_request:
            return await services.template_renderer.render(rendering)
        if is_longer(rendering.messages, INLINE_SIZE) or is_longer(rendering.variables, INLINE_SIZE):
            return await asyncio.to_thread(render, rendering)
        return render(rendering)
    except RecursionError:
        raise InvalidRequestError(None, "The request is nested too deeply.") from None


def generation_prompt_wanted(request: ChatCompletionRequest | TokenizeChatRequest) -> bool:
    """Whether the prompt ends with the head of a new message: by default, unless the last one is continued."""
    if request.add_generation_prompt is None:
        return not request.continue_final_message
    return request.add_generation_prompt


def echoed_text(messages: list[dict[str, Any]], role: str) -> str:
    """The text of the last message, which `echo` puts in front of the answer when it has the answer's role."""
    last = messages[-1]
    if last.get("role") != role:
        return ""
    content = last.get("content")
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else str(part.get("text") or "") for part in content]
        return "\n".join(parts)
    return content or ""


def is_longer(value: Any, limit: int) -> bool:
    """Whether plain data takes more than `limit` characters, about. Looks at no more than that."""
    size = 0
    rest = [value]
    while rest:
        item = rest.pop()
        size += SIZE_OF_VALUE
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, dict | list):
            size += SIZE_OF_VALUE * len(item)
            if size > limit:
                return True
            rest.extend(item.values() if isinstance(item, dict) else item)
        if size > limit:
            return True
    return False
