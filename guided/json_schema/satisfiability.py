"""Whether any JSON value satisfies a schema, and how many do: what keeps the JSON automaton without dead ends.

Satisfiability is the least fixpoint over recursive schemas: a schema that needs a value inside which it needs itself
again is satisfied by nothing. Answers are found on demand and kept. What a clause needs of its children is asked of
the object and array plans (`json_object_plan`, `json_array_plan`), which ask back here: no Python recursion, since an
unknown child interrupts the question (`_NeedsChild`), is answered first, and the question is put again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import GrammarError
from .array_plan import ArrayPlan
from .drafts import ANNOTATIONS
from .keys import KeySpace
from .object_plan import ObjectPlan
from .references import declared
from .repetition import value_key
from .schema import EVERYTHING, alternatives, constant
from .schema_nodes import Located

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..budget import Budget
    from .clauses import ArrayClause, ObjectClause
    from .schema import Schema

MAX_DEPTH = 20_000
"""Schemas that may wait for each other; deeper ones are refused."""


_HARMLESS = frozenset((*ANNOTATIONS, "$schema", "additionalProperties", "definitions", "items", "properties", "type"))
"""Keywords that leave some value of each type: at least "", 0, [] or {}."""
_HARMLESS_ALONE = {
    "string": frozenset(("format", "maxLength", "minLength")),
    "number": frozenset(("maximum", "minimum")),
    "integer": frozenset(("maximum", "minimum")),
}
"""Keywords one of which leaves some value of the type, when there are only harmless ones beside it."""


MAX_LOOK = 4
"""How deep required properties are looked into."""


class _NeedsChild(Exception):
    """Whether `schema` is satisfiable must be known first."""

    def __init__(self, schema: Schema) -> None:
        super().__init__()
        self.schema = schema


class Satisfiability:
    """Answers, for one compiled grammar.

    Attributes:
        provisional_answers: how many answers so far were "no, as far as is known": an answer that was built on such a
            one must not be kept by whoever asked.
        budget: spent while looking.
        known: the answers so far.
    """

    def __init__(self, budget: Budget, *, any_order: bool) -> None:
        self.budget = budget
        self.any_order = any_order
        self.provisional_answers = 0
        self._constants: dict[str, Schema] = {}
        self.known: dict[Schema, bool] = {}
        self._object_plans: dict[tuple[ObjectClause, KeySpace], ObjectPlan] = {}
        self._lone_object_plans: dict[ObjectClause, ObjectPlan] = {}
        self._array_plans: dict[ArrayClause, ArrayPlan] = {}
        self._key_spaces: dict[KeySpace, KeySpace] = {}
        self._waiting: dict[Schema, int] = {}
        self._assumed: dict[Schema, int] = {}
        self._lowest = 0

    def satisfiable(self, schema: Schema) -> bool:
        """Whether there is a JSON value that satisfies `schema` (and that the automaton can spell)."""
        known = self.known.get(schema)
        if known is not None:
            return known
        if _is_obvious(schema):
            self.known[schema] = True
            return True
        if not self._waiting:
            return self._solve(schema)
        depth = self._waiting.get(schema)
        if depth is None:
            depth = self._assumed.get(schema)
        if depth is None:
            raise _NeedsChild(schema)
        self._lowest = min(self._lowest, depth)
        self.provisional_answers += 1
        return False

    def constant(self, value: Any) -> Schema:
        """The schema that only the JSON value `value` satisfies; the same one for equal values."""
        key = value_key(value)
        schema = self._constants.get(key)
        if schema is None:
            schema = self._constants[key] = constant(value)
        return schema

    def key_space(self, clauses: Iterable[ObjectClause]) -> KeySpace:
        """How the names of objects under these clauses are told apart; the same one for the same."""
        return KeySpace.of(clauses, self.budget, self._key_spaces)

    def object_plan(self, clause: ObjectClause, space: KeySpace) -> ObjectPlan:
        """The plan of `clause` with the names numbered by `space`; the same one for the same."""
        key = (clause, space)
        plan = self._object_plans.get(key)
        if plan is None:
            plan = self._object_plans[key] = ObjectPlan(clause, space, self)
        return plan

    def lone_object_plan(self, clause: ObjectClause) -> ObjectPlan:
        """The plan of `clause` where only its own names need be told apart."""
        plan = self._lone_object_plans.get(clause)
        if plan is None:
            plan = self._lone_object_plans[clause] = self.object_plan(clause, self.key_space((clause,)))
        return plan

    def array_plan(self, clause: ArrayClause) -> ArrayPlan:
        """The plan of `clause`; the same one for the same clause."""
        plan = self._array_plans.get(clause)
        if plan is None:
            plan = self._array_plans[clause] = ArrayPlan(clause, self)
        return plan

    def _solve(self, schema: Schema) -> bool:
        """The least fixpoint by depth first search. A schema that is asked for while it waits counts as unsatisfiable
        (`_waiting`); what was answered "no" on such ground is `_assumed`, until the one it leans on is settled."""
        stack = [schema]
        assumed_before = [0]
        self._waiting = {schema: 0}
        try:
            while stack:
                self.budget.spend(5)
                depth = len(stack) - 1
                self._lowest = depth
                try:
                    answer = self._evaluate(stack[-1])
                except _NeedsChild as need:
                    if depth >= MAX_DEPTH:
                        raise GrammarError("too_complex", f"nested more than {MAX_DEPTH} deep") from None
                    stack.append(need.schema)
                    assumed_before.append(len(self._assumed))
                    self._waiting[need.schema] = depth + 1
                    continue
                self._settle(stack.pop(), answer, depth, assumed_before.pop())
        finally:
            self._waiting = {}
            self._assumed = {}
        return self.known[schema]

    def _settle(self, schema: Schema, answer: bool, depth: int, assumed_before: int) -> None:
        del self._waiting[schema]
        inside = list(self._assumed)[assumed_before:]
        if answer:
            self.known[schema] = True
            for other in inside:
                del self._assumed[other]
        elif self._lowest >= depth:
            self.known[schema] = False
            for other in inside:
                self.known[other] = False
                del self._assumed[other]
        else:
            self._assumed[schema] = self._lowest

    def _evaluate(self, schema: Schema) -> bool:
        values = alternatives(schema)
        if values.null or values.true or values.false:
            return True
        if not values.strings.is_empty(self.budget) or not values.numbers.is_empty(self.budget):
            return True
        for clause in values.arrays:
            if not clause.min_items and not clause.contains and not clause.has_duplicates:
                return True
            plan = self.array_plan(clause)
            if plan.live(plan.initial):
                return True
        for clause in values.objects:
            if not clause.min_properties and not clause.required and not clause.exists:
                return True
            plan = self.lone_object_plan(clause)
            if plan.live(plan.initial, 0):
                return True
        return False


def _is_obvious(schema: Schema, look: int = MAX_LOOK) -> bool:
    """Whether a schema is satisfiable by the look of it, without working out its alternatives (most are)."""
    if type(schema) is not Located or not look:
        return schema is EVERYTHING
    words = schema.keywords
    others = words.keys() - _HARMLESS
    if len(others) != 1:
        return not others
    kind = words.get("type")
    if kind == "string" and "enum" in others:
        return any(isinstance(value, str) and value.isascii() for value in words["enum"])
    if kind == "object" and "required" in others:
        values = declared(schema) if "properties" in words else {}
        return all(
            name.isascii() and name in values and _is_obvious(values[name], look - 1) for name in words["required"]
        )
    return isinstance(kind, str) and others <= _HARMLESS_ALONE.get(kind, frozenset())
