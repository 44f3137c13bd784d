"""Compiles constraints to grammars outside of the event loop and of the engine, within a deadline.

A request waits for its grammar; nobody else does. Compiled grammars, and the reasons for refusals, are kept by content.
Requests for the same grammar wait for one compilation; when the last of them leaves, it is ended.

There are two lanes. Each constraint first gets the quick one, alone, for `QUICK_SECONDS`: most need a few milliseconds.
What takes longer moves aside, with little claim to the processor, and a fresh worker takes over the quick lane. When
`MAX_SLOW` are aside already, it is ended and begins anew once one of them is done. So slow grammars wait for slow ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from ...engine_core.errors import InvalidRequestError, RequestFailedError
from ...engine_core.messages import Grammar
from ..http.errors import ApiError
from ..workers.worker_process import WorkerEndedError, WorkerProcess, start_worker
from .constraint import Constraint
from .grammar_worker import Compiled, Outcome, Refused, decode_outcome

logger = logging.getLogger(__name__)

QUICK_SECONDS = 0.1
MAX_SLOW = 2
MAX_QUICK_JOBS = 512
"""Constraints that wait for the quick lane; more are turned away."""
MAX_SLOW_JOBS = 16
"""Slow ones that run or wait; more are turned away."""
SLOW_NICENESS = 15
CACHE_BYTES = 64 << 20

MAX_DEATHS = 2
"""Processes that may end over one constraint, killed by whomever, before it is given up."""
ENDED = Refused("", is_last=True)
"""The outcome when the process ended."""


class GrammarCompiler:
    """One a front-end worker. All methods belong to its event loop."""

    def __init__(self, *, timeout: float, memory: int, observe_seconds: Callable[[float], None]) -> None:
        """timeout: seconds that a grammar may take. memory: bytes of it. observe_seconds: told what each one took."""
        self._timeout = timeout
        self._memory = memory
        self._observe_seconds = observe_seconds
        self._known = _KnownOutcomes(CACHE_BYTES)
        self._jobs: dict[bytes, _Job] = {}
        self._quick_lane = asyncio.Lock()
        self._slow_lane = asyncio.Semaphore(MAX_SLOW)
        self._num_slow = 0
        self._spare: WorkerProcess | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def num_jobs(self) -> int:
        """Grammars that somebody waits for."""
        return len(self._jobs)

    def warm_up(self) -> None:
        """Start a worker in the background, so that the first constraint need not wait for one."""
        self._in_background(self._restock())

    async def close(self) -> None:
        """End all workers."""
        self._is_closed = True
        for job in self._jobs.values():
            job.task.cancel()
        await asyncio.gather(*(job.task for job in self._jobs.values()), *self._background, return_exceptions=True)
        if self._spare is not None:
            self._end(self._spare)
            self._spare = None
        await asyncio.gather(*self._background, return_exceptions=True)

    async def compile(self, constraint: Constraint) -> Grammar:
        """The grammar of a constraint.

        Raises `InvalidRequestError` for one that is refused or takes too much, `ApiError` 503 when too many wait,
        `RequestFailedError` where the processes that should compile it end.
        """
        key = constraint.content_key()
        outcome = self._known.get(key)
        if outcome is None:
            outcome = await self._wait_for(key, constraint)
        if isinstance(outcome, Refused):
            raise InvalidRequestError(constraint.param, f"{constraint.param}: {outcome.reason}")
        return Grammar(key, outcome.data)

    async def _wait_for(self, key: bytes, constraint: Constraint) -> Outcome:
        job = self._jobs.get(key)
        if job is None:
            if len(self._jobs) >= MAX_QUICK_JOBS:
                raise _busy()
            job = self._jobs[key] = _Job(asyncio.ensure_future(self._run(key, constraint)))
        job.num_waiters += 1
        try:
            return await asyncio.shield(job.task)
        finally:
            job.num_waiters -= 1
            if job.num_waiters == 0:
                job.task.cancel()
                if self._jobs.get(key) is job:
                    del self._jobs[key]

    async def _run(self, key: bytes, constraint: Constraint) -> Outcome:
        started = time.perf_counter()
        for _ in range(MAX_DEATHS):
            outcome = await self._compile(constraint)
            if outcome is not ENDED:
                break
        else:
            raise RequestFailedError(f"{constraint.param}: the processes that compile it end before they are done.")
        if isinstance(outcome, Compiled) or not outcome.is_last:
            self._known.add(key, outcome)
        self._observe_seconds(time.perf_counter() - started)
        return outcome

    async def _compile(self, constraint: Constraint) -> Outcome:
        async with self._quick_lane:
            spare, self._spare = self._spare, None
            worker = spare or await self._start_worker()
            answer = await self._begin(worker, constraint)
            if answer.done():
                return self._finish(worker, answer)
            self.warm_up()  # the lane needs another worker
            if self._num_slow >= MAX_SLOW_JOBS:
                self._end(worker, answer)
                raise _busy()
            if self._slow_lane.locked():
                self._end(worker, answer)
                worker = None
            # Counted before the lane is free again: nobody else can have taken the place meanwhile.
            self._num_slow += 1
        try:
            if worker is not None:
                worker.slow_down(SLOW_NICENESS)
            async with self._slow_lane:
                return await self._compile_slowly(constraint, worker, answer)
        finally:
            self._num_slow -= 1

    async def _begin(self, worker: WorkerProcess, constraint: Constraint) -> asyncio.Future[Outcome]:
        """Have it compiled for as long as the quick lane gives; the answer, done or not."""
        answer = asyncio.ensure_future(_ask(worker, constraint))
        try:
            await asyncio.wait({answer}, timeout=min(QUICK_SECONDS, self._timeout))
        except BaseException:
            self._end(worker, answer)
            self.warm_up()
            raise
        return answer

    async def _compile_slowly(
        self, constraint: Constraint, worker: WorkerProcess | None, answer: asyncio.Future[Outcome]
    ) -> Outcome:
        if worker is None:
            worker = await self._start_worker()
            worker.slow_down(SLOW_NICENESS)
            answer = asyncio.ensure_future(_ask(worker, constraint))
        try:
            done, _ = await asyncio.wait({answer}, timeout=self._timeout)
            if not done:
                logger.info("A grammar (%s) was given up after %.0f s.", constraint.kind, self._timeout)
                return Refused(f"compiling it takes longer than {self._timeout:g} s.", is_last=True)
            return answer.result()
        finally:
            self._end(worker, answer)

    def _finish(self, worker: WorkerProcess, answer: asyncio.Future[Outcome]) -> Outcome:
        """The outcome of a worker in the quick lane, which goes on as the spare one if it can."""
        outcome = answer.result()
        if outcome.is_last:
            self._end(worker, answer)
            self.warm_up()
        else:
            self._spare = worker
        return outcome

    async def _restock(self) -> None:
        async with self._quick_lane:
            if self._spare is None and not self._is_closed:
                try:
                    self._spare = await self._start_worker()
                except RequestFailedError as error:
                    logger.warning("%s The next constraint tries again.", error)

    async def _start_worker(self) -> WorkerProcess:
        worker = await start_worker("zqserve.server.constraints.grammar_worker", self._memory)
        try:
            await worker.wait_until_ready()
        except BaseException:
            self._end(worker)
            raise
        return worker

    def _end(self, worker: WorkerProcess, answer: asyncio.Future[Outcome] | None = None) -> None:
        """Kill a process, whatever it is working on."""
        if answer is not None:
            answer.cancel()
        self._in_background(worker.kill())

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


@dataclass(eq=False, slots=True)
class _Job:
    """A compilation that requests wait for."""

    task: asyncio.Task[Outcome]
    num_waiters: int = 0


class _KnownOutcomes:
    """The outcomes that were asked for last, by content, within a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._outcomes: OrderedDict[bytes, Outcome] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: bytes) -> Outcome | None:
        outcome = self._outcomes.get(key)
        if outcome is not None:
            self._outcomes.move_to_end(key)
        return outcome

    def add(self, key: bytes, outcome: Outcome) -> None:
        self._outcomes[key] = outcome
        self._num_bytes += _num_bytes(outcome)
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= _num_bytes(self._outcomes.popitem(last=False)[1])


async def _ask(worker: WorkerProcess, constraint: Constraint) -> Outcome:
    """Have it compiled, or be told that the process has ended."""
    try:
        return decode_outcome(await worker.ask(msgspec.msgpack.encode(constraint)))
    except WorkerEndedError:
        logger.error("A process that compiles grammars ended over one (%s).", constraint.kind)
        return ENDED


def _num_bytes(outcome: Outcome) -> int:
    text = outcome.data if isinstance(outcome, Compiled) else outcome.reason
    return len(text) + 500


def _busy() -> ApiError:
    return ApiError(503, "Too many grammars are being compiled.", headers={"retry-after": "1"})
