"""JSON under a schema, byte by byte: every valid text can be written and no other, and there are no dead ends."""

from __future__ import annotations

import json
import pickle
import random
import re
from itertools import permutations
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zqserve.guided.errors import GrammarError
from zqserve.guided.grammar import CompiledGrammar, GrammarSpec, compile_grammar
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import EOS, make_vocabulary
from .schema_strategies import VALUES, schemas

BYTES = make_vocabulary(bytes(range(256)))
"""Token b + 2 is the byte b."""

CLOSED = {"additionalProperties": False}
INTEGER, STRING, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}

CASES: list[tuple[str, Any, list[str], list[str]]] = [
    (
        "any value",
        True,
        ["null", "[1, {}]", '{"a": {"a": [[]]}}', '"\\u00e9\\ud83d\\ude00"', "-1.5e+3"],
        ["", "nul", "[1,]"],
    ),
    (
        "object",
        {"properties": {"a": INTEGER, "b": STRING}, "required": ["b"], **CLOSED, "type": "object"},
        ['{"b":""}', '{"a": 1, "b": "x"}', '{"a": 1,"b":"x"}'],
        ["{}", '{"a":1}', '{"b":1}', '{"b":"","c":1}', '{"b":"","a":1}', '{"a":1,"a":1,"b":""}', '{"b":""'],
    ),
    (
        "declared names first, then any others",
        {"type": "object", "properties": {"b": INTEGER, "a": INTEGER}, "required": ["a", "z"]},
        ['{"b":1,"a":1,"z":null}', '{"a":1,"y":[],"z":1,"x":{}}'],
        ['{"a":1,"b":1,"z":1}', '{"z":1,"a":1}', '{"a":1,"z":1,"\\u0061":2}', '{"a":1}', '{"a":1,"z":1,"z":1}'],
    ),
    (
        "names with a common beginning",
        {"type": "object", "properties": {"a": NULL, "ab": INTEGER, "abc": STRING}},
        ['{"ab":1,"abd":[],"":1}', '{"abc":"", "b":0}'],
        ['{"a":1}', '{"ab":""}', '{"abc":1}', '{"abcd":1, "abc": ""}'],
    ),
    (
        "names that need escapes",
        {"type": "object", "properties": {'"/\\': INTEGER, "é\n😀": INTEGER}, **CLOSED},
        ['{"\\"/\\\\":1}', '{"\\u0022\\/\\u005C":1}', '{"é\\n😀":1}', '{"\\u00e9\\u000a\\ud83d\\ude00":1}'],
        ['{"\\"":1}', '{"é":1}', '{"é\\n\\ud83d":1}'],
    ),
    (
        "pattern, additional and excluded names",
        {
            "type": "object",
            "patternProperties": {"^x": INTEGER, "y$": {"minimum": 5}},
            "additionalProperties": STRING,
            "propertyNames": {"maxLength": 3},
        },
        ['{"x":1,"ay":5,"b":"","ay":7.5}', '{"xy":6}', "{}"],
        ['{"x":""}', '{"xy":4}', '{"xy":5.5}', '{"b":1}', '{"abcd":""}'],
    ),
    (
        "how many properties",
        {"type": "object", "minProperties": 2, "maxProperties": 3},
        ['{"a":1,"b":2}', '{"a":1,"b":2,"c":3}'],
        ["{}", '{"a":1}', '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '{"a":1,"b":2,"c":3,"d":4}'],
    ),
    (
        "names of which there are few",
        {"type": "object", "patternProperties": {"^[ab]$": INTEGER}, "minProperties": 2, **CLOSED},
        ['{"a":1,"b":2}', '{"b":1,"a":2}'],
        ['{"a":1}', '{"a":1,"a":2}', '{"a":1,"c":2}'],
    ),
    (
        "what depends on a name",
        {
            "type": "object",
            "properties": {"a": NULL, "b": NULL, "c": NULL},
            "dependentRequired": {"a": ["c"], "c": ["b"]},
        },
        ['{"a":null,"b":null,"c":null}', '{"b":null}', "{}", '{"z":1}'],
        ['{"a":null}', '{"a":null,"b":null}', '{"c":null}', '{"a":null,"c":null}'],
    ),
    (
        "a property that must be there, whatever its name",
        {"type": "object", "not": {"additionalProperties": INTEGER}},
        ['{"a":1,"b":""}', '{"a":""}', '{"":null,"b":1}'],
        ["{}", '{"a":1}', '{"a":"","a":1}'],
    ),
    (
        "alternatives told apart by a later property",
        {
            "anyOf": [
                {"type": "object", "properties": {"v": INTEGER, "kind": {"const": "n"}}, "required": ["v", "kind"]},
                {"type": "object", "properties": {"v": {}, "kind": {"const": "s"}}, "required": ["v", "kind"]},
            ]
        },
        ['{"v":1,"kind":"n"}', '{"v":1,"kind":"s"}', '{"v":[],"kind":"s"}'],
        ['{"v":[],"kind":"n"}', '{"v":1,"kind":"x"}', '{"v":1}'],
    ),
    (
        "exactly one",
        {"oneOf": [{"type": "array", "items": INTEGER}, {"type": "array", "maxItems": 1}]},
        ["[1,2]", '[""]'],
        ["[1]", "[]", '["",1]'],
    ),
    (
        "items",
        {"type": "array", "prefixItems": [INTEGER, STRING], "items": NULL, "minItems": 1, "maxItems": 4},
        ["[1]", '[1,""]', '[1,"", null, null]'],
        ["[]", '[""]', '[1,"",1]', '[1,"",null,null,null]', "[1,]", "[ ]", "[1", "[1 ,2]"],
    ),
    (
        "contains",
        {"type": "array", "contains": INTEGER, "minContains": 2, "maxContains": 3, "maxItems": 5},
        ["[1,2]", '["",1,"",2,3]', '[1,2,3,"",""]'],
        ["[]", "[1]", '["","","",1]', "[1,2,3,4]", '["","","","",1]'],
    ),
    (
        "contains and a prefix",
        {"type": "array", "prefixItems": [STRING, STRING], "contains": INTEGER, "maxItems": 3},
        ['["","",1]'],
        ['["",""]', "[1]", '["","",""]'],
    ),
    (
        "two different contains",
        {
            "type": "array",
            "items": {"enum": [1, 2, "a"]},
            "allOf": [{"contains": INTEGER}, {"contains": STRING}],
            "maxItems": 2,
        },
        ['[1,"a"]', '["a",2]'],
        ["[1,2]", '["a"]', '["a","a"]'],
    ),
    (
        "different items out of few",
        {"type": "array", "items": {"enum": [1, "a", None]}, "uniqueItems": True, "minItems": 2},
        ['[1,"a"]', '[null,"a",1]'],
        ["[1]", "[1,1]", "[1,1.0]", '[null,"a",1,1]'],
    ),
    (
        "different items out of many",
        {"type": "array", "uniqueItems": True},
        ["[]", "[1,2]", '["a","b",[],{},[1],null]', '[{"a":1},{"a":2}]', "[1,true,0,false]"],
        ["[1,1]", "[ 1, 1]", '["a","\\u0061"]', "[[1],[1.0]]", '[{"a":1,"b":2},{"b":2,"a":1}]', "[null,null]"],
    ),
    (
        "items that compete for a value",
        {
            "type": "array",
            "prefixItems": [{"enum": [1, 2]}, {"enum": [1]}],
            "items": False,
            "uniqueItems": True,
            "minItems": 2,
        },
        ["[2,1]"],
        ["[1,1]", "[1"],
    ),
    (
        "an item that comes twice",
        {"type": "array", "not": {"uniqueItems": True}},
        ["[1,1]", '["a",2,"a"]', "[1,2,1.0,3]"],
        ["[]", "[1]", "[1,2]"],
    ),
    (
        "recursion",
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, NULL]}}, "required": ["next"], **CLOSED},
        ['{"next":null}', '{"next":{"next":{"next":null}}}'],
        ["{}", '{"next":{}}', '{"next":1}'],
    ),
    (
        "a branch that nothing satisfies is not begun",
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/endless"}, "b": INTEGER}, "$defs": {
            "endless": {"type": "object", "properties": {"a": {"$ref": "#/$defs/endless"}}, "required": ["a"]}}},
        ['{"b":1}', "{}"],
        ['{"a'],
    ),
    (
        "constants",
        {"enum": [{"a": [1, {"b": None}]}, [1.5, "x"], "é", 10, True]},
        ['{"a": [1, {"b": null}]}', '[1.5,"x"]', '[1.50,"x"]', '"\\u00e9"', "10.0", "true"],
        ['{"a":[1]}', "[1.5]", "1", "false", "{}"],
    ),
]  # fmt: skip


