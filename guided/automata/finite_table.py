"""The whole automaton of a grammar as one table, if it is finite and small: what a GPU can walk by itself.

A state is a row and the stack above it. Regexes and choices have no stack; schemas without recursion have finitely many
stacks. A grammar that calls itself has no end of them, and one that remembers texts (keys that must not come twice) has
more to its states than that. A matcher needs none of this; it is for `kernels/token_mask`, which knows only tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GrammarError
from .automaton_run import Run
from .cells import COMPACT, COMPLETE, COUNTED, DEAD
from .configuration import Frame
from .pushdown import Pushdown
from .remembered_texts import RememberedTexts


@dataclass(frozen=True, slots=True)
class FiniteTable:
    """States are numbered from 0, where the text begins.

    Attributes:
        cells: int32[states, 256]: the next state, or DEAD.
        accepting: uint8[states]: whether the text may end there.
    """

    cells: NDArray[np.int32]
    accepting: NDArray[np.uint8]

    def walk(self, state: int, text: bytes) -> int:
        """Where a text leads from a state, or DEAD."""
        for byte in text:
            state = int(self.cells[state, byte])
            if state == DEAD:
                break
        return state


def finite_table(pushdown: Pushdown, max_states: int = 10_000) -> FiniteTable | None:
    """The table of a grammar; None if it has none, or more states than `max_states`."""
    return FiniteTableBuilder(pushdown, max_states).build()


class FiniteTableBuilder:
    """Finds the states of a grammar, those that come first in texts before others."""

    def __init__(self, pushdown: Pushdown, max_states: int) -> None:
        self.pushdown = pushdown
        self._max_states = max_states
        self._bottom = Frame(None, -1, 0, None)
        self._numbers: dict[tuple[int, Frame], int] = {}
        self._found: list[tuple[int, Frame]] = []
        self._cells: list[NDArray[np.int32]] = []
        self._accepting: list[bool] = []

    def build(self) -> FiniteTable | None:
        """The table; None if the grammar has none. Where the pushdown's budget does not last, `BudgetExceededError`
        says so, and another call goes on."""
        try:
            if not self._found:
                frame = self._bottom
                for ret in self.pushdown.start_returns:
                    frame = self.pushed(frame, ret)
                self._number(self.pushdown.start_row, frame)
            while len(self._cells) < len(self._found):
                line, accepting = self._state(*self._found[len(self._cells)])
                self._cells.append(line)
                self._accepting.append(accepting)
        except (_NotFiniteError, GrammarError):
            return None
        return FiniteTable(np.stack(self._cells), np.array(self._accepting, np.uint8))

    def pushed(self, parent: Frame, ret: int, texts: RememberedTexts | None = None) -> Frame:
        """The stack with one more return state."""
        frame = parent.above.get(ret)
        if frame is None:
            if texts is not None or self.pushdown.tables.return_kind.values[ret]:
                raise _NotFiniteError
            below: Frame | None = parent
            while below is not None:
                if below.ret == ret:  # a call within itself: nearly always, there is no end to that
                    raise _NotFiniteError
                below = below.parent
            frame = parent.above[ret] = Frame(parent, ret, 0, None)
        return frame

    def scope_of(self, remembering: Frame) -> Frame:
        """No stack here remembers texts."""
        raise _NotFiniteError

    def _number(self, row: int, frame: Frame) -> int:
        if row == COMPLETE:
            frame = self._bottom
        number = self._numbers.get((row, frame))
        if number is None:
            if len(self._found) == self._max_states:
                raise _NotFiniteError
            number = self._numbers[row, frame] = len(self._found)
            self._found.append((row, frame))
        return number

    def _state(self, row: int, frame: Frame) -> tuple[NDArray[np.int32], bool]:
        """The cells of a state, and whether the text may end there."""
        pushdown = self.pushdown
        line = np.full(256, DEAD, np.int32)
        if row == COMPLETE:
            return line, True
        possible: set[int] = set()
        accepting = False
        for reached in Run(self, row, frame, None, bytearray()).end_by_end():
            pushdown.budget.spend()
            if reached == COMPLETE:
                accepting = True
            else:
                possible.update(pushdown.live_bytes(reached))
        # Most bytes lead from row to row, and many to the same one.
        cells = self._cells_of(row)
        for cell in np.unique(cells).tolist():
            if cell >= 0:
                at = cells == cell
                if frame.parent is None or pushdown.is_allowed(frame.ret, cell):
                    line[at] = self._number(cell, frame)
                possible.difference_update(np.flatnonzero(at).tolist())
        for byte in possible:
            pushdown.budget.spend()
            run = Run(self, row, frame, None, bytearray())
            if run.step(byte):
                line[byte] = self._number(run.row, run.frame)
        return line, accepting

    def _cells_of(self, row: int) -> NDArray[np.int32]:
        """What each byte does in an expanded row."""
        tables = self.pushdown.tables
        line = int(tables.row_line.values[row])
        if line >= 0:
            return tables.lines[line]
        if line == COUNTED:
            inner, after = self._cells_of(self.pushdown.counts.of(row)[0]), self.pushdown.counts.after
            cells = np.empty(256, np.int32)
            for cell in np.unique(inner).tolist():
                cells[inner == cell] = DEAD if cell == DEAD else after(row, cell)
            return cells
        otherwise = int(tables.compact.values[COMPACT - line + 2])
        cells = np.full(256, DEAD, np.int32) if otherwise < 0 else tables.lines[otherwise].copy()
        for byte, cell in self.pushdown.arcs(row)[0]:
            cells[byte] = cell
        return cells


class _NotFiniteError(Exception):
    """The grammar has no table."""
