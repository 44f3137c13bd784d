"""The server that the pages speak of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_server import ROOT, RunningServer, free_port


def serve(folder: Path, *flags: str) -> Iterator[str]:
    """The address of `zqserve` with these flags, run where the repository is; it must end with status 0."""
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "zqserve", *flags, "--port", str(port)], cwd=ROOT, stderr=output
        )
    running = RunningServer(process, f"http://127.0.0.1:{port}", log)
    running.wait_until_healthy()
    yield running.url
    assert running.stop() == 0


@pytest.fixture(scope="session")
def demo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as `make serve` starts it, and `zqserve serve demo/model`."""
    yield from serve(tmp_path_factory.mktemp("demo"), "--model", "demo/model")


@pytest.fixture(scope="session")
def embedding_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server of docs/embeddings.md."""
    yield from serve(
        tmp_path_factory.mktemp("embeddings"), "serve", "demo/model", "--task", "embedding", "--kv-cache-memory", "16M"
    )
