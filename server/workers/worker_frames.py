"""The inside of a process that works through what strangers send, where it can be killed: frames, and limits.

Used by `grammar_worker.py` and `template_worker.py`; `worker_process.py` is the other end of the line. A frame is four
bytes of length, then the bytes; an empty one says that the process is ready.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

LENGTH = struct.Struct("<I")


def open_frames(parent_pid: int) -> tuple[BinaryIO, BinaryIO]:
    """Where frames come from, and where they go. From now on the process ends with its parent."""
    _die_with(parent_pid)
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints by accident does not come between the frames
    return questions, answers


def limit_memory(memory: int) -> Callable[[], bool]:
    """Let the process have that many bytes more than now; a function that tells whether half of them are taken."""
    gc.freeze()
    size_at_start = _size()
    resource.setrlimit(resource.RLIMIT_AS, (size_at_start + memory, size_at_start + memory))
    return lambda: _size() - size_at_start > memory // 2


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame; None when there are no more."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return stream.read(LENGTH.unpack(header)[0])


def write_frame(stream: BinaryIO, frame: bytes) -> None:
    """Send a frame."""
    stream.write(LENGTH.pack(len(frame)) + frame)
    stream.flush()


def _size() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(0)
