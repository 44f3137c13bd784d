"""What can lie on the stacks of a context-free grammar: expressions still to be read, as interned numbers.

A *frame* is a part of a rule that is still to come: a sequence, a choice, a repetition with its counts, a rule, the
rest of a literal, a state inside a character or a regular language. `FrameTable` lowers the rules' expressions to
frames where they are entered, and tells of each whether it can be empty (`nullable`) and, for those that read
something, which bytes lead where (`arcs`). `stack_sets` piles them up, `context_free` runs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..budget import Budget
from ..json_schema.schema import Schema, alternatives
from ..languages.char_set import CharSet
from ..languages.language import JointAutomaton, Language
from .free_text import MarkWatch
from .grammar_rules import (
    Choice,
    Expression,
    FreeText,
    JsonValue,
    Literal,
    OneOf,
    Reference,
    Regular,
    Repetition,
    RuleFacts,
    Rules,
    Sequence,
    is_productive,
)

NOTHING_LEFT = 0
"""The frame of the empty text: pushing it changes nothing."""

LITERAL, CHARACTER, REGULAR, FREE_TEXT, JSON, VALUE, SEQUENCE, CHOICE, REPETITION, RULE, RETURN, EMPTY = range(12)
"""Kinds, the first field of a frame. The other fields:

