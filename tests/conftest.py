"""What all tests share: a server on the demo model, started once and only when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.running_server import RunningServer, start_server

# A slow machine is no failure, and a change is not blamed for what another draw would have found before it:
# `pytest --hypothesis-profile search` draws anew each time.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("same-each-time", settings.get_profile("search"), derandomize=True)
settings.load_profile("same-each-time")

LONGEST_FIRST = (
    *("tests/kernels/test_triton.py", "tests/faults/test_engine_crash.py", "tests/faults/test_ending.py"),
    *("tests/server/test_process.py", "tests/engine_core/test_fork_server.py", "tests/faults/", "tests/docs/"),
    *("tests/guided/test_json_different_items.py", "tests/server/", "tests/bench/"),
)
"""Files and folders that take long, most of them because they start processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that workers which share the files end together (`--no-loadscope-reorder`)."""

    def rank(item: pytest.Item) -> int:
        places = (place for place, path in enumerate(LONGEST_FIRST) if item.nodeid.startswith(path))
        return next(places, len(LONGEST_FIRST))

    items.sort(key=rank)


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
