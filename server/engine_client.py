"""The front-end's end of the wire: asyncio on one ZeroMQ DEALER, connected to the engine's ROUTER.

The socket's file descriptor is watched by the event loop; each time it wakes, everything that has arrived is taken
(the descriptor only tells of changes). What a step brought goes through the output processor and into the
`RequestStream` of each request, from which an endpoint takes it when its client has read what came before.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncIterator, Sequence

import zmq

from ..engine_core.errors import EngineDeadError, RequestFailedError
from ..engine_core.messages import (
    AbortRequests,
    EngineReady,
    EngineStats,
    FromEngine,
    Grammar,
    Hello,
    ResetPrefixCache,
    StepOutputs,
    ToEngine,
)
from ..engine_core.pooling_messages import PoolingRequest
from ..engine_core.pooling_params import PoolingParams
from ..engine_core.sampling_params import SamplingParams
from ..engine_core.wire import WireError, pack, unpack_from_engine
from .input_processor import InputProcessor, Prompt
from .output_processor import OutputProcessor, RequestState, SampleDelta, merge_deltas
from .pooling_batch import PoolingBatch
from .pooling_processor import PoolingInput

logger = logging.getLogger(__name__)

ENGINE_TIMEOUT_SECONDS = 120.0
"""A step of a large model on a CPU may take a minute, and the engine speaks between steps."""
HELLO_SECONDS = 0.25
"""Between greetings, until the engine answers one."""
WATCH_SECONDS = 1.0


class EngineClient:
    """Speaks with one engine core. All methods belong to the event loop on which it was started."""

    def __init__(
        self,
        address: str,
        input_processor: InputProcessor,
        output_processor: OutputProcessor,
        *,
        engine_timeout: float = ENGINE_TIMEOUT_SECONDS,
    ) -> None:
        self.ready: EngineReady | None = None
        """None until the engine serves."""
        self.stats = EngineStats()
        """As of the last message."""
        self._address = address
        self._input_processor = input_processor
        self._output_processor = output_processor
        self._engine_timeout = engine_timeout
        self._keys = itertools.count(1)
        self._streams: dict[RequestState, RequestStream] = {}
        """Requests that have not ended."""
        self._batches: dict[int, PoolingBatch] = {}
        """By the key of each text that has no answer yet."""
        self._aborts: list[int] = []
        """Keys to abort with the next turn of the event loop."""
        self._last_heard = 0.0
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and greet the engine. Does not wait for it: `ready` is set when it answers."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, 0)
        # The requests are bounded where they are accepted, and what they bring by their max_tokens.
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.connect(self._address)
        self._loop.add_reader(self._socket.fileno(), self._receive)
        self._watcher = asyncio.create_task(self._watch(), name="engine-watcher")

    async def close(self) -> None:
        """End what is running, and disconnect: the engine then forgets this front-end."""
        if self._socket is None or self._context is None or self._watcher is None:
            return
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        self._fail_all("The server is shutting down.")
        self._loop.remove_reader(self._socket.fileno())
        self._context.destroy(linger=0)
        self._socket = self._context = self._watcher = None

    def alive(self) -> bool:
        """Whether the engine serves and was heard within the last `engine_timeout` seconds."""
        return self.ready is not None and time.monotonic() - self._last_heard < self._engine_timeout

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str = "",
        grammar: Grammar | None = None,
    ) -> RequestStream:
        """Check a request, send it, and give the stream of its answers.

        Raises `InvalidRequestError`, and `EngineDeadError` when the engine cannot take it, before anything is sent.
        """
        if not self.alive():
            raise EngineDeadError("The engine is not ready." if self.ready is None else "The engine does not answer.")
        requests = self._input_processor.requests(
            prompt,
            params,
            first_key=next(self._keys),
            priority=priority,
            cache_salt=cache_salt,
            grammar=grammar,
        )
        for _ in requests[1:]:
            next(self._keys)
        state = self._output_processor.add(requests, params)
        stream = self._streams[state] = RequestStream(self, state)
        for request in requests:
            self._send(request)
        return stream

    def pool(self, inputs: Sequence[PoolingInput], params: PoolingParams, *, priority: int = 0) -> PoolingBatch:
        """Send texts, and give what their answers come to. Raises `EngineDeadError` before anything is sent."""
        if not self.alive():
            raise EngineDeadError("The engine is not ready." if self.ready is None else "The engine does not answer.")
        keys = [next(self._keys) for _ in inputs]
        batch = PoolingBatch(keys, self._end_pooling)
        self._batches.update(dict.fromkeys(keys, batch))
        now = time.time()
        for key, given in zip(keys, inputs, strict=True):
            self._send(
                PoolingRequest(
                    key=key,
                    prompt_token_ids=given.token_ids,
                    token_type_ids=given.token_type_ids,
                    params=params,
                    priority=priority,
                    arrival_time=now,
                )
            )
        return batch

    def reset_prefix_cache(self) -> None:
        """Have the engine forget the cached prefixes that no running request uses."""
        self._send(ResetPrefixCache())

    def _end(self, state: RequestState) -> None:
        """Nobody waits for a request any more: abort what the engine still works on."""
        if self._streams.pop(state, None) is not None:
            self._abort(self._output_processor.remove(state))

    def _end_pooling(self, keys: list[int]) -> None:
        """Nobody waits for these texts any more."""
        self._abort([key for key in keys if self._batches.pop(key, None) is not None])

    def _abort(self, keys: list[int]) -> None:
        """Send with the next turn of the event loop, together with the aborts that come until then."""
        if keys and not self._aborts:
            self._loop.call_soon(self._send_aborts)
        self._aborts += keys

    def _send_aborts(self) -> None:
        keys, self._aborts = self._aborts, []
        self._send(AbortRequests(keys))

    def _send(self, message: ToEngine) -> None:
        if self._socket is None:
            return
        self._socket.send_multipart(pack(message), zmq.NOBLOCK)
        # Sending may have used up the descriptor's event of a message that arrived meanwhile.
        events = self._socket.getsockopt(zmq.EVENTS)
        if isinstance(events, int) and events & zmq.POLLIN:
            self._loop.call_soon(self._receive)

    def _receive(self) -> None:
        """Take in all that has arrived."""
        while self._socket is not None:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = unpack_from_engine(frames)
            except WireError as error:
                logger.error("The engine sent something that makes no sense: %s", error)
                continue
            self._last_heard = time.monotonic()
            self._take(message)

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, EngineReady):
            self.ready = message
            self._input_processor.max_model_len = message.max_model_len
            return
        self.stats = message.stats
        if isinstance(message, StepOutputs):
            self._take_outputs(message)

    def _take_outputs(self, step: StepOutputs) -> None:
        processor, streams = self._output_processor, self._streams
        for output in step.outputs:
            batch = self._batches.pop(output.key, None)
            if batch is not None:
                batch.take(output)
                continue
            result = processor.process(output)
            if result is None:
                continue  # it was aborted while this was on its way
            state, deltas = result
            if state.error is not None:
                stream = streams[state]
                self._end(state)
                stream._fail(RequestFailedError(state.error))
            elif state.finished:
                streams.pop(state)._put(deltas)
            elif deltas:
                streams[state]._put(deltas)
        self._abort(processor.take_aborts())

    async def _watch(self) -> None:
        """Greet the engine until it answers; give up its requests when it falls silent."""
        while True:
            if self.ready is None:
                self._send(Hello())
                await asyncio.sleep(HELLO_SECONDS)
                continue
            if (self._streams or self._batches) and not self.alive():
                self._fail_all(f"The engine was not heard of for {self._engine_timeout:.0f} s.")
            await asyncio.sleep(min(WATCH_SECONDS, self._engine_timeout / 4))

    def _fail_all(self, reason: str) -> None:
        if self._streams:
            logger.warning("%s %d requests are ended.", reason, len(self._streams))
        for state, stream in list(self._streams.items()):
            self._end(state)
            stream._fail(EngineDeadError(reason))
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            batch.fail(EngineDeadError(reason))


class RequestStream(AsyncIterator[list[SampleDelta]]):
    """The answers to one prompt as they come: `async for deltas in stream`, until all have ended.

    Each time at most one delta an answer: what came while nobody waited is put together. Raises `EngineDeadError` when
    the engine stopped and `RequestFailedError` when it could not compute the request. Whoever leaves early calls
    `close`, which aborts the request within a step.
    """

    def __init__(self, client: EngineClient, state: RequestState) -> None:
        self.state = state
        self._client = client
        self._deltas: list[SampleDelta] = []
        """Not taken yet; the tokens of a request are bounded, and so is this."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    async def __anext__(self) -> list[SampleDelta]:
        while not self._deltas:
            if self._error is not None:
                raise self._error
            if self._closed or self.state.finished:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        deltas, self._deltas = self._deltas, []
        return deltas if len(deltas) == 1 else _one_an_answer(deltas)

    def close(self) -> None:
        """Abort what has not ended. May be called more than once."""
        self._closed = True
        self._client._end(self.state)
        self._wake()

    def _put(self, deltas: list[SampleDelta]) -> None:
        """From the client: something new has come, or the end."""
        self._deltas += deltas
        self._wake()

    def _fail(self, error: Exception) -> None:
        """From the client: nothing more will come."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _one_an_answer(deltas: list[SampleDelta]) -> list[SampleDelta]:
    """The deltas with those of the same answer put together; an order of first appearance."""
    by_index: dict[int, list[SampleDelta]] = {}
    for delta in deltas:
        by_index.setdefault(delta.index, []).append(delta)
    return [merge_deltas(same) for same in by_index.values()]
