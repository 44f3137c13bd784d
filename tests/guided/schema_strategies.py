"""Random JSON Schemas and JSON values that are likely to meet each other: few names, few constants, small numbers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "ab", "c"])
SCALARS = st.sampled_from([None, True, False, 0, 1, 2, 1.5, -1, "", "a", "b", "abc"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["null", "boolean", "string", "integer", "number", "array", "object"])
COUNTS = st.integers(0, 3)
PATTERNS = st.sampled_from(["a", "^a", "b", "^[ab]+", "c|^$"])

AMBIGUOUS_PATTERNS = st.sampled_from(["^\\w+$", "\\d", "^\\S*$", "^a.$", "\\bé", "^[^a]$", "a$", "\\W"])
AMBIGUOUS: dict[str, st.SearchStrategy[Any]] = {
    "pattern": AMBIGUOUS_PATTERNS,
    "patternProperties": AMBIGUOUS_PATTERNS,
    "format": st.sampled_from(["date", "email", "ipv4", "ipv6", "uuid", "hostname", "time", "uri", "unknown"]),
}
"""Assertions about which readers of a schema differ."""
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "é",
        "a\n",
        "a\r",
        "٣",
        "a\u2028",
        "2024-02-30",
        "2024-02-29",
        "a@",
        "a@b",
        "1.2.3.4",
        "::1",
        "a b",
        "x:y",
    ]
)
AMBIGUOUS_VALUES = st.recursive(
    TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=3,
)


def schemas(
    *, references: bool = True, strings: dict[str, st.SearchStrategy[Any]] | None = None
) -> st.SearchStrategy[Any]:
    """Schemas of draft 2020-12; references lead to `#`, below a property, and to `#/$defs/x` and `#/$defs/y`.

    `strings` are other assertions about strings (and other patterns of names) than the usual, unambiguous ones.
    """
    leaves = _assertions(strings)
    inner = st.recursive(
        leaves,
        lambda deeper: _assertions(strings, 2) | _applied(deeper, references, strings),
        max_leaves=5,
    )
    return st.builds(
        lambda root, x, y: {**root, "$defs": {"x": x, "y": y}} if isinstance(root, dict) else root,
        inner,
        leaves,
        leaves,
    )


def older_schemas(draft: str) -> st.SearchStrategy[Any]:
    """Schemas of draft-04, draft-06 or draft-07 with the forms that later drafts dropped."""
    boolean = st.just({}) if draft == "draft-04" else st.booleans()
    bounds: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES,
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "minLength": COUNTS,
        "minimum": st.integers(-2, 3),
        "maximum": st.integers(-2, 3),
        "required": st.lists(NAMES, min_size=1, max_size=2, unique=True),
        "uniqueItems": st.booleans(),
        "dependencies": st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=2, unique=True), max_size=2),
    }
    if draft != "draft-04":
        bounds |= {"const": VALUES, "exclusiveMinimum": st.integers(-2, 3)}

    def applied(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(inner, min_size=1, max_size=3)
        named = st.dictionaries(NAMES, inner, min_size=1, max_size=3)
        words: dict[str, st.SearchStrategy[Any]] = {
            "properties": named,
            "additionalProperties": inner,
            "items": inner | several,
            "additionalItems": inner,
            "dependencies": named,
            "allOf": several,
            "oneOf": several,
            "not": inner,
            "$ref": st.sampled_from(["#/definitions/x"]),
        }
        if draft == "draft-04":
            words["maximum"] = st.integers(-2, 3)
        else:
            words |= {"contains": inner, "propertyNames": inner}
        if draft == "draft-07":
            words |= {"if": inner, "then": inner, "else": inner}
        return _some_of(bounds, 2) | _some_of(words, 4).filter(lambda schema: type(schema.get("items")) is not bool)

    leaves = boolean | _some_of(bounds, 3)
    if draft == "draft-04":
        leaves |= st.builds(lambda low: {"minimum": low, "exclusiveMinimum": True}, st.integers(-2, 3))
    return st.builds(
        lambda root, x: {**root, "$schema": f"http://json-schema.org/{draft}/schema#", "definitions": {"x": x}},
        st.recursive(leaves, applied, max_leaves=5).filter(lambda root: isinstance(root, dict)),
        leaves,
    )


def _assertions(strings: dict[str, st.SearchStrategy[Any]] | None, most: int = 3) -> st.SearchStrategy[Any]:
    if strings is not None:
        chosen = {"pattern": strings["pattern"], "format": strings["format"], "type": TYPES, "maxLength": COUNTS}
        return st.booleans() | _some_of(chosen, most)
    words: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minLength": COUNTS,
        "maxLength": COUNTS,
        "pattern": PATTERNS,
        "minimum": st.integers(-2, 3),
        "maximum": st.integers(-2, 3),
        "exclusiveMinimum": st.integers(-2, 3),
        "exclusiveMaximum": st.integers(-2, 3),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minItems": COUNTS,
        "maxItems": COUNTS,
        "uniqueItems": st.booleans(),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "minProperties": COUNTS,
        "maxProperties": COUNTS,
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=2, unique=True), max_size=2),
    }
    return st.booleans() | _some_of(words, most)


def _applied(
    inner: st.SearchStrategy[Any], references: bool, strings: dict[str, st.SearchStrategy[Any]] | None
) -> st.SearchStrategy[Any]:
    patterns = PATTERNS if strings is None else strings["patternProperties"]
    several = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    words: dict[str, st.SearchStrategy[Any]] = {
        "properties": named,
        "patternProperties": st.dictionaries(patterns, inner, min_size=1, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "dependentSchemas": named,
        "items": inner,
        "prefixItems": several,
        "contains": inner,
        "minContains": COUNTS,
        "maxContains": COUNTS,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "type": TYPES,
        "required": st.lists(NAMES, max_size=2, unique=True),
        "unevaluatedProperties": inner,
        "unevaluatedItems": inner,
    }
    if references:
        words["$ref"] = st.sampled_from(["#/$defs/x", "#/$defs/y"])
        words["properties"] = named | st.builds(lambda name: {name: {"$ref": "#"}}, NAMES)
    return _some_of(words, 4)


def _some_of(words: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    chosen = st.lists(st.sampled_from(sorted(words)), min_size=1, max_size=most, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({name: words[name] for name in names}))
