"""Many streams at once, and clients that leave."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
from openai import AsyncOpenAI

from tests.running_server import RunningServer

NUM_STREAMS = 64


async def test_many_streams_at_once_equal_their_unary_twins(server: RunningServer) -> None:
    client = server.async_openai()

    async def unary(number: int) -> str:
        answer = await client.completions.create(**arguments(number))
        return answer.choices[0].text

    async def streamed(number: int) -> str:
        stream = await client.completions.create(stream=True, **arguments(number))
        return "".join([chunk.choices[0].text async for chunk in stream])

    def arguments(number: int) -> dict:
        return {
            "model": "demo",
            "prompt": f"Question {number}: What is the capital of France?",
            "max_tokens": 8 + number % 9,
            "temperature": 0.0 if number % 2 else 1.1,
            "seed": number,
        }

    streams = await asyncio.gather(*(streamed(number) for number in range(NUM_STREAMS)))
    twins = await asyncio.gather(*(unary(number) for number in range(NUM_STREAMS)))
    assert streams == twins
