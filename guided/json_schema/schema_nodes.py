"""The nodes of JSON Schema expressions and their algebra: and, or, exactly one, not.

A node stands for the set of JSON values that satisfy it. Nodes are hash-consed in the `SchemaStore` of their document:
within one store equal expressions are the same object, so that `is`, `==` and `hash` cost nothing. A subschema of the
document is a leaf (`Located`) that is only read when its alternatives are asked for; the algebra here is structural and
looks into no leaf. `json_schema.alternatives` gives a node's meaning.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..budget import Budget

if TYPE_CHECKING:
    from ..languages.language import Language
    from .clauses import Alternatives
    from .references import Scope


class SchemaStore:
    """The nodes of one document, by what they express.

    Attributes:
        budget: what work on these nodes may cost.
    """

    __slots__ = ("_common", "budget", "nodes")

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self.nodes: dict[tuple, Schema] = {}
        self._common: dict[tuple[Language, Language], Language] = {}

    def have_common_text(self, first: Language, second: Language) -> bool:
        """Whether some text is in both. Where the budget stops the search, the next time it goes on."""
        common = self._common.get((first, second))
        if common is None:
            common = first & second
            if common.is_nothing():
                return False
            self._common[first, second] = common
        return not common.is_empty(self.budget)


class Schema:
    """A set of JSON values. Compared by identity; make one with `read_schema` and the functions of this module."""

    __slots__ = ("memo", "opposite", "parts", "store")

    def __init__(self, store: SchemaStore | None, parts: tuple[Schema, ...] = ()) -> None:
        self.store = store
        self.parts = parts
        self.opposite: Schema | None = None
        self.memo: Memo | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What is memoised is worked out again on the other side: pickling it would nest as deep as the schema.
        return {name: value for name, value in _slots_of(self) if name not in ("memo", "opposite")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.opposite = self.memo = None
        for name, value in state.items():
            setattr(self, name, value)


class Memo:
    """What was worked out about a node; each is None until then."""

    __slots__ = ("alternatives", "applicators", "declared", "keywords", "shape", "simplified")

    def __init__(self) -> None:
        self.alternatives: Alternatives | None = None
        self.keywords: dict[str, Any] | None = None
        self.declared: dict[str, Schema] | None = None
        self.shape: tuple[int, int] | None = None
        self.applicators: tuple[Schema, ...] | None = None
        self.simplified: Schema | None = None


class Trivial(Schema):
    """Everything or nothing: the two nodes that belong to no store."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(None)
        self.name = name

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


EVERYTHING: Schema = Trivial("EVERYTHING")
NOTHING: Schema = Trivial("NOTHING")


class Located(Schema):
    """The subschema at a place of the document.

    Attributes:
        keywords: its object, as it stands in the document.
        scope: how references inside it resolve, and its draft.
        pointer: the JSON pointer of the place, from the root of the document.
    """

    __slots__ = ("keywords", "pointer", "scope")

    def __init__(self, store: SchemaStore, keywords: dict[str, Any], scope: Scope, pointer: str) -> None:
        # Most of the nodes of most documents: without a call of the base class, which would set the same.
        self.store = store
        self.parts = ()
        self.opposite = self.memo = None
        self.keywords = keywords
        self.scope = scope
        self.pointer = pointer

    def __repr__(self) -> str:
        return f"<{self.pointer or '#'}>"


class Constants(Schema):
    """The values that equal one of some JSON values (Decimal or int numbers)."""

    __slots__ = ("values",)

    def __init__(self, store: SchemaStore, values: tuple[Any, ...]) -> None:
        super().__init__(store)
        self.values = values

    def __repr__(self) -> str:
        return f"Constants{self.values!r}"


class Conjunction(Schema):
    """All `parts` hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(" + " & ".join(map(repr, self.parts)) + ")"


class Disjunction(Schema):
    """At least one of `parts` holds."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(" + " | ".join(map(repr, self.parts)) + ")"


class ExactlyOne(Schema):
    """One of `parts` holds and no other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "(" + " ^ ".join(map(repr, self.parts)) + ")"


class Negation(Schema):
    """`parts[0]`, which is neither a conjunction, a disjunction nor a negation, does not hold."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"~{self.parts[0]!r}"


class Properties(Schema):
    """What is no object, or an object whose properties with names in `keys` satisfy `parts[0]`.

    Attributes:
        keys: the names under the rule.
        certain_keys: those of `keys` that every reader of the schema's patterns counts among them; the negation is
            that a property with one of these names does not satisfy the rule.
    """

    __slots__ = ("certain_keys", "keys")

    def __init__(self, store: SchemaStore, keys: Language, certain_keys: Language, value: Schema) -> None:
        super().__init__(store, (value,))
        self.keys, self.certain_keys = keys, certain_keys


class Items(Schema):
    """What is no array, or an array whose items from index `first` on satisfy `parts[0]`."""

    __slots__ = ("first",)

    def __init__(self, store: SchemaStore, first: int, value: Schema) -> None:
        super().__init__(store, (value,))
        self.first = first


def conjunction(*schemas: Schema) -> Schema:
    """What satisfies all of `schemas`. Properties come in the order of the first schema, then of the next."""
    return _combined(schemas, Conjunction, Disjunction, neutral=EVERYTHING, absorbing=NOTHING)


def disjunction(*schemas: Schema) -> Schema:
    """What satisfies at least one of `schemas`."""
    return _combined(schemas, Disjunction, Conjunction, neutral=NOTHING, absorbing=EVERYTHING)


