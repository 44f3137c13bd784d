"""Finds rows in which text loops, and rows that are like one of them but for a few bytes (compiled)."""

from __future__ import annotations

import numpy as np

from ..automata.cells import COMPACT, COUNTED, DEAD, UNEXPANDED
from .compiled_loops import COMPACT_ARCS, LINES, ROW_FINAL, ROW_HIGH, ROW_LINE, compiled, i32
from .utf8_reader import utf8_step

MAX_EXCEPTIONS = 64
"""Bytes in which a row may differ from its model."""
NO_MODEL, UNKNOWN_MODEL = -1, -2
MODEL_SIZE = 257
"""A model: for each byte whether the row differs from the row that it is modelled on; the slice of that row."""
NEEDS_EXPANSION = -3
"""NEEDS_EXPANSION - n, from the functions below: row n must be expanded first."""


@compiled
def _same(row_line, row_final, row_high, one, other):
    """Whether two cells are known to do the same."""
    if one == other:
        return True
    if one < 0 or other < 0 or row_line[one] < 0:
        return False
    return (
        row_line[one] == row_line[other] and row_final[one] == row_final[other] and not row_high[one] | row_high[other]
    )


@compiled
def _alike(addresses, one, other):
    """Whether two rows do the same, as far as three bytes show (as many as a character may still have): 1, 0, or
    NEEDS_EXPANSION - n."""
    lines, row_line = i32(addresses[LINES]), i32(addresses[ROW_LINE])
    row_final, row_high = i32(addresses[ROW_FINAL]), i32(addresses[ROW_HIGH])
    # Pairs of rows that are to be the same, breadth first, and how many bytes they are behind.
    pairs = np.zeros((32, 3), np.int64)
    pairs[0, 0], pairs[0, 1] = one, other
    known, index = 1, 0
    while index < known:
        first, second, depth = pairs[index]
        index += 1
        for row in (first, second):
            if row_line[row] == UNEXPANDED:
                return NEEDS_EXPANSION - row
        if row_line[first] < 0 or row_line[second] < 0 or row_final[first] != row_final[second]:
            return 0
        if row_high[first] | row_high[second]:
            return 0
        begin, begin_other = np.int64(row_line[first]) << 8, np.int64(row_line[second]) << 8
        for byte in range(256):
            cell, cell_other = np.int64(lines[begin + byte]), np.int64(lines[begin_other + byte])
            if _same(row_line, row_final, row_high, cell, cell_other):
                continue
            if cell < 0 or cell_other < 0 or depth == 2:
                return 0
            place = 0
            while place < known and (pairs[place, 0] != cell or pairs[place, 1] != cell_other):
                place += 1
            if place == known:
                if known == len(pairs):
                    return 0
                pairs[known, 0], pairs[known, 1], pairs[known, 2] = cell, cell_other, depth + 1
                known += 1
    return 1


@compiled
def find_model(addresses, row, differs):
    """The row to which most of the bytes of a row lead, if the row itself is like it but for a few bytes.

    Sets `differs` (uint8[256 or more]) for these. Returns NO_MODEL if there is none, or NEEDS_EXPANSION - n.
    """
    lines, row_line = i32(addresses[LINES]), i32(addresses[ROW_LINE])
    row_final, row_high = i32(addresses[ROW_FINAL]), i32(addresses[ROW_HIGH])
    line = np.int64(row_line[row])
    if line <= COMPACT and line != COUNTED:
        return _default_model(addresses, row, COMPACT - line, differs)
    if line < 0 or row_high[row]:
        return NO_MODEL
    line <<= 8
    # The majority of the cells of printable ASCII, if there is one, is what is left when unequal ones are paired off.
    model, votes = np.int64(NO_MODEL), 0
    for byte in range(32, 127):
        cell = np.int64(lines[line + byte])
        if votes == 0:
            model = cell
        votes += 1 if cell == model else -1
    if model < 0:
        return NO_MODEL
    if row_line[model] == UNEXPANDED:
        return NEEDS_EXPANSION - model
    if row_line[model] < 0 or row_high[model]:
        return NO_MODEL
    other = np.int64(row_line[model]) << 8
    ends_alike = row_final[row] == row_final[model]
    exceptions = 0
    for byte in range(128):
        cell = lines[line + byte]
        differs[byte] = not _same(row_line, row_final, row_high, cell, lines[other + byte]) or (
            cell == DEAD and not ends_alike
        )
        exceptions += differs[byte]
    if exceptions > MAX_EXCEPTIONS:
        return NO_MODEL
    verdict = 1
    for byte in range(128, 256):
        cell, cell_other = np.int64(lines[line + byte]), np.int64(lines[other + byte])
        if byte == 128 or cell != lines[line + byte - 1] or cell_other != lines[other + byte - 1]:
            verdict = 1
            if not _same(row_line, row_final, row_high, cell, cell_other):
                verdict = 0
                if cell >= 0 and cell_other >= 0:
                    verdict = _alike(addresses, cell, cell_other)
                    if verdict < 0:
                        return verdict
        differs[byte] = not verdict or (cell == DEAD and not ends_alike)
        exceptions += differs[byte]
    return model if exceptions <= MAX_EXCEPTIONS else np.int64(NO_MODEL)


