"""A step for which the memory does not suffice costs the request that asks for too much, and no other."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.mixed_requests import requests, run
from tests.faults.processes import engine_of, metric, wait_until
from tests.faults.short_site.sitecustomize import GREEDY_TOKENS
from tests.running_server import RunningServer, start_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """For one prompt its engine has not memory enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "short_site"))
        running = start_server(tmp_path_factory.mktemp("short") / "log", "--kv-cache-memory", "64M")
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, **fields: Any) -> httpx.Response:
    body = {"prompt": GREEDY_TOKENS, "max_tokens": 4, **fields}
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=120)


def test_a_request_alone_that_asks_for_too_much_memory_is_500_and_the_engine_lives(server: RunningServer) -> None:
    before = engine_of(server)
    response = ask(server)
    assert response.status_code == 500
    assert "ran out of memory" in response.json()["error"]["message"]
    assert ask(server, prompt="Hello").status_code == 200
    assert engine_of(server) == before


def test_the_streams_beside_it_are_those_of_a_calm_run(server: RunningServer) -> None:
    bodies = requests(12, max_tokens=300)
    calm = asyncio.run(run(server.url, server.headers, bodies))
    running = metric(server, "generation_tokens_total")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies))
        wait_until(lambda: metric(server, "generation_tokens_total") > running)
        greedy = [ask(server).status_code for _ in range(5)]
        outcomes = streams.result()
    assert greedy == [500] * 5
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in calm]
