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
    MessageLost,
    StepOutputs,
    ToEngine,
    TokenLogprobs,
)
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import pack, seal, unpack_to_engine
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


def test_what_begins_and_ends_while_the_engine_is_silent_never_reaches_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, seconds_of_silence=0.0) as (client, peer):
            kept = client.generate(PROMPT, SamplingParams(max_tokens=4))
            for _ in range(100):
                client.generate(PROMPT, SamplingParams(max_tokens=4)).close()
            await asyncio.sleep(0)
            await peer.send(Heartbeat(EngineStats()))
            await peer.step(EngineOutput((await peer.request()).key, [70], "length"))
            assert [delta.token_ids for delta in await collect(kept)] == [[70]]
            await peer.send(Heartbeat(EngineStats()))
            with pytest.raises(TimeoutError):  # nothing else was sent
                await asyncio.wait_for(peer.receive(), 0.05)

    asyncio.run(scenario())


def test_who_leaves_while_the_engine_is_silent_is_aborted_when_it_is_heard(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, seconds_of_silence=0.0) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams(max_tokens=4))
            await peer.send(Heartbeat(EngineStats()))
            request = await peer.request()
            stream.close()
            await peer.send(Heartbeat(EngineStats()))
            assert await peer.receive() == AbortRequests([request.key])

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


def test_a_silent_engine_counts_as_dead_but_its_requests_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path, engine_timeout=0.4) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams())
            key = (await peer.request()).key
            while client.alive():
                await asyncio.sleep(0.01)
            await peer.step(EngineOutput(key, [70], "length"))
            assert [delta.token_ids for delta in await collect(stream)] == [[70]]
            while not client.alive():
                await peer.send(Heartbeat(EngineStats()))
                await asyncio.sleep(0.01)

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


def test_the_next_engine_is_sent_what_has_not_ended_with_its_tokens_so_far(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            first = client.generate(PROMPT, SamplingParams(n=2, max_tokens=4, seed=1))
            second = client.generate(PROMPT, SamplingParams(max_tokens=4))
            sent = [await peer.request() for _ in range(3)]
            one, two, three = (request.key for request in sent)
            await peer.step(EngineOutput(one, [70]), EngineOutput(two, [71], "length"), EngineOutput(three, [72, 73]))
            assert (await anext(second))[0].token_ids == [72, 73]
            await peer.die()
            while client.ready is not None:
                await asyncio.sleep(0.01)
            late = client.generate(PROMPT, SamplingParams())  # waits for the next engine
            gone = client.generate(PROMPT, SamplingParams())
            gone.close()
            peer.rise()
            await peer.greet()
            again = [await peer.request() for _ in range(3)]
            assert [(request.key, request.output_token_ids) for request in again[:2]] == [
                (one, [70]),
                (three, [72, 73]),
            ]
            assert [request.params for request in again[:2]] == [sent[0].params, sent[2].params]
            assert sent[2].params.seed is not None
            await peer.step(EngineOutput(one, [75], "stop"), EngineOutput(three, [74], "length"))
            told = [(delta.index, delta.token_ids) for delta in await collect(first)]
            assert sorted(told) == [(0, [70]), (0, [75]), (1, [71])]
            assert [delta.token_ids for delta in await collect(second)] == [[74]]
            await peer.step(EngineOutput(again[2].key, [76], "length"))
            assert [delta.token_ids for delta in await collect(late)] == [[76]]

    asyncio.run(scenario())


def test_prompt_logprobs_that_were_on_their_way_are_told_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            entries = [TokenLogprobs([token_id], [-1.0], 1) for token_id in (51, 52)]
            stream = client.generate(Prompt([50, 51, 52]), SamplingParams(prompt_logprobs=0))
            key = (await peer.request()).key
            await peer.step(EngineOutput(key, [], prompt_logprobs=entries[:1]))
            while not stream.state.prompt_logprobs:
                await asyncio.sleep(0.01)
            await peer.die()
            peer.rise()
            await peer.greet()
            assert (await peer.request()).output_token_ids == []
            await peer.step(EngineOutput(key, [70], "length", prompt_logprobs=entries))
            await collect(stream)
            assert stream.state.prompt_logprobs == entries

    asyncio.run(scenario())


def test_of_several_suspects_one_at_a_time_is_tried_until_the_guilty_one_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            streams = [client.generate(Prompt([50, 51 + i]), SamplingParams(max_tokens=2)) for i in range(3)]
            keys = [(await peer.request()).key for _ in range(3)]
            await peer.die()
            peer.rise()
            await peer.greet()
            assert [(await peer.request()).key for _ in range(3)] == keys
            await peer.die()
            peer.rise()
            await peer.greet()
            assert (await peer.request()).key == keys[0]  # alone
            await peer.step(EngineOutput(keys[0], [70]))
            assert (await peer.request()).key == keys[1]  # the one before it is cleared
            await replace(peer)
            assert [(await peer.request()).key for _ in range(2)] == keys[:2]  # three deaths may come from outside
            await peer.die()
            peer.rise()
            with pytest.raises(RequestFailedError, match="each time"):
                await collect(streams[1])
            await peer.greet()
            assert [(await peer.request()).key for _ in range(2)] == [keys[0], keys[2]]
            await peer.step(EngineOutput(keys[2], [71], "length"), EngineOutput(keys[0], [72], "length"))
            assert [delta.token_ids for delta in await collect(streams[0])] == [[70], [72]]
            assert [delta.token_ids for delta in await collect(streams[2])] == [[71]]
            with pytest.raises(RequestFailedError, match="not tried again"):
                client.generate(Prompt([50, 52]), SamplingParams(max_tokens=2))

    asyncio.run(scenario())


def test_a_lone_request_over_which_two_engines_died_is_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams())
            for _ in range(2):
                await peer.request()
                await peer.die()
                peer.rise()
                await peer.greet()
            with pytest.raises(RequestFailedError, match="each time"):
                await collect(stream)

    asyncio.run(scenario())


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