def compiled(schema: Any, **options: Any) -> CompiledGrammar:
    return compile_grammar(GrammarSpec("json", json.dumps(schema), **options))


def follow(grammar: CompiledGrammar, text: str | bytes) -> GrammarMatcher | None:
    """The matcher behind a text; None if the text cannot come."""
    data = text.encode() if isinstance(text, str) else text
    matcher = GrammarMatcher(grammar, BYTES)
    return matcher if matcher.accept_tokens(byte + 2 for byte in data) == len(data) else None


def accepts(grammar: CompiledGrammar, text: str | bytes) -> bool:
    matcher = follow(grammar, text)
    return matcher is not None and matcher.accepting()


def next_bytes(matcher: GrammarMatcher) -> list[int]:
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    return [token - 2 for token in np.flatnonzero(bits).tolist() if token != EOS]


def random_text(grammar: CompiledGrammar, choice: random.Random, free: int = 60, most: int = 4000) -> bytes | None:
    """A random output, which after `free` bytes heads for its end; None: it did not come there."""
    matcher, text = GrammarMatcher(grammar, BYTES), b""
    while len(text) < most:
        allowed = next_bytes(matcher)
        if matcher.accepting() and (not allowed or choice.random() < 0.4 or len(text) > free):
            return text
        assert allowed, f"dead end behind {text!r}"
        closing = [byte for byte in allowed if byte in b'"]}'] or [byte for byte in allowed if byte == 0x2C]
        if len(text) > free or choice.random() < 0.4:
            allowed = closing or [byte for byte in allowed if 0x20 < byte < 0x7F and byte != 0x5C] or allowed
        byte = choice.choice(allowed)
        assert matcher.advance(byte + 2)
        text += bytes([byte])
    return None


