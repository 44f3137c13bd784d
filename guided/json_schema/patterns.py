"""The regular languages behind a schema's `pattern`, `format` and property names, from both sides.

ECMA-262 and Python read some patterns differently (`$` before a last line feed, `\\d` outside ASCII, `.` and carriage
return), and validators differ about formats. What must match is therefore narrower than the complement of what must
not match: texts between the two are never generated, so that no validator can object.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..errors import GrammarError
from ..languages.language import Language
from ..languages.string_formats import format_language as known_format

_LITERAL_BEGINNING = re.compile(r"\^((?:(?:[\w:/@#%&~ -]|\\[/.-])(?![*?{]))+)")
_CLASSES = frozenset("dDwWsSbB")
_SAFE_FOR_CLASSES = r"[\x00-\x1b\x20-\x7f]*"
_SAFE_FOR_DOT = r"[^\r\u2028\u2029]*"
_SAFE_FOR_DOLLAR = r"(?:[\s\S]*[^\n])?"

_NECESSARY = {
    "date": r"\d{4}-\d\d-\d\d",
    "date-time": r"\d{4}-\d\d-\d\d[\s\S]*",
    "time": r"[\s\S]*:[\s\S]*",
    "duration": r"[\s\S]*P[\s\S]*",
    "email": r"[\s\S]*@[\s\S]*",
    "idn-email": r"[\s\S]*@[\s\S]*",
    "hostname": r"[\w.-]+\n?",
    "ipv4": r"[0-9.]+",
    "ipv6": r"[\s\S]*:[\s\S]*:[\s\S]*",
    "uuid": r"[\s\S]*-[\s\S]*",
    "uri": r"[\s\S]*:[\s\S]*",
    "iri": r"[\s\S]*:[\s\S]*",
    "uri-reference": r'[^\x00-\x20<>"{}|\\^`]*\n?',
    "iri-reference": r'[^\x00-\x20<>"{}|\\^`]*\n?',
    "json-pointer": r"(?:/[\s\S]*)?",
}
"""What every text of a format certainly matches, whoever judges: without it, a text is not of the format."""


@lru_cache(maxsize=1)
def every_text() -> Language:
    """All texts."""
    return Language.everything()


@lru_cache(maxsize=1)
def no_text() -> Language:
    """No text."""
    return Language.nothing()


@lru_cache(maxsize=512)
def matching(pattern: str) -> Language:
    """Texts that match for every reader of the pattern."""
    return Language.regex(pattern, "ecma")


def literal_beginning(pattern: str) -> str:
    """What every text that matches begins with, as far as it is plain to see."""
    found = _LITERAL_BEGINNING.match(pattern)
    return "" if found is None or "|" in pattern else found[1].replace("\\", "")


def not_matching(pattern: str) -> Language:
    """Texts that match for no reader of the pattern."""
    return _unambiguous(pattern) - matching(pattern)


def perhaps_matching(pattern: str) -> Language:
    """Texts that match for some reader of the pattern: the complement of `not_matching`."""
    safe = _unambiguous(pattern)
    return matching(pattern) if safe is every_text() else matching(pattern) | ~safe


def of_format(name: str) -> Language | None:
    """Texts of that format; None when we do not know it."""
    return known_format(name)


def not_of_format(name: str) -> Language:
    """Texts that are certainly not of that format; nothing for one that we do not know."""
    necessary = _NECESSARY.get(name)
    return no_text() if necessary is None else ~Language.regex(necessary, "python")


@lru_cache(maxsize=8192)
def literal(text: str) -> Language:
    """That one text; nothing when it holds half a surrogate pair, which no UTF-8 output can."""
    return Language.literal(text)


def literals(texts: list[str]) -> Language:
    """Those texts, without the ones that no UTF-8 output can hold."""
    return Language.literals(texts)


def has(language: Language, text: str) -> bool:
    """Whether the text is of the language; quick for names, lists of names and all but a list of names."""
    if language.kind == "literals":
        return text in language.value
    if language.kind == "not":
        return not has(language.parts[0], text)
    return language.contains(text)


def check_pattern(pattern: str, pointer: str, keyword: str) -> None:
    """Raises GrammarError naming the place when the pattern cannot be read."""
    try:
        matching(pattern)
    except GrammarError as error:
        reason = f"{error.reason} ({error.location})" if error.location else error.reason
        if error.keyword:
            reason = f"{error.keyword}: {reason}"
        raise GrammarError(error.fault, reason, location=pointer, keyword=keyword) from error


def _unambiguous(pattern: str) -> Language:
    """Texts about which ECMA-262 and Python surely agree."""
    dollar = dot = classes = in_set = escaped = False
    for char in pattern:
        if escaped:
            escaped = False
            classes = classes or char in _CLASSES
        elif char == "\\":
            escaped = True
        elif in_set:
            in_set = char != "]"
        elif char == "[":
            in_set = True
        else:
            dollar = dollar or char == "$"
            dot = dot or char == "."
    safe = every_text()
    if classes:
        safe = Language.regex(_SAFE_FOR_CLASSES, "python")
    if dot:
        safe = safe & Language.regex(_SAFE_FOR_DOT, "python")
    if dollar:
        safe = safe & Language.regex(_SAFE_FOR_DOLLAR, "python")
    return safe