def exactly_one(*schemas: Schema) -> Schema:
    """What satisfies one of `schemas` and no other."""
    parts = [schema for schema in schemas if schema is not NOTHING]
    if EVERYTHING in parts:
        parts.remove(EVERYTHING)
        return negation(disjunction(*parts))
    if len(parts) < 2:
        return parts[0] if parts else NOTHING
    if len(set(parts)) < len(parts):
        # What stands there twice cannot be the one that holds.
        twice = [part for part in set(parts) if parts.count(part) > 1]
        others = [part for part in parts if part not in twice]
        return conjunction(exactly_one(*others), *(negation(part) for part in twice))
    return _composed(ExactlyOne, parts)


def negation(schema: Schema) -> Schema:
    """What does not satisfy `schema`."""
    if schema.opposite is not None:
        return schema.opposite
    if type(schema) is Trivial:
        return NOTHING if schema is EVERYTHING else EVERYTHING
    if type(schema) is Conjunction:
        opposite = disjunction(*(negation(part) for part in schema.parts))
    elif type(schema) is Disjunction:
        opposite = conjunction(*(negation(part) for part in schema.parts))
    elif type(schema) is Negation:
        opposite = schema.parts[0]
    else:
        truth = opened(schema)
        opposite = _interned(schema.store, Negation, (truth,)) if truth is schema else negation(truth)
        if opposite.opposite is None:
            opposite.opposite = truth
    schema.opposite = opposite
    return opposite


def constants(store: SchemaStore, values: list[Any]) -> Schema:
    """The JSON values that equal one of `values` (1 and 1.0 are equal, 1 and true are not)."""
    distinct = {value_key(value): value for value in values}
    if not distinct:
        return NOTHING
    key = (Constants, frozenset(distinct))
    node = store.nodes.get(key)
    if node is None:
        node = store.nodes[key] = Constants(store, tuple(distinct.values()))
    return node


def properties(store: SchemaStore, keys: Language, certain_keys: Language, value: Schema) -> Schema:
    """Objects whose properties with names in `keys` satisfy `value`, and all that is no object."""
    if value is EVERYTHING:
        return EVERYTHING
    key = (Properties, keys, certain_keys, value)
    node = store.nodes.get(key)
    if node is None:
        node = store.nodes[key] = Properties(store, keys, certain_keys, value)
    return node


def items(store: SchemaStore, first: int, value: Schema) -> Schema:
    """Arrays whose items from index `first` on satisfy `value`, and all that is no array."""
    if value is EVERYTHING:
        return EVERYTHING
    key = (Items, first, value)
    node = store.nodes.get(key)
    if node is None:
        node = store.nodes[key] = Items(store, first, value)
    return node


def opened(schema: Schema) -> Schema:
    """The schema as the document has it, without the option that closes objects.

    Negations are of this one: what does not satisfy a closed object may still satisfy the document's.
    """
    if type(schema) is Located:
        return schema.scope.opened().subschema(schema.keywords, schema.pointer) if schema.scope.closing else schema
    if type(schema) is ExactlyOne:
        return exactly_one(*(opened(part) for part in schema.parts))
    return schema


def value_key(value: Any) -> Any:
    """A hashable stand-in for a JSON value: equal exactly when the values are equal JSON."""
    kind = type(value)
    if kind is float:
        return Decimal(repr(value))
    if kind is bool:
        return ("boolean", value)
    if kind is list:
        return ("array", *(value_key(item) for item in value))
    if kind is dict:
        return ("object", frozenset((name, value_key(item)) for name, item in value.items()))
    return value


def memo_of(schema: Schema) -> Memo:
    """The node's memo, made at the first call."""
    memo = schema.memo
    if memo is None:
        memo = schema.memo = Memo()
    return memo


def _combined(
    schemas: tuple[Schema, ...], kind: type[Schema], dual: type[Schema], *, neutral: Schema, absorbing: Schema
) -> Schema:
    """A conjunction or disjunction in its simplest form: flat, without doubles, without what another part implies."""
    parts: dict[Schema, None] = {}
    for schema in schemas:
        if schema is absorbing:
            return absorbing
        if type(schema) is kind:
            parts.update(dict.fromkeys(schema.parts))
        elif schema is not neutral:
            parts[schema] = None
    if len(parts) < 2:
        return next(iter(parts), neutral)
    if any(part.opposite in parts for part in parts if part.opposite is not None):
        return absorbing
    # a and (a or b) is a; a or (a and b) is a.
    return _composed(kind, [part for part in parts if type(part) is not dual or parts.keys().isdisjoint(part.parts)])


def _composed(kind: type[Schema], parts: list[Schema]) -> Schema:
    if len(parts) == 1:
        return parts[0]
    store = next(part.store for part in parts if part.store is not None)
    return _interned(store, kind, tuple(parts))


def _interned(store: SchemaStore | None, kind: type[Schema], parts: tuple[Schema, ...]) -> Schema:
    assert store is not None
    key = (kind, frozenset(parts))
    node = store.nodes.get(key)
    if node is None:
        node = store.nodes[key] = kind(store, parts)
    return node


def _slots_of(node: Schema) -> list[tuple[str, Any]]:
    names = [name for kind in type(node).__mro__ for name in getattr(kind, "__slots__", ())]
    return [(name, getattr(node, name)) for name in names]