@pytest.mark.parametrize(("schema", "valid", "invalid"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_exactly_the_texts_of_valid_values_are_accepted(schema, valid, invalid):
    grammar = compiled(schema)
    assert [text for text in valid if not accepts(grammar, text)] == []
    assert [text for text in invalid if accepts(grammar, text)] == []


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("schema", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_whatever_is_generated_ends_and_validates(schema, any_order):
    grammar = compiled(schema, any_order=any_order)
    validator = jsonschema.Draft202012Validator(schema)
    for seed in range(12):
        text = random_text(grammar, random.Random(seed))
        assert text is None or validator.is_valid(json.loads(text)), text


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(schemas(), st.lists(VALUES, min_size=2, max_size=5), st.integers(0, 2**32), st.booleans())
def test_random_schemas_accept_what_validates_and_generate_what_validates(schema, values, seed, any_order):
    validator = jsonschema.Draft202012Validator(schema)
    try:
        grammar = compiled(schema, any_order=any_order)
    except GrammarError as error:
        if error.fault == "unsupported" and error.keyword == "uniqueItems":
            return
        grammar = None
    for value in values:
        taken = grammar is not None and accepts(grammar, json.dumps(value))
        assert validator.is_valid(value) if taken else not (any_order and validator.is_valid(value)), value
    text = random_text(grammar, random.Random(seed), free=30, most=1000) if grammar else None
    assert text is None or validator.is_valid(json.loads(text)), text


def test_with_any_order_declared_properties_come_in_any_order_and_once():
    schema = {"type": "object", "properties": {"a": NULL, "b": NULL, "c": NULL}, "required": ["a", "c"]}
    grammar = compiled(schema, any_order=True)
    for names in permutations("abcz"):
        text = json.dumps(dict.fromkeys(names))
        assert accepts(grammar, text)
        assert not accepts(grammar, text[:-1] + ', "a": null}')
    assert not accepts(grammar, '{"b": null, "a": null}')


def test_in_order_the_next_key_is_forced_when_there_is_only_one():
    schema = {"type": "object", "properties": {"name": STRING, "age": INTEGER}, "required": ["name", "age"]}
    matcher = follow(compiled(schema, any_whitespace=False), "")
    assert matcher is not None
    assert matcher.forced_bytes() == b'{"name":"'
    matcher = follow(compiled(schema, any_whitespace=False), '{"name":"x"')
    assert matcher is not None
    assert matcher.forced_bytes() == b',"age":'


@pytest.mark.parametrize(
    ("options", "good", "bad"),
    [
        ({}, ['{"a": [1, 2]}', '{"a":[1, 2]}', '{"a":[1,2]}'],
         ['{"a":  [1]}', '{ "a":[1]}', '{"a":[1] }', '{"a":[ 1]}',
          '{"a" : [1]}', '{"a": [1 ,2]}', '{"a": [1]} ', ' {"a": [1]}', '{"a":\n[1]}']),
        ({"any_whitespace": False}, ['{"a":[1,2]}', "{}"], ['{"a": [1]}', "{ }", '{"a":[1 ]}']),
        ({"whitespace_pattern": "[ ]{0,2}"}, ['{  "a": [1,  2]}', "{  }"], ['{   "a":[1]}', '{\n"a":[1]}']),
        ({"whitespace_pattern": " "}, ['{ "a": [ 1, 2 ] }', "{ }"], ['{"a":[1]}', '{ "a": [ 1]}', "{  }"]),
    ],
)  # fmt: skip
def test_white_space_comes_where_and_as_far_as_the_options_say(options, good, bad):
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": INTEGER}}, **CLOSED}
    grammar = compiled(schema, **options)
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


@pytest.mark.parametrize("pattern", ["x?", "[^x]", "\\S", "(", "[^\\s\\S]"])
def test_a_white_space_pattern_of_other_characters_is_refused(pattern):
    with pytest.raises(GrammarError):
        compiled({"type": "object"}, whitespace_pattern=pattern)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "required": ["a"], "$defs":
            {"b": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}}},
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "object", "required": ["b"], **CLOSED}}},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 4},
        {"type": "array", "items": {"enum": [1, 1.0, 1e0]}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "items": {"type": "boolean"}, "contains": {"const": 1}},
        {"type": "array", "maxItems": 2, "contains": INTEGER, "minContains": 3},
        {"type": "array", "prefixItems": [INTEGER], "items": False, "minItems": 2},
        {"type": "object", "minProperties": 3, "propertyNames": {"enum": ["a", "b"]}},
        {"type": "object", "minProperties": 3, "patternProperties": {"^[ab]$": {}}, **CLOSED},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
        {"type": "object", "required": ["a", "b"], "maxProperties": 1},
        {"type": "object", "required": ["a"], "dependentRequired": {"a": ["b"]}, "properties": {"a": {}}, **CLOSED},
        {"$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1}},
         "$ref": "#/$defs/x"},
    ],
)  # fmt: skip
def test_a_schema_that_nothing_satisfies_is_refused(schema):
    with pytest.raises(GrammarError) as caught:
        compiled(schema)
    assert caught.value.fault == "unsatisfiable"


