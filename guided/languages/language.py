"""Regular languages of text: what a string, a key or a number may be, as an expression that is never expanded whole.

    word = Language.regex(r"[a-z]+", "python")
    short = word & Language.length(2, 8) - Language.literals(["no", "never"])
    short.contains("yes")
    automaton = JointAutomaton((word, short))

`Language` is the expression, `JointAutomaton` runs several of them side by side, state by state, on demand
(`derivatives.TermTable` does the work). `text_lowering` turns a JointAutomaton into bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from math import inf
from typing import Literal

from ..budget import Budget
from .char_set import ALL_CHARACTERS, CharSet
from .character_classes import CharacterClasses
from .derivatives import Derivatives, overlay
from .language_terms import char_sets_of, translate
from .literal_trie import LiteralTrie
from .liveness import Liveness
from .terms import EVERYTHING, Leaf, TermTable

Dialect = Literal["python", "ecma"]

MAX_PLAIN_PARTS = 500
"""Expressions with more parts are not searched for whether they are plain."""
MAX_FILTERED_LITERALS = 256
"""Finite sets up to this size are filtered at once when intersected."""


class Language:
    """An immutable regular set of texts over Unicode scalar values. Equal expressions are equal, in O(1).

    Build it with the static methods, with `&`, `|`, `-`, `~` (complement within all texts), `+` (concatenation) and
    `repeat`.

    Attributes:
        kind: "chars", "literals", "leaf", "cat", "or", "and", "not" or "rep".
        value: the CharSet, the frozenset of texts, the Leaf, or the (low, high) of a repetition.
        parts: the operands.
    """

    __slots__ = ("_empty", "_own", "digest", "kind", "parts", "value")

    def __init__(self, kind: str, value, parts: tuple[Language, ...] = ()) -> None:
        self.kind, self.value, self.parts = kind, value, parts
        if kind == "literals":
            shown = "\0".join(f"{len(text)}:{text}" for text in sorted(value))
        elif kind == "chars":
            shown = repr(value.ranges)
        else:
            shown = repr(value)
        content = f"{kind} {len(parts)} {shown}".encode("utf-8", "surrogatepass")
        self.digest = blake2b(content + b"".join([part.digest for part in parts]), digest_size=16).digest()
        self._own: tuple[_Terms, int] | None = None
        self._empty: bool | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Language) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple:
        return _rebuild, (self.kind, self.value, self.parts)

    def __repr__(self) -> str:
        shown = self.value if self.kind != "literals" or len(self.value) < 8 else f"{len(self.value)} texts"
        return f"Language({self.kind}, {shown!r}, {self.parts!r})"

    # --- ways to build one ------------------------------------------------------------------------------------

    @staticmethod
    def everything() -> Language:
        """All texts."""
        return _EVERYTHING

    @staticmethod
    def nothing() -> Language:
        """No text."""
        return _NOTHING

    @staticmethod
    def literal(text: str) -> Language:
        """One text. A text with a lone surrogate is no text: the language is empty."""
        return Language.literals((text,))

    @staticmethod
    def literals(texts: Iterable[str]) -> Language:
        """A finite set of texts."""
        kept = frozenset(text for text in texts if text.isascii() or not _has_surrogate(text))
        return Language("literals", kept) if kept else Language.nothing()

    @staticmethod
    def chars(char_set: CharSet) -> Language:
        """One character out of a set."""
        return Language("chars", char_set) if char_set else Language.nothing()

    @staticmethod
    def length(minimum: int, maximum: int | None) -> Language:
        """Texts of `minimum` to `maximum` (None: no limit) code points."""
        return Language.chars(ALL_CHARACTERS).repeat(minimum, maximum)

    @staticmethod
    def regex(pattern: str, dialect: Dialect) -> Language:
        """What a regular expression matches: `regex_syntax.parse_regex`.

        Raises:
            GrammarError: malformed, or beyond what is exact here; names the position.
        """
        from .regex_syntax import parse_regex

        return parse_regex(pattern, dialect)

    @staticmethod
    def from_leaf(leaf: Leaf) -> Language:
        """What an automaton written by hand accepts. Its repr must be its content."""
        return _NOTHING if leaf.is_empty else Language("leaf", leaf)

    @staticmethod
    def concatenation(parts: Iterable[Language]) -> Language:
        """The parts one after the other."""
        flat: list[Language] = []
        for part in parts:
            flat += part.parts if part.kind == "cat" else (part,)
        if any(part.is_nothing() for part in flat):
            return Language.nothing()
        flat = [part for part in flat if part != _EMPTY_TEXT]
        if not flat:
            return _EMPTY_TEXT
        return flat[0] if len(flat) == 1 else Language("cat", None, tuple(flat))

    @staticmethod
    def union(members: Iterable[Language]) -> Language:
        """What any of the members accepts."""
        flat: dict[Language, None] = {}
        texts: set[str] = set()
        for member in members:
            for part in member.parts if member.kind == "or" else (member,):
                if part.kind == "literals":
                    texts |= part.value
                else:
                    flat[part] = None
        if _EVERYTHING in flat:
            return _EVERYTHING
        if texts:
            flat[Language.literals(texts)] = None
        if not flat:
            return _NOTHING
        return next(iter(flat)) if len(flat) == 1 else Language("or", None, tuple(flat))

    @staticmethod
    def intersection(members: Iterable[Language]) -> Language:
        """What all of the members accept."""
        flat: dict[Language, None] = {}
        for member in members:
            for part in member.parts if member.kind == "and" else (member,):
                flat[part] = None
        flat.pop(_EVERYTHING, None)
        if len(flat) == 1:
            return next(iter(flat))
        flat = _joined_leaves(flat)
        if any(part.is_nothing() for part in flat):
            return _NOTHING
        negated = [part.parts[0] for part in flat if part.kind == "not"]
        if len(negated) > 1:
            flat = {part: None for part in flat if part.kind != "not"} | {~Language.union(negated): None}
        finite = [part for part in flat if part.kind == "literals"]
        if finite:
            texts = frozenset.intersection(*[part.value for part in finite])
            for part in list(flat):
                if part.kind == "not" and part.parts[0].kind == "literals":
                    texts -= part.parts[0].value
                    del flat[part]
            rest = [part for part in flat if part.kind != "literals"]
            if len(texts) <= MAX_FILTERED_LITERALS:
                return Language.literals(text for text in texts if all(part.contains(text) for part in rest))
            flat = {Language.literals(texts): None} | dict.fromkeys(rest)
        if not flat:
            return _EVERYTHING
        return next(iter(flat)) if len(flat) == 1 else Language("and", None, tuple(flat))

    def repeat(self, minimum: int, maximum: int | None) -> Language:
        """The language `minimum` to `maximum` (None: without end) times."""
        if maximum is not None and maximum < minimum:
            return _NOTHING
        if self == _ANY_CHARACTER and (minimum, maximum) == (0, None):
            return _EVERYTHING
        if (minimum, maximum) == (1, 1):
            return self
        if maximum == 0 or self == _EMPTY_TEXT:
            return _EMPTY_TEXT
        if self.is_nothing():
            return _NOTHING if minimum else _EMPTY_TEXT
        return Language("rep", (minimum, maximum), (self,))

    def __add__(self, other: Language) -> Language:
        return Language.concatenation((self, other))

    def __or__(self, other: Language) -> Language:
        return Language.union((self, other))

    def __and__(self, other: Language) -> Language:
        return Language.intersection((self, other))

    def __sub__(self, other: Language) -> Language:
        return Language.intersection((self, ~other))

    def __invert__(self) -> Language:
        if self.kind == "not":
            return self.parts[0]
        if self == _EVERYTHING:
            return Language.nothing()
        return _EVERYTHING if self.is_nothing() else Language("not", None, (self,))

    # --- questions --------------------------------------------------------------------------------------------

    def is_nothing(self) -> bool:
        """Whether it is the empty language by its form; `is_empty` finds out exactly."""
        return self.kind == "or" and not self.parts

    def contains(self, text: str, budget: Budget | None = None) -> bool:
        """Whether the text is in the language."""
        if self.kind == "literals":
            return text in self.value
        if _has_surrogate(text):
            return False
        terms, term = self._automaton(budget)
        ranges_of = terms.table.classes.ranges_of
        for character in text:
            point = ord(character)
            for mask, target in terms.derivatives.arcs(term):
                if any(low <= point <= high for low, high in ranges_of(mask)):
                    term = target
                    break
            else:
                return False
            if term == EVERYTHING:
                return True
        return terms.table.nullable[term]

    def is_empty(self, budget: Budget | None = None) -> bool:
        """Whether no text is in the language. Exact."""
        if self._empty is None:
            if self._is_plain():
                self._empty = self.is_nothing()
            else:
                terms, term = self._automaton(budget)
                self._empty = not terms.liveness.is_live(term)
        return self._empty

    def _is_plain(self) -> bool:
        """Whether it is made without intersection and complement: then it is empty only if it says so."""
        pending: list[Language] = [self]
        for part in pending:
            if part.kind in ("and", "not") or len(pending) > MAX_PLAIN_PARTS:
                return False
            pending.extend(part.parts)
        return True

    def shortest(self, budget: Budget | None = None) -> str | None:
        """One of the shortest texts; None: the language is empty."""
        terms, term = self._automaton(budget)
        return terms.liveness.shortest(term)

    def literal_set(self) -> frozenset[str] | None:
        """All its texts, where that is cheaply known; else None."""
        if self.kind == "literals":
            return self.value
        return frozenset() if self.is_nothing() else None

    def min_length(self) -> int:
        """No text is shorter (a lower bound)."""
        terms, term = self._automaton(None)
        return terms.table.min_length[term]

    def max_length(self) -> int | None:
        """No text is longer (an upper bound); None: no bound is known."""
        terms, term = self._automaton(None)
        longest = terms.table.max_length[term]
        return None if longest == inf else int(longest)

    def _automaton(self, budget: Budget | None) -> tuple[_Terms, int]:
        """The language as a term of its own, kept for the next question; of a budget's own, if there is one."""
        if self._own is None or (budget is not None and self._own[0].table.budget is not budget):
            terms = _Terms(char_sets_of([self]), budget or Budget())
            self._own = terms, translate([self], terms.table)[0]
        return self._own


