"""The pooling half of an engine core: texts go in, each step brings some of their answers. No socket, no torch.

A text is computed whole, in one step, and leaves nothing behind: a step is the texts that wait, in their order, up to
the budget of tokens.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..config import EngineConfig
from ..memory_shortage import OUT_OF_MEMORY, run_in_parts
from ..messages import EngineOutput
from ..scheduling.fair_share import Turns
from ..scheduling.scheduler import ClientOutputs
from .pooling_messages import Pooled, PoolingRequest
from .pooling_params import PoolingTask

DEFAULT_BATCHED_TOKENS = 512
"""Enough to keep a CPU's matrix units busy."""

logger = logging.getLogger(__name__)


class PoolingModelRunner(Protocol):
    """What the core needs of a `PoolingRunner`."""

    @property
    def max_model_len(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def dtype(self) -> str: ...

    def execute(self, requests: Sequence[PoolingRequest]) -> list[Pooled | str]:
        """An answer for each request, in the same order, or why there is none."""
        ...


def batched_tokens(config: EngineConfig) -> int:
    """Token budget of a step."""
    return DEFAULT_BATCHED_TOKENS if config.max_num_batched_tokens is None else config.max_num_batched_tokens


@dataclass(order=True, slots=True)
class _Waiting:
    """A text in the queue; the lowest comes first."""

    priority: int
    turn: int
    number: int
    message: PoolingRequest = field(compare=False)
    client: bytes = field(compare=False)
    is_aborted: bool = field(default=False, compare=False)


class PoolingCore:
    """Pools texts of several clients. What is wrong with a text comes back as its answer; nothing raises."""

    def __init__(self, runner: PoolingModelRunner, config: EngineConfig, tasks: Sequence[PoolingTask]) -> None:
        self.max_model_len = runner.max_model_len
        self.vocab_size = runner.vocab_size
        self.dtype = runner.dtype
        self._runner = runner
        self._tasks = tasks
        self._max_num_batched_tokens = batched_tokens(config)
        self._max_num_seqs = config.max_num_seqs
        self._by_priority = config.scheduling_policy == "priority"
        self._queue: list[_Waiting] = []
        """A heap; what was aborted stays in it until it comes up, or until most of it is such."""
        self._num_aborted = 0
        """Of those in the queue."""
        self._waiting: dict[bytes, dict[int, _Waiting]] = {}
        self._turns = Turns()
        self._num_requests = 0
        self._answered: ClientOutputs = {}
        self.num_waiting = 0
        self.num_steps = 0
        self.num_step_tokens = 0

    def add_request(self, message: PoolingRequest, client: bytes = b"") -> None:
        """Queue a text. One that cannot be served is answered with an error by the next step."""
        error = self._error_in(message, client)
        if error is not None:
            self._answered.setdefault(client, []).append(EngineOutput(message.key, [], "error", error=error))
            return
        self._num_requests += 1
        priority = message.priority if self._by_priority else 0
        turn = self._turns.take(priority, message.user)
        waiting = _Waiting(priority, turn, self._num_requests, message, client)
        heapq.heappush(self._queue, waiting)
        self._waiting.setdefault(client, {})[message.key] = waiting
        self.num_waiting += 1

    def abort(self, client: bytes, keys: Iterable[int]) -> None:
        """Forget texts; nothing more comes of them. Unknown keys are passed over."""
        for key in keys:
            self._take_out(client, key, is_aborted=True)

    def abort_client(self, client: bytes) -> list[int]:
        """Forget all texts of a client; their keys."""
        keys = list(self._waiting.get(client, ()))
        self.abort(client, keys)
        return keys

    def has_unfinished(self) -> bool:
        """Whether a step would bring anything."""
        return self.num_waiting > 0 or bool(self._answered)

    def step(self) -> ClientOutputs:
        """Compute the texts that come next; what to tell each client."""
        outputs, self._answered = self._answered, {}
        batch = self._next_batch()
        if not batch:
            return outputs
        now = time.time()
        try:
            answers = run_in_parts(
                self._runner.execute, [waiting.message for waiting in batch], lambda _: OUT_OF_MEMORY
            )
        except Exception:
            logger.exception("A step of %d texts failed; they are ended, the others go on.", len(batch))
            answers = ["The engine failed to compute this request."] * len(batch)
        for waiting, answer in zip(batch, answers, strict=True):
            outputs.setdefault(waiting.client, []).append(_output(waiting.message, answer, now))
        return outputs

    def _next_batch(self) -> list[_Waiting]:
        """Texts in their order while they fit into the budget; at least one."""
        batch: list[_Waiting] = []
        budget = self._max_num_batched_tokens
        while self._queue and len(batch) < self._max_num_seqs:
            waiting = self._queue[0]
            num_tokens = len(waiting.message.prompt_token_ids)
            if not waiting.is_aborted:
                if batch and num_tokens > budget:
                    break
                self._take_out(waiting.client, waiting.message.key)
                self._turns.begin(waiting.priority, waiting.turn)
                batch.append(waiting)
                budget -= num_tokens
                self.num_step_tokens += num_tokens
            heapq.heappop(self._queue)
            self._num_aborted -= waiting.is_aborted
        self.num_steps += bool(batch)
        return batch

    def _take_out(self, client: bytes, key: int, *, is_aborted: bool = False) -> None:
        """No longer wait for a text."""
        of_client = self._waiting.get(client, {})
        waiting = of_client.pop(key, None)
        if waiting is None:
            return
        waiting.is_aborted = is_aborted
        self.num_waiting -= 1
        if not of_client:
            del self._waiting[client]
        if is_aborted:
            self._num_aborted += 1
            if self._num_aborted * 2 > len(self._queue):
                self._sweep()

    def _sweep(self) -> None:
        """Forget the texts that nobody waits for any more."""
        self._queue = [waiting for waiting in self._queue if not waiting.is_aborted]
        heapq.heapify(self._queue)
        self._num_aborted = 0

    def _error_in(self, message: PoolingRequest, client: bytes) -> str | None:
        """Why a text cannot be served. The front-end checks more, and earlier; here is what would do harm."""
        token_ids, types = message.prompt_token_ids, message.token_type_ids
        if message.key in self._waiting.get(client, ()):
            return f"A request with the key {message.key} is already running."
        if message.params.task not in self._tasks:
            return f"The task {message.params.task!r} is not one of {', '.join(self._tasks)}."
        if not token_ids:
            return "The text is empty."
        if len(token_ids) > self.max_model_len:
            return f"The text has {len(token_ids)} tokens; max_model_len is {self.max_model_len}."
        if not (min(token_ids) >= 0 and max(token_ids) < self.vocab_size):
            return f"A token id is outside of the vocabulary of {self.vocab_size}."
        if types is not None and (len(types) != len(token_ids) or not set(types) <= {0, 1}):
            return "token_type_ids must be 0 or 1 for each token."
        return None


def _output(message: PoolingRequest, answer: Pooled | str, now: float) -> EngineOutput:
    if isinstance(answer, str):
        return EngineOutput(message.key, [], "error", error=answer)
    output = EngineOutput(message.key, [], "stop", pooled=answer)
    output.queue_seconds = max(0.0, now - message.arrival_time) if message.arrival_time else 0.0
    return output