def test_four_engines_that_die_while_a_request_advances_do_not_end_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams(max_tokens=9))
            for number in range(4):
                (request,) = await advance(peer, stream)
                assert len(request.output_token_ids) == number
                await replace(peer)
            await peer.step(EngineOutput((await peer.request()).key, [71], "stop"))
            assert [delta.token_ids for delta in await collect(stream)] == [[71]]

    asyncio.run(scenario())


def test_one_that_kills_each_engine_after_a_while_is_found_among_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            streams = [client.generate(Prompt([50, 51 + i]), SamplingParams(max_tokens=60)) for i in range(8)]
            for _ in range(4):
                keys = [request.key for request in await advance(peer, *streams)]
                await replace(peer)
            other = client.generate(Prompt([50, 70]), SamplingParams(max_tokens=60))
            first = await advance(peer, other, *streams[:2], by=3)
            assert {request.key for request in first[1:]} == {keys[0], keys[1]}
            second = await advance(peer, *streams[2:4], by=3)  # the first two have come further than where it died
            assert [request.key for request in second] == keys[2:4]
            assert [(await peer.request()).key for _ in range(2)] == keys[4:6]
            await replace(peer)
            cleared = await advance(peer, *streams[:4], other, by=3)
            assert {request.key for request in cleared} == {*keys[:4], first[0].key}
            assert [request.key for request in await advance(peer, streams[4], by=3)] == [keys[4]]
            assert (await peer.request()).key == keys[5]  # alone
            await replace(peer)
            with pytest.raises(RequestFailedError, match="each time"):
                await collect(streams[5])
            assert {(await peer.request()).key for _ in range(6)} == {*keys[:5], first[0].key}
            last = await advance(peer, *streams[6:], by=3)
            assert [request.key for request in last] == keys[6:]
            with pytest.raises(RequestFailedError, match="not tried again"):
                client.generate(Prompt([50, 56]), SamplingParams(max_tokens=60))

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", ["damaged", "missing", "lost", "another-version"])
def test_requests_are_sent_again_when_a_message_did_not_come_through(tmp_path: Path, fault: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams(max_tokens=9))
            (request,) = await advance(peer, stream)
            frames = pack(StepOutputs([EngineOutput(request.key, [71])], EngineStats()), 3)
            if fault == "damaged":
                frames[1] = frames[1][:-1]
            elif fault == "lost":
                frames = pack(MessageLost())
            elif fault == "another-version":
                frames[0] = b"zq0"
            for _ in range(5):  # none of them is the fault of a request
                await peer.send_frames(frames)
                await peer.greet()
                assert (await peer.request()).output_token_ids == [70]
            await peer.step(EngineOutput(request.key, [71], "stop"))
            assert [delta.token_ids for delta in await collect(stream)] == [[71]]

    asyncio.run(scenario())


def test_a_message_that_comes_twice_is_told_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams(max_tokens=9))
            key = (await peer.request()).key
            for number, token_id in ((1, 70), (1, 70), (2, 71), (1, 70)):
                message = StepOutputs([EngineOutput(key, [token_id])], EngineStats())
                await peer.send_frames(pack(message, number))
            await peer.step(EngineOutput(key, [72], "stop"))
            told = [token_id for delta in await collect(stream) for token_id in delta.token_ids]
            assert told == [70, 71, 72]

    asyncio.run(scenario())


def test_a_request_over_which_the_engine_makes_no_sense_again_and_again_is_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (client, peer):
            stream = client.generate(PROMPT, SamplingParams())
            for _ in range(2):
                await peer.request()
                await peer.send_frames(seal(b"nonsense"))  # as it was sent
                await peer.greet()
            with pytest.raises(RequestFailedError, match="each time"):
                await collect(stream)

    asyncio.run(scenario())
