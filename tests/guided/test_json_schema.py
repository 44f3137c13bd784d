"""JSON Schema's algebra against `jsonschema`, and by hand where the specification or our promises say more.

`clause_evaluator` gives clauses their plain meaning, so that nothing of the automaton is needed here.
"""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.validators import validator_for

from zqserve.guided.errors import GrammarError
from zqserve.guided.json_schema.schema import (
    EVERYTHING,
    NOTHING,
    SchemaOptions,
    alternatives,
    conjunction,
    constant,
    disjunction,
    negation,
    read_schema,
)

from .clause_evaluator import satisfies
from .schema_strategies import AMBIGUOUS, AMBIGUOUS_VALUES, VALUES, older_schemas, schemas

RANDOM = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def accepts(schema: Any, value: Any, **options: Any) -> bool:
    return satisfies(read_schema(schema, options=SchemaOptions(**options)), value)


@RANDOM
@given(schemas(), st.lists(VALUES, min_size=4, max_size=8))
def test_what_satisfies_a_random_schema_is_what_jsonschema_says(schema: Any, values: list[Any]) -> None:
    validator = Draft202012Validator(schema)
    node = read_schema(json.dumps(schema))
    for value in values:
        assert satisfies(node, value) == validator.is_valid(value)


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
@settings(RANDOM, max_examples=100)
@given(st.data())
def test_older_drafts_are_read_as_jsonschema_reads_them(draft: str, data: st.DataObject) -> None:
    schema = data.draw(older_schemas(draft))
    validator = validator_for(schema)(schema)
    node = read_schema(schema)
    for value in data.draw(st.lists(VALUES, min_size=4, max_size=8)):
        assert satisfies(node, value) == validator.is_valid(value)


@settings(RANDOM, max_examples=100)
@given(schemas(references=False), schemas(references=False), st.lists(VALUES, min_size=3, max_size=6))
def test_the_algebra_is_boolean(one: Any, other: Any, values: list[Any]) -> None:
    first, second = read_schema({"properties": {"a": one}, "items": other}), read_schema(other)
    for value in values:
        left, right = satisfies(first, value), satisfies(second, value)
        assert satisfies(negation(first), value) == (not left)
        assert satisfies(conjunction(first, second), value) == (left and right)
        assert satisfies(disjunction(first, second), value) == (left or right)


def test_equal_expressions_are_the_same_object() -> None:
    clause = alternatives(read_schema({"properties": {"a": {"type": "null"}, "b": {"type": "array"}}})).objects[0]
    one, other = (rule.value for rule in clause.rules)
    assert conjunction(one, other) is conjunction(other, one, EVERYTHING)
    assert negation(negation(one)) is one
    assert conjunction(one, negation(one)) is NOTHING
    assert disjunction(one, negation(one)) is EVERYTHING
    assert negation(conjunction(one, other)) is disjunction(negation(one), negation(other))


def test_a_constant_is_equal_as_json_is() -> None:
    assert satisfies(constant({"a": [1, None]}), {"a": [1.0, None]})
    assert not satisfies(constant({"a": [1, None]}), {"a": [True, None]})
    assert satisfies(negation(constant(1)), True)


def test_properties_keep_the_order_of_the_schema() -> None:
    schema = {"properties": {"z": {}, "a": {}}, "allOf": [{"properties": {"m": {}, "a": {}}}]}
    assert alternatives(read_schema(schema)).objects[0].order == ("z", "a", "m")


def test_numbers_are_the_decimals_that_the_text_says() -> None:
    assert accepts('{"multipleOf": 0.1}', 0.3)
    assert not accepts('{"exclusiveMinimum": 9007199254740993}', 9007199254740993)
    assert accepts('{"exclusiveMinimum": 9007199254740993}', 9007199254741000)


def test_a_pattern_that_readers_read_differently_is_used_where_they_agree() -> None:
    assert not accepts({"pattern": "^\\w$"}, "é")
    assert not accepts({"not": {"pattern": "^\\w$"}}, "é")
    assert not accepts({"not": {"type": "string", "pattern": "^a$"}}, "a\n")
    assert accepts({"not": {"pattern": "^\\w$"}}, "-")
    schema = {"patternProperties": {"^\\w$": {"type": "null"}}, "additionalProperties": {"type": "boolean"}}
    assert not accepts(schema, {"é": None})
    assert not accepts(schema, {"é": True})
    assert accepts(schema, {"a": None, "-": True})


