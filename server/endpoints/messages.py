"""POST /v1/messages: the Anthropic Messages API; and its counterpart that only counts tokens.

The request becomes a chat request (`messages_input.py`) and takes the chat path; the answer is written by
`messages_writer.py`.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..generation.chat_form import errors_in_words_of
from ..generation.chat_generation import chat_generation
from ..generation.generation import Generation, check, respond
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.messages import MessagesRequest, TokenCount, TokenCountRequest
from ..services import Services
from .messages_input import NAMES, chat_form
from .messages_writer import MessageWriter


class Messages:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(MessagesRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        generation = await _generation(services, request, scope)
        writer = MessageWriter(generation)
        with errors_in_words_of(NAMES):
            await respond(generation, writer, stream=bool(request.stream), receive=receive, send=send)


class MessageTokenCount:
    """POST /v1/messages/count_tokens, raw ASGI: how many tokens the prompt of a message has.

    It takes and refuses what `Messages` does, but for `max_tokens`, which may be left out.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(TokenCountRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        generation = await _generation(services, request, scope)
        with errors_in_words_of(NAMES):
            await check(generation, receive)
        answer = msgspec.json.encode(TokenCount(generation.usage().prompt_tokens))
        await Response(answer, media_type="application/json")(scope, receive, send)


async def _generation(services: Services, request: TokenCountRequest, scope: Scope) -> Generation:
    """What answers the request."""
    model = services.check_model(request.model)
    id = answer_id("msg", scope, request.request_id, separator="_")
    chat = chat_form(request)
    with errors_in_words_of(NAMES):
        return await chat_generation(services, chat, id=id, model=model)
