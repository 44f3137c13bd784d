"""Streamed answers, written straight to ASGI's `send`: no response object, no task and no queue in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import Send

T = TypeVar("T")

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: clients skip it, and proxies see that the connection lives."""


@dataclass(frozen=True)
class StreamFormat:
    """How the events of a stream are told apart."""

    content_type: str
    keep_alive: bytes = b""
    """What is sent while there is no event; b"" where the format has nothing to say then."""


SERVER_SENT_EVENTS = StreamFormat("text/event-stream; charset=utf-8", KEEP_ALIVE)


class EventStream:
    """The events of one answer.

    The response starts with the first event: what goes wrong before is a plain HTTP error. `send` waits when
    the client reads slower than the server writes; that is the back-pressure.
    """

    def __init__(self, send: Send, form: StreamFormat = SERVER_SENT_EVENTS) -> None:
        self._send = send
        self._form = form
        self.started = False

    async def write(self, events: bytes) -> None:
        """Send one or several whole events."""
        if not self.started:
            self.started = True
            headers = [
                (b"content-type", self._form.content_type.encode()),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),  # a proxy that holds events back would defeat the stream
            ]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self, events: bytes) -> None:
        """Send the last events."""
        await self.write(events)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


async def with_pauses(source: AsyncIterator[T], seconds: float) -> AsyncIterator[T | None]:
    """What `source` brings, and None whenever it has brought nothing for so long."""
    pending = asyncio.ensure_future(anext(source))
    try:
        while True:
            done, _ = await asyncio.wait((pending,), timeout=seconds)
            if not done:
                yield None
                continue
            try:
                item = pending.result()
            except StopAsyncIteration:
                return
            yield item
            pending = asyncio.ensure_future(anext(source))
    finally:
        pending.cancel()
