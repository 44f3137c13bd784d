"""What the compiled loops of guided decoding share: how they are compiled, and pointers to tables.

The tables grow and move, so that a loop is given their addresses (`Tables.addresses`) instead of arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled; the machine code is kept on disk for the next start, where that is possible."""
    try:
        return njit(cache=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return njit(error_model="numpy")(function)


def _as_pointer(item: types.Type, bits: int) -> Any:
    def pointer(_typing, address):
        def generate(_context, builder, _signature, arguments):
            return builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())

        return types.CPointer(item)(types.int64), generate

    return intrinsic(pointer)


i32 = _as_pointer(types.int32, 32)
i64 = _as_pointer(types.int64, 64)
u8 = _as_pointer(types.uint8, 8)

# Places in `Tables.addresses`.
LINES, ROW_LINE, ROW_FINAL, ROW_LOW, ROW_HIGH, ROW_NEED, COMPACT_ARCS = range(7)
PUSH_ROW, PUSH_FIRST, PUSH_COUNT, PUSH_RETURNS = range(7, 11)
RETURN_KIND, RETURN_ALLOWED, ALLOWED = range(11, 14)
RESUME_FIRST, RESUME_CASE, RESUME_CELL, RESUME_NEXT, COUNTED_ROWS = range(14, 19)
