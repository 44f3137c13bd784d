"""Languages of number texts: sound on both sides of a `not`, exact decimals, and complete for plain spellings."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.languages import number_spelling
from zqserve.guided.languages.language import JointAutomaton, Language

PLAIN = st.one_of(
    st.integers(-1200, 1200).map(str),
    st.decimals(-30, 30, places=3).map(lambda value: format(value, "f")),
    st.sampled_from(
        ["-0", "0.0", "-0.000", "1.0", "1.50", "0.30000000000000001", "0.30000000000000004", "1" + "0" * 20]
    ),
)
WRITTEN = st.one_of(
    PLAIN,
    st.floats(allow_nan=False, allow_infinity=False)
    .filter(lambda value: value == 0 or 1e-290 < abs(value) < 1e290)
    .map(json.dumps),
    st.tuples(
        st.sampled_from(["1", "-2.5", "9.75", "-3"]),
        st.sampled_from(["e", "E"]),
        st.sampled_from(["+2", "0", "-1", "17", "-03"]),
    ).map("".join),
)
BOUNDS = st.one_of(
    st.integers(-1000, 1000).map(Decimal),
    st.decimals(-30, 30, places=2),
    st.sampled_from(["0", "0.1", "0.3", "1e20", "-1e-7"]).map(Decimal),
)


@settings(max_examples=300, deadline=None)
@given(BOUNDS, st.booleans(), st.lists(WRITTEN, min_size=5, max_size=10))
def test_bounds_are_exact_and_hold_for_a_reader_of_doubles(bound, exclusive, texts):
    low, high = number_spelling.at_least(bound, exclusive), number_spelling.at_most(bound, exclusive)
    for text in texts:
        value, rounded = Decimal(text), float(text)
        above = (value > bound and rounded > float(bound)) if exclusive else value >= bound
        below = (value < bound and rounded < float(bound)) if exclusive else value <= bound
        integral = set(text) <= set("-0123456789")
        if not (exclusive and integral):
            assert not low.contains(text) or above
            assert not high.contains(text) or below
        if "e" not in text.lower() and not (exclusive and integral):
            assert low.contains(text) == above
            assert high.contains(text) == below
        if integral:
            assert low.contains(text) == (value > bound if exclusive else value >= bound)
            assert high.contains(text) == (value < bound if exclusive else value <= bound)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["1", "3", "7", "0.01", "0.25", "1.5", "1000000", "0.0001", "12.3", "2e3"]).map(Decimal),
    st.lists(PLAIN, min_size=5, max_size=10),
    st.integers(-999, 999),
)
def test_multiples_are_exact(step, texts, factor):
    is_multiple, is_not = number_spelling.multiple_of(step), number_spelling.not_multiple_of(step)
    for text in [*texts, format(step * factor, "f")]:
        expected = Decimal(text) % step == 0
        assert is_multiple.contains(text) == expected, text
        assert not (is_not.contains(text) and expected), text
        if len(text.lstrip("-")) <= 15:
            assert is_not.contains(text) == (not expected), text


@settings(max_examples=200, deadline=None)
@given(st.lists(WRITTEN, min_size=5, max_size=10))
def test_integers_are_told_from_other_numbers(texts):
    integer, other, number = number_spelling.integer(), number_spelling.not_integer(), number_spelling.number()
    for text in texts:
        value = Decimal(text)
        integral = value == value.to_integral_value()
        assert number.contains(text)
        assert not integer.contains(text) or integral
        assert not other.contains(text) or not float(text).is_integer()
        if "e" not in text.lower():
            assert integer.contains(text) == integral


@settings(max_examples=200, deadline=None)
@given(BOUNDS, st.lists(WRITTEN, min_size=5, max_size=10))
def test_equality_covers_every_plain_spelling(value, texts):
    equal, other = number_spelling.equal(value), number_spelling.not_equal(value)
    for text in [
        *texts,
        format(value, "f"),
        json.dumps(float(value)),
        format(value, "f") + ("0" if "." in format(value, "f") else ".00"),
    ]:
        same = Decimal(text) == value
        assert not equal.contains(text) or same
        assert not other.contains(text) or (not same and float(text) != float(value))
        if "e" not in text.lower():
            assert equal.contains(text) == same, text


@pytest.mark.parametrize("text", ["1e+20", "1.5e-07", "2E5", "-1e10", "0e0", "12.5E-3"])
def test_exponents_are_numbers(text):
    assert number_spelling.number().contains(text)


@pytest.mark.parametrize(
    "text", ["", "01", "1.", ".5", "+1", "--1", "1e", "1e5.0", "0x1", "NaN", "Infinity", "1e9999", "१"]
)
def test_what_is_no_json_number(text):
    assert not number_spelling.number().contains(text)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (
            [
                number_spelling.integer(),
                number_spelling.at_least(Decimal("0.5")),
                number_spelling.at_most(Decimal("1.5")),
            ],
            "1",
        ),
        (
            [
                number_spelling.integer(),
                number_spelling.at_least(Decimal("1.1")),
                number_spelling.at_most(Decimal("1.9")),
            ],
            None,
        ),
        (
            [
                number_spelling.multiple_of(Decimal(7)),
                number_spelling.at_least(Decimal(50)),
                number_spelling.at_most(Decimal(55)),
            ],
            None,
        ),
        (
            [
                number_spelling.multiple_of(Decimal("0.01")),
                number_spelling.at_least(Decimal("0.001")),
                number_spelling.at_most(Decimal("0.009")),
            ],
            None,
        ),
        (
            [
                number_spelling.multiple_of(Decimal(1_000_000)),
                number_spelling.at_least(Decimal(1_000_001)),
                number_spelling.at_most(Decimal(2_000_000)),
            ],
            "2000000",
        ),
        (
            [
                number_spelling.multiple_of(Decimal(1_000_000)),
                number_spelling.at_least(Decimal(1_000_001)),
                number_spelling.at_most(Decimal(1_999_999)),
            ],
            None,
        ),
        (
            [
                number_spelling.multiple_of(Decimal(999_983)),
                number_spelling.multiple_of(Decimal(999_979)),
                number_spelling.at_least(Decimal(1)),
            ],
            str(999_983 * 999_979),
        ),
        ([number_spelling.at_least(Decimal(0), True), number_spelling.at_most(Decimal(0))], None),
        ([number_spelling.equal(Decimal(2)), number_spelling.not_equal(Decimal(2))], None),
    ],
)
def test_conjunctions_are_decided_quickly(conditions, expected):
    language = Language.everything()
    for condition in conditions:
        language = language & condition
    assert language.shortest() == expected


def test_digits_lead_only_to_multiples_within_the_bounds():
    language = (
        number_spelling.multiple_of(Decimal(1000))
        & number_spelling.at_most(Decimal(2**53))
        & number_spelling.at_least(Decimal(0))
    )
    joint = JointAutomaton((language,))
    state = joint.start
    for digit in "9007199254740":
        (state,) = [to for low, high, to in joint.arcs(state) if low <= ord(digit) <= high]
    assert [(chr(low), chr(high)) for low, high, _ in joint.arcs(state)] == [("0", "0")]


CONDITIONS = st.one_of(
    st.tuples(BOUNDS, st.booleans()).map(lambda args: number_spelling.at_least(*args)),
    st.tuples(BOUNDS, st.booleans()).map(lambda args: number_spelling.at_most(*args)),
    st.sampled_from(["1", "0.01", "7", "2.5", "40"]).map(lambda step: number_spelling.multiple_of(Decimal(step))),
    BOUNDS.map(number_spelling.equal),
    BOUNDS.map(number_spelling.not_equal),
    st.sampled_from([number_spelling.number(), number_spelling.integer(), number_spelling.not_integer()]),
    st.sampled_from(["1", "0.01", "7"]).map(lambda step: number_spelling.not_multiple_of(Decimal(step))),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(CONDITIONS, min_size=1, max_size=4), st.lists(WRITTEN, max_size=5), st.randoms(use_true_random=False))
def test_conjunctions_mean_all_of_them_and_have_no_dead_end(conditions, texts, choose):
    both = Language.everything()
    for condition in conditions:
        both = both & condition
    for text in texts:
        if "e" not in text.lower():
            assert both.contains(text) == all(condition.contains(text) for condition in conditions)
    joint = JointAutomaton((both,))
    for _ in range(3):
        state, text = joint.start, ""
        while state is not None and len(text) < 100:
            arcs = joint.arcs(state)
            assert arcs or joint.accepted(state), text
            if joint.accepted(state):
                assert both.contains(text)
                # With an exponent a condition may accept less alone than it leaves to the others, never more.
                assert "e" in text.lower() or all(condition.contains(text) for condition in conditions), text
                if not arcs or choose.random() < 0.2:
                    break
            low, high, state = choose.choice(arcs)
            text += chr(choose.randint(low, high))
    assert both.is_empty() == (both.shortest() is None)
