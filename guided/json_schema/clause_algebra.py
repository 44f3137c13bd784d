"""Conjunctions and negations of what `json_clauses` describes: disjunctive normal form, kept small.

Lists of clauses are disjunctions. Multiplying two lists keeps only clauses that are not plainly contradictory, and
drops those that another one covers. Whether a clause that is left can be satisfied is the automaton's question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from ..budget import Budget
from ..errors import GrammarError
from ..languages.language import Language
from .clauses import ArrayClause, Contains, KeyExists, KeyRule, ObjectClause
from .patterns import has, literal
from .schema_nodes import EVERYTHING, NOTHING, Conjunction, Schema, negation
from .shapes import meet

MAX_CLAUSES = 2000
"""More alternatives than this for one value are refused."""

MAX_PRODUCTS = 20000
"""More pairs of clauses than this to look at are refused."""

MAX_COMPARED = 300
"""Lists up to this length are searched for clauses that another one covers."""

MAX_LISTED = 64
"""Rules for items behind an index are written out item by item up to this one."""

ANY_OBJECT = ObjectClause()
ANY_ARRAY = ArrayClause((), EVERYTHING)

Objects = tuple[ObjectClause, ...]
Arrays = tuple[ArrayClause, ...]
Clauses = TypeVar("Clauses", Objects, Arrays)


def both_objects(first: Objects, second: Objects, budget: Budget, simplest: int | None = None) -> Objects:
    """Objects that satisfy a clause of each list. With `simplest` only so many of the clauses, the least demanding."""
    if not first or not second:
        return ()
    if len(second) == 1 and second[0] is ANY_OBJECT:
        return first
    if len(first) == 1 and first[0] is ANY_OBJECT:
        return second
    _guard(len(first) * len(second), budget)
    # A clause that one of the other list covers is itself a product, and covers its other products: these are not made.
    coverage = _Coverage((*first, *second))
    rows, columns = range(len(first)), range(len(first), len(first) + len(second))
    left = [column for column in columns if not any(coverage.covers(row, column) for row in rows)]
    clauses = [second[column - len(first)] for column in columns if column not in left]
    for row, one in enumerate(first):
        rules = _Rules(one)
        for column in coverage.widest(left, row):
            both = _both_objects(rules, second[column - len(first)])
            if both is not None:
                clauses.append(both)
    return _not_too_many(either_object(clauses, simplest))


def objects_overlap(first: Objects, second: Objects, budget: Budget) -> bool:
    """Whether some object may satisfy a clause of each list: whether `both_objects` gives any."""
    _guard(len(first) * len(second), budget)
    return any(any(_both_objects(rules, other) is not None for other in second) for rules in map(_Rules, first))


def either_object(clauses: Iterable[ObjectClause], simplest: int | None = None) -> Objects:
    """The list without clauses that another one covers. With `simplest` only the so many that are least demanding."""
    distinct = tuple(dict.fromkeys(clauses))
    if len(distinct) < 2:
        return distinct
    if ANY_OBJECT in distinct:
        return (ANY_OBJECT,)
    if simplest is not None and len(distinct) > simplest:
        distinct = tuple(sorted(distinct, key=_demands))
    elif len(distinct) > MAX_COMPARED:
        return distinct
    coverage = _Coverage(distinct)
    kept: list[int] = []
    for place in range(len(distinct)):
        if any(coverage.covers(other, place) for other in kept):
            continue
        kept = [other for other in kept if not coverage.covers(place, other)]
        kept.append(place)
        if len(kept) == simplest:
            break
    return tuple([distinct[place] for place in kept])


def both_arrays(first: Arrays, second: Arrays, budget: Budget) -> Arrays:
    """Arrays that satisfy a clause of each list."""
    if not first or not second:
        return ()
    if len(second) == 1 and second[0] is ANY_ARRAY:
        return first
    if len(first) == 1 and first[0] is ANY_ARRAY:
        return second
    _guard(len(first) * len(second), budget)
    clauses = [both for one in first for other in second if (both := _both_arrays(one, other)) is not None]
    return _not_too_many(either_array(clauses))


def either_array(clauses: Iterable[ArrayClause]) -> Arrays:
    """The list without clauses that another one covers."""
    distinct = tuple(dict.fromkeys(clauses))
    if len(distinct) < 2:
        return distinct
    if ANY_ARRAY in distinct:
        return (ANY_ARRAY,)
    return distinct


def negated_array(clause: ArrayClause) -> Arrays:
    """Arrays that do not satisfy the clause."""
    clauses: list[ArrayClause | None] = []
    for index, item in enumerate(clause.prefix):
        if item is not EVERYTHING:
            clauses.append(array_clause((*_any(index), negation(item)), min_items=index + 1))
    if clause.rest is not EVERYTHING:
        clauses.append(array_clause(contains=(Contains(negation(clause.rest), first=len(clause.prefix)),)))
    if clause.min_items:
        clauses.append(array_clause(max_items=clause.min_items - 1))
    if clause.max_items is not None:
        clauses.append(array_clause(min_items=clause.max_items + 1))
    for contains in clause.contains:
        if contains.minimum:
            clauses.append(array_clause(contains=(contains._replace(minimum=0, maximum=contains.minimum - 1),)))
        if contains.maximum is not None:
            clauses.append(array_clause(contains=(contains._replace(minimum=contains.maximum + 1, maximum=None),)))
    if clause.unique:
        clauses.append(array_clause(has_duplicates=True))
    if clause.has_duplicates:
        clauses.append(array_clause(unique=True))
    return either_array(found for found in clauses if found is not None)


def array_clause(
    prefix: tuple[Schema, ...] = (),
    rest: Schema = EVERYTHING,
    min_items: int = 0,
    max_items: int | None = None,
    contains: tuple[Contains, ...] = (),
    unique: bool = False,
    has_duplicates: bool = False,
) -> ArrayClause | None:
    """The clause in its plainest form; None when it contradicts itself.

    Counts that are rules about single items become such: at most none that is X means all are not X, at least one among
    one position means that this one is.
    """
    kept: list[Contains] = []
    for each in contains:
        if each.maximum == 0 and each.last is None and each.minimum == 0 and each.first <= MAX_LISTED:
            prefix = (*prefix, *(rest for _ in range(each.first - len(prefix))))
            prefix = (*prefix[: each.first], *(meet(item, negation(each.item)) for item in prefix[each.first :]))
            rest = meet(rest, negation(each.item))
        elif each.item is NOTHING or (each.maximum is not None and each.minimum > each.maximum):
            if each.minimum:
                return None
        elif each.item is EVERYTHING and each.last is None:
            if each.minimum:
                min_items = max(min_items, each.first + each.minimum)
            if each.maximum is not None:
                max_items = _least(max_items, each.first + each.maximum)
        elif each.minimum or each.maximum is not None:
            kept.append(each)
    for index, item in enumerate(prefix):
        if item is NOTHING:
            max_items = _least(max_items, index)
            break
    if rest is NOTHING:
        max_items = _least(max_items, len(prefix))
    if has_duplicates:
        min_items = max(min_items, 2)
    if (max_items is not None and min_items > max_items) or (unique and has_duplicates):
        return None
    if max_items is not None and len(prefix) >= max_items:
        prefix, rest = prefix[:max_items], EVERYTHING
    while prefix and prefix[-1] is rest:
        prefix = prefix[:-1]
    room = max_items
    if room is not None and any(each.minimum > room - each.first for each in kept):
        return None
    clause = ArrayClause(prefix, rest, min_items, max_items, tuple(dict.fromkeys(kept)), unique, has_duplicates)
    return ANY_ARRAY if clause == ANY_ARRAY else clause


def object_clause(
    order: tuple[str, ...] = (),
    rules: Iterable[KeyRule] = (),
    required: frozenset[str] = frozenset(),
    min_properties: int = 0,
    max_properties: int | None = None,
    dependent: tuple[tuple[str, frozenset[str]], ...] = (),
    exists: tuple[KeyExists, ...] = (),
) -> ObjectClause | None:
    """The clause with one rule for each set of keys; None when it plainly contradicts itself."""
    rules = tuple(rules)
    values: dict[Language, Schema] = dict(rules)
    if len(values) < len(rules):
        values.clear()
        for keys, value in rules:
            known = values.get(keys)
            values[keys] = value if known is None else meet(known, value)
    general = [keys for keys in values if not _is_one_name(keys)] if required else []
    return _consistent(order, values, general, required, min_properties, max_properties, dependent, exists)


def _consistent(
    order: tuple[str, ...],
    values: dict[Language, Schema],
    general: list[Language],
    required: frozenset[str],
    min_properties: int,
    max_properties: int | None,
    dependent: tuple[tuple[str, frozenset[str]], ...],
    exists: tuple[KeyExists, ...],
    unchanged: frozenset[str] = frozenset(),
) -> ObjectClause | None:
    """The clause with these `values` by keys; None when it plainly contradicts itself.

    Args:
        general: those of the keys that are not just one name.
        unchanged: names whose rules are known not to contradict each other.
    """
    if max_properties is not None and max(min_properties, len(required)) > max_properties:
        return None
    for name in required if exists else required - unchanged:
        ruling = [values[keys] for keys in general if has(keys, name)]
        named = values.get(literal(name))
        if named is not None:
            ruling.append(named)
        if NOTHING in ruling or (len(ruling) > 1 and meet(*ruling) is NOTHING):
            return None
        if exists:
            # What a required property does anyway needs no other.
            exists = tuple(
                [
                    wanted
                    for wanted in exists
                    if not (wanted.value is EVERYTHING or wanted.value in ruling) or not has(wanted.keys, name)
                ]
            )
    if any(wanted.value is NOTHING for wanted in exists):
        return None
    rules = tuple([KeyRule(keys, value) for keys, value in values.items() if value is not EVERYTHING])
    if not (order or rules or required or min_properties or dependent or exists) and max_properties is None:
        return ANY_OBJECT
    return ObjectClause(order, rules, required, min_properties, max_properties, dependent, exists)


def with_property(name: str, value: Schema) -> ObjectClause | None:
    """Objects that have the property, with a value that satisfies `value`."""
    if value is NOTHING:
        return None
    rules = () if value is EVERYTHING else (KeyRule(literal(name), value),)
    return ObjectClause(rules=rules, required=frozenset((name,)))


def without_property(name: str) -> ObjectClause:
    """Objects that do not have the property."""
    return ObjectClause(rules=(KeyRule(literal(name), NOTHING),))


class _Rules:
    """A clause with its rules by their keys, for many products."""

    __slots__ = ("clause", "general", "values")

    def __init__(self, clause: ObjectClause) -> None:
        self.clause = clause
        self.values = dict(clause.rules)
        self.general = [keys for keys in self.values if not _is_one_name(keys)]


def _is_one_name(keys: Language) -> bool:
    return keys.kind == "literals" and len(keys.value) == 1


def _both_objects(rules: _Rules, other: ObjectClause) -> ObjectClause | None:
    one, values, general = rules.clause, rules.values.copy(), rules.general
    for keys, value in other.rules:
        known = values.get(keys)
        if known is None:
            values[keys] = value
            if not _is_one_name(keys):
                general = [*general, keys]
        else:
            values[keys] = meet(known, value)
    required = one.required | other.required
    return _consistent(
        tuple(dict.fromkeys(one.order + other.order)) if other.order and one.order != other.order else one.order,
        values,
        general,
        required,
        max(one.min_properties, other.min_properties),
        _least(one.max_properties, other.max_properties),
        tuple(dict.fromkeys(one.dependent + other.dependent)),
        tuple(dict.fromkeys(one.exists + other.exists)),
        one.required.difference([name for name in one.required if any(has(rule.keys, name) for rule in other.rules)]),
    )


def _both_arrays(one: ArrayClause, other: ArrayClause) -> ArrayClause | None:
    size = max(len(one.prefix), len(other.prefix))
    return array_clause(
        tuple(meet(_item(one, index), _item(other, index)) for index in range(size)),
        meet(one.rest, other.rest),
        max(one.min_items, other.min_items),
        _least(one.max_items, other.max_items),
        one.contains + other.contains,
        one.unique or other.unique,
        one.has_duplicates or other.has_duplicates,
    )


def _item(clause: ArrayClause, index: int) -> Schema:
    return clause.prefix[index] if index < len(clause.prefix) else clause.rest


class _Coverage:
    """Which of some clauses plainly covers which. What each asks for and what it grants are bit sets, so that a
    question costs next to nothing."""

    def __init__(self, clauses: Sequence[ObjectClause]) -> None:
        self._clauses = clauses
        numbers: dict[Any, int] = {}
        bits_of_rules: dict[KeyRule, int] = {}
        bits_of_keys: dict[Language, int] = {}
        asked: list[int] = []
        for clause in clauses:
            bits = 0
            for part in (*clause.required, *clause.dependent, *clause.exists):
                bits |= 1 << numbers.setdefault(part, len(numbers))
            for rule in clause.rules:
                bit = bits_of_rules.get(rule)
                if bit is None:
                    # No part has this number.
                    bit = bits_of_rules[rule] = 1 << numbers.setdefault(len(numbers), len(numbers))
                    bits_of_keys[rule.keys] = bits_of_keys.get(rule.keys, 0) | bit
                bits |= bit
            asked.append(bits)
        self._asked = asked
        self._granted: list[int] = []
        for clause, bits in zip(clauses, asked, strict=True):
            for keys, value in clause.rules:
                if value is NOTHING:
                    bits |= bits_of_keys[keys]
                elif type(value) is Conjunction:
                    for part in value.parts:
                        bits |= bits_of_rules.get(KeyRule(keys, part), 0)
            self._granted.append(bits)

    def covers(self, wide: int, narrow: int) -> bool:
        """Whether every object of the one plainly satisfies the other too, in an order that it allows."""
        if self._asked[wide] & ~self._granted[narrow]:
            return False
        one, other = self._clauses[wide], self._clauses[narrow]
        if one.min_properties > other.min_properties or (one.order and one.order != other.order):
            return False
        return one.max_properties is None or _least(one.max_properties, other.max_properties) == other.max_properties

    def widest(self, places: list[int], given: int) -> list[int]:
        """Those of the clauses that, for objects of the clause `given`, no other one of them covers."""
        clause, clauses = self._clauses[given], self._clauses
        asked = {place: self._asked[place] & ~self._granted[given] for place in places}
        kept: list[int] = []

        def covers(wide: int, narrow: int) -> bool:
            if asked[wide] & ~self._granted[narrow]:
                return False
            one, other = clauses[wide], clauses[narrow]
            if one.order != other.order and (one.order or clause.order):
                return False
            most = _least(other.max_properties, clause.max_properties)
            return (one.max_properties is None or _least(one.max_properties, most) == most) and (
                one.min_properties <= max(other.min_properties, clause.min_properties)
            )

        for place in places:
            if not any(covers(other, place) for other in kept):
                kept = [other for other in kept if not covers(place, other)]
                kept.append(place)
        return kept


def _demands(clause: ObjectClause) -> tuple[int, int]:
    """How much must be there: alternatives that are met by leaving out come first."""
    return len(clause.exists), len(clause.required)


def _any(count: int) -> tuple[Schema, ...]:
    return (EVERYTHING,) * count


def _least(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)


def _guard(count: int, budget: Budget) -> None:
    budget.spend(10 * count)
    if count > MAX_PRODUCTS:
        raise _too_many()


def _not_too_many(clauses: Clauses) -> Clauses:
    if len(clauses) > MAX_CLAUSES:
        raise _too_many()
    return clauses


def _too_many() -> GrammarError:
    return GrammarError("too_complex", f"more than {MAX_CLAUSES} alternatives for one value")
