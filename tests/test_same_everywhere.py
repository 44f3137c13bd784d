"""A seeded answer is the same in process and over HTTP, streamed or not, alone or among others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.running_server import DEMO_MODEL, RunningServer
from zqserve import LLM, SamplingParams

PROMPT = "Once upon a time"
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "seed": 20, "max_tokens": 40}
NUM_OTHERS = 31


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(str(DEMO_MODEL), kv_cache_memory_bytes=64 << 20)


@pytest.fixture(scope="module")
def alone(llm: LLM) -> list[str]:
    (output,) = llm.generate(PROMPT, SamplingParams(n=2, **SAMPLING), use_tqdm=False)
    texts = [choice.text for choice in output.outputs]
    assert texts[0] != texts[1]
    return texts


def test_in_process_among_31_others(llm: LLM, alone: list[str]) -> None:
    others = [f"{'word ' * number}and so on" for number in range(NUM_OTHERS)]
    params = [SamplingParams(n=2, **SAMPLING)] + [SamplingParams(max_tokens=30, seed=n) for n in range(NUM_OTHERS)]
    outputs = llm.generate([PROMPT, *others], params, use_tqdm=False)
    assert [choice.text for choice in outputs[0].outputs] == alone


def test_in_process_with_preemptions(alone: list[str]) -> None:
    # 300 tokens of cache for 16 answers of up to 40 tokens each.
    small = LLM(str(DEMO_MODEL), num_gpu_blocks_override=20, enable_prefix_caching=False)
    params = SamplingParams(n=2, **SAMPLING)
    outputs = small.generate([PROMPT] * 8, params, use_tqdm=False)
    assert [[choice.text for choice in output.outputs] for output in outputs] == [alone] * 8


def test_over_http(server: RunningServer, alone: list[str]) -> None:
    answer = server.openai().completions.create(model="demo", prompt=PROMPT, n=2, **SAMPLING)
    assert [choice.text for choice in answer.choices] == alone


def test_over_http_streamed_among_31_others(server: RunningServer, alone: list[str]) -> None:
    async def run() -> list[str]:
        client = server.async_openai()

        async def other(number: int) -> None:
            await client.completions.create(model="demo", prompt="Once " * (1 + number), max_tokens=60)

        async def watched() -> list[str]:
            texts = ["", ""]
            stream = await client.completions.create(model="demo", prompt=PROMPT, n=2, stream=True, **SAMPLING)
            async for chunk in stream:
                texts[chunk.choices[0].index] += chunk.choices[0].text
            return texts

        others = [asyncio.create_task(other(number)) for number in range(NUM_OTHERS)]
        texts = await watched()
        await asyncio.gather(*others)
        return texts

    assert asyncio.run(run()) == alone
