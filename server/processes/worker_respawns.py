"""When granian gives up on front-end workers that die: after many deaths in a short time, and not after two.

By itself it ends the whole server when a worker dies within 5.5 s of its start. What killed one worker, such as the
kernel for want of memory, may kill the next one too; the streams of the other workers shall not end with it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_SECONDS = 60.0
MAX_RESPAWNS = 10
"""Within the window; with one more, granian's own rule holds."""


class WorkerRespawns(dict[int, float]):
    """In the place of granian's table of when it has respawned each worker, which it asks before it does so again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MAX_RESPAWNS)
        """The last ones, whichever worker it was."""

    def __setitem__(self, worker: int, time: float) -> None:
        super().__setitem__(worker, time)
        self._times.append(time)

    def get(self, worker: int, default: float = 0.0) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """When it was respawned, if that speaks against doing it again."""
        are_many = len(self._times) == MAX_RESPAWNS and self._clock() - self._times[0] < WINDOW_SECONDS
        return self._times[-1] if are_many else default