class _Terms:
    """A table of terms with their derivatives and liveness."""

    __slots__ = ("derivatives", "liveness", "table")

    def __init__(self, char_sets: Iterable[CharSet], budget: Budget) -> None:
        self.table = TermTable(CharacterClasses(char_sets), budget)
        self.derivatives = Derivatives(self.table)
        self.liveness = Liveness(self.table, self.derivatives)


_NOTHING = Language("or", None)
_EMPTY_TEXT = Language("literals", frozenset([""]))
_ANY_CHARACTER = Language("chars", ALL_CHARACTERS)
_EVERYTHING = Language("rep", (0, None), (_ANY_CHARACTER,))


class JointAutomaton:
    """One deterministic automaton that runs several languages side by side, each state built when it is asked for.

    No arc leads to a state from which no language can still accept, so every walk can be completed.
    """

    def __init__(self, languages: tuple[Language, ...], budget: Budget | None = None) -> None:
        """Takes note of the languages; `budget` pays for all work done here and later."""
        finite: dict[str, int] = {}
        others: list[tuple[Language, int]] = []
        for index, language in enumerate(languages):
            if language.kind == "literals":
                for text in language.value:
                    finite[text] = finite.get(text, 0) | 1 << index
            elif not language.is_nothing():
                others.append((language, 1 << index))
        self._trie = LiteralTrie(finite, tells_ends_apart=True) if finite else None
        self._states: list[tuple[tuple[int, int], ...]] = []
        self._state_ids: dict[tuple[tuple[int, int], ...], int] = {}
        self._masked_arcs: list[tuple[tuple[int, int], ...] | None] = []
        self._arcs: list[tuple[tuple[int, int, int], ...] | None] = []
        if self._trie is None and len(others) == 1:
            # What is known of a language already (that it is not empty, above all) is not found out again.
            ((language, bits),) = others
            self._terms, term = language._automaton(budget)
            self._components = [(term, bits)]
        else:
            self._terms, self._components = self._joined(others, budget or Budget())
        self._start: int | None = -1

    def _joined(self, others: list[tuple[Language, int]], budget: Budget) -> tuple[_Terms, list[tuple[int, int]]]:
        """The terms and bits of several languages, and of the trie, in one table."""
        char_sets = dict.fromkeys(char_sets_of([language for language, _ in others]))
        if self._trie is not None:
            char_sets |= dict.fromkeys(self._trie.char_sets())
        joined = _Terms(char_sets, budget)
        terms = translate([language for language, _ in others], joined.table)
        components = [(term, bits) for term, (_, bits) in zip(terms, others, strict=True)]
        if self._trie is not None:
            # Bits 0: the trie knows which of the literal languages accept.
            components.append((joined.table.leaf(self._trie, self._trie.start), 0))
        return joined, components

    @property
    def start(self) -> int | None:
        """The first state; None: all languages are empty. That is found out on first need."""
        if self._start == -1:
            self._start = self._state_of(self._components)
            self._components = []
        return self._start

    def arcs(self, state: int) -> tuple[tuple[int, int, int], ...]:
        """(first, last, next state): sorted, disjoint ranges of code points, without surrogates."""
        known = self._arcs[state]
        if known is None:
            ranges_of = self._terms.table.classes.ranges_of
            known = self._arcs[state] = tuple(
                sorted(
                    [(low, high, target) for mask, target in self.masked_arcs(state) for low, high in ranges_of(mask)]
                )
            )
        return known

    def masked_arcs(self, state: int) -> tuple[tuple[int, int], ...]:
        """(mask of character classes, next state): one for each next state; `ranges_of` tells the code points."""
        known = self._masked_arcs[state]
        if known is None:
            known = self._masked_arcs[state] = self._expand(state)
        return known

    def ranges_of(self, mask: int) -> tuple[tuple[int, int], ...]:
        """The code points of a mask, as sorted (first, last) pairs."""
        return self._terms.table.classes.ranges_of(mask)

    def accepted(self, state: int) -> int:
        """Bit i is set when languages[i] accepts the text read so far."""
        table, accepted = self._terms.table, 0
        for term, bits in self._states[state]:
            if table.nullable[term]:
                accepted |= bits or self._trie_bits(term)
        return accepted

    def accepts_all_from(self, state: int) -> int:
        """The bit set of the languages that accept, if these accept whatever follows and no other can; otherwise 0."""
        components = self._states[state]
        return components[0][1] if len(components) == 1 and components[0][0] == EVERYTHING else 0

    def loop(self, state: int) -> tuple[int, int, int | None] | None:
        """(state, minimum, maximum) when a state is a counted loop over single characters: another state that loops
        without a count, and how often it must and may still be gone round.
        """
        components, keys = self._states[state], self._terms.table.keys
        term, bits = components[0]
        if len(components) > 1 or keys[term][0] != "rep":
            return None
        _, body, low, high = keys[term]
        if keys[body][0] != "chars":
            return None
        if (low, high) == (0, inf):
            return None
        loop = self._state_of([(self._terms.table.repeat(body, 0, inf), bits)])
        assert loop is not None
        return loop, low, None if high == inf else int(high)

    def bounded(self, state: int) -> tuple[int, int, int] | None:
        """(state, maximum, furthest) when all that a state asks for is a simple language and a maximum of characters:
        the state of that language alone, how many characters may come, and how many at most any state behind it
        `need`s.
        """
        components, table = self._states[state], self._terms.table
        term, bits = components[0]
        if len(components) > 1 or table.keys[term][0] != "and" or len(table.keys[term][1]) != 2:
            return None
        one, other = table.keys[term][1]
        for language, bound in ((one, other), (other, one)):
            body, low, high = table.as_repeat(bound)
            furthest = table.furthest[language]
            if body == table.any_char and low == 0 and furthest < inf:
                inner = self._state_of([(language, bits)])
                assert inner is not None
                return inner, int(high), int(furthest)
        return None

    def need(self, state: int) -> int:
        """How many characters at least must come before one of the languages accepts; exact behind `bounded`."""
        shortest = self._terms.table.min_length
        return min([shortest[term] for term, _ in self._states[state]])

    def _trie_bits(self, term: int) -> int:
        assert self._trie is not None
        return self._trie.bits(self._terms.table.keys[term][2])

    def _state_of(self, components: Iterable[tuple[int, int]]) -> int | None:
        """The state for these terms and bits, without those that accept nothing; None when none is left."""
        bits_of: dict[int, int] = {}
        for term, bits in components:
            bits_of[term] = bits_of.get(term, 0) | bits
        is_live = self._terms.liveness.is_live
        key = tuple(sorted((term, bits) for term, bits in bits_of.items() if is_live(term)))
        if not key:
            return None
        state = self._state_ids.get(key)
        if state is None:
            state = self._state_ids[key] = len(self._states)
            self._states.append(key)
            self._masked_arcs.append(None)
            self._arcs.append(None)
        return state

    def _expand(self, state: int) -> tuple[tuple[int, int], ...]:
        arcs, budget = self._terms.derivatives.arcs, self._terms.table.budget
        budget.spend(10)
        lists = [[(mask, (target, bits)) for mask, target in arcs(term)] for term, bits in self._states[state]]
        by_target: dict[int, int] = {}
        for mask, components in overlay(lists, budget):
            target = self._state_of(components)
            if target is not None:
                by_target[target] = by_target.get(target, 0) | mask
        return tuple((mask, target) for target, mask in by_target.items())


def _joined_leaves(parts: dict[Language, None]) -> dict[Language, None]:
    """The parts of an intersection, with leaves that can be joined as one."""
    leaves = [part.value for part in parts if part.kind == "leaf"]
    if len(leaves) < 2:
        return parts
    joined: list[Leaf] = []
    for leaf in leaves:
        for index, other in enumerate(joined):
            both = other.joined(leaf)
            if both is not None:
                joined[index] = both
                break
        else:
            joined.append(leaf)
    others = [part for part in parts if part.kind != "leaf"]
    return dict.fromkeys([*others, *map(Language.from_leaf, joined)])


def _rebuild(kind: str, value, parts: tuple[Language, ...]) -> Language:
    """Unpickles; the languages that others compare by identity stay one object."""
    language = Language(kind, value, parts)
    return next((known for known in (_EVERYTHING, _NOTHING, _EMPTY_TEXT) if known == language), language)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
