"""Quick looks at a schema: which types it may take, which it takes whole, and whether a constant satisfies it.

Nothing here is exact; what is said is certain. It serves to drop contradictory alternatives before they are multiplied:
discriminators (`type`, `const`, `enum`) are recognised, the insides of arrays and objects are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import number_constraints
from .applicators import IN_PLACE, applicators, keywords_of
from .patterns import literal_beginning, matching, not_matching, not_of_format, of_format
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
    conjunction,
    constants,
    memo_of,
    value_key,
)

if TYPE_CHECKING:
    from .clauses import ObjectClause

NULL, TRUE, FALSE, STRING, INTEGER, FRACTION, ARRAY, OBJECT = (1 << bit for bit in range(8))
NUMBER = INTEGER | FRACTION
BOOLEAN = TRUE | FALSE
ANY = 255

TYPES = {
    "null": NULL,
    "boolean": BOOLEAN,
    "string": STRING,
    "integer": INTEGER,
    "number": NUMBER,
    "array": ARRAY,
    "object": OBJECT,
}

MAX_LOOK = 6
"""How many in-place applicators and references a quick look goes through."""

STRING_KEYWORDS = frozenset(("pattern", "minLength", "maxLength", "format"))
ARRAY_KEYWORDS = frozenset(
    ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "unevaluatedItems")
)
OBJECT_KEYWORDS = frozenset(
    (
        "properties",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "required",
        "minProperties",
        "maxProperties",
        "dependentRequired",
        "dependencies",
        "unevaluatedProperties",
    )
)
NUMBER_KEYWORDS = frozenset(number_constraints.NUMBER_KEYWORDS)


def meet(*schemas: Schema) -> Schema:
    """Their conjunction, or NOTHING where a quick look shows that nothing satisfies it."""
    both = conjunction(*schemas)
    if type(both) is not Conjunction:
        return both
    memo = memo_of(both)
    if memo.simplified is None:
        memo.simplified = _simplified(both)
    return memo.simplified


def types_of(located: Located, words: dict[str, Any]) -> int:
    """The types that `type` (and `nullable`) allow."""
    declared = words.get("type")
    if declared is None:
        return ANY
    types = 0
    for name in (declared,) if isinstance(declared, str) else declared:
        types |= TYPES[name]
    if words.get("nullable") is True and located.scope.document.options.nullable:
        types |= NULL
    return types


def shape(schema: Schema) -> tuple[int, int]:
    """(types of which some value may satisfy the schema, types of which every value does), both certain."""
    may, must, _ = _shape(schema, MAX_LOOK)
    return may, must


def decide(schema: Schema, value: Any, look: int = MAX_LOOK) -> bool | None:
    """Whether a JSON value satisfies the schema; None where a quick look does not tell."""
    kind = type_of(value)
    may, must = shape(schema)
    if not may & kind:
        return False
    if must & kind:
        return True
    if look == 0 or schema.store is None:
        return None
    look -= 1
    schema.store.budget.spend(3)
    if type(schema) is Constants:
        key = value_key(value)
        return any(value_key(each) == key for each in schema.values)
    if type(schema) is Negation:
        inner = decide(schema.parts[0], value, look)
        return None if inner is None else not inner
    if type(schema) is Conjunction:
        return _all(decide(part, value, look) for part in schema.parts)
    if type(schema) is Disjunction:
        inner = _all(_not(decide(part, value, look)) for part in schema.parts)
        return _not(inner)
    if type(schema) is ExactlyOne:
        verdicts = [decide(part, value, look) for part in schema.parts]
        if verdicts.count(True) > 1:
            return False
        return None if None in verdicts else verdicts.count(True) == 1
    if type(schema) is Located:
        own = _decide_own(schema, value, kind)
        return False if own is False else _all((own, *(decide(part, value, look) for part in applicators(schema))))
    return None


def discriminators(objects: tuple[ObjectClause, ...]) -> dict[str, frozenset[Any]]:
    """The names that every clause requires with one of some constants, and (as `value_key`s) which."""
    common: dict[str, frozenset[Any]] | None = None
    for clause in objects:
        found: dict[str, frozenset[Any]] = {}
        for rule in clause.rules:
            if rule.keys.kind == "literals" and len(rule.keys.value) == 1:
                (name,) = rule.keys.value
                values = _finite(rule.value, MAX_LOOK) if name in clause.required else None
                if values is not None:
                    found[name] = frozenset(map(value_key, values))
        common = found if common is None else {name: common[name] | found[name] for name in common.keys() & found}
    return common or {}


def told_apart(one: dict[str, frozenset[Any]], other: dict[str, frozenset[Any]]) -> bool:
    """Whether two sets of discriminators share none of their constants."""
    return any(name in other and values.isdisjoint(other[name]) for name, values in one.items())


def is_finite(schema: Schema) -> bool:
    """Whether the values that satisfy the schema are plainly among some constants."""
    return _finite(schema, MAX_LOOK) is not None


def type_of(value: Any) -> int:
    """The type bit of a decoded JSON value."""
    if value is None:
        return NULL
    if value is True:
        return TRUE
    if value is False:
        return FALSE
    if isinstance(value, str):
        return STRING
    if isinstance(value, list):
        return ARRAY
    if isinstance(value, dict):
        return OBJECT
    number = number_constraints.exact(value)
    return INTEGER if number == number.to_integral_value() else FRACTION


def _simplified(both: Conjunction) -> Schema:
    may, _ = shape(both)
    if not may:
        return NOTHING
    for part in both.parts:
        values = _finite(part, MAX_LOOK)
        if values is not None:
            return _filtered(values, both)
    if may == STRING and _begin_differently(both.parts):
        return NOTHING
    positive = [part for part in both.parts if type(part) is Located]
    for part in both.parts:
        if type(part) is Negation and any(_same(part.parts[0], other) for other in positive):
            return NOTHING
    return both


def _begin_differently(parts: tuple[Schema, ...]) -> bool:
    """Whether the patterns of some subschemas ask for different beginnings of a string."""
    longest = ""
    for part in parts:
        if type(part) is Located and isinstance(part.keywords.get("pattern"), str):
            beginning = literal_beginning(part.keywords["pattern"])
            shorter, longest = sorted((beginning, longest), key=len)
            if not longest.startswith(shorter):
                return True
    return False


def _finite(schema: Schema, look: int) -> tuple[Any, ...] | None:
    """Constants among which is every value that satisfies the schema, where that is plain."""
    if type(schema) is Constants:
        return schema.values
    if type(schema) is Located and look:
        for part in applicators(schema):
            values = _finite(part, look - 1)
            if values is not None:
                return values
    return None


def _filtered(values: tuple[Any, ...], both: Conjunction) -> Schema:
    undecided: list[Schema] = []
    kept = list(values)
    for part in both.parts:
        verdicts = [decide(part, value) for value in kept]
        kept = [value for value, verdict in zip(kept, verdicts, strict=True) if verdict is not False]
        if None in verdicts:
            undecided.append(part)
    assert both.store is not None
    return conjunction(constants(both.store, kept), *undecided)


def _same(one: Schema, other: Located) -> bool:
    """Whether two places of the document plainly say the same."""
    if type(one) is not Located or one.scope.resource is not other.scope.resource:
        return False
    if one.scope.dynamic != other.scope.dynamic or one.keywords.keys() != other.keywords.keys():
        return False
    return one.keywords == other.keywords and value_key(one.keywords) == value_key(other.keywords)


def _shape(schema: Schema, look: int) -> tuple[int, int, bool]:
    """The shape, and whether all of it was looked at (then it is remembered)."""
    memo = memo_of(schema)
    if memo.shape is not None:
        return *memo.shape, True
    if schema is EVERYTHING:
        return ANY, ANY, True
    if schema is NOTHING:
        return 0, 0, True
    if look == 0:
        return ANY, 0, False
    assert schema.store is not None
    schema.store.budget.spend(3)
    if type(schema) is Located:
        may, must, whole = _located_shape(schema, look - 1)
    else:
        parts = [_shape(part, look - 1) for part in schema.parts]
        may, must = _composed_shape(schema, parts)
        whole = all(part[2] for part in parts)
    if whole or look == MAX_LOOK:
        memo.shape = may, must
    return may, must, whole


def _composed_shape(schema: Schema, parts: list[tuple[int, int, bool]]) -> tuple[int, int]:
    if type(schema) is Constants:
        may = 0
        for value in schema.values:
            may |= type_of(value)
        return may, may & (NULL | BOOLEAN)
    if type(schema) is Negation:
        may, must, _ = parts[0]
        return ANY & ~must, ANY & ~may
    if type(schema) is Properties:
        return ANY, ANY & ~OBJECT
    if type(schema) is Items:
        return ANY, ANY & ~ARRAY
    if type(schema) is Conjunction:
        may = must = ANY
        for part_may, part_must, _ in parts:
            may, must = may & part_may, must & part_must
        return may, must
    may = once = twice = several = 0
    for part_may, part_must, _ in parts:
        several |= may & part_may
        twice |= once & part_must
        once |= part_must
        may |= part_may
    return (may & ~twice, once & ~several) if type(schema) is ExactlyOne else (may, once)


def _located_shape(located: Located, look: int) -> tuple[int, int, bool]:
    words = keywords_of(located)
    may = must = types_of(located, words)
    names = words.keys()
    if names & STRING_KEYWORDS:
        must &= ~STRING
    if names & NUMBER_KEYWORDS:
        must &= ~NUMBER
    if names & ARRAY_KEYWORDS:
        must &= ~ARRAY
    if names & OBJECT_KEYWORDS or (located.scope.closing and names & IN_PLACE):
        must &= ~OBJECT
    if located.scope.draft.name == "draft-04" and may & NUMBER == INTEGER:
        must &= ~INTEGER
    whole = True
    for part in applicators(located):
        part_may, part_must, part_whole = _shape(part, look)
        may, must, whole = may & part_may, must & part_must, whole and part_whole
    return may, must, whole


def _decide_own(located: Located, value: Any, kind: int) -> bool | None:
    words = keywords_of(located)
    if not types_of(located, words) & kind:
        return False
    if kind == STRING and words.keys() & STRING_KEYWORDS:
        return _decide_string(located, words, value)
    if kind & NUMBER:
        if located.scope.draft.name == "draft-04" and not types_of(located, words) & FRACTION:
            return None  # it depends on the spelling: there 1.0 is no integer
        return number_constraints.allows(words, value)
    if (kind == ARRAY and words.keys() & ARRAY_KEYWORDS) or (kind == OBJECT and words.keys() & OBJECT_KEYWORDS):
        return None
    return True


def _decide_string(located: Located, words: dict[str, Any], text: str) -> bool | None:
    if not words.get("minLength", 0) <= len(text) <= words.get("maxLength", len(text)):
        return False
    verdict: bool | None = True
    if "pattern" in words and not matching(words["pattern"]).contains(text):
        verdict = False if not_matching(words["pattern"]).contains(text) else None
    if "format" in words and located.scope.document.options.assert_formats:
        language = of_format(words["format"])
        if language is not None and not language.contains(text):
            return False if not_of_format(words["format"]).contains(text) else None
    return verdict


def _all(verdicts: Any) -> bool | None:
    result: bool | None = True
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is None:
            result = None
    return result


def _not(verdict: bool | None) -> bool | None:
    return None if verdict is None else not verdict
