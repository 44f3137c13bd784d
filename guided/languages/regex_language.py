"""The tree of a regular expression to a `Language`, with assertions kept exact.

An assertion speaks about its surroundings: a lookahead about all that follows, `^` and `\\b` about the character
before. So a tree is built from the right, each node knowing the language of everything behind it (its continuation),
for each *context*: what kind of character stands before. `x(?=y)z` is `x` followed by `(y.*) & z…`. Parts without
assertions, which is nearly always all, are plain concatenations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, NoReturn

from interegular import patterns

from ..errors import GrammarError
from .char_set import ALL_CHARACTERS, ASCII_WORD, CharSet, python_class
from .language import Language

MAX_UNROLLED = 64
MAX_BUILDS = 20_000


class AssertionKind(Enum):
    """What an assertion asks; PLACE asks nothing: it marks where a lookaround stands in the pattern."""

    TEXT_START = "^"
    LINE_START = "(?m)^"
    TEXT_END = "$"
    LINE_END = "(?m)$"
    VERY_END = "\\Z"
    WORD_BOUNDARY = "\\b"
    NOT_WORD_BOUNDARY = "\\B"
    PLACE = "(?"


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion and its position in the pattern."""

    kind: AssertionKind
    position: int


@dataclass(frozen=True, slots=True)
class _Look:
    """A lookahead or a lookbehind."""

    inner: _Node
    behind: bool
    negated: bool
    position: int


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    body: _Node
    low: int
    high: int | None


_Node = Language | Assertion | _Look | _Sequence | _Choice | _Repeat
_Continuation = Callable[[int], Language]
"""The language of all that follows, given the context where it begins."""

_NO_TEXT = Language.literal("")
_ANY_TEXT = Language.everything()


def opposite(dialect: str) -> str:
    """The dialect that the inside of a negative lookaround is read in: it accepts more where the other accepts less."""
    return {"ecma": "ecma_either", "ecma_either": "ecma"}.get(dialect, dialect)


def regex_language(tree: Any, atoms: dict[str, Language | Assertion], dialect: str) -> Language:
    """The language of a parsed pattern.

    Args:
        tree: what `interegular.parse_pattern` made of the skeleton.
        atoms: what each placeholder character in it stands for.
        dialect: "python" (the whole text matches), "ecma" or "ecma_either" (it is found somewhere).

    Raises:
        GrammarError: an assertion whose exact meaning is out of reach.
    """
    node = _simplified(tree, atoms)
    if isinstance(node, Language):
        return node if dialect == "python" else Language.concatenation((_ANY_TEXT, node, _ANY_TEXT))
    builder = _Builder(node, dialect)
    if dialect == "python":
        return builder.build(node, builder.start, lambda context: _NO_TEXT)
    found = [builder.build(node, builder.start, lambda context: _ANY_TEXT)]
    for context, before in enumerate(builder.contexts):
        found.append(
            Language.concatenation(
                (_ANY_TEXT, Language.chars(before), builder.build(node, context, lambda context: _ANY_TEXT))
            )
        )
    return Language.union(found)


def _simplified(tree: Any, atoms: dict[str, Language | Assertion]) -> _Node:
    """`interegular`'s tree with every part that has no assertion as a Language."""
    if isinstance(tree, patterns.Pattern):
        return _choice([_simplified(option, atoms) for option in tree.options])
    if isinstance(tree, patterns._Concatenation):
        return _sequence([_simplified(part, atoms) for part in tree.parts])
    if isinstance(tree, patterns._Repeated):
        body = _simplified(tree.base, atoms)
        return body.repeat(tree.min, tree.max) if isinstance(body, Language) else _Repeat(body, tree.min, tree.max)
    if isinstance(tree, patterns._CharGroup):
        (placeholder,) = tree.chars
        return atoms[placeholder]
    assert isinstance(tree, patterns._NonCapturing)
    inner = _simplified(tree.inner, atoms)
    place = _place_of(inner)
    return _Look(_without_places(inner), tree.backwards, tree.negate, place)


