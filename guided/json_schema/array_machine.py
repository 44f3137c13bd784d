"""The rows of JSON arrays, from behind the `[` to behind the `]`.

Like `json_object_machine`: an array is evaluated against the clauses of all goals of its value at once, its state is
a set of trackers, (clause, ArrayState), and each item is called with the goals that the trackers set.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from ..automata.cells import DEAD
from .entry import Entry
from .repetition import value_key

if TYPE_CHECKING:
    from ..automata.pushdown import Pushdown
    from .array_plan import ArrayPlan, ArrayState
    from .clauses import ArrayClause
    from .machine import JsonMachine
    from .schema import Schema

Trackers = tuple[tuple[int, "ArrayState"], ...]
"""(number of the clause, its state), sorted: all that a row of an array depends on."""


class _ItemCall(NamedTuple):
    """An item that is called, and what follows: the trackers that each goal keeps alive. `fresh`: bit set of the goals
    that keep none alive where the item has come before."""

    goals: tuple[Schema, ...]
    after: tuple[tuple[int, tuple[int, ArrayState]], ...]
    fresh: int


class ArrayMachine:
    """The arrays that a tuple of clauses allows; each clause comes with the bits of the goals that it fulfils."""

    def __init__(self, machine: JsonMachine, clauses: tuple[tuple[ArrayClause, int], ...]) -> None:
        self._machine = machine
        self._pushdown = machine.pushdown
        self._plans: list[ArrayPlan] = [machine.satisfiability.array_plan(clause) for clause, _ in clauses]
        self._bits = [bits for _, bits in clauses]
        self._remembers = any(plan.compares for plan in self._plans)
        self._rows: dict[tuple[str, Trackers], int] = {}
        self._returns: dict[tuple, int] = {}
        self._calls: dict[Trackers, _ItemCall] = {}

    def entries(self) -> list[Entry]:
        """How an array begins; nothing if none of the clauses can be fulfilled."""
        state = tuple((i, plan.initial) for i, plan in enumerate(self._plans) if plan.live(plan.initial))
        if not state:
            return []
        scope = (self._return("scope", state),) if self._remembers else ()
        if self._machine.whitespace.bracket_row is None:
            return [Entry(0x5B, scope, self._row("first", state))]
        return [Entry(0x5B, (*scope, self._return("first", state)), self._machine.whitespace.bracket_row)]

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple[str, Trackers]) -> None:
        """Called by the pushdown automaton. Rows: `first`: an item or the end; `after`: behind an item; `close`: the
        `]` behind white space."""
        kind, state = key
        arcs: list[tuple[int, int, int]] = []
        result = self._result(state)
        whitespace = self._machine.whitespace
        if result:
            if kind != "after" or whitespace.optional:
                arcs.append((0x5D, 0x5D, pushdown.pop(result)))
            if kind == "after" and whitespace.bracket_row is not None:
                arcs += whitespace.entry_arcs(self._return("close", state))
        call = self._call(state)
        if call.goals and kind == "first":
            for byte, returns, after in self._machine.entries(call.goals, call.fresh):
                arcs.append((byte, byte, pushdown.push((self._item_return(call, byte), *returns), after)))
        elif call.goals and kind == "after":
            returns = (self._item_return(call, 0),)
            arcs.append((0x2C, 0x2C, self._machine.after_whitespace(returns, call.goals, call.fresh)))
        pushdown.set_arcs(row, arcs)

    def resume(self, pushdown: Pushdown, ret: int, key: tuple, result: int) -> int:
        """Called by the pushdown automaton. Return states: `first`, `close`: behind white space; `item`: behind an
        item; `scope`: behind it all."""
        kind, state = key[:2]
        if kind in ("first", "close"):
            return self._row(kind, state)
        if kind == "item":
            return self._row("after", self._best([tracker for mask, tracker in state.after if mask & result]))
        return pushdown.pop(result)

    def resume_repeated(self, pushdown: Pushdown, ret: int, key: tuple, result: int) -> int:
        """Called by the pushdown automaton: behind an item that has come before."""
        trackers = []
        for mask, (i, tracked) in key[1].after:
            after = self._plans[i].after_repetition(tracked) if mask & result else None
            if after is not None:
                trackers.append((i, after))
        return self._row("after", self._best(trackers)) if trackers else DEAD

    def canonical(self, key: tuple, text: bytes) -> bytes:
        """What equal items share. The first item's text lacks the byte with which it begins."""
        first = bytes((key[2],)) if key[2] else b""
        return value_key(json.loads(first + text, parse_float=Decimal)).encode()

    def canonical_prefix(self, key: tuple, text: bytes) -> bytes:
        """What is certain of a string up to its first escape; nothing is of other items that are not complete."""
        first = bytes((key[2],)) if key[2] else b""
        before, quote, inside = (first + text).partition(b'"')
        if not quote or before.strip():
            return b""
        end = min((place for place in (inside.find(b"\\"), inside.find(b'"')) if place >= 0), default=len(inside))
        return value_key(inside[:end].decode("utf-8", "ignore"))[:-1].encode()

    def canonical_beginning(self, key: tuple, text: bytes) -> bytes:
        """The same of what is begun: only asked inside of strings, behind a whole character."""
        first = bytes((key[2],)) if key[2] else b""
        return value_key(json.loads(first + text + b'"'))[:-1].encode()

    def _best(self, trackers: list[tuple[int, ArrayState]]) -> Trackers:
        if len(trackers) == 1:
            return tuple(trackers)
        states: dict[int, list[ArrayState]] = {}
        for i, tracked in trackers:
            states.setdefault(i, []).append(tracked)
        return tuple(sorted((i, state) for i in states for state in self._plans[i].best(states[i])))

    def _result(self, state: Trackers) -> int:
        result = 0
        for i, tracked in state:
            if self._plans[i].accepts(tracked):
                result |= self._bits[i]
        return result

    def _call(self, state: Trackers) -> _ItemCall:
        call = self._calls.get(state)
        if call is None:
            options = [
                (wanted, (i, after), self._plans[i].unique and after.used == tracked.used)
                for i, tracked in state
                for wanted, after in self._plans[i].successors(tracked)
            ]
            goals = self._machine.goals(wanted for wanted, _, _ in options)
            bit_of = {goal: 1 << bit for bit, goal in enumerate(goals)}
            bits: dict[tuple[int, ArrayState], int] = {}
            # A rare value is only asked for while it has not come.
            fresh = (1 << len(goals)) - 1
            for wanted, tracker, must_be_fresh in options:
                bits[tracker] = bits.get(tracker, 0) | bit_of[wanted]
                if not must_be_fresh:
                    fresh &= ~bit_of[wanted]
            after = tuple((mask, tracker) for tracker, mask in bits.items())
            call = self._calls[state] = _ItemCall(goals, after, fresh)
        return call

    def _item_return(self, call: _ItemCall, first_byte: int) -> int:
        """`first_byte`: what has been read of the item when it is called, for the comparison with other items."""
        key = ("item", call, first_byte if self._remembers else 0)
        ret = self._returns.get(key)
        if ret is None:
            ret = self._returns[key] = self._pushdown.new_return(self, key, remembers=self._remembers)
        return ret

    def _row(self, kind: str, state: Trackers) -> int:
        key = (kind, state)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._pushdown.new_row(self, key)
        return row

    def _return(self, kind: str, state: Trackers) -> int:
        key = (kind, state)
        ret = self._returns.get(key)
        if ret is None:
            ret = self._returns[key] = self._pushdown.new_return(self, key, scope=kind == "scope")
        return ret
