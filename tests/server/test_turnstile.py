"""A crowd passes a few at a time, and in order."""

from __future__ import annotations

import asyncio
import itertools

from zqserve.server.admission.turnstile import PER_ROUND, Turnstile


def test_a_crowd_passes_in_order_with_rounds_for_others_in_between() -> None:
    async def scenario() -> None:
        turnstile, passed, others = Turnstile(), [], []

        async def come(number: int) -> None:
            await turnstile.wait()
            passed.append(number)

        crowd = [asyncio.create_task(come(number)) for number in range(10 * PER_ROUND)]
        leaving = crowd[3 * PER_ROUND]
        await asyncio.sleep(0)
        leaving.cancel()
        while len(passed) < 10 * PER_ROUND - 1:
            others.append(len(passed))
            await asyncio.sleep(0)
        assert passed == [number for number in range(10 * PER_ROUND) if number != 3 * PER_ROUND]
        assert max(after - before for before, after in itertools.pairwise(others)) <= PER_ROUND

    asyncio.run(scenario())


def test_nobody_waits_where_no_crowd_is() -> None:
    async def scenario() -> None:
        turnstile = Turnstile()
        for _ in range(3 * PER_ROUND):
            passing = asyncio.ensure_future(turnstile.wait())
            await asyncio.sleep(0)
            assert passing.done()

    asyncio.run(scenario())
