"""granian: HTTP in Rust, our ASGI application in one or several workers.

`serve` runs in the launcher; `load_app` runs in each worker after the fork, so that only workers import what
the application needs.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

from ..engine_core.errors import UnsupportedModelError
from .config import ServerConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that wait to be accepted, and requests that one worker carries at once."""


def serve(config: ServerConfig, model_dir: str, engine_address: str, folder: Path) -> bool:
    """Serve until SIGTERM or SIGINT, or until a worker ends by itself; whether it was the former.

    `folder` is private to this server: workers share their metrics there.
    """
    metrics_folder = None
    if config.workers > 1:
        metrics_folder = folder / "metrics"
        metrics_folder.mkdir()
    server = Granian(
        "zqserve",
        address=config.host,
        port=config.port,
        uds=config.uds,
        interface=Interfaces.ASGI,
        workers=config.workers,
        loop=Loops.uvloop,
        http=HTTPModes.auto,
        websockets=False,
        backlog=BACKLOG,
        backpressure=BACKLOG,
        workers_kill_timeout=config.shutdown_timeout,
        url_path_prefix=config.root_path or None,
        log_access=config.access_log,
        log_level=LogLevels.warning,
        log_dictconfig={"loggers": {"_granian": {}, "granian.access": {"level": "INFO"}}},
    )
    # Before anything else in a worker: a signal that comes while it starts shall not meet the launcher's handlers.
    os.register_at_fork(after_in_child=partial(_begin_worker, os.getpid()))
    loader = partial(load_app, config, model_dir, engine_address, metrics_folder)
    try:
        server.serve(target_loader=loader, wrap_loader=False)
    except SystemExit as exit_:
        return server.interrupt_signal or not exit_.code
    return True


def load_app(config: ServerConfig, model_dir: str, engine_address: str, metrics_folder: Path | None) -> ASGIApp:
    """The application, in a worker's process."""
    if metrics_folder is not None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)  # read when prometheus_client is imported
    from .app import create_app

    try:
        return create_app(config, model_dir, engine_address)
    except (OSError, ValueError, UnsupportedModelError) as error:
        logger.error("%s", error)
        sys.exit(1)


def _begin_worker(launcher_pid: int) -> None:
    """End at once on SIGTERM until granian's loop takes over, and whenever the launcher ends, however that ends.

    Ctrl-C reaches the workers too, but it is for the launcher to end them.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher_pid:
        os._exit(1)