LITERAL     bytes, offset: the literal from the offset on.
CHARACTER   ((byte ranges, frame after them), …): within a character, or a set of them.
REGULAR     automaton, state: within a text of a regular language.
FREE_TEXT   number of a FreeText, state of its MarkWatch: within free text.
JSON        number of a schema: a JSON value that is no number.
VALUE       number of a schema: any JSON value.
SEQUENCE    first frame, frame of the rest.
CHOICE      the frames to choose from.
REPETITION  frame, least and greatest count (-1: no limit), still to come.
RULE        number of the rule.
RETURN      rule, entry: `rule` has just been read, where `entry` was asked for; both are left recursive, of one rank.
EMPTY       the frame NOTHING_LEFT.
"""

TRIE_FROM = 8
"""So many literals to choose from become one regular language."""

Arc = tuple[int, int, int]
"""First byte, last byte, the frame that is left then."""


class FrameTable:
    """The frames of one grammar.

    Attributes:
        frames: each frame's kind and fields.
        nullable: whether it can be read without any byte.
        rank: each rule's rank (`RuleFacts`).
        schemas: the schemas that JSON frames name.
    """

    def __init__(self, rules: Rules, facts: RuleFacts, budget: Budget) -> None:
        self._rules, self._facts, self._budget = rules, facts, budget
        self._names = sorted(facts.rank)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self.rank = [facts.rank[name] for name in self._names]
        self.frames: list[tuple] = []
        self.nullable: list[bool] = []
        self.schemas: list[Schema] = []
        self._schema_numbers: dict[Schema, int] = {}
        self._ids: dict[tuple, int] = {}
        self._arcs: dict[int, tuple[Arc, ...]] = {}
        self._bodies: dict[int, int] = {}
        self._automata: list[JointAutomaton] = []
        self._automaton_numbers: dict[Language, int] = {}
        self._free_texts: list[tuple[FreeText, MarkWatch]] = []
        self._free_text_numbers: dict[FreeText, int] = {}
        self._value_options: dict[int, tuple[int, ...]] = {}
        self._corners: dict[int, tuple[tuple[int, tuple[int, ...]], ...]] = {}
        self._after_corner: dict[int, tuple[tuple[int, tuple[int, ...]], ...]] = {}
        by_rank: dict[int, list[int]] = {}
        for name in facts.left_recursive:
            by_rank.setdefault(facts.rank[name], []).append(self._numbers[name])
        groups = {rank: frozenset(members) for rank, members in by_rank.items()}
        self._recursive_with = {self._numbers[name]: groups[facts.rank[name]] for name in facts.left_recursive}
        self._can_be_all_of: dict[int, set[int]] = {}
        self.intern((EMPTY,))
        self.start = self.intern((RULE, self._numbers[rules.start]))

    def intern(self, frame: tuple) -> int:
        """The number of a frame."""
        number = self._ids.get(frame)
        if number is None:
            self._budget.spend(2)
            nullable = self._is_nullable(frame)
            number = self._ids[frame] = len(self.frames)
            self.frames.append(frame)
            self.nullable.append(nullable)
        return number

    def body(self, rule: int) -> int:
        """The frame of a rule's definition."""
        frame = self._bodies.get(rule)
        if frame is None:
            frame = self._bodies[rule] = self._lower(self._rules.definitions[self._names[rule]])
        return frame

    def recursive_with(self, rule: int) -> frozenset[int]:
        """The rules of a left recursive rule's rank, itself among them; none if it is not left recursive."""
        return self._recursive_with.get(rule, frozenset())

    def corners(self, rule: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """How a left recursive rule can begin, without the rules of its rank: (frame that reads, frames after it)."""
        if rule not in self._corners:
            self._find_corners(rule)
        return self._corners[rule]

    def after_corner(self, rule: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Where a left recursive rule is how another of its rank begins: (that other, the frames after it there)."""
        if rule not in self._after_corner:
            for member in self.recursive_with(rule):
                self.corners(member)
            self._after_corner.setdefault(rule, ())
        return self._after_corner[rule]

    def arcs(self, frame: int) -> tuple[Arc, ...]:
        """What a reading frame (LITERAL, CHARACTER, REGULAR, FREE_TEXT) does with bytes: disjoint ranges."""
        known = self._arcs.get(frame)
        if known is None:
            known = self._arcs[frame] = self._find_arcs(self.frames[frame])
        return known

    def value_options(self, value: int) -> tuple[int, ...]:
        """What a VALUE frame stands for: a number is read as a text of its regular language, to end wherever it can."""
        options = self._value_options.get(value)
        if options is None:
            number = self.frames[value][1]
            may_be = alternatives(self.schemas[number])
            options = () if may_be.numbers.is_empty() else (self._regular(may_be.numbers),)
            others = may_be.null, may_be.true, may_be.false, may_be.arrays, may_be.objects
            if any(others) or not may_be.strings.is_empty():
                options += (self.intern((JSON, number)),)
            self._value_options[value] = options
        return options

    def repeat(self, item: int, minimum: int, maximum: int) -> int:
        """The frame of a repetition (maximum -1: no limit), simplified."""
        if maximum == 0 or item == NOTHING_LEFT:
            return NOTHING_LEFT
        if self.nullable[item]:
            minimum = 0
        if (minimum, maximum) == (1, 1):
            return item
        if self.frames[item][0] == REPETITION:
            _, inner, low, high = self.frames[item]
            # The union of [low * n, high * n] for n in [minimum, maximum] has no gap if the first two touch.
            first = max(minimum, 1)
            if (high < 0 or high * first + 1 >= low * (first + 1) or maximum == first) and (minimum or low <= 1):
                greatest = -1 if high < 0 or maximum < 0 else high * maximum
                return self.repeat(inner, low * minimum, greatest)
        return self.intern((REPETITION, item, minimum, maximum))

    # Lowering.

    def _lower(self, expression: Expression) -> int:
        match expression:
            case Literal(text):
                return self.intern((LITERAL, text.encode(), 0)) if text else NOTHING_LEFT
            case OneOf(characters):
                return self._characters([(low, high, NOTHING_LEFT) for low, high in characters.ranges])
            case Regular(language):
                return self._regular(language)
            case FreeText():
                return self._free_text(expression)
            case JsonValue(schema):
                number = self._schema_numbers.setdefault(schema, len(self.schemas))
                if number == len(self.schemas):
                    self.schemas.append(schema)
                return self.intern((VALUE, number))
            case Reference(rule):
                return self.intern((RULE, self._numbers[rule]))
            case Sequence(parts):
                return self._sequence([self._lower(part) for part in parts])
            case Choice(options):
                alive = [option for option in options if is_productive(option, self._facts.productive)]
                return self._choice(self._lower(option) for option in _with_trie(alive))
            case Repetition(item, minimum, maximum):
                if not is_productive(item, self._facts.productive):
                    return NOTHING_LEFT
                return self.repeat(self._lower(item), minimum, -1 if maximum is None else maximum)

    def _sequence(self, parts: list[int]) -> int:
        rest = NOTHING_LEFT
        for part in reversed(parts):
            if part != NOTHING_LEFT:
                rest = part if rest == NOTHING_LEFT else self.intern((SEQUENCE, part, rest))
        return rest

    def _choice(self, options: Iterable[int]) -> int:
        flat: dict[int, None] = {}
        for option in options:
            fields = self.frames[option]
            flat.update(dict.fromkeys(fields[1] if fields[0] == CHOICE else (option,)))
        return next(iter(flat)) if len(flat) == 1 else self.intern((CHOICE, tuple(flat)))

    def _regular(self, language: Language) -> int:
        automaton = self._automaton_numbers.get(language)
        if automaton is None:
            joint = JointAutomaton((language,), self._budget)
            automaton = self._automaton_numbers[language] = len(self._automata)
            self._automata.append(joint)
        start = self._automata[automaton].start
        assert start is not None, "a language without texts is not productive"
        return self._regular_state(automaton, start)

    def _regular_state(self, automaton: int, state: int) -> int:
        """The frame of a state; nothing is left where the text can only end."""
        joint = self._automata[automaton]
        if joint.accepted(state) and not joint.arcs(state):
            return NOTHING_LEFT
        return self.intern((REGULAR, automaton, state))

    def _free_text(self, text: FreeText) -> int:
        number = self._free_text_numbers.get(text)
        if number is None:
            watch = MarkWatch([*(stop for stop, _ in text.stops), *text.excluded], self._budget)
            number = self._free_text_numbers[text] = len(self._free_texts)
            self._free_texts.append((text, watch))
        return self.intern((FREE_TEXT, number, 0))

    # Facts.

    def _is_nullable(self, frame: tuple) -> bool:
        kind, nullable = frame[0], self.nullable
        if kind == SEQUENCE:
            return nullable[frame[1]] and nullable[frame[2]]
        if kind == CHOICE:
            return any(nullable[option] for option in frame[1])
        if kind == REPETITION:
            return frame[2] == 0
        if kind == RULE:
            return self._names[frame[1]] in self._facts.nullable
        if kind == REGULAR:
            return self._automata[frame[1]].accepted(frame[2]) != 0
        if kind == FREE_TEXT:
            return self._free_texts[frame[1]][0].may_end
        if kind == RETURN:
            return self._returns_to_entry(frame[1], frame[2])
        return kind == EMPTY

    def _returns_to_entry(self, rule: int, entry: int) -> bool:
        """Whether `rule` just read can be all of `entry`."""
        known = self._can_be_all_of.get(entry)
        if known is None:
            begins: dict[int, list[int]] = {}
            for corner in self.recursive_with(entry):
                for outer, frames in self.after_corner(corner):
                    self._budget.spend()
                    if all(self.nullable[frame] for frame in frames):
                        begins.setdefault(outer, []).append(corner)
            known, waiting = {entry}, [entry]
            while waiting:
                for corner in begins.get(waiting.pop(), ()):
                    if corner not in known:
                        known.add(corner)
                        waiting.append(corner)
            self._can_be_all_of[entry] = known
        return rule in known

    def _find_corners(self, rule: int) -> None:
        members = self.recursive_with(rule)
        found: dict[tuple[int, tuple[int, ...]], None] = {}
        inner: dict[tuple[int, tuple[int, ...]], None] = {}
        waiting: list[tuple[int, tuple[int, ...]]] = [(self.body(rule), ())]
        while waiting:
            self._budget.spend()
            frame, after = waiting.pop()
            fields = self.frames[frame]
            kind = fields[0]
            if kind == SEQUENCE:
                waiting.append((fields[1], (fields[2], *after)))
                if self.nullable[fields[1]]:
                    waiting.append((fields[2], after))
            elif kind == CHOICE:
                waiting.extend((option, after) for option in fields[1])
            elif kind == REPETITION:
                waiting.append((fields[1], self._after_one(frame, after)))
            elif kind == RULE and fields[1] in members:
                inner[fields[1], after] = None
            elif kind != EMPTY:
                found[frame, after] = None
        self._corners[rule] = tuple(found)
        for corner, after in inner:
            self._after_corner[corner] = (*self._after_corner.get(corner, ()), (rule, after))

    def _after_one(self, repetition: int, after: tuple[int, ...]) -> tuple[int, ...]:
        rest = self.one_less(repetition)
        return after if rest == NOTHING_LEFT else (rest, *after)

    def one_less(self, repetition: int) -> int:
        """What is left of a repetition after one of its items."""
        _, item, minimum, maximum = self.frames[repetition]
        return self.repeat(item, max(minimum - 1, 0), maximum if maximum < 0 else maximum - 1)

    # Bytes.

    def _find_arcs(self, frame: tuple) -> tuple[Arc, ...]:
        kind = frame[0]
        if kind == LITERAL:
            _, text, offset = frame
            rest = self.intern((LITERAL, text, offset + 1)) if offset + 1 < len(text) else NOTHING_LEFT
            return ((text[offset], text[offset], rest),)
        if kind == REGULAR:
            _, automaton, state = frame
            joint = self._automata[automaton]
            left = {target: self._regular_state(automaton, target) for _, target in joint.masked_arcs(state)}
            return self._byte_arcs(
                (spelling, left[target])
                for low, high, target in joint.arcs(state)
                for spelling in utf8_spellings(low, high)
            )
        if kind == FREE_TEXT:
            return self._free_text_arcs(frame[1], frame[2])
        return self._byte_arcs(frame[1])

    def _free_text_arcs(self, number: int, state: int) -> tuple[Arc, ...]:
        text, watch = self._free_texts[number]
        special = watch.arcs(state)
        spelled = [
            (spelling, self.intern((FREE_TEXT, number, 0)))
            for low, high in (~CharSet.of(special)).ranges
            for spelling in utf8_spellings(low, high)
        ]
        for character, target in special.items():
            after = self.intern((FREE_TEXT, number, target))
            if completed := watch.completed[target]:
                stops = [text.stops[mark][1] for mark in completed if mark < len(text.stops)]
                alive = [stop for stop in stops if is_productive(stop, self._facts.productive)]
                if not alive:
                    continue
                after = self._choice(map(self._lower, alive))
            spelled += [(spelling, after) for spelling in utf8_spellings(ord(character), ord(character))]
        return self._byte_arcs(spelled)

    def _characters(self, ranges: Iterable[tuple[int, int, int]]) -> int:
        spelled = tuple((spelling, after) for low, high, after in ranges for spelling in utf8_spellings(low, high))
        return self.intern((CHARACTER, spelled))

    def _byte_arcs(self, spelled: Iterable[tuple[tuple[tuple[int, int], ...], int]]) -> tuple[Arc, ...]:
        """Arcs for byte sequences, each with the frame after it.

        First byte ranges of UTF-8 spellings of disjoint sets are equal or disjoint.
        """
        arcs: list[Arc] = []
        longer: dict[tuple[int, int], list] = {}
        for spelling, after in spelled:
            self._budget.spend()
            if len(spelling) == 1:
                arcs.append((*spelling[0], after))
            else:
                longer.setdefault(spelling[0], []).append((spelling[1:], after))
        arcs.extend((low, high, self.intern((CHARACTER, tuple(rest)))) for (low, high), rest in longer.items())
        return tuple(arcs)


def utf8_spellings(low: int, high: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The UTF-8 spellings of a range of code points (without surrogates), as sequences of byte ranges."""
    waiting = [
        (max(low, first), min(high, last))
        for first, last in ((0x10000, 0x10FFFF), (0x800, 0xFFFF), (0x80, 0x7FF), (0, 0x7F))
        if low <= last and high >= first
    ]
    while waiting:
        low, high = waiting.pop()
        for tail in range(1, len(chr(high).encode())):
            mask = (1 << 6 * tail) - 1
            if low & ~mask != high & ~mask:
                if low & mask:
                    waiting += [((low | mask) + 1, high), (low, low | mask)]
                    break
                if high & mask != mask:
                    waiting += [(high & ~mask, high), (low, (high & ~mask) - 1)]
                    break
        else:
            yield tuple(zip(chr(low).encode(), chr(high).encode(), strict=True))


def _with_trie(options: list[Expression]) -> list[Expression]:
    """The options, with the literals among them as one language if they are many."""
    texts = [option.text for option in options if isinstance(option, Literal)]
    if len(texts) < TRIE_FROM:
        return options
    return [Regular(Language.literals(texts)), *(option for option in options if not isinstance(option, Literal))]
