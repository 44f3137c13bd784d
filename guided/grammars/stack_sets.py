"""Sets of stacks, hash-consed: what a nondeterministic grammar may still have to read, all possibilities at once.

A *node* stands for a set of stacks of frames as a small automaton, read from the top: it says which frames may be on
top, with one node each for what lies below, and whether the empty stack is in the set. Equal sets built by equal steps
are one number, so that ambiguity merges instead of multiplying (a graph-structured stack), and a row of the pushdown
can be known by its node.

The bottom of a node is not the end of the text but the *base*: what lies below is on the pushdown's own stack.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..budget import Budget
from .grammar_frames import NOTHING_LEFT, REPETITION, RETURN, SEQUENCE, FrameTable

BASE = 0
"""The node of the empty stack alone."""
NONE = 1
"""The node of no stack at all."""

MAX_CUT_STEPS = 200
"""Nodes that `split` looks at before it lets a set be as it is."""


class StackSets:
    """The nodes of one grammar.

    Attributes:
        entries: per node the (frame on top, node below), by frame.
        has_base: per node, whether the empty stack is in the set.
        nullable: per node, whether one of its stacks can be read without any byte.
    """

    def __init__(self, table: FrameTable, budget: Budget) -> None:
        self._table, self._budget = table, budget
        self.entries: list[tuple[tuple[int, int], ...]] = [(), ()]
        self.has_base: list[bool] = [True, False]
        self.nullable: list[bool] = [True, False]
        self._ids: dict[tuple[bool, tuple[tuple[int, int], ...]], int] = {(True, ()): BASE, (False, ()): NONE}
        self._pushes: dict[tuple[int, int], int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._compositions: dict[tuple[int, int], int] = {}
        self._splits: dict[int, tuple[int, int] | None] = {}

    def push(self, frame: int, below: int) -> int:
        """The stacks of `below`, each with the frame on top."""
        if frame == NOTHING_LEFT or below == NONE:
            return below
        node = self._pushes.get((frame, below))
        if node is None:
            node = self._pushes[frame, below] = self._push(frame, below)
        return node

    def push_all(self, frames: tuple[int, ...], below: int) -> int:
        """Several frames, the first of them on top."""
        for frame in reversed(frames):
            below = self.push(frame, below)
        return below

    def union(self, one: int, other: int) -> int:
        """The stacks of both."""
        if one == other or other == NONE:
            return one
        if one == NONE:
            return other
        wanted = (one, other) if one < other else (other, one)
        waiting = [wanted]
        unions = self._unions
        while waiting:
            pair = waiting[-1]
            if pair in unions:
                waiting.pop()
                continue
            self._budget.spend(2)
            merged = dict(self.entries[pair[0]])
            missing = []
            for frame, below in self.entries[pair[1]]:
                mine = merged.get(frame, below)
                if mine != below:
                    inner = (mine, below) if mine < below else (below, mine)
                    below = unions.get(inner, -1)
                    if below < 0:
                        missing.append(inner)
                merged[frame] = below
            if missing:
                waiting += missing
                continue
            unions[pair] = self._node(self.has_base[pair[0]] or self.has_base[pair[1]], merged)
            waiting.pop()
        return unions[wanted]

    def union_all(self, nodes: Iterable[int]) -> int:
        """The stacks of all, united in pairs, and these in pairs, so that none is copied often."""
        nodes = list(dict.fromkeys(nodes)) or [NONE]
        while len(nodes) > 1:
            odd = nodes[-1:] if len(nodes) % 2 else []
            nodes = [self.union(one, other) for one, other in zip(nodes[::2], nodes[1::2], strict=False)] + odd
        return nodes[0]

    def compose(self, upper: int, lower: int) -> int:
        """The stacks of `upper`, each on top of each stack of `lower`."""
        if lower == BASE or upper == NONE:
            return upper
        known = self._compositions
        waiting = [upper]
        while waiting:
            node = waiting[-1]
            if (node, lower) in known:
                waiting.pop()
                continue
            self._budget.spend(2)
            missing = [below for _, below in self.entries[node] if (below, lower) not in known]
            if missing:
                waiting += missing
                continue
            result = lower if self.has_base[node] else NONE
            for frame, below in self.entries[node]:
                result = self.union(result, self.push(frame, known[below, lower]))
            known[node, lower] = result
            waiting.pop()
        return known[upper, lower]

    def split(self, node: int) -> tuple[int, int] | None:
        """(upper, lower), of which `node` is composed, where some byte must be read before `lower` is reached.

        The least such upper part; None if there is none, or none with a lower part of its own.
        """
        if node not in self._splits:
            self._splits[node] = self._split(node)
        return self._splits[node]

    def _node(self, has_base: bool, merged: dict[int, int]) -> int:
        frames = self._table.frames
        if len(merged) > 1 and sum(frames[frame][0] == REPETITION for frame in merged) > 1:
            merged = self._merge_repetitions(merged)
        entries = tuple(sorted(merged.items()))
        node = self._ids.get((has_base, entries))
        if node is None:
            self._budget.spend(2)
            nullable = self._table.nullable
            node = self._ids[has_base, entries] = len(self.entries)
            self.entries.append(entries)
            self.has_base.append(has_base)
            self.nullable.append(has_base or any(nullable[frame] and self.nullable[below] for frame, below in entries))
        return node

    def _push(self, frame: int, below: int) -> int:
        frames = self._table.frames
        fields = frames[frame]
        if fields[0] == SEQUENCE and frames[fields[1]][0] == REPETITION:
            # The state before a loop is the state within it.
            return self.push(fields[1], self.push(fields[2], below))
        if fields[0] == RETURN:
            # The ways from a rule back to itself can follow each other: doing so twice is doing so once.
            again = self._table.intern((RETURN, fields[2], fields[2]))
            entries = dict(self.entries[below])
            if again in entries:
                inner = entries.pop(again)
                return self.push(frame, self.union(self._node(self.has_base[below], entries), inner))
        if fields[0] == REPETITION and len(self.entries[below]) == 1 and not self.has_base[below]:
            ((under, deeper),) = self.entries[below]
            other = frames[under]
            if other[0] == REPETITION and other[1] == fields[1]:
                greatest = -1 if fields[3] < 0 or other[3] < 0 else fields[3] + other[3]
                return self.push(self._table.repeat(fields[1], fields[2] + other[2], greatest), deeper)
        return self._node(False, {frame: below})

    def _merge_repetitions(self, merged: dict[int, int]) -> dict[int, int]:
        """Counts of one item over one node that touch become one range of counts."""
        frames = self._table.frames
        result: dict[int, int] = {}
        counts: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for frame, below in merged.items():
            fields = frames[frame]
            if fields[0] == REPETITION:
                counts.setdefault((fields[1], below), []).append((fields[2], fields[3]))
            else:
                result[frame] = below
        for (item, below), ranges in counts.items():
            ranges.sort()
            low, high = ranges[0]
            for next_low, next_high in ranges[1:]:
                if high < 0 or next_low <= high + 1:
                    high = -1 if high < 0 or next_high < 0 else max(high, next_high)
                else:
                    result[self._table.intern((REPETITION, item, low, high))] = below
                    low, high = next_low, next_high
            result[self._table.intern((REPETITION, item, low, high))] = below
        return result

    def _split(self, node: int) -> tuple[int, int] | None:
        frontier = {below for _, below in self.entries[node]}
        if self.has_base[node]:
            return None
        for _ in range(MAX_CUT_STEPS):
            self._budget.spend()
            # A node is made after those below it: the greatest number is below none of the others.
            lowest = max(frontier)
            if len(frontier) == 1:
                if lowest == BASE:
                    return None
                upper = self._above(node, lowest)
                if not self.nullable[upper]:
                    return upper, lowest
            if self.has_base[lowest]:
                return None
            frontier.remove(lowest)
            frontier.update(below for _, below in self.entries[lowest])
        return None

    def _above(self, node: int, lower: int) -> int:
        """`node` with the base in place of `lower`, through which all its stacks go."""
        known = {lower: BASE}
        waiting = [node]
        while waiting:
            current = waiting[-1]
            if current in known:
                waiting.pop()
                continue
            missing = [below for _, below in self.entries[current] if below not in known]
            if missing:
                waiting += missing
                continue
            known[current] = self._node(False, {frame: known[below] for frame, below in self.entries[current]})
            waiting.pop()
        return known[node]
