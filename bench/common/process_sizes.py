"""What each process of a server takes: memory, file descriptors, threads; and whether one grows without end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

ROLES = {
    "zqserve-engine": "engine",
    "zqserve-forks": "fork server",
    "grammar_worker": "grammar compiler",
    "template_worker": "template renderer",
}
LEAST_GROWTH_MIB = 6.0
LEAST_GROWTH_SHARE = 0.05
LEAST_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class ProcessSize:
    """One process at one moment."""

    role: str
    pid: int
    time: float
    """`time.monotonic()`."""
    rss_mib: float
    pss_mib: float
    """Shared pages count in parts."""
    num_fds: int
    num_threads: int


def process_sizes(launcher_pid: int) -> list[ProcessSize]:
    """Of a launcher and all below it; of processes that end meanwhile, nothing."""
    launcher = psutil.Process(launcher_pid)
    sizes: list[ProcessSize] = []
    for process in [launcher, *launcher.children(recursive=True)]:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            memory = process.memory_full_info()
            size = ProcessSize(
                role=_role(process, launcher_pid),
                pid=process.pid,
                time=time.monotonic(),
                rss_mib=memory.rss / 2**20,
                pss_mib=memory.pss / 2**20,
                num_fds=process.num_fds(),
                num_threads=process.num_threads(),
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        sizes.append(size)
    return sizes


def growth_mib(samples: Sequence[ProcessSize]) -> float | None:
    """By how much one process has grown from its first sample to its last, by the line that fits best (least squares).

    None where that is noise: less than `LEAST_GROWTH_MIB`, less than `LEAST_GROWTH_SHARE` of its mean, or too few
    samples to tell.
    """
    if len(samples) < LEAST_SAMPLES:
        return None
    times = [sample.time for sample in samples]
    sizes = [sample.pss_mib for sample in samples]
    mean_time, mean_size = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((time - mean_time) ** 2 for time in times)
    slope = sum((t - mean_time) * (s - mean_size) for t, s in zip(times, sizes, strict=True)) / spread
    growth = slope * (times[-1] - times[0])
    return growth if growth > max(LEAST_GROWTH_MIB, LEAST_GROWTH_SHARE * mean_size) else None


def _role(process: psutil.Process, launcher_pid: int) -> str:
    if process.pid == launcher_pid:
        return "launcher"
    if process.name() in ROLES:
        return ROLES[process.name()]
    command = " ".join(process.cmdline())
    return next((role for name, role in ROLES.items() if name in command and process.ppid() != launcher_pid), "worker")
