"""The matcher: masks that say exactly what `advance` takes, in texts that never come to a dead end."""

from __future__ import annotations

import itertools
import json
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.budget import Budget
from zqserve.guided.errors import BudgetExceededError
from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.guided.masks import grammar_cache, slices
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import (
    EOS,
    Automaton,
    Counted,
    HandMade,
    Json,
    Resembling,
    allowed_tokens,
    generate,
    has_duplicate_keys,
    make_vocabulary,
    tokens_taken,
)

JSON_TEXTS = [
    *(
        b'"a":',
        b'":',
        b'","',
        b'"a"',
        b'a":1,"',
        b'"b',
        b"[[",
        b"]]",
        b"],[",
        b"},{",
        b'{"',
        b'"}',
        b"12",
        b", ",
        b"1,",
    ),
    *(
        b'{"a":1,"a":',
        b'{"a":1,"b":2}',
        b'"a","a"',
        b"1,1",
        b"1, 2",
        b'"},"',
        b"ab",
        b"abc",
        b'c":[',
        b"[]",
        b"{}",
        b"}}",
    ),
]
JSON = make_vocabulary(b'0127"[]{},: abc~\xc3\xa9', [*JSON_TEXTS, b"ab", b"1,"])

automata = st.builds(
    Automaton,
    st.lists(st.dictionaries(st.sampled_from(b"abc\xc3\xa9"), st.integers(0, 5), max_size=5), min_size=6, max_size=6),
    st.sets(st.integers(0, 5), min_size=1),
).filter(lambda automaton: 0 in automaton.alive)


@settings(deadline=None)
@given(automata, st.lists(st.text("abcé", min_size=1, max_size=5).map(str.encode), max_size=30), st.integers())
def test_mask_of_an_automaton_is_what_advance_takes_and_outputs_are_its_language(automaton, texts, seed):
    matcher = GrammarMatcher(automaton.grammar(), make_vocabulary(b"abc\xc3\xa9", texts))
    output, ended = generate(matcher, seed, most=30)
    assert automaton.accepts(output) or not ended
    assert matcher.accepting() == (ended or automaton.accepts(output))


@pytest.mark.parametrize("unique", [False, True])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers())
def test_random_json_has_no_dead_end_and_no_key_or_item_twice(unique, seed):
    output, ended = generate(GrammarMatcher(Json(unique=unique).grammar(), JSON), seed, most=60)
    if ended:
        assert not has_duplicate_keys(output)
        if unique:
            _assert_no_item_twice(output)


@settings(deadline=None, max_examples=40)
@given(st.integers())
def test_names_of_a_closed_object_come_once_and_in_any_order(seed):
    names = (b"a", b"ab", b"abc", b"b", b"ba")
    output, ended = generate(GrammarMatcher(Json(names=names).grammar(), JSON), seed, most=60)
    if ended:
        assert not has_duplicate_keys(output)


def test_matchers_of_one_grammar_share_what_they_saw_and_stay_right():
    """Masks found again by the top of the stack equal those made for it."""
    grammar = Json(unique=True).grammar()
    for seed in range(40):
        generate(GrammarMatcher(grammar, JSON), seed, most=60)


def _take(matcher: GrammarMatcher, text: str) -> None:
    for byte in text.encode():
        token = matcher.vocabulary.tokens.index(bytes([byte]))
        assert matcher.advance(token), (text, chr(byte))


def _texts_allowed(matcher: GrammarMatcher) -> set[bytes]:
    return {matcher.vocabulary.tokens[token] or b"<end>" for token in allowed_tokens(matcher)}


