"""An engine's end of the socket, driven by a test, and the client at the other end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from tests.server import tiny_tokenizers
from zqserve.engine_core.errors import EngineDeadError
from zqserve.engine_core.messages import (
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
from zqserve.server.engine_link.engine_client import EngineClient, RequestStream
from zqserve.server.engine_link.input_processor import InputProcessor, Prompt
from zqserve.server.engine_link.model_info import ModelInfo
from zqserve.server.engine_link.output_processor import OutputProcessor, SampleDelta
from zqserve.server.engine_link.quarantine import Quarantine

READY = EngineReady(max_model_len=64, vocab_size=300, num_blocks=4, block_size=16, dtype="float32")
PROMPT = Prompt([50, 51])


class Peer:
    """The engine's end of the socket, driven by the test."""

    def __init__(self, context: zmq.asyncio.Context, address: str, client: EngineClient) -> None:
        """client: at the other end."""
        self._context = context
        self._address = address
        self._client = client
        self._identity = b""
        self._num_deaths = 0
        self.rise()

    def rise(self) -> None:
        """Be an engine that has just begun."""
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(self._address)

    async def die(self) -> None:
        """Be gone; what was sent has arrived."""
        self._num_deaths += 1
        await self.send(Heartbeat(EngineStats(num_steps=-self._num_deaths)))  # it comes last
        while self._client.stats.num_steps != -self._num_deaths:
            await asyncio.sleep(0.001)
        with self._socket.get_monitor_socket(zmq.EVENT_CLOSED) as monitor:
            self._socket.unbind(self._address)
            await monitor.recv_multipart()  # or what is left of it would take the address from the next one
            self._socket.disable_monitor()
        self._socket.close(linger=0)

    async def receive(self) -> ToEngine:
        """The next message that is no greeting."""
        while isinstance(message := await self._receive(), Hello):
            await self.send(READY)
        return message

    async def greet(self) -> None:
        assert isinstance(await self._receive(), Hello)
        await self.send(READY)

    async def _receive(self) -> ToEngine:
        self._identity, *frames = await asyncio.wait_for(self._socket.recv_multipart(), 60)
        return unpack_to_engine(frames)

    async def request(self) -> EngineRequest:
        message = await self.receive()
        assert isinstance(message, EngineRequest)
        return message

    async def send(self, message: FromEngine) -> None:
        await self.send_frames(pack(message))

    async def send_frames(self, frames: list[bytes]) -> None:
        """To the socket that was heard last."""
        await self._socket.send_multipart([self._identity, *frames])

    async def step(self, *outputs: EngineOutput) -> None:
        await self.send(StepOutputs(list(outputs), EngineStats(num_running=len(outputs))))


@contextlib.asynccontextmanager
async def connected(
    folder: Path, *, engine_timeout: float = 30.0, seconds_of_silence: float = 30.0
) -> AsyncIterator[tuple[EngineClient, Peer]]:
    """A client that the engine has greeted, and its peer."""
    tokenizer = tiny_tokenizers.byte_level(folder)
    model = ModelInfo("model", "Llama", 128, [2], 300, {})
    address = f"ipc://{folder}/engine"
    context = zmq.asyncio.Context()
    client = EngineClient(
        address,
        InputProcessor(model, tokenizer),
        OutputProcessor(tokenizer),
        Quarantine(folder / "quarantine"),
        engine_timeout=engine_timeout,
        seconds_of_silence=seconds_of_silence,
    )
    try:
        await client.start()  # before the engine is there
        assert client.ready is None
        assert not client.alive()
        with pytest.raises(EngineDeadError):
            client.generate(PROMPT, SamplingParams())
        peer = Peer(context, address, client)
        await peer.greet()
        while client.ready is None:
            await asyncio.sleep(0.01)
        yield client, peer
    finally:
        await client.close()
        context.destroy(linger=0)


async def collect(stream: RequestStream) -> list[SampleDelta]:
    return [delta async for deltas in stream for delta in deltas]


async def replace(peer: Peer) -> None:
    """Have the engine die and another one begin."""
    await peer.die()
    peer.rise()
    await peer.greet()


async def advance(peer: Peer, *streams: RequestStream, by: int = 1) -> list[EngineRequest]:
    """Take the requests of the streams, in this order, and give each so many tokens."""
    requests = [await peer.request() for _ in streams]
    await peer.step(*(EngineOutput(request.key, [70] * by) for request in requests))
    for stream in streams:
        await anext(stream)
    return requests
