"""JSON Schema as an algebra: text in, and for each schema what a value may be, type by type.

    schema = read_schema('{"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}')
    found = alternatives(schema)
    found.objects[0].rules[0].value        # again a schema, read when its alternatives are asked for

Between the schema's text and the JSON automaton (`json_machine`): this module and its neighbours know the keywords of
JSON Schema drafts 4 to 2020-12, the automaton only knows `json_clauses`. Reading is lazy; `read_schema` looks through
all that the root can reach only to check that it is well-formed.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from ..budget import Budget
from ..errors import GrammarError
from ..languages import number_spelling
from ..languages.language import Language
from .applicators import applicators
from .clause_algebra import (
    ANY_ARRAY,
    ANY_OBJECT,
    array_clause,
    both_arrays,
    both_objects,
    either_array,
    either_object,
    negated_array,
    object_clause,
    objects_overlap,
    with_property,
)
from .clauses import Alternatives, ArrayClause, KeyExists, KeyRule, ObjectClause
from .keywords import own_alternatives, own_negation, own_strings, own_strings_negated
from .number_constraints import exact, none_of, one_of
from .patterns import every_text, literal, literals, no_text
from .references import SchemaDocument, SchemaOptions
from .schema_check import MAX_DEPTH, check
from .schema_nodes import (
    EVERYTHING,
    NOTHING,
    Conjunction,
    Constants,
    Disjunction,
    ExactlyOne,
    Items,
    Located,
    Negation,
    Properties,
    Schema,
    SchemaStore,
    conjunction,
    constants,
    disjunction,
    memo_of,
    negation,
    opened,
)
from .shapes import OBJECT, discriminators, meet, shape, told_apart

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Schema",
    "SchemaOptions",
    "alternatives",
    "conjunction",
    "constant",
    "disjunction",
    "is_shallow",
    "negation",
    "read_schema",
]

_DECODER = msgspec.json.Decoder(float_hook=Decimal)


MAX_OVERLAPPING = 32
"""So many clauses are kept of one `oneOf` branch without the branches that overlap it: the least demanding ones."""


def read_schema(
    document: str | bytes | dict[str, Any] | bool,
    *,
    options: SchemaOptions | None = None,
    budget: Budget | None = None,
    shallow: bool = False,
) -> Schema:
    """The schema of a document: JSON text, or what it decodes to (floats count as their shortest spelling).

    Args:
        shallow: the document is known not to be nested too deeply (`is_shallow`).

    Raises:
        GrammarError: the document is no JSON, malformed, refers to what it does not hold, or uses what we cannot
            enforce; with the JSON pointer and the keyword.
    """
    if isinstance(document, str | bytes):
        shallow = is_shallow(document)
        try:
            document = _DECODER.decode(document)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise GrammarError("invalid", f"the schema is not valid JSON: {error}") from error
        except InvalidOperation as error:
            raise GrammarError("invalid", "a number's exponent is beyond all bounds") from error
        except RecursionError as error:
            raise GrammarError("too_complex", "the schema is nested too deeply") from error
    held = SchemaDocument(document, options or SchemaOptions(), SchemaStore(budget))
    check(held, shallow)
    return held.root()


def alternatives(schema: Schema) -> Alternatives:
    """What a value may be that satisfies the schema. Worked out once for each schema.

    Raises:
        GrammarError: there are too many alternatives.
    """
    memo = memo_of(schema)
    if memo.alternatives is None:
        memo.alternatives = _alternatives(schema)
    return memo.alternatives


def constant(value: Any) -> Schema:
    """The JSON values that equal `value`: null, a bool, an int, a Decimal, a float, a str, a list or a dict."""
    return constants(SchemaStore(), [value])


def strings_of(schema: Schema) -> Language:
    """The strings among the schema's alternatives.

    Only they are worked out: a schema may well be that of its own properties' names.
    """
    if type(schema) is Located:
        return Language.intersection([own_strings(schema), *map(strings_of, applicators(schema))])
    if type(schema) is Negation and type(schema.parts[0]) is Located:
        located = schema.parts[0]
        further = [strings_of(negation(part)) for part in applicators(located)]
        return Language.union([own_strings_negated(located), *further])
    if type(schema) is Conjunction:
        return Language.intersection(map(strings_of, schema.parts))
    if type(schema) is Disjunction:
        return Language.union(map(strings_of, schema.parts))
    if type(schema) is ExactlyOne:
        truths = [opened(part) for part in schema.parts]
        return Language.union(
            strings_of(conjunction(part, *(negation(truth) for other, truth in enumerate(truths) if other != place)))
            for place, part in enumerate(schema.parts)
        )
    if type(schema) is Negation and type(schema.parts[0]) is ExactlyOne:
        parts = schema.parts[0].parts
        pairs = [conjunction(part, other) for place, part in enumerate(parts) for other in parts[place + 1 :]]
        return strings_of(disjunction(conjunction(*map(negation, parts)), *pairs))
    return alternatives(schema).strings


def is_shallow(text: str | bytes) -> bool:
    """Whether a JSON text has too few brackets to be nested too deeply."""
    if isinstance(text, str):
        return text.count("{") + text.count("[") <= MAX_DEPTH
    return text.count(b"{") + text.count(b"[") <= MAX_DEPTH


def _alternatives(schema: Schema) -> Alternatives:
    if schema is EVERYTHING:
        return _every_value()
    if schema is NOTHING:
        return _no_value()
    if type(schema) is Located:
        schema.scope.store.budget.spend(20)
        own = own_alternatives(schema, strings_of)
        further = applicators(schema)
        return _all([own, *map(alternatives, further)], schema) if further else own
    if type(schema) is Conjunction:
        simpler = meet(schema)
        if simpler is not schema:
            return alternatives(simpler)
        return _all([alternatives(part) for part in schema.parts], schema)
    if type(schema) is Disjunction:
        return _any([alternatives(part) for part in schema.parts])
    if type(schema) is ExactlyOne:
        return _exactly_one(schema)
    if type(schema) is Negation:
        return _negation(schema.parts[0])
    if type(schema) is Constants:
        return _constants(schema)
    return _key_or_item_rule(schema)


def _negation(schema: Schema) -> Alternatives:
    if type(schema) is Located:
        own = own_negation(schema, strings_of)
        return _any([own, *(alternatives(negation(part)) for part in applicators(schema))])
    if type(schema) is Constants:
        return _not_constants(schema)
    if type(schema) is ExactlyOne:
        none = conjunction(*(negation(part) for part in schema.parts))
        parts = [opened(part) for part in schema.parts]
        several = [
            alternatives(both)
            for place, part in enumerate(parts)
            for other in parts[place + 1 :]
            if (both := meet(part, other)) is not NOTHING
        ]
        return _any([alternatives(none), *several])
    if type(schema) is Properties:
        found = KeyExists(schema.certain_keys, negation(schema.parts[0]))
        names = schema.certain_keys.literal_set()
        if names is not None and len(names) == 1:
            clause = with_property(next(iter(names)), found.value)
        else:
            clause = object_clause(exists=(found,))
        return _only(objects=() if clause is None else (clause,))
    assert type(schema) is Items
    rule = array_clause((EVERYTHING,) * schema.first, schema.parts[0])
    return _only(arrays=(ANY_ARRAY,) if rule is None else negated_array(rule))


def _key_or_item_rule(schema: Schema) -> Alternatives:
    every = _every_value()
    if type(schema) is Properties:
        clause = object_clause(rules=(KeyRule(schema.keys, schema.parts[0]),))
        objects = () if clause is None else (clause,)
        return Alternatives(True, True, True, every.strings, every.numbers, every.arrays, objects)
    assert type(schema) is Items
    rule = array_clause((EVERYTHING,) * schema.first, schema.parts[0])
    arrays = () if rule is None else (rule,)
    return Alternatives(True, True, True, every.strings, every.numbers, arrays, every.objects)


def _exactly_one(schema: ExactlyOne) -> Alternatives:
    """Each part, without those others that it overlaps."""
    assert schema.store is not None
    parts = schema.parts
    truths = [opened(part) for part in parts]
    shapes = [shape(part) for part in truths]
    tags = [discriminators(alternatives(part).objects) for part in truths]
    single = []
    for place, part in enumerate(parts):
        only = alternatives(part)
        schema.store.budget.spend(len(parts))
        for other, truth in enumerate(truths):
            common = shapes[place][0] & shapes[other][0]
            if other == place or not common or (common == OBJECT and told_apart(tags[place], tags[other])):
                continue
            if meet(part, truth) is NOTHING or not _overlap(only, alternatives(truth), schema):
                continue
            only = _all([only, alternatives(negation(truth))], schema, MAX_OVERLAPPING)
        single.append(only)
    return _any(single)


def _overlap(first: Alternatives, second: Alternatives, schema: Schema) -> bool:
    """Whether some value may satisfy both; True where that is not plain."""
    assert schema.store is not None
    budget = schema.store.budget
    return (
        (first.null and second.null)
        or (first.true and second.true)
        or (first.false and second.false)
        or objects_overlap(first.objects, second.objects, budget)
        or bool(both_arrays(first.arrays, second.arrays, budget))
        or schema.store.have_common_text(first.strings, second.strings)
        or schema.store.have_common_text(first.numbers, second.numbers)
    )


def _all(factors: list[Alternatives], schema: Schema, simplest: int | None = None) -> Alternatives:
    """What is among each of `factors`; those with the fewest clauses are multiplied first."""
    assert schema.store is not None
    budget = schema.store.budget
    arrays: tuple[ArrayClause, ...] = (ANY_ARRAY,)
    for factor in sorted(factors, key=lambda factor: len(factor.arrays)):
        arrays = both_arrays(arrays, factor.arrays, budget)
    objects: tuple[ObjectClause, ...] = (ANY_OBJECT,)
    for factor in sorted(factors, key=lambda factor: len(factor.objects)):
        objects = both_objects(objects, factor.objects, budget, simplest)
    return Alternatives(
        all(factor.null for factor in factors),
        all(factor.true for factor in factors),
        all(factor.false for factor in factors),
        Language.intersection(factor.strings for factor in factors),
        Language.intersection(factor.numbers for factor in factors),
        arrays,
        objects,
    )


def _any(terms: list[Alternatives]) -> Alternatives:
    """What is among one of `terms`."""
    return Alternatives(
        any(term.null for term in terms),
        any(term.true for term in terms),
        any(term.false for term in terms),
        Language.union(term.strings for term in terms),
        Language.union(term.numbers for term in terms),
        either_array(clause for term in terms for clause in term.arrays),
        either_object(clause for term in terms for clause in term.objects),
    )


def _constants(schema: Constants) -> Alternatives:
    store = schema.store
    assert store is not None
    store.budget.spend(len(schema.values))
    texts, numbers, arrays, objects = [], [], [], []
    for value in schema.values:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            items = tuple(constants(store, [item]) for item in value)
            arrays.append(array_clause(items, NOTHING, min_items=len(items)))
        elif isinstance(value, dict):
            rules = [KeyRule(literal(name), constants(store, [item])) for name, item in value.items()]
            rules.append(KeyRule(~literals(list(value)), NOTHING))
            objects.append(object_clause(tuple(value), rules, frozenset(value)))
        elif value is not None and type(value) is not bool:
            numbers.append(exact(value))
    return Alternatives(
        None in schema.values,
        any(value is True for value in schema.values),
        any(value is False for value in schema.values),
        literals(texts),
        one_of(numbers),
        tuple(clause for clause in arrays if clause is not None),
        tuple(clause for clause in objects if clause is not None),
    )


def _not_constants(schema: Constants) -> Alternatives:
    store = schema.store
    assert store is not None
    numbers, texts = [], []
    arrays: tuple[ArrayClause, ...] = (ANY_ARRAY,)
    objects: tuple[ObjectClause, ...] = (ANY_OBJECT,)
    for value in schema.values:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            exactly = array_clause(tuple(constants(store, [item]) for item in value), NOTHING, min_items=len(value))
            assert exactly is not None
            arrays = both_arrays(arrays, negated_array(exactly), store.budget)
        elif isinstance(value, dict):
            objects = both_objects(objects, _not_object(store, value), store.budget)
        elif value is not None and type(value) is not bool:
            numbers.append(exact(value))
    return Alternatives(
        None not in schema.values,
        not any(value is True for value in schema.values),
        not any(value is False for value in schema.values),
        ~literals(texts) if texts else every_text(),
        none_of(numbers),
        arrays,
        objects,
    )


def _not_object(store: SchemaStore, value: dict[str, Any]) -> tuple[ObjectClause, ...]:
    clauses = [
        object_clause(rules=(KeyRule(literal(name), negation(constants(store, [item]))),))
        for name, item in value.items()
    ]
    clauses.append(object_clause(exists=(KeyExists(~literals(list(value)), EVERYTHING),)))
    return either_object(clause for clause in clauses if clause is not None)


def _only(arrays: tuple[ArrayClause, ...] = (), objects: tuple[ObjectClause, ...] = ()) -> Alternatives:
    nothing = no_text()
    return Alternatives(False, False, False, nothing, nothing, arrays, objects)


def _every_value() -> Alternatives:
    return Alternatives(True, True, True, every_text(), number_spelling.number(), (ANY_ARRAY,), (ANY_OBJECT,))


def _no_value() -> Alternatives:
    return _only()
