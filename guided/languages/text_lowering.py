"""Automata over characters to rows over bytes: UTF-8 text, and the inside of a JSON string with its escapes.

Owners of rows for `pushdown.Pushdown`; a row is expanded on first need. How characters are cut into bytes and escapes
is worked out once for each *shape* (which characters go together, wherever they lead: `byte_shapes`), so that a state
whose arcs look like those of another costs only its rows; rows in the middle of a character are shared by all states
that lead on alike.

    row = JsonStringRows(pushdown, JointAutomaton((language,))).start    # pops with `accepted` at the closing quote
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..automata.block import Block
from ..automata.cells import BETWEEN, DEAD, INSIDE, SMALL_RESULTS, pop_cell
from ..automata.pushdown import Pushdown
from .byte_shapes import SHAPES, Shape
from .language import JointAutomaton

QUOTE = 0x22
ANY_CHARACTER = ((0, 0xD7FF, 0), (0xE000, 0x10FFFF, 0))
MIN_COUNTED = 8
"""Characters of which there may be so many or more are counted: rows for each number would cost more."""


class Automaton(Protocol):
    """What is lowered: a JointAutomaton, or what looks like one."""

    def arcs(self, state: int) -> tuple[tuple[int, int, int], ...]:
        """(first, last, next state): sorted, disjoint ranges of code points, without surrogates."""
        ...

    def accepted(self, state: int) -> int:
        """The bit set of what accepts here."""
        ...


class Utf8Rows:
    """Rows of plain UTF-8 text. A row between two characters is final with the languages that accept there.

    A row's key is a state of the automaton, or a shape with the states that its targets stand for.

    Attributes:
        start: the row of the automaton's first state; DEAD when it accepts nothing, or has no single first state.
    """

    character_kind = "utf-8"

    def __init__(self, pushdown: Pushdown, automaton: Automaton, *, within_count: bool = False) -> None:
        """within_count: the rows are for use by counted rows, and say what they need."""
        self.pushdown, self.automaton = pushdown, automaton
        self._rows: dict[int | tuple[Shape, tuple[int, ...]], int] = {}
        self._shape_of_masks: dict[tuple[int, ...], Shape] = {}
        self._is_within_count = within_count
        self._within_count: Utf8Rows | None = None
        first = automaton.start if isinstance(automaton, JointAutomaton) and not within_count else None
        self.start = DEAD if first is None else self.row(first)

    def row(self, key: int | tuple[Shape, tuple[int, ...]]) -> int:
        """The row in which a state of the automaton begins (or what is left of a character)."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._new_row(key)
        return row

    def _new_row(self, key: int | tuple[Shape, tuple[int, ...]]) -> int:
        if self._is_within_count:
            return self._new_needy_row(key)
        if isinstance(key, int) and isinstance(self.automaton, JointAutomaton):
            loop = self.automaton.loop(key)
            if loop is not None and (loop[2] is None or loop[2] >= MIN_COUNTED):
                return self.pushdown.counted(self.row(loop[0]), loop[1], loop[2])
            bounded = self.automaton.bounded(key)
            if bounded is not None and bounded[1] >= MIN_COUNTED:
                return self._bounded_row(*bounded)
        return self.pushdown.new_row(self, key)

    def _bounded_row(self, state: int, most: int, furthest: int) -> int:
        if self._within_count is None:
            self._within_count = type(self)(self.pushdown, self.automaton, within_count=True)
        return self.pushdown.counted(self._within_count.row(state), 0, most, furthest)

    def _new_needy_row(self, key: int | tuple[Shape, tuple[int, ...]]) -> int:
        assert isinstance(self.automaton, JointAutomaton)
        row, need = self.pushdown.new_row(self, key), self.automaton.need
        if isinstance(key, int):
            self.pushdown.set_need(row, need(key), BETWEEN)
        else:
            self.pushdown.set_need(row, 1 + min(map(need, key[1])), INSIDE)
        return row

    def expand_row(self, pushdown: Pushdown, row: int, key: int | tuple[Shape, tuple[int, ...]]) -> None:
        """Sets the cells of one row."""
        if isinstance(key, int):
            self._expand_state(row, key)
        else:
            pushdown.set_arcs(row, self._arcs(*key))

    def _expand_state(self, row: int, state: int) -> None:
        accepted = self.automaton.accepted(state)
        if accepted:
            self.pushdown.set_final(row, accepted)
        self.pushdown.set_arcs(row, self._arcs(*self._shape(state)))

    def _shape(self, state: int) -> tuple[Shape, tuple[int, ...]]:
        """The shape of a state's arcs, and the states they lead to."""
        if isinstance(self.automaton, JointAutomaton):
            pairs = self.automaton.masked_arcs(state)
            masks = tuple([mask for mask, _ in pairs])
            shape = self._shape_of_masks.get(masks)
            if shape is None:
                ranges_of = self.automaton.ranges_of
                ranges = sorted(
                    [(low, high, index) for index, mask in enumerate(masks) for low, high in ranges_of(mask)]
                )
                shape = self._shape_of_masks[masks] = SHAPES.get(self.character_kind, 0, tuple(ranges))
            return shape, tuple([target for _, target in pairs])
        return SHAPES.normal(self.character_kind, 0, self.automaton.arcs(state))

    def _arcs(self, shape: Shape, targets: tuple[int, ...]) -> list[tuple[int, int, int]]:
        """(first byte, last byte, row) of a shape."""
        row = self.row
        return [
            (first, last, row(targets[used[0]] if rest is None else (rest, tuple([targets[index] for index in used]))))
            for first, last, rest, used in SHAPES.arcs(shape)
        ]


