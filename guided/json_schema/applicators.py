"""What a subschema says besides its own assertions: `enum`, `const`, references and the in-place applicators, as nodes.

All the nodes of `applicators` must hold beside the assertions that `json_keywords` reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .patterns import literal
from .references import escaped
from .schema_nodes import (
    EVERYTHING,
    NOTHING,
    Located,
    Schema,
    conjunction,
    constants,
    disjunction,
    exactly_one,
    memo_of,
    negation,
    properties,
)
from .unevaluated import closed, unevaluated

REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

IN_PLACE = frozenset((*REFERENCES, "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "dependencies"))
"""Keywords that may declare properties of the same object."""

_APPLYING = IN_PLACE | {"const", "enum", "not", "unevaluatedItems", "unevaluatedProperties"}
"""Keywords one of which a subschema has that has applicators."""

UNTOLD = frozenset(("additionalProperties", "unevaluatedProperties"))
"""Keywords that say what an object's other properties may be."""


def keywords_of(located: Located) -> dict[str, Any]:
    """The keywords of a subschema that its draft knows."""
    memo = memo_of(located)
    if memo.keywords is None:
        known = located.scope.draft.keywords
        memo.keywords = {word: value for word, value in located.keywords.items() if word in known}
    return memo.keywords


def applicators(located: Located) -> tuple[Schema, ...]:
    """The nodes that must hold beside the subschema's own assertions, in the order in which they are to be read."""
    memo = memo_of(located)
    if memo.applicators is None and _APPLYING.isdisjoint(keywords_of(located)):
        memo.applicators = ()
    if memo.applicators is None:
        memo.applicators = tuple(node for node in _applicators(located) if node is not EVERYTHING)
    return memo.applicators


def _applicators(located: Located) -> Iterator[Schema]:
    words = keywords_of(located)
    scope, pointer = located.scope.in_place(), located.pointer
    if "enum" in words:
        yield constants(scope.store, words["enum"])
    if "const" in words:
        yield constants(scope.store, [words["const"]])
    for word in REFERENCES:
        if word in words:
            yield scope.resolve(word, words[word], pointer)
    if "allOf" in words:
        yield conjunction(*_branches(located, "allOf"))
    if "anyOf" in words:
        yield disjunction(*_branches(located, "anyOf"))
    if "oneOf" in words:
        yield exactly_one(*_branches(located, "oneOf"))
    if "not" in words:
        yield negation(scope.subschema(words["not"], f"{pointer}/not"))
    if "if" in words:
        yield _conditional(located, words)
    for word in ("dependentSchemas", "dependencies"):
        for name, value in words.get(word, {}).items():
            if not isinstance(value, list):
                absent = properties(scope.store, literal(name), literal(name), NOTHING)
                node = scope.subschema(value, f"{pointer}/{word}/{escaped(name)}")
                yield EVERYTHING if node is EVERYTHING else disjunction(absent, node)
    if "unevaluatedProperties" in words or "unevaluatedItems" in words:
        yield unevaluated(located)
    if scope is not located.scope and not IN_PLACE.isdisjoint(words) and UNTOLD.isdisjoint(words):
        yield closed(located)


def _branches(located: Located, word: str) -> list[Schema]:
    subschema, pointer = located.scope.in_place().subschema, f"{located.pointer}/{word}"
    return [subschema(value, f"{pointer}/{place}") for place, value in enumerate(located.keywords[word])]


def _conditional(located: Located, words: dict[str, Any]) -> Schema:
    subschema, pointer = located.scope.in_place().subschema, located.pointer
    condition = subschema(words["if"], f"{pointer}/if")
    consequence = subschema(words["then"], f"{pointer}/then") if "then" in words else EVERYTHING
    alternative = subschema(words["else"], f"{pointer}/else") if "else" in words else EVERYTHING
    if consequence is alternative:
        return consequence
    return disjunction(conjunction(condition, consequence), conjunction(negation(condition), alternative))
