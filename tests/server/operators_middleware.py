"""Middleware as an operator would bring it, for the test of `--middleware`."""

from __future__ import annotations

from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Stamp:
    """Puts a header on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-stamp", b"class")]
            await send(message)

        await self._app(scope, receive, stamped)


async def count(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """The same, as a function."""
    answer = await call_next(request)
    answer.headers["x-counted"] = "function"
    return answer
