"""What the launcher tells its front-end workers: a page of memory that they share, one writer and many readers.

It is a state and no event, so a worker that begins late, or in the place of another, sees it too. Reading costs
nothing: `/health` and every new request look at it.
"""

from __future__ import annotations

import enum
import mmap
import os
from pathlib import Path

_PHASE, _DRAINING, _WORKER_FAILED = 0, 1, 2
_NUM_RESTARTS, _NUM_VIOLATIONS = slice(8, 16), slice(16, 24)
_BYTES = 24


class EnginePhase(enum.IntEnum):
    """Where the engine's process stands."""

    LOADING = 0
    """The first one, before it serves."""
    SERVING = 1
    RESTARTING = 2
    """It died, or hung and was killed; another one is loading."""
    LOST = 3
    """It died too often; the server ends."""


class ServerStatus:
    """The state of the server as the launcher sees it. Workers only read, but for `worker_failed`."""

    def __init__(self, path: Path) -> None:
        """path: a file in the server's private folder; made if it is not there. Raises OSError."""
        with path.open("a+b") as file:
            if file.tell() < _BYTES:
                os.posix_fallocate(file.fileno(), 0, _BYTES)  # a page that has no room kills whoever writes to it
            self._memory = mmap.mmap(file.fileno(), _BYTES)

    @property
    def engine_phase(self) -> EnginePhase:
        return EnginePhase(self._memory[_PHASE])

    @engine_phase.setter
    def engine_phase(self, phase: EnginePhase) -> None:
        self._memory[_PHASE] = phase

    @property
    def num_engine_restarts(self) -> int:
        """Engines that were started in the place of one that died."""
        return int.from_bytes(self._memory[_NUM_RESTARTS], "little")

    @num_engine_restarts.setter
    def num_engine_restarts(self, number: int) -> None:
        self._memory[_NUM_RESTARTS] = number.to_bytes(8, "little")

    @property
    def num_invariant_violations(self) -> int:
        """Engines that ended because their accounts contradicted themselves."""
        return int.from_bytes(self._memory[_NUM_VIOLATIONS], "little")

    @num_invariant_violations.setter
    def num_invariant_violations(self, number: int) -> None:
        self._memory[_NUM_VIOLATIONS] = number.to_bytes(8, "little")

    @property
    def draining(self) -> bool:
        """Whether the whole server is ending, and not one worker of it alone."""
        return bool(self._memory[_DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._memory[_DRAINING] = value

    @property
    def worker_failed(self) -> bool:
        """Whether a worker could not begin: none in its place could either."""
        return bool(self._memory[_WORKER_FAILED])

    @worker_failed.setter
    def worker_failed(self, value: bool) -> None:
        self._memory[_WORKER_FAILED] = value
