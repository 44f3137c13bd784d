"""The texts of JSON numbers that satisfy a condition, as languages over ASCII.

    at_least(Decimal("0"), exclusive=False) & at_most(Decimal("1"), exclusive=True) & multiple_of(Decimal("0.25"))

Values are exact decimals. Each condition and its negation (`integer` and `not_integer`, `at_least` and `at_most` the
other way round …) are both *sound*: what they accept satisfies them, so they may be used on either side of a `not`.
All spellings without an exponent are covered; with one, those of the form that programs write (`1.5e-07`, `1e+20`),
where the condition can tell. A reader that rounds to a double must come to the same verdict: exclusive bounds keep
away what would round onto the bound, exponents stay within what a double holds, and `not_integer` and
`not_multiple_of` take no more digits behind the point than a double tells apart.

An intersection of these is again one automaton (`number_texts`), however many conditions it has.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache

from .char_set import CharSet
from .language import Language
from .number_conditions import MAX_EXPONENT, NumberConditions
from .number_texts import NumberTexts

MAX_DISTINCT_DIGITS = 15
"""Decimals with so many digits are all different as doubles."""

_EXACT = Context(prec=5000, Emax=10**6, Emin=-(10**6))
_DIGIT = Language.chars(CharSet.span(0x30, 0x39))
_NONZERO = Language.chars(CharSet.span(0x31, 0x39))
_POINT, _MINUS = Language.literal("."), Language.literal("-")
_SIGN = _MINUS.repeat(0, 1)
_WHOLE = Language.literal("0") | (_NONZERO + _DIGIT.repeat(0, None))
_FRACTION = _POINT + _DIGIT.repeat(1, None)


@lru_cache(maxsize=1)
def number() -> Language:
    """Any number. Exponents have at most three digits."""
    return _texts(NumberConditions())


@lru_cache(maxsize=1)
def integer() -> Language:
    """Numbers without a fractional part, `1.0` and `1e+20` among them."""
    return _texts(NumberConditions(step=1))


@lru_cache(maxsize=1)
def not_integer() -> Language:
    """Numbers with a fractional part."""
    zeros_or_not = _DIGIT.repeat(0, None)
    plain = Language.concatenation((_WHOLE, _POINT, zeros_or_not, _NONZERO, zeros_or_not))
    exponent = Language.concatenation((Language.chars(CharSet.of("eE")), _MINUS, _exponent_digits()))
    small = Language.concatenation((_NONZERO, _FRACTION.repeat(0, 1), exponent))
    return _SIGN + ((plain & Language.length(0, MAX_DISTINCT_DIGITS + 1)) | small)


@lru_cache(maxsize=256)
def at_least(bound: Decimal, exclusive: bool = False) -> Language:
    """Numbers >= bound, or > bound."""
    return _texts(NumberConditions(low=_normal(bound), low_exclusive=exclusive))


@lru_cache(maxsize=256)
def at_most(bound: Decimal, exclusive: bool = False) -> Language:
    """Numbers <= bound, or < bound."""
    return _texts(NumberConditions(high=_normal(bound), high_exclusive=exclusive))


@lru_cache(maxsize=256)
def multiple_of(step: Decimal) -> Language:
    """Integer multiples of step, which is above 0; with an exponent only where step is 1."""
    _, digits, exponent = step.normalize(_EXACT).as_tuple()
    assert isinstance(exponent, int)
    value = int("".join(map(str, digits))) * 10 ** max(exponent, 0)
    return _texts(NumberConditions(step=value, scale=max(-exponent, 0)))


@lru_cache(maxsize=256)
def not_multiple_of(step: Decimal) -> Language:
    """Numbers that are no integer multiple of step, spelled without an exponent."""
    distinct = _WHOLE | ((_WHOLE + _FRACTION) & Language.length(0, MAX_DISTINCT_DIGITS + 1))
    return (_SIGN + distinct) - multiple_of(step)


@lru_cache(maxsize=256)
def equal(value: Decimal) -> Language:
    """All spellings of one number."""
    value = _normal(value)
    return _texts(NumberConditions(low=value, high=value))


@lru_cache(maxsize=256)
def not_equal(value: Decimal) -> Language:
    """Numbers below or above a number."""
    return at_most(value, True) | at_least(value, True)


def _texts(conditions: NumberConditions) -> Language:
    return Language.from_leaf(NumberTexts(conditions))


def _normal(value: Decimal) -> Decimal:
    """The same value without trailing zeros and without -0."""
    value = value.normalize(_EXACT)
    return abs(value) if value == 0 else value


def _exponent_digits() -> Language:
    """From 1 to MAX_EXPONENT, in two digits or without leading zeros."""
    texts = {form.format(exponent) for exponent in range(1, MAX_EXPONENT + 1) for form in ("{}", "{:02}")}
    return Language.literals(texts)
