"""The rules of a context-free grammar, as every notation is read, and what must be known of them before they run.

A notation's reader (`gbnf`, `lark_syntax`, `structural_tag`) makes `Rules`: named expressions and the one to begin
with. `analyse` finds which rules can produce text at all (the others are never entered, so that nothing leads into a
dead end), which can be empty, and which come back to themselves before they have read anything (left recursion).
`context_free` runs the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..budget import Budget
from ..errors import GrammarError
from ..languages.char_set import CharSet

if TYPE_CHECKING:
    from ..json_schema.schema import Schema
    from ..languages.language import Language

MAX_NESTING = 100
"""Brackets within brackets in one rule: expressions are walked by recursion."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly this text."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character of a set."""

    characters: CharSet


@dataclass(frozen=True, slots=True)
class Regular:
    """Any text of a regular language."""

    language: Language


@dataclass(frozen=True, slots=True)
class FreeText:
    """Any text until one of some strings is complete for the first time, and that string; then what belongs to it.

    Attributes:
        stops: (string that is not empty, what follows it).
        excluded: strings that do not come.
        may_end: whether the text may also end before a stop.
    """

    stops: tuple[tuple[str, Expression], ...]
    excluded: tuple[str, ...]
    may_end: bool


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A JSON value that satisfies a schema; the schema is satisfiable."""

    schema: Schema


@dataclass(frozen=True, slots=True)
class Reference:
    """What the rule of that name produces."""

    rule: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after another; without parts: the empty text."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them; without options: nothing at all."""

    options: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """Between `minimum` and `maximum` (None: any number) times `item`."""

    item: Expression
    minimum: int
    maximum: int | None


Expression = Literal | OneOf | Regular | FreeText | JsonValue | Reference | Sequence | Choice | Repetition

EMPTY = Sequence(())


@dataclass(frozen=True, slots=True)
class Rules:
    """A grammar: each name in a Reference is a key of `definitions`, and so is `start`."""

    start: str
    definitions: dict[str, Expression]


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """What `analyse` found out.

    Attributes:
        productive: rules that can be reached and produce at least one text.
        nullable: rules that produce the empty text.
        rank: for every rule that can be entered: lower than that of all rules which it may enter before reading
            anything; equal exactly for rules that are left recursive through each other.
        left_recursive: the rules that come back to themselves before reading anything.
    """

    productive: frozenset[str]
    nullable: frozenset[str]
    rank: dict[str, int]
    left_recursive: frozenset[str]


def analyse(rules: Rules, budget: Budget) -> RuleFacts:
    """Looks at all rules that can be reached from the start.

    Raises:
        GrammarError: (unsatisfiable) no text at all can be derived from the start rule.
    """
    uses: dict[str, list[str]] = {}
    reached, waiting = {rules.start}, [rules.start]
    while waiting:
        rule = waiting.pop()
        for used in _references(rules.definitions[rule]):
            budget.spend()
            uses.setdefault(used, []).append(rule)
            if used not in reached:
                reached.add(used)
                waiting.append(used)
    productive = _least_fixpoint(rules, reached, uses, is_productive, budget)
    if rules.start not in productive:
        location = f"rule {rules.start.lstrip('%')}"
        raise GrammarError("unsatisfiable", "no text can be derived from this rule", location=location)
    nullable = _least_fixpoint(rules, productive, uses, is_nullable, budget)
    corners = {
        rule: list(dict.fromkeys(_left_corners(rules.definitions[rule], productive, nullable))) for rule in productive
    }
    rank, left_recursive = _rank(rules.start, sorted(productive), corners, budget)
    return RuleFacts(frozenset(productive), frozenset(nullable), rank, left_recursive)


