"""Languages: the algebra of sets, exact emptiness, and automata without dead ends."""

import pickle
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.budget import Budget
from zqserve.guided.errors import BudgetExceededError
from zqserve.guided.languages.char_set import CharSet
from zqserve.guided.languages.language import JointAutomaton, Language

ALPHABET = "ab\n"
TEXTS = ["".join(letters) for length in range(5) for letters in product(ALPHABET, repeat=length)]

LEAVES = st.one_of(
    st.sets(st.text(ALPHABET, max_size=3), max_size=4).map(Language.literals),
    st.sampled_from(["a", "b", "ab", "ab\n"]).map(CharSet.of).map(Language.chars),
    st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(0, 4))).map(lambda bounds: Language.length(*bounds)),
    st.sampled_from(["a*", "(a|b)*a", "a{2}", "(ab){1,2}", ".*", "(a|aa){1,3}b"]).map(
        lambda pattern: Language.regex(pattern, "python")
    ),
)
LANGUAGES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] - pair[1]),
        st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
        st.tuples(inner, st.integers(0, 2), st.sampled_from([None, 2, 3])).map(lambda args: args[0].repeat(*args[1:])),
        inner.map(lambda language: ~language),
    ),
    max_leaves=5,
)


def accepted_texts(language: Language) -> set[str]:
    return {text for text in TEXTS if language.contains(text)}


@settings(max_examples=150, deadline=None)
@given(LANGUAGES, LANGUAGES)
def test_operators_are_those_of_sets(one, other):
    mine, theirs = accepted_texts(one), accepted_texts(other)
    assert accepted_texts(one & other) == mine & theirs
    assert accepted_texts(one | other) == mine | theirs
    assert accepted_texts(one - other) == mine - theirs
    assert accepted_texts(~one) == set(TEXTS) - mine


@settings(max_examples=100, deadline=None)
@given(LANGUAGES, LANGUAGES)
def test_concatenation_and_repetition_split_the_text(one, other):
    joined, twice = accepted_texts(one + other), accepted_texts(one.repeat(2, 2))
    for text in TEXTS:
        cuts = [(text[:cut], text[cut:]) for cut in range(len(text) + 1)]
        assert (text in joined) == any(one.contains(left) and other.contains(right) for left, right in cuts)
        assert (text in twice) == any(one.contains(left) and one.contains(right) for left, right in cuts)


@settings(max_examples=150, deadline=None)
@given(LANGUAGES)
def test_shortest_is_in_the_language_and_no_shorter_text_is(language):
    shortest = language.shortest()
    assert language.is_empty() == (shortest is None)
    if shortest is None:
        assert not accepted_texts(language)
    else:
        assert language.contains(shortest)
        assert not any(language.contains(text) for text in TEXTS if len(text) < len(shortest))


