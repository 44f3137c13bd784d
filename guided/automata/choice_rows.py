"""Rows for a set of byte strings, whatever part of it is allowed where (2,000 property names, an enum).

A return state made by `Pushdown.new_return(..., choices=..., allowed=...)` narrows the set for the call it belongs to:
a prefix that leads to none of the allowed strings is dead. Or any other text may come as well (`AnyOther`). The rows
are compact (a few bytes each, not a line of 256 cells), so that this is also the right way to spell a literal.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .cells import COMPACT, DEAD

if TYPE_CHECKING:
    from .pushdown import Pushdown

MAX_ARCS, MAX_FIRST_ARCS = 16, 4
"""Arcs of a compact row; a row with more has a line. Most walks look at the first row for all bytes."""

AT_ONCE, FIRST_AT_ONCE = 500, 24
"""Where no more bytes of the strings lie behind a row, all the rows behind it are made with it; the first row of all is
often looked at where an answer never goes on, so that there it is less."""


@dataclass(frozen=True, slots=True)
class AnyOther:
    """Any text may come, but for what the strings say.

    Attributes:
        row, line: the dense row in which any text loops, and its line.
        escape: a byte that begins another spelling of what follows, in each row that is not the last of a string.
        owner: expands the rows behind it, whose key is what their number lacks to that of the row before.
    """

    row: int
    line: int
    escape: int
    owner: Any


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


def add_choices(pushdown: Pushdown, texts: Iterable[tuple[bytes, int]]) -> Choices:
    """Rows for byte strings, each of which ends the callee with its result (small numbers, such as an index).

    No string may be the beginning of another (property names and string enums end with the quote). Several may have
    the same result (spellings of one name).
    """
    rows = _ChoiceRows(texts, None)
    return Choices(rows.start(pushdown), np.array(rows.results, np.int64), max(rows.results, default=0))


def add_choices_among(pushdown: Pushdown, texts: Iterable[tuple[bytes, int]], among: AnyOther) -> int:
    """The same where any other text may come as well; returns the first row. No part of the set is allowed alone."""
    return _ChoiceRows(texts, among).start(pushdown)


class _Part(NamedTuple):
    """The rows behind a row, made all at once.

    Attributes:
        row: that row.
        low, high: the strings that lie behind it,
        depth: after so many bytes.
        first, num_rows: the rows.
        shared: how many bytes each string shares with the next one.
        children: those of the rows that the row leads to, until they are made.
    """

    row: int
    low: int
    high: int
    depth: int
    first: int
    num_rows: int
    shared: list[int]
    children: list[int]


class _ChoiceRows:
    """Owner of the rows. A row's key is the range of strings that lie behind it, and how many bytes were read."""

    def __init__(self, texts: Iterable[tuple[bytes, int]], among: AnyOther | None) -> None:
        pairs = sorted(texts)
        self._strings = strings = [text for text, _ in pairs]
        self.results = [result for _, result in pairs]
        if not all(strings) or any(map(bytes.startswith, strings[1:], strings)):
            raise ValueError("a choice is empty, or the beginning of another")
        self._ends = [0, *accumulate(map(len, strings))]
        self._among = among
        self._otherwise, self._line = (-1, -1) if among is None else (among.row, among.line)

    def start(self, pushdown: Pushdown) -> int:
        """The first row."""
        return self._add(pushdown, 0, len(self._strings), 0)

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple[int, int, int] | _Part) -> None:
        """Called by the pushdown automaton: makes this row, and all those behind it where they are few."""
        if isinstance(key, _Part):
            pushdown.drop_rows(key.children)
            self._fill(pushdown, key, False)
            return
        low, high, depth = key
        num_bytes = self._ends[high] - self._ends[low] - depth * (high - low)
        pushdown.budget.spend(1 + min(num_bytes, AT_ONCE) // 10)
        if num_bytes > AT_ONCE:
            self._place_alone(pushdown, row, depth, self._branches(pushdown, low, high, depth))
            return
        part = self._part(pushdown, row, low, high, depth)
        if depth or num_bytes <= FIRST_AT_ONCE:
            self._fill(pushdown, part, True)
            return
        arcs: list[int] = []
        new, before = part.first, [depth, *part.shared]
        for index, read in enumerate(before, low):
            text = self._strings[index]
            if read == depth:
                arcs += (text[depth], new if depth + 1 < len(text) else pushdown.pop(self.results[index]))
                if depth + 1 < len(text):
                    part.children.append(new)
                    self._set_range(pushdown, new, index, index + 1)
            elif part.children and self._among is None:
                pushdown.tables.row_high.values[part.children[-1]] = index + 1
            new += len(text) - 1 - read
        pushdown.await_rows(self, part, part.children)
        self._place_alone(pushdown, row, depth, arcs)

    def _add(self, pushdown: Pushdown, low: int, high: int, depth: int) -> int:
        """A row behind which the strings `low` to `high` lie, after `depth` bytes."""
        row = pushdown.new_row(self, (low, high, depth))
        self._set_range(pushdown, row, low, high)
        return row

    def _set_range(self, pushdown: Pushdown, row: int, low: int, high: int) -> None:
        if self._among is None:
            pushdown.tables.row_low.values[row], pushdown.tables.row_high.values[row] = low, high

    def _branches(self, pushdown: Pushdown, low: int, high: int, depth: int) -> list[int]:
        """The arcs of a row, and the rows that they lead to."""
        arcs: list[int] = []
        while low < high:
            text = self._strings[low]
            byte = text[depth]
            end = high if byte == 255 else bisect_left(self._strings, text[:depth] + bytes((byte + 1,)), low, high)
            if depth + 1 == len(text):
                arcs += (byte, pushdown.pop(self.results[low]))
            else:
                arcs += (byte, self._add(pushdown, low, end, depth + 1))
            low = end
        return arcs

    def _part(self, pushdown: Pushdown, row: int, low: int, high: int, depth: int) -> _Part:
        """The rows behind a row, not made yet."""
        strings = self._strings[low:high]
        shared = [_common_prefix(*pair) for pair in pairwise(strings)]
        count = sum(map(len, strings)) - len(strings) - depth - sum(shared)
        first = pushdown.tables.add_rows(count)
        return _Part(row, low, high, depth, first, count, shared, [])

    def _fill(self, pushdown: Pushdown, part: _Part, with_head: bool) -> None:
        """Makes the rows of a part."""
        row, low, high, depth, first, count, shared, _ = part
        tables, new = pushdown.tables, first
        shift = self._shift(pushdown, first, count)
        flat: list[int] = []
        lows: list[int] = []
        places, highs = [0] * count, [0] * count
        # The rows that the next string may go through: bytes read, row, arcs.
        path: list[tuple[int, int, list[int]]] = [(depth, row, [])]
        for index in range(low, high):
            text, end = self._strings[index], pushdown.pop(self.results[index])
            last = len(text) - 1
            before, _, arcs = path[-1]
            arcs += (text[before], new if before < last else end)
            lows += [index] * (last - before)
            common = shared[index - low] if index + 1 < high else depth
            for read in range(before + 1, common + 1):
                path.append((read, new, [text[read], new + 1 if read < last else end]))
                new += 1
            read = max(before, common) + 1
            if read <= last:
                place, after = new - first, new - first + last - read + 1
                highs[place:after] = [index + 1] * (after - place)
                places[place:after] = self._chain(tables.compact.size, text, read, new, shift, flat)
                flat += (1, self._otherwise, self._line, text[last], end)
                new = first + after
            while path[-1][0] > common:
                read, closed, arcs = path.pop()
                places[closed - first] = self._place(pushdown, closed, read, arcs, flat, shift)
                highs[closed - first] = index + 1
        tables.compact.extend(flat)
        tables.row_line.values[first : first + count] = places
        if self._among is None:
            tables.row_low.values[first : first + count] = lows
            tables.row_high.values[first : first + count] = highs
        if with_head:
            self._place_alone(pushdown, row, depth, path[0][2])

    def _place_alone(self, pushdown: Pushdown, row: int, read: int, arcs: list[int]) -> None:
        flat: list[int] = []
        shift = self._shift(pushdown, row, 1)
        pushdown.tables.row_line.values[row] = self._place(pushdown, row, read, arcs, flat, shift)
        pushdown.tables.compact.extend(flat)

    def _chain(self, size: int, text: bytes, read: int, row: int, shift: int, flat: list[int]) -> range:
        """Adds rows that each lead to the next one, for the bytes from `read` on but the last, which is left to be
        added; returns the places of all of them."""
        begin, otherwise, line = size + len(flat), self._otherwise, self._line
        numbered = enumerate(text[read:-1], row + 1)
        if self._among is None:
            flat += [item for after, byte in numbered for item in (1, otherwise, line, byte, after)]
            return range(COMPACT - begin, COMPACT - begin - 5 * (len(text) - read), -5)
        escape, before = self._among.escape, shift - 1
        flat += [item for after, byte in numbered for item in (2, otherwise, line, byte, after, escape, after + before)]
        return range(COMPACT - begin, COMPACT - begin - 7 * (len(text) - read), -7)

    def _place(self, pushdown: Pushdown, row: int, read: int, arcs: list[int], flat: list[int], shift: int) -> int:
        """Adds the content of a row behind `read` bytes to `flat`, or makes it a line; returns its place."""
        tables = pushdown.tables
        if self._among is not None and max(arcs[1::2]) >= 0:
            arcs += (self._among.escape, row + shift)
        if len(arcs) <= 2 * (MAX_ARCS if read else MAX_FIRST_ARCS):
            place = COMPACT - tables.compact.size - len(flat)
            flat += (len(arcs) >> 1, self._otherwise, self._line)
            flat += arcs
            return place
        line = tables.add_lines(1)
        tables.lines[line] = DEAD if self._line < 0 else tables.lines[self._line]
        tables.lines[line, arcs[::2]] = arcs[1::2]
        return line

    def _shift(self, pushdown: Pushdown, first: int, count: int) -> int:
        """Makes the rows behind the escapes of so many rows; returns how far they are from these."""
        if self._among is None:
            return 0
        shift = pushdown.tables.row_line.size - first
        pushdown.new_rows(self._among.owner, shift, count)
        return shift


def _common_prefix(one: bytes, other: bytes) -> int:
    """How many bytes two strings share."""
    place = 0
    for byte, byte_of_other in zip(one, other, strict=False):
        if byte != byte_of_other:
            break
        place += 1
    return place
