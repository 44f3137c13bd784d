"""Counts what Python and torch do: figures that are the same on a fast machine, a slow one and a busy one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

BENCH_FOLDER = str(Path(__file__).parent.parent)


def instructions(function: Callable[[], object]) -> int:
    """Bytecode instructions that this thread executes within `function`; not what C does."""
    with counted_instructions() as counter:
        function()
    return counter.number


@dataclass
class InstructionCounter:
    """Bytecode instructions so far."""

    number: int = 0


@contextmanager
def counted_instructions() -> Iterator[InstructionCounter]:
    """Within the context, count the instructions of whatever begins or goes on in this thread, but for the benches'."""
    counter = InstructionCounter()

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(BENCH_FOLDER):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            counter.number += 1
        return count

    before = sys.gettrace()
    with _quiet_collector():
        sys.settrace(count)
        try:
            yield counter
        finally:
            sys.settrace(before)


def calls(function: Callable[[], object]) -> int:
    """Calls of Python and C functions that this thread makes within `function`."""
    number = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    with _quiet_collector():
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            function()
        finally:
            sys.setprofile(before)
    return number


def torch_operations(function: Callable[[], object]) -> int:
    """Operations that torch dispatches within `function`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.number += 1
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Counter() as counter:
        function()
    return counter.number


def blocks_kept(function: Callable[[], object]) -> int:
    """Blocks of Python's memory that are there behind `function` and were not before it."""
    gc.collect()
    with _quiet_collector():
        before = sys.getallocatedblocks()
        function()
        return sys.getallocatedblocks() - before


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """A collection would run finalizers at a place that depends on what came before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
