r"""GBNF, the notation of llama.cpp's grammars.

    root   ::= "{" pair ("," pair)* "}"     # a comment
    pair   ::= name ":" [0-9]{1,3}
    name   ::= [a-z_] [a-z0-9_]*

What is produced is the text of a derivation from `root`, whole: literals and characters one after another. Strings and
character classes know the escapes `\n \r \t \" \\ \[ \] \- \^ \/ \' \xHH \uHHHH \UHHHHHHHH`; classes also `\d \w \s`
(ASCII). `.` is any character. A rule may go on over lines, until the next `name ::=`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..languages.char_set import ALL_CHARACTERS, ASCII_DIGITS, ASCII_SPACE, ASCII_WORD, CharSet
from .grammar_rules import MAX_NESTING, Choice, Expression, Literal, OneOf, Reference, Repetition, Rules, Sequence
from .grammar_scanner import MAX_COUNT, Scanner, Token, shown

START = "root"

_WORDS = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<define>::=)
    |(?P<name>[A-Za-z0-9_][A-Za-z0-9_-]*)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<class>\[(?:[^\]\\]|\\.)*\])
    |(?P<count>\{\s*[0-9]+\s*(?:,\s*[0-9]*\s*)?\})
    |(?P<times>[*+?])
    |(?P<or>\|)
    |(?P<open>\()
    |(?P<close>\))
    |(?P<any>\.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))|(.)", re.DOTALL)
_SIMPLE_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"} | {character: character for character in "\"\\[]-^/'"}
_CLASS_ESCAPES = {"d": ASCII_DIGITS, "w": ASCII_WORD, "s": ASCII_SPACE}
_TIMES = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def read_gbnf(text: str) -> Rules:
    """The rules of a GBNF text.

    Raises:
        GrammarError: malformed, a rule is missing or defined twice, or a construct that is not supported; with line
            and column.
    """
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text, _WORDS)
        self._depth = 0
        self._used: dict[str, Token] = {}

    def read(self) -> Rules:
        definitions: dict[str, Expression] = {}
        while self._scanner.peek().kind != "end":
            name = self._scanner.expect("name", "the name of a rule")
            self._scanner.expect("define", "::=")
            if name.text in definitions:
                raise self._scanner.error("the rule is defined twice", name)
            definitions[name.text] = self._alternatives()
            token = self._scanner.peek()
            if token.kind != "end" and not self._rule_begins():
                raise self._scanner.error(f"a rule, a string or a class expected, not {shown(token)}", token)
        for used, token in self._used.items():
            if used not in definitions:
                raise self._scanner.error("there is no rule of this name", token)
        if START not in definitions:
            raise self._scanner.error(f"there is no rule {START}", self._scanner.peek(), keyword=START)
        return Rules(START, definitions)

    def _rule_begins(self) -> bool:
        return self._scanner.peek().kind == "name" and self._scanner.peek(1).kind == "define"

    def _alternatives(self) -> Expression:
        options = [self._sequence()]
        while self._scanner.take("or"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        while not self._rule_begins():
            token = self._scanner.take("name", "string", "class", "any", "open")
            if token is None:
                break
            parts.append(self._repeated(self._item(token)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _item(self, token: Token) -> Expression:
        if token.kind == "name":
            self._used.setdefault(token.text, token)
            return Reference(token.text)
        if token.kind == "string":
            return Literal("".join(str(character) for character, _ in self._characters(token)))
        if token.kind == "class":
            return OneOf(self._class(token))
        if token.kind == "any":
            return OneOf(ALL_CHARACTERS)
        if self._scanner.peek().text == "=":
            raise self._scanner.error("lookahead is not supported", token, fault="unsupported")
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._scanner.error(f"brackets are nested deeper than {MAX_NESTING}", token, fault="too_complex")
        inner = self._alternatives()
        self._depth -= 1
        self._scanner.expect("close", ")")
        return inner

    def _repeated(self, item: Expression) -> Expression:
        for _ in range(MAX_NESTING):
            token = self._scanner.take("times", "count")
            if token is None:
                return item
            item = Repetition(item, *self._counts(token))
        raise self._scanner.error(f"more than {MAX_NESTING} repetitions of repetitions", self._scanner.peek())

    def _counts(self, token: Token) -> tuple[int, int | None]:
        if token.kind == "times":
            return _TIMES[token.text]
        least, comma, greatest = token.text[1:-1].partition(",")
        if max(len(least), len(greatest)) > 12 or int(least) > MAX_COUNT or int(greatest.strip() or 0) > MAX_COUNT:
            raise self._scanner.error(f"a count above {MAX_COUNT}", token)
        minimum = int(least)
        maximum = (int(greatest) if greatest.strip() else None) if comma else minimum
        if maximum is not None and maximum < minimum:
            raise self._scanner.error("the greatest count is below the least", token)
        return minimum, maximum

    def _class(self, token: Token) -> CharSet:
        inverted = token.text.startswith("[^")
        characters = list(self._characters(token, skip=1 + inverted, in_class=True))
        ranges: list[tuple[int, int]] = []
        position = 0
        while position < len(characters):
            character, offset = characters[position]
            position += 1
            if isinstance(character, CharSet):
                ranges += character.ranges
                continue
            last = character
            if position + 1 < len(characters) and token.text[characters[position][1]] == "-":
                last = characters[position + 1][0]
                position += 2
            if isinstance(last, CharSet) or ord(last) < ord(character):
                raise self._scanner.error("the range is empty", token, offset=offset)
            ranges.append((ord(character), ord(last)))
        members = CharSet.of_ranges(ranges)
        if not members and not inverted:
            raise self._scanner.error("the class is empty", token)
        return ~members if inverted else members

    def _characters(self, token: Token, skip: int = 1, in_class: bool = False) -> Iterator[tuple[str | CharSet, int]]:
        """(the character or set meant, offset in the token) for each character of a string or a class."""
        for match in _ESCAPE.finditer(token.text, skip, len(token.text) - 1):
            two, four, eight, letter, plain = match.groups()
            if plain:
                yield plain, match.start()
            elif letter is None:
                point = int(two or four or eight, 16)
                if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                    raise self._scanner.error("no such character", token, offset=match.start(), keyword=match.group())
                yield chr(point), match.start()
            elif letter in _SIMPLE_ESCAPES:
                yield _SIMPLE_ESCAPES[letter], match.start()
            elif in_class and letter in _CLASS_ESCAPES:
                yield _CLASS_ESCAPES[letter], match.start()
            else:
                raise self._scanner.error("unknown escape", token, offset=match.start(), keyword=match.group())
