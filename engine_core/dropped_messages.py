"""Counts the messages that a process drops because they make no sense, and tells of them, but not of each. Torch-free.

Used by both ends of the wire.
"""

from __future__ import annotations

import logging
import time

from .wire import WireError, WireFault

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 60.0


class DroppedMessages:
    """Of one process."""

    def __init__(self, sender: str) -> None:
        """sender: who sends them, for the log."""
        self.number = 0
        self._sender = sender
        self._known_faults: set[WireFault] = set()
        self._next_line = 0.0

    def add(self, error: WireError) -> None:
        """One more. Logged is the first of each kind of fault, and once a minute at most how many there are."""
        self.number += 1
        now = time.monotonic()
        if error.fault not in self._known_faults:
            self._known_faults.add(error.fault)
            logger.warning("A message of %s was dropped: %s. More of its kind are counted.", self._sender, error)
        elif now >= self._next_line:
            logger.warning("%d messages of %s were dropped so far.", self.number, self._sender)
        else:
            return
        self._next_line = now + SECONDS_BETWEEN_LINES
