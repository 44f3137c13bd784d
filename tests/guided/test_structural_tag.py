"""Structural tags: free text, and tags that go on where a trigger is complete."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from zqserve.guided.errors import GrammarError
from zqserve.guided.grammar import CompiledGrammar, GrammarSpec, compile_grammar
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import EOS, allowed_tokens, make_vocabulary
from .test_context_free import accepts, begins

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}


def structural_tag(format: Any, **options: Any) -> CompiledGrammar:
    """A structural tag in the new form."""
    text = json.dumps({"type": "structural_tag", "format": format})
    return compile_grammar(GrammarSpec("structural_tag", text, **options))


def tag(begin: str, content: Any, end: str | list[str]) -> dict[str, Any]:
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def constant(value: str) -> dict[str, Any]:
    return {"type": "const_string", "value": value}


def value(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": schema}


ANY_TEXT = {"type": "any_text"}
TWO_TAGS = [tag("<f=a>", value(POINT), "</f>"), tag("<f=b>", constant("y"), "</f>")]


def triggered(**more: Any) -> dict[str, Any]:
    return {"type": "triggered_tags", "triggers": ["<f="], "tags": TWO_TAGS, **more}


def check(grammar: CompiledGrammar, taken: list[str], refused: list[str]) -> None:
    for text in taken:
        assert accepts(grammar, text), text
    for text in refused:
        assert not accepts(grammar, text), text


def test_free_text_goes_into_a_tag_at_its_trigger_and_out_of_it_at_its_end():
    grammar = structural_tag(triggered())
    check(
        grammar,
        ["", "hi", 'a<f=a>{"x": 1}</f>', '<f=a>{"x":1}</f>b<f=b>y</f><f=b>y</f>c', "<", "<f", "<<f=b>y</f><"],
        ["<f=", "<f=a>", '<f=a>{"x": 1}', '<f=a>{"x": "1"}</f>', "a<f=c>"],
    )
    assert not begins(grammar, "a<f=c")
    assert not begins(grammar, '<f=a>{"y"')


def test_old_form_is_the_same():
    document = {
        "type": "structural_tag",
        "structures": [{"begin": "<f=a>", "schema": POINT, "end": "</f>"}],
        "triggers": ["<f="],
    }
    grammar = compile_grammar(GrammarSpec("structural_tag", json.dumps(document)))
    check(grammar, ["hi", '<f=a>{"x": 1}</f>!'], ["<f=", "<f=b>", "<f=a>{}</f>"])


def test_at_least_one_begins_with_a_tag_and_stop_after_first_ends_with_it():
    required = structural_tag(triggered(at_least_one=True))
    check(required, ["<f=b>y</f>", "<f=b>y</f>a<f=b>y</f>"], ["", "a", "a<f=b>y</f>"])
    once = structural_tag(triggered(stop_after_first=True))
    check(once, ["", "a", "a<f=b>y</f>"], ["<f=b>y</f>a"])
    both = structural_tag(triggered(stop_after_first=True, at_least_one=True))
    check(both, ["<f=b>y</f>"], ["", "a<f=b>y</f>", "<f=b>y</f>a"])
    matcher = GrammarMatcher(both, make_vocabulary(b"<f=b>y</"))
    assert matcher.forced_bytes() == b"<f="


def test_a_trigger_counts_where_it_is_complete_for_the_first_time():
    tags = [tag("aba1", constant("x"), "z")]
    grammar = structural_tag({"type": "triggered_tags", "triggers": ["aba"], "tags": tags})
    check(grammar, ["aba1xz", "ab", "aaba1xzab", "abba"], ["ababa1xz", "aba", "aba2"])
    overlapping = {"type": "triggered_tags", "triggers": ["<f", "<fx", "f"], "tags": [tag("<fx>", constant("1"), ";")]}
    check(structural_tag(overlapping), ["<fx>1;", "a<fx>1;b"], ["<f", "f", "af"])


def test_excluded_strings_do_not_come_in_free_text_but_in_tags():
    tags = [tag("<f>", constant("no"), "</f>")]
    grammar = structural_tag({"type": "triggered_tags", "triggers": ["<f>"], "tags": tags, "excludes": ["no", "<g"]})
    check(grammar, ["n", "<f>no</f>n", "<"], ["no", "<f>no</f>no", "<g", "nnoo"])
    check(structural_tag(ANY_TEXT | {"excludes": ["ab", "é"]}), ["", "acb", "a\nb"], ["xab", "é"])
    check(structural_tag(ANY_TEXT | {"max_chars": 3}), ["", "éab", "abc"], ["abcd"])


def test_free_text_in_a_tag_goes_to_the_first_end():
    grammar = structural_tag(tag("<t>", ANY_TEXT, "</t>"))
    check(grammar, ["<t></t>", "<t>a<b></t>", "<t></</t>"], ["<t>", "<t>a</t>b</t>", "<t>a"])
    several = structural_tag(tag("<t>", ANY_TEXT, ["</t>", "</u>"]))
    check(several, ["<t>a</t>", "<t>b</u>"], ["<t>a</t></u>"])
    overlapping = structural_tag(tag("<t>", ANY_TEXT, "aba"))
    check(overlapping, ["<t>aba", "<t>bbaaba"], ["<t>ababa"])
    inner = structural_tag(tag("<t>", triggered(), "</t>"))
    check(inner, ["<t>a<f=b>y</f>b</t>", "<t></t>"], ["<t>a</t>b</t>", "<t>a<f=c></t>", "<t>a"])
    once = structural_tag(tag("<t>", triggered(stop_after_first=True), "</t>"))
    check(once, ["<t>a<f=b>y</f></t>", "<t>a</t>"], ["<t>a<f=b>y</f>b</t>"])
    bounded = structural_tag(tag("<t>", ANY_TEXT | {"max_chars": 2}, "</t>"))
    check(bounded, ["<t>ab</t>", "<t></t>"], ["<t>abc</t>"])


def test_sequences_choices_and_repetitions():
    check(structural_tag({"type": "sequence", "elements": [ANY_TEXT, constant("X")]}), ["X", "aXbX"], ["", "Xa"])
    check(structural_tag({"type": "or", "elements": [constant("a"), constant("ab")]}), ["a", "ab"], ["", "abb"])
    check(structural_tag({"type": "optional", "content": constant("a")}), ["", "a"], ["aa"])
    check(structural_tag({"type": "star", "content": constant("a")}), ["", "aaa"], ["b"])
    check(structural_tag({"type": "plus", "content": constant("a")}), ["a", "aaa"], [""])
    check(structural_tag({"type": "repeat", "content": constant("a"), "min": 1, "max": 2}), ["a", "aa"], ["", "aaa"])
    check(structural_tag({"type": "repeat", "content": constant("a"), "min": 2, "max": -1}), ["aa", "aaaa"], ["a"])
    check(structural_tag({"type": "regex", "pattern": "[0-9]{2}"}), ["12"], ["1", "123"])
    inner = {"type": "sequence", "elements": [ANY_TEXT, constant("X")]}
    check(structural_tag(tag("<t>", inner, "</t>")), ["<t>aX</t>"], ["<t>a</t>X</t>", "<t>a</t>"])


def test_grammars_inside_keep_their_rules_apart():
    gbnf = {"type": "grammar", "grammar": 'root ::= "(" root ")" | x\nx ::= "a"'}
    lark = {"type": "grammar", "grammar": 'start: x "!"\nx: "b"\n%ignore " "'}
    grammar = structural_tag({"type": "sequence", "elements": [gbnf, lark]})
    check(grammar, ["((a))b!", "a b !"], ["((a)b!", "( a)b!", "ba!"])


def test_tags_with_separator():
    tags = {"type": "tags_with_separator", "tags": [tag("<a>", constant("x"), "</a>"), tag("<b>", value({}), ";")]}
    check(
        structural_tag(tags | {"separator": ","}),
        ["", "<a>x</a>", "<a>x</a>,<b>1;,<a>x</a>"],
        ["<a>x</a>,", "<a>x</a><a>x</a>"],
    )
    check(structural_tag(tags | {"separator": ",", "at_least_one": True}), ["<a>x</a>"], [""])
    check(structural_tag(tags | {"separator": ",", "stop_after_first": True}), ["", "<b>{};"], ["<a>x</a>,<a>x</a>"])


def test_dispatch():
    rules = [["<f", constant("x")], ["<g", value(POINT)]]
    check(structural_tag({"type": "dispatch", "rules": rules}), ["a<fxb<fx", '<g{"x": 1}'], ["<fy", "<f"])
    check(structural_tag({"type": "dispatch", "rules": rules, "loop": False}), ["a<fx", "b"], ["<fxa"])


def test_json_values_one_of_several_and_next_to_text():
    schemas = [{"type": "integer"}, {"type": "string"}, POINT, {"type": "array", "items": {"type": "null"}}]
    grammar = structural_tag({"type": "or", "elements": [value(schema) for schema in schemas]})
    check(grammar, ["12", '"a"', '{"x": 1}', "[null, null]"], ["1.5", "{}", "true", "[1]"])
    number_then_digit = {"type": "sequence", "elements": [value({"type": "integer"}), constant("0")]}
    check(structural_tag(number_then_digit), ["10", "-100"], ["0", "1"])
    adjacent = {"type": "sequence", "elements": [value(POINT), value(POINT), value({"enum": [True, "a"]})]}
    check(
        structural_tag(adjacent),
        ['{"x": 1}{"x":2}"a"', '{"x":1}{"x":2}true'],
        ['{"x": 1}{"x": 2}', '{"x":1} {"x":2}"a"'],
    )
    text_or_value = structural_tag({"type": "or", "elements": [value(POINT), {"type": "regex", "pattern": "[{a].*"}]})
    check(text_or_value, ['{"x": 1}', "ab"], ["{", "{}"])


def test_options_reach_the_schemas_inside():
    closed = structural_tag(value({"properties": {"x": True}}), additional_properties=False)
    check(closed, ['{"x": 1}', "{}"], ['{"y": 1}'])
    compact = structural_tag(value(POINT), any_whitespace=False)
    check(compact, ['{"x":1}'], ['{"x": 1}'])


def test_random_tool_calls_validate_and_never_come_to_a_dead_end():
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", 1, None]}, "b": {"type": "array", "items": POINT, "maxItems": 2}},
        "required": ["a"],
        "additionalProperties": False,
    }
    grammar = structural_tag(triggered(tags=[tag("<f=a>", value(schema), "</f>"), TWO_TAGS[1]]))
    texts = [b"<f=", b"<f=a>", b'{"', b'"}</f>', b"}</f>", b'"a"', b"</f><f="]
    vocabulary = make_vocabulary(bytes(range(32, 127)), texts)
    calls = 0
    for seed in range(40):
        choose, matcher, text = random.Random(seed), GrammarMatcher(grammar, vocabulary), b""
        for _ in range(80):
            allowed = sorted(allowed_tokens(matcher))
            assert allowed, text
            token = choose.choice([*allowed, *allowed[-3:] * 20])
            assert matcher.advance(token)
            if token == EOS:
                break
            text += vocabulary.tokens[token]
        for piece in text.decode().split("<f=a>")[1:]:
            content, closed, _ = piece.partition("</f>")
            if closed:
                jsonschema.validate(json.loads(content), schema)
                calls += 1
    assert calls > 10


@pytest.mark.parametrize(
    ("document", "location", "reason"),
    [
        ([], "/", "an object expected"),
        ({"type": "structural_tag"}, "/", "triggers: this field is missing"),
        ({"format": constant("a"), "more": 1}, "/", "more: there is no such field"),
        ({"format": {"type": "what"}}, "/format", "no such format"),
        ({"format": {"type": "const_string"}}, "/format", "value: this field is missing"),
        ({"format": constant(1)}, "/format/value", "a string expected"),
        ({"format": {"type": "any_tokens"}}, "/format", "any_tokens: this format is not supported"),
        ({"format": ANY_TEXT | {"max_tokens": 3}}, "/format", "max_tokens: this field is not supported"),
        ({"format": value({"type": 3})}, "/format/json_schema", "type"),
        ({"format": value({"type": "string", "minLength": 2, "maxLength": 1})}, "/format/json_schema", "no JSON value"),
        ({"format": value(POINT) | {"style": "qwen_xml"}}, "/format", "only json"),
        ({"format": {"type": "sequence", "elements": []}}, "/format/elements", "the list is empty"),
        ({"format": {"type": "or", "elements": [ANY_TEXT, 1]}}, "/format/elements/1", "an object expected"),
        ({"format": {"type": "regex", "pattern": "a("}}, "/format/pattern, position 1", "closed"),
        ({"format": {"type": "grammar", "grammar": "root ::= x"}}, "/format/grammar, line 1, column 10", "no rule"),
        ({"format": tag("a", ANY_TEXT, [])}, "/format/end", "a string expected"),
        ({"format": tag({"type": "token", "token": 1}, ANY_TEXT, "b")}, "/format/begin", "tokens are not supported"),
        ({"format": triggered(triggers=["<g"])}, "/format/tags/0", "no trigger is the beginning"),
        ({"format": triggered(triggers=[])}, "/format/triggers", "the list is empty"),
        ({"format": triggered(triggers=[""])}, "/format/triggers/0", "not empty"),
        ({"format": triggered(tags=[])}, "/format/tags", "the list is empty"),
        ({"format": {"type": "repeat", "min": 3, "max": 2, "content": ANY_TEXT}}, "/format", "min <= max"),
        ({"structures": [{"begin": "a", "schema": POINT}], "triggers": ["a"]}, "/structures/0", "end: this field"),
    ],
)
def test_errors_name_the_pointer_and_the_reason(document, location, reason):
    with pytest.raises(GrammarError, match=reason) as raised:
        compile_grammar(GrammarSpec("structural_tag", json.dumps(document)))
    assert raised.value.location == location


def test_formats_nested_too_deeply_are_refused():
    format: Any = constant("a")
    for _ in range(60):
        format = {"type": "optional", "content": format}
    with pytest.raises(GrammarError, match="nested deeper") as raised:
        structural_tag(format)
    assert raised.value.fault == "too_complex"
