"""One HTTP/1.1 connection that notes when each piece of a streamed answer arrived, and does little else.

The client shares the machine with the server that it measures. So nothing is decoded while a stream runs: what came is
kept with its time, and `answers` reads it when the load is over.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

LINE_END = b"\r\n"


@dataclass
class Exchange:
    """One request and what came back."""

    sent: float = 0.0
    """When it began: `time.perf_counter()`, as are all times here."""
    status: int = 0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """When each piece of the body arrived."""
    error: str | None = None
    """What went wrong with the connection."""


class HttpConnection(asyncio.Protocol):
    """Made with `asyncio.loop.create_connection`; one exchange at a time, many one after another."""

    def __init__(self) -> None:
        self.is_open = False
        self._exchange = Exchange()
        self._done: asyncio.Future[None] | None = None
        self._head = bytearray()
        self._body: _Body | None = None

    async def exchange(self, request: bytes, sent: float) -> Exchange:
        """Send the bytes of a request, and return when its answer has come to its end or the connection has.

        sent: the time from which it counts, which includes that of connecting.
        """
        self._exchange = Exchange(sent=sent)
        self._done = asyncio.get_running_loop().create_future()
        self._head.clear()
        self._body = None
        self._transport.write(request)
        await self._done
        return self._exchange

    @property
    def so_far(self) -> Exchange:
        """The exchange that runs, or the last one."""
        return self._exchange

    def close(self) -> None:
        """Say good-bye; nothing is waited for."""
        if self.is_open:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no class of asyncio's
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._body is None:
            self._head += data
            head, separator, data = bytes(self._head).partition(LINE_END * 2)
            if not separator:
                return
            self._begin_body(head)
        assert self._body is not None
        try:
            piece = self._body.take(data)
        except ValueError as error:
            self._fail(f"the answer is no HTTP: {error}")
            self.close()
            return
        if piece:
            self._exchange.pieces.append((now, piece))
        if self._body.is_complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        ends_body = self._body is not None and self._body.ends_with_connection
        if exc is None and ends_body:
            self._finish()
        else:
            self._fail(f"the connection ended: {exc or 'closed by the server'}")

    def _begin_body(self, head: bytes) -> None:
        status, *lines = head.split(LINE_END)
        self._exchange.status = int(status.split(b" ", 2)[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._body = _Chunks()
        else:
            length = headers.get(b"content-length")
            self._body = _Plain(None if length is None else int(length))

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: str) -> None:
        if self._done is not None and not self._done.done():
            self._exchange.error = error
            self._done.set_result(None)


class _Chunks:
    """The body of an answer with `transfer-encoding: chunked`."""

    ends_with_connection = False

    def __init__(self) -> None:
        self.is_complete = False
        self._rest = b""

    def take(self, data: bytes) -> bytes:
        """What of the body is in these bytes. Raises ValueError where they are no chunks."""
        data = self._rest + data if self._rest else data
        pieces: list[bytes] = []
        place = 0
        while not self.is_complete:
            end_of_size = data.find(LINE_END, place)
            if end_of_size < 0:
                break
            size = int(data[place:end_of_size].partition(b";")[0], 16)
            start = end_of_size + len(LINE_END)
            if len(data) < start + size + len(LINE_END):
                break
            pieces.append(data[start : start + size])
            place = start + size + len(LINE_END)
            self.is_complete = size == 0
        self._rest = data[place:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Plain:
    """A body of known length, or up to the end of the connection."""

    def __init__(self, length: int | None) -> None:
        self.ends_with_connection = length is None
        self.is_complete = length == 0
        self._missing = length

    def take(self, data: bytes) -> bytes:
        """All of it."""
        if self._missing is not None:
            self._missing -= len(data)
            self.is_complete = self._missing <= 0
        return data


_Body = _Chunks | _Plain