def test_a_format_is_asserted_unless_it_is_unknown_or_switched_off() -> None:
    assert not accepts({"format": "ipv4"}, "1.2.3")
    assert accepts({"format": "ipv4"}, "1.2.3", assert_formats=False)
    assert accepts({"format": "colour-of-the-sky"}, "blue")
    assert not accepts({"not": {"format": "colour-of-the-sky"}}, "blue")
    with pytest.raises(GrammarError, match="colour"):
        accepts({"format": "colour-of-the-sky"}, "blue", unknown_formats="refuse")


def test_nullable_adds_null_where_no_draft_is_declared() -> None:
    assert accepts({"type": "string", "nullable": True}, None)
    assert not accepts({"type": "string", "nullable": True}, None, nullable=False)
    declared = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string", "nullable": True}
    assert not accepts(declared, None)


def test_a_document_without_draft_may_use_the_forms_of_older_ones() -> None:
    assert not accepts({"minimum": 1, "exclusiveMinimum": True}, 1)
    assert not accepts({"items": [{"type": "null"}], "additionalItems": False}, [None, 1])
    assert not accepts({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, {"a": 1})


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"properties": {"a": {}}}, {"a": 1}, {"b": 1}),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "b": 1}, {"a": 1, "c": 1}),
        ({"properties": {"a": {"properties": {"b": {}}}}}, {"a": {"b": 1}}, {"a": {"c": 1}}),
        ({"properties": {"a": {}}, "patternProperties": {"^x": {}}}, {"x1": 1}, {"y": 1}),
        ({"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "b": 1}, {"c": 1}),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}},
            {"n": {}},
            {"n": {"m": 1}},
        ),
    ],
)
def test_objects_that_do_not_say_otherwise_can_be_closed(schema: Any, right: Any, wrong: Any) -> None:
    assert accepts(schema, right, additional_properties=False)
    assert not accepts(schema, wrong, additional_properties=False)
    assert accepts(schema, wrong)


def test_closing_leaves_alone_what_says_otherwise_and_never_widens_a_negation() -> None:
    assert accepts({"type": "object"}, {"a": 1}, additional_properties=False)
    assert accepts({"properties": {"a": {}}, "additionalProperties": True}, {"b": 1}, additional_properties=False)
    assert not accepts({"not": {"properties": {"a": {}}}}, {"b": 1}, additional_properties=False)


def test_a_dynamic_reference_leads_to_the_outermost_anchor() -> None:
    tree = {
        "$id": "https://example.org/strict",
        "$dynamicAnchor": "node",
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {
            "tree": {
                "$id": "tree",
                "$dynamicAnchor": "node",
                "properties": {"data": True, "children": {"items": {"$dynamicRef": "#node"}}},
            }
        },
    }
    assert accepts(tree, {"children": [{"data": 1}]})
    assert not accepts(tree, {"children": [{"daat": 1}]})


def test_a_recursive_reference_leads_to_the_outermost_recursive_anchor() -> None:
    tree = {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$id": "https://example.org/strict",
        "$recursiveAnchor": True,
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {
            "tree": {
                "$id": "tree",
                "$recursiveAnchor": True,
                "properties": {"data": True, "children": {"items": {"$recursiveRef": "#"}}},
            }
        },
    }
    assert accepts(tree, {"children": [{"data": 1}]})
    assert not accepts(tree, {"children": [{"daat": 1}]})


