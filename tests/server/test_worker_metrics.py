"""What a front-end worker says of itself in /metrics, and that strangers cannot make it say ever more."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from tests.faults.processes import metric, wait_until
from tests.running_server import RunningServer

HELD = ("worker_open_requests", "worker_queued_requests", "worker_live_requests", "worker_compilations")


@contextmanager
def connection(server: RunningServer) -> Iterator[socket.socket]:
    """One that leaves at the end of the block, whatever has come."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connected:
        yield connected


def post(server: RunningServer, path: str, **body: object) -> bytes:
    """The bytes of a request."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {server.api_key}\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def counted(server: RunningServer, handler: str, method: str, status: int) -> float:
    """How many HTTP requests of a kind the server has counted."""
    text = httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
    labels = f'handler="{handler}",method="{method}",status="{status}"'
    found = re.search(rf"^http_requests_total{{{re.escape(labels)}}} (\S+)$", text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def test_a_worker_tells_what_it_holds_and_holds_nothing_when_nobody_asks(server: RunningServer) -> None:
    wait_until(lambda: not any(metric(server, name) for name in HELD))
    tasks = metric(server, "worker_tasks")
    with connection(server) as client:
        client.sendall(post(server, "/v1/completions", prompt="a", max_tokens=1500, ignore_eos=True, stream=True))
        wait_until(lambda: metric(server, "worker_live_requests") == 1)
        assert metric(server, "worker_open_requests") == 1
        assert metric(server, "worker_tasks") > tasks
    wait_until(lambda: not any(metric(server, name) for name in HELD))
    wait_until(lambda: metric(server, "worker_tasks") <= tasks)


def test_a_client_that_leaves_before_its_answer_begins_is_counted(server: RunningServer) -> None:
    before = counted(server, "/v1/completions", "POST", 499)
    with connection(server) as client:
        client.sendall(post(server, "/v1/completions", prompt="a", max_tokens=1500, ignore_eos=True))
        wait_until(lambda: metric(server, "worker_live_requests") == 1)
    wait_until(lambda: counted(server, "/v1/completions", "POST", 499) == before + 1)


def test_methods_and_paths_that_clients_make_up_are_counted_as_one(server: RunningServer) -> None:
    before = counted(server, "other", "other", 404)
    for number in range(5):
        httpx.request(f"MADEUP{number}", f"{server.url}/made/up/{number}", headers=server.headers, timeout=60)
    assert counted(server, "other", "other", 404) == before + 5
    assert "MADEUP" not in httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
