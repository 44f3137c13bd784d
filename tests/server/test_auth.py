"""Who may call what: every path but the probes needs a key, however the path is written; ids follow the client's."""

from __future__ import annotations

import http.client
from typing import Any

import httpx
import pytest

from tests.running_server import RunningServer

PROBES = {"/health", "/ping", "/version"}


def described_routes(server: RunningServer) -> list[tuple[str, str]]:
    """Every method and path of the server's own description, with words for the variables of paths."""
    paths: dict[str, Any] = httpx.get(f"{server.url}/openapi.json", headers=server.headers, timeout=60).json()["paths"]
    return [(method.upper(), path.split("{")[0] + "x" * ("{" in path)) for path in paths for method in paths[path]]


def test_every_route_but_the_probes_needs_a_key(server: RunningServer) -> None:
    routes = described_routes(server)
    assert len(routes) > 20
    routes += [("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/metrics")]
    with httpx.Client(base_url=server.url, timeout=60) as client:
        statuses = {route: client.request(*route).status_code for route in routes}
    unguarded = {path for (_, path), status in statuses.items() if status != 401}
    assert unguarded == PROBES


@pytest.mark.parametrize(
    "target",
    [
        *("/health/", "//health", "/health/../v1/models", "/health%2f..%2fv1/models", "/./health/x", "/HEALTH"),
        *("/v1/models?/health", "/v1/models#/health", "/v1/models;/health", "/version/v1/models"),
    ],
)
def test_no_spelling_of_a_path_opens_it(server: RunningServer, target: str) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.putrequest("GET", target, skip_host=True)  # as written: an HTTP library would tidy the path
    connection.putheader("Host", "localhost")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize(
    ("path", "body", "prefix"),
    [
        ("/v1/completions", {"prompt": "The", "max_tokens": 1}, "cmpl-"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, "chatcmpl-"),
    ],
)
def test_ids_of_answers_hold_the_clients_id(server: RunningServer, path: str, body: Any, prefix: str) -> None:
    headers = {**server.headers, "x-request-id": "job 7/a.1"}
    answer = httpx.post(server.url + path, json=body, headers=headers, timeout=60)
    assert answer.headers["x-request-id"] == "job7/a.1"
    assert answer.json()["id"] == f"{prefix}job7/a.1"
    chosen = httpx.post(server.url + path, json={**body, "request_id": "own"}, headers=headers, timeout=60)
    assert chosen.json()["id"] == f"{prefix}own"
    stream = httpx.post(server.url + path, json={**body, "stream": True}, headers=headers, timeout=60)
    assert stream.text.count(f'"id":"{prefix}job7/a.1"') == stream.text.count("data: {")
