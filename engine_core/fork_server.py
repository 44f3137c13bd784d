"""Makes engine processes by fork out of one that has imported everything: `python -m zqserve.engine_core.fork_server`.

    fork_server = ForkServer()                          # in the launcher
    process = fork_server.start(args, pulse_pipe)       # again after each death; the first start waits for the imports

To import torch and transformers is most of what an engine's start takes. Here it is done once, in a process that has no
threads, knows no model and has asked for no device (`preload`); a fork of it takes milliseconds, and shares its memory
until one of the two writes. It has one engine at a time. When it is killed, the kernel kills its engine too.

Over a socket the launcher sends the arguments with the pulse's file descriptor, and is told the engine's pid, and later
how it ended.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time

import msgspec

from .engine_process import EngineProcessArgs, begin_process, run_engine
from .preload import preload

COMMAND = (sys.executable, "-m", "zqserve.engine_core.fork_server")
MAX_MESSAGE_BYTES = 1 << 20
_ENVIRONMENT = {
    # numpy's own thread would not survive a fork; nothing of an engine multiplies with numpy.
    "OPENBLAS_NUM_THREADS": "1",
    # A GPU that was looked for in CUDA's own way cannot be used after a fork.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


class Forked(msgspec.Struct, tag=True):
    """There is an engine."""

    pid: int


class Ended(msgspec.Struct, tag=True):
    """It has ended; its pid is not given to another process before the next one is started."""

    status: int
    """As `subprocess` has it: the exit status, or minus the number of a signal."""


_report_decoder = msgspec.json.Decoder(Forked | Ended)


class ForkServer:
    """The launcher's side. `start` belongs to one thread, with which the processes end."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def start(self, args: EngineProcessArgs, pulse_pipe: int) -> ForkedProcess:
        """Have an engine started, after the one before has ended; does not wait for it. Raises OSError."""
        if self._server is None or self._server.poll() is not None:
            self._start_server()
        assert self._server is not None
        assert self._connection is not None
        socket.send_fds(self._connection, [msgspec.json.encode(args)], [pulse_pipe])
        return ForkedProcess(self._server, self._connection)

    def close(self) -> None:
        """End the process, and the engine if there is one."""
        if self._connection is not None:
            self._connection.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def _start_server(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Its own process group: Ctrl-C reaches the launcher alone, which ends the front-end first.
            self._server = subprocess.Popen(
                [*COMMAND, str(os.getpid())], stdin=theirs.fileno(), env={**_ENVIRONMENT, **os.environ}, process_group=0
            )


class ForkedProcess:
    """An engine's process, with the methods of `subprocess.Popen` that its supervisor needs."""

    def __init__(self, server: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.pid: int | None = None
        """None while the fork server imports."""
        self._server = server
        self._connection = connection
        self._status: int | None = None

    def poll(self) -> int | None:
        """How it ended, as `subprocess` has it; None while it runs."""
        while self._status is None and select.select([self._connection], [], [], 0)[0]:
            self._take_report()
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, once it has. Raises `subprocess.TimeoutExpired` after so many seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._status is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self._connection], [], [], left)[0]:
                raise subprocess.TimeoutExpired(COMMAND, timeout or 0.0)
            self._take_report()
        return self._status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, signal_number: signal.Signals) -> None:
        if self.pid is None:
            self._server.send_signal(signal_number)  # where there is an engine in spite of that, it ends too
        elif self._status is None:
            os.kill(self.pid, signal_number)

    def _take_report(self) -> None:
        try:
            data = self._connection.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            self._status = self._server.wait()  # the engine ended with it
            return
        report = _report_decoder.decode(data)
        if isinstance(report, Forked):
            self.pid = report.pid
        else:
            self._status = report.status


def main() -> int:
    """Serve until the launcher ends, or in a fork be the engine; the exit code."""
    begin_process(b"zqserve-forks", int(sys.argv[1]))
    connection = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    preload()
    pid, engine = os.getpid(), 0
    while True:
        message, pipes, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 1)
        if not message:
            return 0
        if engine:
            os.waitpid(engine, 0)
        (pulse_pipe,) = pipes
        engine = os.fork()
        if engine == 0:
            connection.close()
            args = msgspec.json.decode(message, type=EngineProcessArgs)
            return run_engine(args, parent_pid=pid, pulse_pipe=pulse_pipe)
        os.close(pulse_pipe)
        _watch(engine, connection)


def _watch(engine: int, connection: socket.socket) -> None:
    """Tell of an engine's life, until it ends. It is not reaped: nobody shall send a signal to another of its pid."""
    connection.send(msgspec.json.encode(Forked(engine)))
    end = os.waitid(os.P_PID, engine, os.WEXITED | os.WNOWAIT)
    assert end is not None
    status = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    connection.send(msgspec.json.encode(Ended(status)))


if __name__ == "__main__":
    sys.exit(main())
