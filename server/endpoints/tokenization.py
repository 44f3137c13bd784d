"""/tokenize, /detokenize and /tokenizer_info. The counts are those of `usage.prompt_tokens` for the same prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...engine_core.errors import InvalidRequestError
from ...engine_core.tokenizer import LONG_TEXT_CHARACTERS
from ..http.request_body import decode, read_body
from ..prompts.chat_prompt import render_chat_prompt
from ..protocol.tokenization import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeChatRequest,
    TokenizeCompletionRequest,
    TokenizeResponse,
)
from ..services import Services

T = TypeVar("T")

_PATHS = ("name_or_path", "tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file")
"""Entries of a configuration that tell where files lie."""


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
            text = await render_chat_prompt(services, request)
            add_special_tokens = bool(request.add_special_tokens)
        token_ids = await services.input_processor.tokenize(text, add_special_tokens=add_special_tokens)
        answer = TokenizeResponse(len(token_ids), services.max_model_len, token_ids)
        if request.return_token_strs:
            answer.token_strs = await _run(services.tokenizer.convert_ids_to_tokens, token_ids)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def detokenize(self, http_request: Request) -> Response:
        """The text of ids, special tokens included."""
        services = self._services
        request = decode(await self._body(http_request), self._of_tokens)
        services.check_model(request.model)
        text = await _run(self._text, request.tokens)
        return Response(msgspec.json.encode(DetokenizeResponse(text)), media_type="application/json")

    async def tokenizer_info(self, http_request: Request) -> Response:
        """The tokenizer's configuration, and the chat template that conversations are rendered with."""
        tokenizer, template = self._services.tokenizer, self._services.chat_template
        info = {name: value for name, value in tokenizer.config.items() if name not in _PATHS}
        info["chat_template"] = template.source
        return Response(msgspec.json.encode(info), media_type="application/json")

    def _text(self, token_ids: list[int]) -> str:
        tokenizer = self._services.tokenizer
        for token_id in token_ids:
            if not 0 <= token_id < tokenizer.vocab_size:
                raise InvalidRequestError(
                    "tokens", f"tokens must be from 0 to {tokenizer.vocab_size - 1}, got {token_id}."
                )
        return tokenizer.decode(token_ids, skip_special_tokens=False)

    async def _body(self, request: Request) -> bytes:
        return await read_body(request.scope, request.receive, self._services.config.max_body_size)


async def _run(function: Callable[[list[int]], T], token_ids: list[int]) -> T:
    """What `function` makes of the tokens; in a thread where it takes long."""
    return (
        await asyncio.to_thread(function, token_ids) if len(token_ids) > LONG_TEXT_CHARACTERS else function(token_ids)
    )
