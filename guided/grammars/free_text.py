"""Free text that watches for marks: where one of some strings is complete for the first time, something happens.

    watch = MarkWatch(["<tool>", "<end>"])
    watch.step(0, "<")          # the state in which "<" has been read
    watch.arcs(0)               # what the characters do that matter here; all others lead to state 0

An Aho-Corasick automaton over characters, without what lies behind a mark: the text is then no longer free.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..budget import Budget


class MarkWatch:
    """The automaton. State 0: no mark has begun. All states but those of complete marks go on with any character.

    Attributes:
        completed: per state the indices of the marks that are complete there, () if none is.
    """

    def __init__(self, marks: Sequence[str], budget: Budget) -> None:
        """Takes strings that are not empty."""
        self._children: list[dict[str, int]] = [{}]
        self.completed: list[tuple[int, ...]] = [()]
        self._shorter = [0]
        """Per state that of the longest proper suffix that begins a mark."""
        self._arcs: dict[int, dict[str, int]] = {}
        for index, mark in enumerate(marks):
            budget.spend(len(mark))
            state = 0
            for character in mark:
                following = self._children[state].get(character)
                if following is None:
                    following = self._children[state][character] = len(self._children)
                    self._children.append({})
                    self.completed.append(())
                state = following
            self.completed[state] += (index,)
        self._shorter *= len(self._children)
        self._link(budget)

    def arcs(self, state: int) -> dict[str, int]:
        """The states to which single characters lead; all other characters lead to state 0."""
        known = self._arcs.get(state)
        if known is None:
            known = dict(self._children[state])
            suffix = state
            while suffix:
                suffix = self._shorter[suffix]
                for character, target in self._children[suffix].items():
                    known.setdefault(character, target)
            self._arcs[state] = known
        return known

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        while character not in self._children[state]:
            if not state:
                return 0
            state = self._shorter[state]
        return self._children[state][character]

    def _link(self, budget: Budget) -> None:
        """Finds each state's longest suffix, shorter states first."""
        waiting = [0]
        for state in waiting:
            budget.spend(2)
            for character, child in self._children[state].items():
                if state:
                    self._shorter[child] = self.step(self._shorter[state], character)
                self.completed[child] += self.completed[self._shorter[child]]
                waiting.append(child)
