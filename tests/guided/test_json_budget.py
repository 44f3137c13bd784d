"""Work on a schema that is stopped by its budget goes on where it was, and so comes to an end."""

from __future__ import annotations

import pytest

from zqserve.guided.automata.cells import DEAD
from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.budget import Budget
from zqserve.guided.errors import BudgetExceededError
from zqserve.guided.json_schema.machine import JsonMachine, JsonOptions
from zqserve.guided.json_schema.schema import read_schema
from zqserve.guided.json_schema.whitespace import WhitespaceOptions
from zqserve.guided.matcher import GrammarMatcher

from .test_json_machine import BYTES, CLOSED, INTEGER, STRING


class _FewUnits(Budget):
    """Gives way after so many units of work, however fast the machine is."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = self._left_units = units

    def spend(self, units: int = 1) -> None:
        self._left_units -= units
        if self._left_units < 0:
            self._left_units = self.units
            raise BudgetExceededError


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"properties": {f"property{i}": STRING for i in range(2000)}, **CLOSED}, b'{"property77":"x"}'),
        ({"uniqueItems": True, "items": INTEGER, "minItems": 2}, b"[12,3]"),
        ({"items": {"type": "string", "maxLength": 3000, "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}}, b'["abC'),
    ],
    ids=["names", "numbers", "strings"],
)
def test_work_that_takes_longer_than_the_budget_gives_at_a_time_comes_to_an_end(schema, text):
    pushdown = Pushdown(budget := _FewUnits(10**9))
    machine = JsonMachine(pushdown, JsonOptions(whitespace=WhitespaceOptions("none")))
    goal = read_schema({"type": ["object", "array"], **schema})
    assert machine.satisfiable(goal)
    pushdown.start_row = machine.value_row((goal,))
    matcher = GrammarMatcher(type("Grammar", (), {"pushdown": pushdown})(), BYTES)
    budget.units, budget._left_units = 500, 0
    interruptions = 0
    for byte in text:
        while interruptions < 500:
            try:
                matcher.mask()
                assert matcher.advance(byte + 2)
                break
            except BudgetExceededError:
                interruptions += 1
    assert 0 < interruptions < 500


def test_work_stopped_by_the_budget_goes_on_where_it_was():
    budget = Budget()
    pushdown = Pushdown(budget)
    machine = JsonMachine(pushdown, JsonOptions(whitespace=WhitespaceOptions("none")))
    wide = {"anyOf": [{"required": [f"n{i}"], "properties": {f"n{i}": {"enum": [i, str(i)]}}} for i in range(200)]}
    schema = read_schema({"type": "object", **wide})
    pushdown.start_row = machine.value_row((schema,))
    grammar = type("Grammar", (), {"pushdown": pushdown})()
    matcher = GrammarMatcher(grammar, BYTES)
    interruptions = 0
    for byte in b'{"n7":"7"}':
        for _ in range(10_000):
            try:
                with budget.limited(seconds=0.0005):
                    assert matcher.advance(byte + 2)
                break
            except BudgetExceededError:
                interruptions += 1
    assert matcher.accepting()
    assert pushdown.cell(pushdown.start_row, 0x78) == DEAD
