"""A real server process on the demo model, as the tests start, ask and end it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

ROOT = Path(__file__).parent.parent
DEMO_MODEL = Path(os.environ.get("ZQSERVE_TEST_MODEL", ROOT / "demo" / "model"))
STARTUP_SECONDS = 300.0
API_KEY = "a-key-for-tests"


@dataclass
class RunningServer:
    """A server process that answers `/health` with 200."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def api_key(self) -> str:
        return API_KEY

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {API_KEY}"}

    def openai(self) -> openai.OpenAI:
        """A client as users have it."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=API_KEY, max_retries=0, timeout=60)

    def async_openai(self) -> openai.AsyncOpenAI:
        """The same for asyncio."""
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=API_KEY, max_retries=0, timeout=120)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """End the process with a signal; its exit status."""
        self.process.send_signal(signal_number)
        return self.process.wait(240)

    def wait_until_healthy(self, client: httpx.Client | None = None) -> None:
        """Return when `/health` answers 200; fail with the server's log when it ends or takes too long."""
        client = client or httpx.Client(base_url=self.url, timeout=60)
        deadline = time.monotonic() + STARTUP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.process.kill()
        self.process.wait(240)
        pytest.fail(f"The server did not start:\n{self.log.read_text()[-5000:]}")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(log: Path, *flags: str, wait: bool = True, **process_options: Any) -> RunningServer:
    """Start `python -m zqserve` on the demo model; with `wait`, return once it serves. process_options: of `Popen`,
    where it is not to write to `log`, for one.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "zqserve", "--model", str(DEMO_MODEL), "--served-model-name", "demo", "alias"),
        *("--host", "127.0.0.1", "--port", str(port), "--api-key", API_KEY, "another-key", *flags),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, **{"stdout": output, "stderr": subprocess.STDOUT, **process_options})
    server = RunningServer(process, f"http://127.0.0.1:{port}", log)
    if wait:
        server.wait_until_healthy()
    return server
