"""Reads a Python literal, as JSON: strings, numbers, True, False, None, lists, tuples, and dicts with strings as keys.

Nothing is evaluated. JSON's own words (true, false, null) are read too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

from .answer_text import AnswerText, Reading

MAX_DEPTH = 100
MAX_NUMBER_CHARACTERS = 400

_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""} | {
    character: character for character in "\\'\"/"
}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


def read_literal(answer: AnswerText, into: Callable[[str], None], depth: int = 0) -> Reading[bool]:
    """Read a literal; its JSON text goes `into`, strings as they come. False where there is none."""
    first = yield from answer.peek()
    if first and first in "'\"":
        return (yield from _read_string(answer, into))
    if first and first in "[({":
        return depth < MAX_DEPTH and (yield from _read_container(answer, into, depth))
    text = yield from answer.run_of(lambda character: character.isalnum() or character in "+-._")
    value = _WORDS.get(text) or _number(text)
    if value is None:
        return False
    into(value)
    return True


def _read_container(answer: AnswerText, into: Callable[[str], None], depth: int) -> Reading[bool]:
    opening = yield from answer.peek()
    yield from answer.accept(opening)
    closing = {"[": "]", "(": ")", "{": "}"}[opening]
    into("{" if opening == "{" else "[")
    is_first = True
    while (yield from answer.skip_space()) != closing:
        if not is_first:
            if not (yield from answer.accept(",")):
                return False
            if (yield from answer.skip_space()) == closing:
                break
            into(", ")
        is_first = False
        if opening == "{" and not (yield from _read_key(answer, into)):
            return False
        if not (yield from read_literal(answer, into, depth + 1)):
            return False
    yield from answer.accept(closing)
    into("}" if opening == "{" else "]")
    return True


def _read_key(answer: AnswerText, into: Callable[[str], None]) -> Reading[bool]:
    first = yield from answer.peek()
    if first not in ("'", '"') or not (yield from _read_string(answer, into)):
        return False
    yield from answer.skip_space()
    if not (yield from answer.accept(":")):
        return False
    yield from answer.skip_space()
    into(": ")
    return True


def _read_string(answer: AnswerText, into: Callable[[str], None]) -> Reading[bool]:
    quote = yield from answer.peek()
    yield from answer.accept(quote)
    into('"')
    while True:
        text = yield from answer.some_of(lambda character: character not in (quote, "\\", "\n"))
        if text:
            into(json.dumps(text, ensure_ascii=False)[1:-1])
        elif (yield from answer.accept(quote)):
            into('"')
            return True
        elif not (yield from answer.accept("\\")) or not (yield from _read_escape(answer, into)):
            return False


def _read_escape(answer: AnswerText, into: Callable[[str], None]) -> Reading[bool]:
    """Read what stands behind a backslash; an unknown escape means itself, as in Python."""
    kind = yield from answer.peek()
    if not kind:
        return False
    yield from answer.accept(kind)
    if kind not in _HEX_DIGITS:
        into(json.dumps(_ESCAPES.get(kind, "\\" + kind), ensure_ascii=False)[1:-1])
        return True
    digits = ""
    for _ in range(_HEX_DIGITS[kind]):
        digit = yield from answer.peek()
        if not digit or digit not in "0123456789abcdefABCDEF":
            return False
        digits += digit
        yield from answer.accept(digit)
    if int(digits, 16) > 0x10FFFF:
        return False
    into(json.dumps(chr(int(digits, 16)))[1:-1])
    return True


def _number(text: str) -> str | None:
    """The JSON text of a number; None where it is none."""
    if len(text) > MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(text):
        return None
    if _JSON_NUMBER.fullmatch(text):
        return text
    value = float(text) if any(character in ".eE" for character in text) else int(text)
    return json.dumps(value) if math.isfinite(value) else None