def is_productive(expression: Expression, productive: set[str] | frozenset[str]) -> bool:
    """Whether it produces any text when these rules do."""
    match expression:
        case Reference(rule):
            return rule in productive
        case Sequence(parts):
            return all(is_productive(part, productive) for part in parts)
        case Choice(options):
            return any(is_productive(option, productive) for option in options)
        case Repetition(item, minimum, _):
            return minimum == 0 or is_productive(item, productive)
        case OneOf(characters):
            return bool(characters)
        case Regular(language):
            return not language.is_empty()
        case FreeText(stops, _, may_end):
            return may_end or any(is_productive(after, productive) for _, after in stops)
    return True


def is_nullable(expression: Expression, nullable: set[str] | frozenset[str]) -> bool:
    """Whether it produces the empty text when these rules do."""
    match expression:
        case Reference(rule):
            return rule in nullable
        case Sequence(parts):
            return all(is_nullable(part, nullable) for part in parts)
        case Choice(options):
            return any(is_nullable(option, nullable) for option in options)
        case Repetition(item, minimum, maximum):
            return minimum == 0 or (maximum != 0 and is_nullable(item, nullable))
        case Literal(text):
            return not text
        case Regular(language):
            return language.contains("")
        case FreeText(_, _, may_end):
            return may_end
    return False


def _references(expression: Expression) -> Iterator[str]:
    match expression:
        case Reference(rule):
            yield rule
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _references(part)
        case FreeText(stops, _, _):
            for _, after in stops:
                yield from _references(after)
        case Repetition(item, _, _):
            yield from _references(item)


def _least_fixpoint(rules: Rules, candidates: set[str], uses: dict[str, list[str]], holds, budget: Budget) -> set[str]:
    """The least set of candidates for which `holds(definition, the set)`. Users of a new member are looked at again."""
    found: set[str] = set()
    waiting = sorted(candidates)
    while waiting:
        rule = waiting.pop()
        budget.spend(5)
        if rule not in found and holds(rules.definitions[rule], found):
            found.add(rule)
            waiting.extend(user for user in uses.get(rule, ()) if user in candidates and user not in found)
    return found


def _left_corners(expression: Expression, productive: set[str], nullable: set[str]) -> Iterator[str]:
    """The rules that `expression` may enter before it has read anything."""
    match expression:
        case Reference(rule):
            yield rule
        case Sequence(parts) if is_productive(expression, productive):
            for part in parts:
                yield from _left_corners(part, productive, nullable)
                if not is_nullable(part, nullable):
                    return
        case Choice(options):
            for option in options:
                if is_productive(option, productive):
                    yield from _left_corners(option, productive, nullable)
        case Repetition(item, _, maximum) if maximum != 0 and is_productive(item, productive):
            yield from _left_corners(item, productive, nullable)


def _rank(
    start: str, names: list[str], corners: dict[str, list[str]], budget: Budget
) -> tuple[dict[str, int], frozenset[str]]:
    """Tarjan's strongly connected components of the left corners, without recursion; callers get lower ranks."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    rank: dict[str, int] = {}
    left_recursive: set[str] = set()
    open_rules: list[str] = []
    num_components = 0
    for root in [start, *names]:
        path = [] if root in order else [(root, 0)]
        while path:
            budget.spend()
            rule, next_corner = path.pop()
            if rule not in order:
                order[rule] = low[rule] = len(order)
                open_rules.append(rule)
            unseen = None
            for position in range(next_corner, len(corners[rule])):
                corner = corners[rule][position]
                if corner not in order:
                    unseen = corner
                    path += [(rule, position), (corner, 0)]
                    break
                if corner not in rank:
                    low[rule] = min(low[rule], low[corner])
            if unseen is not None or low[rule] != order[rule]:
                continue
            members = [open_rules.pop()]
            while members[-1] != rule:
                members.append(open_rules.pop())
            num_components += 1
            rank.update(dict.fromkeys(members, -num_components))
            if len(members) > 1 or rule in corners[rule]:
                left_recursive.update(members)
    return rank, frozenset(left_recursive)
