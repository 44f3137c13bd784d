"""Starts the engine and the front-end side by side, watches both, ends both.

granian's own main process is the launcher: it has to watch its workers anyway, so a third parent would only
be one more process that can die. It replaces a worker that dies. The engine is its child too, kept running by a thread
(`supervisor`). SIGTERM and SIGINT let the running requests end and then exit with 0, a second one ends at once; when no
engine can be kept running, or a worker cannot begin, everything ends, with 1. Every child asks the kernel to be killed
with its parent, so that nothing outlives a launcher that is killed.

Imports little: the engine and the front-end load their libraries at the same time, in their own processes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
import socket
import tempfile
from pathlib import Path
from types import FrameType

from ...engine_core.engine_process import EngineProcessArgs
from ...engine_core.fork_server import ForkServer
from ..config import ServerConfig
from ..engine_link.model_info import resolve_model, resolve_tokenizer
from ..server_folder import ServerFolder
from ..server_status import ServerStatus
from .asgi_server import serve
from .supervisor import Supervisor

logger = logging.getLogger(__name__)

STARTUP_FAILURE = 1
LEAST_ROOM = 1 << 20
"""Bytes for temporary files. It takes about 200 KB a worker, where there are several."""


def launch(config: ServerConfig) -> int:
    """Serve until a signal or a failure; the exit status."""
    # From here to the moment when granian sets its own handlers; then it is `serve` that returns.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    try:
        model_dir = resolve_model(config.model, config.revision, config.download_dir)
        tokenizer_dir = resolve_tokenizer(
            config.model, config.tokenizer, config.tokenizer_revision or config.revision, config.download_dir
        )
        _check_address(config)
    except (OSError, ValueError) as error:
        logger.error("%s", error)
        return STARTUP_FAILURE
    _raise_file_limit()
    with contextlib.ExitStack() as stack:
        try:
            # Mode 0700: nobody else reaches the sockets.
            folder = ServerFolder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zqserve-"))))
            _check_room(folder.path)
            status = ServerStatus(folder.status)
        except OSError as error:
            logger.error("There is no place for the server's own files: %s. Set TMPDIR to a folder with room.", error)
            return STARTUP_FAILURE
        fork_server = ForkServer()
        supervisor = _supervisor(config, model_dir, tokenizer_dir, folder.engine_address, status, fork_server)
        supervisor.start()
        try:
            failed = not serve(config, model_dir, folder, status)
        finally:
            supervisor.stop()
            fork_server.close()
    if supervisor.failure is not None:
        logger.error("The server has ended. %s", supervisor.failure)
    return STARTUP_FAILURE if failed or status.worker_failed or supervisor.failure is not None else 0


def _supervisor(
    config: ServerConfig,
    model_dir: str,
    tokenizer_dir: str | None,
    address: str,
    status: ServerStatus,
    fork_server: ForkServer,
) -> Supervisor:
    args = EngineProcessArgs(
        config=config.engine_config(model_dir, tokenizer_dir),
        address=address,
        log_level=config.log_level,
        log_config_file=None if config.log_config_file is None else str(config.log_config_file),
    )
    return Supervisor(
        args,
        status,
        engine_timeout=config.engine_timeout,
        max_restarts=config.max_engine_restarts,
        on_give_up=lambda: os.kill(os.getpid(), signal.SIGTERM),
        start_process=fork_server.start,
    )


def _raise_file_limit() -> None:
    """Take as many file descriptors as this user may have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _check_room(folder: Path) -> None:
    """Raise OSError where the files that processes share do not fit: a shared page that has no room kills them."""
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < LEAST_ROOM:
        raise OSError(errno.ENOSPC, f"less than {LEAST_ROOM >> 20} MiB are left", str(folder))


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
