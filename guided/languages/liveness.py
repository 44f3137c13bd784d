"""Whether a term accepts any text at all, exactly: what keeps dead ends out of automata.

Without intersection and complement a term is empty only if it is written so. For the others the answer is looked for
in their shape first (`[0-9]+` without finitely many texts, a pattern with a length), and then by a search for an
accepting state that remembers what it learns.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from ..errors import BudgetExceededError
from .derivatives import Derivatives
from .number_runs import MAX_RUNS, join_runs, repeated_runs
from .terms import NOTHING, TermTable


class Liveness:
    """Emptiness, and the shortest text, of the terms of one table."""

    def __init__(self, terms: TermTable, derivatives: Derivatives) -> None:
        self._terms, self._derivatives = terms, derivatives
        self._live: dict[int, bool] = {}
        self._stopped: dict[int, tuple[dict[int, int], list[tuple[float, int]]]] = {}
        """By term: the searches that the budget stopped."""
        self._lengths: dict[int, tuple[tuple[int, float], ...] | None] = {}

    def is_live(self, term: int) -> bool:
        """Whether the term accepts any text at all. Exact."""
        if self._terms.simple[term]:
            return term != NOTHING
        known = self._live.get(term)
        if known is None:
            known = self._quick_live(term)
            if known is None:
                known = self._search(term)
            self._live[term] = known
        return known

    def _quick_live(self, term: int) -> bool | None:
        """The answer where the shape of the term tells; None: it does not."""
        if self._terms.nullable[term]:
            return True
        key = self._terms.keys[term]
        kind = key[0]
        if kind == "or":
            return any(self.is_live(member) for member in key[1])
        if kind == "rep":
            return self.is_live(key[1])
        if kind == "cat":
            while key[0] == "cat":
                if not self.is_live(key[1]):
                    return False
                term, key = key[2], self._terms.keys[key[2]]
            return self.is_live(term)
        if kind == "not":
            return True if self._terms.max_length[key[1]] != inf else None
        return self._quick_live_intersection(key[1])

    def _quick_live_intersection(self, members: tuple[int, ...]) -> bool | None:
        positive = [member for member in members if self._terms.keys[member][0] != "not"]
        if not all(self._terms.simple[member] for member in positive):
            return None
        longest_negated = max(
            (
                self._terms.max_length[self._terms.keys[member][1]]
                for member in members
                if self._terms.keys[member][0] == "not"
            ),
            default=-1,
        )
        if len(positive) < 2:
            longest = self._terms.max_length[positive[0]] if positive else inf
            return True if longest > longest_negated else None
        counted = [member for member in positive if self._terms.as_repeat(member)[0] == self._terms.any_char]
        if len(positive) != 2 or len(counted) != 1:
            return None
        (other,) = [member for member in positive if member != counted[0]]
        _, low, high = self._terms.as_repeat(counted[0])
        if high == inf and self._terms.max_length[other] > longest_negated:
            return self._terms.max_length[other] >= low
        runs = self.lengths(other)
        if runs is None:
            return None
        common = [min(last, high) for first, last in runs if first <= high and last >= low]
        if not common or max(common) > longest_negated:
            return bool(common)
        return None

    def lengths(self, term: int) -> tuple[tuple[int, float], ...] | None:
        """The lengths of a simple term's texts as runs (first, last); None: too many runs to say."""
        if term not in self._lengths:
            pending = [term]
            while pending:
                current = pending[-1]
                key = self._terms.keys[current]
                parts = (
                    key[1:3] if key[0] == "cat" else key[1] if key[0] == "or" else key[1:2] if key[0] == "rep" else ()
                )
                missing = [part for part in parts if part not in self._lengths]
                if missing:
                    pending += missing
                    continue
                self._terms.budget.spend(4)
                self._lengths[current] = self._lengths_from_parts(key, [self._lengths[part] for part in parts])
                pending.pop()
        return self._lengths[term]

    def _lengths_from_parts(self, key: tuple, parts: list) -> tuple[tuple[int, float], ...] | None:
        kind = key[0]
        if None in parts or kind == "leaf":
            return None
        if kind == "chars":
            return ((1, 1),)
        if kind == "empty":
            return ((0, 0),)
        if kind == "nothing":
            return ()
        if kind == "or":
            runs = [run for part in parts for run in part]
        elif kind == "cat":
            runs = [(a + c, b + d) for a, b in parts[0] for c, d in parts[1]]
        else:
            runs = repeated_runs(parts[0], key[2], key[3])
            if runs is None:
                return None
        joined = tuple(join_runs(runs))
        return joined if len(joined) <= MAX_RUNS else None

    def _search(self, term: int) -> bool:
        """Looks for an accepting state, the nearest to acceptance first; remembers what it learns of each state."""
        live = self._live
        parents, queue = self._stopped.pop(term, None) or ({term: term}, [(self._distance(term), term)])
        while queue:
            current = queue[0][1]
            try:
                self._terms.budget.spend(4)
                found = self._look_behind(current, parents)
            except BudgetExceededError:
                self._stopped[term] = parents, queue
                raise
            if found is None:
                while parents[current] != current:
                    live[current] = True
                    current = parents[current]
                return True
            heappop(queue)
            for target in found:
                parents[target] = current
                heappush(queue, (self._distance(target), target))
        for dead in parents:
            live[dead] = False
        return False

    def _distance(self, term: int) -> int:
        """How far acceptance seems to be. Of an intersection the sum, so that progress towards any of its members
        counts, and not just towards the one that is the farthest."""
        key = self._terms.keys[term]
        if key[0] == "and":
            return sum([self._terms.min_length[member] for member in key[1]])
        return self._terms.min_length[term]

    def _look_behind(self, term: int, parents: dict[int, int]) -> dict[int, None] | None:
        """The terms one character on that are not among the `parents` and of which nothing is known; None: one of
        them is live."""
        found: dict[int, None] = {}
        for _, target in self._derivatives.arcs(term):
            known = True if self._terms.simple[target] else self._live.get(target)
            if known is None:
                known = self._quick_live(target)
            if known:
                self._live[target] = True
                return None
            if known is None and target not in parents:
                found[target] = None
        return found

    def shortest(self, term: int) -> str | None:
        """The first of the shortest texts; None: there is none."""
        if not self.is_live(term):
            return None
        parents: dict[int, tuple[int, int]] = {}
        costs = {term: 0}
        queue = [(self._terms.min_length[term], 0, term)]
        while queue:
            _, cost, current = heappop(queue)
            self._terms.budget.spend(4)
            if self._terms.nullable[current]:
                text: list[str] = []
                while current != term:
                    point, current = parents[current]
                    text.append(chr(point))
                return "".join(reversed(text))
            if cost > costs[current]:
                continue
            for mask, target in self._derivatives.arcs(current):
                if costs.get(target, inf) > cost + 1 and self.is_live(target):
                    costs[target] = cost + 1
                    parents[target] = (self._typical_point(mask), current)
                    heappush(queue, (cost + 1 + self._terms.min_length[target], cost + 1, target))
        return None

    def _typical_point(self, mask: int) -> int:
        """A code point out of the classes, a printable one where there is one."""
        ranges = self._terms.classes.ranges_of(mask)
        for low, high in ranges:
            for wanted in (0x61, 0x30, 0x21, 0x20):
                if high >= wanted and low <= 0x7E:
                    return max(low, wanted)
        return ranges[0][0]
