"""The public door: each kind of grammar compiles, is refused with a reason, and can be moved to another process."""

from __future__ import annotations

import json
import pickle
import random
import re
import subprocess
import sys

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.budget import Budget
from zqserve.guided.errors import BudgetExceededError, GrammarError
from zqserve.guided.grammar import MAX_TEXT_BYTES, CompiledGrammar, GrammarSpec, compile_grammar
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import EOS, generate, make_vocabulary
from .test_context_free import BYTES, accepts, begins

CHARACTER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
        "armor": {"enum": ["leather", "chainmail", "plate"]},
    },
    "required": ["name", "age", "armor"],
    "additionalProperties": False,
}
TOOLS = {
    "type": "triggered_tags",
    "triggers": ["<f="],
    "tags": [
        {"type": "tag", "begin": "<f=a>", "content": {"type": "json_schema", "json_schema": CHARACTER}, "end": "</f>"},
        {"type": "tag", "begin": "<f=b>", "content": {"type": "regex", "pattern": "[0-9]+"}, "end": "</f>"},
    ],
    "at_least_one": True,
}
SPECS = [
    GrammarSpec("regex", r"(\+\d{1,2} )?[a-f]{2,5}|é*"),
    GrammarSpec("choice", json.dumps(["yes", "no", "never", "é"])),
    GrammarSpec("json", json.dumps(CHARACTER)),
    GrammarSpec("json_object"),
    GrammarSpec("grammar", 'root ::= "(" root ")" | [0-9]+ ("+" root)?'),
    GrammarSpec("grammar", 'start: "(" start ")" | INT ["+" start]\n%import common.INT'),
    GrammarSpec("structural_tag", json.dumps({"format": {"type": "any_text", "excludes": ["a"]}})),
    GrammarSpec("structural_tag", json.dumps({"format": TOOLS})),
]
by_kind = pytest.mark.parametrize("spec", SPECS, ids=[f"{index} {spec.kind}" for index, spec in enumerate(SPECS)])


def compiled(kind, text="", **options) -> CompiledGrammar:
    return compile_grammar(GrammarSpec(kind, text if isinstance(text, str) else json.dumps(text), **options))


@by_kind
def test_each_kind_generates_without_a_dead_end_under_masks_that_agree_with_advance(spec):
    grammar = compile_grammar(spec)
    vocabulary = make_vocabulary(
        bytes(range(32, 127)), [b"\xc3", b"\xa9", b'{"', b'":', b"ne", b"ver", b'"na', b"((", b"1+"]
    )
    endings = {generate(GrammarMatcher(grammar, vocabulary), seed, most=25)[1] for seed in range(6)}
    assert endings <= {True, False}


@by_kind
def test_pickled_grammar_is_the_same_grammar(spec):
    grammar = compile_grammar(spec)
    fresh = pickle.loads(pickle.dumps(grammar))
    expected = [generate(GrammarMatcher(grammar, BYTES), seed, most=12) for seed in range(3)]
    used = pickle.loads(pickle.dumps(grammar))
    for again in (fresh, used):
        assert [generate(GrammarMatcher(again, BYTES), seed, most=12) for seed in range(3)] == expected
    assert fresh.spec == spec


def test_grammar_compiled_in_another_process_works_here():
    code = (
        "import pickle, sys; from zqserve.guided.grammar import *;"
        "sys.stdout.buffer.write(pickle.dumps([compile_grammar(spec) for spec in pickle.load(sys.stdin.buffer)]))"
    )
    result = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(SPECS), capture_output=True, check=True)
    for spec, grammar in zip(SPECS, pickle.loads(result.stdout), strict=True):
        here = compile_grammar(spec)
        for seed in range(3):
            assert generate(GrammarMatcher(grammar, BYTES), seed, most=8) == generate(
                GrammarMatcher(here, BYTES), seed, most=8
            )


def test_content_key_tells_specs_apart():
    variants = [
        GrammarSpec("json", "{}"),
        GrammarSpec("regex", "{}"),
        GrammarSpec("json", "{} "),
        GrammarSpec("json", "{}", whitespace_pattern=""),
        GrammarSpec("json", "{}", any_whitespace=False),
        GrammarSpec("json", "{}", additional_properties=False),
        GrammarSpec("json", "{}", any_order=True),
    ]
    assert len({spec.content_key() for spec in variants}) == len(variants)
    assert GrammarSpec("json", "{}").content_key() == variants[0].content_key()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=5), min_size=1, max_size=12), st.data())
def test_choice_is_exactly_one_of_its_texts(choices, data):
    grammar = compiled("choice", choices)
    for choice in choices:
        assert accepts(grammar, choice)
    other = data.draw(st.sampled_from(choices).flatmap(lambda text: st.text(max_size=2).map(text.__add__)))
    assert accepts(grammar, other) == (other in choices)
    assert begins(grammar, other) == any(choice.startswith(other) for choice in choices)


def test_choice_of_twenty_thousand_texts():
    choices = [f"word {number * 7919 % 100_003}" for number in range(20_000)]
    grammar = compiled("choice", [*choices, *choices])
    assert accepts(grammar, choices[123])
    assert not accepts(grammar, "word 100002x")


