"""Ready-made rows of numbers without bounds, which most schemas ask for: any number, integers, or both side by side."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..automata.block import Block
from ..automata.cells import SMALL_RESULTS
from ..automata.pushdown import Pushdown
from .language import JointAutomaton, Language
from .number_spelling import integer, number
from .text_lowering import Utf8Rows, closed_block

NUMBER, INTEGER = 1, 2
"""Results of the blocks that are built: bit sets of what accepts."""


@lru_cache(maxsize=1024)
def number_block(languages: tuple[Language, ...]) -> Block | None:
    """The rows of `languages`, the first of them where a number begins; None if one of them is out of the ordinary.

    Each language must be `number()`, `integer()` or nothing.
    """
    if 1 << len(languages) > SMALL_RESULTS:
        return None
    bits = {NUMBER: 0, INTEGER: 0}
    for place, language in enumerate(languages):
        if language == number():
            bits[NUMBER] |= 1 << place
        elif language == integer():
            bits[INTEGER] |= 1 << place
        elif not language.is_nothing():
            return None
    if not any(bits.values()):
        return None
    block = _plain_block(bool(bits[NUMBER]), bool(bits[INTEGER]))
    results = [-1, *(bits[NUMBER] * (code & 1) | bits[INTEGER] * (code >> 1) for code in (1, 2, 3))]
    finals = np.array(results, np.int32)[np.maximum(block.finals, 0)]
    return Block(f"numbers, {bits[NUMBER]}, {bits[INTEGER]}", block.cells, finals)


def load_number_blocks() -> None:
    """Builds them, which takes tens of milliseconds."""
    for kinds in ((True, False), (False, True), (True, True)):
        _plain_block(*kinds)


@lru_cache(maxsize=4)
def _plain_block(any_number: bool, any_integer: bool) -> Block:
    """With NUMBER and INTEGER as results."""
    languages = (number() if any_number else Language.nothing(), integer() if any_integer else Language.nothing())
    pushdown = Pushdown()
    pushdown.start_row = Utf8Rows(pushdown, JointAutomaton(languages)).start
    assert pushdown.start_row == 0
    return _smallest(closed_block("numbers", pushdown))


def _smallest(block: Block) -> Block:
    """The same with rows that do the same as one (its cells must be rows or DEAD)."""
    kinds, firsts = _numbered(block.finals)
    while True:
        # DEAD is -1: the last of these.
        cells = np.append(kinds, -1).astype(np.int32)[block.cells]
        finer, finer_firsts = _numbered(np.column_stack((kinds, cells)))
        if len(finer_firsts) == len(firsts):
            return Block(block.name, cells[firsts], block.finals[firsts])
        kinds, firsts = finer, finer_firsts


def _numbered(lines: NDArray[np.int32]) -> tuple[NDArray[np.int32], list[int]]:
    """Equal lines by the same number, as they come; and where each comes first."""
    numbers: dict[bytes, int] = {}
    kinds = [numbers.setdefault(line.tobytes(), len(numbers)) for line in lines]
    firsts = [kinds.index(kind) for kind in range(len(numbers))]
    return np.array(kinds, np.int32), firsts
