"""Rows that count characters: any automaton, with a least and a greatest number of characters, and no states for that.

A counted row is a row of the automaton and what is left of the count: how many characters must still come at least
before the callee may end, and how many may come. `Tables.row_need` says of the rows of the automaton which of them
stand between two characters, where the count goes on, and how many characters each of them still needs: one that needs
more than there may be is dead. That is why no count leads to a dead end, whatever is between.

The compiled loops (`mask_walk`, `token_steps`) do the same as `CountedRows.after`.
"""

from __future__ import annotations

from .cells import COUNTED, DEAD, INSIDE
from .tables import Tables


class CountedRows:
    """The counted rows of one automaton, made when they are met."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows: dict[tuple[int, int, int, int], int] = {}

    def row(self, inner: int, least: int, most: int, furthest: int) -> int:
        """The row that is like `inner` while characters are counted.

        Args:
            least, most: characters that must and may still come (-1: any number).
            furthest: no row that can be reached from here needs more characters.
        """
        if least <= 0 and most < 0:
            return inner
        key = (inner, least, most, furthest)
        row = self._rows.get(key)
        if row is None:
            tables = self._tables
            row = self._rows[key] = tables.add_rows(1)
            tables.row_line.values[row] = COUNTED
            tables.row_high.values[row] = -1 - tables.counted_rows.extend(key) // 4
        return row

    def of(self, row: int) -> tuple[int, int, int, int]:
        """What `row` was given for a counted row."""
        place = -4 * (1 + int(self._tables.row_high.values[row]))
        inner, least, most, furthest = self._tables.counted_rows.values[place : place + 4].tolist()
        return inner, least, most, furthest

    def narrowed(self, row: int, longest: int) -> int:
        """The counted row that stands for all those which no text of up to `longest` characters tells from this one."""
        if self._tables.row_line.values[row] != COUNTED:
            return row
        inner, least, most, furthest = self.of(row)
        return self.row(inner, min(least, longest + 1), most if most < longest + furthest else -1, furthest)

    def after(self, row: int, cell: int) -> int:
        """The cell of a counted row, where its inner row has `cell`."""
        _, least, most, furthest = self.of(row)
        if cell < 0:
            return DEAD if least > 0 else cell
        need = int(self._tables.row_need.values[cell])
        if not need & INSIDE:
            if most == 0:
                return DEAD
            least, most = max(least - 1, 0), most - (most > 0)
        return DEAD if 0 <= most < need >> 1 else self.row(cell, least, most, furthest)
