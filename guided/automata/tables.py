"""The tables of an automaton: flat, so that compiled loops read them, growing, and cheap to pickle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GrammarError
from .cells import INSIDE, UNEXPANDED
from .column import Column, address_of, pack_lines, unpack_lines

MAX_LINES = 200_000
"""Rows of 256 cells (1 KiB each) that one grammar may visit before it is refused as too complex."""
MAX_ROWS = 4_000_000

UNKNOWN_NEED = 1 << 1 | INSIDE
"""Of a row that nobody spoke of: it is inside a character, and that may be the last."""

NAMES = (
    "lines",
    *("row_line", "row_final", "row_low", "row_high", "row_need", "compact"),
    *("push_row", "push_first", "push_count", "push_returns"),
    *("return_kind", "return_allowed", "allowed"),
    *("resume_first", "resume_case", "resume_cell", "resume_next", "counted_rows"),
)
"""In the order of `Tables.addresses`; `compiled_loops` has the places."""

DEFAULTS = {"row_line": UNEXPANDED, "row_final": -1, "row_need": UNKNOWN_NEED}
"""What a new row has in these columns; 0 in the others."""

FIRST_ROOM = 128
"""Values that a column can hold before it grows."""


class Tables:
    """What the rows and return states of one automaton are.

    Attributes:
        addresses: int64[len(NAMES)]: where the tables lie.
        max_lines: rows of 256 cells that there may be before the grammar is refused.
        lines: int32[capacity, 256], the cells of the dense rows; `num_lines` of them are in use.
        row_line, row_final: each row's place (UNEXPANDED, a line, COMPACT - n) and result (-1: not final).
        row_low, row_high: the range of strings that lie behind a row of `choice_rows`; (0, 0) for other rows, but
            row_high is -1 - n for a counted row.
        row_need: where characters are counted, twice the number that must still come behind a row (that which the row
            is inside of included), plus INSIDE or BETWEEN.
        counted_rows: of the counted row n, at 4 * n: the row that it is like, how many characters must still come at
            least, how many may come (-1: any number), and the most that any row behind it needs.
        compact: compact rows: the number of arcs; the dense row that says what all other bytes do, and its line (-1:
            these are dead); then byte and cell of each arc.
        push_row, push_first, push_count, push_returns: what each push cell does.
        return_kind, return_allowed: bits SCOPE and REMEMBERS; the place in `allowed` of the running count of allowed
            strings, or -1.
        resume_first, resume_case, resume_cell, resume_next: per return state a list of what was resumed: case
            (2 * result number, +1 if repeated) and the cell.
    """

    def __init__(self) -> None:
        self.max_lines = MAX_LINES
        self._set(np.empty((64, 256), np.int32), 0, None)
        self._lines_by_hash: dict[int, int] = {}

    def _set(self, lines: NDArray[np.int32], num_lines: int, values: dict[str, NDArray[np.int32]] | None) -> None:
        # All columns begin in one array: to make one for each would take longer than to compile a small schema.
        room = np.zeros((len(NAMES), FIRST_ROOM), np.int32)
        for name, default in DEFAULTS.items():
            room[NAMES.index(name)] = default
        self.addresses = address_of(room) + np.arange(len(NAMES)) * room.strides[0]
        self.lines, self.num_lines = lines, num_lines
        self.addresses[0] = address_of(lines)
        columns = [
            Column(self.addresses, place, first_room, 0, DEFAULTS.get(name, 0))
            for (place, name), first_room in zip(enumerate(NAMES), room, strict=True)
        ][1:]
        if values is not None:
            for column, name in zip(columns, NAMES[1:], strict=True):
                column.extend(values[name])
        # A new row is what the defaults say. The columns of rows grow together; `row_line.size` is the size of each.
        self.row_line, self.row_final, self.row_low, self.row_high, self.row_need = columns[:5]
        self._room = len(self.row_line.values)
        self.compact = columns[5]
        self.push_row, self.push_first, self.push_count, self.push_returns = columns[6:10]
        self.return_kind, self.return_allowed, self.allowed = columns[10:13]
        self.resume_first, self.resume_case, self.resume_cell, self.resume_next = columns[13:17]
        self.counted_rows = columns[17]

    def add_rows(self, count: int) -> int:
        """Returns the first of `count` new rows."""
        row = self.row_line.size
        if row + count > self._room:
            if row + count > MAX_ROWS:
                raise GrammarError("too_complex", f"the grammar has more than {MAX_ROWS} states")
            for column in (self.row_final, self.row_low, self.row_high, self.row_need):
                column.size = row
                column.reserve(row + count)
            self.row_line.reserve(row + count)
            self._room = len(self.row_line.values)
        self.row_line.size = row + count
        return row

    def add_lines(self, count: int) -> int:
        """Returns the first of `count` new lines, which hold anything."""
        line = self.num_lines
        if line + count > self.max_lines:
            raise GrammarError("too_complex", f"the grammar visits more than {self.max_lines} states")
        if line + count > len(self.lines):
            grown = np.empty((max(2 * len(self.lines), line + count), 256), np.int32)
            grown[:line] = self.lines[:line]
            self.lines = grown
            self.addresses[0] = address_of(grown)
        self.num_lines = line + count
        return line

    def intern_line(self, line: int) -> int:
        """Takes back the last line if there is an equal one before it; returns that one, or the line."""
        found = self.known_line(line)
        if found != line and self.lines[found].tobytes() == self.lines[line].tobytes():
            self.num_lines = line
            return found
        return line

    def known_line(self, line: int) -> int:
        """The first line with the same hash, to be found again: a line that is probably equal."""
        return self._lines_by_hash.setdefault(hash(self.lines[line].tobytes()), line)

    def __getstate__(self) -> dict[str, Any]:
        for column in (self.row_final, self.row_low, self.row_high, self.row_need):
            column.size = self.row_line.size
        columns = {name: getattr(self, name) for name in NAMES[1:]}
        values = {name: column.values[: column.size].copy() for name, column in columns.items()}
        return {"max_lines": self.max_lines, "lines": pack_lines(self.lines[: self.num_lines]), "values": values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.max_lines = state["max_lines"]
        lines = unpack_lines(*state["lines"])
        self._set(lines, len(lines), state["values"])
        # Hashes of bytes differ between processes.
        self._lines_by_hash = {hash(line.tobytes()): number for number, line in enumerate(lines)}