def _choice(options: list[_Node]) -> _Node:
    languages = [option for option in options if isinstance(option, Language)]
    others: list[_Node] = [option for option in options if not isinstance(option, Language)]
    if not others:
        return Language.union(languages)
    if languages:
        others.append(Language.union(languages))
    return others[0] if len(others) == 1 else _Choice(tuple(others))


def _sequence(parts: list[_Node]) -> _Node:
    joined: list[_Node] = []
    for part in parts:
        if isinstance(part, Language) and joined and isinstance(last := joined[-1], Language):
            joined[-1] = Language.concatenation((last, part))
        elif part != _NO_TEXT:
            joined.append(part)
    if not joined:
        return _NO_TEXT
    return joined[0] if len(joined) == 1 else _Sequence(tuple(joined))


def _place_of(node: _Node) -> int:
    """The position that the PLACE at the beginning of a lookaround tells."""
    while isinstance(node, (_Sequence, _Choice)):
        node = node.parts[0] if isinstance(node, _Sequence) else node.options[0]
    return node.position if isinstance(node, Assertion) else 0


def _without_places(node: _Node) -> _Node:
    if isinstance(node, Assertion):
        return _NO_TEXT if node.kind is AssertionKind.PLACE else node
    if isinstance(node, _Sequence):
        return _sequence([_without_places(part) for part in node.parts])
    if isinstance(node, _Choice):
        return _choice([_without_places(option) for option in node.options])
    return node


