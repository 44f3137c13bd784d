"""Follows a JSON text character by character: how far is it one, and where does its value end?"""

from __future__ import annotations

import re

MAX_DEPTH = 200
"""Brackets within brackets; a deeper text counts as wrong."""
MAX_SCALAR_CHARACTERS = 1000

_STRING_BODY = re.compile(r'[^"\\\x00-\x1f]*')
_SCALAR = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_SCALAR_CHARACTERS = frozenset("+-.0123456789eEtrufalsn")
_SPACE = frozenset(" \t\r\n")
_ESCAPED = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")

# What may come next, outside of strings and scalars.
_VALUE, _FIRST_ITEM, _KEY, _FIRST_KEY, _COLON, _BEHIND = range(6)


class JsonScanner:
    """The state of one value. Numbers and words of the outermost level are no values here: they have no end."""

    def __init__(self) -> None:
        self.is_done = False
        self.is_wrong = False
        self._open: list[str] = []
        self._next = _VALUE
        self._scalar = ""
        self._in_string = False
        self._is_key = False
        self._escape = 0
        """In a string: 0, or 5 behind a backslash, or the number of hexadecimal digits that must come."""

    def scan(self, text: str, at: int) -> int:
        """Go on from a position of the text; the position behind all that belongs to the value.

        Where that is not the end of the text, the value is done, or the character there is wrong.
        """
        while at < len(text) and not self.is_done:
            if self._in_string and not self._escape:
                body = _STRING_BODY.match(text, at)
                assert body is not None
                at = body.end()
                if at == len(text):
                    break
            if not self._take(text[at]):
                self.is_wrong = True
                break
            at += 1
        return at

    def _take(self, character: str) -> bool:
        """Whether the character may come; if so it has."""
        if self._in_string:
            return self._take_in_string(character)
        if character in _SCALAR_CHARACTERS and (self._scalar or self._next in (_VALUE, _FIRST_ITEM)):
            self._scalar += character
            return bool(self._open) and len(self._scalar) <= MAX_SCALAR_CHARACTERS
        if self._scalar:
            if not _SCALAR.fullmatch(self._scalar):
                return False
            self._scalar = ""
            self._next = _BEHIND
        return character in _SPACE or self._take_structure(character)

    def _take_structure(self, character: str) -> bool:
        expected = self._next
        if character == '"':
            self._is_key = expected in (_KEY, _FIRST_KEY)
            self._in_string = self._is_key or expected in (_VALUE, _FIRST_ITEM)
            return self._in_string
        if character in "{[":
            if expected not in (_VALUE, _FIRST_ITEM) or len(self._open) >= MAX_DEPTH:
                return False
            self._open.append(character)
            self._next = _FIRST_KEY if character == "{" else _FIRST_ITEM
            return True
        if character in "}]":
            first = _FIRST_KEY if character == "}" else _FIRST_ITEM
            if not self._open or expected not in (first, _BEHIND) or self._open[-1] != "{["["}]".index(character)]:
                return False
            self._open.pop()
            self._end_value()
            return True
        if character == "," and expected == _BEHIND:
            self._next = _KEY if self._open[-1] == "{" else _VALUE
            return True
        if character == ":" and expected == _COLON:
            self._next = _VALUE
            return True
        return False

    def _take_in_string(self, character: str) -> bool:
        if self._escape == 5:
            self._escape = 4 if character == "u" else 0
            return character == "u" or character in _ESCAPED
        if self._escape:
            self._escape -= 1
            return character in _HEX
        if character == "\\":
            self._escape = 5
            return True
        if character != '"':
            return False  # a control character
        self._in_string = False
        if self._is_key:
            self._next = _COLON
        else:
            self._end_value()
        return True

    def _end_value(self) -> None:
        self._next = _BEHIND
        self.is_done = not self._open
