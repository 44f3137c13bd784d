"""How an engine's process shows that its loop turns: a byte on a pipe now and then, which whoever started it reads.

The first byte says that the engine serves. A pipe that stays silent for too long is a loop that hangs, and one that is
closed is a process that has ended. No thread of its own writes, so that a hung loop cannot look alive.
"""

from __future__ import annotations

import contextlib
import os


class Pulse:
    """The writing end. Never waits: a reader that does not read has bytes enough to see."""

    def __init__(self, pipe: int | None) -> None:
        """pipe: file descriptor, taken over; None: nobody looks."""
        self._pipe = pipe
        if pipe is not None:
            os.set_blocking(pipe, False)
            os.set_inheritable(pipe, False)

    def beat(self) -> None:
        """The loop has turned."""
        if self._pipe is not None:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._pipe, b".")
