"""Languages as terms: expressions into the table whose derivatives make up an automaton."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from .char_set import CharSet
from .literal_trie import LiteralTrie
from .terms import EMPTY_TEXT, TermTable

if TYPE_CHECKING:
    from .language import Language

MAX_SPELLED_LITERAL = 16
"""Longer literals inside an expression are a trie, not a chain of terms."""


def _walk(languages: Iterable[Language]) -> list[Language]:
    """All expressions in these, each once, operands before what they are part of."""
    seen: dict[Language, None] = {}
    pending = [(language, False) for language in languages]
    while pending:
        language, expanded = pending.pop()
        if language in seen:
            continue
        if expanded or not language.parts:
            seen[language] = None
        else:
            pending.append((language, True))
            pending += [(part, False) for part in language.parts]
    return list(seen)


def char_sets_of(languages: Iterable[Language]) -> Iterable[CharSet]:
    """Every set of characters that the languages distinguish."""
    single: set[str] = set()
    char_sets: dict[CharSet, None] = {}
    for language in _walk(languages):
        if language.kind == "chars":
            char_sets[language.value] = None
        elif language.kind == "literals":
            single.update(*language.value)
        elif language.kind == "leaf":
            char_sets.update(dict.fromkeys(language.value.char_sets()))
    char_sets.update(dict.fromkeys(CharSet.of(character) for character in sorted(single)))
    return char_sets


def translate(languages: list[Language], table: TermTable) -> list[int]:
    """The languages as terms of a table that knows their `char_sets_of`."""
    terms: dict[Language, int] = {}
    for language in _walk(languages):
        parts = [terms[part] for part in language.parts]
        terms[language] = _translate_one(language, parts, table)
    return [terms[language] for language in languages]


def _translate_one(language: Language, parts: list[int], table: TermTable) -> int:
    kind, value = language.kind, language.value
    if kind == "chars":
        return table.chars(table.classes.mask_of(value))
    if kind == "literals":
        return _translate_literals(value, table)
    if kind == "leaf":
        return table.leaf(value, value.start)
    if kind == "or":
        return table.union(parts)
    if kind == "and":
        return table.intersect(parts)
    if kind == "not":
        return table.complement(parts[0])
    if kind == "rep":
        low, high = value
        return table.repeat(parts[0], low, inf if high is None else high)
    term = EMPTY_TEXT
    for part in reversed(parts):
        term = table.concatenate(part, term)
    return term


def _translate_literals(texts: frozenset[str], table: TermTable) -> int:
    if len(texts) == 1:
        (text,) = texts
        if len(text) <= MAX_SPELLED_LITERAL:
            term = EMPTY_TEXT
            for character in reversed(text):
                term = table.concatenate(table.chars(table.classes.mask_of(CharSet.of(character))), term)
            return term
    trie = LiteralTrie(dict.fromkeys(texts, 1))
    return table.leaf(trie, trie.start)
