"""The one place that knows what differs between devices: which kernels run, and how much memory there is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from ...kernels.paged_attention import PagedAttention
from ...kernels.sampling import SamplingKernel
from ...kernels.thread_pool import ThreadPool
from ...kernels.widening import WideningKernel
from ..config import EngineConfig
from ..host_runtime import tune_allocator

if TYPE_CHECKING:  # the GPU's kernels are imported where there is a GPU
    from ...kernels.attention_batch import AttentionBatch
    from ...kernels.triton.paged_attention import DeviceBatch
    from ...kernels.triton.paged_attention import PagedAttention as GpuPagedAttention
    from ...kernels.triton.sampling_kernel import SamplingKernel as GpuSamplingKernel

Attention: TypeAlias = "PagedAttention | GpuPagedAttention"
Batch: TypeAlias = "AttentionBatch | DeviceBatch"
"""A step, as paged attention sees it: of either device, or on the GPU already."""

CPU_BATCHED_TOKENS = 256
"""Token budget of a step: enough to keep the matrix units busy. More makes all that run, and the first tokens of those
that come together, wait longer for a few percent of throughput.
"""
GPU_BATCHED_TOKENS = 4096
"""The same for a GPU, which needs more of them to be busy."""
MIN_TEAM_TOKENS = 128
"""Tokens of a step from which torch's own operations use all threads."""


@dataclass(frozen=True)
class Device:
    """A torch device and the kernels that serve it."""

    torch_device: torch.device
    threads: ThreadPool
    is_cpu: bool
    """Whether the CPU's compiled kernels serve it. Not so where Triton's interpreter stands in for a GPU, on tensors
    of the CPU.
    """
    attention: Attention
    gpu_memory_utilization: float
    widening: WideningKernel | None

    @property
    def default_batched_tokens(self) -> int:
        """Token budget of a step where the configuration has none."""
        return CPU_BATCHED_TOKENS if self.is_cpu else GPU_BATCHED_TOKENS

    def sampling_kernel(self, vocab_size: int) -> SamplingKernel | GpuSamplingKernel:
        """The kernel that chooses tokens from logits [num_rows, vocab_size]."""
        if self.is_cpu:
            return SamplingKernel(vocab_size, self.threads)
        from ...kernels.triton.sampling_kernel import SamplingKernel as GpuSamplingKernel

        return GpuSamplingKernel()

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


def open_device(config: EngineConfig, max_model_len: int) -> Device:
    """The device that the configuration names; "auto" takes a GPU where there is one."""
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        return _open_gpu(config, max_model_len)
    tune_allocator()
    threads = ThreadPool(config.num_threads or len(os.sched_getaffinity(0)))
    return Device(
        torch_device=torch.device("cpu"),
        threads=threads,
        is_cpu=True,
        attention=PagedAttention(threads),
        gpu_memory_utilization=config.gpu_memory_utilization,
        widening=WideningKernel(threads),
    )


def _open_gpu(config: EngineConfig, max_model_len: int) -> Device:
    from ...kernels.triton.decode_attention import split_size
    from ...kernels.triton.launch import INTERPRETED
    from ...kernels.triton.paged_attention import PagedAttention as GpuPagedAttention

    major, minor = (8, 0) if INTERPRETED else torch.cuda.get_device_capability()
    return Device(
        torch_device=torch.device("cpu" if INTERPRETED else "cuda"),
        threads=ThreadPool(1),
        is_cpu=False,
        attention=GpuPagedAttention(10 * major + minor, split_size(max_model_len)),
        gpu_memory_utilization=config.gpu_memory_utilization,
        widening=None,
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
