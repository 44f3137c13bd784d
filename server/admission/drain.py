"""How a front-end worker ends: new requests are refused, running ones end, and then the process does.

SIGTERM comes from the launcher. When the whole server ends (`ServerStatus.draining`), the worker goes on to listen, so
that whoever asks is told to go elsewhere: 503 with Retry-After, `/health` too. When only this worker is to be replaced,
it stops listening at once, and others answer. What is still running at the end of the time is ended with an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from ..engine_link.engine_client import EngineClient
from ..http.errors import ApiError
from ..server_status import EnginePhase, ServerStatus

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
RETRY_AFTER_SECONDS = "5"
"""By then another server may have taken the place."""


class Drain:
    """Of one worker; all methods belong to its event loop."""

    def __init__(self, status: ServerStatus, engine: EngineClient, timeout: float) -> None:
        """timeout: seconds that running requests have."""
        self.has_begun = False
        self.num_active = 0
        """HTTP requests that are being answered."""
        self._status = status
        self._engine = engine
        self._timeout = timeout
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Take over SIGTERM. The other signal that ends granian's worker, SIGINT, stays granian's."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._begin)

    def _begin(self) -> None:
        if self._task is None:
            self.has_begun = self._status.draining
            self._task = asyncio.create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        deadline = time.monotonic() + self._timeout
        while (
            self._status.draining
            and self.num_active
            and self._status.engine_phase != EnginePhase.LOST
            and time.monotonic() < deadline
        ):
            await asyncio.sleep(POLL_SECONDS)
        if self._status.engine_phase == EnginePhase.LOST:
            self._engine.fail_all("The engine cannot be restarted.")
        elif self._status.draining:
            self._engine.fail_all("The server is shutting down.")
        os.kill(os.getpid(), signal.SIGINT)


def _refusal() -> ApiError:
    """What is answered while the server ends."""
    headers = {"retry-after": RETRY_AFTER_SECONDS, "connection": "close"}
    return ApiError(503, "The server is shutting down.", headers=headers)


class DrainMiddleware:
    """Counts what is being answered, and refuses what is new once the server ends. Probes are always answered."""

    def __init__(self, app: ASGIApp, *, drain: Drain, open_paths: Collection[str], root_path: str) -> None:
        self._app = app
        self._drain = drain
        self._open_paths = frozenset(open_paths)
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].removeprefix(self._root_path) in self._open_paths:
            await self._app(scope, receive, send)
            return
        drain = self._drain
        if drain.has_begun:
            await _refusal().response(scope)(scope, receive, send)
            return
        drain.num_active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            drain.num_active -= 1
