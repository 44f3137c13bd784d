"""The processes of a running server, as the tests find them to kill them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import httpx
import psutil

from tests.running_server import RunningServer

DEADLINE_SECONDS = 240.0


def engine_of(server: RunningServer) -> psutil.Process | None:
    """The engine's process; None while there is none."""
    return next((child for child in _children(server, recursive=True) if _name(child) == "zqserve-engine"), None)


def workers_of(server: RunningServer) -> list[psutil.Process]:
    """The front-end workers that live."""
    return [child for child in _children(server) if _name(child) not in ("", "zqserve-forks")]


def fork_server_of(server: RunningServer) -> psutil.Process:
    """The process that engines are forked from."""
    (found,) = [child for child in _children(server) if _name(child) == "zqserve-forks"]
    return found


def fork_server_at_its_start(server: RunningServer) -> psutil.Process:
    """The process that engines are to be forked from, as soon as it is there."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found.extend(child for child in _children(server) if _runs(child, "fork_server"))
        return bool(found)

    wait_until(is_there)
    return found[0]


def compilers_of(server: RunningServer) -> list[psutil.Process]:
    """The processes that compile grammars."""
    return [child for child in _children(server, recursive=True) if _runs(child, "grammar_worker")]


def renderers_of(server: RunningServer) -> list[psutil.Process]:
    """The processes that render chat templates of requests."""
    return [child for child in _children(server, recursive=True) if _runs(child, "template_worker")]


def wait_for_engine(server: RunningServer) -> psutil.Process:
    """The engine's process, once there is one."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        engine = engine_of(server)
        found.extend([] if engine is None else [engine])
        return engine is not None

    wait_until(is_there)
    return found[0]


def kill_engine(server: RunningServer) -> int:
    """Kill the engine as the kernel would; its pid. Waits for one that is yet to come."""
    engine = wait_for_engine(server)
    engine.kill()
    engine.wait(DEADLINE_SECONDS)
    return engine.pid


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs, and is no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def niceness_of(process: psutil.Process) -> int:
    """0 for one that has ended."""
    try:
        return int(process.nice())
    except psutil.NoSuchProcess:
        return 0


def metric(server: RunningServer, name: str) -> float:
    """The value of one of our metrics, over all workers."""
    text = httpx.get(f"{server.url}/metrics", headers=server.headers, timeout=60).text
    found = re.search(rf'^vllm:{name}{{[^}}]*model_name="demo"[^}}]*}} (\S+)$', text, re.MULTILINE)
    assert found is not None, f"no metric {name}"
    return float(found[1])


def wait_until(condition: Callable[[], bool], pause: float = 0.01) -> None:
    """Return when the condition holds."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, "It did not come about."
        time.sleep(pause)


def _children(server: RunningServer, *, recursive: bool = False) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=recursive)


def _name(process: psutil.Process) -> str:
    """As `ps` shows it; "" for one that has ended."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return ""


def _runs(process: psutil.Process, module: str) -> bool:
    """Whether a living process was started with a module of that name."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and any(
            argument.endswith("." + module) for argument in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False
