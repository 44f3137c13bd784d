"""The server under test: one that runs already, or zqserve started for the bench; and what processor time it takes."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

STARTUP_SECONDS = 600.0
STOP_SECONDS = 60.0
MOST_LOOKS = 60
QUIET_SECONDS = 0.03
"""Processor time in a second of a server that does nothing."""


@dataclass(frozen=True)
class Target:
    """An OpenAI-compatible server that answers."""

    base_url: str
    """Without /v1."""
    model: str
    """As requests name it."""
    tokenizer_dir: Path | None
    pid: int | None
    """Of the process whose tree it is, where that is known."""

    def tokenizer(self) -> Path:
        """The tokenizer's folder. Exits where the command line does not say it."""
        if self.tokenizer_dir is None:
            raise SystemExit("--tokenizer names the folder of the tokenizer that the server uses.")
        return self.tokenizer_dir


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Which server is measured."""
    group = parser.add_argument_group("the server", "one that runs, by --base-url, or zqserve started on --model")
    group.add_argument("--base-url", metavar="URL", help="of any OpenAI-compatible server, without /v1")
    group.add_argument("--model", default="demo/model", help="directory; with --base-url: its name")
    group.add_argument("--tokenizer", type=Path, metavar="DIR", help="of the server's tokenizer; default: --model")
    group.add_argument("--pid", type=int, help="process of that server, to know its processor time by process")
    group.add_argument("--server-args", default="", metavar="FLAGS", help="of the zqserve that is started, in one word")


@contextmanager
def target_of(args: argparse.Namespace) -> Iterator[Target]:
    """The server that the arguments of `add_server_arguments` mean; one that was started ends with the block."""
    named = Path(args.model)
    tokenizer = args.tokenizer or (named if (named / "tokenizer.json").is_file() else None)
    if args.base_url is not None:
        base_url = args.base_url.rstrip("/").removesuffix("/v1")
        yield Target(base_url, _served_model(base_url, args.model), tokenizer, args.pid)
        return
    port = free_port()
    command = [sys.executable, "-m", "zqserve", "--model", args.model, "--host", "127.0.0.1", "--port", str(port)]
    with started([*command, *shlex.split(args.server_args)], port) as process:
        yield Target(f"http://127.0.0.1:{port}", args.model, tokenizer, process.pid)


@contextmanager
def started(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server process from its first 200 of /health to the end of the block."""
    process = subprocess.Popen(command)
    try:
        _wait_until_healthy(process, port)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_by_process(pid: int) -> dict[str, float]:
    """Processor seconds so far of a process and its descendants, by name and number."""
    seconds: dict[str, float] = {}
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            times = process.cpu_times()
            seconds[f"{process.name()} {process.pid}"] = times.user + times.system
    except psutil.NoSuchProcess as error:
        raise SystemExit(f"The server's process {error.pid} is gone.") from None
    return seconds


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Processor seconds between two looks, of the processes that took any."""
    found = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    return {name: seconds for name, seconds in found.items() if seconds > 0}


def settle(pid: int) -> None:
    """Wait until the processes have done with what they begin in the background."""
    before = cpu_by_process(pid)
    for _ in range(MOST_LOOKS):
        time.sleep(1.0)
        after = cpu_by_process(pid)
        if sum(spent(before, after).values()) < QUIET_SECONDS:
            return
        before = after


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"The server was not ready after {STARTUP_SECONDS:.0f} s.")
        try:
            if _get("127.0.0.1", port, "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"The server ended with status {process.returncode} before it was ready.")


def _served_model(base_url: str, named: str) -> str:
    """The model's name: what was named, if the server has it, or else the first that it lists."""
    address = urlsplit(base_url)
    try:
        status, body = _get(address.hostname or "127.0.0.1", address.port or 80, f"{address.path}/v1/models")
    except OSError as error:
        raise SystemExit(f"There is no server at {base_url}: {error}") from None
    if status != 200:
        raise SystemExit(f"GET /v1/models answered {status}: {body[:300]!r} ($OPENAI_API_KEY is sent as the key)")
    names = [model["id"] for model in json.loads(body)["data"]]
    return named if named in names or not names else names[0]


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    key = os.environ.get("OPENAI_API_KEY")
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
