"""Server-sent events, written straight to ASGI's `send`: no response object, no task and no queue in between."""

from __future__ import annotations

from starlette.types import Send

from .errors import ApiError

DONE = b"data: [DONE]\n\n"

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),  # a proxy that holds events back would defeat the stream
    ],
}


class EventStream:
    """The events of one answer.

    The response starts with the first event: what goes wrong before is a plain HTTP error. `send` waits when
    the client reads slower than the server writes; that is the back-pressure.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def write(self, events: bytes) -> None:
        """Send one or several whole events, each `data: …` with an empty line behind it."""
        if not self.started:
            self.started = True
            await self._send({**_START, "headers": list(_START["headers"])})
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self, events: bytes = b"") -> None:
        """Send the last events and `[DONE]`."""
        await self.write(events + DONE)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """End with an error event: the status has been sent already."""
        await self.end(b"data: " + error.body() + b"\n\n")
