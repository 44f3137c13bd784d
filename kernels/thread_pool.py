"""Runs compiled CPU kernels on a few threads that share the work item by item.

A kernel is a numba `cfunc` that takes one pointer to a block of int64 arguments (addresses and sizes). The calling
thread and the helpers all call it and take item numbers from an atomic counter in the block, until none is left.

A helper that has not come by then is not waited for: on a machine where other processes want the cores too, a helper
may be off its core for milliseconds, and a step has dozens of kernels. (An OpenMP team waits for every member at every
barrier, so one member without a core stalls each of them.)

Between two kernels of a step the helpers spin for a moment; when nothing comes they sleep and cost nothing.

A helper that wakes or spins on the caller's core takes the caller's time instead of helping, and the scheduler may
leave it there while another core is idle. So the caller writes down where it runs; a helper that finds itself there
moves, and none wakes there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cfunc, njit, types

from .simd import address_of, load_i64, store_i64
from .threading_primitives import (
    atomic_add,
    atomic_load,
    call_kernel,
    current_core,
    leave_core,
    pause,
    read_event,
    yield_core,
)

KERNEL_SIGNATURE = types.void(types.CPointer(types.int64))

SPINS = 15_000
"""Looks for work before a helper sleeps: a fraction of a millisecond, longer than the pause between two kernels of a
step."""

# Places in the shared state, a cache line (8 of int64) apart where several threads write.
GENERATION, FUNCTION, ARGUMENTS, STOP, EVENT, CALLS, NUM_CALLS = 0, 1, 2, 3, 4, 5, 6
"""GENERATION is odd while a kernel is open to helpers; the caller alone changes it."""
BUSY = 8
"""Helpers that may be inside the open kernel."""
SLEEPERS = 16
CORE = 24
"""Where the caller ran when it last began something."""
STATE_SIZE = 32

SPINS_PER_LOOK = 64
"""Between two looks of a helper at whether it is in the caller's way."""

CALL_SIZE = 3
"""int64 numbers that say a call: the kernel's address, that of its arguments, and whether helpers take part."""


class KernelArguments:
    """The int64 arguments of a kernel call; the tensors whose addresses they hold are the caller's to keep alive."""

    def __init__(self, size: int) -> None:
        self.values = np.zeros(size, np.int64)
        self.address = self.values.ctypes.data


class ThreadPool:
    """`size` threads: the caller and `size - 1` helpers. Used by one calling thread at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._event = os.eventfd(0, os.EFD_SEMAPHORE)
        self._state[EVENT] = self._event
        address = self._state.ctypes.data
        self._state_pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_int64))
        self._run = compile_kernel(_run).ctypes
        self._run_alone = compile_kernel(_run_alone).ctypes
        self._run_calls = compile_kernel(_run_calls).ctypes
        help_out = compile_kernel(_help).ctypes
        helpers = [
            threading.Thread(target=help_out, args=(self._state_pointer,), name=f"kernel-{i}", daemon=True)
            for i in range(1, size)
        ]
        for helper in helpers:
            helper.start()
        # The state must outlive the helpers, which the finalizer ends before it lets go of it.
        weakref.finalize(self, _stop, self._state, self._event, helpers)

    def run(self, kernel: Any, arguments: KernelArguments, *, parallel: bool = True) -> None:
        """Call a compiled kernel and return when all its items are done; `parallel=False`: on this thread alone."""
        self._state[FUNCTION] = kernel.address
        self._state[ARGUMENTS] = arguments.address
        if self.size == 1 or not parallel:
            self._run_alone(self._state_pointer)
            return
        self._wake_helpers()
        self._run(self._state_pointer)

    def run_calls(self, address: int, num_calls: int) -> None:
        """Make calls of kernels one after another, each when the one before is done.

        At the address: int64 [num_calls, CALL_SIZE]; the first two arguments of each call, its counters, are set to 0.
        """
        self._state[CALLS] = address
        self._state[NUM_CALLS] = num_calls
        self._wake_helpers()
        self._run_calls(self._state_pointer)

    def _wake_helpers(self) -> None:
        if self._state[SLEEPERS]:
            os.eventfd_write(self._event, int(self._state[SLEEPERS]))


@functools.cache
def compile_kernel(function: Callable[..., None]) -> Any:
    """Compile `function(args)` as a kernel, once; the machine code is kept on disk for the next start, where it can be.

    Each layer of a model asks for its kernels, and even to read one from the disk takes some milliseconds.
    """
    try:
        return cfunc(KERNEL_SIGNATURE, cache=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return cfunc(KERNEL_SIGNATURE, error_model="numpy")(function)


def _run(state):
    """The caller's part of one kernel."""
    state[CORE] = current_core()
    _share(address_of(state), state[FUNCTION], state[ARGUMENTS])


def _run_alone(state):
    """One kernel that is not opened to helpers."""
    call_kernel(state[FUNCTION], state[ARGUMENTS])


def _run_calls(state):
    """The caller's part of several."""
    base = address_of(state)
    state[CORE] = current_core()
    for number in range(state[NUM_CALLS]):
        call = state[CALLS] + 8 * CALL_SIZE * number
        function, arguments, is_parallel = load_i64(call), load_i64(call + 8), load_i64(call + 16)
        store_i64(arguments, 0)
        store_i64(arguments + 8, 0)
        if is_parallel != 0:
            state[FUNCTION] = function
            state[ARGUMENTS] = arguments
            _share(base, function, arguments)
        else:
            call_kernel(function, arguments)


@njit(error_model="numpy")
def _share(base, function, arguments):
    """Open the kernel that the state names to helpers, work, close it, and wait for those that are inside."""
    atomic_add(base + 8 * GENERATION, 1)
    call_kernel(function, arguments)
    atomic_add(base + 8 * GENERATION, 1)
    spins = 0
    while atomic_load(base + 8 * BUSY) != 0:
        pause()
        spins += 1
        if spins > SPINS:
            # The helper may be waiting for this very core.
            yield_core()


def _help(state):
    """A helper's life: join each open kernel once, spin, then sleep until the caller wakes it."""
    base = address_of(state)
    joined = 0
    spins = 0
    while atomic_load(base + 8 * STOP) == 0:
        generation = atomic_load(base + 8 * GENERATION)
        if generation % 2 == 1 and generation != joined:
            # First be counted, then look again: a kernel that is still open now is not closed before this helper
            # has left it.
            atomic_add(base + 8 * BUSY, 1)
            if atomic_load(base + 8 * GENERATION) == generation:
                call_kernel(state[FUNCTION], state[ARGUMENTS])
            atomic_add(base + 8 * BUSY, -1)
            joined = generation
            spins = 0
        elif spins < SPINS:
            if spins % SPINS_PER_LOOK == 0 and current_core() == state[CORE]:
                leave_core(state[CORE])
            pause()
            spins += 1
        else:
            atomic_add(base + 8 * SLEEPERS, 1)
            read_event(state[EVENT], state[CORE])
            atomic_add(base + 8 * SLEEPERS, -1)
            spins = 0


def _stop(state: np.ndarray, event: int, helpers: list[threading.Thread]) -> None:
    state[STOP] = 1
    if helpers:
        os.eventfd_write(event, len(helpers))
    for helper in helpers:
        helper.join()
    os.close(event)
