"""Engines that die: their requests go on at the next one, and those that kill engines are found."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.server.engine_peer import PROMPT, advance, collect, connected, replace
from zqserve.engine_core.errors import RequestFailedError
from zqserve.engine_core.messages import (
    EngineOutput,
    TokenLogprobs,
)
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.server.engine_link.input_processor import Prompt


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
