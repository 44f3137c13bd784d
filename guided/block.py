"""Rows that are built once and copied into the automaton of each grammar that needs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALL_RESULTS = 1 << 20
"""Results below are their own number in a cell; greater ones (wide bit sets) are numbered by each pushdown."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that are built once for all grammars: the inside of a string, a number, white space.

    Attributes:
        name: what it is known by; a pushdown holds at most one copy of a block.
        cells: int32[n, 256]; cells >= 0 are rows of the block, others DEAD or `pop_cell` codes.
        finals: int32[n]: the result of a row that is final, or -1.
    """

    name: str
    cells: NDArray[np.int32]
    finals: NDArray[np.int32]


def pop_cell(number: int) -> int:
    """The cell that ends the callee with the result of this number; see `Pushdown.pop`."""
    return -2 - 2 * number
