"""The rows of JSON objects, from behind the `{` to behind the `}`.

An object is evaluated against the clauses of all goals of its value at once. What is known of it is a set of
*trackers*, (clause, ObjectState), one for each way in which a clause may still come to hold; when it ends, the goals
of those clauses that hold are its result. `LevelState` is all that a row depends on.

A key is called like a value: it ends with the number of its `key_code`, behind the colon. Where only declared names
may come, its rows are the choices of one trie that all states of the object share; where any name may come, those of a
JSON string. The value is called with the goals that the trackers set, and the trackers whose goal it satisfies go on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ..automata.cells import DEAD
from ..automata.choice_rows import add_choices
from ..languages.language import JointAutomaton
from ..languages.text_lowering import JsonStringRows
from .entry import Entry
from .key_rows import KeyAutomaton, OpenKeyAutomaton
from .keys import is_plain_name, key_code, key_of_code, spellings
from .object_plan import bit_numbers
from .plain_key_rows import PlainKeyRows

if TYPE_CHECKING:
    from ..automata.choice_rows import Choices
    from ..automata.pushdown import Pushdown
    from .clauses import ObjectClause
    from .machine import JsonMachine
    from .object_plan import ObjectPlan, ObjectState
    from .schema import Schema


class LevelState(NamedTuple):
    """How far an object has come.

    Attributes:
        trackers: (number of the clause, its state), sorted.
        seen: bit set of the declared names that it has, as far as they matter.
    """

    trackers: tuple[tuple[int, ObjectState], ...]
    seen: int


class _ValueCall(NamedTuple):
    """A value that is called, and what follows: the trackers that each goal keeps alive."""

    goals: tuple[Schema, ...]
    after: tuple[tuple[int, tuple[int, ObjectState]], ...]
    seen: int


class ObjectMachine:
    """The objects that a tuple of clauses allows; each clause comes with the bits of the goals that it fulfils."""

    def __init__(self, machine: JsonMachine, clauses: tuple[tuple[ObjectClause, int], ...]) -> None:
        self._machine = machine
        self._pushdown = machine.pushdown
        self._space = space = machine.satisfiability.key_space([clause for clause, _ in clauses])
        self._plans: list[ObjectPlan] = [machine.satisfiability.object_plan(clause, space) for clause, _ in clauses]
        self._bits = [bits for _, bits in clauses]
        self._rows: dict[tuple, int] = {}
        self._returns: dict[tuple, int] = {}
        self._calls: dict[tuple[LevelState, int], _ValueCall] = {}
        self._choices: Choices | None = None
        self._spelled: list[list[tuple[bytes, int]]] = []
        self._plain_keys: PlainKeyRows | None = None
        self._open_keys: tuple[OpenKeyAutomaton, JsonStringRows] | None = None
        self._keys: tuple[KeyAutomaton, JsonStringRows] | None = None
        self._additional: dict[tuple[int, ...], JointAutomaton] = {}

    def entries(self) -> list[Entry]:
        """How an object begins; nothing if none of the clauses can be fulfilled."""
        trackers = tuple((i, plan.initial) for i, plan in enumerate(self._plans) if plan.live(plan.initial, 0))
        if not trackers:
            return []
        state = self._normal(trackers, 0)
        scope = (self._return("scope", state),) if any(plan.may_remember for plan in self._plans) else ()
        if self._machine.whitespace.bracket_row is None:
            return [Entry(0x7B, scope, self._row("first", state))]
        return [Entry(0x7B, (*scope, self._return("first", state)), self._machine.whitespace.bracket_row)]

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple[str, LevelState, int]) -> None:
        """Called by the pushdown automaton. Rows: `first`: a key or the end; `next`: a key; `colon`: behind a key
        that is no choice; `after`: behind a value; `close`: the `}` behind white space."""
        kind, state, number = key
        arcs: list[tuple[int, int, int]] = []
        if kind in ("first", "close", "after"):
            result = self._result(state)
            whitespace = self._machine.whitespace
            if result:
                if kind != "after" or whitespace.optional:
                    arcs.append((0x7D, 0x7D, pushdown.pop(result)))
                if kind == "after" and whitespace.bracket_row is not None:
                    arcs += whitespace.entry_arcs(self._return("close", state))
        if kind in ("first", "next"):
            cell = self._key_cell(state)
            if cell != DEAD:
                arcs.append((0x22, 0x22, cell))
        elif kind == "after" and self._key_cell(state) != DEAD:
            arcs.append((0x2C, 0x2C, self._after_whitespace("next", state)))
        elif kind == "colon":
            arcs.append((0x3A, 0x3A, self._value_cell(state, number)))
        pushdown.set_arcs(row, arcs)

    def resume(self, pushdown: Pushdown, ret: int, key: tuple, result: int) -> int:
        """Called by the pushdown automaton. Return states: `first`, `next`, `close`: behind white space; `name`:
        behind a declared name and its colon; `key`: behind a name; `value`: behind a value; `scope`: behind it all."""
        kind, state, _ = key
        if kind in ("first", "next", "close"):
            return self._row(kind, state)
        if kind == "name":
            return self._value_cell(state, key_of_code(result))
        if kind == "key":
            number = key_of_code(result)
            return self._row("colon", state, number) if number < 0 or self._is_offered(state, number) else DEAD
        if kind == "value":
            return self._row("after", self._after_value(state, result))
        return pushdown.pop(result)

    def resume_repeated(self, pushdown: Pushdown, ret: int, key: tuple, result: int) -> int:
        """Called by the pushdown automaton: behind an additional name that has come before."""
        _, state, _ = key
        trackers = tuple((i, tracked) for i, tracked in state.trackers if not self._plans[i].remembers(tracked))
        left, number = LevelState(trackers, state.seen), key_of_code(result)
        return self._row("colon", left, number) if self._is_offered(left, number) else DEAD

    def canonical(self, key: tuple, text: bytes) -> bytes:
        """The name that a key spells (its text is behind the opening quote)."""
        return json.loads(b'"' + text).encode()

    def canonical_prefix(self, key: tuple, text: bytes) -> bytes:
        """The name that a key spells as far as it is whole characters."""
        end = text.find(b"\\")
        return _whole_characters(text if end < 0 else text[:end])

    def _result(self, state: LevelState) -> int:
        result = 0
        for i, tracked in state.trackers:
            if self._plans[i].accepts(tracked):
                result |= self._bits[i]
        return result

    def _key_cell(self, state: LevelState) -> int:
        """The cell of the quote before a key; DEAD: no key may come."""
        classes: set[int] = set()
        for i, tracked in state.trackers:
            classes.update(self._plans[i].offered_classes(tracked, state.seen))
        if classes and not self._space.general:
            return self._pushdown.push((self._return("key", state),), self._open_key_row())
        offered = 0
        for i, tracked in state.trackers:
            offered |= self._plans[i].offered_names(tracked, state.seen)
        if classes:
            return self._pushdown.push((self._return("key", state),), self._key_row(offered, tuple(sorted(classes))))
        if not offered:
            return DEAD
        return self._pushdown.push((self._name_return(state, offered),), self._name_choices().row)

    def _is_offered(self, state: LevelState, number: int) -> bool:
        """Whether the property with this key may come next."""
        return bool(self._call_of(state, number).goals)

    def _key_row(self, offered: int, classes: tuple[int, ...]) -> int:
        """The row behind the quote of a key which is one of the `offered` names or in one of the `classes`."""
        if self._keys is None:
            automaton = KeyAutomaton(self._space)
            self._keys = automaton, JsonStringRows(self._pushdown, automaton)
        automaton, rows = self._keys
        additional = self._additional.get(classes)
        if additional is None:
            languages = tuple(self._space.classes[number][0] for number in classes)
            additional = self._additional[classes] = JointAutomaton(languages, self._pushdown.budget)
        return rows.row(automaton.start(offered, additional, classes))

    def _open_key_row(self) -> int:
        """The row behind the quote of a key where any name may come."""
        names = self._space.names
        if self._plain_keys is None and is_plain_name("".join(names)):
            coded = zip(names, map(key_code, range(len(names))), strict=True)
            self._plain_keys = PlainKeyRows(self._pushdown, coded, key_code(-1))
        if self._plain_keys is not None:
            return self._plain_keys.start
        if self._open_keys is None:
            automaton = OpenKeyAutomaton(self._space)
            self._open_keys = automaton, JsonStringRows(self._pushdown, automaton)
        automaton, rows = self._open_keys
        return rows.row(automaton.start)

    def _name_choices(self) -> Choices:
        if self._choices is None:
            for number in range(len(self._spelled), len(self._space.names)):
                self._pushdown.budget.spend()
                code = key_code(number)
                self._spelled.append([(text + b'":', code) for text in spellings(self._space.names[number])])
            self._choices = add_choices(self._pushdown, (text for texts in self._spelled for text in texts))
            self._spelled = []
        return self._choices

    def _name_return(self, state: LevelState, offered: int) -> int:
        key = ("name", state)
        ret = self._returns.get(key)
        if ret is None:
            names = map(key_code, bit_numbers(offered))
            ret = self._pushdown.new_return(self, ("name", state, 0), choices=self._name_choices(), allowed=names)
            self._returns[key] = ret
        return ret

    def _value_cell(self, state: LevelState, key: int) -> int:
        """The cell of the colon: white space and the value are called."""
        call = self._call_of(state, key)
        return self._machine.after_whitespace((self._return("value", call),), call.goals)

    def _call_of(self, state: LevelState, key: int) -> _ValueCall:
        """The call of the value of a property; without goals if the property may not come."""
        code = (state, key)
        call = self._calls.get(code)
        if call is None:
            call = self._calls[code] = self._call(state, key)
        return call

    def _call(self, state: LevelState, key: int) -> _ValueCall:
        options = [
            (wanted, (i, after))
            for i, tracked in state.trackers
            if self._plans[i].offers(tracked, key, state.seen)
            for wanted, after in self._plans[i].successors(tracked, key, state.seen)
        ]
        seen = state.seen | 1 << key if key >= 0 else state.seen
        if len(options) == 1:
            ((wanted, tracker),) = options
            return _ValueCall((wanted,), ((1, tracker),), seen)
        goals = self._machine.goals(wanted for wanted, _ in options)
        bit_of = {goal: 1 << bit for bit, goal in enumerate(goals)}
        bits: dict[tuple[int, ObjectState], int] = {}
        for wanted, tracker in options:
            bits[tracker] = bits.get(tracker, 0) | bit_of[wanted]
        return _ValueCall(goals, tuple((mask, tracker) for tracker, mask in bits.items()), seen)

    def _after_value(self, call: _ValueCall, result: int) -> LevelState:
        return self._normal(tuple(tracker for mask, tracker in call.after if mask & result), call.seen)

    def _normal(self, trackers: tuple[tuple[int, ObjectState], ...], seen: int) -> LevelState:
        """The state without what does not matter."""
        if len(trackers) > 1:
            states: dict[int, list[ObjectState]] = {}
            for i, tracked in trackers:
                states.setdefault(i, []).append(tracked)
            trackers = tuple(sorted((i, state) for i in states for state in self._plans[i].best(states[i])))
        later = 0
        for i, tracked in trackers:
            later |= self._plans[i].may_come_later(tracked)
        return LevelState(trackers, seen & later)

    def _after_whitespace(self, kind: str, state: LevelState) -> int:
        whitespace = self._machine.whitespace
        if whitespace.row is None:
            return self._row(kind, state)
        return self._pushdown.push((self._return(kind, state),), whitespace.row)

    def _row(self, kind: str, state: LevelState, number: int = 0) -> int:
        key = (kind, state, number)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._pushdown.new_row(self, key)
        return row

    def _return(self, kind: str, state: LevelState | _ValueCall) -> int:
        key = (kind, state)
        ret = self._returns.get(key)
        if ret is None:
            remembers = (
                isinstance(state, LevelState)
                and kind == "key"
                and any(self._plans[i].remembers(tracked) for i, tracked in state.trackers)
            )
            ret = self._pushdown.new_return(self, (kind, state, 0), scope=kind == "scope", remembers=remembers)
            self._returns[key] = ret
        return ret


def _whole_characters(text: bytes) -> bytes:
    return text.decode("utf-8", "ignore").encode()
