"""Regular expressions to languages: the front door.

`interegular` parses the structure; it reads its own dialect, so this module first scans the pattern with the rules of
the dialect that is meant, refuses what cannot be exact here (backreferences, atomic groups, possessive repetition
…), and hands `interegular` a skeleton in which each atom is one private-use character. `regex_language` turns the
tree into a `Language`.

    parse_regex(r"^\\d{4}-[A-Z]+$", "ecma")

Dialects: "python" is `re.fullmatch`; "ecma" is JSON Schema's `pattern`, a search, and it accepts only what ECMAScript
and Python both accept, so that an answer validates whichever the reader uses; "ecma_either" accepts what at least one
of them does, for use under a complement.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn

from interegular.patterns import InvalidSyntax, Unsupported, parse_pattern

from ..errors import GrammarError
from .char_set import ALL_CHARACTERS, ECMA_LINE_ENDS, EMPTY_SET, CharSet
from .language import Language
from .regex_classes import EscapedClasses, ignoring_case, property_set
from .regex_language import Assertion, AssertionKind, opposite, regex_language

RegexDialect = Literal["python", "ecma", "ecma_either"]

MAX_NESTING = 60
MAX_PATTERN_LENGTH = 60_000
MAX_REPEAT = 10_000_000
FIRST_PLACEHOLDER = 0xF0000


def parse_regex(pattern: str, dialect: RegexDialect) -> Language:
    """The language of a regular expression.

    Raises:
        GrammarError: malformed or unsupported; `location` is `position N`.
    """
    scanner = _Scanner(pattern, dialect)
    scanner.scan()
    skeleton, atoms = scanner.skeleton()
    try:
        tree = parse_pattern(skeleton)
    except (InvalidSyntax, Unsupported) as error:
        raise GrammarError("invalid", "the pattern is malformed", keyword=pattern[:80]) from error
    return regex_language(tree, atoms, dialect)


@dataclass(slots=True)
class _Flags:
    ignore_case: bool = False
    multi_line: bool = False
    dot_all: bool = False
    ascii_only: bool = False
    verbose: bool = False
    negative: bool = False
    """Inside an odd number of negative lookarounds: what accepts less in there accepts more outside."""


Atom = CharSet | Assertion


@dataclass(slots=True)
class _Item:
    """A piece of the skeleton: an atom, or structure (`text`), which may have a quantifier."""

    position: int
    text: str = ""
    atom: Atom | None = None
    character: str | None = None
    quantifier: str = ""
    can_repeat: bool = field(default=True)


class _Scanner:
    """One pass over the pattern, left to right."""

    def __init__(self, pattern: str, dialect: RegexDialect) -> None:
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise GrammarError("too_complex", f"the pattern has more than {MAX_PATTERN_LENGTH} characters")
        self.pattern, self.dialect = pattern, dialect
        self.python = dialect == "python"
        self.at = 0
        self.items: list[_Item] = []
        self.flags = [_Flags()]
        self.classes = EscapedClasses(dialect)

    def skeleton(self) -> tuple[str, dict[str, Language | Assertion]]:
        """The pattern for `interegular`, and what its placeholders stand for."""
        atoms: dict[str, Language | Assertion] = {}
        placeholders: dict[Language | Assertion, str] = {}

        def placeholder(value: Language | Assertion) -> str:
            if value not in placeholders:
                placeholders[value] = chr(FIRST_PLACEHOLDER + len(placeholders))
                atoms[placeholders[value]] = value
            return placeholders[value]

        text: list[str] = []
        run: list[str] = []
        for item in self.items:
            if item.character is not None and not item.quantifier:
                run.append(item.character)
                continue
            if run:
                text.append(placeholder(Language.literal("".join(run))))
                run = []
            if item.character is not None:
                text.append(placeholder(Language.literal(item.character)))
            elif isinstance(item.atom, CharSet):
                text.append(placeholder(Language.chars(item.atom)))
            elif item.atom is not None:
                text.append(placeholder(item.atom))
            text.append(item.text + item.quantifier)
        if run:
            text.append(placeholder(Language.literal("".join(run))))
        return "".join(text), atoms

    # --- the parts of a pattern -------------------------------------------------------------------------------

    def scan(self) -> None:
        """Fills `items`."""
        pattern = self.pattern
        opened: list[int] = []
        while self.at < len(pattern):
            start, character = self.at, pattern[self.at]
            self.at += 1
            if character == "(":
                if self._open_group(start):
                    opened.append(start)
                    if len(opened) > MAX_NESTING:
                        raise GrammarError(
                            "too_complex", f"groups are nested deeper than {MAX_NESTING}", location=_place(start)
                        )
            elif character == ")":
                if not opened:
                    self._invalid(start, "unbalanced parenthesis", ")")
                opened.pop()
                self.flags.pop()
                self._choose_reading()
                self._close_group(start)
            elif character == "|":
                self.items.append(_Item(start, "|", can_repeat=False))
            elif character in "*+?" or (character == "{" and self._counted()):
                self._quantifier(start, character)
            elif character == "[":
                self._add_set(start, self._bracket(start))
            elif character == "\\":
                self._escape(start)
            elif character == ".":
                self._add_set(start, self._dot())
            elif character == "^":
                kind = AssertionKind.LINE_START if self.flags[-1].multi_line else AssertionKind.TEXT_START
                self._add_assertion(start, kind)
            elif character == "$":
                kind = AssertionKind.LINE_END if self.flags[-1].multi_line else AssertionKind.TEXT_END
                self._add_assertion(start, kind)
            elif self.flags[-1].verbose and character in " \t\n\r\f\v":
                pass
            elif self.flags[-1].verbose and character == "#":
                end = pattern.find("\n", self.at)
                self.at = len(pattern) if end < 0 else end + 1
            else:
                self._add_character(start, ord(character))
        if opened:
            self._invalid(opened[-1], "the group is not closed", "(")

    def _add_set(self, start: int, char_set: CharSet) -> None:
        self.items.append(_Item(start, atom=char_set))

    def _add_assertion(self, start: int, kind: AssertionKind) -> None:
        self.items.append(_Item(start, atom=Assertion(kind, start), can_repeat=False))

    def _add_character(self, start: int, point: int) -> None:
        if 0xD800 <= point <= 0xDFFF:
            self._add_set(start, EMPTY_SET)
        elif self.flags[-1].ignore_case:
            self._add_set(start, ignoring_case(CharSet.span(point, point), self.flags[-1].ascii_only))
        else:
            self.items.append(_Item(start, character=chr(point)))

    def _dot(self) -> CharSet:
        if self.flags[-1].dot_all:
            return ALL_CHARACTERS
        return ~(ECMA_LINE_ENDS if self.classes.dialect == "ecma" else CharSet.of("\n"))

    def _open_group(self, start: int) -> bool:
        """Reads `(…` up to the group's content; False: it was no group but a flag or a comment."""
        rest = self.pattern[self.at :]
        if not rest.startswith("?"):
            return self._begin(start, "(?:", 0)
        named = re.match(r"\?P?<([^\W\d]\w*)>", rest)
        if named and rest.startswith("?P") == self.python:
            return self._begin(start, "(?:", named.end())
        for opening in ("?:", "?=", "?!", "?<=", "?<!"):
            if rest.startswith(opening):
                return self._begin(start, "(" + opening, len(opening))
        if rest.startswith("?#") and self.python:
            end = self.pattern.find(")", self.at)
            if end < 0:
                self._invalid(start, "the comment is not closed", "(?#")
            self.at = end + 1
            return False
        for opening, name in (("?>", "atomic groups"), ("?P=", "backreferences"), ("?(", "conditional groups")):
            if rest.startswith(opening):
                self._unsupported(start, f"{name} are not supported", "(" + opening)
        flags = re.match(r"\?([aiLmsux]*)(?:-([imsx]+))?([:)])", rest)
        if flags is None:
            self._invalid(start, "unknown kind of group", self.pattern[start : start + 4])
        return self._flag_group(start, flags)

    def _begin(self, start: int, text: str, consumed: int) -> bool:
        self.at += consumed
        self.items.append(_Item(start, text, can_repeat=False))
        if text != "(?:":
            self.items.append(_Item(start, atom=Assertion(AssertionKind.PLACE, start), can_repeat=False))
        flags = self.flags[-1]
        self.flags.append(replace(flags, negative=flags.negative != (text in ("(?!", "(?<!"))))
        self._choose_reading()
        return True

    def _choose_reading(self) -> None:
        self.classes.dialect = opposite(self.dialect) if self.flags[-1].negative else self.dialect

    def _flag_group(self, start: int, match: re.Match[str]) -> bool:
        added, removed, ending = match.group(1), match.group(2) or "", match.group(3)
        if not self.python:
            self._unsupported(start, "inline flags are not part of ECMAScript patterns", match.group(0))
        if ending == ")" and (start != 0 or removed or not added):
            self._invalid(start, "global flags must stand at the start of the pattern", "(" + match.group(0))
        if "L" in added:
            self._invalid(start, "the flag L does not apply to text", "(" + match.group(0))
        if ending == ":":
            self._begin(start, "(?:", match.end())
        else:
            self.at += match.end()
        flags = self.flags[-1]
        for letters, value in ((added, True), (removed, False)):
            flags.ignore_case = value if "i" in letters else flags.ignore_case
            flags.multi_line = value if "m" in letters else flags.multi_line
            flags.dot_all = value if "s" in letters else flags.dot_all
            flags.verbose = value if "x" in letters else flags.verbose
        flags.ascii_only = "a" in added or (flags.ascii_only and "u" not in added)
        return ending == ":"

    def _close_group(self, start: int) -> None:
        depth = 0
        for item in reversed(self.items):
            depth += (item.text == ")") - item.text.startswith("(")
            if depth < 0:
                self.items.append(_Item(start, ")", can_repeat=item.text == "(?:"))
                return

    # --- quantifiers ------------------------------------------------------------------------------------------

    _COUNTS = re.compile(r"\{(\d*)(,?)(\d*)\}")

    def _counted(self) -> bool:
        """Whether a counted quantifier begins at the brace just read; otherwise the brace is a character."""
        match = self._COUNTS.match(self.pattern, self.at - 1)
        if match is None or not (match.group(1) or match.group(2)):
            return False
        if not match.group(1) and not self.python:
            self._unsupported(
                self.at - 1, "ECMAScript and Python disagree about a count without a minimum", match.group()
            )
        return True

    def _quantifier(self, start: int, character: str) -> None:
        text = character
        if character == "{":
            match = self._COUNTS.match(self.pattern, start)
            assert match is not None
            low, comma, high = match.groups()
            self.at = match.end()
            if max(int(low or 0), int(high or 0)) > MAX_REPEAT:
                raise GrammarError(
                    "too_complex", f"more than {MAX_REPEAT} repetitions", location=_place(start), keyword=match.group()
                )
            if high and int(low or 0) > int(high):
                self._invalid(start, "the least number of repetitions is above the greatest", match.group())
            text = f"{{{int(low or 0)}{comma}{high and int(high)}}}"
        item = self.items[-1] if self.items else None
        if item is None or not item.can_repeat:
            self._invalid(start, "nothing to repeat", character)
        if item.quantifier:
            self._invalid(start, "a repetition of a repetition needs a group", character)
        item.quantifier = text
        if self.pattern.startswith("?", self.at):
            self.at += 1
        elif self.pattern.startswith("+", self.at):
            self._unsupported(start, "possessive repetition is not supported", self.pattern[start : self.at + 1])

    # --- escapes ----------------------------------------------------------------------------------------------

    def _escape(self, start: int) -> None:
        """An escape outside brackets; the backslash was read."""
        letter = self._next(start)
        if letter in "bB":
            kind = AssertionKind.WORD_BOUNDARY if letter == "b" else AssertionKind.NOT_WORD_BOUNDARY
            if self.flags[-1].ascii_only:
                self._unsupported(start, "word boundaries with the flag a are not supported", "\\" + letter)
            self._add_assertion(start, kind)
        elif letter in "AZ" and self.python:
            kind = AssertionKind.TEXT_START if letter == "A" else AssertionKind.VERY_END
            self._add_assertion(start, kind)
        elif letter in "123456789":
            digits = re.compile(r"[0-3][0-7][0-7]").match(self.pattern, self.at - 1)
            if digits is None or not self.python:
                self._unsupported(start, "backreferences are not supported", "\\" + letter)
            self.at = digits.end()
            self._add_character(start, int(digits.group(), 8))
        elif letter == "k" and not self.python:
            self._unsupported(start, "backreferences are not supported", "\\k")
        else:
            value = self._common_escape(start, letter)
            if isinstance(value, CharSet):
                self._add_set(start, value)
            else:
                self._add_character(start, value)

    def _next(self, start: int) -> str:
        if self.at >= len(self.pattern):
            self._invalid(start, "the pattern ends inside an escape", "\\")
        self.at += 1
        return self.pattern[self.at - 1]

    def _common_escape(self, start: int, letter: str) -> CharSet | int:
        """An escape that means the same inside and outside brackets: a class, or a code point."""
        if letter in "dDsSwW":
            return self.classes.named(letter, ascii_only=self.flags[-1].ascii_only)
        if letter in "pP":
            return self._property(start, letter == "P")
        simple = "nrtfv" + "a" * self.python
        if letter in simple:
            return ord("\n\r\t\f\v\a"["nrtfva".index(letter)])
        if letter == "x":
            return self._hexadecimal(start, 2)
        if letter == "u":
            return self._unicode_escape(start)
        if letter == "U" and self.python:
            return self._hexadecimal(start, 8)
        if letter == "N" and self.python:
            return self._named_character(start)
        if letter == "c" and not self.python and re.compile("[A-Za-z]").match(self.pattern, self.at):
            self.at += 1
            return ord(self.pattern[self.at - 1]) % 32
        if letter == "0":
            digits = re.compile(r"[0-7]{0,2}" if self.python else r"(?![0-9])").match(self.pattern, self.at)
            if digits is None:
                self._unsupported(start, "octal escapes are not supported", "\\0")
            self.at = digits.end()
            return int("0" + digits.group(), 8)
        if letter.isascii() and letter.isalnum():
            self._invalid(start, "unknown escape", "\\" + letter)
        return ord(letter)

    def _hexadecimal(self, start: int, digits: int) -> int:
        text = self.pattern[self.at : self.at + digits]
        if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", text) or int(text, 16) > 0x10FFFF:
            self._invalid(start, f"the escape needs {digits} hexadecimal digits", self.pattern[start : self.at])
        self.at += digits
        return int(text, 16)

    def _unicode_escape(self, start: int) -> int:
        braced = re.compile(r"\{([0-9a-fA-F]{1,8})\}").match(self.pattern, self.at)
        if braced and not self.python and int(braced.group(1), 16) <= 0x10FFFF:
            self.at = braced.end()
            return int(braced.group(1), 16)
        point = self._hexadecimal(start, 4)
        low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self.pattern, self.at)
        if low and 0xD800 <= point <= 0xDBFF and not self.python:
            self.at = low.end()
            return 0x10000 + ((point - 0xD800) << 10) + int(low.group(1), 16) - 0xDC00
        return point

    def _named_character(self, start: int) -> int:
        name = re.compile(r"\{([^}]*)\}").match(self.pattern, self.at)
        try:
            found = unicodedata.lookup(name.group(1)) if name else ""
        except KeyError:
            found = ""
        if name is None or len(found) != 1:
            self._invalid(start, "unknown character name", "\\N")
        self.at = name.end()
        return ord(found)

    def _property(self, start: int, negated: bool) -> CharSet:
        braced = re.compile(r"\{(\^?)([A-Za-z_=]+)\}|([LMNPSZC])").match(self.pattern, self.at)
        if braced is None:
            self._invalid(start, "the property needs a name in braces", self.pattern[start : self.at])
        self.at = braced.end()
        name = braced.group(3) or braced.group(2)
        char_set = property_set(name)
        if char_set is None:
            self._unsupported(start, f"the property {name!r} is not supported", self.pattern[start : self.at])
        return ~char_set if negated != bool(braced.group(1)) else char_set

    # --- bracketed sets ---------------------------------------------------------------------------------------

    def _bracket(self, start: int) -> CharSet:
        """A set in brackets; the opening one was read."""
        pattern = self.pattern
        negated = pattern.startswith("^", self.at)
        self.at += negated
        self.classes.negated = negated
        ranges: list[tuple[int, int]] = []
        first = True
        while True:
            if self.at >= len(pattern):
                self._invalid(start, "the set is not closed", "[")
            if first and pattern[self.at] == "]" and not self.python:
                self._unsupported(start, "ECMAScript and Python disagree about a bracket that comes first", "[]")
            if pattern[self.at] == "]" and not first:
                self.at += 1
                break
            first = False
            if re.compile(r"\[[:.=]").match(pattern, self.at):
                self._unsupported(self.at, "POSIX classes are not supported", pattern[self.at : self.at + 2])
            low = self._bracket_member(start)
            if (
                pattern.startswith("-", self.at)
                and not pattern.startswith("-]", self.at)
                and self.at + 1 < len(pattern)
            ):
                dash = self.at
                self.at += 1
                high = self._bracket_member(start)
                if isinstance(low, CharSet) or isinstance(high, CharSet):
                    if self.python:
                        self._invalid(dash, "a class cannot be the end of a range", "-")
                    ranges.append((0x2D, 0x2D))
                    for member in (low, high):
                        ranges += member.ranges if isinstance(member, CharSet) else ((member, member),)
                    continue
                if low > high:
                    self._invalid(dash, "the range is the wrong way round", pattern[dash - 1 : self.at])
                ranges.append((low, high))
            else:
                ranges += low.ranges if isinstance(low, CharSet) else ((low, low),)
        self.classes.negated = False
        char_set = CharSet.of_ranges(ranges)
        if self.flags[-1].ignore_case:
            char_set = ignoring_case(char_set, self.flags[-1].ascii_only)
        return ~char_set if negated else char_set

    def _bracket_member(self, start: int) -> CharSet | int:
        character = self._next(start)
        if character != "\\":
            return ord(character)
        at = self.at - 1
        letter = self._next(start)
        if letter == "b":
            return 8
        if letter in "123456789":
            octal = re.compile(r"[0-3]?[0-7]{1,2}").match(self.pattern, self.at - 1)
            if octal is None or not self.python:
                self._invalid(at, "unknown escape", "\\" + letter)
            self.at = octal.end()
            return int(octal.group(), 8)
        return self._common_escape(at, letter)

    # --- errors -----------------------------------------------------------------------------------------------

    def _invalid(self, position: int, reason: str, construct: str) -> NoReturn:
        raise GrammarError("invalid", reason, location=_place(position), keyword=construct)

    def _unsupported(self, position: int, reason: str, construct: str) -> NoReturn:
        raise GrammarError("unsupported", reason, location=_place(position), keyword=construct)


def _place(position: int) -> str:
    return f"position {position}"