@pytest.mark.parametrize(
    ("schema", "location", "keyword"),
    [
        ({"properties": {"a": {"items": {"type": "text"}}}}, "/properties/a/items", "type"),
        ({"properties": {"a/b": {"pattern": "("}}}, "/properties/a~1b", "pattern"),
        ({"anyOf": [{}, {"minLength": -1}]}, "/anyOf/1", "minLength"),
        ({"items": {"maxItems": 1.5}}, "/items", "maxItems"),
        ({"not": {"multipleOf": 0}}, "/not", "multipleOf"),
        ({"not": {"minimum": True}}, "/not", "minimum"),
        ({"properties": {"a": {"required": "a"}}}, "/properties/a", "required"),
        ({"properties": {"a": {"enum": "a"}}}, "/properties/a", "enum"),
        ({"properties": {"a": {"allOf": []}}}, "/properties/a", "allOf"),
        ({"properties": {"a": {"properties": []}}}, "/properties/a", "properties"),
        ({"properties": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}, "/properties/a/allOf/0", "$ref"),
        ({"items": {"allOf": [{"$ref": "#name"}]}}, "/items/allOf/0", "$ref"),
        ({"items": {"const": float("inf")}}, "/items", "const"),
        ({"items": {"minimum": float("nan")}}, "/items", "minimum"),
        ({"items": 3}, "/items", ""),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "items": []}, "", "items"),
    ],
)
def test_a_malformed_schema_is_refused_with_its_place(schema: Any, location: str, keyword: str) -> None:
    with pytest.raises(GrammarError) as refusal:
        read_schema(schema)
    assert (refusal.value.fault, refusal.value.location, refusal.value.keyword) == ("invalid", location, keyword)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"items": {"anyOf": [{"type": "null"}, {"$ref": "#/items"}]}},
        {"not": {"allOf": [{"if": {"$ref": "#"}}]}},
        {"dependentSchemas": {"a": {"oneOf": [{"$ref": "#"}]}}},
    ],
)
def test_a_schema_that_reaches_itself_without_consuming_anything_is_refused(schema: Any) -> None:
    with pytest.raises(GrammarError, match="itself") as refusal:
        read_schema(schema)
    assert refusal.value.fault == "invalid"


def test_what_nothing_refers_to_does_not_matter() -> None:
    assert accepts({"type": "null", "$defs": {"a": {"$ref": "#/$defs/a"}, "b": {"$ref": "http://example.org"}}}, None)


def test_nothing_is_fetched() -> None:
    with pytest.raises(GrammarError, match="fetched") as refusal:
        read_schema({"items": {"allOf": [{"$ref": "http://example.org/schema"}]}})
    assert (refusal.value.fault, refusal.value.location) == ("unsupported", "/items/allOf/0")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '"a"', "NaN", '{"a": 1}}', b"\xff"])
def test_what_is_no_schema_text_is_refused(text: str | bytes) -> None:
    with pytest.raises(GrammarError) as refusal:
        read_schema(text)
    assert refusal.value.fault == "invalid"


@pytest.mark.parametrize("depth", [300, 100_000])
def test_a_schema_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    with pytest.raises(GrammarError) as refusal:
        read_schema('{"items":' * depth + "{}" + "}" * depth)
    assert refusal.value.fault == "too_complex"
    nested: Any = {}
    for _ in range(depth):
        nested = {"items": nested}
    with pytest.raises(GrammarError):
        read_schema(nested)


def test_too_many_applicators_inside_one_another_are_refused() -> None:
    links = {str(place): {"allOf": [{"$ref": f"#/$defs/{place + 1}"}, {}]} for place in range(60)}
    with pytest.raises(GrammarError) as refusal:
        read_schema({"$defs": {**links, "60": {"type": "null"}}, "allOf": [{"$ref": "#/$defs/0"}]})
    assert refusal.value.fault == "too_complex"


def test_branches_with_different_discriminators_are_not_multiplied() -> None:
    branches = [
        {"properties": {"kind": {"const": number}, f"p{number}": {"type": "string"}}, "required": ["kind"]}
        for number in range(100)
    ]
    found = alternatives(read_schema({"type": "object", "oneOf": branches})).objects
    assert len(found) == 100
    assert all(len(clause.rules) == 2 for clause in found)


def test_branches_whose_patterns_begin_differently_are_not_multiplied() -> None:
    kinds = ("cargo", "gem", "npm", "nuget", "opam", "pypi", "golang", "luarocks")
    branches = [
        {"properties": {"id": {"type": "string", "pattern": f"^pkg:{kind}\\/.+@.+"}}, "required": ["id"]}
        for kind in kinds
    ]
    found = alternatives(read_schema({"type": "object", "oneOf": branches})).objects
    assert len(found) == len(kinds)
    assert all(len(clause.rules) == 1 for clause in found)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("^ab", "^abc", "abcd"),
        ("^ab*", "^ac", "ac"),
        ("^ab?c", "^ac", "ac"),
        ("^ab{0,1}c", "^ac", "ac"),
        ("^x|b$", "^a", "ab"),
        ("^ab+", "^abb", "abb"),
        ("^a\\.b", "^a.", "a.b"),
        ("b", "^ab", "ab"),
    ],
)
def test_patterns_that_may_begin_alike_are_not_told_apart(one: str, other: str, both: str) -> None:
    patterns = [{"type": "string", "pattern": pattern} for pattern in (one, other)]
    assert accepts({"allOf": patterns}, both)
    assert not accepts({"oneOf": patterns}, both)


