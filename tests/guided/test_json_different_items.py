"""Items that must be different, under several array schemas at once: no dead end, however many have come."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zqserve.guided.errors import GrammarError
from zqserve.guided.grammar import CompiledGrammar
from zqserve.guided.json_schema import repetition as json_repetition
from zqserve.guided.matcher import GrammarMatcher

from .test_json_machine import BYTES, compiled, next_bytes

STRINGS = st.sampled_from(["", "a", "b", "ab", "ba", "aa", "bé", 'a"', "\n", "cc"])
OTHERS = st.sampled_from([None, True, 0, 1, 10, 12, -1, 1.5, [], ["a"], {"a": 1}])
PATTERNS = st.sampled_from(
    ["^[ab]{1,2}$", "^[a-c]{2}$", "^a?[bc]{0,2}$", "^(a|é){2}$", '^[a"\n]{2}$', "^(ab|b)[xy]$", "^a+$", "^[ab]é*$"]
)
ITEMS = st.one_of(
    st.fixed_dictionaries({"enum": st.lists(STRINGS | OTHERS, min_size=1, max_size=5)}),
    st.fixed_dictionaries({"enum": st.lists(STRINGS, min_size=2, max_size=6)}),
    st.fixed_dictionaries({"type": st.sampled_from(["string", ["string", "integer"]]), "pattern": PATTERNS}),
    st.fixed_dictionaries({"pattern": PATTERNS, "type": st.just(["string", "null"])}),
    st.just({"type": "string"}),
    st.just({"type": "string", "maxLength": 1, "pattern": "[a-d]"}),
    st.just({"type": "integer"}),
    st.just({}),
)
ARRAYS = st.fixed_dictionaries(
    {"items": ITEMS, "uniqueItems": st.sampled_from([True, True, False])},
    optional={"minItems": st.integers(0, 6), "maxItems": st.integers(2, 9)},
)
SCHEMAS = st.builds(
    lambda how, schemas: {"type": "array", how: schemas},
    st.sampled_from(["anyOf", "anyOf", "oneOf", "allOf"]),
    st.lists(ARRAYS, min_size=2, max_size=3),
)


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch):
    """Three strings are too many to be told apart one by one."""
    monkeypatch.setattr(json_repetition, "MAX_RARE_VALUES", 2)


def longest_array(grammar: CompiledGrammar, choice: random.Random, most: int = 150) -> bytes | None:
    """A random array that goes on as long as it may; behind `most` bytes it ends where it can."""
    matcher, text = GrammarMatcher(grammar, BYTES), b""
    while len(text) < 3 * most:
        allowed = next_bytes(matcher)
        if not allowed and matcher.accepting():
            return text
        assert allowed, f"dead end behind {text!r}"
        ends = [byte for byte in allowed if byte in b'"]']
        if len(text) > most and ends:
            allowed = ends
        elif choice.random() < 0.9:
            allowed = [byte for byte in allowed if byte not in b"] \\"] or allowed
        byte = choice.choice(allowed)
        assert matcher.advance(byte + 2)
        text += bytes([byte])
    return None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SCHEMAS, st.integers(0, 2**32))
def test_several_arrays_at_once_have_no_dead_end(schema: dict[str, Any], seed: int):
    try:
        grammar = compiled(schema)
    except GrammarError:
        return  # nothing satisfies it, or it is refused
    validator = jsonschema.Draft202012Validator(schema)
    for walk in range(2):
        text = longest_array(grammar, random.Random(seed + walk))
        assert text is None or validator.is_valid(json.loads(text)), text
