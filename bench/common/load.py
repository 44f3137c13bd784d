"""Requests of a load, sent at a concurrency or at a rate with Poisson arrivals, and what they came to."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import uvloop

from .answers import Answer, read_answer
from .http_stream import Exchange, HttpConnection
from .percentiles import summary


@dataclass(frozen=True)
class Pace:
    """How fast requests come: `concurrency` at once, or `rate` a second at random times."""

    concurrency: int | None = None
    rate: float | None = None
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.rate:g}/s" if self.rate is not None else f"{self.concurrency} at once"

    def starts(self, number: int) -> list[float]:
        """Seconds from the start at which each request may be sent; all 0 at a concurrency."""
        if self.rate is None:
            return [0.0] * number
        dice = random.Random(self.seed)
        starts = [0.0]
        for _ in range(number - 1):
            starts.append(starts[-1] + dice.expovariate(self.rate))
        return starts[:number]


@dataclass(frozen=True)
class Outcome:
    """What a load came to."""

    answers: list[Answer]
    seconds: float
    cpu_seconds: float
    """That this client took."""

    @property
    def good(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.error is None]

    @property
    def num_tokens(self) -> int:
        return sum(answer.num_tokens for answer in self.good)

    def row(self) -> dict[str, Any]:
        """The columns of its report."""
        good = self.good
        errors = [answer.error for answer in self.answers if answer.error is not None]
        row: dict[str, Any] = {
            "requests": len(self.answers),
            "errors": len(errors),
            "tokens": self.num_tokens,
            "tok/s": self.num_tokens / self.seconds,
            "req/s": len(good) / self.seconds,
            "TTFT ms": summary([answer.ttft for answer in good], 1000),
            "TPOT ms": summary([answer.tpot for answer in good if answer.tpot is not None], 1000),
            "ITL ms": summary([gap for answer in good for gap in answer.itls], 1000),
            "E2E ms": summary([answer.latency for answer in good], 1000),
            "seconds": round(self.seconds, 3),
            "client CPU s": round(self.cpu_seconds, 3),
        }
        return row | ({"first error": errors[0]} if errors else {})


def run_load(base_url: str, path: str, bodies: Sequence[dict[str, Any]], pace: Pace) -> Outcome:
    """Send the bodies as POST requests and wait for all answers.

    $OPENAI_API_KEY is sent as the server's key. A refused connection or a broken stream is an error of its answer.
    """
    requests = [_request(base_url, path, body) for body in bodies]
    # A collection in the middle of a run would look like a slow token of the server.
    gc.collect()
    gc.disable()
    try:
        started, cpu_started = time.perf_counter(), time.process_time()
        exchanges = uvloop.run(_send_all(base_url, requests, pace))
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    finally:
        gc.enable()
    return Outcome([read_answer(exchange) for exchange in exchanges], seconds, cpu_seconds)


def _request(base_url: str, path: str, body: dict[str, Any]) -> bytes:
    address = urlsplit(base_url)
    content = json.dumps(body).encode()
    key = os.environ.get("OPENAI_API_KEY")
    lines = [
        f"POST {address.path.rstrip('/')}{path} HTTP/1.1",
        f"host: {address.netloc}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *([f"authorization: Bearer {key}"] if key else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _send_all(base_url: str, requests: Sequence[bytes], pace: Pace) -> list[Exchange]:
    connections = _Connections(base_url)
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(pace.concurrency or len(requests) or 1)
    begun = loop.time()

    async def send(request: bytes, start: float) -> Exchange:
        if start:
            await asyncio.sleep(begun + start - loop.time())
        async with places:
            return await connections.exchange(request)

    exchanges = await asyncio.gather(*map(send, requests, pace.starts(len(requests))))
    connections.close()
    return exchanges


class _Connections:
    """Connections to one server, used again and again; as many as there are exchanges at once."""

    def __init__(self, base_url: str) -> None:
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._idle: list[HttpConnection] = []

    async def exchange(self, request: bytes) -> Exchange:
        sent = time.perf_counter()
        while True:
            try:
                connection, was_used = await self._take()
            except OSError as error:
                return Exchange(sent=sent, error=f"no connection: {error}")
            exchange = await connection.exchange(request, sent)
            if exchange.status or not was_used:
                self._idle.append(connection)
                return exchange
            # The server closed it while the request was on its way, as it may with one that was idle.

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    async def _take(self) -> tuple[HttpConnection, bool]:
        """A connection, and whether it has been used before."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection, True
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(HttpConnection, self._host, self._port))[1], False
