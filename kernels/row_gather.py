"""Rows of a table by their numbers: embeddings, rotary angles, and the last tokens of a step."""

from __future__ import annotations

import torch

from .kernel_sequence import Buffer, KernelSequence
from .simd import LANES, address_of, copy_16, load_i64, load_u16, store_u16
from .thread_pool import KernelArguments, compile_kernel
from .threading_primitives import atomic_add

BYTES_PER_ITEM = 32_768


def append_gather(sequence: KernelSequence, table: torch.Tensor | Buffer, numbers: Buffer, out: Buffer) -> None:
    """Add to a sequence: `out[i] = table[numbers[i]]`, where numbers are int64 [num_rows, 1] and rows contiguous."""
    row_bytes = out.row_bytes
    values = KernelArguments(8).values
    values[5] = row_bytes
    values[6] = rows_per_item = max(1, BYTES_PER_ITEM // row_bytes)
    buffers = {3: numbers, 4: out}
    if isinstance(table, Buffer):
        buffers[7] = table
    else:
        values[7] = table.data_ptr()
    sequence.append(
        compile_kernel(_gather),
        values,
        buffers,
        count=numbers.count,
        rows_at=2,
        parallel_from=2 * rows_per_item,
        keep=table,
    )


def _gather(args):
    """Kernel: items are groups of rows."""
    base = address_of(args)
    num_rows, row_bytes, rows_per_item = args[2], args[5], args[6]
    whole = row_bytes - row_bytes % (4 * LANES)
    while True:
        first = atomic_add(base, 1) * rows_per_item
        if first >= num_rows:
            return
        for row in range(first, min(first + rows_per_item, num_rows)):
            source = args[7] + load_i64(args[3] + 8 * row) * row_bytes
            target = args[4] + row * row_bytes
            for i in range(0, whole, 4 * LANES):
                copy_16(target + i, source + i)
            for i in range(whole, row_bytes, 2):
                store_u16(target + i, load_u16(source + i))
