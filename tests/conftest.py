"""What all tests share: a server on the demo model, started once and only when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.running_server import RunningServer, start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on the demo model, shared by all tests of the session."""
    running = start_server(
        tmp_path_factory.mktemp("server") / "log", "--max-num-seqs", "64", "--kv-cache-memory", "64M"
    )
    yield running
    running.stop()


@pytest.fixture(scope="session")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose model is said to write tool calls as Hermes does, shared by all tests of the session."""
    running = start_server(
        tmp_path_factory.mktemp("tool_server") / "log",
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--exclude-tools-when-tool-choice-none"),
        *("--kv-cache-memory", "32M"),
    )
    yield running
    running.stop()


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """A client that shows the key to the server of the module."""
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        yield client
