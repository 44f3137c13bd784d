"""The texts of one HTTP request while the engine works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..engine_core.errors import RequestFailedError
from ..engine_core.messages import EngineOutput
from ..engine_core.pooling_messages import Pooled


class PoolingBatch:
    """Made by `EngineClient.pool`; `await results()`, and `close()` in any case: that aborts what has not ended."""

    def __init__(self, keys: Sequence[int], close: Callable[[list[int]], None]) -> None:
        """`close` is told of the keys that have not been answered."""
        self.queue_seconds: float | None = None
        """The longest time that one of the texts waited for its step."""
        self._pooled: dict[int, Pooled | None] = dict.fromkeys(keys)
        self._num_missing = len(self._pooled)
        self._close = close
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def results(self) -> list[Pooled]:
        """An answer for each text, in order. Raises `RequestFailedError` and `EngineDeadError`."""
        await self._done
        return [pooled for pooled in self._pooled.values() if pooled is not None]

    def close(self) -> None:
        """Nobody waits for the answers any more. May be called more than once."""
        self._done.cancel()
        self._close([key for key, pooled in self._pooled.items() if pooled is None])

    def take(self, output: EngineOutput) -> None:
        """From the client: one text is done."""
        if output.pooled is None:
            self.fail(RequestFailedError(output.error or "The engine gave no answer for this text."))
            return
        if self._pooled[output.key] is None:
            self._pooled[output.key] = output.pooled
            self._num_missing -= 1
        self.queue_seconds = max(self.queue_seconds or 0.0, output.queue_seconds or 0.0)
        if not self._num_missing and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: Exception) -> None:
        """From the client: the answer will not be complete."""
        if not self._done.done():
            self._done.set_exception(error)
