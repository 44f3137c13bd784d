"""Sets of whole numbers as runs (first, last), `inf` for no end: how often, how long."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

MAX_RUNS = 32
"""Sets with more runs are not told."""


def join_runs(runs: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """Runs of whole numbers (first, last), joined where they touch."""
    joined: list[tuple[int, float]] = []
    for low, high in sorted(runs):
        if joined and low <= joined[-1][1] + 1:
            if high > joined[-1][1]:
                joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined


def repeated_runs(runs: tuple[tuple[int, float], ...], low: int, high: float) -> list[tuple[int, float]] | None:
    """The sums of `low` to `high` numbers out of the runs; None: too many runs to say."""
    if len(runs) != 1:
        return None
    first, last = runs[0]
    sums: list[tuple[int, float]] = [(0, 0)] if low == 0 else []
    times = max(low, 1)
    while times <= high:
        sums.append((times * first, times * last))
        if last == inf or (times + 1) * first <= times * last + 1:
            # From here on each round touches the next, so the rest is one run.
            sums.append((times * first, high * last))
            return sums
        if len(sums) > MAX_RUNS:
            return None
        times += 1
    return sums