class JsonStringRows(Utf8Rows):
    """Rows of the inside of a JSON string, the opening quote read.

    Characters come raw (no control characters) or escaped; `\\u` takes both cases and surrogate pairs, never a lone
    surrogate. The closing quote pops with the set of languages that accept.
    """

    character_kind = "string"

    def _new_row(self, key: int | tuple[Shape, tuple[int, ...]]) -> int:
        if isinstance(key, int) and isinstance(self.automaton, JointAutomaton):
            accepted = self.automaton.accepts_all_from(key)
            if 0 < accepted < SMALL_RESULTS:
                return self.pushdown.add_block(any_string_block(accepted))
        return super()._new_row(key)

    def _expand_state(self, row: int, state: int) -> None:
        accepted = self.automaton.accepted(state)
        shape, targets = self._shape(state)
        if shape.ranges == ANY_CHARACTER and targets == (state,) and 0 < accepted < SMALL_RESULTS:
            block = self.pushdown.add_block(any_string_block(accepted))
            self.pushdown.set_cells(row, self.pushdown.tables.lines[self.pushdown.tables.row_line.values[block]].copy())
        else:
            self._set_arcs(row, shape, targets, accepted)

    def _set_arcs(self, row: int, shape: Shape, targets: tuple[int, ...], accepted: int) -> None:
        arcs = self._arcs(shape, targets)
        if accepted:
            arcs.append((QUOTE, QUOTE, self.pushdown.pop(accepted)))
        self.pushdown.set_arcs(row, arcs)


@lru_cache(maxsize=1024)
def any_string_block(accepted: int) -> Block:
    """The inside of any JSON string, which ends with `accepted`. Built only once; another result changes its ends."""
    if accepted != _SOME_RESULT:
        some = any_string_block(_SOME_RESULT)
        cells = np.where(some.cells == pop_cell(_SOME_RESULT), np.int32(pop_cell(accepted)), some.cells)
        return Block(f"any string, {accepted}", cells, some.finals, is_text=True)
    pushdown = Pushdown()
    _AnyStringRows(pushdown, _AnyText(accepted)).row(0)
    return dataclasses.replace(closed_block(f"any string, {accepted}", pushdown), is_text=True)


_SOME_RESULT = 1


def closed_block(name: str, pushdown: Pushdown) -> Block:
    """All rows of a finite automaton that calls nothing."""
    lines: list[NDArray[np.int32]] = []
    finals: list[int] = []
    while len(lines) < pushdown.tables.row_line.size:
        row = len(lines)
        cells = np.full(256, DEAD, np.int32)
        for byte in pushdown.live_bytes(row):
            cells[byte] = pushdown.cell(row, byte)
        lines.append(cells)
        finals.append(pushdown.final(row))
    return Block(name, np.stack(lines), np.array(finals, np.int32))


class _AnyText:
    """The automaton of all texts: one state."""

    def __init__(self, accepted: int) -> None:
        self._accepted = accepted

    def arcs(self, state: int) -> tuple[tuple[int, int, int], ...]:
        return ANY_CHARACTER

    def accepted(self, state: int) -> int:
        return self._accepted


class _AnyStringRows(JsonStringRows):
    """Rows that do not use the block that they are made for."""

    def _expand_state(self, row: int, state: int) -> None:
        self._set_arcs(row, *self._shape(state), self.automaton.accepted(state))
