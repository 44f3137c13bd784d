"""What one array clause asks for, in the form that the automaton needs: what the next item must satisfy so that the
array can still be completed.

An `ArrayState` says how far an array has come with regard to one clause:
    length: the number of items so far (as far as it matters);
    counts: for each of the clause's `contains` how many items counted (as far as it matters);
    repeated: whether an item has come twice, for a clause that asks for it (else True from the beginning);
    used: bit set of the clause's rare values that have come, for a clause that looks at repetitions.

Items that must be different are told apart in two ways. Values of which there are only few (null, the members of an
enum) are *rare*: each is a goal of its own, and the state knows which have come, so that it is exact when they run
out. Everything else must be *endless*: whatever has been written of such an item, it can still become one of infinitely
many. There the pushdown automaton remembers the items' texts, and forbids the end of one that came before. Strings
that are neither (say, of at most 39 characters) are *scarce*: their rows ask how many of those that begin alike have
come (`json_scarce_strings`), and there are fewer items than strings. Other items that are neither (say, objects without
free keys) are not supported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import GrammarError
from .repetition import count_scarce, find_rare_values, is_endless
from .schema import conjunction, negation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .clauses import ArrayClause
    from .satisfiability import Satisfiability
    from .schema import Schema


class ArrayState(NamedTuple):
    """See the module."""

    length: int
    counts: tuple[int, ...]
    repeated: bool
    used: int


class ArrayPlan:
    """One clause.

    Attributes:
        initial: the state of the array without items.
        unique: whether no item may come twice.
        compares: whether it matters which items there are.
    """

    def __init__(self, clause: ArrayClause, satisfiability: Satisfiability) -> None:
        self.clause = clause
        self.unique = clause.unique and (clause.max_items is None or clause.max_items > 1)
        self.compares = self.unique or clause.has_duplicates
        self.initial = ArrayState(0, (0,) * len(clause.contains), not clause.has_duplicates, 0)
        self._satisfiability = satisfiability
        bounds = [len(clause.prefix), clause.min_items]
        for contains in clause.contains:
            bounds.append(contains.first if contains.last is None else contains.last)
        self._last_index = max(bounds)
        self._longest: int | None = None
        self._live: dict[ArrayState, bool] = {}
        self._rare: tuple[Schema, ...] | None = None
        self._most: int | None = None
        """How many items may come, where they could run out."""
        self._splits: dict[Schema, tuple[int, Schema]] = {}

    def accepts(self, state: ArrayState) -> bool:
        """Whether the array may end."""
        clause = self.clause
        return (
            state.length >= clause.min_items
            and state.repeated
            and all(number >= contains.minimum for number, contains in zip(state.counts, clause.contains, strict=True))
        )

    def after_repetition(self, state: ArrayState) -> ArrayState | None:
        """The state instead of `state` when the last item turns out to have come before; None: it must not."""
        if self.unique:
            return None
        return state._replace(repeated=True, used=0)

    def successors(self, state: ArrayState) -> Iterator[tuple[Schema, ArrayState]]:
        """The ways to go on with another item: what it must satisfy, and the state that this leads to."""
        for wanted, after in self._choices(state):
            self._satisfiability.budget.spend()
            if not self._satisfiability.satisfiable(wanted):
                continue
            if not self.compares or (not self.unique and state.repeated):
                if self.live(after):
                    yield wanted, after
                continue
            rare, rest = self._split(wanted)
            for number, value in enumerate(self._rare_values()):
                if not rare >> number & 1:
                    continue
                comes_again = state.used >> number & 1
                if comes_again and self.unique:
                    continue
                reached = after._replace(used=state.used | 1 << number, repeated=bool(state.repeated or comes_again))
                if self.live(reached):
                    yield value, self._without_idle(reached)
            if self._satisfiability.satisfiable(rest) and self.live(after):
                yield rest, after

    def live(self, state: ArrayState) -> bool:
        """Whether the array can be completed."""
        if self.accepts(state):
            return True
        known = self._live.get(state)
        if known is None:
            before = self._satisfiability.provisional_answers
            known = self._find_completion(state)
            if known or before == self._satisfiability.provisional_answers:
                self._live[state] = known
        return known

    def best(self, states: list[ArrayState]) -> list[ArrayState]:
        """The states without those that can do nothing that another of them cannot do: that have counted less, where
        there is no maximum."""
        return [
            state
            for place, state in enumerate(states)
            if not any(
                self._surpasses(other, state) and (other != state or before < place)
                for before, other in enumerate(states)
            )
        ]

    def _surpasses(self, one: ArrayState, other: ArrayState) -> bool:
        return one._replace(counts=()) == other._replace(counts=()) and all(
            mine >= its if contains.maximum is None else mine == its
            for mine, its, contains in zip(one.counts, other.counts, self.clause.contains, strict=True)
        )

    def children(self) -> Iterator[Schema]:
        """What items may have to satisfy.

        Raises:
            GrammarError: they must be different, and cannot be told apart.
        """
        items = self._kinds_of_items()
        for contains in self.clause.contains:
            if contains.maximum is not None:
                items |= {conjunction(item, negation(contains.item)): None for item in items}
        for item in items:
            if self.unique and self._satisfiability.satisfiable(item):
                self._split(item)
            yield item

    def _without_idle(self, state: ArrayState) -> ArrayState:
        return state if self.unique or not state.repeated else state._replace(used=0)

    def _choices(self, state: ArrayState) -> Iterator[tuple[Schema, ArrayState]]:
        """`successors` before values are told apart, and whether or not they can be completed."""
        clause = self.clause
        index = state.length
        most = self._most_items()
        if clause.max_items is not None and index >= clause.max_items:
            return
        if most is not None and index >= most:
            return
        item = self._item(index)
        after = index + 1
        if clause.max_items is None and most is None:
            after = min(after, self._last_index)
        choices: list[tuple[tuple[Schema, ...], tuple[int, ...]]] = [((), ())]
        for number, contains in zip(state.counts, clause.contains, strict=True):
            inside = contains.first <= index and (contains.last is None or index < contains.last)
            if not inside or (contains.maximum is None and number >= contains.minimum):
                choices = [(wanted, (*counts, number)) for wanted, counts in choices]
                continue
            more = []
            if contains.maximum is None or number < contains.maximum:
                more += [((*wanted, contains.item), (*counts, number + 1)) for wanted, counts in choices]
            if contains.maximum is None:
                more += [(wanted, (*counts, number)) for wanted, counts in choices]
            else:
                more += [((*wanted, negation(contains.item)), (*counts, number)) for wanted, counts in choices]
            choices = more
        for wanted, counts in choices:
            schema = conjunction(item, *wanted) if wanted else item
            yield schema, ArrayState(after, counts, state.repeated, state.used)

    def _item(self, index: int) -> Schema:
        return self.clause.prefix[index] if index < len(self.clause.prefix) else self.clause.rest

    def _kinds_of_items(self) -> dict[Schema, None]:
        """What items may have to satisfy, as an ordered set."""
        items = dict.fromkeys((*self.clause.prefix, self.clause.rest)[: self.clause.max_items])
        for contains in self.clause.contains:
            items |= {conjunction(item, contains.item): None for item in items}
        return items

    def _rare_values(self) -> tuple[Schema, ...]:
        """All rare values of the clause's items."""
        if self._rare is not None:
            return self._rare
        before = self._satisfiability.provisional_answers
        values: dict[Schema, None] = {}
        for schema in self._kinds_of_items():
            values |= dict.fromkeys(find_rare_values(schema, self._satisfiability))
        if before == self._satisfiability.provisional_answers:
            self._rare = tuple(values)
        return tuple(values)

    def _split(self, schema: Schema) -> tuple[int, Schema]:
        """Which of the rare values satisfy `schema`, and the rest of it, which is endless.

        Raises:
            GrammarError: it is not.
        """
        found = self._splits.get(schema)
        if found is not None:
            return found
        before = self._satisfiability.provisional_answers
        values = self._rare_values()
        rare = 0
        for number, value in enumerate(values):
            if self._satisfiability.satisfiable(conjunction(schema, value)):
                rare |= 1 << number
        rest = conjunction(schema, *(negation(value) for value in values))
        endless = not self.unique or is_endless(rest, self._satisfiability)
        if not endless and not self.clause.prefix and not self.clause.contains:
            self._most = count_scarce(rest, self._satisfiability)
        if before != self._satisfiability.provisional_answers:
            return rare, rest
        if not endless and self._most is None:
            reason = "items that must be different must be of a small set, strings, or without a bound on their length"
            raise GrammarError("unsupported", reason, keyword="uniqueItems")
        self._splits[schema] = rare, rest
        return rare, rest

    def _find_completion(self, state: ArrayState) -> bool:
        clause = self.clause
        shortest = max(state.length, clause.min_items)
        longest = self._max_length()
        most = self._most_items()
        if most is not None:
            longest = most if longest is None else min(longest, most)
        if longest is not None and shortest > longest:
            return False
        if not state.repeated:
            return self._can_repeat(state, longest)
        if len(clause.contains) > 1 or (self.unique and clause.contains):
            return self._has_room_for_all(state, shortest, longest) or self._search(state)
        if self.unique:
            last = len(clause.prefix)
            items = [(item, 1) for item in clause.prefix[state.length : shortest]]
            return self._has_distinct([*items, (clause.rest, max(0, shortest - max(last, state.length)))], state.used)
        return not clause.contains or self._can_contain(state, shortest, longest)

    def _most_items(self) -> int | None:
        """How many items may come where they could run out (`_split` finds out); else None."""
        clause = self.clause
        if not self.unique or clause.prefix or clause.contains or not self._satisfiability.satisfiable(clause.rest):
            return None
        self._split(clause.rest)
        return self._most

    def _max_length(self) -> int | None:
        """How long the array can be; None: any length."""
        if self._longest is None:
            clause = self.clause
            before = self._satisfiability.provisional_answers
            longest = clause.max_items if clause.max_items is not None else -1
            for index, item in enumerate((*clause.prefix, clause.rest)):
                if 0 <= longest <= index:
                    break
                if not self._satisfiability.satisfiable(item):
                    longest = index
                    break
            if before != self._satisfiability.provisional_answers:
                return None if longest < 0 else longest
            self._longest = longest
        return None if self._longest < 0 else self._longest

    def _can_contain(self, state: ArrayState, shortest: int, longest: int | None) -> bool:
        """With one `contains`: whether a length allows enough items that count, and no more than may.

        The prefix is gone through item by item, the rest in at most three runs of items that are alike. Items are
        added until there are enough; a longer array would only have more items that cannot but count.
        """
        (contains,) = self.clause.contains
        wanted = contains.minimum - state.counts[0]
        spare = None if contains.maximum is None else contains.maximum - state.counts[0]
        prefix, rest = self.clause.prefix, self.clause.rest
        last = contains.last
        cuts = {shortest, contains.first, len(prefix), *range(state.length, len(prefix))}
        cuts |= set() if last is None else {last}
        places = sorted(cut for cut in cuts if cut >= state.length)
        for start, end in zip(places, [*places[1:], None], strict=True):
            if start >= shortest and wanted <= 0:
                break
            room = None if longest is None else longest - start
            if room is not None and room <= 0:
                return False
            item = prefix[start] if start < len(prefix) else rest
            inside = contains.first <= start and (last is None or start < last)
            if end is not None:
                length = end - start
            elif inside:
                length = wanted
            else:
                return False
            can_count = inside and self._satisfiability.satisfiable(conjunction(item, contains.item))
            if end is None and not can_count:
                return False
            if start >= shortest and can_count:
                length = min(length, wanted)
            if room is not None and length > room:
                if start < shortest or (can_count and wanted > room) or not can_count:
                    return False
                length = room
            if can_count:
                wanted -= length
                if spare is not None and not self._satisfiability.satisfiable(
                    conjunction(item, negation(contains.item))
                ):
                    spare -= length
        return wanted <= 0 and (spare is None or spare >= 0)

    def _can_repeat(self, state: ArrayState, longest: int | None) -> bool:
        """Whether an item can still come twice. Only worked out for arrays without `contains` whose length has no
        bound; of others none is offered, though there may be some."""
        if self.clause.contains or self.clause.unique or longest is not None:
            return False
        return self._satisfiability.satisfiable(self.clause.rest)

    def _has_room_for_all(self, state: ArrayState, shortest: int, longest: int | None) -> bool:
        """Whether each `contains` can have items of its own behind the prefix: then no search is needed."""
        clause = self.clause
        length = max(state.length, len(clause.prefix), *(contains.first for contains in clause.contains))
        for number, contains in zip(state.counts, clause.contains, strict=True):
            if contains.maximum is not None or contains.last is not None or self.unique:
                return False
            length += max(0, contains.minimum - number)
            if not self._satisfiability.satisfiable(conjunction(clause.rest, contains.item)):
                return False
        return self._satisfiability.satisfiable(clause.rest) and (longest is None or max(length, shortest) <= longest)

    def _search(self, state: ArrayState) -> bool:
        """Depth first search for a way to complete the array: for what has no shorter answer."""
        stack: list[tuple[ArrayState, tuple[Schema, ...]]] = [(state, ())]
        visited = set(stack)
        while stack:
            self._satisfiability.budget.spend(5)
            current, items = stack.pop()
            if self.accepts(current) and (
                not self.unique or self._has_distinct([(item, 1) for item in items], state.used)
            ):
                return True
            for wanted, after in [*self._choices(current)][::-1]:
                node = (after, (*items, wanted) if self.unique else ())
                if after != current and node not in visited and self._satisfiability.satisfiable(wanted):
                    visited.add(node)
                    stack.append(node)
        return False

    def _has_distinct(self, items: list[tuple[Schema, int]], used: int) -> bool:
        """Whether so many items of each kind can have values that are all different, none of them `used`."""
        scarce: list[tuple[int, int]] = []
        for schema, number in items:
            if number:
                rare, rest = self._split(schema)
                if not self._satisfiability.satisfiable(rest):
                    scarce.append((rare & ~used, number))
        # Enough for each when those with the fewest values choose first?
        taken, enough = 0, True
        for values, number in sorted(scarce, key=lambda kind: kind[0].bit_count()):
            taken += number
            enough &= taken <= values.bit_count()
        if enough or len({values for values, _ in scarce}) < 2:
            return enough
        owner: dict[int, int] = {}
        single = [values for values, number in scarce for _ in range(min(number, values.bit_count() + 1))]
        return all(_find_value(item, single, owner) for item in range(len(single)))


def _find_value(item: int, scarce: list[int], owner: dict[int, int]) -> bool:
    """One augmenting path: gives `item` a value, perhaps by giving others other ones."""
    came_from: dict[int, tuple[int, int]] = {}
    pending = [item]
    tried = 0
    while pending:
        current = pending.pop()
        values = scarce[current] & ~tried
        tried |= values
        while values:
            low = values & -values
            values ^= low
            holder = owner.get(low)
            if holder is not None:
                came_from[holder] = (current, low)
                pending.append(holder)
                continue
            value = low
            while True:  # hand the values on along the path
                previous = came_from.get(current)
                owner[value] = current
                if current == item or previous is None:
                    return True
                current, value = previous
    return False
