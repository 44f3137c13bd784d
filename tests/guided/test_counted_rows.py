"""Characters are counted behind any pattern: what comes out is as long as it may be, and there is no dead end."""

import json
import random
import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.errors import GrammarError
from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.guided.languages import text_lowering
from zqserve.guided.languages.language import JointAutomaton, Language
from zqserve.guided.languages.text_lowering import JsonStringRows, Utf8Rows
from zqserve.guided.masks import slices
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import EOS, HandMade, allowed_tokens, make_vocabulary, tokens_taken
from .test_regex import PATTERNS

TEXTS = ["aa", "ab", "a b", "  ", "aaaa", "éé", 'a"', "\\n", "\\u00", "e9", "\\ud83d", "1a1"]
VOCABULARY = make_vocabulary(
    bytes(range(256)), [*(text.encode() for text in TEXTS), b"\xa9a", b"a\xc3", b"b\xf0\x9f", b"aa\xf0"]
)


@pytest.fixture(autouse=True)
def _count_everything(monkeypatch):
    """Even few characters are counted, and slices are used at once."""
    monkeypatch.setattr(text_lowering, "MIN_COUNTED", 0)
    monkeypatch.setattr(slices, "USES_BEFORE", 0)


def _walk(grammar: HandMade, seed: int, longest: int) -> bytes | None:
    """A random output of a grammar, each mask compared with the truth; None: it did not come to its end."""
    choice, matcher, output = random.Random(seed), GrammarMatcher(grammar, VOCABULARY), b""
    for _ in range(longest):
        allowed = allowed_tokens(matcher)
        assert allowed == tokens_taken(matcher)
        assert allowed, f"dead end behind {output!r}"
        token = EOS if EOS in allowed and len(output) > longest // 2 else choice.choice(sorted(allowed))
        assert matcher.advance(token)
        if token == EOS:
            return output
        output += matcher.vocabulary.tokens[token]
    return None


def _language(pattern: str, least: int, most: int) -> Language:
    try:
        language = Language.regex(pattern, "python") & Language.length(least, most)
    except GrammarError:
        assume(False)
    assume(not language.is_empty())
    return language


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.integers(0, 3), st.integers(0, 8), st.integers())
def test_a_pattern_of_bounded_length_is_matched_and_never_longer(pattern, least, more, seed):
    language = _language(pattern, least, least + more)
    pushdown = Pushdown()
    pushdown.start_row = Utf8Rows(pushdown, JointAutomaton((language,))).start
    output = _walk(HandMade(pushdown), seed, 40)
    if output is not None:
        text = output.decode()
        assert re.fullmatch(pattern, text)
        assert least <= len(text) <= least + more


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.integers(0, 3), st.integers(0, 8), st.integers())
@example(r"(?:\W(?:.)*?)*", 0, 2, 20)  # behind the first character all texts match
def test_so_it_is_inside_of_a_json_string_with_its_escapes(pattern, least, more, seed):
    language = _language(pattern, least, least + more)
    pushdown = Pushdown()
    pushdown.start_row = JsonStringRows(pushdown, JointAutomaton((language,))).start
    output = _walk(HandMade(pushdown), seed, 60)
    if output is not None:
        text = json.loads(b'"' + output)
        assert re.fullmatch(pattern, text)
        assert least <= len(text) <= least + more


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.integers(0, 8), st.lists(st.text("abc1é \n_😀", max_size=9), min_size=3, max_size=8))
def test_every_text_that_matches_and_is_short_enough_is_taken(pattern, most, texts):
    language = _language(pattern, 0, most)
    pushdown = Pushdown()
    start = Utf8Rows(pushdown, JointAutomaton((language,))).start
    for text in texts:
        row = start
        for byte in text.encode():
            row = pushdown.cell(row, byte) if row >= 0 else row
        accepted = row >= 0 and pushdown.final(row) >= 0
        assert accepted == bool(re.fullmatch(pattern, text) and len(text) <= most)


def test_a_long_bound_on_a_pattern_takes_no_rows_for_the_lengths():
    pattern = r"^$|(^(?:\S+\s+){0,99}\S+$)"
    schema = {"type": "string", "minLength": 1, "maxLength": 5000, "pattern": pattern}
    grammar = compile_grammar(GrammarSpec("json", json.dumps(schema)))
    matcher = GrammarMatcher(grammar, Vocabulary([*(bytes((byte,)) for byte in range(256)), None], [256]))
    for byte in b'"' + 99 * (49 * b"a" + b" ") + 49 * b"a":
        assert matcher.mask()[byte >> 5] >> (byte & 31) & 1
        assert matcher.advance(byte)
    matcher.rollback(1)
    assert grammar.pushdown.tables.row_line.size < 20_000
    assert grammar.pushdown.tables.num_lines < 3000
    for number, byte in enumerate(49 * b"a"):
        assert matcher.advance(byte) == (number < 2), "5000 characters are enough"
    assert np.flatnonzero(np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")).tolist() == [ord('"')]
