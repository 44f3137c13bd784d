"""Conjunctions and negations of what `json_clauses` describes: disjunctive normal form, kept small.

Lists of clauses are disjunctions. Multiplying two lists keeps only clauses that are not plainly contradictory, and
drops those that another one covers. Whether a clause that is left can be satisfied is the automaton's question.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from .budget import Budget
from .errors import GrammarError
from .json_clauses import ArrayClause, Contains, KeyExists, KeyRule, ObjectClause
from .json_patterns import has, literal
from .json_schema_nodes import EVERYTHING, NOTHING, Conjunction, Schema, negation
from .json_shapes import meet
from .language import Language

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
    clauses = [both for one in first for other in second if (both := _both_objects(one, other)) is not None]
    return _not_too_many(either_object(clauses, simplest))


def objects_overlap(first: Objects, second: Objects, budget: Budget) -> bool:
    """Whether some object may satisfy a clause of each list: whether `both_objects` gives any."""
    _guard(len(first) * len(second), budget)
    return any(_both_objects(one, other) is not None for one in first for other in second)


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
    numbers: dict[Language | str, int] = {}
    kept: list[tuple[ObjectClause, int]] = []
    for clause in distinct:
        # What a clause demands, as a bit set: one that covers another demands no more.
        demands = 0
        for part in (*clause.required, *[rule.keys for rule in clause.rules]):
            demands |= 1 << numbers.setdefault(part, len(numbers))
        if any(_object_covers(other, clause) for other, less in kept if not less & ~demands):
            continue
        kept = [each for each in kept if demands & ~each[1] or not _object_covers(clause, each[0])]
        kept.append((clause, demands))
        if len(kept) == simplest:
            break
    return tuple([clause for clause, _ in kept])


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
            clauses.append(array_clause(contains=(replace(contains, minimum=0, maximum=contains.minimum - 1),)))
        if contains.maximum is not None:
            clauses.append(array_clause(contains=(replace(contains, minimum=contains.maximum + 1, maximum=None),)))
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
    values: dict[Language, Schema] = {}
    for rule in rules:
        known = values.get(rule.keys)
        values[rule.keys] = rule.value if known is None else meet(known, rule.value)
    merged = tuple(KeyRule(keys, value) for keys, value in values.items() if value is not EVERYTHING)
    if max_properties is not None and max(min_properties, len(required)) > max_properties:
        return None
    by_name: dict[str, list[Schema]] = {}
    others: list[tuple[Language, Schema]] = []
    if required:
        for keys, value in values.items():
            if keys.kind == "literals" and len(keys.value) == 1:
                (name,) = keys.value
                by_name.setdefault(name, []).append(value)
            else:
                others.append((keys, value))
    for name in required:
        ruling = by_name.get(name, []) + [value for keys, value in others if has(keys, name)]
        if NOTHING in ruling or (len(ruling) > 1 and meet(*ruling) is NOTHING):
            return None
        if exists:
            # What a required property does anyway needs no other.
            exists = tuple(
                wanted
                for wanted in exists
                if not (wanted.value is EVERYTHING or wanted.value in ruling) or not has(wanted.keys, name)
            )
    if any(wanted.value is NOTHING for wanted in exists):
        return None
    if not (order or merged or required or min_properties or dependent or exists) and max_properties is None:
        return ANY_OBJECT
    return ObjectClause(order, merged, required, min_properties, max_properties, dependent, exists)


def with_property(name: str, value: Schema) -> ObjectClause | None:
    """Objects that have the property, with a value that satisfies `value`."""
    if value is NOTHING:
        return None
    rules = () if value is EVERYTHING else (KeyRule(literal(name), value),)
    return ObjectClause(rules=rules, required=frozenset((name,)))


def without_property(name: str) -> ObjectClause:
    """Objects that do not have the property."""
    return ObjectClause(rules=(KeyRule(literal(name), NOTHING),))


def _both_objects(one: ObjectClause, other: ObjectClause) -> ObjectClause | None:
    return object_clause(
        tuple(dict.fromkeys(one.order + other.order)),
        one.rules + other.rules,
        one.required | other.required,
        max(one.min_properties, other.min_properties),
        _least(one.max_properties, other.max_properties),
        tuple(dict.fromkeys(one.dependent + other.dependent)),
        tuple(dict.fromkeys(one.exists + other.exists)),
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


def _object_covers(wide: ObjectClause, narrow: ObjectClause) -> bool:
    """Whether every object of `narrow` plainly satisfies `wide` too, in an order that it allows."""
    if (
        not wide.required <= narrow.required
        or wide.min_properties > narrow.min_properties
        or (wide.order and wide.order != narrow.order)
        or len(wide.rules) > len(narrow.rules)
    ):
        return False
    if wide.max_properties is not None and _least(wide.max_properties, narrow.max_properties) != narrow.max_properties:
        return False
    if not (set(wide.dependent) <= set(narrow.dependent) and set(wide.exists) <= set(narrow.exists)):
        return False
    values = {rule.keys: rule.value for rule in narrow.rules}
    return all(_narrower(values.get(rule.keys, EVERYTHING), rule.value) for rule in wide.rules)


def _demands(clause: ObjectClause) -> tuple[int, int]:
    """How much must be there: alternatives that are met by leaving out come first."""
    return len(clause.exists), len(clause.required)


def _narrower(narrow: Schema, wide: Schema) -> bool:
    return narrow is wide or narrow is NOTHING or (type(narrow) is Conjunction and wide in narrow.parts)


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
