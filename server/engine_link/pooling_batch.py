"""The texts of one HTTP request while the engine works on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ...engine_core.errors import RequestFailedError
from ...engine_core.messages import EngineOutput
from ...engine_core.pooling.pooling_messages import Pooled, PoolingRequest


class PoolingBatch:
    """Made by `EngineClient.pool`; `await results()`, and `close()` in any case: that aborts what has not ended."""

    def __init__(
        self,
        requests: Sequence[PoolingRequest],
        close: Callable[[PoolingBatch, list[int]], None],
        on_start: Callable[[], None],
    ) -> None:
        """close: told of the keys that have not been answered. on_start: called when the engine has begun with it."""
        self.queue_seconds: float | None = None
        """The longest time that one of the texts waited for its step."""
        self._requests = {request.key: request for request in requests}
        self._pooled: dict[int, Pooled | None] = dict.fromkeys(self._requests)
        self._num_missing = len(self._pooled)
        self._close = close
        self._on_start = on_start
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def results(self) -> list[Pooled]:
        """An answer for each text, in order. Raises `RequestFailedError` and `EngineDeadError`."""
        await self._done
        return [pooled for pooled in self._pooled.values() if pooled is not None]

    def close(self) -> None:
        """Nobody waits for the answers any more. May be called more than once."""
        self._done.cancel()
        self._close(self, [key for key, pooled in self._pooled.items() if pooled is None])

    @property
    def keys(self) -> list[int]:
        """Of all texts."""
        return list(self._requests)

    @property
    def finished(self) -> bool:
        """Whether every text has its answer."""
        return not self._num_missing

    @property
    def progress(self) -> int:
        """Texts that have their answer."""
        return len(self._pooled) - self._num_missing

    def messages(self) -> Sequence[PoolingRequest]:
        """The texts that have no answer yet."""
        return [request for key, request in self._requests.items() if self._pooled[key] is None]

    def take(self, output: EngineOutput) -> None:
        """From the client: one text is done."""
        self._on_start()
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
