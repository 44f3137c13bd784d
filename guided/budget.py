"""A limit on how long the lazy parts of a grammar may work before they must give way.

Whoever starts work sets a deadline; every loop that an untrusted grammar can make long calls `spend`. The clock is
read only once in a hundred units, so that `spend` costs next to nothing.

    budget = Budget()
    with budget.limited(seconds=0.002):     # BudgetExceededError from inside, when it takes longer
        matcher.mask()
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from .errors import BudgetExceededError

UNITS_PER_LOOK = 100
"""Units of work between two looks at the clock. A unit is meant to be a few microseconds; where one turns out to be
thirty, the deadline is still missed by no more than three milliseconds."""


class Budget:
    """Time that may be spent; without a limit until `limited` sets one. One belongs to each compiled grammar."""

    __slots__ = ("_deadline", "_left")

    def __init__(self) -> None:
        self._deadline = float("inf")
        self._left = UNITS_PER_LOOK

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Within the block `spend` raises BudgetExceededError once `seconds` have passed."""
        before, self._deadline, self._left = self._deadline, monotonic() + seconds, UNITS_PER_LOOK
        try:
            yield
        finally:
            self._deadline = before

    def allow(self, seconds: float) -> None:
        """From now on `spend` raises BudgetExceededError once `seconds` have passed; `limited` without its block."""
        self._deadline, self._left = monotonic() + seconds, UNITS_PER_LOOK

    def spend(self, units: int = 1) -> None:
        """Counts work done, a few microseconds each.

        Raises:
            BudgetExceededError: the time is over.
        """
        self._left -= units
        if self._left <= 0:
            self._left = UNITS_PER_LOOK
            if monotonic() > self._deadline:
                raise BudgetExceededError
