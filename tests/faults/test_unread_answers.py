"""Clients that ask and do not read: the request ends, the connection too, and others do not notice."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer, start_server

PROMPT = [5 + number % 900 for number in range(1800)]
MUCH = {"prompt": PROMPT, "max_tokens": 200, "ignore_eos": True, "n": 4, "logprobs": 60, "echo": True}
"""Some ten megabytes: more than sockets hold."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("unread") / "log"
    running = start_server(log, "--send-timeout", "1", "--max-logprobs", "60", "--kv-cache-memory", "64M")
    yield running
    assert running.stop() == 0


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_a_client_that_does_not_read_is_dropped(server: RunningServer, stream: bool) -> None:
    stalled = metric(server, "clients_stalled_total")
    name = f"unread-{stream}"
    body = json.dumps({**MUCH, "stream": stream, "request_id": name}).encode()
    with connect_and_read_nothing(server, b"POST /v1/completions", body) as connection:
        wait_until(lambda: metric(server, "clients_stalled_total") == stalled + 1)
        wait_until(lambda: is_cut(connection))
    wait_until(lambda: f"cmpl-{name} model=" in server.log.read_text())
    wait_until(lambda: metric(server, "num_requests_running") == 0)
    hello = {"prompt": "Hello", "max_tokens": 2}
    answer = httpx.post(f"{server.url}/v1/completions", json=hello, headers=server.headers, timeout=120)
    assert answer.status_code == 200


def test_an_unread_answer_does_not_keep_its_connection(server: RunningServer) -> None:
    with connect_and_read_nothing(server, b"GET /docs/swagger-ui-bundle.js") as connection:
        wait_until(lambda: is_cut(connection))


def connect_and_read_nothing(server: RunningServer, line: bytes, body: bytes = b"") -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    key = server.headers["authorization"].encode()
    head = b"%b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n" % (line, key, len(body))
    connection.sendall(head + body)
    return connection


def is_cut(connection: socket.socket) -> bool:
    """Whether the server's side of it is gone; this side hears of that when it reads."""
    client, server = connection.getsockname(), connection.getpeername()
    return all((other.laddr, other.raddr) != (server, client) for other in psutil.net_connections("tcp4"))
