"""What formats that write each parameter by itself (pythonic, XML) must know of a function's schema."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .tool_definitions import Tool

TYPES = frozenset(("string", "integer", "number", "boolean", "object", "array", "null"))
DEFINITIONS = frozenset(("$schema", "$defs", "definitions"))
ANNOTATIONS = frozenset(("title", "description", "default", "examples"))
_OF_A_PLAIN_OBJECT = DEFINITIONS | ANNOTATIONS | {"type", "properties", "required", "additionalProperties"}
_OF_ANY_STRING = DEFINITIONS | ANNOTATIONS | {"type", "anyOf", "oneOf", "nullable"}
MAX_REFERENCES = 10
MAX_PARAMETERS = 64


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function."""

    name: str
    schema: dict[str, Any]
    """Of its values alone: with all that it refers to."""
    is_required: bool


def plain_parameters(tool: Tool) -> list[Parameter] | None:
    """The parameters, where any values that satisfy their schemas together satisfy that of the function, else None."""
    schema = tool.parameters
    properties, required = schema.get("properties"), schema.get("required", [])
    if not set(schema) <= _OF_A_PLAIN_OBJECT or not isinstance(properties, dict) or not isinstance(required, list):
        return None
    if len(properties) > MAX_PARAMETERS or not all(isinstance(name, str) and name in properties for name in required):
        return None
    definitions = {key: schema[key] for key in DEFINITIONS & set(schema)}
    parameters = []
    for name, value in properties.items():
        if not isinstance(value, dict) or not name.isidentifier() or not _stands_alone(value):
            return None
        parameters.append(Parameter(name, {**definitions, **value}, name in required))
    return parameters if _stands_alone(definitions) else None


def types_of(schema: Any, root: Any) -> frozenset[str]:
    """The types that values may have, as far as is written down plainly; empty where nothing is.

    `root` holds the definitions that the schema may refer to.
    """
    return _types(schema, root, MAX_REFERENCES)


def is_any_string(schema: dict[str, Any]) -> bool:
    """Whether every string is allowed, and beside strings at most null."""
    options = schema.get("anyOf") or schema.get("oneOf") or []
    plain = [option for option in [schema, *options] if isinstance(option, dict)]
    kinds = types_of(schema, schema)
    return "string" in kinds and kinds <= {"string", "null"} and all(set(each) <= _OF_ANY_STRING for each in plain)


def _types(schema: Any, root: Any, depth: int) -> frozenset[str]:
    if not isinstance(schema, dict) or depth == 0:
        return frozenset()
    kinds = schema.get("type")
    if kinds is not None:
        several = kinds if isinstance(kinds, list) else [kinds]
        found = frozenset(each for each in several if isinstance(each, str) and each in TYPES)
        return found | {"null"} if schema.get("nullable") is True else found
    if isinstance(reference := schema.get("$ref"), str):
        return _types(_definition(reference, root), root, depth - 1)
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list):
        several = [_types(option, root, depth - 1) for option in options]
        return frozenset().union(*several) if all(several) else frozenset()
    only = schema.get("allOf")
    if isinstance(only, list) and len(only) == 1:
        return _types(only[0], root, depth - 1)
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    return frozenset(map(_type_of_value, values))


def _definition(reference: str, root: Any) -> Any:
    """What `#/$defs/name` refers to."""
    _, _, path = reference.partition("#/")
    for key in path.split("/"):
        root = root.get(key) if isinstance(root, dict) else None
    return root


def _stands_alone(schema: dict[str, Any]) -> bool:
    """Whether it refers to nothing but definitions, by their place."""
    for key, value in _members(schema):
        if key in ("$id", "id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveRef"):
            return False
        if key == "$ref" and not (isinstance(value, str) and value.startswith(("#/$defs/", "#/definitions/"))):
            return False
    return True


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            yield from each.items()
            pending += each.values()
        elif isinstance(each, list):
            pending += each


def _type_of_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    return "array" if isinstance(value, list) else "object"
