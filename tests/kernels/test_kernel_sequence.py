"""A sequence of kernels gives what its kernels give one by one, at every size, and reads what is written anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zqserve.kernels.fma_linear import FmaLinear
from zqserve.kernels.kernel_sequence import KernelSequence
from zqserve.kernels.rms_norm import RMSNormKernel
from zqserve.kernels.row_gather import append_gather
from zqserve.kernels.thread_pool import ThreadPool

SIZE, WIDTH = 72, 136


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_it_gives_what_its_kernels_give_one_by_one(num_threads: int) -> None:
    threads = ThreadPool(num_threads)
    table = _random(500, SIZE, seed=1)
    norm = RMSNormKernel(_random(SIZE, seed=2), 1e-5, round_before_weight=False, threads=threads)
    wide = FmaLinear(_random(WIDTH, SIZE, seed=3), None, threads)
    narrow = FmaLinear(_random(SIZE, WIDTH, seed=4), _random(SIZE, seed=5), threads)

    sequence = KernelSequence(threads, num_counts=2)
    numbers, chosen = sequence.buffer(8, 0), sequence.buffer(8, 1)
    x, normed, out = (sequence.buffer(4 * SIZE, 0) for _ in range(3))
    between, last = sequence.buffer(4 * WIDTH, 0), sequence.buffer(4 * SIZE, 1)
    append_gather(sequence, table, numbers, x)
    norm.append_to(sequence, x, normed)
    wide.append_to(sequence, normed, between)
    narrow.append_to(sequence, between, out, residual=x)
    append_gather(sequence, out, chosen, last)

    # Up and down, also beyond the memory that is kept, and twice the same.
    for num_rows in (1, 3, 3, 200, 5_000, 2, 0, 64):
        rows = np.random.default_rng(num_rows).integers(0, len(table), num_rows)
        wanted = np.arange(num_rows)[:: -7 if num_rows else 1]
        sequence.prepare([len(rows), len(wanted)])
        sequence.array(numbers, np.int64)[:] = rows
        sequence.array(chosen, np.int64)[:] = wanted
        sequence.run()
        found = sequence.view(last, torch.float32).clone()
        given = table[torch.from_numpy(rows)]
        expected = narrow(wide(norm(given)), given)[torch.from_numpy(wanted.copy())]
        assert torch.equal(found, expected)
