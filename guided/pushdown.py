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

*Counting characters.* `counted` makes a row of one in which text loops (the inside of a string): it counts how often
the loop comes back to that row, and lets the callee end only after so many times at least and at most. No rows are
made for the counts, so that `maxLength: 100000` costs what `maxLength: 1` does.

*Many names.* `add_choices` makes the rows of a set of byte strings once (2,000 property names, an enum), whatever part
of it is allowed where. A return state made by `new_return(..., choices=..., allowed=...)` narrows the set for the call
it belongs to: a prefix that leads to none of the allowed strings is dead. Its rows are compact (a few bytes each, not
a line of 256 cells), so that it is also the right way to spell a literal.

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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .block import SMALL_RESULTS, Block, pop_cell
from .budget import Budget
from .choice_tree import ChoiceTree
from .column import Column, pack_lines, unpack_lines
from .errors import GrammarError

DEAD = -1
"""A cell: this byte cannot come here."""

COMPLETE = -2
"""In place of a row: the text is complete."""

MAX_CALLS_PER_BYTE = 4096
"""Calls that come about without a byte, before a grammar is held to be endless."""

MAX_LINES = 200_000
"""Rows of 256 cells (1 KiB each) that one grammar may visit before it is refused as too complex."""
MAX_ROWS = 4_000_000

MAX_COMPACT_ARCS = 16
"""Arcs of a compact row of `add_choices`; a row with more has a line."""

NODES_AT_ONCE = 100
"""Of a tree of choices, between two looks at the budget."""

UNEXPANDED, COMPACT, COUNTED = -1, -2, -(1 << 31)
"""In `row_line`: no content yet; COMPACT - n: the compact row that begins at n of `compact`; a counted row. Else the
line's number."""

SCOPE, REMEMBERS = 1, 2
"""Bits of `return_kind`."""

TABLES = (
    "lines",
    *("row_line", "row_final", "row_low", "row_high", "compact"),
    *("push_row", "push_first", "push_count", "push_returns"),
    *("return_kind", "return_allowed", "allowed"),
    *("resume_first", "resume_case", "resume_cell", "resume_next", "counted_rows"),
)
"""The tables that the compiled walk reads, in the order of `Pushdown.addresses`."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The rows of a set of byte strings.

    Attributes:
        row: where they begin.
        results: int64[n]: each string's result, in the order of the sorted strings.
    """

    row: int
    results: NDArray[np.int64]


