"""The sets of characters behind `\\d`, `\\p{L}` and `(?i)`, as each dialect of `regex_syntax` reads them."""

from __future__ import annotations

import re
from functools import lru_cache

from .char_set import (
    ALL_CHARACTERS,
    ASCII_DIGITS,
    ASCII_SPACE,
    ASCII_WORD,
    ECMA_SPACE,
    CharSet,
    python_class,
    unicode_category,
)

_ASCII = {"d": ASCII_DIGITS, "s": ASCII_SPACE, "w": ASCII_WORD}
_ECMA = {"d": ASCII_DIGITS, "s": ECMA_SPACE, "w": ASCII_WORD}


class EscapedClasses:
    """`\\d`, `\\s`, `\\w` and their complements, in a dialect."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.negated = False
        """Whether the class stands in a negated set: there the smaller reading is the larger one."""

    def named(self, letter: str, *, ascii_only: bool) -> CharSet:
        lower = letter.lower()
        complement = letter != lower
        if ascii_only:
            members = _ASCII[lower]
        elif self.dialect == "python":
            members = python_class(lower)
        elif (self.dialect == "ecma") != (complement != self.negated):
            members = _ECMA[lower] if lower != "s" else ECMA_SPACE & python_class("s")
        else:
            members = _ECMA[lower] | python_class(lower)
        return ~members if complement else members


def property_set(name: str) -> CharSet | None:
    for prefix in ("General_Category=", "gc="):
        name = name.removeprefix(prefix)
    special = {"Any": ALL_CHARACTERS, "ASCII": CharSet.span(0, 127)}
    if name in special:
        return special[name]
    if name == "Assigned":
        unassigned = unicode_category("Cn")
        return None if unassigned is None else ~unassigned
    return unicode_category(name)


@lru_cache(maxsize=256)
def ignoring_case(char_set: CharSet, ascii_only: bool) -> CharSet:
    """All characters that `re` matches with this set when it ignores case: `re` itself is asked."""
    members = "".join(f"{_spelled(low)}-{_spelled(high)}" for low, high in char_set.ranges)
    if not members:
        return char_set
    flags = re.IGNORECASE | (re.ASCII if ascii_only else 0)
    matcher = re.compile(f"[{members}]+", flags)
    if ascii_only or char_set.ranges[-1][1] < 128:
        # Beyond ASCII only these fold to an ASCII letter.
        candidates = "".join(map(chr, range(128))) + "\u0130\u0131\u017f\u212a"
        folded = CharSet.of(character for character in candidates if matcher.fullmatch(character))
        return folded | char_set
    everything = "".join(map(chr, range(0x110000)))
    return CharSet.of_ranges((run.start(), run.end() - 1) for run in matcher.finditer(everything))


def _spelled(point: int) -> str:
    return f"\\U{point:08x}"
