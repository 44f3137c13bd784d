"""One pass over all that a schema's root can reach: is it well-formed, does every reference lead somewhere?

Reading is lazy, so that without this pass an error deep inside a schema would only show when an answer gets there. The
cost is linear in the size of the document. What is defined but never referred to is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ..errors import GrammarError
from .drafts import ANY_DRAFT, DRAFT_4
from .number_constraints import exact
from .patterns import check_pattern, of_format
from .references import SchemaDocument, declared, escaped
from .schema_nodes import Located, Schema
from .shapes import TYPES

MAX_DEPTH = 200
"""Documents nested deeper than this are refused."""

MAX_IN_PLACE = 50
"""So many applicators (`allOf`, `$ref` …) may apply to one value, one inside the other."""

MAX_DIGITS = 400
"""Numbers with more digits, before or behind the decimal point, are refused."""

_TEXT = frozenset((str,))
_NUMBERS = (int, float, Decimal)

_REFERENCES = frozenset(("$ref", "$dynamicRef", "$recursiveRef"))
_IN_PLACE = _REFERENCES | {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"}

Children = list[tuple[Any, str]]


def check(document: SchemaDocument, shallow: bool = False) -> None:
    """Looks through the document from its root. `shallow`: it is known not to be too deep.

    Raises:
        GrammarError: a keyword's value is malformed, a reference leads nowhere or out of the document, a pattern cannot
            be read, a schema refers to itself without consuming anything, or the document is too deep.
    """
    if not shallow:
        _check_depth(document.value)
    if not _look_through(document):
        document.follow_dynamic_scope()
        _look_through(document)


def _look_through(document: SchemaDocument) -> bool:
    """False when a dynamic reference is met while scopes do not follow the dynamic scope: all is to be done again."""
    root = document.root()
    pending: list[Schema] = [root]
    seen = {root}
    in_place: dict[Schema, list[Schema]] = {}
    spend = document.store.budget.spend
    while pending:
        node = pending.pop()
        if type(node) is not Located:
            continue
        scope, pointer = node.scope, node.pointer
        known, subschema = scope.draft.keywords, scope.subschema
        spend(len(node.keywords) + 2)
        for word, value in node.keywords.items():
            rule = _RULES.get(word)
            if rule is None or word not in known or (rule is _type and type(value) is str and value in TYPES):
                continue
            if word == "properties":
                if type(value) is not dict:
                    raise _invalid("must be an object of schemas", f"{pointer}/properties")
                children = declared(node).values()
            elif word in _REFERENCES:
                if word != "$ref" and not document.follows_dynamic_scope:
                    return False
                children = [scope.resolve(word, value, pointer)]
            else:
                children = [subschema(each, place) for each, place in rule(value, f"{pointer}/{word}", node)]
            if not children:
                continue
            if word in _IN_PLACE:
                in_place.setdefault(node, []).extend(children)
            for child in children:
                if child not in seen:
                    seen.add(child)
                    pending.append(child)
    if in_place:
        _check_in_place(in_place)
    return True


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise GrammarError("too_complex", f"the schema is nested deeper than {MAX_DEPTH} levels")
        deeper: list[Any] = []
        for each in level:
            if type(each) is dict:
                deeper += each.values()
            elif type(each) is list:
                deeper += each
        level = deeper


def _check_in_place(in_place: dict[Schema, list[Schema]]) -> None:
    """Refuses schemas that reach themselves, or too long chains, through applicators to the same value."""
    heights: dict[Schema, int] = {}
    for start in in_place:
        path: list[tuple[Schema, int]] = [(start, 0)]
        on_path = {start}
        while path:
            node, place = path.pop()
            children = in_place.get(node, ())
            if node in heights or place == len(children):
                heights.setdefault(node, 1 + max((heights[child] for child in children), default=0))
                on_path.discard(node)
                if heights[node] > MAX_IN_PLACE:
                    raise GrammarError(
                        "too_complex",
                        f"more than {MAX_IN_PLACE} applicators inside one another apply to the same value",
                        location=_place_of(node),
                    )
                continue
            path.append((node, place + 1))
            child = children[place]
            if child in on_path:
                raise GrammarError(
                    "invalid",
                    "the schema refers to itself for the same value, so that nothing can be decided",
                    location=_place_of(child),
                    keyword="$ref",
                )
            if child not in heights:
                on_path.add(child)
                path.append((child, 0))


def _place_of(node: Schema) -> str:
    return node.pointer if type(node) is Located else ""


def _invalid(reason: str, place: str) -> GrammarError:
    pointer, _, word = place.rpartition("/")
    return GrammarError("invalid", reason, location=pointer, keyword=word)


def _one(value: Any, place: str, node: Located) -> Children:
    return [(value, place)]


def _list(value: Any, place: str, node: Located) -> Children:
    if type(value) is not list or not value:
        raise _invalid("must be a list of at least one schema", place)
    return [(each, f"{place}/{index}") for index, each in enumerate(value)]


def _prefix(value: Any, place: str, node: Located) -> Children:
    if type(value) is not list:
        raise _invalid("must be a list of schemas", place)
    return [(each, f"{place}/{index}") for index, each in enumerate(value)]


def _items(value: Any, place: str, node: Located) -> Children:
    if type(value) is not list:
        return [(value, place)]
    if node.scope.draft.year >= 2020 and node.scope.draft is not ANY_DRAFT:
        raise _invalid("must be a schema; a list of schemas is called prefixItems in 2020-12", place)
    return _prefix(value, place, node)


def _map(value: Any, place: str, node: Located) -> Children:
    if type(value) is not dict:
        raise _invalid("must be an object of schemas", place)
    return [(each, f"{place}/{escaped(name)}") for name, each in value.items()]


def _patterns(value: Any, place: str, node: Located) -> Children:
    children = _map(value, place, node)
    for pattern in value:
        check_pattern(pattern, node.pointer, "patternProperties")
    return children


def _dependencies(value: Any, place: str, node: Located) -> Children:
    children = _map(value, place, node)
    for each in value.values():
        if type(each) is list:
            _names(each, place, node)
    return [child for child in children if type(child[0]) is not list]


def _name_lists(value: Any, place: str, node: Located) -> Children:
    if type(value) is not dict:
        raise _invalid("must be an object of lists of names", place)
    for each in value.values():
        _names(each, place, node)
    return []


def _names(value: Any, place: str, node: Located) -> Children:
    if type(value) is not list or not _TEXT.issuperset(map(type, value)):
        raise _invalid("must be a list of property names", place)
    return []


def _type(value: Any, place: str, node: Located) -> Children:
    names = [value] if type(value) is str else value
    if type(names) is not list or not names:
        raise _invalid("must be a type or a list of types", place)
    for name in names:
        if type(name) is not str or name not in TYPES:
            raise _invalid(f"{name!r} is not one of {', '.join(TYPES)}", place)
    return []


def _enum(value: Any, place: str, node: Located) -> Children:
    if type(value) is not list:
        raise _invalid("must be a list of values", place)
    if _TEXT.issuperset(map(type, value)):
        return []
    return _const(value, place, node)


def _const(value: Any, place: str, node: Located) -> Children:
    pending = [value]
    while pending:
        each = pending.pop()
        if type(each) is list:
            pending += each
        elif type(each) is dict:
            pending += each.values()
        elif type(each) in _NUMBERS and not _is_number(each):
            raise _invalid("holds a number that is out of range", place)
    return []


def _count(value: Any, place: str, node: Located) -> Children:
    if type(value) is bool or not _is_number(value) or value < 0 or exact(value) != int(value):
        raise _invalid("must be an integer of at least 0", place)
    return []


def _number(value: Any, place: str, node: Located) -> Children:
    if not _is_number(value):
        raise _invalid(f"must be a number of at most {MAX_DIGITS} digits", place)
    return []


def _exclusive(value: Any, place: str, node: Located) -> Children:
    if type(value) is bool and node.scope.draft in (DRAFT_4, ANY_DRAFT):
        return []
    return _number(value, place, node)


def _step(value: Any, place: str, node: Located) -> Children:
    if not _is_number(value) or value <= 0:
        raise _invalid("must be a number above 0", place)
    return []


def _boolean(value: Any, place: str, node: Located) -> Children:
    if type(value) is not bool:
        raise _invalid("must be true or false", place)
    return []


def _pattern(value: Any, place: str, node: Located) -> Children:
    if type(value) is not str:
        raise _invalid("must be a string", place)
    check_pattern(value, node.pointer, "pattern")
    return []


def _format(value: Any, place: str, node: Located) -> Children:
    if type(value) is not str:
        raise _invalid("must be a string", place)
    options = node.scope.document.options
    if options.assert_formats and options.unknown_formats == "refuse" and of_format(value) is None:
        raise GrammarError("unsupported", f"the format {value!r} is not known", location=node.pointer, keyword="format")
    return []


def _is_number(value: Any) -> bool:
    if type(value) is bool or not isinstance(value, _NUMBERS):
        return False
    number = exact(value)
    return number.is_finite() and abs(number.adjusted()) <= MAX_DIGITS and len(number.as_tuple().digits) <= MAX_DIGITS


_RULES: dict[str, Callable[[Any, str, Located], Children]] = {
    "$dynamicRef": _one,
    "$recursiveRef": _one,
    "$ref": _one,
    "additionalItems": _one,
    "additionalProperties": _one,
    "allOf": _list,
    "anyOf": _list,
    "const": _const,
    "contains": _one,
    "dependencies": _dependencies,
    "dependentRequired": _name_lists,
    "dependentSchemas": _map,
    "else": _one,
    "enum": _enum,
    "exclusiveMaximum": _exclusive,
    "exclusiveMinimum": _exclusive,
    "format": _format,
    "if": _one,
    "items": _items,
    "maxContains": _count,
    "maxItems": _count,
    "maxLength": _count,
    "maxProperties": _count,
    "maximum": _number,
    "minContains": _count,
    "minItems": _count,
    "minLength": _count,
    "minProperties": _count,
    "minimum": _number,
    "multipleOf": _step,
    "not": _one,
    "nullable": _boolean,
    "oneOf": _list,
    "pattern": _pattern,
    "patternProperties": _patterns,
    "prefixItems": _prefix,
    "properties": _map,  # see `_look_through`
    "propertyNames": _one,
    "required": _names,
    "then": _one,
    "type": _type,
    "unevaluatedItems": _one,
    "unevaluatedProperties": _one,
    "uniqueItems": _boolean,
}
