"""Keeps an engine running: starts its process, watches it, and starts another one when it dies or hangs.

A thread of the launcher. It knows nothing of requests: the front-ends notice a death by their broken connection, and
bring their requests to the next engine themselves. When engines keep dying, it gives up and says why.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from ...engine_core.engine_process import ACCOUNTS_WRONG, EngineProcessArgs
from ...engine_core.fork_server import ForkedProcess
from ..server_status import EnginePhase, ServerStatus

logger = logging.getLogger(__name__)

Process: TypeAlias = ForkedProcess | subprocess.Popen[bytes]
POLL_SECONDS = 1.0
"""Between two looks at a silent engine."""
STOP_SECONDS = 10.0
RESTART_WINDOW_SECONDS = 300.0
MAX_FAILED_STARTS = 3
"""Engines one after another that died before they served."""
BACKOFF_SECONDS = 1.0
"""Before the start that follows a failed one."""


@dataclass(frozen=True)
class _End:
    """How an engine ended."""

    reason: str
    served: bool
    is_refusal: bool
    """Whether it ended by itself in an orderly way, and not by a signal."""
    accounts_wrong: bool = False


class Supervisor:
    """Of one engine. `start` and `stop` belong to one thread, which lives as long as the server does."""

    def __init__(
        self,
        args: EngineProcessArgs,
        status: ServerStatus,
        *,
        engine_timeout: float,
        max_restarts: int,
        on_give_up: Callable[[], None],
        start_process: Callable[[EngineProcessArgs, int], Process],
    ) -> None:
        """engine_timeout: seconds without a turn of its loop after which an engine counts as hung. max_restarts: within
        `RESTART_WINDOW_SECONDS`. on_give_up: called in the supervisor's thread, when `failure` is set. start_process:
        called in that thread with the arguments and the file descriptor of the pulse, such as `ForkServer.start`.
        """
        self.failure: str | None = None
        """Why no engine will be started any more."""
        self._args = args
        self._status = status
        self._engine_timeout = engine_timeout
        self._max_restarts = max_restarts
        self._on_give_up = on_give_up
        self._start_process = start_process
        self._restarts: deque[float] = deque()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        """Around `_process` and its start."""
        self._process: Process | None = None
        self._has_started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)

    def start(self) -> None:
        """Start the first engine's process; does not wait until it serves."""
        self._thread.start()
        self._has_started.wait()

    def stop(self) -> None:
        """End the engine; it holds nothing that is worth waiting for."""
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            logger.warning("The engine did not end in %.0f s; it is killed.", STOP_SECONDS)
            self._process.kill()
            self._thread.join()

    def _run(self) -> None:
        num_failed_starts = 0
        for incarnation in range(sys.maxsize):
            end = self._run_one(incarnation)
            if self._stopping.is_set():
                return
            self._status.num_invariant_violations += end.accounts_wrong
            num_failed_starts = 0 if end.served else num_failed_starts + 1
            self.failure = self._why_not_again(end, num_failed_starts, is_first=incarnation == 0)
            if self.failure is not None:
                self._status.engine_phase = EnginePhase.LOST
                logger.error("%s", self.failure)
                self._on_give_up()
                return
            logger.warning("The engine %s; another one is started.", end.reason)
            self._status.num_engine_restarts += 1
            self._status.engine_phase = EnginePhase.RESTARTING
            if num_failed_starts and self._stopping.wait(BACKOFF_SECONDS * num_failed_starts):
                return

    def _why_not_again(self, end: _End, num_failed_starts: int, *, is_first: bool) -> str | None:
        """Why no other engine follows one that ended; None when one does."""
        if not end.served and is_first and end.is_refusal:
            return f"The engine {end.reason} before it could serve; the server stops."
        if num_failed_starts >= MAX_FAILED_STARTS:
            return (
                f"{num_failed_starts} engines one after another ended before they could serve; the last {end.reason}."
            )
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > RESTART_WINDOW_SECONDS:
            self._restarts.popleft()
        if len(self._restarts) >= self._max_restarts:
            return (
                f"The engine {end.reason}, after {len(self._restarts)} restarts within "
                f"{RESTART_WINDOW_SECONDS / 60:.0f} minutes; the server stops."
            )
        self._restarts.append(now)
        return None

    def _run_one(self, incarnation: int) -> _End:
        """Run one engine to its end."""
        reader, writer = os.pipe()
        try:
            with self._lock:
                if self._stopping.is_set():
                    os.close(writer)
                    return _End("was not started", served=False, is_refusal=True)
                try:
                    process = self._process = self._start_process(replace(self._args, incarnation=incarnation), writer)
                finally:
                    os.close(writer)
            self._has_started.set()
            return self._watch(process, reader)
        except OSError as error:
            return _End(f"could not be started ({error})", served=False, is_refusal=True)
        finally:
            self._has_started.set()
            os.close(reader)

    def _watch(self, process: Process, pulse: int) -> _End:
        """Wait until the engine has ended, by itself or because it hung."""
        last_beat: float | None = None
        while True:
            # The pipe tells of a death at once. Polling is for the case that something else holds its other end.
            if select.select([pulse], [], [], POLL_SECONDS)[0]:
                if os.read(pulse, 4096):
                    if last_beat is None:
                        self._status.engine_phase = EnginePhase.SERVING
                    last_beat = time.monotonic()
                else:
                    return _ended(self._wait(process), served=last_beat is not None)
            if process.poll() is not None:
                return _ended(process.wait(), served=last_beat is not None)
            if last_beat is not None and time.monotonic() - last_beat > self._engine_timeout:
                process.kill()
                process.wait()
                return _End(f"did not answer for {self._engine_timeout:g} s", served=True, is_refusal=False)

    def _wait(self, process: Process) -> int:
        """The status of an engine that is about to end."""
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _ended(status: int, *, served: bool) -> _End:
    if status < 0:
        return _End(f"was ended by signal {signal.Signals(-status).name}", served=served, is_refusal=False)
    if status == ACCOUNTS_WRONG:
        reason = "ended because its accounts contradicted themselves"
        return _End(reason, served=served, is_refusal=False, accounts_wrong=True)
    return _End(f"ended with exit status {status}", served=served, is_refusal=True)
