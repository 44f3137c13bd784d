"""`unevaluatedProperties` and `unevaluatedItems`: rules for what no keyword beside them has looked at.

What was looked at depends on which in-place applicators hold. `_cases` lists the possibilities as (condition, what is
evaluated if it holds); the keyword is then the disjunction of "condition, and the rest satisfies it" over the cases. A
larger evaluated set only ever loosens the rule, so that a case need not say which branches do *not* hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..errors import GrammarError
from ..languages.language import Language
from .patterns import every_text, literal, literals, matching, no_text, perhaps_matching
from .references import escaped
from .schema_nodes import EVERYTHING, NOTHING, Located, Schema, conjunction, disjunction, items, negation, properties

MAX_CASES = 256
"""More combinations of branches than this beside an unevaluated keyword are refused."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the keywords of a subschema have looked at.

    Attributes:
        names: property names that every reader of the patterns counts as evaluated.
        perhaps: property names that some reader does.
        items: items before this index; None: all.
        contains: an item that satisfies one of these is evaluated as well.
    """

    names: Language
    perhaps: Language
    items: int | None = 0
    contains: tuple[Schema, ...] = ()

    def __or__(self, other: Evaluated) -> Evaluated:
        count = None if self.items is None or other.items is None else max(self.items, other.items)
        contains = tuple(dict.fromkeys(self.contains + other.contains))
        return Evaluated(self.names | other.names, self.perhaps | other.perhaps, count, contains)


Case = tuple[Schema, Evaluated]


def unevaluated(located: Located) -> Schema:
    """What `unevaluatedProperties` and `unevaluatedItems` of the subschema demand."""
    words = located.keywords
    scope, pointer, store = located.scope.of_value(), located.pointer, located.scope.store
    options = []
    for condition, evaluated in _cases(located, outermost=True):
        demands = [condition]
        if "unevaluatedProperties" in words:
            value = scope.subschema(words["unevaluatedProperties"], f"{pointer}/unevaluatedProperties")
            demands.append(properties(store, ~evaluated.names, ~evaluated.perhaps, value))
        if "unevaluatedItems" in words and evaluated.items is not None:
            item = scope.subschema(words["unevaluatedItems"], f"{pointer}/unevaluatedItems")
            demands.append(items(store, evaluated.items, disjunction(*evaluated.contains, item)))
        options.append(conjunction(*demands))
    return disjunction(*options)


def closed(located: Located) -> Schema:
    """That an object has no properties but those declared here or by what applies to the same value, if any are."""
    options = []
    for condition, evaluated in _cases(located, outermost=True):
        others = properties(located.scope.store, ~evaluated.names, ~evaluated.perhaps, NOTHING)
        options.append(condition if evaluated.names.is_nothing() else conjunction(condition, others))
    return disjunction(*options)


def _cases(schema: Schema, outermost: bool = False) -> list[Case]:
    nothing = no_text()
    if type(schema) is not Located:
        return [(EVERYTHING, Evaluated(nothing, nothing))]
    known = schema.scope.draft.keywords
    words = {word: value for word, value in schema.keywords.items() if word in known}
    scope, pointer = schema.scope.in_place(), schema.pointer
    cases: list[Case] = [(EVERYTHING, _own(schema, words, outermost))]
    for word in ("$ref", "$dynamicRef", "$recursiveRef"):
        if word in words:
            cases = _both(cases, _cases(scope.resolve(word, words[word], pointer)), schema)
    for place, value in enumerate(words.get("allOf", ())):
        cases = _both(cases, _cases(scope.subschema(value, f"{pointer}/allOf/{place}")), schema)
    for word in ("anyOf", "oneOf"):
        if word in words:
            branches = [scope.subschema(value, f"{pointer}/{word}/{place}") for place, value in enumerate(words[word])]
            cases = _both(cases, _some(branches, word == "anyOf", schema), schema)
    if "if" in words:
        condition = scope.subschema(words["if"], f"{pointer}/if")
        branch = {
            word: scope.subschema(words[word], f"{pointer}/{word}") if word in words else EVERYTHING
            for word in ("then", "else")
        }
        holds = _both(_when(condition, _cases(condition)), _when(branch["then"], _cases(branch["then"])), schema)
        fails = _when(negation(condition), _when(branch["else"], _cases(branch["else"])))
        cases = _both(cases, holds + fails, schema)
    for name, value in words.get("dependentSchemas", {}).items():
        dependent = scope.subschema(value, f"{pointer}/dependentSchemas/{escaped(name)}")
        absent = properties(scope.store, literal(name), literal(name), NOTHING)
        present = _when(conjunction(negation(absent), dependent), _cases(dependent))
        cases = _both(cases, [(absent, Evaluated(nothing, nothing)), *present], schema)
    return cases


def _own(schema: Located, words: dict[str, Any], outermost: bool) -> Evaluated:
    scope, pointer = schema.scope, schema.pointer
    names = perhaps = no_text()
    if "additionalProperties" in words or ("unevaluatedProperties" in words and not outermost):
        names = perhaps = every_text()
    else:
        if "properties" in words:
            names = perhaps = literals(list(words["properties"]))
        for pattern in words.get("patternProperties", ()):
            names, perhaps = names | matching(pattern), perhaps | perhaps_matching(pattern)
    count: int | None = len(words.get("prefixItems", ()))
    contains: tuple[Schema, ...] = ()
    rest = words.get("items")
    if isinstance(rest, list):
        count = None if "additionalItems" in words else len(rest)
    elif rest is not None or ("unevaluatedItems" in words and not outermost):
        count = None
    if "contains" in words and scope.draft.year >= 2020:
        contains = (scope.of_value().subschema(words["contains"], f"{pointer}/contains"),)
    return Evaluated(names, perhaps, count, contains)


def _some(branches: list[Schema], together: bool, schema: Located) -> list[Case]:
    """The cases in which at least one of the branches holds; without `together`, no two are looked at at once."""
    nothing = Evaluated(no_text(), no_text())
    plain = []
    telling: list[tuple[Schema, list[Case]]] = []
    for branch in branches:
        cases = _cases(branch)
        if all(evaluated == nothing for _, evaluated in cases):
            plain.append(branch)
        else:
            telling.append((branch, cases))
    found: list[Case] = [(disjunction(*plain), nothing)] if plain else []
    for size in range(1, len(telling) + 1 if together else 2):
        for chosen in combinations(telling, size):
            cases: list[Case] = [(EVERYTHING, nothing)]
            for branch, branch_cases in chosen:
                cases = _both(cases, _when(branch, branch_cases), schema)
            found += cases
            _guard(found, schema)
    return found


def _when(condition: Schema, cases: list[Case]) -> list[Case]:
    return [(conjunction(condition, each), evaluated) for each, evaluated in cases]


def _both(first: list[Case], second: list[Case], schema: Located) -> list[Case]:
    _guard([*first] * len(second), schema)
    conditions: dict[Evaluated, list[Schema]] = {}
    for one, one_evaluated in first:
        for other, other_evaluated in second:
            conditions.setdefault(one_evaluated | other_evaluated, []).append(conjunction(one, other))
    return [(disjunction(*each), evaluated) for evaluated, each in conditions.items()]


def _guard(cases: list[Case], schema: Located) -> None:
    schema.scope.store.budget.spend(10 * len(cases))
    if len(cases) > MAX_CASES:
        raise GrammarError(
            "too_complex",
            f"more than {MAX_CASES} combinations of branches to tell what is evaluated",
            location=schema.pointer,
            keyword="unevaluatedProperties" if "unevaluatedProperties" in schema.keywords else "unevaluatedItems",
        )
