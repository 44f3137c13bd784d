"""Terms of regular languages: the expressions that derivatives are taken of.

A `TermTable` holds hash-consed terms, named by small ints. Counters stay counters (`a{0,20000}` is one term),
intersection and complement are terms like others, and the constructors simplify by exact laws only:

    x{a,b}|x{c,d}    -> x{min,max}        where the intervals touch
    (x{a,b}){c,d}    -> x{ac,bd}          where the intervals join up
    h·s | h·t        -> h·(s|t)
    x & .{a,b}       -> x                 where x's lengths lie within
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, Protocol

from ..budget import Budget
from .char_set import CharSet
from .character_classes import CharacterClasses
from .number_runs import join_runs

NOTHING = 0
EMPTY_TEXT = 1
EVERYTHING = 2

MAX_FACTOR_DEPTH = 40
"""Common heads are taken out of unions to this depth."""


class Leaf(Protocol):
    """A deterministic automaton written by hand, in which every state can still accept. Picklable, hashable."""

    @property
    def start(self) -> Any:
        """The first state."""
        ...

    @property
    def tells_ends_apart(self) -> bool:
        """Whether a state after which nothing can come must not be taken for EMPTY_TEXT."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether it accepts nothing, and must not be made a term."""
        ...

    def joined(self, other: Leaf) -> Leaf | None:
        """What both accept, as one automaton; None: it cannot tell."""
        ...

    def char_sets(self) -> Iterable[CharSet]:
        """All sets that its arcs use."""
        ...

    def arcs(self, state: Any) -> Iterable[tuple[CharSet, Any]]:
        """(characters, next state), disjoint."""
        ...

    def accepts(self, state: Any) -> bool: ...

    def min_length(self, state: Any) -> int:
        """How many characters at least until it accepts."""
        ...

    def max_length(self, state: Any) -> float:
        """How many characters at most may follow (`inf`: any number)."""
        ...