def test_regex_matches_the_whole_output():
    grammar = compiled("regex", r"[A-Z]\d{2}(-é)?")
    assert all(
        accepts(grammar, text) == bool(re.fullmatch(r"[A-Z]\d{2}(-é)?", text))
        for text in ("A12", "A12-é", "A1", "xA12")
    )
    assert not begins(grammar, "A123")


def test_finished_as_soon_as_only_the_end_can_follow():
    matcher = GrammarMatcher(compiled("regex", "ab"), BYTES)
    assert matcher.accept_tokens([ord("a") + 2, ord("b") + 2]) == 2
    assert matcher.finished()
    assert not matcher.advance(ord("b") + 2)
    assert matcher.advance(EOS)


@pytest.mark.parametrize("seed", range(12))
def test_random_characters_validate(seed):
    vocabulary = make_vocabulary(
        bytes(range(32, 127)), [b'"name', b'": ', b'", "', b"\xc3\xa9", b"leather", b"\\u", b"00"]
    )
    output, ended = generate(GrammarMatcher(compiled("json", CHARACTER), vocabulary), seed, most=120)
    assert ended
    value = json.loads(output)
    jsonschema.validate(value, CHARACTER)
    assert list(value) == ["name", "age", "armor"]


def test_json_object_is_any_object():
    grammar = compiled("json_object")
    for text in ("{}", '{"a": [1, {"b": null}], "c": "\\n"}', '{"a":1}'):
        assert accepts(grammar, text)
    for text in ("[]", "1", '{"a": 1,}', "{'a': 1}"):
        assert not accepts(grammar, text)


def test_white_space_options():
    schema = {"type": "array", "items": {"type": "null"}}
    assert accepts(compiled("json", schema), "[null, null]")
    assert not begins(compiled("json", schema), "[  ")
    compact = compiled("json", schema, any_whitespace=False)
    assert accepts(compact, "[null,null]")
    assert not begins(compact, "[null, ")
    wide = compiled("json", schema, whitespace_pattern=r"[ \n]{0,3}")
    assert accepts(wide, "[ \n null,   null]")
    with pytest.raises(GrammarError):
        compiled("json", schema, whitespace_pattern="x")


def test_objects_are_closed_or_in_any_order_on_demand():
    schema = {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "type": "object"}
    assert accepts(compiled("json", schema), '{"a": null, "c": 1}')
    assert not begins(compiled("json", schema, additional_properties=False), '{"c')
    assert not begins(compiled("json", schema), '{"b": null, "a"')
    assert accepts(compiled("json", schema, any_order=True), '{"b": null, "a": null}')


@pytest.mark.parametrize(
    ("kind", "text", "fault", "reason"),
    [
        ("regex", "(", "invalid", "position"),
        ("regex", "[^\\s\\S]", "unsatisfiable", "no text matches"),
        ("choice", "[]", "unsatisfiable", "empty"),
        ("choice", '["a", 1]', "invalid", "/1"),
        ("choice", '["a",', "invalid", "no valid JSON"),
        ("choice", '{"a": 1}', "invalid", "list of strings"),
        ("json", "{", "invalid", "no valid JSON"),
        ("json", "3", "invalid", "true or false"),
        ("json", "false", "unsatisfiable", "no JSON value"),
        ("json", '{"type": "string", "minLength": 5, "maxLength": 2}', "unsatisfiable", "no JSON value"),
        ("json", '{"$ref": "#/nowhere"}', "invalid", "ref"),
        ("json", "[" * 20_000, "invalid", ""),
        ("grammar", "", "invalid", "start"),
        ("grammar", "root ::= (", "invalid", "expected"),
        ("structural_tag", "{}", "invalid", "missing"),
        ("structural_tag", "[" * 20_000, "invalid", ""),
        ("regex", "a" * (MAX_TEXT_BYTES + 1), "too_complex", "longer than"),
    ],
)
def test_grammars_at_fault_are_refused_with_a_reason(kind, text, fault, reason):
    with pytest.raises(GrammarError, match=reason or None) as raised:
        compiled(kind, text)
    assert raised.value.fault in (fault, "too_complex")


def test_pattern_of_another_grammar_kind_does_not_reach_the_parser_of_regexes():
    with pytest.raises(GrammarError, match="line 1"):
        compiled("grammar", "[a-z]+")


def test_compilation_stops_when_its_time_is_over():
    budget = Budget()
    rules = "".join(f'r{number} ::= "a" r{number + 1}\n' for number in range(5000))
    with pytest.raises(BudgetExceededError), budget.limited(0):
        compile_grammar(GrammarSpec("grammar", f'root ::= r0\n{rules}r5000 ::= "b"'), budget)


def test_size_grows_with_what_is_visited():
    grammar = compiled("json", CHARACTER)
    before = grammar.num_bytes()
    random.seed(0)
    generate(GrammarMatcher(grammar, BYTES), 0, most=30)
    assert before < grammar.num_bytes() < 10_000_000
