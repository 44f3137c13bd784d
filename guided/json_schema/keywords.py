"""The assertions of one subschema, type by type, and their negation.

`own_alternatives` says what a value may be by `type`, `pattern`, `minimum`, `properties`, `items` and their like alone;
`own_negation` says what fails them. Shapes of keyword values are not looked at here: `json_schema_check` has done so.

Each side under-approximates on its own: where validators differ about a pattern or a format, a text counts neither as
matching nor as not matching. So a negation is worked out here, from the keywords, and never as the complement of what
was worked out for the assertion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..languages import number_spelling
from ..languages.language import Language
from .applicators import IN_PLACE, keywords_of
from .clause_algebra import (
    ANY_ARRAY,
    ANY_OBJECT,
    array_clause,
    both_objects,
    either_object,
    negated_array,
    object_clause,
    with_property,
    without_property,
)
from .clauses import Alternatives, ArrayClause, Contains, KeyExists, KeyRule, ObjectClause
from .number_constraints import NUMBER_KEYWORDS, not_numbers, numbers
from .patterns import (
    every_text,
    literal,
    literals,
    matching,
    no_text,
    not_matching,
    not_of_format,
    of_format,
    perhaps_matching,
)
from .references import CLOSED, declared, escaped
from .schema_nodes import EVERYTHING, NOTHING, Located, Schema, negation
from .shapes import (
    ARRAY,
    ARRAY_KEYWORDS,
    FALSE,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    OBJECT_KEYWORDS,
    STRING,
    STRING_KEYWORDS,
    TRUE,
    is_finite,
    types_of,
)

_OTHERS = IN_PLACE | {"unevaluatedProperties"}

StringsOf = Callable[[Schema], Language]


def own_alternatives(located: Located, strings_of: StringsOf) -> Alternatives:
    """What a value may be by the subschema's own assertions. `strings_of` tells which strings satisfy a schema."""
    words = keywords_of(located)
    types = types_of(located, words)
    strings = numbers_ = no_text()
    arrays: tuple[ArrayClause, ...] = ()
    objects: tuple[ObjectClause, ...] = ()
    if types & STRING:
        strings = _strings(located, words)
    if types & NUMBER:
        if types & NUMBER == NUMBER and words.keys().isdisjoint(NUMBER_KEYWORDS):
            numbers_ = number_spelling.number()
        else:
            numbers_ = numbers(words, types & NUMBER == INTEGER, located.scope.draft)
    if types & ARRAY:
        array = ANY_ARRAY if words.keys().isdisjoint(ARRAY_KEYWORDS) else _array(located, words)
        arrays = () if array is None else (array,)
    if types & OBJECT:
        object_ = ANY_OBJECT if words.keys().isdisjoint(OBJECT_KEYWORDS) else _object(located, words, strings_of)
        objects = () if object_ is None else (object_,)
    return Alternatives(bool(types & NULL), bool(types & TRUE), bool(types & FALSE), strings, numbers_, arrays, objects)


def own_negation(located: Located, strings_of: StringsOf) -> Alternatives:
    """What a value may be that fails one of the subschema's own assertions."""
    words = keywords_of(located)
    types = types_of(located, words)
    names = words.keys()
    strings = every_text()
    numbers_ = number_spelling.number()
    arrays: tuple[ArrayClause, ...] = (ANY_ARRAY,)
    objects: tuple[ObjectClause, ...] = (ANY_OBJECT,)
    if types & STRING:
        strings = _not_strings(located, words) if names & STRING_KEYWORDS else no_text()
    if types & NUMBER:
        numbers_ = not_numbers(words, types & NUMBER == INTEGER)
    if types & ARRAY:
        array = None if names.isdisjoint(ARRAY_KEYWORDS) else _array(located, words)
        arrays = negated_array(array) if array is not None else ()
        if array is None and not names.isdisjoint(ARRAY_KEYWORDS):
            arrays = (ANY_ARRAY,)
    if types & OBJECT:
        objects = () if names.isdisjoint(OBJECT_KEYWORDS) else _not_object(located, words, strings_of)
    return Alternatives(not types & NULL, not types & TRUE, not types & FALSE, strings, numbers_, arrays, objects)


