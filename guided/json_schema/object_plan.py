"""What one object clause asks for, in the form that the automaton needs: which keys may come next so that the object
can still be completed, and what their values must satisfy.

An `ObjectState` says how far an object has come with regard to one clause:
    position: declared names before it in the clause's order may not come any more (always 0 with `any_order`);
    missing: bit set of the declared names that must still come;
    number: properties so far, as far as they matter (0 when the clause does not count);
    found: bit set of the clause's `exists` that are satisfied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .keys import listed_names
from .schema import conjunction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..languages.language import Language
    from .clauses import KeyExists, KeyRule, ObjectClause
    from .keys import KeySpace
    from .satisfiability import Satisfiability
    from .schema import Schema


class ObjectState(NamedTuple):
    """See the module."""

    position: int
    missing: int
    number: int
    found: int


class ObjectPlan:
    """One clause with the names of the objects numbered by `space`. `seen` is always the bit set of declared names
    that the object has.

    Attributes:
        initial: the state of the object without properties.
        counts: whether the number of properties matters.
        may_remember: whether `remembers` may ever be true.
    """

    def __init__(self, clause: ObjectClause, space: KeySpace, satisfiability: Satisfiability) -> None:
        self.clause = clause
        self.space = space
        self._satisfiability = satisfiability
        number = space.number
        order = [number[name] for name in clause.order]
        self._ordered = not satisfiability.any_order
        self._position = {name: position for position, name in enumerate(order)} if self._ordered else {}
        self._all = (1 << len(space.names)) - 1
        self._from_position = _suffix_masks(order) if self._ordered else [self._all]
        self._outside_order = self._all & ~self._from_position[0]
        self._required_positions = [p for p, name in enumerate(order) if space.names[name] in clause.required]
        self._depends = {number[name]: _mask(number[other] for other in needed) for name, needed in clause.dependent}
        self._rules = _KeyIndex(clause.rules, space)
        self._exists = _KeyIndex(clause.exists, space)
        self._values: dict[int, Schema] = {}
        self._asked = 0
        self._good = 0
        self._good_classes: tuple[int, ...] | None = None
        self._offered_names: dict[tuple[ObjectState, int], int] = {}
        self._live: dict[tuple[ObjectState, int], bool] = {}
        self.counts = clause.min_properties > 0 or clause.max_properties is not None
        self.may_remember = clause.min_properties > 1 or bool(clause.exists)
        self.initial = ObjectState(0, _mask(number[name] for name in clause.required), 0, 0)
        self._simple = not self._depends and not clause.exists

    def accepts(self, state: ObjectState) -> bool:
        """Whether the object may end."""
        return (
            not state.missing
            and state.number >= self.clause.min_properties
            and state.found == (1 << len(self.clause.exists)) - 1
        )

    def remembers(self, state: ObjectState) -> bool:
        """Whether an additional name that comes now must not be one that came before or comes again: if it did, the
        object would have fewer properties than counted, or one that was looked for would be overwritten. (Else it does
        no harm: the second value obeys the same rules, and whichever a parser keeps, the object is valid.)"""
        return self.may_remember and (bool(self.clause.exists) or state.number < self.clause.min_properties)

    def has_endless_names(self) -> bool:
        """Whether the object can always be given another additional name."""
        return any(self._is_endless(c) for c in self._satisfiable_classes())

    def may_come_later(self, state: ObjectState) -> int:
        """Bit set of the declared names for which it matters whether they have been seen."""
        names = self._from_position[state.position] | self._outside_order
        for needed in self._depends.values():
            names |= needed
        return names

    def offered_names(self, state: ObjectState, seen: int) -> int:
        """Bit set of the declared names of which one may come next."""
        key = (state, seen)
        offered = self._offered_names.get(key)
        if offered is None:
            before = self._satisfiability.provisional_answers
            offered = self._find_offered_names(state, seen, self._all)
            if before == self._satisfiability.provisional_answers:
                self._offered_names[key] = offered
        return offered

    def offered_classes(self, state: ObjectState, seen: int) -> tuple[int, ...]:
        """The numbers of the classes of additional names of which one may come next."""
        if self._ordered and self._first_missing(state) is not None:
            return ()
        maximum = self.clause.max_properties
        if maximum is not None and maximum - state.number <= state.missing.bit_count():
            return ()
        offered = self._satisfiable_classes()
        if self._simple:
            return offered
        return tuple(c for c in offered if any(self.successors(state, -1 - c, seen)))

    def offers(self, state: ObjectState, key: int, seen: int) -> bool:
        """Whether a property `key` may come next."""
        if key < 0:
            return -1 - key in self.offered_classes(state, seen)
        offered = self._offered_names.get((state, seen))
        if offered is None:
            offered = self._find_offered_names(state, seen, 1 << key)
        return bool(offered >> key & 1)

    def successors(self, state: ObjectState, key: int, seen: int) -> Iterator[tuple[Schema, ObjectState]]:
        """The ways to go on with a property `key` (see `json_keys`): what its value must satisfy, and the state that
        this leads to."""
        position, missing = state.position, state.missing
        if key >= 0:
            missing = (missing | self._depends.get(key, 0) & ~seen) & ~(1 << key)
            seen |= 1 << key
        if self._ordered:
            position = self._position.get(key, len(self.clause.order) - 1) + 1 if key >= 0 else len(self.clause.order)
        count = state.number + 1 if self.counts else 0
        maximum = self.clause.max_properties
        if maximum is not None and count > maximum:
            return
        if maximum is None and count > self.clause.min_properties:
            count = self.clause.min_properties
        value = self.value(key)
        if not self.clause.exists:
            self._satisfiability.budget.spend()
            after = ObjectState(position, missing, count, state.found)
            if self._satisfiability.satisfiable(value) and self._live_after(after, seen):
                yield value, after
            return
        on_key = [e for e in self._exists.on(key) if not state.found >> e & 1]
        for chosen in _subsets(on_key):
            self._satisfiability.budget.spend()
            wanted = conjunction(value, *(self.clause.exists[e].value for e in chosen)) if chosen else value
            after = ObjectState(position, missing, count, state.found | _mask(chosen))
            if self._satisfiability.satisfiable(wanted) and self._live_after(after, seen):
                yield wanted, after

    def value(self, key: int) -> Schema:
        """What the value of a property with this key must satisfy."""
        value = self._values.get(key)
        if value is None:
            numbers = self._rules.on(key)
            if len(numbers) == 1:
                value = self.clause.rules[numbers[0]].value
            else:
                value = conjunction(*[self.clause.rules[number].value for number in numbers])
            self._values[key] = value
        return value

    def best(self, states: list[ObjectState]) -> list[ObjectState]:
        """The states without those that can do nothing that another of them cannot do: that have found less."""
        return [
            state
            for place, state in enumerate(states)
            if not any(
                other.found & state.found == state.found
                and other._replace(found=0) == state._replace(found=0)
                and (other != state or before < place)
                for before, other in enumerate(states)
            )
        ]

    def children(self) -> Iterator[Schema]:
        """What the values of properties may have to satisfy."""
        for key in (*range(len(self.space.names)), *(-1 - c for c in range(len(self.space.classes)))):
            for chosen in _subsets(list(self._exists.on(key))):
                yield conjunction(self.value(key), *(self.clause.exists[e].value for e in chosen))

    def live(self, state: ObjectState, seen: int) -> bool:
        """Whether the object can be completed.

        It is exact, but for clauses that have `dependent` names and a `max_properties` at once: there a completion is
        found only if it takes no optional name that brings others along.
        """
        if self.accepts(state):
            return True
        key = (state, seen)
        known = self._live.get(key)
        if known is None:
            before = self._satisfiability.provisional_answers
            known = self._find_completion(state, seen)
            if known or before == self._satisfiability.provisional_answers:
                self._live[key] = known
        return known

    def _find_offered_names(self, state: ObjectState, seen: int, among: int) -> int:
        if self._ordered:
            in_order = self._from_position[state.position]
            first = self._first_missing(state)
            window = in_order | self._outside_order if first is None else in_order & ~self._from_position[first + 1]
        else:
            window = self._all
        window &= among & ~seen
        maximum = self.clause.max_properties
        if maximum is not None and maximum - state.number <= state.missing.bit_count():
            window &= state.missing
        window = self._satisfiable_names(window)
        if self._simple:
            return self._leaving_enough(state, window, seen)
        return _mask(name for name in bit_numbers(window) if any(self.successors(state, name, seen)))

    def _leaving_enough(self, state: ObjectState, window: int, seen: int) -> int:
        """Those of the names in `window` after which `min_properties` can still be reached."""
        needed = self.clause.min_properties - state.number
        if needed <= max(1, state.missing.bit_count()) or self._satisfiable_classes():
            return window
        # Only declared names can come. Those that may come after a name are the fewer, the later it is in the order.
        coming = self._satisfiable_names(self._all & ~seen)
        by_position = sorted(bit_numbers(window), key=lambda name: self._position.get(name, len(self.clause.order)))
        for name in reversed(by_position):
            after = self._outside_order
            if name in self._position or not self._ordered:
                position = self._position[name] + 1 if self._ordered else 0
                after |= self._from_position[position]
            if (coming & after & ~(1 << name)).bit_count() >= needed - 1:
                break
            window &= ~(1 << name)
        return window

    def _live_after(self, state: ObjectState, seen: int) -> bool:
        if self._simple:
            return True  # what is offered is known to leave enough
        return self.live(state, seen)

    def _find_completion(self, state: ObjectState, seen: int) -> bool:
        clause = self.clause
        self._satisfiability.budget.spend(2)
        may_come = (self._from_position[state.position] | self._outside_order if self._ordered else self._all) & ~seen
        must = self._with_dependents(state.missing, seen)
        if must & ~may_come or self._satisfiable_names(must) != must:
            return False
        size = must.bit_count()
        room = None if clause.max_properties is None else clause.max_properties - state.number
        needed = clause.min_properties - state.number
        if room is not None and (size > room or needed > room):
            return False
        pending = [e for e in range(len(clause.exists)) if not state.found >> e & 1]
        if needed <= size and not pending:
            return True
        if needed > size:
            free = self._free_names(may_come & ~must, must, seen, room).bit_count()
            if free < needed - size and not self._satisfiable_classes():
                return False
        return not pending or self._can_find(pending, must, may_come, room, seen)

    def _can_find(self, pending: list[int], must: int, may_come: int, room: int | None, seen: int) -> bool:
        """Whether properties can be added (within `room`, besides those in `must`) that satisfy all `pending` exists.
        Depth first search over which property satisfies which: `slots` are (key, exists that it is to satisfy)."""
        stack: list[tuple[int, tuple[tuple[int, frozenset[int]], ...]]] = [(0, ())]
        num_free = None if room is None else room - must.bit_count()
        optional = self._free_names(may_come & ~must, must, seen, room)
        while stack:
            self._satisfiability.budget.spend(3)
            done, slots = stack.pop()
            if done == len(pending):
                return True
            exists = pending[done]
            fits = self._exists
            for index, (key, chosen) in enumerate(slots):
                if exists in fits.on(key) and self._fits(key, chosen | {exists}):
                    stack.append((done + 1, (*slots[:index], (key, chosen | {exists}), *slots[index + 1 :])))
            taken = {key for key, _ in slots if key >= 0}
            extra = sum(1 for key, _ in slots if key < 0 or not must >> key & 1)
            new = [name for name in bit_numbers(must) if name not in taken]
            if num_free is None or extra < num_free:
                new += [name for name in bit_numbers(optional) if name not in taken]
                new += [-1 - c for c in self._satisfiable_classes()]
            for key in new:
                if exists in fits.on(key) and self._fits(key, frozenset((exists,))):
                    stack.append((done + 1, (*slots, (key, frozenset((exists,))))))
        return False

    def _fits(self, key: int, chosen: frozenset[int]) -> bool:
        values = (self.clause.exists[e].value for e in sorted(chosen))
        return self._satisfiability.satisfiable(conjunction(self.value(key), *values))

    def _free_names(self, names: int, must: int, seen: int, room: int | None) -> int:
        """Those of `names` that may be added to the object, each without changing what the others need."""
        good = self._satisfiable_names(names)
        if self._depends:
            if room is None:
                while True:  # take away what brings along a name that cannot come
                    bad = [n for n in bit_numbers(good) if self._depends.get(n, 0) & ~seen & ~(good | must)]
                    if not bad:
                        break
                    good &= ~_mask(bad)
            else:
                good = _mask(n for n in bit_numbers(good) if not self._depends.get(n, 0) & ~seen & ~must)
        return good

    def _with_dependents(self, names: int, seen: int) -> int:
        if self._depends:
            new = names
            while new:
                brought = 0
                for name in bit_numbers(new):
                    brought |= self._depends.get(name, 0)
                new = brought & ~names & ~seen
                names |= new
        return names

    def _first_missing(self, state: ObjectState) -> int | None:
        """The position of the first missing name in the order, if one of the order is missing."""
        missing = state.missing & self._from_position[state.position]
        if not missing:
            return None
        if not self._depends:
            for position in self._required_positions:
                if position >= state.position:
                    return position
        return min(self._position[name] for name in bit_numbers(missing))

    def _satisfiable_names(self, names: int) -> int:
        """Those of `names` that can have a value."""
        unknown = names & ~self._asked
        result = names & self._good
        if not unknown:
            return result
        satisfiability = self._satisfiability
        known = satisfiability.known
        for name in bit_numbers(unknown):
            before = satisfiability.provisional_answers
            value = self.value(name)
            good = known.get(value)
            if good is None:
                satisfiability.budget.spend(2)
                good = satisfiability.satisfiable(value)
            if good or before == satisfiability.provisional_answers:
                self._asked |= 1 << name
                self._good |= good << name
            result |= good << name
        return result

    def _satisfiable_classes(self) -> tuple[int, ...]:
        """The classes of additional names that may come. Where names must be told apart, a class must be endless: each
        beginning of a name can become one of infinitely many (so that for a class of, say, all names of three letters
        none is offered there)."""
        if self._good_classes is not None:
            return self._good_classes
        before = self._satisfiability.provisional_answers
        good = tuple(
            c
            for c in range(self.space.num_classes)
            if self._satisfiability.satisfiable(self.value(-1 - c)) and (not self.may_remember or self._is_endless(c))
        )
        if before == self._satisfiability.provisional_answers:
            self._good_classes = good
        return good

    def _is_endless(self, class_number: int) -> bool:
        return self.space.is_endless(class_number)


class _KeyIndex:
    """Which of a clause's rules (or exists) a key falls under."""

    def __init__(self, parts: tuple[KeyRule, ...] | tuple[KeyExists, ...], space: KeySpace) -> None:
        self._by_name: dict[int, tuple[int, ...]] = {}
        self._all_but: list[tuple[int, frozenset[str]]] = []
        self._general: list[tuple[int, Language]] = []
        self._space = space
        self._found: dict[int, tuple[int, ...]] = {}
        for index, part in enumerate(parts):
            listed = listed_names(part.keys)
            if listed is None:
                self._general.append((index, part.keys))
            elif listed[1]:
                for name in listed[0]:
                    number = space.number[name]
                    self._by_name[number] = (*self._by_name.get(number, ()), index)
            else:
                self._all_but.append((index, listed[0]))
        # Of most clauses: no declared name falls under a pattern, or under what is said of all other names.
        self._names_are_listed = not self._general and all(len(names) == len(space.names) for _, names in self._all_but)

    def on(self, key: int) -> tuple[int, ...]:
        """The numbers of the parts whose names hold those of `key`."""
        if key >= 0 and self._names_are_listed:
            return self._by_name.get(key, ())
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = tuple(sorted(self._find(key)))
        return found

    def _find(self, key: int) -> list[int]:
        if key >= 0:
            name = self._space.names[key]
            found = list(self._by_name.get(key, ()))
            found += [index for index, names in self._all_but if name not in names]
            return found + [index for index, language in self._general if language.contains(name)]
        found = [index for index, _ in self._all_but]
        if self._general:
            inside = self._space.classes[-1 - key][1]
            general = self._space.general
            found += [index for index, language in self._general if inside >> general.index(language) & 1]
        return found


def bit_numbers(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, the lowest first; takes time in proportion to them and the length."""
    for place, byte in enumerate(mask.to_bytes((mask.bit_length() + 7) // 8, "little")):
        while byte:
            low = byte & -byte
            yield 8 * place + low.bit_length() - 1
            byte ^= low


def _mask(bits: Iterable[int]) -> int:
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask


def _suffix_masks(order: list[int]) -> list[int]:
    masks = [0]
    for name in reversed(order):
        masks.append(masks[-1] | 1 << name)
    return masks[::-1]


def _subsets(items: list[int]) -> Iterator[tuple[int, ...]]:
    """All of them, the largest first."""
    for bits in range((1 << len(items)) - 1, -1, -1):
        yield tuple(item for index, item in enumerate(items) if bits >> index & 1)
