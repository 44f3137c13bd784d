"""One at a time through the event loop: keeps a crowd that arrives together from holding up everything else.

What is ready in an event loop runs in one round, however many there are. A thousand requests of half a millisecond each
would keep a probe waiting for half a second. Behind a turnstile each of them has a round of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turnstile:
    """Lets one task pass in each round of its event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_open = True

    async def wait(self) -> None:
        """Return when it is this task's turn: at once, where no crowd is."""
        loop = asyncio.get_running_loop()
        if self._is_open:
            self._is_open = False
            loop.call_soon(self._next)
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # a task that was cancelled gives its turn away
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_open = True
