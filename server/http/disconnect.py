"""A client that leaves cancels the work done for it."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.types import Receive


class cancel_on_disconnect:
    """`async with cancel_on_disconnect(receive) as watch:` runs the block until the client leaves.

    `send()` to a client that left does not raise, so nothing else would stop the block. It is cancelled at
    its next await and leaves quietly; `watch.disconnected` says so. To be entered once the body has been
    read.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.disconnected = False

    async def __aenter__(self) -> cancel_on_disconnect:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watcher.cancel()
        # The cancellation is ours to take back only when nobody else asked for one.
        return self.disconnected and self._task.uncancel() == 0 and exc_type is asyncio.CancelledError

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self._task.cancel()
