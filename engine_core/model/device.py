"""The one place that knows what differs between devices: which kernels run, and how much memory there is."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from ...kernels.paged_attention import PagedAttention
from ...kernels.reference import ReferenceAttention, ReferenceSampling
from ...kernels.sampling import SamplingKernel
from ...kernels.thread_pool import ThreadPool
from ...kernels.widening import WideningKernel
from ..config import EngineConfig
from ..host_runtime import tune_allocator

MIN_TEAM_TOKENS = 128
"""Tokens of a step from which torch's own operations use all threads."""


@dataclass(frozen=True)
class Device:
    """A torch device and the kernels that serve it."""

    torch_device: torch.device
    threads: ThreadPool
    attention: PagedAttention | ReferenceAttention
    gpu_memory_utilization: float
    widening: WideningKernel | None

    @property
    def is_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    def sampling_kernel(self, vocab_size: int) -> SamplingKernel | ReferenceSampling:
        """The kernel that chooses tokens from logits [num_rows, vocab_size]."""
        return SamplingKernel(vocab_size, self.threads) if self.is_cpu else ReferenceSampling()

    def to_float32(self, x: torch.Tensor) -> torch.Tensor:
        """x of any shape as float32, contiguous."""
        return x.float().contiguous() if self.widening is None else self.widening(x)

    def prepare(self, num_tokens: int) -> None:
        """Called before a step of so many tokens.

        torch's own operations (activations, sums) use several threads only where that pays: the members of an OpenMP
        team wait for each other at every operation, which a small step on a busy machine feels.
        """
        if self.is_cpu:
            torch.set_num_threads(self.threads.size if num_tokens >= MIN_TEAM_TOKENS else 1)

    def free_memory(self) -> int:
        """Bytes that may be used for the KV cache when nothing else says how many."""
        if self.is_cpu:
            return int(0.5 * _available_memory())
        free, total = torch.cuda.mem_get_info(self.torch_device)
        return max(0, int(free - (1 - self.gpu_memory_utilization) * total))


def open_device(config: EngineConfig) -> Device:
    """The device that the configuration names; "auto" takes a GPU where there is one."""
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    num_threads = config.num_threads or len(os.sched_getaffinity(0))
    if name == "cpu":
        tune_allocator()
    threads = ThreadPool(num_threads if name == "cpu" else 1)
    return Device(
        torch_device=torch.device(name),
        threads=threads,
        attention=PagedAttention(threads) if name == "cpu" else ReferenceAttention(),
        gpu_memory_utilization=config.gpu_memory_utilization,
        widening=WideningKernel(threads) if name == "cpu" else None,
    )


def _available_memory() -> int:
    """Bytes that this process may still take: what the system has, or the container's limit leaves."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo") as meminfo:
            for line in meminfo:
                if line.startswith("MemAvailable:"):
                    available = int(line.split()[1]) * 1024
        with open("/sys/fs/cgroup/memory.max") as maximum, open("/sys/fs/cgroup/memory.current") as current:
            limit = maximum.read().strip()
            if limit != "max":
                available = min(available, int(limit) - int(current.read()))
    except OSError:
        pass
    return available
