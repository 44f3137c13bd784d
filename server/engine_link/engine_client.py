"""The front-end's end of the wire: the requests of one worker, and the engine that computes them.

What a step brought goes through the output processor and into the `RequestStream` of each request, from which an
endpoint takes it when its client has read what came before.

An engine that dies is nothing that requests see: they stay here, and the one that takes its place is sent each of them
again with its tokens so far (`live_requests`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence

from ...engine_core.errors import EngineDeadError, RequestFailedError
from ...engine_core.messages import (
    AbortRequests,
    EngineReady,
    EngineRequest,
    EngineStats,
    Grammar,
    News,
    ResetPrefixCache,
    StepOutputs,
)
from ...engine_core.pooling.pooling_messages import PoolingRequest
from ...engine_core.pooling.pooling_params import PoolingParams
from ...engine_core.sampling_params import SamplingParams
from .engine_connection import EngineConnection
from .input_processor import InputProcessor, Prompt
from .live_requests import LiveRequest, LiveRequests
from .output_processor import OutputProcessor, RequestState, SampleDelta, merge_deltas
from .pooling_batch import PoolingBatch
from .pooling_processor import PoolingInput
from .quarantine import EngineMessage, Quarantine

logger = logging.getLogger(__name__)

TRIAL_SECONDS = 0.1
"""Between two looks at whether another worker has done with its suspect."""
SECONDS_OF_SILENCE = 3.0
"""After which an engine, which should be heard each second, is sent no more until it is heard again."""


class EngineClient:
    """Speaks with one engine at a time. All methods belong to the event loop on which it was started."""

    def __init__(
        self,
        address: str,
        input_processor: InputProcessor,
        output_processor: OutputProcessor,
        quarantine: Quarantine,
        *,
        engine_timeout: float,
        seconds_of_silence: float = SECONDS_OF_SILENCE,
        is_only_front_end: bool = True,
        count_resumed: Callable[[int], object] = lambda number: None,
        count_dropped: Callable[[], object] = lambda: None,
    ) -> None:
        """engine_timeout: seconds without a word after which the engine counts as dead. seconds_of_silence: those after
        which it is sent no more until it is heard again; what clients ask and abandon meanwhile would pile up in front
        of it. count_resumed: told how many requests a new engine was sent that an earlier one had.
        count_dropped: called for each message of the engine that makes no sense.
        """
        self.ready: EngineReady | None = None
        """None while no engine serves."""
        self.has_served = False
        """Whether an engine ever did."""
        self.stats = EngineStats()
        """As of the last message."""
        self._input_processor = input_processor
        self._output_processor = output_processor
        self._quarantine = quarantine
        self._engine_timeout = engine_timeout
        self._seconds_of_silence = seconds_of_silence
        self._count_resumed = count_resumed
        self._keys = itertools.count(1)
        self._live = LiveRequests(quarantine, is_only_front_end=is_only_front_end)
        self._streams: dict[RequestState, RequestStream] = {}
        """Of the live requests that generate."""
        self._batches: dict[int, PoolingBatch] = {}
        """Of those that pool, by the key of each text that has no answer yet."""
        self._aborts: list[int] = []
        """Keys to abort with the next turn of the event loop, or when the engine is heard again."""
        self._holds_back = False
        """Whether the engine serves, and there is something that it is sent only when it is heard again."""
        self._connection = EngineConnection(
            address, on_message=self._take, on_break=self._connection_broke, count_dropped=count_dropped
        )
        self._is_closed = False
        self._trials: asyncio.Task[None] | None = None
        self._readiness = asyncio.Event()

    async def start(self) -> None:
        """Connect and greet the engine. Does not wait for it: `ready` is set when it answers."""
        self._connection.open()

    async def close(self) -> None:
        """End what is running, and disconnect: the engine then forgets this front-end."""
        if self._trials is not None:
            self._trials.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._trials
        self.fail_all("The server is shutting down.")
        self._is_closed = True
        self._connection.close()

    def alive(self) -> bool:
        """Whether the engine serves and was heard within the last `engine_timeout` seconds."""
        return self._was_heard_within(self._engine_timeout)

    @property
    def num_live(self) -> int:
        """Requests that have not ended."""
        return len(self._live)

    async def wait_until_ready(self, seconds: float) -> bool:
        """Wait that long for an engine at most; whether there is one."""
        if self.ready is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._readiness.wait(), seconds)
        return self.ready is not None

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str = "",
        grammar: Grammar | None = None,
        user: str = "",
        on_start: Callable[[], None] = lambda: None,
    ) -> RequestStream:
        """Check a request, send it, and give the stream of its answers. While the engine is being replaced, it waits
        for the new one. on_start: called when the engine has begun with it.

        Raises `InvalidRequestError`, and `EngineDeadError` before the first engine serves and after the last.
        """
        self._check()
        requests = self._input_processor.requests(
            prompt,
            params,
            first_key=next(self._keys),
            priority=priority,
            cache_salt=cache_salt,
            grammar=grammar,
            user=user,
        )
        for _ in requests[1:]:
            next(self._keys)
        self._check_quarantine(requests[0])
        state = self._output_processor.add(requests, params)
        stream = self._streams[state] = RequestStream(self, state, on_start)
        self._begin(stream)
        return stream

    def pool(
        self,
        inputs: Sequence[PoolingInput],
        params: PoolingParams,
        *,
        priority: int = 0,
        user: str = "",
        on_start: Callable[[], None] = lambda: None,
    ) -> PoolingBatch:
        """Send texts, and give what their answers come to. Raises `EngineDeadError` as `generate` does."""
        self._check()
        now = time.time()
        requests = [
            PoolingRequest(
                key=next(self._keys),
                prompt_token_ids=given.token_ids,
                token_type_ids=given.token_type_ids,
                params=params,
                priority=priority,
                arrival_time=now,
                user=user,
            )
            for given in inputs
        ]
        for request in requests:
            self._check_quarantine(request)
        batch = PoolingBatch(requests, self._end_pooling, on_start)
        self._batches.update(dict.fromkeys(batch.keys, batch))
        self._begin(batch)
        return batch

    def reset_prefix_cache(self) -> None:
        """Have the engine forget the cached prefixes that no running request uses."""
        self._connection.send(ResetPrefixCache())

    def fail_all(self, reason: str) -> None:
        """End all requests: there will be no engine for them, or no time."""
        if self._live:
            logger.warning("%s %d requests are ended.", reason, len(self._live))
        for request in self._live:
            self._fail(request, EngineDeadError(reason))

    def _was_heard_within(self, seconds: float) -> bool:
        return self.ready is not None and time.monotonic() - self._connection.last_heard < seconds

    def _check(self) -> None:
        if not self.has_served or self._is_closed:
            raise EngineDeadError("The engine is not ready.")

    def _check_quarantine(self, message: EngineMessage) -> None:
        if self._quarantine.has(message):
            raise RequestFailedError("The same request has stopped the engine before; it is not tried again.")

    def _begin(self, request: LiveRequest) -> None:
        takes_it = self._was_heard_within(self._seconds_of_silence)
        self._live.add(request, is_sent=takes_it)
        if takes_it:
            self._send(request)
        else:
            self._holds_back = self.ready is not None

    def _send(self, request: LiveRequest) -> None:
        for message in request.messages():
            self._connection.send(message)

    def _end(self, stream: RequestStream) -> None:
        """Nobody waits for a request any more: abort what the engine still works on."""
        if self._streams.pop(stream.state, None) is not None:
            keys = self._output_processor.remove(stream.state)
            if self._live.remove(stream):
                self._abort(keys)

    def _end_pooling(self, batch: PoolingBatch, keys: list[int]) -> None:
        """Nobody waits for these texts any more."""
        unanswered = [key for key in keys if self._batches.pop(key, None) is not None]
        if self._live.remove(batch):
            self._abort(unanswered)

    def _abort(self, keys: list[int]) -> None:
        """Send with the next turn of the event loop, together with the aborts that come until then."""
        if keys and not self._aborts:
            asyncio.get_running_loop().call_soon(self._send_aborts)
        self._aborts += keys

    def _send_aborts(self) -> None:
        if self.ready is None:
            self._aborts.clear()  # the next engine knows none of them
        elif self._was_heard_within(self._seconds_of_silence):
            self._flush_aborts()
        else:
            self._holds_back = True

    def _flush_aborts(self) -> None:
        keys, self._aborts = self._aborts, []
        if keys:
            self._connection.send(AbortRequests(keys))

    def _send_what_was_held_back(self) -> None:
        """The engine is heard again."""
        self._holds_back = False
        unsent, _ = self._live.take_unsent()
        for request in unsent:
            self._send(request)
        self._flush_aborts()

    def _take(self, message: News) -> None:
        if isinstance(message, EngineReady):
            self._engine_serves(message)
            return
        self.stats = message.stats
        if self._holds_back:
            self._send_what_was_held_back()
        if isinstance(message, StepOutputs):
            self._take_outputs(message)
            self._try_next_suspects()

    def _take_outputs(self, step: StepOutputs) -> None:
        processor, streams, batches = self._output_processor, self._streams, self._batches
        for output in step.outputs:
            if batches and (batch := batches.pop(output.key, None)) is not None:
                batch.take(output)
                if batch.finished:
                    self._live.remove(batch)
                continue
            result = processor.process(output)
            if result is None:
                continue  # it was aborted while this was on its way
            state, deltas = result
            stream = streams[state]
            if output.queue_seconds is not None:
                stream.on_start()
            if state.error is not None:
                self._fail(stream, RequestFailedError(state.error))
                continue
            if state.finished:
                del streams[state]
                self._live.remove(stream)
            elif not deltas:
                continue
            stream._put(deltas)
        self._abort(processor.take_aborts())

    def _fail(self, request: LiveRequest, error: Exception) -> None:
        if isinstance(request, RequestStream):
            self._end(request)
        elif isinstance(request, PoolingBatch):
            self._end_pooling(request, request.keys)
        request.fail(error)

    def _engine_serves(self, ready: EngineReady) -> None:
        """Bring a new engine to where the one before it stopped."""
        self.ready = ready
        self.has_served = True
        self._readiness.set()
        self._quarantine.refresh()
        self._input_processor.meet(ready)
        unsent, num_resumed = self._live.take_unsent()
        for request in unsent:
            self._send(request)
        if num_resumed:
            self._count_resumed(num_resumed)
            logger.info("The engine goes on with %d requests.", num_resumed)
        if self._live.has_suspects and self._trials is None:
            self._trials = asyncio.create_task(self._try_suspects(), name="suspects")

    def _connection_broke(self, may_be_a_requests_fault: bool) -> None:
        if self.ready is None:
            return  # it had not been sent anything
        self.ready = None
        self._holds_back = False
        self._aborts.clear()  # the next engine knows none of them
        self.stats = EngineStats()
        self._readiness.clear()
        if not may_be_a_requests_fault:
            self._live.connection_broke()
            logger.warning("The connection to the engine is made anew, and %d requests sent again.", len(self._live))
            return
        guilty = self._live.engine_died()
        logger.warning("The engine is gone; %d requests wait for the next one.", len(self._live) - (guilty is not None))
        if guilty is not None:
            logger.error("A request that stopped the engine again and again is ended, and will not be tried again.")
            self._fail(guilty, RequestFailedError("The engine stopped each time that it came to this request."))

    async def _try_suspects(self) -> None:
        """Send the suspects group by group, also where another worker must be waited for."""
        while self._live.has_suspects:
            self._try_next_suspects()
            await asyncio.sleep(TRIAL_SECONDS)
        self._trials = None

    def _try_next_suspects(self) -> None:
        if self.ready is not None and self._live.has_suspects:
            suspects = self._live.take_suspects()
            if suspects:
                self._count_resumed(len(suspects))
                logger.info("%d requests that engines have died over are tried apart from others.", len(suspects))
            for suspect in suspects:
                self._send(suspect)


class RequestStream(AsyncIterator[list[SampleDelta]]):
    """The answers to one prompt as they come: `async for deltas in stream`, until all have ended.

    Each time at most one delta an answer: what came while nobody waited is put together. Raises `EngineDeadError` when
    no engine is left and `RequestFailedError` when it could not compute the request. Whoever leaves early calls
    `close`, which aborts the request within a step.
    """

    def __init__(self, client: EngineClient, state: RequestState, on_start: Callable[[], None]) -> None:
        self.state = state
        self.on_start = on_start
        self._client = client
        self._deltas: list[SampleDelta] = []
        """Not taken yet; the tokens of a request are bounded, and so is this."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._create_future = asyncio.get_running_loop().create_future

    async def __anext__(self) -> list[SampleDelta]:
        while not self._deltas:
            if self._error is not None:
                raise self._error
            if self._closed or self.state.finished:
                raise StopAsyncIteration
            waiter = self._waiter = self._create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        deltas, self._deltas = self._deltas, []
        return deltas if len(deltas) == 1 else _one_an_answer(deltas)

    def close(self) -> None:
        """Abort what has not ended. May be called more than once."""
        self._closed = True
        self._client._end(self)
        self._wake()

    @property
    def progress(self) -> int:
        """Tokens that have come."""
        return self.state.num_output_tokens

    def messages(self) -> Sequence[EngineRequest]:
        """What has an engine go on with it."""
        return self._client._output_processor.resumed(self.state)

    def fail(self, error: Exception) -> None:
        """From the client: nothing more will come."""
        self._error = error
        self._wake()

    def give_up(self, error: Exception) -> None:
        """Abort what has not ended; whoever waits for it gets the error behind what has come already."""
        if not self.state.finished:
            self._client._fail(self, error)

    def _put(self, deltas: list[SampleDelta]) -> None:
        """From the client: something new has come, or the end."""
        self._deltas += deltas
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _one_an_answer(deltas: list[SampleDelta]) -> list[SampleDelta]:
    """The deltas with those of the same answer put together; an order of first appearance."""
    by_index: dict[int, list[SampleDelta]] = {}
    for delta in deltas:
        by_index.setdefault(delta.index, []).append(delta)
    return [merge_deltas(same) for same in by_index.values()]
