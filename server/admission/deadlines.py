"""How long a request may wait, and take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from ..http.errors import ApiError
from .admission import RETRY_AFTER_SECONDS, Ticket


class Deadlines:
    """`with Deadlines(…):` ends a request that waits, or takes, too long."""

    def __init__(
        self,
        ticket: Ticket,
        fail: Callable[[ApiError], object],
        *,
        arrival: float,
        queue_seconds: float,
        request_seconds: float,
    ) -> None:
        """fail: told what to answer, 503 for the queue and 504 for the whole. arrival: `time.monotonic()`. 0 seconds
        are no limit.
        """
        self._ticket = ticket
        self._fail = fail
        self._passed = time.monotonic() - arrival
        self._queue_seconds = queue_seconds
        self._request_seconds = request_seconds
        self._timers: list[asyncio.TimerHandle] = []

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        if self._queue_seconds:
            self._timers.append(loop.call_later(self._queue_seconds - self._passed, self._end_waiting))
        if self._request_seconds:
            self._timers.append(loop.call_later(self._request_seconds - self._passed, self._end))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()

    def _end_waiting(self) -> None:
        if self._ticket.waits:
            message = f"The request has waited for {self._queue_seconds:g} s and is given up."
            self._fail(ApiError(503, message, headers={"retry-after": RETRY_AFTER_SECONDS}))

    def _end(self) -> None:
        self._fail(ApiError(504, f"The request has taken {self._request_seconds:g} s and is given up."))
