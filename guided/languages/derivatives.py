"""Derivatives: what may follow each character. A term's derivatives make it the state of an automaton.

The derivative of a term by a character is the term of what may follow that character. It is computed once per term,
for all characters at once, and only on demand, so an automaton grows where it is walked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from ..budget import Budget
from .terms import EMPTY_TEXT, EVERYTHING, NOTHING, TermTable

Arcs = tuple[tuple[int, int], ...]
"""(mask of character classes, next term); masks are disjoint, no next term is NOTHING."""

_T = TypeVar("_T")


class Derivatives:
    """The derivatives of the terms of one table."""

    def __init__(self, terms: TermTable) -> None:
        self._terms = terms
        self._arcs: dict[int, Arcs] = {}

    def arcs(self, term: int) -> Arcs:
        """What each character leads to. Characters of no arc lead to NOTHING."""
        known = self._arcs.get(term)
        if known is not None:
            return known
        pending = [term]
        while pending:
            current = pending[-1]
            if current in self._arcs:
                pending.pop()
                continue
            missing = [needed for needed in self._needed(current) if needed not in self._arcs]
            if missing:
                pending += missing
                continue
            self._terms.budget.spend(4)
            self._arcs[current] = self._derive(current)
            pending.pop()
        return self._arcs[term]

    def _needed(self, term: int) -> tuple[int, ...]:
        """The terms whose arcs make up the term's."""
        key = self._terms.keys[term]
        kind = key[0]
        if kind == "cat":
            return (key[1], key[2]) if self._terms.nullable[key[1]] else (key[1],)
        if kind in ("rep", "not"):
            return (key[1],)
        if kind in ("or", "and"):
            return key[1]
        return ()

    def _derive(self, term: int) -> Arcs:
        key = self._terms.keys[term]
        kind = key[0]
        if kind == "chars":
            return ((key[1], EMPTY_TEXT),)
        if kind == "cat":
            _, head, tail = key
            through = [(mask, self._terms.concatenate(rest, tail)) for mask, rest in self._arcs[head]]
            if self._terms.nullable[head]:
                return self._overlay([through, self._arcs[tail]])
            return self._merged_arcs(through)
        if kind == "rep":
            _, body, low, high = key
            again = self._terms.repeat(body, low - 1 if low else 0, high - 1)
            return self._merged_arcs([(mask, self._terms.concatenate(rest, again)) for mask, rest in self._arcs[body]])
        if kind == "or":
            return self._overlay([self._arcs[member] for member in key[1]])
        if kind == "and":
            return self._common_arcs([self._arcs[member] for member in key[1]])
        if kind == "not":
            return self._complement_arcs(self._arcs[key[1]])
        if kind == "leaf":
            _, leaf, state = key
            return self._merged_arcs(
                [
                    (self._terms.classes.mask_of(chars), self._terms.leaf(leaf, target))
                    for chars, target in leaf.arcs(state)
                ]
            )
        return ()

    def _merged_arcs(self, arcs: list[tuple[int, int]]) -> Arcs:
        """The same arcs with one for each target."""
        if len(arcs) == 1:
            return () if arcs[0][1] == NOTHING else tuple(arcs)
        by_target: dict[int, int] = {}
        for mask, target in arcs:
            by_target[target] = by_target.get(target, 0) | mask
        by_target.pop(NOTHING, None)
        return tuple((mask, target) for target, mask in by_target.items())

    def _overlay(self, lists: list) -> Arcs:
        """The arcs of a union: where several lead on, to the union of their targets."""
        return self._merged_arcs(
            [(mask, self._terms.union(targets)) for mask, targets in overlay(lists, self._terms.budget)]
        )

    def _common_arcs(self, lists: list[Arcs]) -> Arcs:
        common: list[tuple[int, tuple[int, ...]]] = [(self._terms.classes.full_mask, ())]
        for arcs in lists:
            self._terms.budget.spend(len(common) * len(arcs) // 4)
            common = [
                (both, (*targets, target))
                for mask, targets in common
                for other, target in arcs
                if (both := mask & other)
            ]
        return self._merged_arcs([(mask, self._terms.intersect(targets)) for mask, targets in common])

    def _complement_arcs(self, arcs: Arcs) -> Arcs:
        rest = self._terms.classes.full_mask
        result: list[tuple[int, int]] = []
        for mask, target in arcs:
            rest &= ~mask
            result.append((mask, self._terms.complement(target)))
        if rest:
            result.append((rest, EVERYTHING))
        return self._merged_arcs(result)


def overlay(lists: Iterable[Sequence[tuple[int, _T]]], budget: Budget) -> list[tuple[int, tuple[_T, ...]]]:
    """Splits the characters by where each list of (mask, target) leads.

    Returns:
        (mask, the targets of the lists that have an arc there); masks are disjoint and cover all arcs.
    """
    parts: list[tuple[int, tuple[_T, ...]]] = []
    for arcs in lists:
        if not parts:
            parts = [(mask, (target,)) for mask, target in arcs]
            continue
        budget.spend(len(parts) * len(arcs) // 4)
        fresh: list[tuple[int, tuple[_T, ...]]] = []
        remaining = list(arcs)
        for mask, targets in parts:
            left: list[tuple[int, _T]] = []
            for other, target in remaining:
                both = mask & other
                if both:
                    fresh.append((both, (*targets, target)))
                    mask &= ~both
                    other &= ~both
                    if other:
                        left.append((other, target))
                else:
                    left.append((other, target))
            remaining = left
            if mask:
                fresh.append((mask, targets))
        fresh += [(mask, (target,)) for mask, target in remaining]
        parts = fresh
    return parts
