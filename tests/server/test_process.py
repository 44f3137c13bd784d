"""The processes: what ends, how it ends, and that nothing is left behind."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.processes import fork_server_at_its_start, is_alive, metric, wait_for_engine, wait_until
from tests.running_server import RunningServer, start_server

SECRET = "A secret that no log may hold"
FEW_BLOCKS = ("--kv-cache-memory", "16M", "--max-num-seqs", "8")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers; kills those that a failed test leaves."""
    started: list[RunningServer] = []

    def start_one(*flags: str, wait: bool = True) -> RunningServer:
        server = start_server(tmp_path / f"log{len(started)}", *FEW_BLOCKS, *flags, wait=wait)
        started.append(server)
        return server

    yield start_one
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(240)


def children(server: RunningServer) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def assert_all_end(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any(is_alive(process) for process in processes))


def listens(server: RunningServer) -> bool:
    try:
        httpx.get(f"{server.url}/health", timeout=60)
    except httpx.TransportError:
        return False
    return True


def test_sigterm_completes_the_running_stream_and_leaves_nothing(
    start: Callable[..., RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server = start()
    processes = children(server)
    assert len(processes) >= 2
    (folder,) = tmp_path.glob("zqserve-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    body = {"prompt": SECRET, "max_tokens": 100, "ignore_eos": True, "stream": True, "request_id": "known"}
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60
    ) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert server.process.wait(240) == 0
    assert_all_end(processes)
    assert list(tmp_path.glob("zqserve-*")) == []
    (line,) = [line for line in server.log.read_text().splitlines() if "cmpl-known" in line]
    assert "output_tokens=100" in line
    assert "finished=length" in line
    assert SECRET not in server.log.read_text()


def test_sigint_ends_a_server_on_a_unix_socket(start: Callable[..., RunningServer], tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = start("--uds", str(path), "--uvicorn-log-level", "warning", wait=False)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=60) as client:
        server.wait_until_healthy(client)
    processes = children(server)
    assert server.stop(signal.SIGINT) == 0
    assert_all_end(processes)
    assert not path.exists()
    assert "INFO" not in server.log.read_text()


def test_loading_server_says_so_and_ends_at_once_on_a_signal(start: Callable[..., RunningServer]) -> None:
    server = start(wait=False)
    forks = fork_server_at_its_start(server)
    forks.suspend()  # it loads until we have asked
    wait_until(lambda: listens(server))
    response = httpx.get(f"{server.url}/health", timeout=60)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "loading" in response.json()["error"]["message"]
    ping = httpx.post(f"{server.url}/ping", timeout=60)
    assert (ping.status_code, ping.content) == (503, response.content)
    refused = httpx.post(f"{server.url}/v1/completions", json={"prompt": "a"}, headers=server.headers, timeout=60)
    assert refused.status_code == 503
    processes = children(server)
    forks.resume()
    assert server.stop() == 0
    assert_all_end(processes)


def test_signal_before_anything_is_up_ends_with_status_0(start: Callable[..., RunningServer]) -> None:
    server = start(wait=False)
    wait_until(lambda: bool(children(server)), pause=0.001)
    processes = children(server)
    assert server.stop() == 0
    assert_all_end(processes)


def test_workers_share_their_metrics_and_die_with_a_killed_launcher(start: Callable[..., RunningServer]) -> None:
    server = start("--workers", "2")
    body = {"prompt": "Hello", "max_tokens": 3, "ignore_eos": True}
    for _ in range(12):  # each over a new connection: both workers get some
        assert (
            httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60).status_code == 200
        )
    for _ in range(6):
        wait_until(lambda: metric(server, "generation_tokens_total") == 36)
    processes = children(server)
    assert len(processes) >= 3
    server.process.kill()
    server.process.wait(240)
    assert_all_end(processes)


def test_engine_that_may_not_be_restarted_ends_the_server_with_the_reason_last(
    start: Callable[..., RunningServer],
) -> None:
    server = start("--max-engine-restarts", "0")
    processes = children(server)
    body = {"prompt": "Hello", "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60
    ) as response:
        lines = response.iter_lines()
        next(lines)
        wait_for_engine(server).kill()
        events = [line for line in lines if line]
    error = json.loads(events[-2].removeprefix("data: "))["error"]
    assert (error["type"], error["param"], error["code"]) == ("InternalServerError", None, 500)
    assert "The engine cannot be restarted" in error["message"]
    assert events[-1] == "data: [DONE]"
    assert server.process.wait(240) == 1
    last = server.log.read_text().splitlines()[-1]
    assert "The engine was ended by signal SIGKILL" in last
    assert "0 restarts" in last
    assert_all_end(processes)


def test_address_in_use_is_an_error(start: Callable[..., RunningServer]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start("--port", str(taken.getsockname()[1]), wait=False)
        assert server.process.wait(240) == 1
    assert "Cannot listen on 127.0.0.1" in server.log.read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "/no/such/model"), "/no/such/model"),
        (("--chat-template", "/no/such/template.jinja"), "template"),
        (("--override-generation-config", '{"temperature": 9}'), "temperature"),
        (("--override-generation-config", '{"heat": 1}'), "heat"),
        (("--enable-auto-tool-choice",), "name it with --tool-call-parser"),
    ],
)
def test_mistake_that_shows_at_start_ends_the_server_with_a_message(
    start: Callable[..., RunningServer], flags: tuple[str, ...], said: str
) -> None:
    server = start(*flags, wait=False)
    assert server.process.wait(240) == 1
    log = server.log.read_text()
    assert said in log
    assert "Traceback" not in log
