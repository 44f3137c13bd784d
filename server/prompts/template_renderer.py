"""Renders the chat templates that requests bring, outside of the front-end, within limits of time and memory.

The model's own template, and the operator's, are trusted and rendered in the front-end itself (`chat_prompt.py`).
"""

from __future__ import annotations

import asyncio
import logging
import pickle

from ...engine_core.errors import InvalidRequestError, RequestFailedError
from ..http.errors import ApiError
from ..workers.worker_process import WorkerEndedError, WorkerProcess, start_worker
from .chat_template import Rendering
from .template_sandbox import MAX_SECONDS
from .template_worker import Outcome, Refused, decode_outcome

logger = logging.getLogger(__name__)

MAX_WORKERS = 2
MAX_WAITING = 64
"""Requests that wait for a process; more are turned away."""
KILL_SECONDS = MAX_SECONDS + 1.0
"""What a template may take as a whole; the sandbox gives up before, where it can."""
MEMORY = 512 * 2**20
"""Bytes that a template may take."""
NICENESS = 10
MAX_DEATHS = 2
"""New processes that may end over one template, killed by whomever, before it is given up."""


class TemplateRenderer:
    """One a front-end worker. All methods belong to its event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_WORKERS)
        self._spare: list[WorkerProcess] = []
        self._num_waiting = 0
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all processes."""
        while self._spare:
            self._end(self._spare.pop())
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def render(self, rendering: Rendering) -> str:
        """The text of the prompt.

        Raises `InvalidRequestError` for a template that fails or takes too much, `ApiError` 503 when too many wait,
        `RequestFailedError` where the processes that should render it end.
        """
        if self._num_waiting >= MAX_WAITING:
            raise ApiError(503, "Too many chat templates of requests are being rendered.", headers={"retry-after": "1"})
        question = pickle.dumps(rendering, protocol=pickle.HIGHEST_PROTOCOL)
        self._num_waiting += 1
        try:
            async with self._places:
                outcome = await self._ask(question)
        finally:
            self._num_waiting -= 1
        if isinstance(outcome, Refused):
            raise InvalidRequestError(outcome.param, outcome.message)
        return outcome.text

    async def _ask(self, question: bytes) -> Outcome:
        while self._spare:
            try:
                return await self._ask_worker(self._spare.pop(), question)
            except WorkerEndedError:
                continue  # it may have died before; a process that has just begun tells
        for _ in range(MAX_DEATHS):
            worker = await self._start_worker()
            try:
                return await self._ask_worker(worker, question)
            except WorkerEndedError:
                logger.error("A process ended over the chat template of a request.")
        raise RequestFailedError("chat_template: the processes that render it end before they are done.")

    async def _start_worker(self) -> WorkerProcess:
        worker = await start_worker("zqserve.server.prompts.template_worker", MEMORY)
        worker.slow_down(NICENESS)
        try:
            await worker.wait_until_ready()
        except BaseException:
            self._end(worker)
            raise
        return worker

    async def _ask_worker(self, worker: WorkerProcess, question: bytes) -> Outcome:
        """What the process makes of it; the process is spare afterwards, or ended. Raises `WorkerEndedError`."""
        is_spare = False
        try:
            async with asyncio.timeout(KILL_SECONDS):
                outcome = decode_outcome(await worker.ask(question))
            is_spare = not outcome.is_last
            return outcome
        except TimeoutError:
            return Refused("chat_template", f"The chat template takes longer than {MAX_SECONDS:g} s.")
        finally:
            if is_spare:
                self._spare.append(worker)
            else:
                self._end(worker)

    def _end(self, worker: WorkerProcess) -> None:
        task = asyncio.ensure_future(worker.kill())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
