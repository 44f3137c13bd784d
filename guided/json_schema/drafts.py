"""The drafts of JSON Schema: which keywords each knows, and what `$schema` names them.

A document that names no draft is read as 2020-12 that also understands the older drafts' forms (`definitions`, `items`
with an array, boolean `exclusiveMinimum`, `dependencies`) and OpenAPI's `nullable`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec

from ..errors import GrammarError

ANNOTATIONS = ("$comment", "default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly")
"""Keywords that say nothing about which values are valid."""


class Draft:
    """One draft.

    Attributes:
        name: as the specification writes it.
        keywords: what restricts or refers; all else is an annotation.
        id_keyword: `id` or `$id`.
        ignores_siblings: nothing beside `$ref` counts.
    """

    __slots__ = ("id_keyword", "ignores_siblings", "keywords", "name", "year")

    def __init__(self, name: str, year: int, keywords: frozenset[str]) -> None:
        self.name = name
        self.year = year
        self.keywords = keywords
        self.id_keyword = "id" if name == "draft-04" else "$id"
        self.ignores_siblings = year < 2019 and name != "any"

    def __reduce__(self) -> tuple:
        return draft_named, (self.name,)

    def is_mere_reference(self, subschema: dict[str, Any]) -> bool:
        """Whether nothing but its `$ref` counts in a subschema that has one."""
        if self.ignores_siblings or len(subschema) == 1:
            return True
        return len(self.keywords & subschema.keys()) == 1


_DRAFT_4 = frozenset(
    [
        "$ref",
        "additionalItems",
        "additionalProperties",
        "allOf",
        "anyOf",
        "dependencies",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maximum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minimum",
        "minItems",
        "minLength",
        "minProperties",
        "multipleOf",
        "not",
        "oneOf",
        "pattern",
        "patternProperties",
        "properties",
        "required",
        "type",
        "uniqueItems",
    ]
)
_DRAFT_6 = _DRAFT_4 | {"const", "contains", "propertyNames"}
_DRAFT_7 = _DRAFT_6 | {"if", "then", "else"}
_DRAFT_2019 = (_DRAFT_7 - {"dependencies"}) | frozenset(
    [
        "$recursiveRef",
        "dependentRequired",
        "dependentSchemas",
        "maxContains",
        "minContains",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]
)
_DRAFT_2020 = (_DRAFT_2019 - {"$recursiveRef", "additionalItems"}) | {"$dynamicRef", "prefixItems"}

DRAFT_4 = Draft("draft-04", 2013, _DRAFT_4)
DRAFT_6 = Draft("draft-06", 2017, _DRAFT_6)
DRAFT_7 = Draft("draft-07", 2018, _DRAFT_7)
DRAFT_2019_09 = Draft("2019-09", 2019, _DRAFT_2019)
DRAFT_2020_12 = Draft("2020-12", 2020, _DRAFT_2020)
ANY_DRAFT = Draft("any", 2020, _DRAFT_2019 | _DRAFT_2020 | {"dependencies", "nullable"})

_BY_NAME = {draft.name: draft for draft in (DRAFT_4, DRAFT_6, DRAFT_7, DRAFT_2019_09, DRAFT_2020_12, ANY_DRAFT)}


def draft_named(name: str) -> Draft:
    """The draft of that name."""
    return _BY_NAME[name]


def draft_of(schema: dict[str, Any]) -> Draft:
    """The draft that `$schema` names; a meta-schema that we do not know counts as 2020-12.

    Raises:
        GrammarError: it is no string, or names a draft older than 4.
    """
    uri = schema.get("$schema")
    if uri is None:
        return ANY_DRAFT
    if not isinstance(uri, str):
        raise GrammarError("invalid", "must be a string", keyword="$schema")
    name = uri.partition("json-schema.org/")[2].removeprefix("draft/").rstrip("#").removesuffix("/schema")
    if name in ("draft-01", "draft-02", "draft-03"):
        raise GrammarError("unsupported", f"{name} is not supported", keyword="$schema")
    return _BY_NAME.get(name, DRAFT_2020_12)


@lru_cache(maxsize=1)
def meta_schemas() -> dict[str, dict[str, Any]]:
    """The meta-schemas of draft-07 and 2020-12 with its vocabularies, by URI: a schema may refer to them."""
    return msgspec.json.decode(files(__package__ or "").joinpath("meta_schemas.json").read_bytes())
