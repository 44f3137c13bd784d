"""A client that can say of each request that it sent what became of it.

`AccountedClient.ask` sends one, on a connection of its own, and adds its fate to `tally`. A client that leaves cuts the
connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from .http_stream import Exchange, HttpConnection
from .mixed_load import OK, MixedRequest, content

DEADLINE_SECONDS = 180.0
"""An answer that is not complete by then counts as lost."""
MOST_KEPT = 20
"""Losses that are told one by one."""


@dataclass
class Tally:
    """How many requests came to which end."""

    num_sent: int = 0
    finished: int = 0
    """Answered in full, and rightly."""
    refused: Counter[int] = field(default_factory=Counter)
    """By status: 400 and 404 for what is wrong, 429 for what a key may not, 503 for what is too much."""
    left: int = 0
    """The client went away."""
    cut: int = 0
    """Broken off by the death of a front-end worker."""
    lost: int = 0
    """Anything else: no end, a wrong text, an error that should not be."""
    losses: list[str] = field(default_factory=list)
    """The first `MOST_KEPT` of them."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Of all answers whose head came, whatever became of them."""
    num_without_status: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def num_ended(self) -> int:
        return self.finished + self.refused.total() + self.left + self.cut + self.lost


class AccountedClient:
    """Sends requests to one server; belongs to one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self.tally = Tally()
        self.worker_deaths: list[float] = []
        """`time.perf_counter()` of each, to be noted by whoever kills them."""
        self._host = host
        self._port = port
        self._right: dict[MixedRequest, str] = {}

    async def learn(self, request: MixedRequest, key: str) -> None:
        """Ask on a calm server: what it answers now is right from then on. Exits where that is no good answer."""
        exchange = await self._exchange(request, key, DEADLINE_SECONDS)
        body = b"".join(piece for _, piece in exchange.pieces)
        self.tally.num_sent += 1
        self.tally.statuses[exchange.status] += 1
        try:
            if exchange.status != OK or exchange.error is not None:
                raise ValueError(f"status {exchange.status}, {exchange.error}")
            self._right[request] = content(request, body)
        except ValueError as error:
            raise SystemExit(f"{request.kind} ({request.path}): {error}: {body[:500]!r}") from None
        self.tally.finished += 1

    async def ask(self, request: MixedRequest, key: str, *, leave_after: float | None = None) -> None:
        """Send a request and note what becomes of it. leave_after: seconds that the client stays."""
        tally = self.tally
        tally.num_sent += 1
        tally.kinds[request.kind] += 1
        exchange = await self._exchange(request, key, leave_after or DEADLINE_SECONDS)
        if exchange.status:
            tally.statuses[exchange.status] += 1
        else:
            tally.num_without_status += 1
        if exchange.error == "left":
            if leave_after is None:
                self._lose(request, exchange, f"no end after {DEADLINE_SECONDS:.0f} s")
            else:
                tally.left += 1
        elif exchange.error is not None:
            if any(exchange.sent - 1.0 <= death <= time.perf_counter() for death in self.worker_deaths):
                tally.cut += 1
            else:
                self._lose(request, exchange, exchange.error)
        elif exchange.status == OK == request.status:
            self._take_answer(request, exchange)
        elif exchange.status in (request.status, 429, 503):
            tally.refused[exchange.status] += 1
        else:
            self._lose(request, exchange, f"status {exchange.status} instead of {request.status}")

    def _take_answer(self, request: MixedRequest, exchange: Exchange) -> None:
        try:
            found = content(request, b"".join(piece for _, piece in exchange.pieces))
        except ValueError as error:
            self._lose(request, exchange, str(error))
            return
        if found == self._right.get(request, found):
            self.tally.finished += 1
        else:
            self._lose(request, exchange, f"{found[:300]} instead of {self._right[request][:300]}")

    def _lose(self, request: MixedRequest, exchange: Exchange, why: str) -> None:
        self.tally.lost += 1
        if len(self.tally.losses) < MOST_KEPT:
            body = b"".join(piece for _, piece in exchange.pieces)
            self.tally.losses.append(f"{request.kind} ({request.path}): {why} [{body[-200:]!r}]")

    async def _exchange(self, request: MixedRequest, key: str, seconds: float) -> Exchange:
        """What comes back; the error "left" when that takes longer, and the connection is cut then."""
        sent = time.perf_counter()
        head = (
            f"POST {request.path} HTTP/1.1\r\nhost: {self._host}\r\nauthorization: Bearer {key}\r\n"
            f"connection: close\r\ncontent-length: {len(request.body)}\r\n\r\n"
        )
        connection: HttpConnection | None = None
        try:
            async with asyncio.timeout(seconds):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(HttpConnection, self._host, self._port)
                return await connection.exchange(head.encode() + request.body, sent)
        except TimeoutError:
            exchange = Exchange(sent=sent) if connection is None else connection.so_far
            exchange.error = "left"
            return exchange
        except OSError as error:
            return Exchange(sent=sent, error=f"no connection: {error}")
        finally:
            if connection is not None:
                connection.close()
