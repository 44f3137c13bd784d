"""Grammars as tables: wherever an output stands, the table allows the tokens that the matcher's mask allows."""

from __future__ import annotations

import json
import random
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.guided.hand_made import EOS, allowed_tokens, make_vocabulary
from tests.guided.schema_strategies import schemas
from tests.guided.test_regex import PATTERNS
from zqserve.guided.automata.finite_table import FiniteTable, FiniteTableBuilder, finite_table
from zqserve.guided.errors import BudgetExceededError, GrammarError
from zqserve.guided.grammar import CompiledGrammar, GrammarSpec, compile_grammar
from zqserve.guided.matcher import GrammarMatcher
from zqserve.kernels.token_mask import MAX_ENDINGS, AutomatonTable, TokenBytes, mask_logits

TEXTS = [b"ab", b"aab", b'{"a"', b'": ', b'", "', b"\xc3", b"\xa9", "é".encode(), b"true", b"10", b"}}", b"],", b'"b":']
VOCABULARY = make_vocabulary(bytes(range(32, 127)) + b"\n", TEXTS)
TOKENS = TokenBytes.of(VOCABULARY.tokens)
ENDINGS = torch.full((1, MAX_ENDINGS), -1, dtype=torch.int32)
ENDINGS[0, 0] = EOS
MAX_STATES = 2_000


def _allowed(table: FiniteTable, state: int) -> set[int]:
    """The tokens that a table allows."""
    logits = torch.zeros(1, len(VOCABULARY.tokens))
    automata = AutomatonTable(torch.from_numpy(table.cells), torch.from_numpy(table.accepting))
    mask_logits(logits, torch.tensor([state], dtype=torch.int32), automata, TOKENS, ENDINGS)
    return set(torch.isfinite(logits[0]).nonzero().flatten().tolist())


def _compare(grammar: CompiledGrammar, table: FiniteTable, seed: int, length: int = 30) -> None:
    """Along a random output."""
    matcher, choice, state = GrammarMatcher(grammar, VOCABULARY), random.Random(seed), 0
    for _ in range(length):
        allowed = allowed_tokens(matcher)
        assert _allowed(table, state) == allowed
        assert bool(table.accepting[state]) == matcher.accepting()
        token = choice.choice(sorted(allowed))
        if token == EOS:
            return
        assert matcher.advance(token)
        state = table.walk(state, VOCABULARY.tokens[token])


def _compiled(kind: Any, text: str) -> CompiledGrammar | None:
    try:
        return compile_grammar(GrammarSpec(kind, text, additional_properties=False))
    except GrammarError:
        return None


@settings(max_examples=100, deadline=None)
@given(PATTERNS, st.integers(0, 2**20))
def test_regexes(pattern: str, seed: int) -> None:
    grammar = _compiled("regex", pattern)
    table = grammar and finite_table(grammar.pushdown, MAX_STATES)
    if grammar is not None and table is not None:
        _compare(grammar, table, seed)


@settings(max_examples=100, deadline=None)
@given(schemas(), st.integers(0, 2**20))
def test_schemas(schema: Any, seed: int) -> None:
    grammar = _compiled("json", json.dumps(schema))
    table = grammar and finite_table(grammar.pushdown, MAX_STATES)
    if grammar is not None and table is not None:
        _compare(grammar, table, seed)


def test_schemas_without_recursion_have_a_table_and_others_have_none() -> None:
    line = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string", "maxLength": 9}}}
    order = {"type": "object", "properties": {"lines": {"type": "array", "items": line}, "to": {"enum": ["a", "b"]}}}
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}}
    found = [_compiled("json", json.dumps(schema)) for schema in (order, tree, True, {"uniqueItems": True})]
    found.append(compile_grammar(GrammarSpec("json", json.dumps({"additionalProperties": {"type": "null"}}))))
    tables = [grammar and finite_table(grammar.pushdown) for grammar in found]
    assert [table is not None for table in tables] == [True, False, False, False, False]
    assert found[0] is not None
    assert tables[0] is not None
    for seed in range(5):
        _compare(found[0], tables[0], seed, length=60)


def test_a_table_is_made_in_pieces() -> None:
    whole, pieces = (compile_grammar(GrammarSpec("regex", "(a|b){0,40}c.{3}")) for _ in range(2))
    builder, table, num_pieces = FiniteTableBuilder(pieces.pushdown, MAX_STATES), None, 0
    while table is None:
        num_pieces += 1
        pieces.pushdown.budget.allow(0.0)
        try:
            table = builder.build()
            assert table is not None
        except BudgetExceededError:
            pass
    expected = finite_table(whole.pushdown, MAX_STATES)
    assert expected is not None
    assert num_pieces > 1
    assert (table.cells == expected.cells).all()
    assert (table.accepting == expected.accepting).all()
