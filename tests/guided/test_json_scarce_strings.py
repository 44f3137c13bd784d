"""Strings that must be different and could run out: all of them may come, each once, and no beginning is a dead end."""

from __future__ import annotations

import json
import random
import re

import pytest

from .test_json_machine import accepts, compiled, random_text


@pytest.mark.parametrize(
    ("pattern", "number"), [("^[a-g]{3}$", 343), ("^[p-z\u00e9]{1,3}$", 400), ("^([a-d]{2}|x[a-z]{1,2})$", 400)]
)
def test_different_strings_out_of_finitely_many_may_come_as_long_as_there_are_more(pattern, number):
    items = {"type": "string", "pattern": pattern}
    grammar = compiled({"type": "array", "uniqueItems": True, "items": items, "minItems": number})
    for seed in range(2):
        text = random_text(grammar, random.Random(seed), free=10**6, most=20_000)
        assert text is not None
        values = json.loads(text)
        assert number <= len(set(values)) == len(values)
        assert all(re.search(pattern, value) for value in values)


def test_different_names_of_a_bounded_length():
    name = {"type": "string", "maxLength": 39, "pattern": "^[a-zA-Z0-9](-?[a-zA-Z0-9])*$"}
    grammar = compiled({"oneOf": [name, {"type": "array", "uniqueItems": True, "items": name, "minItems": 1}]})
    assert accepts(grammar, f'["{"x" * 39}", "{"x" * 38}", "x", "{"x" * 38}y"]')
    assert not accepts(grammar, '["x", "y", "x"]')
    assert not accepts(grammar, f'["{"x" * 40}"]')