@pytest.mark.parametrize(
    "items", [{"type": "integer", "minimum": 0, "maximum": 3000}, {"properties": {"a": STRING}, **CLOSED}]
)
def test_different_items_that_can_run_out_unseen_are_refused_wherever_they_stand(items):
    schema = {
        "type": "object",
        "properties": {"deep": {"type": "array", "items": {"uniqueItems": True, "items": items}}},
    }
    with pytest.raises(GrammarError) as caught:
        compiled(schema)
    assert (caught.value.fault, caught.value.keyword) == ("unsupported", "uniqueItems")
    assert caught.value.location == "/properties/deep/items"


def test_different_integers_may_all_come_but_once():
    grammar = compiled({"type": "array", "items": INTEGER, "uniqueItems": True})
    assert accepts(grammar, "[0, 1, -1, 10, 100]")
    matcher = follow(grammar, "[0, 1, ")
    assert matcher is not None
    assert 0x30 not in next_bytes(matcher)
    assert not accepts(grammar, "[5, 5]")


def test_a_string_among_more_goals_than_fit_a_small_number_is_any_string():
    branches = [
        {"properties": {"v": STRING, f"f{n}": INTEGER}, "required": [f"f{n}"], "minProperties": n} for n in range(30)
    ]
    branches += [{"properties": {"v": {"enum": ["a", n]}}, "required": [f"g{n}"]} for n in range(30)]
    grammar = compiled({"type": "object", "anyOf": branches}, any_order=True)
    assert accepts(grammar, '{"v": "anything", "f0": 1}')
    assert accepts(grammar, '{"v": "a", "g7": 1}')
    assert not accepts(grammar, '{"v": "b", "g7": 1}')


