"""The plain meaning of `json_clauses`, clause by clause over decoded JSON values: the oracle of these tests."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from zqserve.guided.json_schema.clauses import ArrayClause, ObjectClause
from zqserve.guided.json_schema.schema import Schema, alternatives
from zqserve.guided.json_schema.schema_nodes import value_key


def satisfies(schema: Schema, value: Any) -> bool:
    """Whether the value is among the schema's alternatives."""
    found = alternatives(schema)
    if value is None:
        return found.null
    if value is True:
        return found.true
    if value is False:
        return found.false
    if isinstance(value, str):
        return found.strings.contains(value)
    if isinstance(value, list):
        return any(_is_array(clause, value) for clause in found.arrays)
    if isinstance(value, dict):
        return any(_is_object(clause, value) for clause in found.objects)
    return found.numbers.contains(_spelled(value))


def _is_array(clause: ArrayClause, values: list[Any]) -> bool:
    if len(values) < clause.min_items or (clause.max_items is not None and len(values) > clause.max_items):
        return False
    has_duplicates = len({value_key(value) for value in values}) < len(values)
    if (clause.unique and has_duplicates) or (clause.has_duplicates and not has_duplicates):
        return False
    schemas = [*clause.prefix, *[clause.rest] * (len(values) - len(clause.prefix))]
    if not all(satisfies(schema, value) for schema, value in zip(schemas, values, strict=False)):
        return False
    for contains in clause.contains:
        count = sum(satisfies(contains.item, value) for value in values[contains.first : contains.last])
        if count < contains.minimum or (contains.maximum is not None and count > contains.maximum):
            return False
    return True


def _is_object(clause: ObjectClause, values: dict[str, Any]) -> bool:
    if len(values) < clause.min_properties or not clause.required <= values.keys():
        return False
    if clause.max_properties is not None and len(values) > clause.max_properties:
        return False
    if any(name in values and not wanted <= values.keys() for name, wanted in clause.dependent):
        return False
    if not all(
        satisfies(rule.value, value)
        for rule in clause.rules
        for name, value in values.items()
        if rule.keys.contains(name)
    ):
        return False
    return all(
        any(wanted.keys.contains(name) and satisfies(wanted.value, value) for name, value in values.items())
        for wanted in clause.exists
    )


def _spelled(number: Any) -> str:
    return format(Decimal(repr(number)), "f")
