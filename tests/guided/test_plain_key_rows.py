"""Keys of objects in which any name may come: declared ones are known however they are spelled."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher

BYTES = Vocabulary([None, b"", *(bytes([byte]) for byte in range(256))], [0])

FEW = ["a", "ab", "abc", "b"]
SOME = ["name", "nation", "age", "$id", "x-y", "last name", "email", "zip"]
MANY = [f"{first}{middle}{number}" for first in "abcdefghijklmnopqrst" for middle in "xyz" for number in range(10)]


def _accepts(names: list[str], text: str) -> bool:
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
    matcher = GrammarMatcher(compile_grammar(GrammarSpec("json", json.dumps(schema), any_order=True)), BYTES)
    return all(matcher.advance(byte + 2) for byte in text.encode()) and matcher.accepting()


def _spelled(name: str, escaped: int, upper: bool) -> str:
    """A name in which the characters at the bits of `escaped` are written with a `u` and four digits."""
    form = "\\u{:04X}" if upper else "\\u{:04x}"
    return "".join(form.format(ord(c)) if escaped >> place & 1 else c for place, c in enumerate(name))


@pytest.mark.parametrize("names", [FEW, SOME, MANY], ids=["few", "some", "many"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_declared_name_has_the_declared_value_in_every_spelling(names, data):
    name = data.draw(st.sampled_from(names))
    key = _spelled(name, data.draw(st.integers(0, 255)), data.draw(st.booleans()))
    assert _accepts(names, f'{{"{key}": 1}}')
    assert not _accepts(names, f'{{"{key}": "text"}}')


@pytest.mark.parametrize("names", [FEW, SOME, MANY], ids=["few", "some", "many"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_other_name_has_any_value(names, data):
    name = data.draw(st.sampled_from(names))
    ending = data.draw(st.text(st.sampled_from("abxyz01é"), max_size=3))
    name = name[: data.draw(st.integers(0, len(name)))] + ending
    if name in names:
        name += "!"
    key = _spelled(name, data.draw(st.integers(0, 255)), data.draw(st.booleans()))
    assert _accepts(names, f'{{"{key}": "text", "\\n{key}": 1}}')