def test_a_key_may_not_come_twice_even_inside_a_token():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    _take(matcher, '{"a":1,')
    assert b'"a":' not in _texts_allowed(matcher)
    _take(matcher, '"a')
    assert b'":' not in _texts_allowed(matcher)
    assert b"b" in _texts_allowed(matcher)
    _take(matcher, 'b":{')
    assert b'"a":' in _texts_allowed(matcher)  # another object
    _take(matcher, "}},"[:1])
    assert b'"a":' not in _texts_allowed(matcher)
    fresh = GrammarMatcher(Json().grammar(), JSON)
    assert b'{"a":1,"b":2}' in _texts_allowed(fresh)
    assert b'{"a":1,"a":' not in _texts_allowed(fresh)


@settings(deadline=None)
@given(st.integers(), st.integers(0, 6), st.none() | st.integers(0, 9))
def test_counted_text_has_as_many_characters_as_it_may(seed, least, most):
    most = None if most is None else max(least, most)
    texts = [
        b"aaa",
        b"aaaaaa",
        b'aa"',
        b'a\\na"',
        b"\\n\\n",
        b'"a',
        b'"aaaa"',
        b'"aaaaaaaa"',
        b"\xc3\xa9\xc3",
        b"\xa9a",
    ]
    vocabulary = make_vocabulary(b'a"\\n~\xc3\xa9', texts)
    output, ended = generate(GrammarMatcher(Counted(least, most).grammar(), vocabulary), seed, most=30)
    if ended:
        assert least <= len(json.loads(output)) <= (len(output) if most is None else most)


def test_counting_a_hundred_thousand_characters_makes_no_rows():
    grammar = Counted(0, 100_000).grammar()
    matcher = GrammarMatcher(grammar, make_vocabulary(b'a"', [b"aaaa"]))
    _take(matcher, '"' + 50 * "a")
    matcher.mask()
    assert grammar.pushdown.tables.row_line.size < 100


@pytest.fixture
def large_vocabulary(monkeypatch):
    """All texts of up to four of some characters, in which slices and their pieces are used at once."""
    monkeypatch.setattr(slices, "USES_BEFORE", 0)
    characters = ["a", "b", "c", "d", '"', "\\", "n", ":", "é", "7"]
    texts = ["".join(some).encode() for length in (2, 3, 4) for some in itertools.product(characters, repeat=length)]
    return make_vocabulary(b'abcn":\\7{}[],\xc3\xa9', texts + [text + b"\xc3" for text in texts[:500]])


@pytest.mark.parametrize(
    "owner",
    [
        *(Counted(0, None), Counted(2, None), Counted(0, 3), Counted(3, 9), Counted(7, 7), Json()),
        *(Json(names=(b"a", b"abc", b"nab")), Resembling((b"ab", b"abc", b"nn"))),
    ],
    ids=repr,
)
def test_ready_made_parts_of_masks_change_nothing(owner, large_vocabulary):
    grammar = owner.grammar()
    for seed in range(3):
        generate(GrammarMatcher(grammar, large_vocabulary), seed, most=10)
    assert large_vocabulary.slices.num_pieces or isinstance(owner, Json)


def test_the_end_is_allowed_exactly_where_the_text_may_end():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    assert EOS not in allowed_tokens(matcher)
    assert not matcher.advance(EOS)
    _take(matcher, "12")
    assert EOS in allowed_tokens(matcher)
    assert not matcher.finished()
    assert matcher.advance(EOS)
    assert matcher.finished()
    assert allowed_tokens(matcher) == {EOS}


def test_finished_once_nothing_but_the_end_may_follow():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    _take(matcher, "[1")
    assert not matcher.finished()
    _take(matcher, "]")
    assert matcher.finished()
    assert allowed_tokens(matcher) == {EOS}


def test_special_tokens_and_ids_beyond_the_vocabulary_are_never_taken():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    assert not matcher.advance(1)
    assert not matcher.advance(len(JSON.tokens))
    assert not matcher.advance(-1)


def test_tokens_of_equal_bytes_are_all_allowed():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    _take(matcher, '"')
    same = {token for token, text in enumerate(JSON.tokens) if text == b"ab"}
    assert len(same) == 2
    assert same <= allowed_tokens(matcher)


