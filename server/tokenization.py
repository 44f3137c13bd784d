"""POST /tokenize and /detokenize. The counts are those of `usage.prompt_tokens` for the same prompt."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..engine_core.errors import InvalidRequestError
from .chat_prompt import render_chat_prompt
from .errors import unsupported
from .protocol.tokenization import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    TokenizeResponse,
)
from .request_body import decode, read_body
from .services import Services


class _TokenizeKind(msgspec.Struct):
    messages: Any = None


class TokenizationEndpoints:
    """Methods are Starlette endpoints."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kind = msgspec.json.Decoder(_TokenizeKind)
        self._of_text = msgspec.json.Decoder(TokenizeCompletionRequest)
        self._of_chat = msgspec.json.Decoder(TokenizeChatRequest)
        self._of_tokens = msgspec.json.Decoder(DetokenizeRequest)

    async def tokenize(self, http_request: Request) -> Response:
        """The ids of a text, or of a conversation when the body has `messages`."""
        services = self._services
        body = await self._body(http_request)
        if decode(body, self._kind).messages is None:
            request = decode(body, self._of_text)
            services.check_model(request.model)
            text, add_special_tokens = request.prompt, request.add_special_tokens is not False
        else:
            request = decode(body, self._of_chat)
            services.check_model(request.model)
            if request.tools is not None:
                raise unsupported("tools", "Tool calling")
            text = await render_chat_prompt(services, request)
            add_special_tokens = bool(request.add_special_tokens)
        prompt = await services.input_processor.encode_prompt(text, add_special_tokens=add_special_tokens)
        answer = TokenizeResponse(len(prompt.token_ids), services.max_model_len, prompt.token_ids)
        if request.return_token_strs:
            answer.token_strs = services.tokenizer.convert_ids_to_tokens(prompt.token_ids)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def detokenize(self, http_request: Request) -> Response:
        """The text of ids, special tokens included."""
        services = self._services
        request = decode(await self._body(http_request), self._of_tokens)
        services.check_model(request.model)
        vocab_size = services.tokenizer.vocab_size
        for token_id in request.tokens:
            if not 0 <= token_id < vocab_size:
                raise InvalidRequestError("tokens", f"tokens must be from 0 to {vocab_size - 1}, got {token_id}.")
        text = services.tokenizer.decode(request.tokens, skip_special_tokens=False)
        return Response(msgspec.json.encode(DetokenizeResponse(text)), media_type="application/json")

    async def _body(self, request: Request) -> bytes:
        return await read_body(request.scope, request.receive, self._services.config.max_body_size)
