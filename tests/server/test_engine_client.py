"""The client of the engine, against a peer that speaks the wire's protocol as an engine does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.server.engine_peer import PROMPT, advance, collect, connected
from zqserve.engine_core.errors import EngineDeadError, InvalidRequestError, RequestFailedError
from zqserve.engine_core.messages import (
    AbortRequests,
    EngineOutput,
    EngineStats,
    Heartbeat,
    MessageLost,
    StepOutputs,
)
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.wire import pack, seal
from zqserve.server.engine_link.input_processor import Prompt


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