@settings(deadline=None)
@given(st.integers(), st.integers(0, 20))
def test_rollback_leads_back_to_the_same_masks(seed, count):
    grammar = Json(unique=True).grammar()
    matcher, choice = GrammarMatcher(grammar, JSON), random.Random(seed)
    masks = [allowed_tokens(matcher)]
    for _ in range(20):
        matcher.advance(choice.choice(sorted(masks[-1])))
        masks.append(allowed_tokens(matcher))
    matcher.rollback(count)
    assert allowed_tokens(matcher) == masks[-1 - count] == tokens_taken(matcher)
    with pytest.raises(ValueError, match="taken back"):
        matcher.rollback(21 - count)


def test_replayed_tokens_lead_to_the_same_place():
    grammar = Json().grammar()
    matcher, choice, tokens = GrammarMatcher(grammar, JSON), random.Random(7), []
    for _ in range(30):
        tokens.append(choice.choice(sorted(allowed_tokens(matcher) - {EOS})) if not matcher.finished() else EOS)
        matcher.advance(tokens[-1])
    other = GrammarMatcher(pickle.loads(pickle.dumps(grammar)), JSON)
    assert other.accept_tokens(tokens) == len(tokens)
    assert np.array_equal(other.mask(), matcher.mask())
    assert GrammarMatcher(grammar, JSON).accept_tokens([*JSON.eos_token_ids, 5]) == 0


def test_forced_bytes_are_all_that_may_come_and_stop_at_a_choice():
    names = (b"name", b"nation")
    matcher = GrammarMatcher(Json(names=names).grammar(), make_vocabulary(b'{}":,0123456789 nameationx[]'))
    assert matcher.forced_bytes() == b""
    _take(matcher, '{"')
    assert matcher.forced_bytes() == b"na"
    _take(matcher, "nam")
    assert matcher.forced_bytes() == b'e":'
    _take(matcher, 'e":1')
    assert matcher.forced_bytes() == b""
    _take(matcher, ",")
    assert matcher.forced_bytes() == b'"nation":'


@pytest.mark.parametrize("settled", [False, True])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_known_steps_are_those_of_advance_and_lead_to_a_choice(settled, seed):
    vocabulary = make_vocabulary(b'{}[]":,ab1 ', JSON_TEXTS)
    grammar = Json().grammar()
    rng = random.Random(seed)
    for _ in range(3):
        slow, quick = GrammarMatcher(grammar, vocabulary), GrammarMatcher(grammar, vocabulary)
        for _ in range(40):
            known = quick.known_mask()
            assert known is None or known.tolist() == slow.mask().tolist()
            token = rng.randrange(len(vocabulary.tokens))
            is_taken = slow.advance(token)
            if quick.advance_known(token, settled=settled):
                assert is_taken
                assert not slow.finished()
                assert not (settled and slow.forced_bytes())
            else:
                assert quick.advance(token) == is_taken
            assert quick.mask().tolist() == slow.mask().tolist()
            if is_taken and slow.finished():
                break
            quick.finished()
            if not quick.forced_bytes():
                quick.settle()


def test_known_steps_of_free_text_are_those_of_advance():
    tokens = [bytes((byte,)) for byte in range(256)] + [bytes((65 + a, 97 + b)) for a in range(26) for b in range(26)]
    vocabulary = Vocabulary(tokens, ())
    grammar = compile_grammar(GrammarSpec("regex", r"[A-Za-z]*;?"))
    known, slow = GrammarMatcher(grammar, vocabulary), GrammarMatcher(grammar, vocabulary)
    known.mask()
    known.accepting()
    rng = random.Random(1)
    num_taken = 0
    for _ in range(1500):
        token = rng.randrange(len(tokens))
        is_taken = slow.advance(token)
        num_taken += is_taken
        assert known.advance_known(token, settled=False) == (is_taken and not slow.finished())
        if is_taken and slow.finished():
            slow.rollback(1)
        assert known.mask().tolist() == slow.mask().tolist()
    assert known.num_tokens > 1000
    known.rollback(1000)
    assert known.accepting()


