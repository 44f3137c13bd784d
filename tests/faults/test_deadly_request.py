"""A request over which the engine dies again and again ends; those beside it do not."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.deadly_site.sitecustomize import DEADLY_TOKENS, LATE_TOKENS
from tests.faults.mixed_requests import requests, run
from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer, start_server

DEADLY = {"prompt": DEADLY_TOKENS, "max_tokens": 8}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Its engines die of two prompts."""
    flags = ("--kv-cache-memory", "64M", "--max-engine-restarts", "30")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "deadly_site"))
        running = start_server(tmp_path_factory.mktemp("deadly") / "log", *flags)
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=120)


def test_a_request_that_kills_two_engines_is_ended_and_its_like_refused(server: RunningServer) -> None:
    before = metric(server, "engine_restarts_total")
    response = ask(server, DEADLY)
    assert response.status_code == 500
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("InternalServerError", None, 500)
    assert "The engine stopped each time" in error["message"]
    wait_until(lambda: metric(server, "engine_restarts_total") == before + 2)
    again = ask(server, DEADLY)
    assert again.status_code == 500
    assert "not tried again" in again.json()["error"]["message"]
    assert ask(server, {"prompt": "Hello"}).status_code == 200
    assert metric(server, "engine_restarts_total") == before + 2


@pytest.mark.parametrize(
    ("prompt", "max_deaths"), [(DEADLY_TOKENS, 4), (LATE_TOKENS, 7)], ids=["at-once", "after-some-tokens"]
)
def test_the_streams_beside_a_deadly_request_go_on(server: RunningServer, prompt: list[int], max_deaths: int) -> None:
    bodies = requests(9, max_tokens=400)
    server.wait_until_healthy()
    calm = asyncio.run(run(server.url, server.headers, bodies))
    running, restarts = metric(server, "generation_tokens_total"), metric(server, "engine_restarts_total")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies))
        wait_until(lambda: metric(server, "generation_tokens_total") > running)
        deadly = ask(server, {"prompt": prompt, "max_tokens": 900, "ignore_eos": True})
        outcomes = streams.result()
    assert deadly.status_code == 500
    assert [outcome.result for outcome in outcomes] == [outcome.result for outcome in calm]
    assert metric(server, "engine_restarts_total") <= restarts + max_deaths
    assert ask(server, {"prompt": prompt, "max_tokens": 900, "ignore_eos": True}).status_code == 500
    assert metric(server, "engine_restarts_total") <= restarts + max_deaths
