"""Follows the bytes of a token from row to row, in a compiled loop, as far as they need no call, end or expansion."""

from __future__ import annotations

import numpy as np

from ..automata.cells import COMPACT, DEAD, INSIDE, UNEXPANDED
from .compiled_loops import (
    ALLOWED,
    COMPACT_ARCS,
    COUNTED_ROWS,
    LINES,
    ROW_HIGH,
    ROW_LINE,
    ROW_LOW,
    ROW_NEED,
    compiled,
    i32,
    u8,
)


@compiled
def take_steps(addresses, row, allowed_place, text, first, last):
    """Takes of the bytes `first` to `last` at address `text` those that lead from a row to a row.

    allowed_place: `return_allowed` of the return state on top of the stack, -1 if there is none.

    Returns where it stopped, and the place as `CountedRows.row` wants it: row, `least`, `most` and `furthest`.
    """
    lines, row_line, row_need = i32(addresses[LINES]), i32(addresses[ROW_LINE]), i32(addresses[ROW_NEED])
    row_low, row_high = i32(addresses[ROW_LOW]), i32(addresses[ROW_HIGH])
    compact, counted_rows, allowed = i32(addresses[COMPACT_ARCS]), i32(addresses[COUNTED_ROWS]), i32(addresses[ALLOWED])
    data = u8(text)
    row, place = np.int64(row), np.int64(first)
    least, most, furthest = np.int64(0), np.int64(-1), np.int64(0)
    while place < last:
        if row_high[row] < 0:
            entry = -4 * (1 + np.int64(row_high[row]))
            row, least = np.int64(counted_rows[entry]), np.int64(counted_rows[entry + 1])
            most, furthest = np.int64(counted_rows[entry + 2]), np.int64(counted_rows[entry + 3])
        line = np.int64(row_line[row])
        cell = np.int64(DEAD)
        if line >= 0:
            cell = np.int64(lines[(line << 8) + np.int64(data[place])])
        elif line != UNEXPANDED:
            entry = COMPACT - line
            end = entry + 3 + 2 * np.int64(compact[entry])
            otherwise = np.int64(compact[entry + 2])
            entry += 3
            while entry < end and compact[entry] != data[place]:
                entry += 2
            if entry < end:
                cell = np.int64(compact[entry + 1])
            elif otherwise >= 0:
                cell = np.int64(lines[(otherwise << 8) + np.int64(data[place])])
        if cell < 0:
            break
        is_narrowed = allowed_place >= 0 and row_high[cell] > 0
        if is_narrowed and allowed[allowed_place + row_high[cell]] <= allowed[allowed_place + row_low[cell]]:
            break
        if least > 0 or most >= 0:
            need = np.int64(row_need[cell])
            ends_character = not need & INSIDE
            if most >= 0 and most - ends_character < need >> 1:
                break
            if ends_character:
                least = max(least - 1, 0)
                most -= most > 0
        row = cell
        place += 1
    return place, row, least, most, furthest


@compiled
def find_loops(addresses, row, allowed_place, texts, lengths, loops):
    """Sets `loops` (uint8) to 1 for the tokens that lead from a row to itself, from row to row.

    texts, lengths: int64, the address and the number of bytes of each token. The rest as for `take_steps`.
    """
    for token in range(len(lengths)):
        length = lengths[token]
        place, reached, _, _, _ = take_steps(addresses, row, allowed_place, texts[token], 0, length)
        loops[token] = length > 0 and place == length and reached == row
