"""A conversation that is too long for the model, without its oldest turns: what `truncation: auto` asks for."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ...engine_core.errors import InvalidRequestError
from ..protocol.chat import ChatCompletionRequest
from ..services import Services
from .chat_generation import chat_prompt

_INSTRUCTIONS = ("system", "developer")


async def fit_context(services: Services, request: ChatCompletionRequest, num_answer_tokens: int) -> None:
    """Drop as few of the oldest turns as leave room for an answer of `num_answer_tokens`, from the request itself.

    A turn begins with a message of the user. Instructions stay, and so does the last turn, whatever its length.
    """
    messages = request.messages
    starts = [i for i, message in enumerate(messages) if message["role"] == "user"]
    first, last = 0, max(0, len(starts) - 1)  # the number of turns to drop is within these
    while first < last:
        middle = (first + last) // 2
        if await _fits(services, _without(request, starts, middle), num_answer_tokens):
            last = middle
        else:
            first = middle + 1
    request.messages = _without(request, starts, first).messages


async def _fits(services: Services, request: ChatCompletionRequest, num_answer_tokens: int) -> bool:
    try:
        prompt = await chat_prompt(services, request)
    except InvalidRequestError as error:
        if error.param != "input_tokens":
            raise
        return False
    return len(prompt.token_ids) + num_answer_tokens <= services.max_model_len


def _without(request: ChatCompletionRequest, starts: list[int], num_turns: int) -> ChatCompletionRequest:
    """The request without its first turns."""
    if not num_turns:
        return request
    kept: list[dict[str, Any]] = [
        message
        for i, message in enumerate(request.messages)
        if i >= starts[num_turns] or message["role"] in _INSTRUCTIONS
    ]
    return replace(request, messages=kept)
