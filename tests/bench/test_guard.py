"""A decode step costs no more than it did: counts of instructions, messages and bytes against their limits."""

from __future__ import annotations

import pytest

from zqserve.bench.guard import PARTS, count, read_limits


@pytest.mark.parametrize("part", PARTS)
def test_a_step_stays_within_its_limits(part: str) -> None:
    limits = read_limits()
    counted = count([part])
    assert counted
    over = {name: (number, limits[name]) for name, number in counted.items() if number > limits[name]}
    assert not over, "counted, limit; where that is meant: python -m bench guard --update"


def test_limits_are_of_figures_that_are_counted() -> None:
    assert {name.partition(":")[0] for name in read_limits()} == set(PARTS)
