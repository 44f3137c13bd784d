"""Items that must be different from each other: which values there are only few of, and which never run out.

See `json_array_plan` for what is done with them.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import GrammarError
from ..languages.language import JointAutomaton, Language
from ..languages.language_size import few_texts, is_endless_language, texts_that_run_out
from .scarce_strings import count_texts
from .schema import alternatives
from .schema_nodes import Located

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .array_plan import ArrayPlan, ArrayState
    from .clauses import Alternatives, ArrayClause, ObjectClause
    from .object_plan import ObjectPlan, ObjectState
    from .satisfiability import Satisfiability
    from .schema import Schema

MAX_RARE_VALUES = 256
"""Of one type (and one schema); when there are more, the type must be endless."""
MAX_NESTING = 8
"""How deep the containers may be among which rare values are looked for."""

PLAIN_NUMBERS = Language.regex(r"-?[1-9][0-9]*|0|-?(0|[1-9][0-9]*)\.[0-9]*[1-9]", "python")
"""One spelling for each number."""


def check_repetition(schema: Schema, satisfiability: Satisfiability) -> None:
    """Looks at all schemas that values inside a value of `schema` may be called with.

    Raises:
        GrammarError: there are items that must be different and cannot be told apart.
    """
    pending = [schema]
    seen = {schema}
    while pending:
        schema = pending.pop()
        values = alternatives(schema)
        children: list[Schema] = []
        for clause in values.arrays:
            try:
                children += satisfiability.array_plan(clause).children()
            except GrammarError as error:
                place = _place_of(schema)
                raise GrammarError(error.fault, error.reason, location=place, keyword=error.keyword) from None
        for clause in values.objects:
            children += satisfiability.lone_object_plan(clause).children()
        for child in children:
            if child not in seen:
                seen.add(child)
                pending.append(child)


def _place_of(schema: Schema) -> str:
    """The JSON pointer of the subschema that says `uniqueItems`."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if type(part) is Located and "uniqueItems" in part.keywords:
            return part.pointer
        pending += part.parts
    return ""


def find_rare_values(schema: Schema, satisfiability: Satisfiability) -> list[Schema]:
    """The values of `schema` that are not endless (see there), as far as they are few of one type, each as the schema
    that only it satisfies."""
    values = alternatives(schema)
    budget = satisfiability.budget
    rare: list[Any] = [
        value for value, holds in ((None, values.null), (True, values.true), (False, values.false)) if holds
    ]
    for language, kind in ((values.strings, str), (values.numbers & PLAIN_NUMBERS, Decimal)):
        rare += map(kind, texts_that_run_out(language, MAX_RARE_VALUES, budget) or ())
    if not _has_endless_containers(values, satisfiability):
        containers: dict[str, Any] = {}
        try:
            for value in _ContainerWalk(satisfiability).containers(schema, MAX_NESTING):
                containers[value_key(value)] = value
                if len(containers) > MAX_RARE_VALUES:
                    raise _ManyValues
            rare += containers.values()
        except _ManyValues:
            pass
    return [satisfiability.constant(value) for value in rare]


def is_endless(schema: Schema, satisfiability: Satisfiability) -> bool:
    """Whether whatever is begun as a value of `schema` can still become one of infinitely many (also true if there is
    nothing to begin). Numbers count in their plain spelling."""
    values = alternatives(schema)
    return (
        not (values.null or values.true or values.false)
        and is_endless_language(values.strings, satisfiability.budget)
        and is_endless_language(values.numbers & PLAIN_NUMBERS, satisfiability.budget)
        and _has_endless_containers(values, satisfiability)
    )


def count_scarce(schema: Schema, satisfiability: Satisfiability) -> int | None:
    """How many values there are at least of a `schema` that is endless but for its strings, which are many; at most
    PLENTY. None: it is not so."""
    values = alternatives(schema)
    if (
        values.null
        or values.true
        or values.false
        or not is_endless_language(values.numbers & PLAIN_NUMBERS, satisfiability.budget)
        or not _has_endless_containers(values, satisfiability)
    ):
        return None
    automaton = JointAutomaton((values.strings,), satisfiability.budget)
    counts = count_texts(automaton, satisfiability.budget, 1)
    if not counts or automaton.start is None or counts[automaton.start] <= MAX_RARE_VALUES:
        return None
    return counts[automaton.start]


