"""What a JSON value may be, type by type: the data between the JSON Schema reader and the JSON automaton.

`json_schema.alternatives(schema)` answers with `Alternatives`: strings and numbers as one regular language of their
text, arrays and objects as a list of clauses of which at least one must hold. A clause is a conjunction, with every
negation already pushed inside it, so that whoever builds an automaton never sees `not`, `oneOf` or `$ref`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..languages.language import Language
    from .schema import Schema


class KeyRule(NamedTuple):
    """Every property whose (decoded) name is in `keys` has a value that satisfies `value`.

    All of JSON Schema's property keywords are such rules: `properties` (one name), `patternProperties` (a pattern),
    `additionalProperties` (the complement of the names and patterns beside it), `propertyNames` (its complement, with
    a value that nothing satisfies).
    """

    keys: Language
    value: Schema


class KeyExists(NamedTuple):
    """At least one property has a name in `keys` and a value that satisfies `value` (a negated KeyRule)."""

    keys: Language
    value: Schema


class ObjectClause(NamedTuple):
    """A conjunction of what an object must be.

    Attributes:
        order: the declared names, in the order of the schema: they come in this order, before all other names.
        rules: what values the properties may have; a name may fall under several rules, and all hold.
        required: names that must be there (a name may be missing from `order`).
        min_properties: how many properties at least.
        max_properties: how many at most; None: any number.
        dependent: (name, names that must be there if that one is).
        exists: properties that must be there without being named.
    """

    order: tuple[str, ...] = ()
    rules: tuple[KeyRule, ...] = ()
    required: frozenset[str] = frozenset()
    min_properties: int = 0
    max_properties: int | None = None
    dependent: tuple[tuple[str, frozenset[str]], ...] = ()
    exists: tuple[KeyExists, ...] = ()


class Contains(NamedTuple):
    """Between `minimum` and `maximum` (None: any number) of the items with index in [first, last) satisfy `item`.

    `last` None: to the end. Also a negated `items` or `prefixItems` entry: at least one item that does not satisfy it.
    """

    item: Schema
    minimum: int = 1
    maximum: int | None = None
    first: int = 0
    last: int | None = None


class ArrayClause(NamedTuple):
    """A conjunction of what an array must be: item `i` satisfies `prefix[i]`, or `rest` behind the prefix."""

    prefix: tuple[Schema, ...]
    rest: Schema
    min_items: int = 0
    max_items: int | None = None
    contains: tuple[Contains, ...] = ()
    unique: bool = False
    has_duplicates: bool = False


class Alternatives(NamedTuple):
    """What a value may be. Nothing at all (`strings` and `numbers` empty, no clause, no literal): nothing satisfies it.

    Attributes:
        null, true, false: whether these literals are among them.
        strings: the decoded text of the strings.
        numbers: the spelling of the numbers.
        arrays, objects: at least one of these clauses holds; () means none may come.
    """

    null: bool
    true: bool
    false: bool
    strings: Language
    numbers: Language
    arrays: tuple[ArrayClause, ...]
    objects: tuple[ObjectClause, ...]
