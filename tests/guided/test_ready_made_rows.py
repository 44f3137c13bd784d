"""Rows that are built once for all grammars do what the automata they stand for do."""

import json
import pickle
import random
from decimal import Decimal

import pytest

from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.guided.languages.language import JointAutomaton, Language
from zqserve.guided.languages.number_blocks import number_block
from zqserve.guided.languages.number_spelling import at_least, integer, number
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher

VOCABULARY = Vocabulary([*(bytes((byte,)) for byte in range(256)), b'name"', b'":', b'"a', None], [259])


def accepts(schema, text, **options):
    matcher = GrammarMatcher(compile_grammar(GrammarSpec("json", json.dumps(schema), **options)), VOCABULARY)
    for byte in text.encode():
        allowed = bool(matcher.mask()[byte >> 5] >> (byte & 31) & 1)
        assert matcher.advance(byte) == allowed
        if not allowed:
            return False
    return matcher.accepting()


@pytest.mark.parametrize(
    "languages",
    [(number(),), (integer(),), (integer(), Language.nothing(), number()), (number(), number(), integer())],
)
def test_a_number_block_is_the_automaton_of_its_languages(languages):
    block, joint = number_block(languages), JointAutomaton(languages)
    assert block is not None
    assert len(block.cells) < 80
    rng = random.Random(7)
    for _ in range(5000):
        text = "".join(rng.choice("0123456789-.eE+00511.e") for _ in range(rng.randint(1, 9)))
        row, state = 0, joint.start
        for character in text:
            row = int(block.cells[row, ord(character)]) if row >= 0 else row
            arcs = () if state is None else joint.arcs(state)
            state = next((target for low, high, target in arcs if low <= ord(character) <= high), None)
            assert (row < 0) == (state is None)
        assert state is None or max(0, block.finals[row]) == joint.accepted(state)


def test_other_numbers_have_no_block():
    assert number_block((at_least(Decimal(3), False),)) is None
    assert number_block((Language.nothing(),)) is None


@pytest.mark.parametrize("any_order", [False, True])
def test_a_declared_name_beside_free_ones_comes_once_and_in_order(any_order):
    schema = {"type": "object", "properties": {"name": {"type": "null"}, "na": {"type": "null"}, "x": False}}
    assert accepts(schema, '{"name":null,"na":null}', any_order=any_order)
    assert accepts(schema, '{"na":null,"name":null}', any_order=any_order) == any_order
    assert not accepts(schema, '{"name":null,"name":null}', any_order=any_order)
    assert not accepts(schema, '{"x":null}', any_order=any_order)
    assert accepts(schema, '{"name":null,"names":1,"nam":2,"xx":3}', any_order=any_order)
    assert not accepts(schema, r'{"na":null,"n\u0061":null}', any_order=any_order)
    assert not accepts(schema, '{"name":1}', any_order=any_order)


@pytest.mark.parametrize("text", ["a", "", "red and blue", "ä", 'q"q', "a/b"])
def test_listed_strings(text):
    schema = {"enum": ["a", "", "red and blue", "ä", 'q"q', "a/b", "ab"]}
    assert accepts(schema, json.dumps(text))
    assert accepts(schema, json.dumps(text, ensure_ascii=False))
    assert not accepts(schema, json.dumps(text + "c"))
    assert accepts({"enum": ["x", text, text + "y"]}, json.dumps(text))


def test_subschemas_that_only_name_a_type_are_one():
    schema = {
        "properties": {"a": {"type": "string", "title": "A"}, "b": {"type": "string"}, "c": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    }
    assert accepts(schema, '{"a":"1","c":1}')
    assert not accepts(schema, '{"a":"1","b":"1"}')
    assert not accepts({"oneOf": [{"type": "string"}, {"type": "string", "title": "A"}, {"type": "null"}]}, '"a"')


def test_a_grammar_with_ready_made_rows_can_be_pickled():
    schema = {"type": "array", "items": {"type": ["integer", "string"], "pattern": "^[a-f]+$"}}
    grammar = compile_grammar(GrammarSpec("json", json.dumps(schema)))
    copy = pickle.loads(pickle.dumps(grammar))
    for each in (grammar, copy):
        matcher = GrammarMatcher(each, VOCABULARY)
        assert all(matcher.advance(byte) for byte in rb'[12,"ab\u0063",-0.0]')
        assert matcher.accepting()
