"""Whose turn it is: round robin over the users of an engine, within a priority.

Each sequence gets a number when it arrives, and whoever sorts by these numbers serves the users in turns: the n-th
sequence of each user that waits comes before the n+1-th of any. A user who has not asked for a while begins with the
turn that is being served, so that nobody gathers claims by being silent. With one user it is the order of arrival.
"""

from __future__ import annotations

MAX_REMEMBERED = 4096
"""Users whose last turn is known, once for each priority. Clients choose the priorities, so there is no end of them."""


class Turns:
    """The turns of all users, apart for each priority."""

    def __init__(self) -> None:
        self._serving: dict[int, int] = {}
        """By priority: the highest turn that has begun."""
        self._last: dict[tuple[int, str], int] = {}
        """By priority and user: the last turn that was given."""

    def __len__(self) -> int:
        """How much is remembered."""
        return len(self._serving) + len(self._last)

    def take(self, priority: int, user: str) -> int:
        """The turn of a sequence that arrives."""
        key = (priority, user)
        turn = max(self._serving.get(priority, 0), self._last.pop(key, -1) + 1)
        self._last[key] = turn  # at the end: they are in the order of their last requests
        if len(self._last) > MAX_REMEMBERED:
            self._forget()
        return turn

    def begin(self, priority: int, turn: int) -> None:
        """A sequence of that turn is served."""
        if turn > self._serving.get(priority, 0):
            self._serving[priority] = turn

    def _forget(self) -> None:
        """Drop who would begin anew anyway, and of the others those who have not asked for the longest."""
        awaited = [(key, turn) for key, turn in self._last.items() if turn >= self._serving.get(key[0], 0)]
        self._last = dict(awaited[-(MAX_REMEMBERED // 2) :])
        priorities = {priority for priority, _ in self._last}
        self._serving = {priority: turn for priority, turn in self._serving.items() if priority in priorities}