def test_a_step_is_known_once_it_was_made():
    vocabulary = make_vocabulary(b"ab")
    grammar = Automaton([{97: 1, 98: 1}, {97: 0, 98: 0}], {0}).grammar()
    token = vocabulary.tokens.index(b"a")
    first = GrammarMatcher(grammar, vocabulary)
    assert not first.advance_known(token, settled=True)
    assert first.advance(token)
    assert first.known_mask() is None
    first.mask()
    first.accepting()
    first.forced_bytes()
    first.settle()
    second = GrammarMatcher(grammar, vocabulary)
    assert second.advance_known(token, settled=True)
    assert second.known_mask() is not None
    second.rollback(1)
    assert second.mask().tolist() == GrammarMatcher(grammar, vocabulary).mask().tolist()


def test_the_mask_fills_words_of_either_sign_and_clears_what_lies_behind():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    out = np.full(JSON.num_words + 2, -1, np.int32)
    matcher.fill_mask(out)
    assert np.array_equal(out[: JSON.num_words].view(np.uint32), matcher.mask())
    assert not out[JSON.num_words :].any()
    with pytest.raises(ValueError, match="read-only"):
        matcher.mask()[0] = 0


def test_deep_nesting_costs_no_recursion():
    matcher = GrammarMatcher(Json().grammar(), JSON)
    opening, closing = JSON.tokens.index(b"["), JSON.tokens.index(b"]")
    for _ in range(20_000):
        assert matcher.advance(opening)
    assert b"]]" in _texts_allowed(matcher)
    for _ in range(20_000):
        assert matcher.advance(closing)
    assert matcher.finished()
    del matcher


def test_forgetting_and_dropped_masks_change_nothing(monkeypatch):
    monkeypatch.setattr(grammar_cache, "MAX_CONFIGURATIONS", 20)
    monkeypatch.setattr(grammar_cache, "MASK_BYTES", 20 * 4 * JSON.num_words)
    grammar = Json(unique=True).grammar()
    for seed in range(30):
        generate(GrammarMatcher(grammar, JSON), seed, most=40)
    cache = grammar_cache.GrammarCache.of(grammar.pushdown, JSON)
    assert cache.mask_bytes <= 20 * 4 * JSON.num_words


class _Spender:
    """A grammar whose rows are expensive: each costs a thousand units."""

    def expand_row(self, pushdown: Pushdown, row: int, key: int) -> None:
        pushdown.budget.spend(1000)
        pushdown.set_arcs(row, [(ord("a"), ord("a"), pushdown.new_row(self, key + 1))] if key < 3 else [])
        pushdown.set_final(row, 0)

    def resume(self, pushdown: Pushdown, ret: int, key: int, result: int) -> int:
        raise AssertionError


def test_work_cut_short_by_the_budget_goes_on_at_the_next_call():
    budget = Budget()
    pushdown = Pushdown(budget)
    pushdown.start_row = pushdown.new_row(_Spender(), 0)
    matcher = GrammarMatcher(HandMade(pushdown), make_vocabulary(b"a", [b"aa", b"aaa", b"aaaa"]))
    with budget.limited(seconds=-1.0), pytest.raises(BudgetExceededError):
        matcher.mask()
    assert _texts_allowed(matcher) == {b"a", b"aa", b"aaa", b"<end>"}


def _assert_no_item_twice(text: bytes) -> None:
    def look(value: object) -> None:
        if isinstance(value, list):
            # Compared by spelling: the order of keys counts.
            assert len({json.dumps(item) for item in value}) == len(value)
        if isinstance(value, (list, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                look(item)

    look(json.loads(text))
