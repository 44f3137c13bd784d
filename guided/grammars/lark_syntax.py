r"""Lark's grammar notation: the part of it that says what texts there are.

    start: "let" NAME "=" expression ";"
    ?expression: NUMBER | expression "+" expression -> add
    NAME: /[a-z_]\w*/
    %import common (NUMBER, WS)
    %ignore WS

The language: every derivation of `start`, the texts of its terminals one after another, with any number of ignored
terminals before the first and after each. No longest match, no priorities, no keyword before a name: any way to read a
text counts, as in Lark's Earley parser with `lexer="dynamic_complete"`. Tree shaping (`?rule`, `!rule`, `-> alias`) and
priorities have no effect. Within a terminal nothing is ignored. Refused: templates, `%override`, `%extend`, `%declare`,
imports from elsewhere than `common` and `unicode`. Two terminals of `common` are narrower than Lark's, which would take
in the text of what follows: ESCAPED_STRING ends at its first bare quote, C_COMMENT at its first `*/`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..errors import GrammarError
from ..languages.char_set import CharSet
from ..languages.language import Language
from .grammar_rules import (
    EMPTY,
    MAX_NESTING,
    Choice,
    Expression,
    Literal,
    OneOf,
    Reference,
    Regular,
    Repetition,
    Rules,
    Sequence,
)
from .grammar_scanner import MAX_COUNT, Scanner, Token, shown

START = "start"
_WHOLE, _IGNORED = "%start", "%ignore"
"""Rules of our own: no name of a grammar begins with `%`."""

_WORDS = re.compile(
    r"""(?P<space>[ \t\r\n]+|//[^\n]*|\#[^\n]*)
    |(?P<statement>%[a-z]+)
    |(?P<name>!?[?_]?[A-Za-z][A-Za-z0-9_]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"i?)
    |(?P<regex>/(?!/)(?:\\.|[^/\\\n])+/[imslux]*)
    |(?P<arrow>->)
    |(?P<range>\.\.)
    |(?P<priority>\.\s*[+-]?[0-9]+)
    |(?P<dot>\.)
    |(?P<number>[0-9]+)
    |(?P<times>[*+]|\?(?![a-z]))
    |(?P<punctuation>[|()\[\]:,~{}<@&])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"""\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([nftr"\\]))|(\\?[^\\])""", re.S)
_SIMPLE_ESCAPES = {"n": "\n", "f": "\f", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
_TIMES = {"*": (0, None), "+": (1, None), "?": (0, 1)}

_COMMON = r"""
DIGIT: "0".."9"
HEXDIGIT: "a".."f"|"A".."F"|DIGIT
INT: DIGIT+
SIGNED_INT: ["+"|"-"] INT
DECIMAL: INT "." INT? | "." INT
_EXP: ("e"|"E") SIGNED_INT
FLOAT: INT _EXP | DECIMAL _EXP?
SIGNED_FLOAT: ["+"|"-"] FLOAT
NUMBER: FLOAT | INT
SIGNED_NUMBER: ["+"|"-"] NUMBER
ESCAPED_STRING: /"(?:[^"\\\n]|\\[^\n])*"/
LCASE_LETTER: "a".."z"
UCASE_LETTER: "A".."Z"
LETTER: UCASE_LETTER | LCASE_LETTER
WORD: LETTER+
CNAME: ("_"|LETTER) ("_"|LETTER|DIGIT)*
WS_INLINE: (" "|/\t/)+
WS: /[ \t\f\r\n]/+
CR: /\r/
LF: /\n/
NEWLINE: (CR? LF)+
SH_COMMENT: /#[^\n]*/
CPP_COMMENT: /\/\/[^\n]*/
C_COMMENT: /\/\*(?:[^*]|\*+[^*\/])*\*+\//
SQL_COMMENT: /--[^\n]*/
"""
_UNICODE = r"""
WS_INLINE: /[ \t\xa0]/+
WS: /[ \t\xa0\f\r\n]/+
"""
_LIBRARIES = {"common": _COMMON, "unicode": _UNICODE}


def read_lark(text: str) -> Rules:
    """The rules of a Lark grammar.

    Raises:
        GrammarError: malformed, a name is missing or defined twice, or a construct that is not supported; with line
            and column.
    """
    reader = _Reader(text)
    reader.read()
    return reader.rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self._scanner = Scanner(text, _WORDS)
        self._depth = 0
        self._terminal: str | None = None
        """The terminal whose definition is being read."""
        self._used: dict[str, Token] = {}
        self._used_by: dict[str, list[tuple[str, Token]]] = {}
        """For each terminal the terminals in its definition."""
        self.definitions: dict[str, Expression] = {}
        self._ignored: list[Expression] = []

    def read(self) -> None:
        """Reads all definitions and statements."""
        while self._scanner.peek().kind != "end":
            statement = self._scanner.take("statement")
            if statement:
                self._statement(statement)
            else:
                self._definition()
        for name, token in self._used.items():
            if name not in self.definitions:
                what = "terminal" if _is_terminal(name) else "rule"
                raise self._scanner.error(f"there is no {what} of this name", token)
        self._check_terminals()

    def rules(self) -> Rules:
        """The grammar that begins with the rule `start`."""
        if START not in self.definitions:
            raise self._scanner.error(f"there is no rule {START}", self._scanner.peek(), keyword=START)
        ours = {
            _WHOLE: Sequence((Reference(_IGNORED), Reference(START))),
            _IGNORED: Repetition(Choice(tuple(self._ignored)), 0, None) if self._ignored else EMPTY,
        }
        return Rules(_WHOLE, self.definitions | ours)

    def _definition(self) -> None:
        token = self._scanner.expect("name", "the name of a rule or terminal")
        name = self._name(token)
        self._refuse_template()
        self._scanner.take("priority")
        self._expect(":")
        if name in self.definitions:
            raise self._scanner.error("defined twice", token)
        self._terminal = name if _is_terminal(name) else None
        self.definitions[name] = self._alternatives()
        self._terminal = None
        if not self._at_item():
            token = self._scanner.peek()
            raise self._scanner.error(f"a rule, a terminal or a string expected, not {shown(token)}", token)

    def _at_item(self) -> bool:
        """Whether a definition or a statement begins here, or the text ends."""
        token = self._scanner.peek()
        if token.kind == "name":
            after = self._scanner.peek(1)
            return after.text == ":" or after.kind == "priority"
        return token.kind == "end" or (token.kind == "statement" and token.text in _STATEMENTS)

    def _statement(self, token: Token) -> None:
        if token.text == "%ignore":
            self._terminal = _IGNORED
            self._ignored.append(self._alternatives())
            self._terminal = None
        elif token.text == "%import":
            self._import(token)
        elif token.text == "%llguidance":
            self._expect("{")
            self._expect("}")
        else:
            raise self._scanner.error("this statement is not supported", token, fault="unsupported")

    def _import(self, statement: Token) -> None:
        if self._scanner.peek().kind == "dot":
            raise self._scanner.error("there are no other files to import from", statement, fault="unsupported")
        library = self._scanner.expect("name", "common")
        if library.text not in _LIBRARIES:
            raise self._scanner.error("only common and unicode can be imported from", library, fault="unsupported")
        known = _read_library(library.text)
        if self._scanner.peek().text == "(":
            self._expect("(")
            names = [(token, token.text) for token in self._imported_names()]
        else:
            if not self._scanner.take("dot"):
                raise self._scanner.error(". and a terminal expected", self._scanner.peek())
            token = self._scanner.expect("name", "a terminal")
            as_name = token.text
            if self._scanner.take("arrow"):
                as_name = self._name(self._scanner.expect("name", "a terminal"))
            names = [(token, as_name)]
        for token, as_name in names:
            if token.text not in known:
                raise self._scanner.error(f"{library.text} has no terminal of this name", token)
            if as_name in self.definitions:
                raise self._scanner.error("defined twice", token, keyword=as_name)
            self.definitions[as_name] = _inlined(known[token.text], known)

    def _imported_names(self) -> list[Token]:
        tokens = [self._scanner.expect("name", "a terminal")]
        while self._scanner.peek().text == ",":
            self._expect(",")
            tokens.append(self._scanner.expect("name", "a terminal"))
        self._expect(")")
        return tokens

    def _alternatives(self) -> Expression:
        options = [self._sequence()]
        while self._scanner.peek().text == "|":
            self._expect("|")
            options.append(self._sequence())
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        while not self._at_item():
            token = self._scanner.peek()
            if token.kind not in ("name", "string", "regex") and token.text not in ("(", "["):
                break
            parts.append(self._repeated(self._item(self._scanner.next())))
        if self._scanner.take("arrow"):
            self._scanner.expect("name", "the name of an alias")
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _item(self, token: Token) -> Expression:
        if token.text in ("(", "["):
            self._depth += 1
            if self._depth > MAX_NESTING:
                raise self._scanner.error(f"brackets are nested deeper than {MAX_NESTING}", token, fault="too_complex")
            inner = self._alternatives()
            self._depth -= 1
            self._expect(")" if token.text == "(" else "]")
            return inner if token.text == "(" else Repetition(inner, 0, 1)
        if token.kind == "name":
            return self._reference(token)
        if token.kind == "regex":
            return self._token(Regular(self._regex(token)))
        first = self._string(token)
        if not self._scanner.take("range"):
            return self._token(first)
        other = self._scanner.expect("string", "a string")
        last = self._string(other)
        match first, last:
            case Literal(low), Literal(high) if len(low) == len(high) == 1 and low <= high:
                return self._token(OneOf(CharSet.span(ord(low), ord(high))))
        raise self._scanner.error("a range goes from one character to a later one", token)

    def _reference(self, token: Token) -> Expression:
        name = self._name(token)
        self._refuse_template()
        self._used.setdefault(name, token)
        if not _is_terminal(name):
            if self._terminal is not None:
                raise self._scanner.error("a terminal cannot contain a rule", token)
            return Reference(name)
        if self._terminal is not None:
            self._used_by.setdefault(self._terminal, []).append((name, token))
        return self._token(Reference(name))

    def _token(self, expression: Expression) -> Expression:
        """A terminal where a rule names it: ignored ones may follow."""
        return expression if self._terminal is not None else Sequence((expression, Reference(_IGNORED)))

    def _repeated(self, item: Expression) -> Expression:
        for _ in range(MAX_NESTING):
            if times := self._scanner.take("times"):
                item = Repetition(item, *_TIMES[times.text])
            elif self._scanner.peek().text == "~":
                self._expect("~")
                minimum = maximum = self._count()
                if self._scanner.take("range"):
                    token = self._scanner.peek()
                    maximum = self._count()
                    if maximum < minimum:
                        raise self._scanner.error("the greatest count is below the least", token)
                item = Repetition(item, minimum, maximum)
            else:
                return item
        raise self._scanner.error(f"more than {MAX_NESTING} repetitions of repetitions", self._scanner.peek())

    def _count(self) -> int:
        token = self._scanner.expect("number", "a count")
        if len(token.text) > 12 or int(token.text) > MAX_COUNT:
            raise self._scanner.error(f"a count above {MAX_COUNT}", token)
        return int(token.text)

    def _string(self, token: Token) -> Expression:
        ignores_case = token.text.endswith("i")
        text = ""
        for match in _ESCAPE.finditer(token.text, 1, len(token.text) - 1 - ignores_case):
            two, four, eight, simple, plain = match.groups()
            if code := two or four or eight:
                point = int(code, 16)
                if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                    raise self._scanner.error("no such character", token, offset=match.start(), keyword=match.group())
                text += chr(point)
            else:
                text += _SIMPLE_ESCAPES[simple] if simple else plain
        if not ignores_case:
            return Literal(text)
        return Sequence(tuple(OneOf(_both_cases(character)) for character in text))

    def _regex(self, token: Token) -> Language:
        pattern, _, flags = token.text[1:].rpartition("/")
        flags = flags.replace("u", "")
        try:
            return Language.regex(f"(?{flags}:{pattern})" if flags else pattern, "python")
        except GrammarError as error:
            reason = f"{error.reason} ({error.location})" if error.location else error.reason
            raise self._scanner.error(reason, token, fault=error.fault, keyword=error.keyword) from None

    def _name(self, token: Token) -> str:
        """The name that a word stands for, without its marks."""
        name = token.text.lstrip("!?")
        if name.isupper() or name.islower():
            return name
        raise self._scanner.error("names are all lower case (rules) or all upper case (terminals)", token)

    def _expect(self, text: str) -> None:
        token = self._scanner.next()
        if token.text != text:
            raise self._scanner.error(f"{text} expected, not {shown(token)}", token)

    def _refuse_template(self) -> None:
        if self._scanner.peek().text == "{":
            raise self._scanner.error("templates are not supported", self._scanner.peek(), fault="unsupported")

    def _check_terminals(self) -> None:
        """Refuses terminals that contain themselves."""
        finished: set[str] = set()
        for start in self._used_by:
            path: list[tuple[str, int]] = [(start, 0)]
            on_path = {start}
            while path:
                name, index = path.pop()
                inner = self._used_by.get(name, [])
                if name in finished or index == len(inner):
                    finished.add(name)
                    on_path.discard(name)
                    continue
                path.append((name, index + 1))
                used, token = inner[index]
                if used in on_path:
                    raise self._scanner.error("a terminal cannot contain itself", token)
                if used not in finished:
                    path.append((used, 0))
                    on_path.add(used)


_STATEMENTS = ("%ignore", "%import", "%override", "%extend", "%declare", "%llguidance")


@lru_cache(maxsize=4)
def _read_library(name: str) -> dict[str, Expression]:
    reader = _Reader(_LIBRARIES[name])
    reader.read()
    return reader.definitions


def _inlined(expression: Expression, known: dict[str, Expression]) -> Expression:
    """A terminal of a library without references to others."""
    match expression:
        case Reference(name):
            return _inlined(known[name], known)
        case Sequence(parts):
            return Sequence(tuple(_inlined(part, known) for part in parts))
        case Choice(options):
            return Choice(tuple(_inlined(option, known) for option in options))
        case Repetition(item, minimum, maximum):
            return Repetition(_inlined(item, known), minimum, maximum)
    return expression


def _is_terminal(name: str) -> bool:
    return name.isupper()


def _both_cases(character: str) -> CharSet:
    return CharSet.of(form for form in {character, character.lower(), character.upper()} if len(form) == 1)
