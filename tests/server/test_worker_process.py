"""The processes for work that comes from outside are known to somebody as long as they live."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import psutil

from zqserve.server.workers.worker_process import start_worker

MODULE = "zqserve.server.constraints.grammar_worker"


def test_a_start_that_is_given_up_leaves_nothing_behind() -> None:
    ourselves = psutil.Process()

    async def give_up(num_turns: int) -> None:
        start = asyncio.ensure_future(start_worker(MODULE, 1 << 30))
        for _ in range(num_turns):
            await asyncio.sleep(0)
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await start).kill()  # it was faster
        for _ in range(20):
            await asyncio.sleep(0)

    children = set(ourselves.children())
    for num_turns in range(1, 4):
        asyncio.run(give_up(num_turns))
        assert set(ourselves.children()) == children, num_turns
    gc.collect()
    num_fds = ourselves.num_fds()
    for _ in range(20):
        asyncio.run(give_up(1))
    gc.collect()
    assert ourselves.num_fds() <= num_fds