def value_key(value: Any) -> str:
    """A text that two JSON values share exactly if they are equal (1 and 1.0 are, 1 and true are not)."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, (int, float, Decimal)):
        number = Decimal(repr(value) if isinstance(value, float) else value)
        sign, digits, exponent = number.as_tuple()
        text = "".join(map(str, digits)).lstrip("0")
        plain = text.rstrip("0")
        return f"{'-' * sign}{plain}e{int(exponent) + len(text) - len(plain)}" if plain else "0"
    if isinstance(value, list):
        return "[" + ",".join(map(value_key, value)) + "]"
    return "{" + ",".join(sorted(f"{json.dumps(name)}:{value_key(item)}" for name, item in value.items())) + "}"


def _has_endless_containers(values: Alternatives, satisfiability: Satisfiability) -> bool:
    return all(_has_endless_arrays(clause, satisfiability) for clause in values.arrays) and all(
        _has_endless_objects(clause, satisfiability) for clause in values.objects
    )


def _has_endless_arrays(clause: ArrayClause, satisfiability: Satisfiability) -> bool:
    """Whether an array of the clause can always be made longer."""
    if not satisfiability.array_plan(clause).live(satisfiability.array_plan(clause).initial):
        return True
    return (
        clause.max_items is None
        and not clause.unique
        and all(satisfiability.satisfiable(item) for item in (*clause.prefix, clause.rest))
        and all(contains.maximum is None for contains in clause.contains)
    )


def _has_endless_objects(clause: ObjectClause, satisfiability: Satisfiability) -> bool:
    """Whether an object of the clause can always be given another property with a new name."""
    plan = satisfiability.lone_object_plan(clause)
    return not plan.live(plan.initial, 0) or (clause.max_properties is None and plan.has_endless_names())


class _ManyValues(Exception):
    """There are too many values to tell each of them apart."""


class _ContainerWalk:
    """Enumerates arrays and objects, if there are few.

    Raises:
        _ManyValues: there are many, or they are nested too deeply.
    """

    def __init__(self, satisfiability: Satisfiability) -> None:
        self._satisfiability = satisfiability

    def containers(self, schema: Schema, depth: int) -> Iterator[Any]:
        """The arrays and objects of a schema."""
        values = alternatives(schema)
        if not depth and (values.arrays or values.objects):
            raise _ManyValues
        for clause in values.arrays:
            plan = self._satisfiability.array_plan(clause)
            if plan.compares:
                raise _ManyValues
            if plan.live(plan.initial):
                yield from self._arrays(plan, plan.initial, [], depth)
        for clause in values.objects:
            plan = self._satisfiability.lone_object_plan(clause)
            if plan.live(plan.initial, 0):
                yield from self._objects(plan, plan.initial, {}, depth)

    def _values(self, schema: Schema, depth: int) -> Iterator[Any]:
        values = alternatives(schema)
        if values.null:
            yield None
        if values.true:
            yield True
        if values.false:
            yield False
        for language, kind in ((values.strings, str), (values.numbers & PLAIN_NUMBERS, Decimal)):
            texts = few_texts(language, MAX_RARE_VALUES, self._satisfiability.budget)
            if texts is None:
                raise _ManyValues
            yield from map(kind, texts)
        yield from self.containers(schema, depth - 1)

    def _arrays(self, plan: ArrayPlan, state: ArrayState, items: list, depth: int) -> Iterator[list]:
        if plan.accepts(state):
            yield items
        if len(items) > MAX_RARE_VALUES:
            raise _ManyValues
        for wanted, after in plan.successors(state):
            for value in self._values(wanted, depth):
                yield from self._arrays(plan, after, [*items, value], depth)

    def _objects(self, plan: ObjectPlan, state: ObjectState, members: dict, depth: int) -> Iterator[dict]:
        if plan.accepts(state):
            yield members
        space = plan.space
        seen = sum(1 << space.number[name] for name in members)
        if plan.offered_classes(state, seen):
            raise _ManyValues
        names = plan.offered_names(state, seen)
        for key in range(len(space.names)):
            if names >> key & 1:
                for wanted, after in plan.successors(state, key, seen):
                    for value in self._values(wanted, depth):
                        yield from self._objects(plan, after, {**members, space.names[key]: value}, depth)
