"""Kernel calls in a row as one compiled call: a model's whole step without Python between its parts.

    sequence = KernelSequence(threads, num_counts=1)
    hidden, normed = sequence.buffer(row_bytes, count=0), sequence.buffer(row_bytes, count=0)
    norm.append_to(sequence, hidden, normed)          # each kernel's own class knows its arguments
    ...
    sequence.run([num_rows])

It is built once for all sizes of a step. What lies between two kernels is a `Buffer` of the sequence; where it begins
and how many rows it has is written into the argument blocks before a run, all at once and only when it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .simd import CACHE_LINE
from .thread_pool import CALL_SIZE, ThreadPool

KEPT_BYTES, KEPT_TIMES = 4 << 20, 4
"""Buffers stay for the next step, but for those that are larger than that and so many times larger than what it needs:
a step of prompts may need many. The logits of a decode step alone may take tens of megabytes, whose pages the system
would have to fetch at each step."""


@dataclass(frozen=True)
class Buffer:
    """Memory between kernels: contiguous [num_rows, row_bytes], where a run says how many rows `count` stands for."""

    number: int
    row_bytes: int
    count: int
    offset: int = 0
    """Bytes from the buffer's begin to what is meant."""

    def at(self, offset: int) -> Buffer:
        return replace(self, offset=offset)


@dataclass(frozen=True)
class _Call:
    kernel: Any
    first: int
    """Where its arguments begin in the block of all calls."""
    count: int
    parallel_from: int


