"""No room for a line of the log, no file descriptor left, no room for temporary files."""

from __future__ import annotations

import concurrent.futures
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.faults.processes import kill_engine, metric, wait_until, workers_of
from tests.running_server import RunningServer, start_server

MAX_FILES = 120
LONG = {"prompt": "Hello", "max_tokens": 800, "ignore_eos": True, "temperature": 0.8, "seed": 4}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Nobody reads its standard output any more, the disk of its standard error is full, and its files are few."""
    reader, writer = os.pipe()
    log = tmp_path_factory.mktemp("scarce") / "log"
    with open("/dev/full", "wb") as full:
        running = start_server(
            log,
            *("--kv-cache-memory", "64M", "--access-log"),
            stdout=writer,
            stderr=full,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES)),
        )
    os.close(reader)
    os.close(writer)
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=120)


def test_a_log_that_cannot_be_written_keeps_nobody_from_an_answer(server: RunningServer) -> None:
    answers = [ask(server, {"prompt": "Hello", "max_tokens": 4}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert ask(server, {"prompt": "Hello", "guided_regex": "[a-z]{3}"}).status_code == 200
    assert ask(server, {"prompt": ""}).status_code == 400
    assert httpx.get(f"{server.url}/nothing", headers=server.headers, timeout=60).status_code == 404


def test_without_a_file_descriptor_left_streams_go_on_and_an_engine_is_replaced(server: RunningServer) -> None:
    calm = ask(server, LONG).json()["choices"]
    restarts = metric(server, "engine_restarts_total")
    address = urlsplit(server.url)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        body = {**LONG, "stream": True}
        with httpx.stream(
            "POST", f"{server.url}/v1/completions", json=body, headers=server.headers, timeout=60
        ) as response:
            lines = response.iter_lines()
            next(lines)
            asked = pool.submit(ask, server, LONG)
            idle = [socket.create_connection((address.hostname, address.port)) for _ in range(2 * MAX_FILES)]
            (worker,) = workers_of(server)
            wait_until(lambda: worker.num_fds() >= MAX_FILES)
            kill_engine(server)
            for connection in idle:
                connection.close()
            *_, last = [line for line in lines if line]
        assert last == "data: [DONE]"
        assert asked.result().json()["choices"] == calm
    assert ask(server, LONG).json()["choices"] == calm
    wait_until(lambda: metric(server, "engine_restarts_total") == restarts + 1)


def test_a_server_without_room_for_its_own_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    try:
        monkeypatch.setenv("TMPDIR", str(small))
        server = start_server(tmp_path / "log", wait=False)
        assert server.process.wait(240) == 1
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
    (line,) = server.log.read_text().splitlines()
    assert "Set TMPDIR to a folder with room." in line
