"""Paths of vLLM's server that we know and do not serve: a client that asks them hears why."""

from __future__ import annotations

from typing import NoReturn

from starlette.requests import Request

from ..http.errors import ApiError


async def audio(request: Request) -> NoReturn:
    """Transcriptions and translations."""
    raise ApiError(404, f"There is no {request.url.path} here: zqserve serves text models, and none for audio.")


async def lora_adapters(request: Request) -> NoReturn:
    """Loading an adapter and dropping it."""
    raise ApiError(501, "LoRA adapters are not supported: merge the adapter into the weights and serve the result.")
