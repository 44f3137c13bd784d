"""bfloat16 to float32 on the kernels' threads: the logits of a step are millions of numbers."""

from __future__ import annotations

import torch

from .rms_norm import widen_row
from .simd import address_of
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

ELEMENTS_PER_ITEM = 16_384


class WideningKernel:
    """`x.float()` on the CPU."""

    def __init__(self, threads: ThreadPool) -> None:
        self._threads = threads
        self._kernel = compile_kernel(_widen)
        self._arguments = KernelArguments(4)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x of any shape and dtype to float32, contiguous."""
        if x.dtype != torch.bfloat16:
            return x.float().contiguous()
        x = x.contiguous()
        out = torch.empty(x.shape, dtype=torch.float32)
        v = self._arguments.values
        v[0] = 0
        v[1] = x.numel()
        v[2] = x.data_ptr()
        v[3] = out.data_ptr()
        self._threads.run(self._kernel, self._arguments, parallel=x.numel() >= 4 * ELEMENTS_PER_ITEM)
        return out


def _widen(args):
    """Kernel: items are runs of elements."""
    base = address_of(args)
    while True:
        first = atomic_add(base, 1) * ELEMENTS_PER_ITEM
        if first >= args[1]:
            return
        widen_row(args[3] + 4 * first, args[2] + 2 * first, min(ELEMENTS_PER_ITEM, args[1] - first))
