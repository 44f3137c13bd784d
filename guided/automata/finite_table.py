"""The whole automaton of a grammar as one table, if it is finite and small: what a GPU can walk by itself.

Regexes and choices are such grammars, as long as they call nothing (no stack). A matcher needs none of this; it is for
`kernels/token_mask`, which knows only tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cells import COMPLETE, DEAD
from .pushdown import Pushdown


@dataclass(frozen=True, slots=True)
class FiniteTable:
    """States are numbered from 0, where the text begins.

    Attributes:
        cells: int32[states, 256]: the next state, or DEAD.
        accepting: uint8[states]: whether the text may end there.
    """

    cells: NDArray[np.int32]
    accepting: NDArray[np.uint8]


def finite_table(pushdown: Pushdown, max_states: int = 10_000) -> FiniteTable | None:
    """The table of a grammar; None if it calls anything, or has more states than `max_states`."""
    if pushdown.start_returns:
        return None
    numbers = {pushdown.start_row: 0}
    cells: list[NDArray[np.int32]] = []
    accepting: list[bool] = []
    waiting = [pushdown.start_row]
    for row in waiting:
        if len(waiting) > max_states:
            return None
        line = np.full(256, DEAD, np.int32)
        if row != COMPLETE:
            for byte in pushdown.live_bytes(row):
                pushdown.budget.spend()
                cell = pushdown.cell(row, byte)
                if cell < DEAD:
                    if cell & 1:
                        return None
                    cell = COMPLETE
                if cell not in numbers:
                    numbers[cell] = len(waiting)
                    waiting.append(cell)
                line[byte] = numbers[cell]
        cells.append(line)
        accepting.append(row == COMPLETE or pushdown.final(row) >= 0)
    return FiniteTable(np.stack(cells), np.array(accepting, np.uint8))
