"""A process that works through what strangers send, seen from the front-end, which can kill it at any time.

`worker_frames.py` is the inside. `grammar_compiler.py` and `template_renderer.py` own such processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys

from ...engine_core.errors import RequestFailedError
from .worker_frames import LENGTH


class WorkerEndedError(Exception):
    """The process ended instead of answering."""


class WorkerProcess:
    """Answers one question at a time. All methods belong to the event loop."""

    def __init__(
        self,
        module: str,
        process: subprocess.Popen[bytes],
        questions: asyncio.StreamWriter,
        answers: asyncio.StreamReader,
    ) -> None:
        self._module = module
        self._process = process
        self._questions = questions
        self._answers = answers

    async def wait_until_ready(self) -> None:
        """Return once it has loaded what it needs. Raises `RequestFailedError` when it ends instead."""
        try:
            await self._read()
        except (asyncio.IncompleteReadError, ConnectionError):
            raise RequestFailedError(f"A helper process ({self._module}) cannot be started.") from None

    async def ask(self, question: bytes) -> bytes:
        """Its answer. Raises `WorkerEndedError`."""
        try:
            self._questions.writelines((LENGTH.pack(len(question)), question))
            await self._questions.drain()
            return await self._read()
        except (asyncio.IncompleteReadError, ConnectionError):
            raise WorkerEndedError from None

    def slow_down(self, niceness: int) -> None:
        """From now on it runs when nothing else wants the processor; that cannot be taken back."""
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, niceness)

    async def kill(self) -> None:
        """End the process, whatever it is working on, and wait until it is gone."""
        self._process.kill()
        self._questions.close()
        await asyncio.to_thread(self._process.wait)

    async def _read(self) -> bytes:
        (length,) = LENGTH.unpack(await self._answers.readexactly(LENGTH.size))
        return await self._answers.readexactly(length)


async def start_worker(module: str, memory: int) -> WorkerProcess:
    """Start `python -m module` of this package, with bytes of memory to use; it need not be ready yet."""
    ours, theirs = socket.socketpair()
    with theirs:
        # Before there is a process: whoever is cancelled here leaves none behind that nobody knows.
        answers, questions = await asyncio.open_connection(sock=ours)
        # Not by asyncio: uvloop runs Python's hooks of a fork in the child, which are for granian's workers.
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(os.getpid()), str(memory)],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env={**_harmless_environment(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            process_group=0,  # Ctrl-C is for the launcher
        )
    return WorkerProcess(module, process, questions, answers)


def _harmless_environment() -> dict[str, str]:
    """The environment without what may be a secret, should somebody find a way out of a sandbox."""
    return {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