class TermTable:
    """Hash-consed terms over one alphabet of character classes.

    Attributes:
        keys: what each term is: ("chars", mask), ("leaf", leaf, state), ("cat", head, tail), ("rep", body, low, high),
            ("or", members), ("and", members), ("not", term), ("nothing",), ("empty",).
        nullable: whether the empty text is in it.
        min_length: a lower bound.
        max_length: an upper bound (`inf`); reached by simple terms that are not NOTHING.
        simple: without intersection and complement: such a term is empty only when it is NOTHING.
        furthest: no text that is the beginning of one of the term's needs more characters to become one; `inf` where
            that is not known. Where it is, `min_length` is exact.
    """

    def __init__(self, classes: CharacterClasses, budget: Budget) -> None:
        self.classes, self.budget = classes, budget
        self.keys: list[tuple] = []
        self.nullable: list[bool] = []
        self.min_length: list[int] = []
        self.max_length: list[float] = []
        self.simple: list[bool] = []
        self.furthest: list[float] = []
        self._ids: dict[tuple, int] = {}
        self._intern(("nothing",), False, 0, 0, True, 0)
        self._intern(("empty",), True, 0, 0, True, 0)
        any_char = 3
        everything = self._intern(("rep", any_char, 0, inf), True, 0, inf, True, 1)
        self.any_char = self._intern(("chars", classes.full_mask), False, 1, 1, True, 1)
        assert (everything, self.any_char) == (EVERYTHING, any_char)

    def chars(self, mask: int) -> int:
        """One character out of the classes."""
        return self._intern(("chars", mask), False, 1, 1, True, 1) if mask else NOTHING

    def leaf(self, leaf: Leaf, state) -> int:
        """What a leaf automaton accepts from one of its states."""
        key = ("leaf", leaf, state)
        known = self._ids.get(key)
        if known is not None:
            return known
        accepts, longest = leaf.accepts(state), leaf.max_length(state)
        if accepts and longest == 0 and not leaf.tells_ends_apart:
            return EMPTY_TEXT
        return self._intern(key, accepts, 0 if accepts else leaf.min_length(state), longest, True, inf)

    def concatenate(self, first: int, second: int) -> int:
        """`first` followed by `second`."""
        if first == NOTHING or second == NOTHING:
            return NOTHING
        heads: list[int] = []
        while self.keys[first][0] == "cat":
            _, head, first = self.keys[first]
            heads.append(head)
        heads.append(first)
        result = second
        for head in reversed(heads):
            result = self._prepend(head, result)
        return result

    def _prepend(self, head: int, tail: int) -> int:
        """Concatenation where `head` is no concatenation."""
        if head == EMPTY_TEXT:
            return tail
        if tail == EMPTY_TEXT:
            return head
        tail_key = self.keys[tail]
        after, rest = (tail_key[1], tail_key[2]) if tail_key[0] == "cat" else (tail, EMPTY_TEXT)
        body, low, high = self.as_repeat(head)
        after_body, after_low, after_high = self.as_repeat(after)
        if body == after_body and (self.keys[head][0] == "rep" or self.keys[after][0] == "rep"):
            return self._prepend(self.repeat(body, low + after_low, high + after_high), rest)
        return self._intern(
            ("cat", head, tail),
            self.nullable[head] and self.nullable[tail],
            self.min_length[head] + self.min_length[tail],
            self.max_length[head] + self.max_length[tail],
            self.simple[head] and self.simple[tail],
            max(self.furthest[head] + self.min_length[tail], self.furthest[tail]),
        )

    def as_repeat(self, term: int) -> tuple[int, int, float]:
        """Body, least and greatest number of a repetition; any other term is itself, once."""
        key = self.keys[term]
        return (key[1], key[2], key[3]) if key[0] == "rep" else (term, 1, 1)

    def repeat(self, body: int, low: int, high: float) -> int:
        """`body` from `low` to `high` times (`inf`: without end)."""
        if high == 0 or body == EMPTY_TEXT:
            return EMPTY_TEXT
        if body == NOTHING:
            return NOTHING if low else EMPTY_TEXT
        if low == 1 and high == 1:
            return body
        if self.nullable[body]:
            low = 0
        key = self.keys[body]
        if key[0] == "rep":
            inner, inner_low, inner_high = key[1], key[2], key[3]
            # k rounds cover [k·inner_low, k·inner_high]; consecutive ones join up when the first pair does.
            rounds = max(low, 1)
            joined = inner_high == inf or (rounds + 1) * inner_low <= rounds * inner_high + 1 or low == high
            reaches_zero = low > 0 or inner_low <= 1
            if joined and reaches_zero:
                return self.repeat(inner, low * inner_low, high * inner_high)
        return self._intern(
            ("rep", body, low, high),
            low == 0,
            low * self.min_length[body],
            high * self.max_length[body] if self.max_length[body] else 0,
            self.simple[body],
            self.furthest[body] + max(0, low - 1) * self.min_length[body],
        )

    def union(self, members: Iterable[int], depth: int = 0) -> int:
        """Any of the members."""
        flat: set[int] = set()
        for member in members:
            if self.keys[member][0] == "or":
                flat.update(self.keys[member][1])
            else:
                flat.add(member)
        flat.discard(NOTHING)
        if len(flat) > 1:
            flat = self._merged_union(flat, depth)
        if not flat:
            return NOTHING
        if len(flat) == 1:
            return flat.pop()
        ordered = tuple(sorted(flat))
        known = self._ids.get(("or", ordered))
        if known is not None:
            return known
        return self._intern(
            ("or", ordered),
            any(self.nullable[member] for member in ordered),
            min(self.min_length[member] for member in ordered),
            max(self.max_length[member] for member in ordered),
            all(self.simple[member] for member in ordered),
            max(self.furthest[member] for member in ordered),
        )

    def _merged_union(self, members: set[int], depth: int) -> set[int]:
        """Equal members written with fewer terms: joined classes, joined counters, common heads taken out."""
        if EVERYTHING in members:
            return {EVERYTHING}
        self.budget.spend(len(members))
        keys = self.keys
        mask = 0
        by_counter: dict[tuple[int, int], list[tuple[int, float]]] = {}
        by_head: dict[int, list[int]] = {}
        others: set[int] = set()
        for member in members:
            key = keys[member]
            kind = key[0]
            if kind == "chars":
                mask |= key[1]
                continue
            head, tail = (key[1], key[2]) if kind == "cat" else (member, EMPTY_TEXT)
            head_key = keys[head]
            if head_key[0] == "rep":
                by_counter.setdefault((head_key[1], tail), []).append((head_key[2], head_key[3]))
            elif member == EMPTY_TEXT:
                others.add(member)
            else:
                by_head.setdefault(head, []).append(tail)
        if mask:
            by_head.setdefault(self.chars(mask), []).append(EMPTY_TEXT)
        for (body, tail), runs in by_counter.items():
            if tail in by_head.get(body, ()):
                by_head[body].remove(tail)
                runs.append((1, 1))
        for (body, tail), runs in by_counter.items():
            for low, high in join_runs(runs):
                head = self.repeat(body, low, high)
                by_head.setdefault(head, []).append(tail)
        merged = others
        for head, tails in by_head.items():
            if len(tails) == 1:
                merged.add(self.concatenate(head, tails[0]))
            elif depth < MAX_FACTOR_DEPTH:
                merged.add(self.concatenate(head, self.union(tails, depth + 1)))
            else:
                merged.update(self.concatenate(head, tail) for tail in tails)
        for member in list(merged):
            key = keys[member]
            if key[0] == "or":
                merged.discard(member)
                merged.update(key[1])
        if len(merged) > 1:
            for member in list(merged):
                key = keys[member]
                if key[0] == "cat" and self.nullable[key[1]]:
                    # With a head that may be empty it accepts all that its tail does.
                    merged.discard(key[2])
                    if keys[key[2]][0] == "or":
                        merged.difference_update(keys[key[2]][1])
                if member != EMPTY_TEXT and self.nullable[member]:
                    merged.discard(EMPTY_TEXT)
        return merged

    def intersect(self, members: Iterable[int]) -> int:
        """What all of the members accept."""
        flat: set[int] = set()
        for member in members:
            if self.keys[member][0] == "and":
                flat.update(self.keys[member][1])
            else:
                flat.add(member)
        flat.discard(EVERYTHING)
        if NOTHING in flat:
            return NOTHING
        if len(flat) > 1:
            flat = self._merged_intersection(flat)
        if not flat:
            return EVERYTHING
        if len(flat) == 1:
            return flat.pop()
        ordered = tuple(sorted(flat))
        known = self._ids.get(("and", ordered))
        if known is not None:
            return known
        low = max(self.min_length[member] for member in ordered)
        high = min(self.max_length[member] for member in ordered)
        if low > high:
            return NOTHING
        return self._intern(("and", ordered), all(self.nullable[member] for member in ordered), low, high, False, inf)

    def _merged_intersection(self, members: set[int]) -> set[int]:
        keys = self.keys
        mask = -1
        low, high = 0, inf
        others: set[int] = set()
        for member in members:
            key = keys[member]
            if key[0] == "chars" and member != self.any_char:
                mask &= key[1]
            elif key[0] == "not" and key[1] in members:
                return {NOTHING}
            else:
                body, counted_low, counted_high = self.as_repeat(member)
                if body == self.any_char:
                    low, high = max(low, counted_low), min(high, counted_high)
                else:
                    others.add(member)
        if mask != -1:
            others.add(self.chars(mask))
        others.discard(EVERYTHING)
        if low > high or NOTHING in others:
            return {NOTHING}
        shortest = max((self.min_length[member] for member in others), default=0)
        longest = min((self.max_length[member] for member in others), default=inf)
        if low > longest or high < shortest:
            return {NOTHING}
        if EMPTY_TEXT in others:
            return {EMPTY_TEXT} if all(self.nullable[member] for member in others) and low == 0 else {NOTHING}
        low = 0 if low <= shortest else low
        high = inf if high >= longest else high
        if (low or high != inf) and len(others) == 1:
            (other,) = others
            body, least, most = self.as_repeat(other)
            if keys[body][0] == "chars":
                return {self.repeat(body, max(low, least), min(high, most))}
        if low or high != inf:
            others.add(self.repeat(self.any_char, low, high))
        return others

    def complement(self, term: int) -> int:
        """Every text that `term` does not accept."""
        if term == NOTHING:
            return EVERYTHING
        if term == EVERYTHING:
            return NOTHING
        if term == EMPTY_TEXT:
            return self.repeat(self.any_char, 1, inf)
        key = self.keys[term]
        if key[0] == "not":
            return key[1]
        body, low, high = self.as_repeat(term)
        if body == self.any_char:
            shorter = self.repeat(body, 0, low - 1) if low else NOTHING
            return self.union([shorter, self.repeat(body, int(high) + 1, inf) if high != inf else NOTHING])
        nullable = not self.nullable[term]
        return self._intern(("not", term), nullable, 0 if nullable else 1, inf, False, inf)

    def _intern(self, key: tuple, nullable: bool, low: int, high: float, simple: bool, furthest: float) -> int:
        term = self._ids.get(key)
        if term is None:
            term = self._ids[key] = len(self.keys)
            self.keys.append(key)
            self.nullable.append(nullable)
            self.min_length.append(low)
            self.max_length.append(high)
            self.simple.append(simple)
            self.furthest.append(furthest)
        return term