class _Builder:
    """Builds languages for one tree.

    Attributes:
        contexts: classes that all characters fall into, fine enough for every assertion that looks back.
        start: the context at the start of the text.
    """

    def __init__(self, node: _Node, dialect: str) -> None:
        self.dialect = dialect
        self.builds = 0
        self.contexts = [ALL_CHARACTERS] if _looks_back(node) else []
        for wanted in _context_sets(node, dialect):
            self.contexts = [part for one in self.contexts for part in (one & wanted, one - wanted) if part]
        if not self.contexts:
            self.contexts = [ALL_CHARACTERS]
        self.start = len(self.contexts)

    def build(self, node: _Node, context: int, then: _Continuation) -> Language:
        """The texts that begin with a match of `node` and go on as `then` says."""
        self.builds += 1
        if self.builds > MAX_BUILDS:
            raise GrammarError("too_complex", "the assertions of the pattern have too many combinations")
        if isinstance(node, Language):
            return self._build_language(node, context, then)
        if isinstance(node, Assertion):
            return self._build_assertion(node, context, then)
        if isinstance(node, _Look):
            return self._build_look(node, context, then)
        if isinstance(node, _Choice):
            return Language.union([self.build(option, context, then) for option in node.options])
        if isinstance(node, _Sequence):
            for part in reversed(node.parts[1:]):
                then = _remembered(partial(self._build_part, part, then))
            return self.build(node.parts[0], context, then)
        return self._build_repeat(node, context, then)

    def _build_part(self, node: _Node, then: _Continuation, context: int) -> Language:
        return self.build(node, context, then)

    def _build_language(self, language: Language, context: int, then: _Continuation) -> Language:
        by_context = [then(index) for index in range(len(self.contexts))]
        if len(set(by_context)) == 1 and (then(context) == by_context[0] or not language.contains("")):
            return language + by_context[0]
        built = [then(context)] if language.contains("") else []
        for before, rest in zip(self.contexts, by_context, strict=True):
            if not rest.is_nothing():
                ending = language & (_ANY_TEXT + Language.chars(before))
                built.append(ending + rest)
        return Language.union(built)

    def _build_assertion(self, node: Assertion, context: int, then: _Continuation) -> Language:
        kind = node.kind
        at_start = context == self.start
        before = None if at_start else self.contexts[context]
        if kind is AssertionKind.PLACE:
            return then(context)
        if kind is AssertionKind.TEXT_START:
            return then(context) if at_start else Language.nothing()
        if kind is AssertionKind.LINE_START:
            holds = before is None or "\n" in before
            return then(context) if holds else Language.nothing()
        rest = then(context)
        if kind is AssertionKind.TEXT_END:
            return rest & (_NO_TEXT if self.dialect == "ecma" else Language.literals(["", "\n"]))
        if kind is AssertionKind.LINE_END:
            return rest & (_NO_TEXT | (Language.literal("\n") + _ANY_TEXT))
        if kind is AssertionKind.VERY_END:
            return rest & _NO_TEXT
        return rest & self._boundary(before, kind is AssertionKind.WORD_BOUNDARY)

    def _boundary(self, before: CharSet | None, wanted: bool) -> Language:
        """What may follow where there must be (or not be) a word boundary behind a character of `before`."""
        readings = []
        for word in _word_sets(self.dialect):
            inside = before is not None and bool(before & word)
            word_next = Language.chars(word) + _ANY_TEXT
            no_word_next = Language.chars(~word) + _ANY_TEXT
            # In Python `\\B` does not match the empty text.
            if before is not None or (word == ASCII_WORD and self.dialect != "python"):
                no_word_next = _NO_TEXT | no_word_next
            readings.append(word_next if inside != wanted else no_word_next)
        return Language.union(readings) if self.dialect == "ecma_either" else Language.intersection(readings)

    def _build_look(self, node: _Look, context: int, then: _Continuation) -> Language:
        if node.behind:
            before = _single_set(node.inner)
            if before is None:
                _unsupported(node.position, "lookbehinds longer than one character are not supported", "(?<")
            holds = context != self.start and bool(self.contexts[context] & before)
            return then(context) if holds != node.negated else Language.nothing()
        if not node.negated:
            return then(context) & self.build(node.inner, context, lambda context: _ANY_TEXT)
        self.dialect = opposite(self.dialect)
        ahead = self.build(node.inner, context, lambda context: _ANY_TEXT)
        self.dialect = opposite(self.dialect)
        return then(context) & ~ahead

    def _build_repeat(self, node: _Repeat, context: int, then: _Continuation) -> Language:
        tempered = self._build_tempered(node, context, then)
        if tempered is not None:
            return tempered
        if node.high is None and node.low <= 1 and self.dialect == "ecma":
            going_on = _without_ends(node.body)
            if going_on is not None and len({then(index) for index in range(len(self.contexts) + 1)}) == 1:
                return self._build_ended_rounds(node, going_on, context, then)
        if node.high is None or node.high > MAX_UNROLLED:
            place = _first_assertion(node.body)
            _unsupported(place, "an assertion inside an unbounded repetition is not supported", "(?")
        return self._round(node, then, 0, context)

    def _round(self, node: _Repeat, then: _Continuation, done: int, context: int) -> Language:
        assert node.high is not None
        stop = then(context) if done >= node.low else Language.nothing()
        if done == node.high:
            return stop
        again = self.build(node.body, context, _remembered(partial(self._round, node, then, done + 1)))
        return stop | again

    def _build_ended_rounds(self, node: _Repeat, going_on: Language, context: int, then: _Continuation) -> Language:
        """`(?:x|y$)*`: any number of rounds that do not end the text, then perhaps one that does."""
        last = self.build(node.body, context, lambda context: then(context) & _NO_TEXT)
        rest = then(context)
        rounds = Language.concatenation((going_on.repeat(0, None), rest | last))
        return rounds if node.low == 0 else Language.concatenation((going_on, rounds)) | last

    def _build_tempered(self, node: _Repeat, context: int, then: _Continuation) -> Language | None:
        """`(?:(?!x).)*` up to the end of the text: no `x` begins anywhere. None: it is not of this form."""
        body = node.body
        if not isinstance(body, _Sequence) or len(body.parts) != 2:
            return None
        look, step = body.parts
        if not isinstance(look, _Look) or look.behind or not isinstance(look.inner, Language):
            return None
        ends_here = all(then(index) == _NO_TEXT for index in range(len(self.contexts) + 1))
        if not ends_here or not look.negated or not isinstance(step, Language) or step.kind != "chars":
            return None
        steps = step.repeat(node.low, node.high)
        return (
            steps
            - Language.concatenation((_ANY_TEXT, look.inner, Language.length(1, None)))
            - (
                (_ANY_TEXT + look.inner) & Language.length(1, None)
                if not look.inner.contains("")
                else Language.length(1, None)
            )
        )


