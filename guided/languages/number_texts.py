"""Numbers between bounds, multiples of a step, as one leaf automaton over their spelling.

Reads digits from the left and keeps only what still matters: how the digits compare with those of the bounds, and the
remainder by the step. Whether a bounded multiple can still be reached is arithmetic, not search, so
`multipleOf: 1000000` with any bounds costs what is visited.

Three forms of text: whole (`12`), with a fraction (`12.50`), with an exponent behind one digit and a fraction
(`1.25e+01`; any mantissa where there is no condition at all). Exclusive bounds differ by form: a reader rounds all but
whole numbers to a double, so those stay beyond the point from which a text rounds onto the bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from math import gcd, inf

from .char_set import CharSet
from .number_conditions import (
    MAX_EXPONENT,
    NumberConditions,
    decimal_places,
    greatest_scaled,
    least_scaled,
    rounding_edge,
    scientific,
)
from .terms import Leaf

WHOLE_EXPONENT, WHOLE_DIGITS = 16, 16
"""With at least this exponent and at most so many digits behind the point a number is whole."""

_DIGITS = tuple(CharSet.span(0x30 + digit, 0x30 + digit) for digit in range(10))
_POINT, _MINUS, _PLUS, _E = CharSet.of("."), CharSet.of("-"), CharSet.of("+"), CharSet.of("eE")

State = tuple
"""("start",), ("minus",), or of a `_Magnitudes`: ("whole", negative, …), ("fraction", negative, …), ("exponent", …)."""


class NumberTexts:
    """The leaf automaton of a `NumberConditions`."""

    __slots__ = ("_hash", "_sides", "conditions", "is_empty")

    start: State = ("start",)
    tells_ends_apart = False

    def __init__(self, conditions: NumberConditions) -> None:
        self.conditions = conditions
        self._hash = hash(conditions)
        self._sides = (_magnitudes(conditions, negative=False), _magnitudes(conditions, negative=True))
        self.is_empty = not any(side is not None and side.first_states() for side in self._sides)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, NumberTexts) and self.conditions == other.conditions)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"NumberTexts({self.conditions!r})"

    def __reduce__(self) -> tuple:
        return NumberTexts, (self.conditions,)

    def joined(self, other: Leaf) -> NumberTexts | None:
        """What both accept; None: the other is no automaton of numbers."""
        return NumberTexts(self.conditions & other.conditions) if isinstance(other, NumberTexts) else None

    def char_sets(self) -> Iterable[CharSet]:
        """Digits, signs, point and e."""
        return (*_DIGITS, _POINT, _MINUS, _PLUS, _E)

    def arcs(self, state: State) -> Iterator[tuple[CharSet, State]]:
        """(characters, next state), only to states from which a number can be reached."""
        kind = state[0]
        if kind in ("start", "minus"):
            side = self._sides[kind == "minus"]
            if side is not None:
                for digit, following in side.first_states():
                    yield _DIGITS[digit], following
            if kind == "start" and self._sides[1] is not None and self._sides[1].first_states():
                yield _MINUS, ("minus",)
        elif kind == "exponent":
            yield from _exponent_arcs(state)
        else:
            side = self._sides[state[1]]
            assert side is not None
            yield from side.arcs(state)

    def accepts(self, state: State) -> bool:
        """Whether what was read is a number that meets the conditions."""
        if state[0] in ("start", "minus"):
            return False
        if state[0] == "exponent":
            return _exponent_accepts(state)
        side = self._sides[state[1]]
        assert side is not None
        return side.accepts(state)

    def min_length(self, state: State) -> int:
        """At least so many characters are missing."""
        kind = state[0]
        if kind in ("start", "minus"):
            sides = self._sides if kind == "start" else self._sides[1:]
            return 1 + min(
                side.missing(first) for side in sides if side is not None for _, first in side.first_states()
            )
        if kind == "whole":
            side = self._sides[state[1]]
            assert side is not None
            return side.missing(state)
        return 0 if self.accepts(state) else 1

    def max_length(self, state: State) -> float:
        """Zeros may follow a fraction for ever; behind an e there is an end."""
        return 4 - state[4] if state[0] == "exponent" else inf


def _magnitudes(conditions: NumberConditions, *, negative: bool) -> _Magnitudes | None:
    """The numbers with (or without) a minus sign, by magnitude; None: none of them can meet the conditions."""
    low, low_exclusive = conditions.low, conditions.low_exclusive
    high, high_exclusive = conditions.high, conditions.high_exclusive
    if negative:
        low, low_exclusive, high, high_exclusive = (
            None if high is None else -high,
            high_exclusive,
            None if low is None else -low,
            low_exclusive,
        )
    if low is None or low < 0:
        low, low_exclusive = Decimal(0), False
    if high is not None and (high < low or (high == low and (low_exclusive or high_exclusive))):
        return None
    return _Magnitudes(conditions, negative, (low, low_exclusive), None if high is None else (high, high_exclusive))


class _Magnitudes:
    """Numbers without a sign between a bound >= 0 and another.

    States, with c0 … c3 how the whole digits read compare with those of the bounds (-1, 0, 1; for whole numbers below
    and above, for fractions below and above):
        ("whole", negative, digits read (0: a leading zero; not counted further than matters), c0, c1, c2, c3,
            remainder, mantissa)
        ("fraction", negative, digits behind the point or -1 when only an exponent helps, on the lower bound, on the
            upper bound, remainder, mantissa)
    and mantissa (digits behind the point, comparison below, above), or None when no exponent may follow.
    """

    def __init__(
        self,
        conditions: NumberConditions,
        negative: bool,
        low: tuple[Decimal, bool],
        high: tuple[Decimal, bool] | None,
    ) -> None:
        self.negative = negative
        self.step, self.scale = conditions.step, conditions.scale
        self.whole_step = self.step // gcd(self.step, 10**self.scale) if self.step else 0
        self.unconditional = conditions == NumberConditions()
        edge_low = rounding_edge(low, up=True)
        edge_high = None if high is None else rounding_edge(high, up=False)
        self.scientific = (not self.step or (self.step, self.scale) == (1, 0)) and (high is None or high[0] != 0)
        whole_low, whole_high = least_scaled(low, 0), None if high is None else greatest_scaled(high, 0)
        self.places = (
            self.scale
            if self.step
            else max(decimal_places(edge_low), 0 if edge_high is None else decimal_places(edge_high))
        )
        fraction_low = least_scaled(edge_low, self.places)
        fraction_high = None if edge_high is None else greatest_scaled(edge_high, self.places)
        shortest = self.places + 1
        # Digits of the bounds: whole numbers below and above, fractions below and above (without a point).
        self.bounds: tuple[str, str | None, str, str | None] = (
            str(whole_low),
            None if whole_high is None else str(whole_high) if whole_high >= 0 else "",
            str(fraction_low).zfill(shortest),
            None if fraction_high is None else str(fraction_high).zfill(shortest) if fraction_high >= 0 else "",
        )
        widths = [len(self.bounds[0]), len(self.bounds[1] or ""), *(self._width(self.bounds[i]) for i in (2, 3))]
        self.most_digits = max(widths) + 1
        self.mantissa_low = None if edge_low[0] == 0 else scientific(edge_low[0])
        self.mantissa_high = None if edge_high is None or edge_high[0] == 0 else scientific(edge_high[0])
        self.exclusive = (edge_low[1], edge_high is not None and edge_high[1])
        self._live: dict[State, bool] = {}
        self._mantissa_live: dict[tuple, bool] = {}
        self._first: list[tuple[int, State]] | None = None

    def _width(self, digits: str | None) -> int:
        """How many of a bound's digits stand before the point."""
        return len(digits) - self.places if digits else 0

    def first_states(self) -> list[tuple[int, State]]:
        """(digit, state) for the first digit."""
        if self._first is None:
            states = []
            for digit in range(10):
                compared = [self._compare(index, 0, 1, digit) for index in range(4)]
                mantissa = self._first_mantissa(digit)
                remainder = digit % self.step if self.step else 0
                states.append((digit, ("whole", self.negative, min(digit, 1), *compared, remainder, mantissa)))
            self._first = [(digit, state) for digit, state in states if self._is_live(state)]
        return self._first

    def arcs(self, state: State) -> Iterator[tuple[CharSet, State]]:
        """(characters, next state), only to live states."""
        if state[0] == "whole":
            digits, mantissa = state[2], state[8]
            if digits:
                for digit in range(10):
                    following = self._append(state, digit)
                    if self._is_live(following):
                        yield _DIGITS[digit], following
            point = self._behind_point(state)
            if point is not None:
                yield _POINT, point
        else:
            # Behind the point itself neither form of mantissa is complete.
            read, mantissa = state[2], state[6]
            if mantissa is not None and (read == 0 if self.unconditional else mantissa[0] == 0):
                mantissa = None
            for digit in range(10):
                following = self._append_behind_point(state, digit)
                if following is not None:
                    yield _DIGITS[digit], following
        if mantissa is not None:
            lowest, highest = self._exponents(mantissa)
            if lowest <= highest:
                yield _E, ("exponent", lowest, highest, 0, 0, 0)

    def accepts(self, state: State) -> bool:
        """Whether the text may end here."""
        if state[0] == "whole":
            return self._whole_fits(state, 0)
        _, _, read, on_low, on_high, remainder, _ = state
        return read > 0 and self._fraction_fits(read, on_low, on_high, remainder, zeros_only=True)

    def missing(self, state: State) -> int:
        """How many characters at least must follow whole digits."""
        counts = [2] if state[8] is not None else []
        for fraction in (False, True):
            more = self._reach(state, fraction=fraction)
            if more is not None:
                counts.append(more + 2 * fraction)
        return min(counts)

    # --- whole digits -----------------------------------------------------------------------------------------

    def _compare(self, index: int, before: int, digits: int, digit: int) -> int:
        """How the digits read compare with bound `index`, one digit more than those that compared as `before`."""
        bound = self.bounds[index]
        if bound is None:
            return -1
        width = len(bound) if index < 2 else self._width(bound)
        if digits > width:
            return 1
        if before:
            return before
        expected = ord(bound[digits - 1]) - 0x30
        return (digit > expected) - (digit < expected)

    def _append(self, state: State, digit: int) -> State:
        _, negative, digits, *compared, remainder, _ = state
        digits = min(digits + 1, self.most_digits)
        compared = [self._compare(index, before, digits, digit) for index, before in enumerate(compared)]
        remainder = (remainder * 10 + digit) % self.step if self.step else 0
        return ("whole", negative, digits, *compared, remainder, state[8] if self.unconditional else None)

    def _is_live(self, state: State) -> bool:
        known = self._live.get(state)
        if known is None:
            mantissa = state[8]
            known = self._live[state] = (
                (mantissa is not None and self._mantissa_is_live(mantissa))
                or self._reach(state, fraction=False) is not None
                or self._reach(state, fraction=True) is not None
            )
        return known

    def _reach(self, state: State, *, fraction: bool) -> int | None:
        """How many more whole digits (before a fraction) can make a number; None: no number of them."""
        fits = self._point_fits if fraction else self._whole_fits
        digits = state[2]
        if not digits:
            return 0 if fits(state, 0) else None
        low, high = self.bounds[2:] if fraction else self.bounds[:2]
        before_point = self._width if fraction else lambda bound: len(bound or "")
        if high is None:
            most = max(before_point(low) - digits, 0) + len(str(self.step)) + 1
        else:
            most = before_point(high) - digits
        return next((more for more in range(most + 1) if fits(state, more)), None)

    def _whole_fits(self, state: State, more: int) -> bool:
        """Whether `more` further digits can make a whole number between the bounds, of the step."""
        digits = max(state[2], 1)
        first = self._least(self.bounds[0], len(self.bounds[0]), state[3], digits, more, 0)
        last = self._greatest(self.bounds[1], len(self.bounds[1] or ""), state[4], digits, more, 0)
        return _has_multiple(state[7], 10**more, first, last, self.whole_step)

    def _point_fits(self, state: State, more: int) -> bool:
        """Whether `more` further digits and a fraction can make a number between the bounds, of the step."""
        digits = max(state[2], 1)
        first = self._least(self.bounds[2], self._width(self.bounds[2]), state[5], digits, more, self.places)
        last = self._greatest(self.bounds[3], self._width(self.bounds[3]), state[6], digits, more, self.places)
        return _has_multiple(state[7], 10 ** (more + self.places), first, last, self.step)

    def _least(self, bound: str | None, width: int, compared: int, digits: int, more: int, places: int) -> int | None:
        """The least number that the next `more + places` digits may make; None: none is great enough."""
        assert bound is not None
        if digits + more != width or compared > 0:
            return 0 if digits + more > width or (compared > 0 and digits + more == width) else None
        return None if compared < 0 else int(bound[digits:] or "0")

    def _greatest(
        self, bound: str | None, width: int, compared: int, digits: int, more: int, places: int
    ) -> int | None:
        """The greatest number that the next `more + places` digits may make; None: none is small enough."""
        if bound is None or digits + more < width or (digits + more == width and compared < 0):
            return 10 ** (more + places) - 1
        if digits + more > width or compared > 0:
            return None
        return int(bound[digits:] or "0")

    # --- digits behind the point ------------------------------------------------------------------------------

    def _behind_point(self, state: State) -> State | None:
        """The state behind the point; None: nothing can come of it."""
        digits, remainder, mantissa = max(state[2], 1), state[7], state[8]
        if mantissa is not None and not self._mantissa_is_live(mantissa):
            mantissa = None
        if self._point_fits(state, 0):
            on_low = digits == self._width(self.bounds[2]) and state[5] == 0
            on_high = self.bounds[3] is not None and digits == self._width(self.bounds[3]) and state[6] == 0
            return ("fraction", state[1], 0, on_low, on_high, remainder, mantissa)
        return None if mantissa is None else ("fraction", state[1], -1, False, False, 0, mantissa)

    def _append_behind_point(self, state: State, digit: int) -> State | None:
        _, negative, read, on_low, on_high, remainder, mantissa = state
        if mantissa is not None:
            mantissa = self._append_to_mantissa(mantissa, digit)
        if read >= 0:
            if read < self.places:
                low, high = self.bounds[2], self.bounds[3]
                below = digit - int(low[self._width(low) + read]) if on_low else 1
                above = int(high[self._width(high) + read]) - digit if on_high and high else 1
                on_low, on_high = below == 0, above == 0
                remainder = (remainder * 10 + digit) % self.step if self.step else 0
                possible = below >= 0 and above >= 0
            else:
                possible = digit == 0 or not (self.step or on_high)
                on_low = on_low and digit == 0
            read = min(read + 1, max(self.places, 1))
            if not (possible and self._fraction_fits(read, on_low, on_high, remainder, zeros_only=False)):
                read, on_low, on_high, remainder = -1, False, False, 0
            elif not (self.step or on_low or on_high):
                read = max(self.places, 1)
        if read < 0 and mantissa is None:
            return None
        return ("fraction", negative, read, on_low, on_high, remainder, mantissa)

    def _fraction_fits(self, read: int, on_low: bool, on_high: bool, remainder: int, *, zeros_only: bool) -> bool:
        """Whether further digits (or none) can make a number between the bounds, of the step."""
        left = max(self.places - read, 0)
        first = int(self.bounds[2][-left:]) if on_low and left else 0
        high = self.bounds[3]
        last = int(high[-left:]) if on_high and left and high else 10**left - 1
        return _has_multiple(remainder, 10**left, first, 0 if zeros_only else last, self.step)

    # --- mantissa and exponent --------------------------------------------------------------------------------

    def _first_mantissa(self, digit: int) -> tuple[int, int, int] | None:
        if self.unconditional:
            return (1, 1, -1)
        if not self.scientific or digit == 0:
            return None
        below = 1 if self.mantissa_low is None else _sign(digit - int(self.mantissa_low[0][0]))
        above = -1 if self.mantissa_high is None else _sign(digit - int(self.mantissa_high[0][0]))
        mantissa = (0, below, above)
        return mantissa if self._mantissa_is_live(mantissa) else None

    def _append_to_mantissa(self, mantissa: tuple[int, int, int], digit: int) -> tuple[int, int, int] | None:
        """The mantissa with one more digit; None: no exponent can follow any more."""
        if self.unconditional:
            return mantissa
        following = self._longer_mantissa(mantissa, digit)
        return following if following is not None and self._mantissa_is_live(following) else None

    def _longer_mantissa(self, mantissa: tuple[int, int, int], digit: int) -> tuple[int, int, int] | None:
        count, below, above = mantissa
        count += 1
        if self.step and count > WHOLE_DIGITS:
            return None
        if below == 0 and self.mantissa_low is not None:
            below = _sign(digit - int((self.mantissa_low[0][count : count + 1]) or "0"))
        if above == 0 and self.mantissa_high is not None:
            above = _sign(digit - int((self.mantissa_high[0][count : count + 1]) or "0"))
        if not self.step:
            longest = max(len(bound[0]) for bound in (self.mantissa_low, self.mantissa_high, ("1", 0)) if bound)
            count = 1 if below and above else min(count, longest)
        return (count, below, above)

    def _mantissa_is_live(self, mantissa: tuple[int, int, int]) -> bool:
        """Whether an exponent can follow, after more digits perhaps."""
        known = self._mantissa_live.get(mantissa)
        if known is None:
            self._mantissa_live[mantissa] = False
            lowest, highest = self._exponents(mantissa)
            known = lowest <= highest or any(
                following is not None and following != mantissa and self._mantissa_is_live(following)
                for following in (self._longer_mantissa(mantissa, digit) for digit in range(10))
            )
            self._mantissa_live[mantissa] = known
        return known

    def _exponents(self, mantissa: tuple[int, int, int]) -> tuple[int, int]:
        """The least and the greatest exponent with which the mantissa read is between the bounds."""
        count, below, above = mantissa
        lowest, highest = -MAX_EXPONENT, MAX_EXPONENT
        if self.mantissa_low is not None:
            digits, exponent = self.mantissa_low
            if below == 0 and (len(digits) > count + 1 or self.exclusive[0]):
                below = -1
            lowest = max(lowest, exponent + (below < 0))
        if self.mantissa_high is not None:
            digits, exponent = self.mantissa_high
            if above == 0 and len(digits) > count + 1:
                above = -1
            elif above == 0 and self.exclusive[1]:
                above = 1
            highest = min(highest, exponent - (above > 0))
        return max(lowest, WHOLE_EXPONENT) if self.step else lowest, highest


