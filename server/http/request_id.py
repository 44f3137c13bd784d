"""Every request has an id: the client's `X-Request-Id`, cleaned, or one made here. It is echoed and used in
the answer's own id, so that a line of the client's log can be found in ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_CHARS = 128
_UNCLEAN = re.compile(r"[^A-Za-z0-9._:/+=@-]")


def request_id(scope: Scope) -> str:
    """The id of the request."""
    return scope["state"]["request_id"]


def answer_id(kind: str, scope: Scope, chosen: str | None, *, separator: str = "-") -> str:
    """The id of an answer, `cmpl-…`: of the id that the body asks for, else of the request's."""
    return f"{kind}{separator}{clean(chosen or '') or request_id(scope)}"


def clean(text: str) -> str:
    """What may be echoed of an id that a client chose: plain characters, bounded. May be empty."""
    return _UNCLEAN.sub("", text[: 4 * MAX_CHARS])[:MAX_CHARS]


class RequestIdMiddleware:
    """Gives the request its id and the answer the `x-request-id` header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chosen = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        # Not of the system's randomness: to ask for that gives the interpreter's lock away, in the middle of a crowd.
        identifier = clean(chosen.decode("latin-1")) or f"{random.getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = identifier
        header = (b"x-request-id", identifier.encode())

        def send_with_id(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            return send(message)

        await self._app(scope, receive, send_with_id)