def test_mutual_recursion_finds_the_way_out():
    tree = {
        "$ref": "#/$defs/tree",
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"kids": {"$ref": "#/$defs/forest"}},
                "required": ["kids"],
                **CLOSED,
            },
            "forest": {"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/$defs/tree"}, {"const": 0}]}},
        },
    }
    grammar = compiled(tree)
    assert accepts(grammar, '{"kids":[{"kids":[0]},0]}')
    assert not accepts(grammar, '{"kids":[]}')
    assert not accepts(grammar, '{"kids":[{"kids":[]}]}')


def test_thousands_of_optional_properties_keep_their_order():
    names = [f"p{number:04}" for number in range(2000)]
    schema = {"type": "object", "properties": dict.fromkeys(names, INTEGER), **CLOSED}
    grammar = compiled(schema)
    assert accepts(grammar, json.dumps(dict.fromkeys(names[::7], 1)))
    assert not accepts(grammar, '{"p0007": 1, "p0006": 1}')
    assert accepts(compiled(schema, any_order=True), '{"p0007": 1, "p0006": 1}')


def test_counts_up_to_a_hundred_thousand():
    grammar = compiled({"type": "array", "items": {"const": 0}, "minItems": 3, "maxItems": 100_000})
    assert accepts(grammar, json.dumps([0] * 500))
    assert not accepts(grammar, "[0,0]")
    with_contains = compiled({"type": "array", "contains": {"const": 1}, "minContains": 90_000, "maxItems": 100_000})
    assert follow(with_contains, "[0,0,1,") is not None
    assert not accepts(with_contains, "[1]")


def test_a_large_choice_of_objects_is_told_apart_by_its_constants():
    branches = [
        {"properties": {"type": {"const": f"t{n}"}, f"f{n}": INTEGER}, "required": ["type", f"f{n}"], **CLOSED}
        for n in range(150)
    ]
    grammar = compiled({"type": "object", "anyOf": branches})
    assert accepts(grammar, '{"type": "t149", "f149": 1}')
    assert not accepts(grammar, '{"type": "t149", "f14": 1}')
    matcher = follow(grammar, '{"type":"t77",')
    assert matcher is not None
    assert re.fullmatch(rb'"f77":', matcher.forced_bytes()) or next_bytes(matcher) == [0x20, 0x22]


def test_a_grammar_can_be_pickled_in_the_middle_of_a_text():
    schema = CASES[10][1]
    grammar = compiled(schema)
    assert follow(grammar, '{"v":1,"ki') is not None
    copy = pickle.loads(pickle.dumps(grammar))
    assert accepts(copy, '{"v":[],"kind":"s"}')
    assert not accepts(copy, '{"v":[],"kind":"n"}')
