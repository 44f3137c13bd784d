"""Many streams at once, and clients that leave."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import httpx
import pytest

from tests.running_server import RunningServer

NUM_STREAMS = 64
NUM_ANSWERS = 32


def arguments(number: int) -> dict[str, Any]:
    return {
        "model": "demo",
        "prompt": f"Question {number}: What is the capital of France?",
        "max_tokens": 8 + number % 9,
        "temperature": 0.0 if number % 2 else 1.1,
        "seed": number,
    }


def test_many_streams_at_once_equal_their_unary_twins(server: RunningServer) -> None:
    async def run() -> tuple[list[str], list[str]]:
        client = server.async_openai()

        async def unary(number: int) -> str:
            return (await client.completions.create(**arguments(number))).choices[0].text

        async def streamed(number: int) -> str:
            stream = await client.completions.create(stream=True, **arguments(number))
            return "".join([chunk.choices[0].text async for chunk in stream])

        streams = await asyncio.gather(*(streamed(number) for number in range(NUM_STREAMS)))
        twins = [await unary(number) for number in range(NUM_STREAMS)]
        return streams, twins

    streams, twins = asyncio.run(run())
    assert streams == twins


def metric(server: RunningServer, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics", headers=server.headers).text
    found = re.search(rf'^vllm:{name}{{model_name="demo"}} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_client_that_leaves_ends_its_request(server: RunningServer, stream: bool) -> None:
    limit = httpx.get(f"{server.url}/v1/models/demo", headers=server.headers).json()["max_model_len"]
    body = {"prompt": "Hello", "n": NUM_ANSWERS, "ignore_eos": True, "max_tokens": limit - 50, "stream": stream}
    before = metric(server, "generation_tokens_total")
    with httpx.Client(timeout=httpx.Timeout(60, read=60 if stream else 0.3), headers=server.headers) as client:
        try:
            with client.stream("POST", f"{server.url}/v1/completions", json=body) as response:
                next(response.iter_lines())
        except httpx.ReadTimeout:
            pass
    deadline = time.monotonic() + 30
    while metric(server, "num_requests_running") > 0:
        assert time.monotonic() < deadline, "The engine still computes for a client that left."
        time.sleep(0.1)
    assert metric(server, "generation_tokens_total") - before < NUM_ANSWERS * (limit - 50)