def _without_ends(node: _Node) -> Language | None:
    """The matches of a node that take no `$`; None: it has other assertions."""
    if isinstance(node, Language):
        return node
    if isinstance(node, Assertion):
        return Language.nothing() if node.kind is AssertionKind.TEXT_END else None
    if isinstance(node, _Look):
        return None
    parts = [_without_ends(child) for child in _children(node)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if isinstance(node, _Choice):
        return Language.union(known)
    return Language.concatenation(known) if isinstance(node, _Sequence) else known[0].repeat(node.low, node.high)


def _remembered(continuation: _Continuation) -> _Continuation:
    """The continuation, asked only once for each context."""
    known: dict[int, Language] = {}

    def remembered(context: int) -> Language:
        if context not in known:
            known[context] = continuation(context)
        return known[context]

    return remembered


def _children(node: _Node) -> tuple[_Node, ...]:
    if isinstance(node, _Sequence):
        return node.parts
    if isinstance(node, _Choice):
        return node.options
    if isinstance(node, _Repeat):
        return (node.body,)
    return (node.inner,) if isinstance(node, _Look) else ()


def _looks_back(node: _Node) -> bool:
    if isinstance(node, Assertion):
        ahead_only = (AssertionKind.TEXT_END, AssertionKind.LINE_END, AssertionKind.VERY_END, AssertionKind.PLACE)
        return node.kind not in ahead_only
    return (isinstance(node, _Look) and node.behind) or any(_looks_back(child) for child in _children(node))


def _context_sets(node: _Node, dialect: str) -> list[CharSet]:
    """The sets that assertions ask of the character before."""
    if isinstance(node, Assertion):
        if node.kind is AssertionKind.LINE_START:
            return [CharSet.of("\n")]
        if node.kind in (AssertionKind.WORD_BOUNDARY, AssertionKind.NOT_WORD_BOUNDARY):
            return _word_sets(dialect)
    sets: list[CharSet] = []
    if isinstance(node, _Look) and node.behind:
        before = _single_set(node.inner)
        sets = [] if before is None else [before]
    return sets + [one for child in _children(node) for one in _context_sets(child, dialect)]


def _word_sets(dialect: str) -> list[CharSet]:
    """What counts as a word's character: Python's reading, ECMAScript's, or both."""
    return [python_class("w")] if dialect == "python" else [ASCII_WORD, python_class("w")]


def _single_set(node: _Node) -> CharSet | None:
    """The set that a one-character language is; None: it is no such language."""
    if not isinstance(node, Language):
        return None
    if node.kind == "chars":
        return node.value
    if node.kind == "literals" and all(len(text) == 1 for text in node.value):
        return CharSet.of(node.value)
    if node.kind == "or" and node.parts:
        members = [_single_set(part) for part in node.parts]
        known = [member for member in members if member is not None]
        return (
            CharSet.of_ranges(run for member in known for run in member.ranges) if len(known) == len(members) else None
        )
    return None


def _first_assertion(node: _Node) -> int:
    if isinstance(node, (Assertion, _Look)):
        return node.position
    return next((place for child in _children(node) if (place := _first_assertion(child)) >= 0), -1)


def _unsupported(position: int, reason: str, construct: str) -> NoReturn:
    raise GrammarError("unsupported", reason, location=f"position {position}", keyword=construct)
