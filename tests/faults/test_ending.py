"""SIGTERM: no new requests, running ones end; and a front-end worker that dies is replaced."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.faults.mixed_requests import requests, run
from tests.faults.processes import metric, wait_until, workers_of
from tests.running_server import RunningServer, start_server

LONG = {"prompt": "Hello", "max_tokens": 1900, "ignore_eos": True, "n": 8, "temperature": 0.8}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers; kills those that a failed test leaves."""
    started: list[RunningServer] = []

    def start_one(*flags: str) -> RunningServer:
        started.append(start_server(tmp_path / f"log{len(started)}", "--kv-cache-memory", "64M", *flags))
        return started[-1]

    yield start_one
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(240)


def ask(server: RunningServer, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=120)


def wait_for_tokens(server: RunningServer) -> None:
    wait_until(lambda: metric(server, "num_requests_running") > 0)


def test_sigterm_lets_running_requests_end_and_sends_new_ones_away(start: Callable[..., RunningServer]) -> None:
    server = start()
    bodies = requests(12, max_tokens=250)
    calm = asyncio.run(run(server.url, server.headers, bodies))
    has_begun = threading.Event()
    endless = {**LONG, "n": 32, "stream": True}
    address = f"{server.url}/v1/completions"
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        httpx.stream("POST", address, json=endless, headers=server.headers, timeout=120) as keeps_it_running,
    ):
        streams = pool.submit(asyncio.run, run(server.url, server.headers, bodies, lambda _: has_begun.set()))
        assert has_begun.wait(120)
        server.process.send_signal(signal.SIGTERM)
        refused = httpx.Response(200)

        def is_refused() -> bool:
            nonlocal refused
            refused = httpx.get(f"{server.url}/health", timeout=60)
            return refused.status_code == 503

        wait_until(is_refused)
        assert "shutting down" in refused.json()["error"]["message"]
        new = ask(server, {"prompt": "Hello"})
        assert new.status_code == 503
        assert new.headers["retry-after"] == "5"
        keeps_it_running.close()
        assert [outcome.result for outcome in streams.result()] == [outcome.result for outcome in calm]
    assert server.process.wait(240) == 0


def test_requests_that_outlast_the_time_to_drain_end_with_an_error(start: Callable[..., RunningServer]) -> None:
    server = start("--drain-timeout", "1")
    body = {**LONG, "n": 64, "stream": True}
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60
    ) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        events = [line for line in lines if line]
    assert "shutting down" in events[-2]
    assert events[-1] == "data: [DONE]"
    assert server.process.wait(240) == 0


def test_a_second_signal_ends_at_once(start: Callable[..., RunningServer]) -> None:
    server = start("--drain-timeout", "600")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, server, {**LONG, "n": 64})
        wait_for_tokens(server)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: httpx.get(f"{server.url}/health", timeout=60).status_code == 503)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(240) == 0
        assert isinstance(answer.exception(), httpx.TransportError)


def test_a_worker_that_dies_twice_is_replaced_and_the_others_go_on(start: Callable[..., RunningServer]) -> None:
    server = start("--workers", "2")
    body = {**LONG, "max_tokens": 800, "n": 2, "stream": True}
    victim, other = workers_of(server)
    with contextlib.ExitStack() as open_streams, httpx.Client(timeout=120, headers=server.headers) as client:
        responses: dict[int, httpx.Response] = {}  # by the client's port
        while len(responses) < 4 or not (responses.keys() & _ports_at(victim) and responses.keys() & _ports_at(other)):
            assert len(responses) < 60, "All connections came to one worker."  # which one takes them is chance
            stream = client.stream("POST", f"{server.url}/v1/completions", json=body)
            response = open_streams.enter_context(stream)
            responses[response.extensions["network_stream"].get_extra_info("client_addr")[1]] = response
        carried_by_other = responses.keys() & _ports_at(other)
        victim.kill()
        # The one in its place dies at once, too.
        wait_until(lambda: any(worker not in (victim, other) for worker in workers_of(server)))
        next(worker for worker in workers_of(server) if worker not in (victim, other)).kill()
        for port in carried_by_other:
            assert [line for line in responses[port].iter_lines() if line][-1] == "data: [DONE]"
        # Who comes in the meantime waits for the worker that takes over.
        for _ in range(8):
            assert ask(server, {"prompt": "Hello", "max_tokens": 2}).status_code == 200
    assert server.stop() == 0


def _ports_at(worker: psutil.Process) -> set[int]:
    """The clients' ends of the connections that a worker has accepted."""
    return {connection.raddr.port for connection in worker.net_connections("tcp") if connection.raddr}