def own_strings(located: Located) -> Language:
    """The strings that satisfy the subschema's own assertions."""
    words = keywords_of(located)
    return _strings(located, words) if types_of(located, words) & STRING else no_text()


def own_strings_negated(located: Located) -> Language:
    """The strings that fail one of the subschema's own assertions."""
    words = keywords_of(located)
    return _not_strings(located, words) if types_of(located, words) & STRING else every_text()


def _strings(located: Located, words: dict[str, Any]) -> Language:
    language = every_text()
    if words.keys().isdisjoint(STRING_KEYWORDS):
        return language
    if "minLength" in words or "maxLength" in words:
        longest = words.get("maxLength")
        language = Language.length(int(words.get("minLength", 0)), None if longest is None else int(longest))
    if "pattern" in words:
        language = matching(words["pattern"]) & language
    if "format" in words and located.scope.document.options.assert_formats:
        known = of_format(words["format"])
        if known is not None:
            language = known & language
    return language


def _not_strings(located: Located, words: dict[str, Any]) -> Language:
    language = no_text()
    if words.get("minLength", 0) > 0:
        language = language | Language.length(0, int(words["minLength"]) - 1)
    if "maxLength" in words:
        language = language | Language.length(int(words["maxLength"]) + 1, None)
    if "pattern" in words:
        language = language | not_matching(words["pattern"])
    if "format" in words and located.scope.document.options.assert_formats:
        language = language | not_of_format(words["format"])
    return language


def _array(located: Located, words: dict[str, Any]) -> ArrayClause | None:
    """What the array keywords demand; None: no array satisfies them."""
    subschema, pointer = located.scope.of_value().subschema, located.pointer
    rest: Schema = EVERYTHING
    listed, word = words.get("prefixItems", ()), "prefixItems"
    if isinstance(words.get("items"), list):
        listed, word = words["items"], "items"
        if "additionalItems" in words:
            rest = subschema(words["additionalItems"], f"{pointer}/additionalItems")
    elif "items" in words:
        rest = subschema(words["items"], f"{pointer}/items")
    prefix = tuple(subschema(item, f"{pointer}/{word}/{place}") for place, item in enumerate(listed))
    contains: tuple[Contains, ...] = ()
    if "contains" in words:
        item = subschema(words["contains"], f"{pointer}/contains")
        most = words.get("maxContains")
        contains = (Contains(item, int(words.get("minContains", 1)), None if most is None else int(most)),)
    most = words.get("maxItems")
    return array_clause(
        prefix,
        rest,
        int(words.get("minItems", 0)),
        None if most is None else int(most),
        contains,
        words.get("uniqueItems") is True,
    )


def _object(located: Located, words: dict[str, Any], strings_of: StringsOf) -> ObjectClause | None:
    """What the object keywords demand; None: no object satisfies them."""
    named_values = declared(located)
    rules = [KeyRule(literal(name), value) for name, value in named_values.items() if value is not EVERYTHING]
    for pattern, value in _patterned(located, words):
        rules.append(KeyRule(perhaps_matching(pattern), value))
    additional = _additional(located, words)
    if additional is not EVERYTHING:
        named = literals(list(named_values))
        for pattern in words.get("patternProperties", ()):
            named = named | matching(pattern)
        rules.append(KeyRule(~named, additional))
    if "propertyNames" in words:
        names = located.scope.of_value().subschema(words["propertyNames"], f"{located.pointer}/propertyNames")
        rules.append(KeyRule(~strings_of(names), NOTHING))
    required, dependent = frozenset(words.get("required", ())), _dependent(words)
    most = words.get("maxProperties")
    return object_clause(
        tuple(named_values),
        rules,
        required,
        int(words.get("minProperties", 0)),
        None if most is None else int(most),
        dependent,
    )


