"""Runs compiled CPU kernels on torch's own OpenMP threads.

A kernel is a numba `cfunc` that takes one pointer to a block of int64 arguments (addresses and sizes). Every thread of
the team calls it; threads share the work by taking item numbers from an atomic counter in the block. Using the very
libgomp that torch has loaded matters: a second pool would fight with torch's spinning workers for the cores.
Without libgomp (another platform or build) the kernel runs on the calling thread.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import cfunc, types

KERNEL_SIGNATURE = types.void(types.CPointer(types.int64))


def compile_kernel(function: Callable[..., None]) -> Any:
    """Compile `function(args)` as a kernel; the machine code is cached on disk for the next start, where it can be."""
    try:
        return cfunc(KERNEL_SIGNATURE, cache=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return cfunc(KERNEL_SIGNATURE, error_model="numpy")(function)


class KernelArguments:
    """The int64 arguments of a kernel call; the tensors whose addresses they hold are the caller's to keep alive."""

    def __init__(self, size: int) -> None:
        self.values = np.zeros(size, np.int64)
        self._address = self.values.ctypes.data

    @property
    def address(self) -> int:
        return self._address


def run(compiled: Any, arguments: KernelArguments, num_threads: int) -> None:
    """Call the compiled kernel on `num_threads` threads and wait for all of them."""
    parallel = _gomp_parallel()
    if num_threads <= 1 or parallel is None:
        compiled.ctypes(ctypes.cast(arguments.address, ctypes.POINTER(ctypes.c_int64)))
    else:
        parallel(compiled.address, arguments.address, num_threads, 0)


@functools.cache
def _gomp_parallel() -> Any:
    """GOMP_parallel(function, data, num_threads, flags) of the libgomp in this process, or None."""
    torch.get_num_threads()  # torch loads its OpenMP library at import; this only makes the dependence visible
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "libgomp" in line}
    except OSError:
        return None
    for path in sorted(paths):
        parallel = ctypes.CDLL(path).GOMP_parallel
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None
