"""JSON values as rows of the pushdown automaton: the way from schemas to bytes.

A value is called with *goals*, a tuple of schemas that are evaluated side by side on it, and ends with the bit set of
those that it satisfies, at least one. The first byte decides its type. Strings and numbers are regular languages;
the inside of an object or an array is the business of `ObjectMachine` and `ArrayMachine`, which keep sets of
*trackers* (clauses that may still hold, and how far each has come) and call the values inside with the goals that the
trackers set. Rows depend on the goals only, never on where the value stands: they are shared by all places.

No row is made from which the text could not be completed: a tracker exists only while its clause can be fulfilled
(`Satisfiability`), and every goal that a tracker sets keeps it alive when satisfied.

    machine = JsonMachine(pushdown, JsonOptions())
    pushdown.start_row = machine.value_row((schema,))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ..automata.cells import DEAD, SMALL_RESULTS
from ..automata.choice_rows import add_choices
from ..errors import GrammarError
from ..languages.language import JointAutomaton, Language
from ..languages.language_size import is_endless_automaton
from ..languages.number_blocks import number_block
from ..languages.text_lowering import JsonStringRows, Utf8Rows, any_string_block
from .array_machine import ArrayMachine
from .entry import Entry
from .keys import is_plain_name
from .object_machine import ObjectMachine
from .repetition import PLAIN_NUMBERS, check_repetition
from .satisfiability import Satisfiability
from .scarce_strings import ScarceStringRows, count_texts
from .schema import alternatives
from .schema_nodes import Located
from .whitespace import Whitespace, WhitespaceOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..automata.pushdown import Pushdown
    from .clauses import Alternatives, ArrayClause, ObjectClause
    from .schema import Schema
    from .schema_nodes import SchemaStore

Clause = TypeVar("Clause")

MAX_LISTED = 4096
"""Strings that are listed are made rows at once up to so many characters, more are spelled step by step."""


@dataclass(frozen=True, slots=True)
class JsonOptions:
    """How JSON is written.

    Attributes:
        any_order: properties may come in any order; else the declared ones in the schema's order, then all others.
        whitespace: how much white space there may be.
    """

    any_order: bool = False
    whitespace: WhitespaceOptions = field(default_factory=WhitespaceOptions)


class JsonMachine:
    """The rows of JSON values in one pushdown automaton.

    Attributes:
        pushdown: where the rows are.
        options: how JSON is written.
        satisfiability: what can be completed.
        whitespace: rows of white space, to be called.
    """

    def __init__(self, pushdown: Pushdown, options: JsonOptions | None = None) -> None:
        self.pushdown = pushdown
        self.options = options or JsonOptions()
        self.satisfiability = Satisfiability(pushdown.budget, any_order=self.options.any_order)
        self.whitespace = Whitespace(pushdown, self.options.whitespace)
        self._value_rows: dict[tuple[tuple[Schema, ...], int], int] = {}
        self._value_returns: dict[tuple[tuple[Schema, ...], int], int] = {}
        self._entries: dict[tuple[tuple[Schema, ...], int], tuple[Entry, ...]] = {}
        self._goal_numbers: dict[Schema, int] = {}
        self._strings: dict[tuple[Language, ...], int] = {}
        self._numbers: dict[tuple[Language, ...], list[Entry]] = {}
        self._scarce_strings: dict[tuple[tuple[Language, ...], int], int | None] = {}
        self._unfinished: dict[tuple[Language, ...], JointAutomaton] = {}
        self._literals: dict[tuple[bytes, int], int] = {}
        self._objects: dict[tuple[tuple[ObjectClause, int], ...], ObjectMachine] = {}
        self._arrays: dict[tuple[tuple[ArrayClause, int], ...], ArrayMachine] = {}

    def satisfiable(self, schema: Schema) -> bool:
        """Whether any JSON value that can be written satisfies `schema`. To be asked before its first value is called.

        Raises:
            GrammarError: the schema, or one inside it, asks for what is not supported (see `json_array_plan`).
        """
        if not self.satisfiability.satisfiable(schema):
            return False
        if schema.store is not None and _uses_keyword(schema.store, "uniqueItems"):
            check_repetition(schema, self.satisfiability)
        return True

    def value_row(self, goals: tuple[Schema, ...], fresh: int = 0) -> int:
        """The row at a value's first byte (white space is behind it). The value ends with the bit set of the `goals`
        that it satisfies, at least one of which must be satisfiable.

        Args:
            fresh: bit set of goals that are of use only with a value that did not come before. Where there are any, a
                number has only one spelling.
        """
        key = (goals, fresh)
        row = self._value_rows.get(key)
        if row is None:
            row = self._value_rows[key] = self.pushdown.new_row(self, ("value", *key))
        return row

    def goals(self, schemas: Iterable[Schema]) -> tuple[Schema, ...]:
        """tuple[Schema, ...] for these schemas: each once, in an order that does not depend on that of `schemas`."""
        numbers = self._goal_numbers
        for schema in (distinct := set(schemas)):
            if schema not in numbers:
                numbers[schema] = len(numbers)
        return tuple(sorted(distinct, key=numbers.__getitem__))

    def entries(self, goals: tuple[Schema, ...], fresh: int = 0) -> tuple[Entry, ...]:
        """All ways in which a value for `goals` begins, each with a byte of its own."""
        key = (goals, fresh)
        entries = self._entries.get(key)
        if entries is None:
            entries = self._entries[key] = tuple(self._find_entries(goals, fresh))
        return entries

    def after_whitespace(self, returns: tuple[int, ...], goals: tuple[Schema, ...], fresh: int = 0) -> int:
        """A cell that pushes `returns` and then calls a value, with white space before it if there is any."""
        if self.whitespace.row is None:
            return self.pushdown.push(returns, self.value_row(goals, fresh))
        key = (goals, fresh)
        ret = self._value_returns.get(key)
        if ret is None:
            ret = self._value_returns[key] = self.pushdown.new_return(self, key)
        return self.pushdown.push((*returns, ret), self.whitespace.row)

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple) -> None:
        """Called by the pushdown automaton."""
        if key[0] == "value":
            arcs = [
                (byte, byte, pushdown.push(returns, after) if returns else after)
                for byte, returns, after in self.entries(key[1], key[2])
            ]
            pushdown.set_arcs(row, arcs)
        else:
            _, rest, result = key
            cell = self._literal(rest[1:], result) if len(rest) > 1 else pushdown.pop(result)
            pushdown.set_arcs(row, ((rest[0], rest[0], cell),))

    def resume(self, pushdown: Pushdown, ret: int, key: tuple, result: int) -> int:
        """Called by the pushdown automaton: the white space before a value has ended."""
        return self.value_row(*key)

    def _find_entries(self, goals: tuple[Schema, ...], fresh: int) -> list[Entry]:
        self.pushdown.budget.spend(5 * len(goals))
        values = [alternatives(goal) for goal in goals]
        null = true = false = 0
        for bit, value in enumerate(values):
            null |= value.null << bit
            true |= value.true << bit
            false |= value.false << bit
        entries = [
            Entry(text[0], (), self._literal(text[1:], bits))
            for text, bits in ((b"null", null), (b"true", true), (b"false", false))
            if bits
        ]
        strings = tuple([value.strings for value in values])
        row = (fresh and self._scarce_string_row(strings, fresh)) or self._string_row(strings)
        if row != DEAD:
            entries.append(Entry(0x22, (), row))
        numbers = tuple([value.numbers for value in values])
        if fresh:
            numbers = tuple(language & PLAIN_NUMBERS for language in numbers)
        entries += self._number_entries(numbers)
        entries += self._container_entries(values)
        return entries

    def _container_entries(self, values: list[Alternatives]) -> list[Entry]:
        entries: list[Entry] = []
        arrays = _by_clause(value.arrays for value in values)
        if arrays:
            array = self._arrays.get(arrays)
            if array is None:
                array = self._arrays[arrays] = ArrayMachine(self, arrays)
            entries += array.entries()
        objects = _by_clause(value.objects for value in values)
        if objects:
            obj = self._objects.get(objects)
            if obj is None:
                obj = self._objects[objects] = ObjectMachine(self, objects)
            entries += obj.entries()
        return entries

    def _scarce_string_row(self, languages: tuple[Language, ...], fresh: int) -> int | None:
        """The row of strings of which some are of use only if they did not come before, and could run out; else
        None."""
        key = (languages, fresh)
        if key not in self._scarce_strings:
            row, budget = None, self.pushdown.budget
            ending = [each for bit, each in enumerate(languages) if fresh >> bit & 1 and each != Language.everything()]
            if any(not is_endless_automaton(self._joint((each,)), budget) for each in ending):
                joint = self._joint(languages)
                counts = count_texts(joint, budget, fresh)
                if counts is None:
                    reason = "strings that must be different are told apart in too many ways at once"
                    raise GrammarError("too_complex", reason, keyword="uniqueItems")
                row = ScarceStringRows(self.pushdown, joint, counts).start
            self._scarce_strings[key] = row
            for each in ending:
                if (each,) != languages:
                    self._unfinished.pop((each,), None)
        return self._scarce_strings[key]

    def _string_row(self, languages: tuple[Language, ...]) -> int:
        row = self._strings.get(languages)
        if row is None:
            row = self._ready_row(languages)
            if row is not None:
                self._strings[languages] = row
        if row is None:
            joint = self._joint(languages)
            state = joint.start
            if state is None:
                row = DEAD
            elif joint.accepted(state) < SMALL_RESULTS and joint.arcs(state) == _any_character(state):
                row = self.pushdown.add_block(any_string_block(joint.accepted(state)))
            else:
                row = JsonStringRows(self.pushdown, joint).start
            self._strings[languages] = row
            self._unfinished.pop(languages, None)
        return row

    def _ready_row(self, languages: tuple[Language, ...]) -> int | None:
        """The row of no strings, of all, or of strings that are listed one by one and have only one spelling; else
        None."""
        if 1 << len(languages) > SMALL_RESULTS:
            return None
        every = Language.everything()
        accepted, others = 0, False
        for place, language in enumerate(languages):
            if language == every:
                accepted |= 1 << place
            elif not language.is_nothing():
                others = True
        if not others:
            return self.pushdown.add_block(any_string_block(accepted)) if accepted else DEAD
        bits: dict[str, int] = {}
        for place, language in enumerate(languages):
            texts = language.literal_set()
            if texts is None:
                return None
            for text in texts:
                bits[text] = bits.get(text, 0) | 1 << place
        if not 0 < sum(map(len, bits)) <= MAX_LISTED or not all(map(is_plain_name, bits)):
            return None
        return add_choices(self.pushdown, ((text.encode() + b'"', result) for text, result in bits.items())).row

    def _number_entries(self, languages: tuple[Language, ...]) -> list[Entry]:
        entries = self._numbers.get(languages)
        if entries is None:
            if all(map(Language.is_nothing, languages)):
                entries = self._numbers[languages] = []
                return entries
            block = number_block(languages)
            if block is not None:
                first = self.pushdown.add_block(block)
                entries = self._numbers[languages] = [Entry(byte, (), first + row) for byte, row in block.arcs]
                return entries
            joint = self._joint(languages)
            entries = []
            if joint.start is not None:
                rows = Utf8Rows(self.pushdown, joint)
                for first, last, state in joint.arcs(joint.start):
                    entries += [Entry(byte, (), rows.row(state)) for byte in range(first, last + 1)]
            self._numbers[languages] = entries
            del self._unfinished[languages]
        return entries

    def _joint(self, languages: tuple[Language, ...]) -> JointAutomaton:
        """Kept until its rows are begun, so that work that the budget stops is not lost."""
        joint = self._unfinished.get(languages)
        if joint is None:
            joint = self._unfinished[languages] = JointAutomaton(languages, self.pushdown.budget)
        return joint

    def _literal(self, rest: bytes, result: int) -> int:
        row = self._literals.get((rest, result))
        if row is None:
            row = self._literals[rest, result] = self.pushdown.new_row(self, ("literal", rest, result))
        return row


def _uses_keyword(store: SchemaStore, keyword: str) -> bool:
    """Whether a subschema that was read has the keyword."""
    return any(type(node) is Located and keyword in node.keywords for node in store.nodes.values())


def _any_character(target: int) -> tuple[tuple[int, int, int], ...]:
    """The arcs of a state from which every character leads to `target`."""
    return (0, 0xD7FF, target), (0xE000, 0x10FFFF, target)


def _by_clause(clauses: Iterable[tuple[Clause, ...]]) -> tuple[tuple[Clause, int], ...]:
    lists = tuple(clauses)
    if len(lists) == 1 and len(lists[0]) < 2:
        return tuple([(clause, 1) for clause in lists[0]])
    bits: dict[Clause, int] = {}
    for bit, alternative in enumerate(lists):
        for clause in alternative:
            bits[clause] = bits.get(clause, 0) | 1 << bit
    return tuple(bits.items())
