"""Large arrays in large pages of memory, where the system has them: a page of 2 MiB instead of 512 of 4 KiB.

A step reads all weights, and whenever it comes to another page the processor has to find out where that lies.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np
import torch

PAGE_BYTES = 2 * 2**20


def copied(values: torch.Tensor) -> torch.Tensor:
    """Values on the CPU as a contiguous array: a new one in large pages, as far as it fills them."""
    size = values.numel() * values.element_size()
    if size < PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return values.contiguous()
    memory = mmap.mmap(-1, size + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = np.frombuffer(memory, np.uint8)
    begin = -whole.ctypes.data % PAGE_BYTES
    with suppress(OSError):  # a kernel without them: small ones do as well
        memory.madvise(mmap.MADV_HUGEPAGE, begin, size - size % PAGE_BYTES)
    array = torch.from_numpy(whole[begin : begin + size]).view(values.dtype).view(values.shape)
    return array.copy_(values)
