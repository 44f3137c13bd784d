"""POST /v1/responses: the OpenAI Responses API, of which nothing is stored.

The request becomes a chat request (`responses_input.py`) and takes the chat path; the answer is written by
`responses_writer.py`.
"""

from __future__ import annotations

from typing import NoReturn

import msgspec
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.types import Receive, Scope, Send

from ..generation.chat_form import errors_in_words_of
from ..generation.chat_generation import chat_generation
from ..generation.context_fitting import fit_context
from ..generation.generation import Generation, check, respond
from ..http.errors import ApiError
from ..http.request_body import decode, read_body
from ..http.request_id import answer_id
from ..protocol.responses import InputTokens, ResponsesRequest
from ..services import Services
from .responses_input import NAMES, NOTHING_IS_STORED, chat_form
from .responses_writer import ResponseWriter


class Responses:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(ResponsesRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        generation = await _generation(services, request, scope)
        writer = ResponseWriter(request, generation)
        with errors_in_words_of(NAMES):
            await respond(generation, writer, stream=bool(request.stream), receive=receive, send=send)


class InputTokenCount:
    """POST /v1/responses/input_tokens, raw ASGI: how many tokens the input of a request has.

    It takes and refuses what `Responses` does.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._decoder = msgspec.json.Decoder(ResponsesRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        request = decode(await read_body(scope, receive, services.config.max_body_size), self._decoder)
        generation = await _generation(services, request, scope)
        with errors_in_words_of(NAMES):
            await check(generation, receive)
        answer = msgspec.json.encode(InputTokens(input_tokens=generation.usage().prompt_tokens))
        await HttpResponse(answer, media_type="application/json")(scope, receive, send)


async def _generation(services: Services, request: ResponsesRequest, scope: Scope) -> Generation:
    """What answers the request; `truncation` has been done."""
    model = services.check_model(request.model)
    chat = chat_form(request)
    id = answer_id("resp", scope, request.request_id, separator="_")
    with errors_in_words_of(NAMES):
        if request.truncation == "auto":
            await fit_context(services, chat, request.max_output_tokens or 1)
        return await chat_generation(services, chat, id=id, model=model)


async def no_stored_response(http_request: Request) -> NoReturn:
    """GET, DELETE and POST below /v1/responses/{response_id}: there is nothing to find. A Starlette endpoint."""
    id = http_request.path_params["response_id"]
    raise ApiError(404, f"{NOTHING_IS_STORED}: there is no {id[:200]!r} to get, cancel or delete.", param="response_id")