@compiled
def _default_model(addresses, row, place, differs):
    """The model of the compact row at `place`: the row that says what its other bytes do."""
    lines, row_line = i32(addresses[LINES]), i32(addresses[ROW_LINE])
    row_final, row_high = i32(addresses[ROW_FINAL]), i32(addresses[ROW_HIGH])
    compact = i32(addresses[COMPACT_ARCS])
    model = np.int64(compact[place + 1])
    if model < 0 or compact[place] > MAX_EXCEPTIONS:
        return np.int64(NO_MODEL)
    if row_high[row] or row_high[model] or row_final[row] != row_final[model]:
        return np.int64(NO_MODEL)
    other = np.int64(compact[place + 2]) << 8
    differs[:256] = 0
    for arc in range(place + 3, place + 3 + 2 * np.int64(compact[place]), 2):
        byte = np.int64(compact[arc])
        differs[byte] = not _same(row_line, row_final, row_high, np.int64(compact[arc + 1]), lines[other + byte])
    return model


NOT_A_LOOP, LOOPS, LOOPS_BEYOND_ASCII = range(3)


@compiled
def find_loop(addresses, row, accepted):
    """Whether a row is one that text loops in: sets `accepted` (uint8[128]) for the ASCII bytes that lead back to it.

    Returns NOT_A_LOOP when there are few; LOOPS_BEYOND_ASCII when every other UTF-8 character leads back as well, else
    LOOPS; or NEEDS_EXPANSION - n.
    """
    lines, row_line = i32(addresses[LINES]), i32(addresses[ROW_LINE])
    row_final, row_high = i32(addresses[ROW_FINAL]), i32(addresses[ROW_HIGH])
    line = np.int64(row_line[row])
    if line < 0:
        return NOT_A_LOOP
    found = 0
    for byte in range(128):
        accepted[byte] = _same(row_line, row_final, row_high, np.int64(lines[(line << 8) + byte]), row)
        found += accepted[byte]
    if found < 20:
        return NOT_A_LOOP
    # The rows met inside characters: each in the state of a UTF-8 reader that it stands for.
    rows = np.zeros(64, np.int64)
    states = np.zeros(64, np.int64)
    rows[0] = row
    known = 1
    index = 0
    while index < known:
        line = np.int64(row_line[rows[index]])
        if line == UNEXPANDED:
            return NEEDS_EXPANSION - rows[index]
        if line < 0:
            return LOOPS
        for byte in range(128, 256):
            state = utf8_step(states[index], byte)
            if state < 0:
                continue
            target = np.int64(lines[(line << 8) + byte])
            if state == 0:
                if not _same(row_line, row_final, row_high, target, row):
                    return LOOPS
                continue
            if target < 0:
                return LOOPS
            place = 0
            while place < known and (rows[place] != target or states[place] != state):
                place += 1
            if place == known:
                if known == 64:
                    return LOOPS
                rows[known], states[known] = target, state
                known += 1
        index += 1
    return LOOPS_BEYOND_ASCII
