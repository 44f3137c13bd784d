"""A request over which the engine dies again and again ends; those beside it do not."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.deadly_site.sitecustomize import DEADLY_TOKENS
from tests.faults.mixed_requests import requests, run
from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer, start_server

DEADLY = {"prompt": DEADLY_TOKENS, "max_tokens": 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Its engines die of one prompt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "deadly_site"))
        running = start_server(tmp_path_factory.mktemp("deadly") / "log", "--kv-cache-memory", "64M")
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=120)


def test_a_request_that_kills_two_engines_is_ended_and_its_like_refused(server: RunningServer) -> None:
    before = metric(server, "engine_restarts_total")
    response = ask(server, DEADLY)
    assert response.status_code == 500
    assert "The engine stopped each time" in response.json()["error"]["message"]
    server.wait_until_healthy()
    assert metric(server, "engine_restarts_total") == before + 2
    again = ask(server, DEADLY)
    assert again.status_code == 500
    assert "not tried again" in again.json()["error"]["message"]
    assert ask(server, {"prompt": "Hello"}).status_code == 200
    assert metric(server, "engine_restarts_total") == before + 2


def test_the_streams_beside_a_deadly_request_go_on(server: RunningServer) -> None:
    bodies = requests(9, max_tokens=400)
    server.wait_until_healthy()
    calm = asyncio.run(run(server.url, server.headers, bodies))
    running = metric(server, "generation_tokens_total")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies))
        wait_until(lambda: metric(server, "generation_tokens_total") > running)
        deadly = ask(server, {**DEADLY, "max_tokens": 9})
        outcomes = streams.result()
    assert deadly.status_code == 500
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in calm]
    assert metric(server, "engine_restarts_total") <= 2 + 3