class Pushdown:
    """The rows and return states of one grammar.

    Attributes:
        start_row, start_returns: the configuration before the first byte.
        budget: what `expand_row` and `resume` may spend.
        max_lines: rows of 256 cells that it may have before it is refused.
        lines: int32[capacity, 256], the cells of the dense rows.
        row_line, row_final: each row's place (UNEXPANDED, a line, COMPACT - n) and result (-1: not final).
        row_low, row_high: the range of strings that lie behind a row of `add_choices`; (0, 0) for other rows, but
            row_high is -1 - n for a counted row.
        counted_rows: of the counted row n, at 4 * n: the row that it is like, the row of the loop, how often the loop
            must still come back to that at least, and how often at most (-1: any number).
        compact: compact rows: the number of arcs, then byte and cell of each.
        push_row, push_first, push_count, push_returns: what each push cell does.
        return_kind, return_allowed: bits SCOPE and REMEMBERS; the place in `allowed` of the running count of allowed
            strings, or -1.
        resume_first, resume_case, resume_cell, resume_next: per return state a list of what was resumed: case
            (2 * result number, +1 if repeated) and the cell.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.max_lines = MAX_LINES
        self.start_row = DEAD
        self.start_returns: tuple[int, ...] = ()
        self._set_tables(np.empty((64, 256), np.int32), 0, {})
        self._pushes: dict[tuple[tuple[int, ...], int], int] = {}
        self._blocks: dict[str, int] = {}
        self._counted: dict[tuple[int, int, int, int], int] = {}
        self._wide_results: dict[int, int] = {}
        self._wide_values: list[int] = []
        self._unexpanded: dict[int, tuple[Any, Any]] = {}
        self._returns: list[tuple[Any, Any]] = []
        self._lines_by_hash: dict[int, int] = {}
        self._cases: dict[tuple[int, int], int] = {}
        self.caches: dict[Any, Any] = {}
        """What matchers share, by vocabulary; not pickled."""

    def _set_tables(self, lines: NDArray[np.int32], num_lines: int, values: dict[str, NDArray[np.int32]]) -> None:
        self.addresses = np.zeros(len(TABLES), np.int64)
        """Where the tables lie, in the order of TABLES."""
        self.lines, self.num_lines = lines, num_lines
        self.addresses[0] = lines.ctypes.data
        # A new row is what the defaults say. The columns of rows grow together; `row_line.size` is the size of each.
        self.row_line, self.row_final, self.row_low, self.row_high = (
            Column(self.addresses, slot, values.get(TABLES[slot]), default)
            for slot, default in ((1, UNEXPANDED), (2, -1), (3, 0), (4, 0))
        )
        self._room = len(self.row_line.values)
        self.compact = Column(self.addresses, 5, values.get(TABLES[5]))
        self.push_row, self.push_first, self.push_count, self.push_returns = (
            Column(self.addresses, slot, values.get(TABLES[slot])) for slot in range(6, 10)
        )
        self.return_kind, self.return_allowed, self.allowed = (
            Column(self.addresses, slot, values.get(TABLES[slot])) for slot in range(10, 13)
        )
        self.resume_first, self.resume_case, self.resume_cell, self.resume_next, self.counted_rows = (
            Column(self.addresses, slot, values.get(TABLES[slot])) for slot in range(13, 18)
        )

    # For owners: rows.

    def new_row(self, owner: Any, key: Any) -> int:
        """A row whose content `owner.expand_row(pushdown, row, key)` gives on first need."""
        row = self._add_rows(1)
        self._unexpanded[row] = (owner, key)
        return row

    def set_cells(self, row: int, cells: NDArray[np.int32] | Sequence[int]) -> None:
        """The 256 cells of a row: rows, DEAD, or codes of `push` and `pop`."""
        line = self._add_lines(1)
        self.lines[line] = cells
        self.row_line.values[row] = self._intern_line(line)

    def set_arcs(self, row: int, arcs: Iterable[tuple[int, int, int]]) -> None:
        """The cells of a row as (first byte, last byte, cell); all other bytes are dead. Later arcs overwrite earlier.

        Up to four single bytes make a compact row.
        """
        arcs = tuple(arcs)
        if len(arcs) <= 4 and all(low == high for low, high, _ in arcs):
            cells_by_byte = {low: cell for low, _, cell in arcs}
            flat = [len(cells_by_byte)]
            for arc in cells_by_byte.items():
                flat += arc
            self.row_line.values[row] = COMPACT - self.compact.extend(flat)
            return
        line = self._add_lines(1)
        cells = self.lines[line]
        cells.fill(DEAD)
        for low, high, cell in arcs:
            cells[low : high + 1] = cell
        self.row_line.values[row] = self._intern_line(line)

    def set_final(self, row: int, result: int) -> None:
        """The callee may end in this row with `result`, before a byte that the row does not take."""
        self.row_final.values[row] = self._number_of_result(result)

    def add_block(self, block: Block) -> int:
        """The first row of the pushdown's copy of a block."""
        first = self._blocks.get(block.name)
        if first is None:
            count = len(block.cells)
            line, first = self._add_lines(count), self._add_rows(count)
            self.lines[line : line + count] = block.cells
            self.lines[line : line + count] += first * (block.cells >= 0)
            for each in range(line, line + count):
                self._lines_by_hash.setdefault(hash(self.lines[each].tobytes()), each)
            self.row_line.values[first : first + count] = np.arange(line, line + count)
            self.row_final.values[first : first + count] = block.finals
            self._blocks[block.name] = first
        return first

    def add_choices(self, texts: Iterable[tuple[bytes, int]] | ChoiceTree) -> Choices:
        """Rows for byte strings, each of which ends the callee with its result (small numbers, such as an index).

        No string may be the beginning of another (property names and string enums end with the quote). Several may
        have the same result (spellings of one name). The rows are compact and there at once: about 0.5 us a byte.
        Whoever has many hands over the tree, and once more when the budget stopped the work.
        """
        tree = texts if isinstance(texts, ChoiceTree) else ChoiceTree(texts)
        tree.grow(self.budget)
        if tree.row < 0:
            tree.row = self._add_rows(len(tree.arcs))
            rows = slice(tree.row, tree.row + len(tree.arcs))
            self.row_low.values[rows], self.row_high.values[rows] = tree.lows, tree.highs
        while tree.num_placed < len(tree.arcs):
            self.budget.spend(NODES_AT_ONCE)
            self._place_nodes(tree)
        return Choices(tree.row, np.array([result for _, result in tree.texts], np.int64))

    def _place_nodes(self, tree: ChoiceTree) -> None:
        """Sets the cells of the next rows of a tree."""
        base, first = tree.row, tree.num_placed
        flat: list[int] = []
        places = []
        for arcs in tree.arcs[first : first + NODES_AT_ONCE]:
            cells = [base + target if target >= 0 else self.pop(tree.texts[-1 - target][1]) for target in arcs[1::2]]
            if len(cells) > MAX_COMPACT_ARCS:
                line = self._add_lines(1)
                self.lines[line].fill(DEAD)
                self.lines[line, arcs[::2]] = cells
                places.append(line)
            else:
                arcs[1::2] = cells
                places.append(COMPACT - self.compact.size - len(flat))
                flat.append(len(cells))
                flat += arcs
        self.compact.extend(flat)
        self.row_line.values[base + first : base + first + len(places)] = places
        tree.num_placed += len(places)

    def counted(self, row: int, minimum: int, maximum: int | None) -> int:
        """A row like `row`, in which text loops: the callee ends after the loop came back to it so many times only.

        All rows between (inside an escape, a character of several bytes) lead back to exactly this row, and neither
        they nor the row call anything; only the row itself ends the callee, by `pop` or by being final. For instance
        the inside of a JSON string of at most 100 characters: `counted(pushdown.add_block(any_string), 0, 100)`.
        """
        return self.counted_row(row, row, minimum, -1 if maximum is None else maximum)

    # For owners: calls.

    def push(self, returns: tuple[int, ...], row: int) -> int:
        """A cell: the byte is consumed, the return states are pushed (the last one on top), `row` goes on."""
        code = self._pushes.get((returns, row))
        if code is None:
            number = self.push_row.append(row)
            self.push_first.append(self.push_returns.extend(returns))
            self.push_count.append(len(returns))
            code = self._pushes[returns, row] = -3 - 2 * number
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
            number = self.push_row.append(row)
            self.push_first.append(capacity)
            self.push_count.append(0)
            code = self._pushes[key] = -3 - 2 * number
        return code

    def capacity(self, cell: int) -> int:
        """Of a push cell: that which `checked` was given; 0 for any other."""
        number = (-3 - cell) // 2
        return 0 if self.push_count.values[number] else int(self.push_first.values[number])

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
            wanted = np.fromiter(allowed, np.int64)
            np.cumsum(np.isin(choices.results, wanted), out=counts[1:])
            place = self.allowed.extend(counts)
        self.return_allowed.append(place)
        self.resume_first.append(-1)
        self._returns.append((owner, key))
        return self.return_kind.append(SCOPE * scope + REMEMBERS * remembers)

    # For the matcher: one step at a time, in Python.

    def cell(self, row: int, byte: int) -> int:
        """What `byte` does in a row, which is expanded for that."""
        line = int(self.row_line.values[row])
        if line == UNEXPANDED:
            line = self.expand(row)
        if line >= 0:
            return int(self.lines[line, byte])
        if line == COUNTED:
            return self._counted_cell(row, byte)
        compact, place = self.compact.values, COMPACT - line
        for arc in range(place + 1, place + 1 + 2 * int(compact[place]), 2):
            if compact[arc] == byte:
                return int(compact[arc + 1])
        return DEAD

    def live_bytes(self, row: int) -> list[int]:
        """The bytes that a row (expanded for that) takes."""
        line = int(self.row_line.values[row])
        if line == UNEXPANDED:
            line = self.expand(row)
        if line >= 0:
            return np.flatnonzero(self.lines[line] != DEAD).tolist()
        if line == COUNTED:
            return [byte for byte in self.live_bytes(self.count_of(row)[0]) if self._counted_cell(row, byte) != DEAD]
        place = COMPACT - line
        arcs = self.compact.values[place + 1 : place + 1 + 2 * int(self.compact.values[place])].reshape(-1, 2).tolist()
        return [byte for byte, cell in arcs if cell != DEAD]

    def final(self, row: int) -> int:
        """The number of the result with which a row (expanded for that) is final, or -1."""
        line = self.row_line.values[row]
        if line == UNEXPANDED:
            self.expand(row)
        elif line == COUNTED:
            inner, loop, least, _ = self.count_of(row)
            return -1 if inner == loop and least > 0 else self.final(inner)
        return int(self.row_final.values[row])

    def count_of(self, row: int) -> tuple[int, int, int, int]:
        """Of a counted row: the row that it is like, the row of the loop, and how often that comes back (-1: any)."""
        place = -4 * (1 + int(self.row_high.values[row]))
        inner, loop, least, most = self.counted_rows.values[place : place + 4].tolist()
        return inner, loop, least, most

    def counted_row(self, inner: int, loop: int, least: int, most: int) -> int:
        """The row that is like `inner` while the loop's characters are counted; see `count_of`."""
        if least <= 0 and most < 0:
            return inner
        key = (inner, loop, least, most)
        row = self._counted.get(key)
        if row is None:
            row = self._counted[key] = self._add_rows(1)
            self.row_line.values[row] = COUNTED
            self.row_high.values[row] = -1 - self.counted_rows.extend(key) // 4
        return row

    def narrowed(self, row: int, longest: int) -> int:
        """The counted row that stands for all those which no text of up to `longest` characters tells from this one."""
        if self.row_line.values[row] != COUNTED:
            return row
        inner, loop, least, most = self.count_of(row)
        return self.counted_row(inner, loop, min(least, longest + 1), most if most < longest else -1)

    def expand(self, row: int) -> int:
        """Asks the owner for the content of a row; returns its `row_line`."""
        owner, key = self._unexpanded[row]
        owner.expand_row(self, row, key)
        if self.row_line.values[row] == UNEXPANDED:
            self.set_arcs(row, ())
        del self._unexpanded[row]
        return int(self.row_line.values[row])

    def resume(self, ret: int, result: int, *, repeated: bool = False) -> int:
        """The cell in which a return state goes on after the result of this number."""
        case = 2 * result + repeated
        cell = self._cases.get((ret, case))
        if cell is None:
            owner, key = self._returns[ret]
            value = result if result < SMALL_RESULTS else self._wide_values[result - SMALL_RESULTS]
            cell = (owner.resume_repeated if repeated else owner.resume)(self, ret, key, value)
            self._cases[ret, case] = cell
            self.resume_case.append(case)
            self.resume_next.append(int(self.resume_first.values[ret]))
            self.resume_first.values[ret] = self.resume_cell.append(cell)
        return cell

    def owner_of_return(self, ret: int) -> tuple[Any, Any]:
        """The owner and the key of a return state."""
        return self._returns[ret]

    def is_allowed(self, ret: int, row: int) -> bool:
        """Whether a row of `add_choices` leads to a string that the return state on top of the stack allows."""
        place, high = int(self.return_allowed.values[ret]), int(self.row_high.values[row])
        if place < 0 or high <= 0:
            return True
        counts = self.allowed.values
        return bool(counts[place + high] > counts[place + self.row_low.values[row]])

    def pushed(self, cell: int) -> tuple[list[int], int]:
        """The return states that a push cell pushes, and the row that goes on."""
        number = (-3 - cell) // 2
        first = int(self.push_first.values[number])
        last = first + int(self.push_count.values[number])
        return self.push_returns.values[first:last].tolist(), int(self.push_row.values[number])

    # Within.

    def _add_rows(self, count: int) -> int:
        """Returns the first of `count` new rows."""
        row = self.row_line.size
        if row + count > self._room:
            if row + count > MAX_ROWS:
                raise GrammarError("too_complex", f"the grammar has more than {MAX_ROWS} states")
            for column in (self.row_final, self.row_low, self.row_high):
                column.size = row
                column.reserve(row + count)
            self.row_line.reserve(row + count)
            self._room = len(self.row_line.values)
        self.row_line.size = row + count
        return row

    def _add_lines(self, count: int) -> int:
        line = self.num_lines
        if line + count > self.max_lines:
            raise GrammarError("too_complex", f"the grammar visits more than {self.max_lines} states")
        if line + count > len(self.lines):
            grown = np.empty((max(2 * len(self.lines), line + count), 256), np.int32)
            grown[:line] = self.lines[:line]
            self.lines = grown
            self.addresses[0] = grown.ctypes.data
        self.num_lines = line + count
        return line

    def _counted_cell(self, row: int, byte: int) -> int:
        inner, loop, least, most = self.count_of(row)
        cell = self.cell(inner, byte)
        if inner == loop:
            if cell >= 0 and most == 0:
                cell = DEAD
            if cell < 0 and least > 0:
                return DEAD
        if cell < 0:
            return cell
        if cell == loop:
            least, most = max(least - 1, 0), most - (most > 0)
        return self.counted_row(cell, loop, least, most)

    def _intern_line(self, line: int) -> int:
        """Takes back the last line if there is an equal one before it; returns that one, or the line."""
        found = self._lines_by_hash.setdefault(hash(self.lines[line].tobytes()), line)
        if found != line and np.array_equal(self.lines[found], self.lines[line]):
            self.num_lines = line
            return found
        return line

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
        columns = {name: getattr(self, name) for name in TABLES[1:]}
        for name in ("row_final", "row_low", "row_high"):
            columns[name].size = self.row_line.size
        state = {name: value for name, value in self.__dict__.items() if name not in _NOT_PICKLED}
        tables = {name: column.values[: column.size].copy() for name, column in columns.items()}
        return state | {"tables": (pack_lines(self.lines[: self.num_lines]), tables)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed, tables = state.pop("tables")
        self.__dict__.update(state)
        lines = unpack_lines(*packed)
        self._set_tables(lines, len(lines), tables)
        self.caches = {}
        # Hashes of bytes differ between processes.
        self._lines_by_hash = {hash(line.tobytes()): number for number, line in enumerate(lines)}


_NOT_PICKLED = frozenset({*TABLES, "addresses", "num_lines", "caches", "_lines_by_hash"})
