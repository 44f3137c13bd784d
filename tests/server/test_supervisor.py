"""What becomes of engines that die: small scripts stand in their place, with the pipe that a supervisor watches."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine_process import EngineProcessArgs
from zqserve.server.processes import supervisor as supervisor_module
from zqserve.server.processes.supervisor import Supervisor
from zqserve.server.server_status import EnginePhase, ServerStatus

BEGIN = """
import os, signal, sys, time
pulse = int(sys.argv[1])
"""
SERVE = BEGIN + "os.write(pulse, b'.')\n"
DIE = "os.kill(os.getpid(), signal.SIGKILL)\n"
STAY = "time.sleep(600)\n"


@pytest.fixture
def status(tmp_path: Path) -> ServerStatus:
    return ServerStatus(tmp_path / "status")


def supervise(status: ServerStatus, script: str, *, max_restarts: int = 2, engine_timeout: float = 60.0) -> Supervisor:
    supervisor = Supervisor(
        EngineProcessArgs(config=EngineConfig(model=""), address=""),
        status,
        engine_timeout=engine_timeout,
        max_restarts=max_restarts,
        on_give_up=threading.Event().set,
        start_process=lambda args, pulse: subprocess.Popen(
            [sys.executable, "-c", script, str(pulse)], pass_fds=[pulse]
        ),
    )
    supervisor.start()
    return supervisor


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def failure_of(supervisor: Supervisor) -> str:
    wait_until(lambda: supervisor.failure is not None)
    supervisor.stop()
    assert supervisor.failure is not None
    return supervisor.failure


def test_an_engine_that_dies_is_followed_by_others_up_to_a_limit(status: ServerStatus) -> None:
    failure = failure_of(supervise(status, SERVE + DIE, max_restarts=2))
    assert "was ended by signal SIGKILL, after 2 restarts" in failure
    assert status.engine_phase == EnginePhase.LOST
    assert status.num_engine_restarts == 2


def test_a_first_engine_that_refuses_to_serve_is_not_followed(status: ServerStatus) -> None:
    failure = failure_of(supervise(status, BEGIN + "sys.exit(1)"))
    assert failure == "The engine ended with exit status 1 before it could serve; the server stops."
    assert status.num_engine_restarts == 0


def test_engines_that_never_serve_are_given_up(status: ServerStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "BACKOFF_SECONDS", 0.01)
    failure = failure_of(supervise(status, BEGIN + DIE, max_restarts=100))
    assert failure.startswith("3 engines one after another ended before they could serve; the last was ended by signal")


def test_an_engine_that_hangs_is_killed_and_followed(status: ServerStatus) -> None:
    supervisor = supervise(status, SERVE + STAY, engine_timeout=0.1, max_restarts=1)
    assert "did not answer for 0.1 s, after 1 restarts" in failure_of(supervisor)


def test_an_engine_that_loads_for_long_does_not_count_as_hung(status: ServerStatus, tmp_path: Path) -> None:
    has_loaded = tmp_path / "loaded"
    load = f"time.sleep(0.6)\nopen({str(has_loaded)!r}, 'x')\nos.write(pulse, b'.')\n"
    supervisor = supervise(status, BEGIN + load + STAY, engine_timeout=0.2, max_restarts=0)
    assert "did not answer for 0.2 s" in failure_of(supervisor)  # once it had begun to serve
    assert has_loaded.exists()


def test_stopping_ends_the_engine_and_starts_no_other(status: ServerStatus) -> None:
    before = set(psutil.Process().children())  # servers of other tests
    supervisor = supervise(status, SERVE + STAY)
    wait_until(lambda: status.engine_phase == EnginePhase.SERVING)
    (engine,) = set(psutil.Process().children()) - before
    supervisor.stop()
    assert not engine.is_running()
    assert supervisor.failure is None
    assert set(psutil.Process().children()) <= before
