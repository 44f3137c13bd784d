"""More requests than the server takes, keys that ask for too much, and clients that leave."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer, start_server

LONG = {"prompt": "Hello", "max_tokens": 1900, "ignore_eos": True}
SHORT = {"prompt": "Hello", "max_tokens": 2}
KEYS = {
    "keys": [
        {"name": "rare", "key": "key-of-rare", "requests_per_minute": 2},
        {"name": "single", "sha256": hashlib.sha256(b"key-of-single").hexdigest(), "max_concurrent": 1},
    ]
}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text(json.dumps(KEYS))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, keys_file: Path) -> Iterator[RunningServer]:
    """It takes little at once and has little patience."""
    running = start_server(
        tmp_path_factory.mktemp("overload") / "log",
        *("--kv-cache-memory", "64M", "--max-num-seqs", "4", "--max-queued-requests", "6"),
        *("--request-timeout", "8", "--api-keys-file", str(keys_file)),
    )
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    headers = server.headers if key is None else {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=120)


def is_idle(server: RunningServer) -> bool:
    return metric(server, "num_requests_running") + metric(server, "num_requests_waiting") == 0


def test_requests_beyond_the_queue_are_sent_away_at_once(server: RunningServer) -> None:
    refused = metric(server, "requests_refused_total")
    url, body = f"{server.url}/v1/completions", {**LONG, "n": 60, "stream": True}
    with (
        httpx.Client(headers=server.headers, timeout=60) as client,
        client.stream("POST", url, json=body) as takes_all_places,
    ):
        lines = takes_all_places.iter_lines()
        next(lines)
        waiting = [connect(server, LONG) for _ in range(6)]
        wait_until(lambda: metric(server, "worker_queued_requests") == 6)
        responses = [client.post(url, json=SHORT) for _ in range(8)]
    for connection in waiting:
        connection.close()
    for away in responses:
        assert away.status_code == 503
        assert away.headers["retry-after"] == "1"
        assert away.json()["error"] == {
            "message": "The queue is full: 6 requests wait already.",
            "type": "ServiceUnavailableError",
            "param": None,
            "code": 503,
        }
    assert metric(server, "requests_refused_total") == refused + len(responses)
    wait_until(lambda: is_idle(server))


def test_each_of_a_crowd_is_served_or_sent_away(server: RunningServer) -> None:
    refused = metric(server, "requests_refused_total")
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        responses = list(pool.map(lambda _: ask(server, {**LONG, "max_tokens": 32}), range(40)))
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 6
    assert metric(server, "requests_refused_total") == refused + statuses[503]


def test_a_request_that_takes_too_long_is_ended(server: RunningServer) -> None:
    body = {**LONG, "n": 60}
    stream = {**body, "stream": True}
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        httpx.stream(
            "POST", f"{server.url}/v1/completions", json=stream, headers=server.headers, timeout=60
        ) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        unary = pool.submit(ask, server, body)
        *_, last, done = [line for line in lines if line]
    assert done == "data: [DONE]"
    assert unary.result().status_code == 504
    for error in (json.loads(last.removeprefix("data: "))["error"], unary.result().json()["error"]):
        assert "taken 8 s" in error["message"]
        assert (error["type"], error["param"], error["code"]) == ("RequestTimeoutError", None, 504)
    wait_until(lambda: is_idle(server))


def test_a_key_has_its_rate_and_its_number_at_once(server: RunningServer, keys_file: Path) -> None:
    answers = [ask(server, SHORT, "key-of-rare") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "2 requests a minute" in answers[2].json()["error"]["message"]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    body = {**LONG, "max_tokens": 200, "n": 60, "stream": True}  # long as a whole, but a place is soon free
    headers = {"authorization": "Bearer key-of-single"}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        lines = response.iter_lines()
        next(lines)
        second = ask(server, SHORT, "key-of-single")
        assert second.status_code == 429
        assert "1 requests at once" in second.json()["error"]["message"]
        assert ask(server, SHORT).status_code == 200
    wait_until(lambda: ask(server, SHORT, "key-of-single").status_code == 200)
    for text in ("key-of-rare", "key-of-single"):
        assert text not in server.log.read_text()


def test_the_file_of_keys_is_read_again_when_it_changes(server: RunningServer, keys_file: Path) -> None:
    assert ask(server, SHORT, "key-of-late").status_code == 401
    keys_file.write_text("keys: [{name: late}]")
    wait_until(
        lambda: ask(server, SHORT, "key-of-late").status_code == 401 and "needs either" in server.log.read_text()
    )
    assert ask(server, SHORT, "key-of-single").status_code == 200
    keys_file.write_text(json.dumps({"keys": [*KEYS["keys"], {"name": "late", "key": "key-of-late"}]}))
    wait_until(lambda: ask(server, SHORT, "key-of-late").status_code == 200, pause=0.1)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_clients_that_leave_while_they_wait_or_run_are_aborted(server: RunningServer, stream: bool) -> None:
    left = metric(server, "clients_left_total")
    names = [f"left-{stream}-{number}" for number in range(4)]
    clients = [connect(server, {**LONG, "n": 2, "stream": stream, "request_id": name}) for name in names]
    wait_until(lambda: metric(server, "num_requests_waiting") == 4)
    for client in clients:
        client.close()
    wait_until(lambda: is_idle(server) and metric(server, "clients_left_total") == left + 4)
    for name in names:
        wait_until(lambda name=name: f"cmpl-{name} " in server.log.read_text())
        (line,) = [line for line in server.log.read_text().splitlines() if f"cmpl-{name} " in line]
        assert "finished=aborted" in line


def connect(server: RunningServer, body: dict[str, Any]) -> socket.socket:
    """A client that has asked and reads nothing."""
    address = urlsplit(server.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((address.hostname, address.port))
    content = json.dumps(body)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: {server.headers['authorization']}\r\n"
    client.sendall(f"{head}content-length: {len(content)}\r\n\r\n{content}".encode())
    return client
