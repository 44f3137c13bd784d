"""Rows that are built once and copied into the automaton of each grammar that needs them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are built once for all grammars: the inside of a string, a number, white space.

    Attributes:
        name: what it is known by; a pushdown holds at most one copy of a block.
        cells: int32[n, 256]; cells >= 0 are rows of the block, others DEAD or `pop_cell` codes.
        finals: int32[n]: the result of a row that is final, or -1.
        is_text: whether text loops in the first row, so that its characters can be counted.
        is_row: int32[n, 256]: 1 where the cell is a row.
        arcs: (byte, row of the block) for the bytes that lead on from the first row.
    """

    name: str
    cells: NDArray[np.int32]
    finals: NDArray[np.int32]
    is_text: bool = False
    is_row: NDArray[np.int32] = field(init=False)
    arcs: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_row", (self.cells >= 0).astype(np.int32))
        arcs = tuple((byte, cell) for byte, cell in enumerate(self.cells[0].tolist()) if cell >= 0)
        object.__setattr__(self, "arcs", arcs)
