"""The words of a grammar's text, one after another, and errors that say where: for `gbnf` and `lark_syntax`."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import GrammarError, GrammarFault

MAX_COUNT = 1_000_000_000
"""Repetition counts above this are refused."""


class Token(NamedTuple):
    """A word: its group in the scanner's pattern, its text, and where it begins. `end`: the text is over."""

    kind: str
    text: str
    offset: int


class Scanner:
    """Splits a text by a pattern with named groups; words of the group `space` are left out."""

    def __init__(self, text: str, pattern: re.Pattern[str]) -> None:
        """Raises GrammarError (invalid) where the pattern does not match."""
        self._text = text
        self._tokens: list[Token] = []
        self._position = 0
        offset = 0
        while offset < len(text):
            match = pattern.match(text, offset)
            if match is None or match.end() == offset:
                raise self.error("unexpected character", Token("", text[offset], offset))
            assert match.lastgroup is not None
            if match.lastgroup != "space":
                self._tokens.append(Token(match.lastgroup, match.group(), offset))
            offset = match.end()
        self._tokens += [Token("end", "", len(text))] * 3

    def peek(self, ahead: int = 0) -> Token:
        """The next word (or one up to two words later), which stays there."""
        return self._tokens[self._position + ahead]

    def next(self) -> Token:
        """The next word."""
        token = self._tokens[self._position]
        if token.kind != "end":
            self._position += 1
        return token

    def take(self, *kinds: str) -> Token | None:
        """The next word if it is of one of these kinds, else None."""
        return self.next() if self.peek().kind in kinds else None

    def expect(self, kind: str, what: str) -> Token:
        """The next word, which must be of this kind. Raises GrammarError that `what` is expected."""
        token = self.next()
        if token.kind != kind:
            raise self.error(f"{what} expected, not {shown(token)}", token)
        return token

    def error(
        self, reason: str, token: Token, *, fault: GrammarFault = "invalid", offset: int = 0, keyword: str = ""
    ) -> GrammarError:
        """A GrammarError at a word, or `offset` characters after its beginning."""
        place = token.offset + offset
        line = self._text.count("\n", 0, place) + 1
        column = place - self._text.rfind("\n", 0, place)
        location = f"line {line}, column {column}"
        return GrammarError(fault, reason, location=location, keyword=keyword or token.text[:40])


def shown(token: Token) -> str:
    """How an error message calls a word."""
    return "the end" if token.kind == "end" else token.text[:40]
