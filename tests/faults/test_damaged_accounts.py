"""An engine whose accounts of blocks are damaged ends before it answers anything wrong, and the next one goes on."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.damaged_site.sitecustomize import LEAK_TOKENS, MISTAKE_TOKENS, STEAL_TOKENS
from tests.faults.mixed_requests import requests, run
from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer, start_server

VIOLATIONS = "engine_invariant_violations_total"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Three prompts damage the accounts of its engines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "damaged_site"))
        patch.setenv("DAMAGES", str(tmp_path_factory.mktemp("damages")))
        running = start_server(tmp_path_factory.mktemp("damaged") / "log", "--kv-cache-memory", "64M")
    yield running
    assert running.stop() == 0


def damage(server: RunningServer, prompt: list[int]) -> int:
    """Send a prompt that damages its engine, and ends at once; the status of the answer."""
    body = {"prompt": prompt, "max_tokens": 1}
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=120).status_code


def test_a_leak_is_found_when_the_engine_falls_idle(server: RunningServer) -> None:
    assert damage(server, LEAK_TOKENS) == 200
    wait_until(lambda: metric(server, VIOLATIONS) == 1)
    wait_until(lambda: metric(server, "engine_restarts_total") == 1)
    log = server.log.read_text()
    assert "The accounts of requests and blocks contradict themselves" in log
    assert "0 blocks are held and 2047 free, of 2048" in log


@pytest.mark.parametrize("prompt", [STEAL_TOKENS, MISTAKE_TOKENS])
def test_the_streams_of_a_damaged_engine_are_those_of_a_calm_run(server: RunningServer, prompt: list[int]) -> None:
    bodies = requests(9, max_tokens=400)
    server.wait_until_healthy()
    calm = asyncio.run(run(server.url, server.headers, bodies))
    before, running = metric(server, VIOLATIONS), metric(server, "generation_tokens_total")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies))
        wait_until(lambda: metric(server, "generation_tokens_total") > running)
        assert damage(server, prompt) == 200
        outcomes = streams.result()
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in calm]
    wait_until(lambda: metric(server, VIOLATIONS) == before + 1)