def _exponent_arcs(state: State) -> Iterator[tuple[CharSet, State]]:
    """From ("exponent", lowest, highest, sign or 0, digits read, their value)."""
    _, lowest, highest, sign, read, value = state
    if not read and not sign:
        for char_set, new_sign in ((_PLUS, 1), (_MINUS, -1)):
            if _exponent_is_live(lowest, highest, new_sign, 0, 0):
                yield char_set, ("exponent", lowest, highest, new_sign, 0, 0)
    if read < 3:
        for digit in range(10):
            following = (lowest, highest, sign or 1, read + 1, value * 10 + digit)
            if _exponent_is_live(*following):
                yield _DIGITS[digit], ("exponent", *following)


def _exponent_is_live(lowest: int, highest: int, sign: int, read: int, value: int) -> bool:
    first, last = (max(lowest, 0), highest) if sign > 0 else (max(-highest, 0), -lowest)
    return any(
        value * 10**more <= last and value * 10**more + 10**more > first for more in range(0 if read else 1, 4 - read)
    )


def _exponent_accepts(state: State) -> bool:
    _, lowest, highest, sign, read, value = state
    return read > 0 and lowest <= sign * value <= highest


def _has_multiple(remainder: int, shift: int, first: int | None, last: int | None, step: int) -> bool:
    """Whether `remainder * shift + x` is a multiple of `step` (0: of anything) for an x from `first` to `last`."""
    if first is None or last is None or first > last:
        return False
    return step < 2 or first + -(remainder * shift + first) % step <= last


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
