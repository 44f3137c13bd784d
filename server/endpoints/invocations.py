"""POST /invocations: the one path that SageMaker asks; a body goes to the endpoint whose fields it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from ...engine_core.errors import InvalidRequestError
from ..http.endpoint import Endpoint
from ..http.request_body import decode, read_body
from ..services import Services


@dataclass(frozen=True)
class Target:
    """The fields that a body for an endpoint has."""

    fields: tuple[str, ...]
    endpoint: Endpoint
    """Raw ASGI."""

    def __str__(self) -> str:
        return " and ".join(self.fields)


class Invocations:
    """The endpoint, raw ASGI."""

    def __init__(self, services: Services, targets: Sequence[Target]) -> None:
        """The one of `targets` all of whose fields a body has gets it. What only refuses tells why."""
        self._services = services
        self._targets = targets
        self._decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, self._services.config.max_body_size)
        given = {name for name, value in decode(body, self._decoder).items() if bytes(value) != b"null"}
        await self._find(given).app(scope, _with_body(body, receive), send)

    def _find(self, given: set[str]) -> Endpoint:
        """The endpoint that these fields ask for. Raises `InvalidRequestError` for none, and for several."""
        found = [target for target in self._targets if given.issuperset(target.fields)]
        if not found:
            choices = ", ".join(str(target) for target in self._targets if not target.endpoint.refuses)
            raise InvalidRequestError(None, f"The body tells no endpoint: it has none of {choices}.")
        first, *others = found
        for other in others:
            if other.endpoint is not first.endpoint:
                raise InvalidRequestError(
                    None,
                    f"The body tells two endpoints: {first} is for {first.endpoint.path}, {other} for "
                    f"{other.endpoint.path}. Leave one out.",
                )
        return first.endpoint


def _with_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that brings a body which has been read already, and then goes on."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return messages.pop() if messages else await receive()

    return receive_again
