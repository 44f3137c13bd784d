"""How often a front-end worker may die before the server counts as broken."""

from __future__ import annotations

from zqserve.server.processes.worker_respawns import MAX_RESPAWNS, WINDOW_SECONDS, WorkerRespawns

GRANIANS_LIMIT = 5.5
"""Seconds since the respawn within which a death ends the server."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def num_deaths_until_the_end(seconds_between: float, most: int = 100) -> int | None:
    """Deaths of one worker, one after another, until granian ends the server; None if it goes on."""
    clock = Clock()
    respawns = WorkerRespawns(clock)
    for number in range(1, most):
        clock.now += seconds_between
        if clock.now - respawns.get(0, 0) <= GRANIANS_LIMIT:
            return number
        respawns.clear()  # as granian does
        respawns[0] = clock.now
    return None


def test_a_worker_that_dies_at_once_each_time_ends_the_server() -> None:
    assert num_deaths_until_the_end(1.0) == MAX_RESPAWNS + 1


def test_now_and_then_a_worker_may_die() -> None:
    assert num_deaths_until_the_end(WINDOW_SECONDS / MAX_RESPAWNS + 1) is None
