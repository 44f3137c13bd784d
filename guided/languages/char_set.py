"""Sets of Unicode code points as sorted ranges: the letters of guided decoding's regular languages.

    letters = CharSet.of("abc") | CharSet.span(0x4E00, 0x9FFF)
    (~letters).ranges

Surrogates are no characters: no set holds one. Unicode categories and the classes of `re` are computed from
`unicodedata` and `str` on first use and kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MAX_CODE_POINT = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)


@dataclass(frozen=True, slots=True)
class CharSet:
    """An immutable set of code points.

    Attributes:
        ranges: (first, last) pairs, inclusive, sorted, disjoint, not adjacent, without surrogates. Build it with
            `of_ranges`, `of` or `span`, which see to that.
    """

    ranges: tuple[tuple[int, int], ...]

    @staticmethod
    def of_ranges(ranges: Iterable[tuple[int, int]]) -> CharSet:
        """The union of (first, last) pairs in any order."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted(_without_surrogates(ranges)):
            if merged and low <= merged[-1][1] + 1:
                if high > merged[-1][1]:
                    merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return CharSet(tuple(merged))

    @staticmethod
    def of(characters: Iterable[str]) -> CharSet:
        """The characters given, one by one."""
        return CharSet.of_ranges([(ord(character), ord(character)) for character in characters])

    @staticmethod
    def span(first: int, last: int) -> CharSet:
        """All code points from `first` to `last`, inclusive."""
        return CharSet.of_ranges([(first, last)])

    def __or__(self, other: CharSet) -> CharSet:
        return CharSet.of_ranges(self.ranges + other.ranges)

    def __and__(self, other: CharSet) -> CharSet:
        common: list[tuple[int, int]] = []
        mine, theirs, i, j = self.ranges, other.ranges, 0, 0
        while i < len(mine) and j < len(theirs):
            low, high = max(mine[i][0], theirs[j][0]), min(mine[i][1], theirs[j][1])
            if low <= high:
                common.append((low, high))
            if mine[i][1] < theirs[j][1]:
                i += 1
            else:
                j += 1
        return CharSet(tuple(common))

    def __invert__(self) -> CharSet:
        gaps: list[tuple[int, int]] = []
        start = 0
        for low, high in self.ranges:
            if low > start:
                gaps.append((start, low - 1))
            start = high + 1
        gaps.append((start, MAX_CODE_POINT))
        return CharSet.of_ranges(gap for gap in gaps if gap[0] <= gap[1])

    def __sub__(self, other: CharSet) -> CharSet:
        return self & ~other

    def __contains__(self, character: str) -> bool:
        point = ord(character)
        return any(low <= point <= high for low, high in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def size(self) -> int:
        """How many code points it holds."""
        return sum(high - low + 1 for low, high in self.ranges)


def _without_surrogates(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    first, last = SURROGATES
    for low, high in ranges:
        if high < first or low > last:
            yield low, high
            continue
        if low < first:
            yield low, first - 1
        if high > last:
            yield last + 1, high


EMPTY_SET = CharSet(())
ALL_CHARACTERS = CharSet(((0, SURROGATES[0] - 1), (SURROGATES[1] + 1, MAX_CODE_POINT)))
ASCII_DIGITS = CharSet.span(0x30, 0x39)
ASCII_WORD = CharSet.of_ranges([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
ASCII_SPACE = CharSet.of("\t\n\v\f\r ")
ECMA_SPACE = ASCII_SPACE | CharSet.of("\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff") | CharSet.span(0x2000, 0x200A)
ECMA_LINE_ENDS = CharSet.of("\n\r\u2028\u2029")


@lru_cache(maxsize=64)
def unicode_category(name: str) -> CharSet | None:
    """The code points of a general category (`L`, `Lu`, `LC` …, or its long name); None: there is no such one."""
    wanted = _CATEGORIES.get(_LONG_CATEGORY_NAMES.get(name, name))
    if wanted is None:
        return None
    runs = _category_runs()
    return CharSet.of_ranges((low, high) for low, high, category in runs if category in wanted)


@lru_cache(maxsize=4)
def python_class(letter: str) -> CharSet:
    """What `\\d`, `\\s` or `\\w` (by its letter) matches in `re`: Unicode, asked of `re` itself."""
    everything = _all_code_points()
    return CharSet.of_ranges((run.start(), run.end() - 1) for run in re.finditer(rf"\{letter}+", everything))


def _all_code_points() -> str:
    """A string whose character at each index is the code point of that number."""
    return np.arange(MAX_CODE_POINT + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")


@lru_cache(maxsize=1)
def _category_runs() -> tuple[tuple[int, int, str], ...]:
    """(first, last, category) for all code points in order."""
    runs: list[tuple[int, int, str]] = []
    category_of = unicodedata.category
    start, current = 0, category_of("\0")
    for point in range(1, MAX_CODE_POINT + 1):
        category = category_of(chr(point))
        if category != current:
            runs.append((start, point - 1, current))
            start, current = point, category
    runs.append((start, MAX_CODE_POINT, current))
    return tuple(runs)


_MINOR_CATEGORIES = [
    "Lu",
    "Ll",
    "Lt",
    "Lm",
    "Lo",
    "Mn",
    "Mc",
    "Me",
    "Nd",
    "Nl",
    "No",
    "Pc",
    "Pd",
    "Ps",
    "Pe",
    "Pi",
    "Pf",
    "Po",
    "Sm",
    "Sc",
    "Sk",
    "So",
    "Zs",
    "Zl",
    "Zp",
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
]
_CATEGORIES = (
    {name: frozenset([name]) for name in _MINOR_CATEGORIES}
    | {major: frozenset(name for name in _MINOR_CATEGORIES if name[0] == major) for major in "LMNPSZC"}
    | {"LC": frozenset(["Lu", "Ll", "Lt"])}
)
_LONG_CATEGORY_NAMES = {
    "Letter": "L",
    "Cased_Letter": "LC",
    "Uppercase_Letter": "Lu",
    "Lowercase_Letter": "Ll",
    "Titlecase_Letter": "Lt",
    "Modifier_Letter": "Lm",
    "Other_Letter": "Lo",
    "Mark": "M",
    "Combining_Mark": "M",
    "Nonspacing_Mark": "Mn",
    "Spacing_Mark": "Mc",
    "Enclosing_Mark": "Me",
    "Number": "N",
    "Decimal_Number": "Nd",
    "digit": "Nd",
    "Letter_Number": "Nl",
    "Other_Number": "No",
    "Punctuation": "P",
    "punct": "P",
    "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd",
    "Open_Punctuation": "Ps",
    "Close_Punctuation": "Pe",
    "Initial_Punctuation": "Pi",
    "Final_Punctuation": "Pf",
    "Other_Punctuation": "Po",
    "Symbol": "S",
    "Math_Symbol": "Sm",
    "Currency_Symbol": "Sc",
    "Modifier_Symbol": "Sk",
    "Other_Symbol": "So",
    "Separator": "Z",
    "Space_Separator": "Zs",
    "Line_Separator": "Zl",
    "Paragraph_Separator": "Zp",
    "Other": "C",
    "Control": "Cc",
    "cntrl": "Cc",
    "Format": "Cf",
    "Surrogate": "Cs",
    "Private_Use": "Co",
    "Unassigned": "Cn",
}
