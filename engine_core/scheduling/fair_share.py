"""Whose turn it is: round robin over the users of an engine, within a priority.

Each sequence gets a number when it arrives, and whoever sorts by these numbers serves the users in turns: the n-th
sequence of each user that waits comes before the n+1-th of any. A user who has not asked for a while begins with the
turn that is being served, so that nobody gathers claims by being silent. With one user it is the order of arrival.
"""

from __future__ import annotations

MAX_REMEMBERED = 4096
"""Users whose last turn is known; those that are over are forgotten first."""


class Turns:
    """The turns of all users, apart for each priority."""

    def __init__(self) -> None:
        self._serving: dict[int, int] = {}
        """By priority: the highest turn that has begun."""
        self._last: dict[tuple[int, str], int] = {}
        """By priority and user: the last turn that was given."""

    def take(self, priority: int, user: str) -> int:
        """The turn of a sequence that arrives."""
        key = (priority, user)
        turn = max(self._serving.get(priority, 0), self._last.get(key, -1) + 1)
        self._last[key] = turn
        if len(self._last) > MAX_REMEMBERED:
            self._forget_past()
        return turn

    def begin(self, priority: int, turn: int) -> None:
        """A sequence of that turn is served."""
        if turn > self._serving.get(priority, 0):
            self._serving[priority] = turn

    def _forget_past(self) -> None:
        """Drop who would begin anew anyway."""
        self._last = {key: turn for key, turn in self._last.items() if turn >= self._serving.get(key[0], 0)}
