"""The client of the engine, against a peer that speaks the wire's protocol as an engine does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from tests.server import tiny_tokenizers
from zqserve.engine_core.errors import EngineDeadError, InvalidRequestError, RequestFailedError
from zqserve.engine_core.messages import (
    AbortRequests,
    EngineOutput,
    EngineReady,
    EngineRequest,
    EngineStats,
    FromEngine,
    Heartbeat,
    Hello,
    StepOutputs,
    ToEngine,
)
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import pack, unpack_to_engine
from zqserve.server.engine_client import EngineClient, RequestStream
from zqserve.server.input_processor import InputProcessor, Prompt
from zqserve.server.model_info import ModelInfo
from zqserve.server.output_processor import OutputProcessor, SampleDelta

READY = EngineReady(max_model_len=64, vocab_size=300, num_blocks=4, block_size=16, dtype="float32")
PROMPT = Prompt([50, 51])


class Peer:
    """The engine's end of the socket, driven by the test."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket
        self._client = b""

    async def receive(self) -> ToEngine:
        """The next message that is no greeting."""
        while isinstance(message := await self._receive(), Hello):
            await self.send(READY)
        return message

    async def greet(self) -> None:
        assert isinstance(await self._receive(), Hello)
        await self.send(READY)

    async def _receive(self) -> ToEngine:
        self._client, *frames = await asyncio.wait_for(self._socket.recv_multipart(), 10)
        return unpack_to_engine(frames)

    async def request(self) -> EngineRequest:
        message = await self.receive()
        assert isinstance(message, EngineRequest)
        return message

    async def send(self, message: FromEngine) -> None:
        await self._socket.send_multipart([self._client, *pack(message)])

    async def step(self, *outputs: EngineOutput) -> None:
        await self.send(StepOutputs(list(outputs), EngineStats(num_running=len(outputs))))


@contextlib.asynccontextmanager
async def connected(folder: Path, *, engine_timeout: float = 30.0) -> AsyncIterator[tuple[EngineClient, Peer]]:
    """A client that the engine has greeted, and its peer."""
    tokenizer = tiny_tokenizers.byte_level(folder)
    model = ModelInfo("model", "Llama", 128, [2], 300, {})
    address = f"ipc://{folder}/engine"
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.ROUTER)
    client = EngineClient(
        address, InputProcessor(model, tokenizer), OutputProcessor(tokenizer), engine_timeout=engine_timeout
    )
    try:
        await client.start()  # before the engine is there
        assert client.ready is None
        assert not client.alive()
        with pytest.raises(EngineDeadError):
            client.generate(PROMPT, SamplingParams())
        socket.bind(address)
        peer = Peer(socket)
        await peer.greet()
        while client.ready is None:
            await asyncio.sleep(0.01)
        yield client, peer
    finally:
        await client.close()
        context.destroy(linger=0)


async def collect(stream: RequestStream) -> list[SampleDelta]:
    return [delta async for deltas in stream for delta in deltas]


def test_answers_of_several_requests_reach_their_streams(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            assert client.alive()
            first = client.generate(PROMPT, SamplingParams(n=2, max_tokens=4))
            second = client.generate(PROMPT, SamplingParams(max_tokens=4), priority=3, cache_salt="s")
            requests = [await peer.request() for _ in range(3)]
            assert len({request.key for request in requests}) == 3
            assert (requests[2].priority, requests[2].cache_salt) == (3, "s")
            one, two, three = (request.key for request in requests)
            tasks = [asyncio.ensure_future(collect(stream)) for stream in (first, second)]
            await peer.step(EngineOutput(one, [70]), EngineOutput(three, [71], "length"), EngineOutput(two, [72]))
            assert [delta.token_ids for delta in await tasks[1]] == [[71]]
            await peer.step(EngineOutput(one, [73], "length"))
            await peer.step(EngineOutput(two, [74], "length"))
            told = [(delta.index, delta.token_ids) for delta in await tasks[0]]
            assert sorted(told) == [(0, [70]), (0, [73]), (1, [72]), (1, [74])]
            assert client.stats.num_running == 1

    asyncio.run(scenario())


def test_what_came_while_nobody_waited_is_one_delta_an_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams(max_tokens=9))
            key = (await peer.request()).key
            for token_id in (70, 71, 72):
                await peer.step(EngineOutput(key, [token_id]))
            while len(stream._deltas) < 3:
                await asyncio.sleep(0.01)
            (delta,) = await anext(stream)
            assert delta.token_ids == [70, 71, 72]

    asyncio.run(scenario())


def test_leaving_early_aborts_in_one_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            streams = [client.generate(PROMPT, SamplingParams(n=2)) for _ in range(2)]
            keys = [(await peer.request()).key for _ in range(4)]
            waiting = asyncio.ensure_future(collect(streams[0]))
            await asyncio.sleep(0)
            for stream in streams:
                stream.close()
                stream.close()
            message = await peer.receive()
            assert isinstance(message, AbortRequests)
            assert sorted(message.keys) == sorted(keys)
            assert await waiting == []
            await peer.step(EngineOutput(keys[0], [70]))  # was on its way: nobody minds
            await peer.send(Heartbeat(EngineStats(num_steps=5)))
            while client.stats.num_steps != 5:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_a_stop_string_aborts_the_sequence_in_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            params = SamplingParams(stop=["<|im_start|>"], skip_special_tokens=False)
            stream = client.generate(PROMPT, params)
            key = (await peer.request()).key
            await peer.step(EngineOutput(key, [1]))
            (delta,) = await collect(stream)
            assert (delta.finish_reason, delta.stop_reason) == ("stop", "<|im_start|>")
            assert await peer.receive() == AbortRequests([key])

    asyncio.run(scenario())


def test_a_request_that_the_engine_cannot_compute_fails_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            bad = client.generate(PROMPT, SamplingParams(n=2))
            good = client.generate(PROMPT, SamplingParams())
            keys = [(await peer.request()).key for _ in range(3)]
            await peer.step(EngineOutput(keys[0], [], "error", error="No room."), EngineOutput(keys[2], [70], "length"))
            with pytest.raises(RequestFailedError, match="No room"):
                await collect(bad)
            assert len(await collect(good)) == 1
            assert await peer.receive() == AbortRequests([keys[1]])

    asyncio.run(scenario())


def test_an_engine_that_falls_silent_fails_its_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, engine_timeout=0.4) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams())
            await peer.request()
            with pytest.raises(EngineDeadError, match="not heard"):
                await asyncio.wait_for(collect(stream), 10)
            assert not client.alive()
            with pytest.raises(EngineDeadError):
                client.generate(PROMPT, SamplingParams())
            await peer.send(Heartbeat(EngineStats()))
            while not client.alive():
                await asyncio.sleep(0.01)
            client.generate(PROMPT, SamplingParams())

    asyncio.run(scenario())


def test_the_engines_shorter_context_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, _):
            with pytest.raises(InvalidRequestError, match="64"):
                client.generate(Prompt([50] * 64), SamplingParams())

    asyncio.run(scenario())


def test_closing_ends_what_is_running(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, _):
            waiting = asyncio.ensure_future(collect(client.generate(PROMPT, SamplingParams())))
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(EngineDeadError, match="shutting down"):
                await waiting

    asyncio.run(scenario())
