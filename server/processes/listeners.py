"""The sockets that workers accept connections from: made in the launcher, before the workers are forked.

Each worker has one of its own, so the kernel spreads connections over them; a worker that dies leaves its socket, with
who waits there, to the one that replaces it. Each connection inherits what is set on them: the kernel ends one whose
client takes nothing more, which no HTTP server sees once it has handed its last bytes over.
"""

from __future__ import annotations

import socket
from typing import Any

from granian._granian import SocketHolder
from granian.server.mp import MPServer, WorkerProcess

PATIENCE = 2
"""The kernel waits so many times longer than the application, which counts the clients that it drops."""


def listen(host: str, port: int, *, backlog: int, send_timeout: float) -> socket.socket:
    """A socket that other workers' sockets may share the address with.

    send_timeout: seconds that a client may leave unread what was sent, before its request is aborted. Raises OSError.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a token may wait for the one before it
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere such a connection lasts as long as its client
            milliseconds = min(int(PATIENCE * send_timeout * 1000), 2**31 - 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Server(MPServer):
    """granian that accepts from these sockets, one for each worker; without any it makes its own."""

    def __init__(self, *args: Any, listeners: list[socket.socket], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listeners = listeners

    def _init_shared_socket(self) -> None:
        if self._listeners:
            self._sso = None  # a socket that only its workers on Windows look at
        else:
            super()._init_shared_socket()

    def _spawn_worker(self, idx: int, *args: Any, **kwargs: Any) -> WorkerProcess:
        if self._listeners:
            holder: Any = SocketHolder  # its stub names no arguments: a file descriptor, whether it is a Unix socket
            self._ssp, self._shd = None, holder(self._listeners[idx].fileno(), False, self.backlog)
        return super()._spawn_worker(idx, *args, **kwargs)
