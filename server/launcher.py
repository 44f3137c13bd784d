"""Starts the engine and the front-end side by side, watches both, ends both.

granian's own main process is the launcher: it has to watch its workers anyway, so a third parent would only
be one more process that can die. The engine is its child too, watched by a thread. SIGTERM and SIGINT let the
running requests end and then exit with 0; when the engine or a worker ends by itself, everything ends, with
1. Every child asks the kernel to be killed with its parent, so that nothing outlives a launcher that is
killed.

Imports little: the engine and the front-end load their libraries at the same time, in their own processes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

import msgspec

from ..engine_core.engine_process import EngineProcessArgs
from .asgi_server import serve
from .config import ServerConfig
from .log import configure_logging
from .model_info import resolve_model

logger = logging.getLogger(__name__)

ENGINE_STOP_SECONDS = 10.0
STARTUP_FAILURE = 1


def launch(config: ServerConfig) -> int:
    """Serve until a signal or a failure; the exit status."""
    configure_logging(config.log_level)
    # From here to the moment when granian sets its own handlers; then it is `serve` that returns.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    try:
        model_dir = resolve_model(config.model, config.revision)
        tokenizer_dir = None if config.tokenizer is None else resolve_model(config.tokenizer, config.revision)
        _check_address(config)
    except (OSError, ValueError) as error:
        logger.error("%s", error)
        return STARTUP_FAILURE
    with tempfile.TemporaryDirectory(prefix="zqserve-") as folder:  # mode 0700: nobody else reaches the sockets
        engine = EngineProcess(config, model_dir, tokenizer_dir, address=f"ipc://{folder}/engine")
        try:
            failed = not serve(config, model_dir, engine.address, Path(folder))
        finally:
            engine.stop()
    return STARTUP_FAILURE if failed or engine.failed else 0


class EngineProcess:
    """The engine's process. When it ends by itself, the launcher is told to end as by SIGTERM and `failed` is
    set.
    """

    def __init__(self, config: ServerConfig, model_dir: str, tokenizer_dir: str | None, address: str) -> None:
        self.address = address
        self.failed = False
        self._stopping = False
        args = EngineProcessArgs(
            config=config.engine_config(model_dir, tokenizer_dir),
            address=address,
            parent_pid=os.getpid(),
            log_level=config.log_level,
        )
        # Its own process group: Ctrl-C reaches the launcher alone, which ends the front-end first.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zqserve.engine_core.engine_process"], stdin=subprocess.PIPE, process_group=0
        )
        assert self._process.stdin is not None
        with self._process.stdin as pipe:
            pipe.write(msgspec.json.encode(args))
        threading.Thread(target=self._watch, name="engine-watcher", daemon=True).start()

    def stop(self) -> None:
        """End the process; it holds nothing that is worth waiting for."""
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(ENGINE_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("The engine did not end in %.0f s; it is killed.", ENGINE_STOP_SECONDS)
            self._process.kill()
            self._process.wait()

    def _watch(self) -> None:
        status = self._process.wait()
        if not self._stopping:
            self.failed = True
            logger.error("The engine process ended by itself (%s); the server stops.", _describe(status))
            os.kill(os.getpid(), signal.SIGTERM)


def _describe(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def _exit(signal_number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _check_address(config: ServerConfig) -> None:
    """Raise OSError when another server has the address: granian's sockets would share the port with it."""
    if config.uds is not None:
        return
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host, config.port))
        except OSError as error:
            raise OSError(f"Cannot listen on {config.host}:{config.port}: {error.strerror}.") from None