def _not_object(located: Located, words: dict[str, Any], strings_of: StringsOf) -> tuple[ObjectClause, ...]:
    """Objects that fail one of the object keywords."""
    named_values = declared(located)
    required = dict.fromkeys(words.get("required", ()))
    clauses: list[ObjectClause | None] = []
    for name, value in named_values.items():
        if name in required:
            # Missing or wrong: if it is there, it is wrong.
            del required[name]
            clauses.append(object_clause(rules=(KeyRule(literal(name), negation(value)),)))
        elif value is not EVERYTHING:
            clauses.append(with_property(name, negation(value)))
    clauses += [without_property(name) for name in required]
    for pattern, value in _patterned(located, words):
        clauses.append(object_clause(exists=(KeyExists(matching(pattern), negation(value)),)))
    additional = _additional(located, words)
    if additional is not EVERYTHING:
        named = literals(list(named_values))
        for pattern in words.get("patternProperties", ()):
            named = named | perhaps_matching(pattern)
        clauses.append(object_clause(exists=(KeyExists(~named, negation(additional)),)))
    if "propertyNames" in words:
        names = located.scope.of_value().subschema(words["propertyNames"], f"{located.pointer}/propertyNames")
        wrong = strings_of(negation(names))
        clauses.append(object_clause(exists=(KeyExists(wrong, EVERYTHING),)))
    if words.get("minProperties", 0) > 0:
        clauses.append(object_clause(max_properties=int(words["minProperties"]) - 1))
    if "maxProperties" in words:
        clauses.append(object_clause(min_properties=int(words["maxProperties"]) + 1))
    for name, wanted in _dependent(words):
        for missing in sorted(wanted):
            clauses.append(object_clause(rules=(KeyRule(literal(missing), NOTHING),), required=frozenset((name,))))
    found = either_object(clause for clause in clauses if clause is not None)
    return _told_apart(found, located, words.get("required", ()))


def _told_apart(clauses: tuple[ObjectClause, ...], located: Located, required: list[str]) -> tuple[ObjectClause, ...]:
    """The same objects, but all clauses beside "the discriminator is wrong" say that it is right.

    So the negations of branches with different discriminators contradict each other in all clauses but one, and their
    product stays as short as their sum.
    """
    named_values = declared(located)
    for name in required:
        value = named_values.get(name, EVERYTHING)
        if not is_finite(value):
            continue
        wrong = object_clause(rules=(KeyRule(literal(name), negation(value)),))
        right = with_property(name, value)
        if wrong is None or right is None:
            break
        others = tuple(clause for clause in clauses if clause != wrong)
        return (wrong, *both_objects((right,), others, located.scope.store.budget))
    return clauses


def _patterned(located: Located, words: dict[str, Any]) -> list[tuple[str, Schema]]:
    subschema, pointer = located.scope.of_value().subschema, f"{located.pointer}/patternProperties"
    found = [
        (pattern, subschema(value, f"{pointer}/{escaped(pattern)}"))
        for pattern, value in words.get("patternProperties", {}).items()
    ]
    return [(pattern, value) for pattern, value in found if value is not EVERYTHING]


def _additional(located: Located, words: dict[str, Any]) -> Schema:
    if "additionalProperties" in words:
        return located.scope.of_value().subschema(
            words["additionalProperties"], f"{located.pointer}/additionalProperties"
        )
    if located.scope.closing == CLOSED and "properties" in words and words.keys().isdisjoint(_OTHERS):
        return NOTHING
    return EVERYTHING


def _dependent(words: dict[str, Any]) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple(
        (name, frozenset(wanted))
        for word in ("dependentRequired", "dependencies")
        for name, wanted in words.get(word, {}).items()
        if isinstance(wanted, list)
    )
