"""From the fields of a chat request to the prompt's text; shared by chat completions and /tokenize."""

from __future__ import annotations

import asyncio
from typing import Any

from ..engine_core.errors import InvalidRequestError
from .protocol.chat import ChatCompletionRequest
from .protocol.tokenization import TokenizeChatRequest
from .services import Services
from .tool_choice import shown_tools

INLINE_CHARS = 20_000
"""Conversations up to about this long are rendered at once; longer ones in a thread."""
CHARS_OF_TOOL = 500
"""About how long a tool is."""


async def render_chat_prompt(services: Services, request: ChatCompletionRequest | TokenizeChatRequest) -> str:
    """The prompt's text. Raises `InvalidRequestError`."""
    if request.chat_template is not None and not services.config.trust_request_chat_template:
        raise InvalidRequestError("chat_template", "This server takes no chat_template from requests.")
    template_kwargs = {**services.config.default_chat_template_kwargs, **(request.chat_template_kwargs or {})}
    if request.reasoning_effort is not None:
        template_kwargs.setdefault("reasoning_effort", request.reasoning_effort)
    tools = shown_tools(services.tools, request.tools, request.tool_choice)
    num_chars = _num_chars(request.messages) + CHARS_OF_TOOL * len(tools or ())

    def render() -> str:
        return services.chat_template.render(
            request.messages,
            add_generation_prompt=generation_prompt_wanted(request),
            continue_final_message=bool(request.continue_final_message),
            tools=tools,
            documents=request.documents,
            chat_template=request.chat_template,
            chat_template_kwargs=template_kwargs,
        )

    # A template of the request may loop for long; in a thread it delays the streams of others by no more than a slice.
    if request.chat_template is None and num_chars <= INLINE_CHARS:
        return render()
    return await asyncio.to_thread(render)


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


def _num_chars(messages: list[dict[str, Any]]) -> int:
    """About how long a conversation is; content of another form counts as long."""
    contents = (message.get("content") for message in messages)
    return sum(len(content) if isinstance(content, str) else INLINE_CHARS + 1 for content in contents if content)
