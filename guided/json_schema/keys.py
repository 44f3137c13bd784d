"""The names that the properties of an object may have: told apart as finely as its clauses do, and spelled.

Names that the clauses list one by one are *declared* and numbered; all other names fall into a few classes, the
*additional* ones, by which of the clauses' key languages they are in. A key is therefore an int: `i` for the declared
name `names[i]`, `-1 - j` for any name in `classes[j]`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from ..languages.language import Language
from ..languages.language_size import few_texts, is_endless_language

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..budget import Budget
    from .clauses import ObjectClause


MAX_FEW_NAMES = 64
"""Where additional names must be told apart, those of a class that has no more are declared ones."""


MAX_BASICS = 8
"""Languages that key languages are taken apart into."""


class KeySpace:
    """How the names of an object are told apart. Equal for equal names and languages.

    Attributes:
        names: the declared names, sorted (so that those with a common prefix are neighbours).
        number: the number of each declared name.
        general: the key languages that are neither finite nor the complement of a finite one.
        few_names: the names of those classes that have only a few; None: not looked for yet.
    """

    __slots__ = ("__dict__", "_budget", "_children", "_endless", "_hash", "few_names", "general", "names", "number")

    def __init__(self, names: Iterable[str], general: Iterable[Language], budget: Budget) -> None:
        self.names = tuple(sorted(set(names)))
        self.number = {name: index for index, name in enumerate(self.names)}
        self.general = tuple(dict.fromkeys(general))
        self._hash = hash((self.names, self.general))
        self._budget = budget
        self._children: dict[tuple[int, int, int], tuple[tuple[int, int, int], ...]] = {}
        self._endless: dict[int, bool] = {}
        self.few_names: frozenset[str] | None = None

    @staticmethod
    def of(clauses: Iterable[ObjectClause], budget: Budget, known: dict[KeySpace, KeySpace]) -> KeySpace:
        """The coarsest one that is fine enough for `clauses`; one of the `known` ones, or added to them."""
        names: set[str] = set()
        general: list[Language] = []
        tells_apart = False
        for clause in clauses:
            names.update(clause.order, clause.required)
            for name, needed in clause.dependent:
                names.add(name)
                names.update(needed)
            for part in (*clause.rules, *clause.exists):
                listed = listed_names(part.keys)
                if listed is not None:
                    names.update(listed[0])
                    continue
                general.append(part.keys)
                tells_apart |= clause.min_properties > 1 or bool(clause.exists)
        space = KeySpace(names, general, budget)
        space = known.setdefault(space, space)
        if tells_apart:
            if space.few_names is None:
                few = [few_texts(language, MAX_FEW_NAMES, budget) for language, _ in space.classes]
                space.few_names = frozenset().union(*(texts for texts in few if texts))
            if space.few_names:
                space = KeySpace(names | space.few_names, general, budget)
                space = known.setdefault(space, space)
        return space

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, KeySpace) and self.names == other.names and self.general == other.general
        )

    @cached_property
    def classes(self) -> tuple[tuple[Language, int], ...]:
        """The classes of additional names: each with the bit set of the `general` languages that it lies in. They are
        disjoint, none is empty, and together they hold every name that is not declared."""
        return tuple((language, inside) for language, inside in self._parts if not language.is_empty(self._budget))

    @cached_property
    def _parts(self) -> list[tuple[Language, int]]:
        """The classes, and some that may be empty: kept, so that what is known of them is not lost when the budget
        stops the work."""
        others = Language.everything() - Language.literals(self.names) if self.names else Language.everything()
        if not self.general:
            return [(others, 0)]
        return [(language & others, inside) for language, inside in _combinations(self.general)]

    @property
    def num_classes(self) -> int:
        """The number of `classes`, which need not be worked out where there is one."""
        return len(self.classes) if self.general else 1

    def is_endless(self, class_number: int) -> bool:
        """Whether each beginning of a name in a class is one of infinitely many."""
        endless = self._endless.get(class_number)
        if endless is None:
            endless = is_endless_language(self.classes[class_number][0], self._budget)
            self._endless[class_number] = endless
        return endless

    def children(self, low: int, high: int, depth: int) -> tuple[tuple[int, int, int], ...]:
        """The branches of a trie node: `(code point, low, high)` for each character that comes at `depth` in
        `names[low:high]`, which are all longer than `depth` or (the first only) end there."""
        key = (low, high, depth)
        known = self._children.get(key)
        if known is None:
            known = self._children[key] = tuple(self._find_children(low, high, depth))
        return known

    def ends(self, low: int, high: int, depth: int) -> bool:
        """Whether `names[low]` ends at the trie node."""
        return low < high and len(self.names[low]) == depth

    def _find_children(self, low: int, high: int, depth: int) -> Iterator[tuple[int, int, int]]:
        names = self.names
        if self.ends(low, high, depth):
            low += 1
        while low < high:
            code = ord(names[low][depth])
            end = bisect_left(names, names[low][:depth] + chr(code + 1), low, high) if code < 0x10FFFF else high
            yield code, low, end
            low = end


def listed_names(keys: Language) -> tuple[frozenset[str], bool] | None:
    """(names, True) if `keys` is just these names, (names, False) if it is all others; None: neither, or unknown."""
    names = keys.literal_set()
    if names is not None:
        return names, True
    names = (~keys).literal_set()
    return None if names is None else (names, False)


def _combinations(languages: tuple[Language, ...]) -> list[tuple[Language, int]]:
    """Disjoint languages, each with the bit set of the `languages` that it lies in; some may be empty.

    Languages are taken apart into what they are unions and complements of, since `additionalProperties` is the
    complement of the very patterns beside it: that there are no names in both need not be found out.
    """
    basics: dict[Language, int] = {}
    for language in languages:
        _find_basics(language, basics)
    if len(basics) > MAX_BASICS:
        basics = {language: place for place, language in enumerate(languages)}
    terms: dict[int, set[tuple[int, int]]] = {}
    everything = (1 << len(basics)) - 1
    for chosen in range(everything + 1):
        inside = sum(_holds(language, basics, chosen) << bit for bit, language in enumerate(languages))
        terms.setdefault(inside, set()).add((chosen, everything))
    places = list(basics)
    return [(_union_of(_merged(cubes), places), inside) for inside, cubes in terms.items()]


def _find_basics(language: Language, basics: dict[Language, int]) -> None:
    pending = [language]
    while pending:
        part = pending.pop()
        if part.kind in ("or", "not"):
            pending += part.parts
        else:
            basics.setdefault(part, len(basics))


def _holds(language: Language, basics: dict[Language, int], chosen: int) -> bool:
    """Whether a text is in `language` that is in those of the basics whose bit in `chosen` is set."""
    place = basics.get(language)
    if place is not None:
        return bool(chosen >> place & 1)
    if language.kind == "not":
        return not _holds(language.parts[0], basics, chosen)
    return any(_holds(part, basics, chosen) for part in language.parts)


def _merged(cubes: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """(values, bits that matter), two that differ in one bit only taken together while there are such."""
    while True:
        for values, matter in cubes:
            bit = next((b for b in _bits(matter) if (values ^ b, matter) in cubes), 0)
            if bit:
                cubes = cubes - {(values, matter), (values ^ bit, matter)} | {(values & ~bit, matter & ~bit)}
                break
        else:
            return cubes


def _union_of(cubes: set[tuple[int, int]], basics: list[Language]) -> Language:
    return Language.union(
        Language.intersection(
            basics[place] if values >> place & 1 else ~basics[place]
            for place in range(len(basics))
            if matter >> place & 1
        )
        for values, matter in sorted(cubes)
    )


def _bits(mask: int) -> Iterator[int]:
    while mask:
        yield mask & -mask
        mask &= mask - 1


def key_code(key: int) -> int:
    """A key as the result with which its spelling ends: 1 and more (for the first class 1, in every space)."""
    return 2 * key + 2 if key >= 0 else -1 - 2 * key


def key_of_code(code: int) -> int:
    """The inverse of `key_code`."""
    return -(code + 1) // 2 if code & 1 else code // 2 - 1


def is_plain_name(name: str) -> bool:
    """Whether a text is made of plain ASCII characters, which are only spelled as themselves."""
    return name.isascii() and name.isprintable() and not _SPECIAL.search(name)


def spellings(name: str) -> list[bytes]:
    """How a declared name may be written in JSON, none a prefix of another. Plain ASCII characters only as themselves:
    then what must come next is known as soon as only one name is left. Others in all their ways, or where that were
    too many in the same way throughout."""
    if is_plain_name(name):
        return [name.encode()]
    ways = [_ways(character) for character in name]
    if prod(map(len, ways)) <= MAX_SPELLINGS:
        return ["".join(way).encode() for way in product(*ways)]
    return list(dict.fromkeys("".join(way[min(i, len(way) - 1)] for way in ways).encode() for i in range(4)))


def _ways(character: str) -> list[str]:
    """How one character may be written, the shortest first."""
    if " " <= character <= "~" and character not in '"\\/':
        return [character]
    found = [character] if character >= " " and character not in '"\\' else []
    short = _SHORT_ESCAPES.get(character)
    if short:
        found.append(short)
    utf16 = character.encode("utf-16-be")
    units = [utf16[i : i + 2].hex() for i in range(0, len(utf16), 2)]
    escaped = "".join(f"\\u{unit}" for unit in units)
    return list(dict.fromkeys([*found, escaped, "".join(f"\\u{unit.upper()}" for unit in units)]))


MAX_SPELLINGS = 64
"""Of one name."""

_SPECIAL = re.compile(r'["\\/]')
_SHORT_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
}  # fmt: skip
