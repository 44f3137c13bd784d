"""Strings that must be different and could run out: how many there are behind each beginning, and their rows.

Of a finite language (say, names of at most 39 characters) every text may have been used up behind some beginning. So
its rows lead to a state behind which there are not plenty of texts by way of a check (`Pushdown.checked`): only while
fewer of the texts remembered begin like this than there are behind it. If so, one of the ways on, or the end, is left:
there are not more texts behind them together, nor fewer remembered. Only texts of plain characters, which are one byte
each, are counted; other characters and escapes come only where there are plenty of texts behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..automata.cells import DEAD
from ..languages.text_lowering import SHAPES, JsonStringRows

if TYPE_CHECKING:
    from ..automata.pushdown import Pushdown
    from ..budget import Budget
    from ..languages.byte_shapes import Shape
    from ..languages.language import JointAutomaton

PLENTY = 1000
"""Texts behind a beginning that never run out, as no array has so many items that must be different and could."""
PLAIN = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E))
MAX_STATES = 2000
"""States of a language that are looked at."""


def count_texts(automaton: JointAutomaton, budget: Budget, fresh: int) -> dict[int, int] | None:
    """For each state how many texts of plain characters lead on from it, at most PLENTY. None: there are too many
    states.

    fresh: bit set of the languages whose texts must not come again; those of others are as good as plenty.
    """
    if automaton.start is None:
        return {}
    arcs: dict[int, list[tuple[int, int]]] = {}
    before: dict[int, list[int]] = {}
    num_open: dict[int, int] = {}
    pending = [automaton.start]
    while pending:
        state = pending.pop()
        if state in arcs:
            continue
        if len(arcs) >= MAX_STATES:
            return None
        budget.spend()
        arcs[state] = []
        for first, last, target in automaton.arcs(state):
            pending.append(target)
            width = sum(max(0, min(last, high) - max(first, low) + 1) for low, high in PLAIN)
            arcs[state].append((width, target))
            before.setdefault(target, []).append(state)
        num_open[state] = len(arcs[state])
    # Those on a cycle, or before one, have infinitely many.
    counts = dict.fromkeys(arcs, PLENTY)
    pending = [state for state, number in num_open.items() if not number]
    while pending:
        state = pending.pop()
        accepted = automaton.accepted(state)
        if not accepted & ~fresh and all(width or counts[target] < PLENTY for width, target in arcs[state]):
            number = bool(accepted) + sum(width * counts[target] for width, target in arcs[state])
            counts[state] = min(PLENTY, number)
        for previous in before.get(state, ()):
            num_open[previous] -= 1
            if not num_open[previous]:
                pending.append(previous)
    return counts


class ScarceStringRows(JsonStringRows):
    """Rows of the inside of a JSON string, as an item that must be different from others."""

    def __init__(self, pushdown: Pushdown, automaton: JointAutomaton, counts: dict[int, int]) -> None:
        super().__init__(pushdown, _Uncounted(automaton))
        self._counts = counts
        self.start = DEAD if automaton.start is None else self.row(automaton.start)

    def _arcs(self, shape: Shape, targets: tuple[int, ...]) -> list[tuple[int, int, int]]:
        if all(self._counts[target] == PLENTY for target in targets):
            return super()._arcs(shape, targets)
        # Between two characters, then: rows inside of one are made only where there are plenty.
        plenty = [
            (low, high, targets[place])
            for low, high, place in shape.ranges
            if isinstance(place, int) and self._counts[targets[place]] == PLENTY
        ]
        cells = super()._arcs(*SHAPES.normal(self.character_kind, 0, tuple(plenty))) if plenty else []
        for first, last, rest, used in SHAPES.arcs(shape):
            if rest is None:
                target = targets[used[0]]
                fewest = self._counts[target]
                if 0 < fewest < PLENTY:
                    cells.append((first, last, self.pushdown.checked(self.row(target), fewest)))
        return cells


class _Uncounted:
    """An automaton whose loops are not to be counted: each round is a state of its own."""

    def __init__(self, automaton: JointAutomaton) -> None:
        self._automaton = automaton

    def arcs(self, state: int) -> tuple[tuple[int, int, int], ...]:
        return self._automaton.arcs(state)

    def accepted(self, state: int) -> int:
        return self._automaton.accepted(state)
