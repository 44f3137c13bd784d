"""A few at a time through the event loop: keeps a crowd that arrives together from holding up everything else.

What is ready in an event loop runs in one round, however many there are. A thousand requests of half a millisecond each
would keep a probe, and all streams, waiting for half a second. Behind a turnstile few of them share a round.
"""

from __future__ import annotations

import asyncio
from collections import deque

PER_ROUND = 8


class Turnstile:
    """Lets `PER_ROUND` tasks pass in each round of its event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._num_free = PER_ROUND

    async def wait(self) -> None:
        """Return when it is this task's turn: at once, where no crowd is."""
        loop = asyncio.get_running_loop()
        if self._num_free == PER_ROUND:
            loop.call_soon(self._next_round)
        if self._num_free:
            self._num_free -= 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_round(self) -> None:
        self._num_free = PER_ROUND
        while self._waiting and self._num_free:
            turn = self._waiting.popleft()
            if not turn.done():  # a task that was cancelled gives its turn away
                turn.set_result(None)
                self._num_free -= 1
        if self._num_free < PER_ROUND:
            asyncio.get_running_loop().call_soon(self._next_round)