class KernelSequence:
    """Kernel calls that are made one after another, each by all threads."""

    def __init__(self, threads: ThreadPool, num_counts: int) -> None:
        self._threads = threads
        self._buffers: list[Buffer] = []
        self._passing: dict[tuple[int, int], Buffer] = {}
        self._calls: list[_Call] = []
        self._arguments: list[int] = []
        self._patches: list[tuple[int, int, int]] = []
        """(place of an argument, number of the buffer whose address stands there, offset within)"""
        self._row_places: list[tuple[int, int]] = []
        """(place of an argument, count whose number of rows stands there)"""
        self._kept: list[object] = []
        self._counts = [-1] * num_counts
        self._built: _Blocks | None = None
        self._memory: torch.Tensor | None = None
        self._starts: list[int] = []
        self._views: dict[int, torch.Tensor] = {}
        self._arrays: dict[int, np.ndarray] = {}
        """What of the buffers was asked for since they were laid out."""

    def buffer(self, row_bytes: int, count: int) -> Buffer:
        buffer = Buffer(len(self._buffers), row_bytes, count)
        self._buffers.append(buffer)
        return buffer

    def passing_buffer(self, row_bytes: int, count: int) -> Buffer:
        """A buffer for what one call leaves to the very next one; the same for all who ask for this size."""
        key = row_bytes, count
        if key not in self._passing:
            self._passing[key] = self.buffer(row_bytes, count)
        return self._passing[key]

    def append(
        self,
        kernel: Any,
        arguments: np.ndarray,
        buffers: Mapping[int, Buffer],
        *,
        count: int,
        rows_at: int | None = None,
        parallel_from: int,
        keep: object = None,
    ) -> None:
        """Add a call of a compiled kernel.

        arguments: int64, copied; `buffers` says which of them are addresses of buffers, and `rows_at` which one is the
        number of rows. From `parallel_from` rows on all threads take part. `keep` holds what other addresses point to.
        """
        first = len(self._arguments)
        # Each block begins a cache line, since threads draw their items from its first words.
        self._arguments += arguments.tolist()
        self._arguments += [0] * (-len(self._arguments) % (CACHE_LINE // 8))
        self._patches += [(first + place, buffer.number, buffer.offset) for place, buffer in buffers.items()]
        if rows_at is not None:
            self._row_places.append((first + rows_at, count))
        self._calls.append(_Call(kernel, first, count, parallel_from))
        self._kept.append(keep)
        self._built = None

    def prepare(self, counts: Sequence[int]) -> None:
        """Make room for so many rows of each count; what is to be read may then be written into the buffers."""
        if self._memory is not None and self._built is not None and list(counts) == self._counts:
            return
        blocks = self._built = self._built or self._build()
        sizes = [-(-buffer.row_bytes * counts[buffer.count] // CACHE_LINE) * CACHE_LINE for buffer in self._buffers]
        self._starts = np.cumsum([0, *sizes[:-1]]).tolist()
        needed = sum(sizes) + CACHE_LINE
        self._views, self._arrays = {}, {}
        if self._memory is None or not needed <= self._memory.numel() <= max(KEPT_BYTES, KEPT_TIMES * needed):
            self._memory = None  # first, since both may be large
            self._memory = torch.empty(needed, dtype=torch.uint8)
        start = -(-self._memory.data_ptr() // CACHE_LINE) * CACHE_LINE
        self._starts = [start - self._memory.data_ptr() + offset for offset in self._starts]
        addresses = self._memory.data_ptr() + np.array(self._starts, np.int64)
        num_rows = np.array(counts, np.int64)
        blocks.arguments[blocks.patched] = addresses[blocks.patch_buffers] + blocks.patch_offsets
        blocks.arguments[blocks.row_places] = num_rows[blocks.row_counts]
        blocks.calls[:, 2] = num_rows[blocks.call_counts] >= blocks.parallel_from
        self._counts = list(counts)

    def run(self) -> None:
        """Make all calls, for the counts that were prepared."""
        assert self._built is not None, "`prepare` comes first"
        self._threads.run_calls(self._built.calls_address, len(self._calls))

    def view(self, buffer: Buffer, dtype: torch.dtype) -> torch.Tensor:
        """A buffer as [num_rows, row_size]; its content lasts until the next run."""
        view = self._views.get(buffer.number)
        if view is None:
            shape = self._counts[buffer.count], buffer.row_bytes // dtype.itemsize
            view = self._views[buffer.number] = self._memory_of(buffer).view(dtype).view(shape)
        return view

    def array(self, buffer: Buffer, dtype: type[np.generic]) -> np.ndarray:
        """A buffer as a flat array, to be written before a run."""
        array = self._arrays.get(buffer.number)
        if array is None:
            array = self._arrays[buffer.number] = self._memory_of(buffer).numpy().view(dtype)
        return array

    def _memory_of(self, buffer: Buffer) -> torch.Tensor:
        assert self._memory is not None, "`prepare` comes first"
        start = self._starts[buffer.number]
        return self._memory[start : start + self._counts[buffer.count] * buffer.row_bytes]

    def _build(self) -> _Blocks:
        padded = np.zeros(len(self._arguments) + CACHE_LINE // 8, np.int64)
        skipped = -padded.ctypes.data % CACHE_LINE // 8
        arguments = padded[skipped : skipped + len(self._arguments)]
        arguments[:] = self._arguments
        calls = np.zeros((len(self._calls), CALL_SIZE), np.int64)
        calls[:, 0] = [call.kernel.address for call in self._calls]
        calls[:, 1] = [arguments.ctypes.data + 8 * call.first for call in self._calls]
        patches, row_places = np.array(self._patches), np.array(self._row_places)
        return _Blocks(
            arguments=arguments,
            calls=calls,
            calls_address=calls.ctypes.data,
            patched=patches[:, 0],
            patch_buffers=patches[:, 1],
            patch_offsets=patches[:, 2],
            row_places=row_places[:, 0],
            row_counts=row_places[:, 1],
            call_counts=np.array([call.count for call in self._calls]),
            parallel_from=np.array([call.parallel_from for call in self._calls]),
        )


@dataclass(frozen=True)
class _Blocks:
    """The calls as the compiled code reads them, and where in them what depends on the sizes stands. All int64."""

    arguments: np.ndarray
    calls: np.ndarray
    calls_address: int
    patched: np.ndarray
    patch_buffers: np.ndarray
    patch_offsets: np.ndarray
    row_places: np.ndarray
    row_counts: np.ndarray
    call_counts: np.ndarray
    parallel_from: np.ndarray