def test_a_chain_of_conditions_on_one_property_is_not_multiplied() -> None:
    conditions = [
        {"if": {"properties": {"kind": {"const": number}}}, "then": {"required": [f"p{number}"]}}
        for number in range(30)
    ]
    schema = read_schema({"type": "object", "allOf": conditions})
    assert len(alternatives(schema).objects) <= 32
    assert satisfies(schema, {"kind": 3, "p3": None})
    assert not satisfies(schema, {"kind": 3, "p4": None})


def test_overlapping_branches_whose_product_would_explode_stay_exclusive() -> None:
    branches = [
        {"properties": {f"{name}{place}": {"type": "string"} for name in "abc"}, "required": [f"a{place}"]}
        for place in range(12)
    ]
    schema = read_schema({"type": "object", "oneOf": branches})
    assert satisfies(schema, {"a3": "", "b4": ""})
    assert not satisfies(schema, {"a3": "", "a4": ""})


def test_what_cannot_be_kept_small_is_refused() -> None:
    choices = [{"anyOf": [{"required": [f"{place}{name}"]} for name in "abcd"]} for place in range(10)]
    with pytest.raises(GrammarError) as refusal:
        alternatives(read_schema({"allOf": choices}))
    assert refusal.value.fault == "too_complex"


def test_a_large_enumeration_is_one_language() -> None:
    found = alternatives(read_schema({"enum": [*(f"value {number}" for number in range(20_000)), *range(20_000)]}))
    assert found.strings.contains("value 19999")
    assert not found.strings.contains("value 20000")
    assert found.numbers.contains("19999")
    assert found.objects == found.arrays == ()


def test_schemas_are_pickled_with_their_identities() -> None:
    root = read_schema({"properties": {"a": {"$ref": "#"}, "b": {"type": "null"}}, "oneOf": [{"required": ["a"]}, {}]})
    inner = alternatives(root).objects[0].rules[-1].value
    both = conjunction(root, negation(inner))
    copy, copied_inner, copied_both, everything = pickle.loads(pickle.dumps((root, inner, both, EVERYTHING)))
    assert everything is EVERYTHING
    assert conjunction(copy, negation(copied_inner)) is copied_both
    assert alternatives(copy) is alternatives(copy)
    assert satisfies(copy, {"b": None}) is satisfies(root, {"b": None})


@pytest.mark.parametrize(
    "uri", ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"]
)
def test_a_schema_may_refer_to_a_meta_schema(uri: str) -> None:
    schema = read_schema({"properties": {"parameters": {"$ref": uri}}})
    assert satisfies(schema, {"parameters": {"properties": {"a": {"minLength": 1, "allOf": [True]}}}})
    assert not satisfies(schema, {"parameters": {"properties": {"a": {"minLength": -1}}}})
    assert not satisfies(schema, {"parameters": {"allOf": [{"items": {"type": "text"}}]}})


def test_a_schema_may_be_that_of_its_own_property_names() -> None:
    schema = {"type": ["object", "string"], "maxLength": 2, "propertyNames": {"$ref": "#"}}
    assert accepts(schema, {"ab": 1})
    assert not accepts(schema, {"abc": 1})
    assert satisfies(negation(read_schema(schema)), {"abc": 1})


@RANDOM
@given(schemas(), st.lists(VALUES, min_size=4, max_size=8))
def test_closed_objects_only_take_values_away(schema: Any, values: list[Any]) -> None:
    validator = Draft202012Validator(schema)
    node = read_schema(schema, options=SchemaOptions(additional_properties=False))
    for value in values:
        assert validator.is_valid(value) or not satisfies(node, value)


@RANDOM
@given(schemas(strings=AMBIGUOUS), st.lists(AMBIGUOUS_VALUES, min_size=6, max_size=10))
def test_nothing_is_accepted_that_some_reader_of_a_pattern_or_format_refuses(schema: Any, values: list[Any]) -> None:
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    node = read_schema(schema)
    for value in values:
        assert validator.is_valid(value) or not satisfies(node, value)
