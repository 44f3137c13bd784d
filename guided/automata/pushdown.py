"""The automaton of a compiled grammar: a deterministic pushdown automaton over bytes, expanded where it is visited.

It is made of *rows* and *return states*. A row says for each of the 256 bytes what follows: another row, DEAD, a call
(`push`: return states go on the stack, one of them is resumed when the callee ends) or the callee's end (`pop`, with a
result that the return state sees). A row may also be *final*: the callee may end there without a byte, and does so
before the first byte that the row does not take; the byte is then tried in the row that the return state gives.

Whoever lowers a grammar (an *owner*) creates rows and return states by a key of its own and is asked for their content
on first need, so that a huge grammar costs what an output visits:

    class Owner:
        def expand_row(self, pushdown, row, key): ...            # calls set_cells / set_arcs and perhaps set_final
        def resume(self, pushdown, ret, key, result): ...        # -> cell: row, DEAD, push(...) or pop(...)

    pushdown = Pushdown()
    pushdown.start_row = pushdown.new_row(owner, "begin")        # start_returns: () unless the text is itself a call

A callee knows nothing of its caller, so its rows are shared by all contexts; the stack holds the context. The owner
promises that every row it creates, in every context in which it can be reached, can still lead to the end of the text:
a token may end at a row that is not expanded yet. A row must not look at other rows when it is expanded.

Three things that states and a stack do not do cheaply are built in:

*Counting characters.* `counted` makes a row (of the inside of a string, of a pattern) that lets the callee end only
after so many characters at least and at most. No rows are made for the counts, so that `maxLength: 100000` costs what
`maxLength: 1` does (`counted_rows`).

*Many names.* `choice_rows.add_choices` makes the rows of a set of byte strings once (2,000 property names, an enum),
whatever part of it is allowed where: a return state narrows the set for the call it belongs to.

*Texts that must not come twice.* A return state made with `remembers=True` takes the bytes of the call it belongs to
(those after the byte that made the call, up to and with the last byte the callee consumed) and asks whether their
`canonical` form was remembered before in the same scope: if not, the text is remembered and `resume` says what
follows; if so, `resume_repeated` does (DEAD: forbidden). The scope is the nearest return state below it on the stack
that was made with `scope=True`, and is forgotten when that one is resumed. No state depends on the texts, so an object
with free keys costs no row per key. Such an owner has three more methods:

        def resume_repeated(self, pushdown, ret, key, result): ...  # -> cell
        def canonical(self, key, text: bytes) -> bytes: ...         # equal for texts that count as the same
        def canonical_prefix(self, key, text: bytes) -> bytes: ...  # a prefix of the canonical form of every text that
                                                                    # begins like this (b"" is always right, but slow)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..budget import Budget
from .block import Block
from .cells import (
    BETWEEN,
    COMPACT,
    COUNTED,
    DEAD,
    INSIDE,
    REMEMBERS,
    SCOPE,
    SMALL_RESULTS,
    UNEXPANDED,
    pop_cell,
    push_cell,
)
from .choice_rows import Choices
from .counted_rows import CountedRows
from .tables import Tables

MAX_CALLS_PER_BYTE = 4096
"""Calls that come about without a byte, before a grammar is held to be endless."""


class Pushdown:
    """The rows and return states of one grammar.

    Attributes:
        start_row, start_returns: the configuration before the first byte.
        budget: what `expand_row` and `resume` may spend.
        tables: what is known of rows, calls and return states.
        counts: the rows that count characters.
        caches: what matchers share, by vocabulary; not pickled.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.tables = Tables()
        self.counts = CountedRows(self.tables)
        self.start_row = DEAD
        self.start_returns: tuple[int, ...] = ()
        self._pushes: dict[tuple[tuple[int, ...], int], int] = {}
        self._blocks: dict[str, int] = {}
        self._wide_results: dict[int, int] = {}
        self._wide_values: list[int] = []
        self._unexpanded: dict[int, tuple[Any, Any]] = {}
        self._returns: list[tuple[Any, Any]] = []
        self._cases: dict[tuple[int, int], int] = {}
        self.caches: dict[Any, Any] = {}

    # For owners: rows.

    def new_row(self, owner: Any, key: Any) -> int:
        """A row whose content `owner.expand_row(pushdown, row, key)` gives on first need."""
        row = self.tables.add_rows(1)
        self._unexpanded[row] = (owner, key)
        return row

    def new_rows(self, owner: Any, key: Any, count: int) -> int:
        """The first of so many rows in a row with the same key, which the owner tells apart by their numbers."""
        first = self.tables.add_rows(count)
        self._unexpanded.update(dict.fromkeys(range(first, first + count), (owner, key)))
        return first

    def await_rows(self, owner: Any, key: Any, rows: Iterable[int]) -> None:
        """Rows that were added without an owner get one, who is asked for the content of all when one is needed."""
        self._unexpanded.update(dict.fromkeys(rows, (owner, key)))

    def drop_rows(self, rows: Iterable[int]) -> None:
        """Takes such rows back, as their content is about to be set."""
        for row in rows:
            del self._unexpanded[row]

    def set_cells(self, row: int, cells: NDArray[np.int32] | Sequence[int]) -> None:
        """The 256 cells of a row: rows, DEAD, or codes of `push` and `pop`."""
        tables = self.tables
        line = tables.add_lines(1)
        tables.lines[line] = cells
        tables.row_line.values[row] = tables.intern_line(line)

    def set_arcs(self, row: int, arcs: Iterable[tuple[int, int, int]]) -> None:
        """The cells of a row as (first byte, last byte, cell); all other bytes are dead. Later arcs overwrite earlier.

        Up to four single bytes make a compact row.
        """
        arcs, tables = tuple(arcs), self.tables
        if len(arcs) <= 4 and all(low == high for low, high, _ in arcs):
            cells_by_byte = {low: cell for low, _, cell in arcs}
            flat = [len(cells_by_byte), -1, -1]
            for arc in cells_by_byte.items():
                flat += arc
            tables.row_line.values[row] = COMPACT - tables.compact.extend(flat)
            return
        line = tables.add_lines(1)
        cells = tables.lines[line]
        cells.fill(DEAD)
        for low, high, cell in arcs:
            cells[low : high + 1] = cell
        tables.row_line.values[row] = tables.intern_line(line)

    def set_final(self, row: int, result: int) -> None:
        """The callee may end in this row with `result`, before a byte that the row does not take."""
        self.tables.row_final.values[row] = self._number_of_result(result)

    def add_block(self, block: Block) -> int:
        """The first row of the pushdown's copy of a block."""
        first = self._blocks.get(block.name)
        if first is None:
            tables, count = self.tables, len(block.cells)
            line, first = tables.add_lines(count), tables.add_rows(count)
            copy = tables.lines[line : line + count]
            np.multiply(block.is_row, first, out=copy)
            copy += block.cells
            # Other rows may well be like the first one, in which text loops.
            tables.known_line(line)
            tables.row_line.values[first : first + count] = np.arange(line, line + count)
            tables.row_final.values[first : first + count] = block.finals
            if block.is_text:
                self.set_need(first, 0, BETWEEN)
            self._blocks[block.name] = first
        return first

    def set_need(self, row: int, characters: int, kind: int) -> None:
        """Says of a row of an automaton whose characters are counted that it needs at least so many more (inside of a
        character: that one included), and that it stands BETWEEN two characters or INSIDE one.

        Rows of which nobody says so are taken to be inside of a character that may be the last. A row that is needed
        by a count must not be counted itself, or call anything.
        """
        self.tables.row_need.values[row] = characters << 1 | kind

    def counted(self, row: int, minimum: int, maximum: int | None, furthest: int = 0) -> int:
        """A row like `row`, behind which the callee ends after so many characters only.

        For instance the inside of a JSON string of at most 100: `counted(pushdown.add_block(any_string), 0, 100)`.
        `row` is between two characters. Only where text loops in it (all that begins there leads back to it) may there
        be a minimum; such a row needs nothing. Any other automaton says what its rows need (`set_need`), exactly.

        Args:
            furthest: the most that any row behind it needs.
        """
        need = self.tables.row_need.values
        if need[row] & INSIDE:
            need[row] = BETWEEN
        return self.counts.row(row, minimum, -1 if maximum is None else maximum, furthest)

    # For owners: calls.

    def push(self, returns: tuple[int, ...], row: int) -> int:
        """A cell: the byte is consumed, the return states are pushed (the last one on top), `row` goes on."""
        code = self._pushes.get((returns, row))
        if code is None:
            tables = self.tables
            number = tables.push_row.append(row)
            tables.push_first.append(tables.push_returns.extend(returns))
            tables.push_count.append(len(returns))
            code = self._pushes[returns, row] = push_cell(number)
        return code

    def checked(self, row: int, capacity: int) -> int:
        """A cell: the byte is consumed and `row` goes on, if fewer than `capacity` of the texts that are remembered
        could begin like that of the innermost call to be remembered, as far as it has come.

        The owner of its return state says how: `canonical_beginning(key, text)` is what the `canonical` form of exactly
        those begins with.
        """
        key = ((-1 - capacity,), row)
        code = self._pushes.get(key)
        if code is None:
            number = self.tables.push_row.append(row)
            self.tables.push_first.append(capacity)
            self.tables.push_count.append(0)
            code = self._pushes[key] = push_cell(number)
        return code

    def capacity(self, cell: int) -> int:
        """Of a push cell: that which `checked` was given; 0 for any other."""
        number = (-3 - cell) // 2
        return 0 if self.tables.push_count.values[number] else int(self.tables.push_first.values[number])

    def pop(self, result: int) -> int:
        """A cell: the byte is consumed and the callee ends with `result` (a number >= 0, such as a bit set).

        On the empty stack the text is complete, and nothing may follow.
        """
        return pop_cell(self._number_of_result(result))

    def new_return(
        self,
        owner: Any,
        key: Any,
        *,
        choices: Choices | None = None,
        allowed: Iterable[int] = (),
        scope: bool = False,
        remembers: bool = False,
    ) -> int:
        """A return state, resumed through `owner.resume(pushdown, ret, key, result)`, once per result.

        Args:
            owner, key: who resumes it; the key is the owner's.
            choices: narrows these rows, while the return state is on top of the stack, to
            allowed: the strings with these results.
            scope: texts are remembered here.
            remembers: the text of the call is remembered in the nearest scope below.
        """
        place = -1
        if choices is not None:
            counts = np.zeros(len(choices.results) + 1, np.int32)
            wanted = np.zeros(choices.most + 1, np.bool_)
            wanted[[result for result in allowed if result <= choices.most]] = True
            np.cumsum(wanted[choices.results], out=counts[1:])
            place = self.tables.allowed.extend(counts)
        self.tables.return_allowed.append(place)
        self.tables.resume_first.append(-1)
        self._returns.append((owner, key))
        return self.tables.return_kind.append(SCOPE * scope + REMEMBERS * remembers)

    # For the matcher: one step at a time, in Python.

    def cell(self, row: int, byte: int) -> int:
        """What `byte` does in a row, which is expanded for that."""
        tables = self.tables
        line = int(tables.row_line.values[row])
        if line == UNEXPANDED:
            line = self.expand(row)
        if line >= 0:
            return int(tables.lines[line, byte])
        if line == COUNTED:
            return self.counts.after(row, self.cell(self.counts.of(row)[0], byte))
        compact, place = tables.compact.values, COMPACT - line
        for arc in range(place + 3, place + 3 + 2 * int(compact[place]), 2):
            if compact[arc] == byte:
                return int(compact[arc + 1])
        otherwise = int(compact[place + 2])
        return DEAD if otherwise < 0 else int(tables.lines[otherwise, byte])

    def live_bytes(self, row: int) -> list[int]:
        """The bytes that a row (expanded for that) takes."""
        tables = self.tables
        line = int(tables.row_line.values[row])
        if line == UNEXPANDED:
            line = self.expand(row)
        if line >= 0:
            return np.flatnonzero(tables.lines[line] != DEAD).tolist()
        if line == COUNTED:
            inner = self.counts.of(row)[0]
            return [byte for byte in self.live_bytes(inner) if self.cell(row, byte) != DEAD]
        arcs, otherwise = self.arcs(row)
        alive = {byte for byte, cell in arcs if cell != DEAD}
        if otherwise >= 0:
            alive.update(set(self.live_bytes(otherwise)).difference([byte for byte, _ in arcs]))
        return sorted(alive)

    def arcs(self, row: int) -> tuple[list[list[int]], int]:
        """The arcs of a compact row, [byte, cell] each, and the row that says what other bytes do (-1: they are
        dead)."""
        compact, place = self.tables.compact.values, COMPACT - int(self.tables.row_line.values[row])
        arcs = compact[place + 3 : place + 3 + 2 * int(compact[place])].reshape(-1, 2).tolist()
        return arcs, int(compact[place + 1])

    def final(self, row: int) -> int:
        """The number of the result with which a row (expanded for that) is final, or -1."""
        line = self.tables.row_line.values[row]
        if line == UNEXPANDED:
            self.expand(row)
        elif line == COUNTED:
            inner, least, _, _ = self.counts.of(row)
            return -1 if least > 0 else self.final(inner)
        return int(self.tables.row_final.values[row])

    def expand(self, row: int) -> int:
        """Asks the owner for the content of a row; returns its `row_line`."""
        owner, key = self._unexpanded[row]
        owner.expand_row(self, row, key)
        if self.tables.row_line.values[row] == UNEXPANDED:
            self.set_arcs(row, ())
        self._unexpanded.pop(row, None)
        return int(self.tables.row_line.values[row])

    def resume(self, ret: int, result: int, *, repeated: bool = False) -> int:
        """The cell in which a return state goes on after the result of this number."""
        case = 2 * result + repeated
        cell = self._cases.get((ret, case))
        if cell is None:
            owner, key = self._returns[ret]
            value = result if result < SMALL_RESULTS else self._wide_values[result - SMALL_RESULTS]
            cell = (owner.resume_repeated if repeated else owner.resume)(self, ret, key, value)
            self._cases[ret, case] = cell
            tables = self.tables
            tables.resume_case.append(case)
            tables.resume_next.append(int(tables.resume_first.values[ret]))
            tables.resume_first.values[ret] = tables.resume_cell.append(cell)
        return cell

    def owner_of_return(self, ret: int) -> tuple[Any, Any]:
        """The owner and the key of a return state."""
        return self._returns[ret]

    def is_allowed(self, ret: int, row: int) -> bool:
        """Whether a row of `choice_rows` leads to a string that the return state on top of the stack allows."""
        tables = self.tables
        place, high = int(tables.return_allowed.values[ret]), int(tables.row_high.values[row])
        if place < 0 or high <= 0:
            return True
        counts = tables.allowed.values
        return bool(counts[place + high] > counts[place + tables.row_low.values[row]])

    def pushed(self, cell: int) -> tuple[list[int], int]:
        """The return states that a push cell pushes, and the row that goes on."""
        number = (-3 - cell) // 2
        tables = self.tables
        first = int(tables.push_first.values[number])
        last = first + int(tables.push_count.values[number])
        return tables.push_returns.values[first:last].tolist(), int(tables.push_row.values[number])

    # Within.

    def _number_of_result(self, result: int) -> int:
        if 0 <= result < SMALL_RESULTS:
            return result
        number = self._wide_results.get(result)
        if number is None:
            if result < 0:
                raise ValueError("a result must not be negative")
            number = self._wide_results[result] = SMALL_RESULTS + len(self._wide_values)
            self._wide_values.append(result)
        return number

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"caches": {}}
