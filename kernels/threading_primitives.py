"""What threads need of the processor and the system, as functions that compiled kernels can call.

All addresses are int64 and count bytes. Atomic operations are sequentially consistent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from .simd import instruction

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_AFFINITY_BYTES = 128
"""Of a set of cores, as glibc has it: 1,024 cores."""


@instruction
def atomic_add(_typing, address, value):
    """Add to the int64 at `address` and return what it held before; threads draw their items with it."""

    def generate(_context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@instruction
def atomic_load(_typing, address):
    def generate(_context, builder, _signature, arguments):
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8, typ=_I64)

    return types.int64(types.int64), generate


@instruction
def call_kernel(_typing, function, arguments):
    """Call the kernel at the address `function` with the argument block at the address `arguments`."""

    def generate(context, builder, _signature, arguments):
        kernel_type = ir.FunctionType(ir.VoidType(), [_I64.as_pointer()])
        kernel = builder.inttoptr(arguments[0], kernel_type.as_pointer())
        builder.call(kernel, [builder.inttoptr(arguments[1], _I64.as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@instruction
def pause(_typing):
    """Tell the processor that this is a waiting loop, where it has a word for that."""

    def generate(context, builder, _signature, _arguments):
        if builder.module.triple.startswith("x86_64"):
            _call(builder, ir.VoidType(), [], "llvm.x86.sse2.pause")
        return context.get_dummy_value()

    return types.void(), generate


@instruction
def yield_core(_typing):
    """Let another thread that waits for this core run."""

    def generate(context, builder, _signature, _arguments):
        _call(builder, _I32, [], "sched_yield")
        return context.get_dummy_value()

    return types.void(), generate


@instruction
def current_core(_typing):
    """The number of the core that this thread runs on."""

    def generate(_context, builder, _signature, _arguments):
        return builder.sext(_call(builder, _I32, [], "sched_getcpu"), _I64)

    return types.int64(), generate


@instruction
def leave_core(_typing, core):
    """Go on on another core than that one, if this thread may use any other; afterwards the scheduler is free again."""

    def generate(context, builder, _signature, arguments):
        with _kept_off(builder, arguments[0]):
            pass
        return context.get_dummy_value()

    return types.void(types.int64), generate


@instruction
def read_event(_typing, descriptor, core):
    """Sleep until the eventfd has been written to, take one from it, and wake up on another core than that one, if
    there is any. (Who is woken tends to be put where the waker runs, and waits there until that one's time is over.)
    """

    def generate(context, builder, _signature, arguments):
        buffer = cgutils.alloca_once(builder, _I64)
        descriptor, core = builder.trunc(arguments[0], _I32), arguments[1]
        with _kept_off(builder, core):
            _call(builder, _I64, [descriptor, buffer, ir.Constant(_I64, 8)], "read")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@contextmanager
def _kept_off(builder: Any, core: Any) -> Iterator[None]:
    """While what is built within runs, this thread may not use a core; where it has no other, nothing changes."""
    words = ir.ArrayType(_I64, _AFFINITY_BYTES // 8)
    mask = cgutils.alloca_once(builder, words)
    builder.store(ir.Constant(words, None), mask)  # stays empty where the next call fails, and then changes nothing
    self_and_mask = [ir.Constant(_I32, 0), ir.Constant(_I64, _AFFINITY_BYTES), mask]
    _call(builder, _I32, self_and_mask, "sched_getaffinity")
    number = builder.and_(builder.lshr(core, ir.Constant(_I64, 6)), ir.Constant(_I64, _AFFINITY_BYTES // 8 - 1))
    word = builder.gep(mask, [ir.Constant(_I64, 0), number])
    allowed = builder.load(word)
    bit = builder.shl(ir.Constant(_I64, 1), builder.and_(core, ir.Constant(_I64, 63)))
    builder.store(builder.and_(allowed, builder.not_(bit)), word)
    _call(builder, _I32, self_and_mask, "sched_setaffinity")
    yield
    builder.store(allowed, word)
    _call(builder, _I32, self_and_mask, "sched_setaffinity")


def _call(builder: Any, result: ir.Type, arguments: list[Any], name: str) -> Any:
    """Call the C function or LLVM intrinsic `name`."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)
