"""Every item of a kernel is done exactly once, whoever does it."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from zqserve.kernels.simd import address_of, load_i64, store_i64
from zqserve.kernels.thread_pool import KernelArguments, ThreadPool, compile_kernel
from zqserve.kernels.threading_primitives import atomic_add


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
    before = threading.active_count()
    threads = ThreadPool(4)
    assert threading.active_count() == before + 3
    del threads
    gc.collect()
    assert threading.active_count() == before
