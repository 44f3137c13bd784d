"""What the numbers in an automaton's tables mean: cells, rows and return states; see `pushdown`."""

from __future__ import annotations

DEAD = -1
"""A cell: this byte cannot come here. A cell >= 0 is the row that follows; below DEAD it is a call or an end."""

COMPLETE = -2
"""In place of a row: the text is complete."""

SMALL_RESULTS = 1 << 20
"""Results below are their own number in a cell; greater ones (wide bit sets) are numbered by each pushdown."""

UNEXPANDED, COMPACT, COUNTED = -1, -2, -(1 << 31)
"""In `row_line`: no content yet; COMPACT - n: the compact row that begins at n of `compact`; a counted row. Else the
line's number."""

BETWEEN, INSIDE = 0, 1
"""The lowest bit in `row_need`: whether a row stands between two characters, or inside one."""

SCOPE, REMEMBERS = 1, 2
"""Bits of `return_kind`."""


def pop_cell(number: int) -> int:
    """The cell that ends the callee with the result of this number; see `Pushdown.pop`."""
    return -2 - 2 * number


def push_cell(number: int) -> int:
    """The cell that makes the call of this number; see `Pushdown.push`."""
    return -3 - 2 * number
