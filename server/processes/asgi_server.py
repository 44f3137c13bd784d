"""granian: HTTP in Rust, our ASGI application in one or several workers.

`serve` runs in the launcher; `load_app` runs in each worker after the fork, so that only workers import what
the application needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from ...engine_core.errors import UnsupportedModelError
from ..config import ServerConfig
from ..http.access_log import AccessLogFilter
from ..server_folder import ServerFolder
from ..server_status import ServerStatus
from .listeners import Server, listen
from .tls import tls_options, watch_files
from .worker_respawns import WorkerRespawns

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that wait to be accepted; the kernel may have a lower limit."""
MAX_OPEN_REQUESTS = 2**16
"""Requests that one worker carries at once. It refuses what is too much itself (`admission`); were granian to hold it
back, the probes would wait too.
"""
HEADER_SECONDS = 30
"""What the headers of a request may take, from the connection's first moment or the answer before; then it is closed.
Version 2 of HTTP has no such limit here, so it is not spoken.
"""
MAX_HEADER_BYTES = 64 * 2**10
"""Of one request; more is answered 431."""
STOP_SECONDS = 5
"""What a worker has behind the time for running requests, before it is killed."""


def serve(config: ServerConfig, model_dir: str, folder: ServerFolder, status: ServerStatus) -> bool:
    """Serve until SIGTERM or SIGINT, or until workers end by themselves over and over; whether it was the former.

    A second signal ends all at once.
    """
    if config.workers > 1:
        folder.metrics.mkdir()
    server = Server(
        "zqserve",
        listeners=[] if config.uds is not None else [_listen(config) for _ in range(config.workers)],
        address=config.host,
        port=config.port,
        uds=config.uds,
        interface=Interfaces.ASGI,
        workers=config.workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000, max_buffer_size=MAX_HEADER_BYTES),
        websockets=False,
        backlog=BACKLOG,
        backpressure=MAX_OPEN_REQUESTS,
        respawn_failed_workers=True,
        workers_kill_timeout=config.drain_timeout + STOP_SECONDS,
        url_path_prefix=config.root_path or None,
        log_access=config.access_log,
        log_level=LogLevels.warning,
        log_dictconfig={"loggers": {"_granian": {}, "granian.access": {"level": "INFO"}}},
        **tls_options(config),
    )
    server.respawned_wrks = WorkerRespawns()
    logging.getLogger("granian.access").addFilter(AccessLogFilter(config))
    if config.enable_ssl_refresh:
        # What granian does on SIGHUP: it starts a new worker, then ends the old one as SIGTERM would.
        watch_files(config, when_changed=partial(os.kill, os.getpid(), signal.SIGHUP))
    # Before anything else in a worker: a signal that comes while it starts shall not meet the launcher's handlers.
    os.register_at_fork(after_in_child=partial(_begin_worker, os.getpid()))
    loader = partial(load_app, config, model_dir, folder)
    server.on_startup(partial(_take_signals, server, status))
    try:
        server.serve(target_loader=loader, wrap_loader=False)
    except SystemExit as exit_:
        return server.interrupt_signal or not exit_.code
    return True


def _listen(config: ServerConfig) -> socket.socket:
    return listen(config.host, config.port, backlog=BACKLOG, send_timeout=config.send_timeout)


def load_app(config: ServerConfig, model_dir: str, folder: ServerFolder) -> ASGIApp:
    """The application, in a worker's process."""
    if config.workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder.metrics)  # read when prometheus_client is imported
    from ..app import create_app

    status = ServerStatus(folder.status)
    try:
        app = create_app(config, model_dir, folder, status)
        _reserve_metrics(folder.metrics)
        return app
    except (OSError, ValueError, UnsupportedModelError) as error:
        logger.error("%s", error)
        # Another worker would find the same.
        status.worker_failed = True
        os.kill(os.getppid(), signal.SIGTERM)
        sys.exit(1)


def _reserve_metrics(folder: Path) -> None:
    """Take the room for this worker's files of metrics now: to write where there is none is the end of a process."""
    for path in folder.glob(f"*_{os.getpid()}.db"):
        with path.open("r+b") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _take_signals(server: Server, status: ServerStatus) -> None:
    """Put our handlers in the place of those that granian's main process has just set."""

    def end(number: int, frame: FrameType | None) -> None:
        if not server.interrupt_signal:
            status.draining = True
            server.signal_handler_interrupt()
            return
        for worker in list(server.wrks):
            worker.kill()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _begin_worker(launcher_pid: int) -> None:
    """End at once on SIGTERM until the application takes over, and whenever the launcher ends, however that ends.

    Ctrl-C is for the launcher alone, which ends the workers: so each is in a process group of its own.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher_pid:
        os._exit(1)
