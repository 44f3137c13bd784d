"""Settings of the process around a CPU model: the memory allocator and the OpenMP library that torch brings.

Torch-free; `tune_openmp` must be called before torch is imported.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MAX_MMAP_THRESHOLD = 32 << 20
"""The largest that glibc takes."""


def tune_openmp() -> None:
    """Let OpenMP's threads sleep soon after a parallel operation, unless the user has said otherwise.

    They would spin for milliseconds on the cores that the kernels' own threads (`kernels.thread_pool`) need next.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def tune_allocator() -> None:
    """Keep freed memory for the next step instead of giving it back to the system, unless the user has said otherwise.

    A step of prompt chunks makes and frees tensors of tens of megabytes. Fetched anew each time, their pages took half
    of such a step. Does nothing where the C library is not glibc.
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)


def give_back_freed_memory() -> None:
    """Give what loading a model has freed, and no step may ever need, back to the system. For glibc alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