@settings(max_examples=150, deadline=None)
@given(st.lists(LANGUAGES, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_joint_automaton_tells_each_language_and_has_no_dead_end(languages, choose):
    joint = JointAutomaton(tuple(languages))
    if joint.start is None:
        assert all(language.is_empty() for language in languages)
        return
    for _ in range(5):
        state, text = joint.start, ""
        for _ in range(8):
            expected = sum(1 << index for index, language in enumerate(languages) if language.contains(text))
            assert joint.accepted(state) == expected
            arcs = joint.arcs(state)
            assert list(arcs) == sorted(arcs)
            assert all(high < arcs[index + 1][0] for index, (_, high, _) in enumerate(arcs[:-1]))
            if not arcs:
                assert expected
                break
            low, high, state = choose.choice(arcs)
            text += chr(choose.choice((low, high)))
        prefix = Language.literal(text) + Language.everything()
        assert any(not (language & prefix).is_empty() for language in languages)


def test_characters_without_an_arc_cannot_be_completed():
    joint = JointAutomaton((Language.regex("[a-c]{2}", "python") & Language.regex("[b-z]*", "python"),))
    assert joint.start is not None
    assert [(chr(low), chr(high)) for low, high, _ in joint.arcs(joint.start)] == [("b", "c")]


def test_literals_keep_their_bits_when_they_run_together():
    names = [f"name{index}" for index in range(300)]
    languages = (*map(Language.literal, names), Language.everything() - Language.literals(names))
    joint = JointAutomaton(languages)
    for text, bits in (
        ("name7", 1 << 7),
        ("name29", 1 << 29),
        ("name299", 1 << 299),
        ("name", 1 << 300),
        ("", 1 << 300),
    ):
        state = joint.start
        for character in text:
            (state,) = [to for low, high, to in joint.arcs(state) if low <= ord(character) <= high]
        assert joint.accepted(state) == bits


@pytest.mark.parametrize(
    ("language", "empty"),
    [
        (Language.regex("(..)*", "python") & Language.length(100_001, 100_001), True),
        (Language.regex("([0-9a-f]{2}){0,50000}", "python") & Language.length(64, 64), False),
        (Language.regex("a{100000}", "python") & Language.length(0, 99_999), True),
        (Language.regex("a{100000}", "python") & Language.length(100_000, None), False),
        (Language.regex("(abc|defg){3}", "python") & Language.length(8, 8), True),
        (Language.regex("[0-9]+", "python") & ~Language.regex("[0-9]*", "python"), True),
        (Language.regex("x.*", "python") & Language.regex(".*y", "python") & Language.length(2, 2), False),
        (Language.regex("a*", "python") & Language.literals(["b", "c"]), True),
        (Language.length(5, 2), True),
        (Language.regex("([a-z][0-9])+", "python") & Language.length(10_000, None), False),
        (Language.regex("(a|bc){0,7}", "python") & Language.length(14, None), False),
        (Language.regex("(a|bc){0,7}", "python") & Language.length(15, None), True),
        (Language.regex("a{0,9}", "python") & Language.length(3, None) & ~Language.regex("a{3,8}", "python"), False),
        (Language.regex("a{0,9}", "python") & Language.length(3, None) & ~Language.regex("a{3,9}", "python"), True),
    ],
)
def test_emptiness_of_intersections_is_exact(language, empty):
    assert language.is_empty() == empty


def test_equal_expressions_are_equal_and_survive_pickling():
    one = Language.regex("[a-f]+", "python") & Language.length(1, 9)
    other = Language.regex("[a-f]+", "python") & Language.length(1, 9)
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert pickle.loads(pickle.dumps(Language.everything())) is Language.everything()


def test_automaton_goes_on_after_pickling():
    joint = JointAutomaton((Language.regex("(ab|cd)*", "python"),))
    joint.arcs(joint.start)
    copy = pickle.loads(pickle.dumps(joint))
    assert copy.arcs(copy.start) == joint.arcs(joint.start)


def test_budget_stops_a_search_that_can_be_taken_up_again():
    one, other = Language.regex("[01]*1[01]{12}", "python"), Language.regex("[01]*0[01]{12}", "python")
    hard, budget = one & other, Budget()
    with pytest.raises(BudgetExceededError), budget.limited(seconds=0.0):
        hard.is_empty(budget)
    assert hard.is_empty(budget)


def test_what_was_found_out_about_a_language_is_not_found_out_again():
    class Counting(Budget):
        units = 0

        def spend(self, units=1):
            self.units += units

    budget = Counting()
    hard = Language.regex("[01]*1[01]{9}2?", "python") & Language.regex("[01]*0[01]{8}22?", "python")
    assert not hard.is_empty(budget)
    spent = budget.units
    joint = JointAutomaton((Language.nothing(), hard), budget)
    assert joint.start is not None
    assert joint.accepted(joint.start) == 0
    assert budget.units - spent < 20
    other = Counting()
    assert JointAutomaton((hard,), other).start is not None
    assert other.units > 20


def test_lone_surrogates_are_in_no_language():
    assert Language.literal("\ud800").is_empty()
    assert not Language.everything().contains("\udfff")
    joint = JointAutomaton((Language.length(1, 1),))
    assert all(not (low <= 0xDFFF and high >= 0xD800) for low, high, _ in joint.arcs(joint.start))


def test_counts_cost_what_is_visited():
    joint = JointAutomaton((Language.length(0, 100_000), Language.regex(r"[\s\S]{20,50000}", "python")))
    state = joint.start
    for _ in range(100):
        state = joint.arcs(state)[0][2]
    assert joint.accepted(state) == 0b11
    assert len(pickle.dumps(joint)) < 100_000
