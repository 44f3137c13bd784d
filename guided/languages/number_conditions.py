"""What a number must be (bounds, a step), and its bounds as exact integers and digits."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from math import inf, lcm, nextafter

MAX_EXPONENT = 299
_EXACT = Context(prec=5000, Emax=10**6, Emin=-(10**6))


@dataclass(frozen=True, slots=True)
class NumberConditions:
    """What the value must be.

    Attributes:
        low, high: bounds; None: there is none.
        low_exclusive, high_exclusive: whether the bound itself is excluded.
        step, scale: the value is a multiple of step / 10**scale; step 0: of nothing.
    """

    low: Decimal | None = None
    low_exclusive: bool = False
    high: Decimal | None = None
    high_exclusive: bool = False
    step: int = 0
    scale: int = 0

    def __and__(self, other: NumberConditions) -> NumberConditions:
        low, low_exclusive = max(
            (self.low, self.low_exclusive), (other.low, other.low_exclusive), key=lambda end: _rank(end, -inf)
        )
        high, high_exclusive = min(
            (self.high, self.high_exclusive), (other.high, other.high_exclusive), key=lambda end: _rank(end, inf)
        )
        scale = max(self.scale, other.scale)
        steps = [one.step * 10 ** (scale - one.scale) for one in (self, other) if one.step]
        step = lcm(*steps) if steps else 0
        while scale and step % 10 == 0 and step:
            step, scale = step // 10, scale - 1
        return NumberConditions(low, low_exclusive, high, high_exclusive, step, scale if step else 0)


def _rank(end: tuple[Decimal | None, bool], missing: float) -> tuple[Decimal | float, int]:
    bound, exclusive = end
    if bound is None:
        return missing, 0
    return bound, exclusive if missing < 0 else -exclusive


def rounding_edge(bound: tuple[Decimal, bool], *, up: bool) -> tuple[Decimal, bool]:
    """The bound for texts that a reader rounds to a double: what is beyond it does not round onto the bound."""
    value, exclusive = bound
    if not exclusive:
        return bound
    if value == 0:
        return Decimal(1).scaleb(-MAX_EXPONENT), False
    nearest = float(value)
    following = nextafter(nearest, inf if up else -inf)
    if nearest in (inf, 0) or following in (inf, 0):
        return bound
    halfway = (Fraction(nearest) + Fraction(following)) / 2
    # A fraction whose denominator is a power of two is a finite decimal.
    shift = halfway.denominator.bit_length() - 1
    return Decimal(halfway.numerator * 5**shift).scaleb(-shift, _EXACT).normalize(_EXACT), True


def least_scaled(bound: tuple[Decimal, bool], places: int) -> int:
    """The least integer n such that n / 10**places meets the bound."""
    value, exclusive = bound
    numerator, denominator = value.as_integer_ratio()
    scaled = numerator * 10**places
    return scaled // denominator + 1 if exclusive else -(-scaled // denominator)


def greatest_scaled(bound: tuple[Decimal, bool], places: int) -> int:
    """The greatest integer n such that n / 10**places meets the bound."""
    value, exclusive = bound
    numerator, denominator = value.as_integer_ratio()
    scaled = numerator * 10**places
    return -(-scaled // denominator) - 1 if exclusive else scaled // denominator


def decimal_places(bound: tuple[Decimal, bool]) -> int:
    """How many digits a bound has behind the point."""
    exponent = bound[0].as_tuple().exponent
    assert isinstance(exponent, int)
    return max(-exponent, 0)


def scientific(value: Decimal) -> tuple[str, int]:
    """The digits of a value > 0, without zeros around them, and its exponent."""
    return "".join(map(str, value.as_tuple().digits)).strip("0"), value.adjusted()
