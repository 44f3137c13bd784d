"""The rows of keys where any name may come and the declared ones are plain: all names are the same but for a few bytes.

Each row of a tree of the declared names is like the row in which any text loops, but for the next characters of names
and, where one is complete, the quote. A character of a name may be spelled `\\u0061` as well: the rows for that are
made where an answer gets there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..automata.cells import COMPACT
from ..automata.choice_rows import AnyOther, add_choices_among
from ..automata.pushdown import Pushdown
from ..languages.byte_shapes import BACKSLASH, LETTER_U
from ..languages.text_lowering import QUOTE, any_string_block

DIGIT_0 = 0x30


class PlainKeyRows:
    """The rows behind the quote of a key, for an object in which all names may come.

    Attributes:
        start: the first of them.
    """

    def __init__(self, pushdown: Pushdown, names: Iterable[tuple[str, int]], otherwise: int) -> None:
        """
        Args:
            names: names that are spelled as themselves, and results.
            otherwise: the result of all other names.
        """
        self._any_name = self.start = pushdown.add_block(any_string_block(otherwise))
        texts = [(name.encode() + b'"', result) for name, result in names]
        if texts:
            line = int(pushdown.tables.row_line.values[self._any_name])
            self.start = add_choices_among(pushdown, texts, AnyOther(self._any_name, line, BACKSLASH, self))

    def expand_row(self, pushdown: Pushdown, row: int, key: int | tuple[int]) -> None:
        """Called by the pushdown automaton. Rows: behind a backslash in row `row - key`; or, where the key is that row
        in a tuple, behind a backslash, `u` and 0. Each is like the one that the same bytes lead to in any name."""
        like = pushdown.cell(self._any_name, BACKSLASH)
        if isinstance(key, int):
            digits = pushdown.new_row(self, (row - key,))
            behind_u = pushdown.tables.add_rows(1)
            self._set(pushdown, row, like, (LETTER_U, behind_u))
            self._set(pushdown, behind_u, pushdown.cell(like, LETTER_U), (DIGIT_0, digits))
            return
        for byte in (LETTER_U, DIGIT_0):
            like = pushdown.cell(like, byte)
        by_digit: dict[int, list[int]] = {}
        for byte, cell in self._children(pushdown, key[0]):
            for digit in {f"{byte & 15:x}", f"{byte & 15:X}"}:
                by_digit.setdefault(DIGIT_0 + (byte >> 4), []).extend((ord(digit), cell))
        first = pushdown.tables.add_rows(1 + len(by_digit))
        self._set(pushdown, row, like, (DIGIT_0, first))
        like = pushdown.cell(like, DIGIT_0)
        arcs: list[int] = []
        for last, (digit, last_arcs) in enumerate(by_digit.items(), first + 1):
            self._set(pushdown, last, pushdown.cell(like, digit), last_arcs)
            arcs += (digit, last)
        self._set(pushdown, first, like, arcs)

    def _children(self, pushdown: Pushdown, row: int) -> list[tuple[int, int]]:
        """The characters with which names go on in a row of the tree, and where they lead."""
        tables = pushdown.tables
        line = int(tables.row_line.values[row])
        if line >= 0:
            differs = tables.lines[line] != tables.lines[tables.row_line.values[self._any_name]]
            arcs = [(byte, int(tables.lines[line, byte])) for byte in differs.nonzero()[0].tolist()]
        else:
            arcs = pushdown.arcs(row)[0]
        return [(byte, cell) for byte, cell in arcs if byte not in (QUOTE, BACKSLASH)]

    def _set(self, pushdown: Pushdown, row: int, like: int, arcs: Sequence[int]) -> None:
        """Makes a row like another but for some bytes: byte, cell, byte, cell …"""
        tables = pushdown.tables
        line = int(tables.row_line.values[like])
        tables.row_line.values[row] = COMPACT - tables.compact.extend([len(arcs) // 2, like, line, *arcs])
