"""Rows for a set of byte strings, made once, whatever part of it is allowed where (2,000 property names, an enum).

A return state made by `Pushdown.new_return(..., choices=..., allowed=...)` narrows the set for the call it belongs to:
a prefix that leads to none of the allowed strings is dead. The rows are compact (a few bytes each, not a line of 256
cells), so that this is also the right way to spell a literal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .cells import COMPACT, DEAD
from .choice_tree import ChoiceTree

if TYPE_CHECKING:
    from .pushdown import Pushdown

MAX_COMPACT_ARCS = 16
"""Arcs of a compact row; a row with more has a line."""

NODES_AT_ONCE = 100
"""Of a tree of choices, between two looks at the budget."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The rows of a set of byte strings.

    Attributes:
        row: where they begin.
        results: int64[n]: each string's result, in the order of the sorted strings.
        most: the greatest of them.
    """

    row: int
    results: NDArray[np.int64]
    most: int


def add_choices(pushdown: Pushdown, texts: Iterable[tuple[bytes, int]] | ChoiceTree) -> Choices:
    """Rows for byte strings, each of which ends the callee with its result (small numbers, such as an index).

    No string may be the beginning of another (property names and string enums end with the quote). Several may have
    the same result (spellings of one name). The rows are there at once: about 0.5 us a byte. Whoever has many hands
    over the tree, and once more when the budget stopped the work.
    """
    tree = texts if isinstance(texts, ChoiceTree) else ChoiceTree(texts)
    tree.grow(pushdown.budget)
    tables = pushdown.tables
    if tree.row < 0:
        tree.row = tables.add_rows(len(tree.arcs))
        rows = slice(tree.row, tree.row + len(tree.arcs))
        tables.row_low.values[rows], tables.row_high.values[rows] = tree.lows, tree.highs
    while tree.num_placed < len(tree.arcs):
        _place_nodes(pushdown, tree)
        pushdown.budget.spend(NODES_AT_ONCE)  # behind the work, so that each try brings it forward
    results = [result for _, result in tree.texts]
    return Choices(tree.row, np.array(results, np.int64), max(results, default=0))


def _place_nodes(pushdown: Pushdown, tree: ChoiceTree) -> None:
    """Sets the cells of the next rows of a tree."""
    tables, base, first = pushdown.tables, tree.row, tree.num_placed
    flat: list[int] = []
    places = []
    for arcs in tree.arcs[first : first + NODES_AT_ONCE]:
        cells = [base + target if target >= 0 else pushdown.pop(tree.texts[-1 - target][1]) for target in arcs[1::2]]
        if len(cells) > MAX_COMPACT_ARCS:
            line = tables.add_lines(1)
            tables.lines[line].fill(DEAD)
            tables.lines[line, arcs[::2]] = cells
            places.append(line)
        else:
            arcs[1::2] = cells
            places.append(COMPACT - tables.compact.size - len(flat))
            flat.append(len(cells))
            flat += arcs
    tables.compact.extend(flat)
    tables.row_line.values[base + first : base + first + len(places)] = places
    tree.num_placed += len(places)
