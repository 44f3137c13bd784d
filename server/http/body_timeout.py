"""A body has to come to its end in time: until then the request holds a place in the queue, and memory."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError


class BodyTimeoutMiddleware:
    """Whoever reads the body of a request gets an `ApiError` 408 once the time is over."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        is_complete = False

        async def receive_in_time() -> Message:
            nonlocal is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ApiError(
                    408, f"The body was not complete after {self._seconds:g} s.", headers={"connection": "close"}
                ) from None
            is_complete = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)
