"""POST /invocations: the one path that SageMaker asks; a body goes to the endpoint whose fields it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ..http.request_body import decode, read_body
from ..services import Services


@dataclass(frozen=True)
class Target:
    """An endpoint, raw ASGI, and the fields that a body for it has."""

    fields: tuple[str, ...]
    app: ASGIApp


class Invocations:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services, targets: Sequence[Target]) -> None:
        """The first one of `targets` all of whose fields a body has gets it."""
        self._services = services
        self._targets = targets
        self._decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self._services.config.max_body_size)
        given = {name for name, value in decode(body, self._decoder).items() if bytes(value) != b"null"}
        for target in self._targets:
            if given.issuperset(target.fields):
                await target.app(scope, _with_body(body, receive), send)
                return
        choices = ", ".join(" and ".join(target.fields) for target in self._targets)
        raise InvalidRequestError(None, f"The body tells no endpoint: it has none of {choices}.")


def _with_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that brings a body which has been read already, and then goes on."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again
