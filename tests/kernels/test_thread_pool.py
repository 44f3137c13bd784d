"""Every item of a kernel is done exactly once, whoever does it."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

from zqserve.kernels.simd import address_of, load_i64, store_i64
from zqserve.kernels.thread_pool import KernelArguments, ThreadPool, compile_kernel
from zqserve.kernels.threading_primitives import atomic_add, current_core, leave_core


def _count_items(args):
    """Kernel: add one to the place of each item."""
    base = address_of(args)
    while True:
        item = atomic_add(base, 1)
        if item >= args[1]:
            return
        store_i64(args[2] + 8 * item, load_i64(args[2] + 8 * item) + 1)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_item_is_done_once_and_the_call_returns_after_the_last(size: int) -> None:
    threads = ThreadPool(size)
    kernel = compile_kernel(_count_items)
    arguments = KernelArguments(3)
    for num_items in [0, 1, 3, 1000] * 200:
        places = np.zeros(num_items + 1, np.int64)
        arguments.values[:] = (0, num_items, places.ctypes.data)
        threads.run(kernel, arguments, parallel=num_items != 3)
        assert places[:num_items].tolist() == [1] * num_items
        assert places[num_items] == 0


def test_a_pool_that_is_gone_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    threads = ThreadPool(4)
    started = set(threading.enumerate()) - before
    assert len(started) == 3
    del threads
    gc.collect()
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()


def _leave_own_core(args):
    """Kernel: where it ran, and where it runs when it has left that core."""
    args[0] = current_core()
    leave_core(args[0])
    args[1] = current_core()


def test_a_thread_leaves_a_core_where_there_is_another_and_keeps_what_it_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    threads, kernel, arguments = ThreadPool(1), compile_kernel(_leave_own_core), KernelArguments(2)
    try:
        threads.run(kernel, arguments)
        before, after = arguments.values.tolist()
        assert before in allowed
        assert (before == after) == (len(allowed) == 1)
        assert os.sched_getaffinity(0) == allowed
        os.sched_setaffinity(0, {before})
        threads.run(kernel, arguments)  # it may go nowhere
        assert arguments.values.tolist() == [before, before]
        assert os.sched_getaffinity(0) == {before}
    finally:
        os.sched_setaffinity(0, allowed)
