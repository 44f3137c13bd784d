"""Clients that leave before their answer is complete are counted; those that stop reading are dropped.

What a client does not read waits in its socket's buffers and then holds up `send`, so a slow reader is bounded in
memory: its tokens are put together while it is held up (`engine_client`). But it keeps its place in the engine, and it
may never read again. So a `send` that is held up for too long ends the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

PIECE_SIZE = 64 * 2**10
"""Bytes of a body that are handed over at once."""


class ClientWatchMiddleware:
    """Concerns POST alone: those are the requests that work is done for."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        send_timeout: float,
        count_left: Callable[[], object],
        count_stalled: Callable[[], object],
    ) -> None:
        """send_timeout: seconds that a `send` may be held up. The counters are called once a client."""
        self._app = app
        self._send_timeout = send_timeout
        self._count_left = count_left
        self._count_stalled = count_stalled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        client = _Client(receive, send)
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        period = self._send_timeout / 4

        def look() -> None:
            nonlocal timer
            if client.sending_since is not None and loop.time() - client.sending_since > self._send_timeout:
                client.has_stalled = True
                task.cancel()
            else:
                timer = loop.call_later(period, look)

        timer = loop.call_later(period, look)
        try:
            await self._app(scope, client.receive, client.send)
        except asyncio.CancelledError:
            if not client.has_stalled or task.uncancel():
                raise
            logger.info("A client does not read its answer; its request is aborted.")
        finally:
            timer.cancel()
            if client.has_stalled:
                self._count_stalled()
            elif client.has_left:
                self._count_left()


class _Client:
    """The two callables of a connection, looked at as they are used."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.has_left = False
        """Before its answer was complete."""
        self.has_stalled = False
        self.sending_since: float | None = None
        """When the `send` began that has not returned, in seconds of the event loop."""
        self._receive = receive
        self._send = send
        self._is_complete = False
        self._time = asyncio.get_running_loop().time

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_complete:
            self.has_left = True
        return message

    async def send(self, message: Message) -> None:
        body = message.get("body", b"")
        if len(body) > PIECE_SIZE:
            last = (len(body) - 1) // PIECE_SIZE * PIECE_SIZE
            for start in range(0, last, PIECE_SIZE):
                self.sending_since = self._time()
                await self._send({**message, "body": body[start : start + PIECE_SIZE], "more_body": True})
            message = {**message, "body": body[last:]}
        self.sending_since = self._time()
        await self._send(message)
        self.sending_since = None
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._is_complete = True
