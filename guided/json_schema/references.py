"""Where the references of a JSON Schema lead: `$ref`, `$id`, `$anchor`, `$dynamicRef`, inside the document.

A `Scope` is what a subschema inherits from the places it was reached through: the resource it belongs to, the draft,
and the dynamic anchors met on the way. `Scope.subschema` makes the node of a subschema, `Scope.resolve` follows a
reference. Nothing is ever fetched: what is not in the document (or one of the embedded meta-schemas) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from ..errors import GrammarError
from .drafts import ANNOTATIONS, ANY_DRAFT, Draft, draft_of, meta_schemas
from .schema_nodes import EVERYTHING, NOTHING, Located, Schema, SchemaStore, memo_of

RECURSIVE = "#recursive"
"""The name under which 2019-09's `$recursiveAnchor: true` is kept among the dynamic anchors."""

OPEN, CLOSED, MEMBERS_CLOSED = range(3)

MAX_ALIASES = 1000
"""How many references in a row may lead to nothing but a further reference."""


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """How a schema is read.

    Attributes:
        additional_properties: False closes each object that declares `properties` and says nothing about others.
        assert_formats: False makes `format` an annotation.
        unknown_formats: whether a format that we do not know is an annotation or refused.
        nullable: whether OpenAPI's `nullable` is obeyed in a document that does not declare its draft.
    """

    additional_properties: bool = True
    assert_formats: bool = True
    unknown_formats: str = "ignore"
    nullable: bool = True


class SchemaDocument:
    """A decoded schema, its nodes and its index of identified resources and anchors."""

    def __init__(self, root: Any, options: SchemaOptions, store: SchemaStore) -> None:
        self.value = root
        self.options = options
        self.store = store
        self.follows_dynamic_scope = False
        self._scopes: dict[tuple, Scope] = {}
        self._resources: dict[str, Resource] | None = None
        draft = draft_of(root) if isinstance(root, dict) else ANY_DRAFT
        identity = identity_of(root, draft) if isinstance(root, dict) else None
        self._whole = Resource(urldefrag(identity)[0] if identity else "", "", draft)

    def root(self) -> Schema:
        """The node of the whole document."""
        dynamic = tuple((name, self._whole.uri) for name in sorted(self._whole.dynamic_anchors))
        closing = OPEN if self.options.additional_properties else CLOSED
        return self.scope(self._whole, dynamic, closing).subschema(self.value, "")

    def follow_dynamic_scope(self) -> None:
        """From now on scopes remember dynamic anchors: asked for when the first `$dynamicRef` is met."""
        self.follows_dynamic_scope = True
        self.resources()
        self._scopes.clear()
        self.store.nodes.clear()

    def scope(self, resource: Resource, dynamic: tuple[tuple[str, str], ...], closing: int) -> Scope:
        """The scope of a resource, reached with these dynamic anchors: (name, URI of the outermost resource)."""
        key = (resource.uri, resource.pointer, dynamic, closing)
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = Scope(self, resource, dynamic, closing)
        return scope

    def resource(self, uri: str) -> Resource | None:
        """The resource with this URI in the document, or the embedded meta-schema of that name."""
        known = self.resources().get(uri)
        if known is None and (embedded := meta_schemas().get(uri)) is not None:
            known = self.resources()[uri] = Resource(uri, f"{uri}#", draft_of(embedded))
            self._index(embedded, known)
        return known

    def resources(self) -> dict[str, Resource]:
        if self._resources is None:
            self._resources = {"": self._whole, self._whole.uri: self._whole}
            self._index(self.value, self._whole)
        return self._resources

    def at(self, pointer: str) -> Any:
        """The value at a pointer that is known to lead somewhere."""
        value = self.value
        if pointer and not pointer.startswith("/"):
            uri, _, pointer = pointer.partition("#")
            value = meta_schemas()[uri]
        for token in pointer.split("/")[1:]:
            value = value[int(token)] if isinstance(value, list) else value[unescaped(token)]
        return value

    def _index(self, root: Any, whole: Resource) -> None:
        """Notes every `$id` and anchor in `root`, the value of `whole`. Values of `enum` and `const` are no schemas."""
        assert self._resources is not None
        pending = [(root, whole, whole.pointer)]
        while pending:
            value, resource, pointer = pending.pop()
            self.store.budget.spend(2)
            if isinstance(value, list):
                pending += [(item, resource, f"{pointer}/{place}") for place, item in enumerate(value)]
                continue
            if not isinstance(value, dict):
                continue
            identity = identity_of(value, resource.draft)
            if identity is not None and pointer != whole.pointer:
                resource = identified(resource, identity, pointer, value)
                self._resources.setdefault(resource.uri, resource)
            _note_anchors(resource, value, pointer)
            pending += [
                (item, resource, f"{pointer}/{escaped(name)}")
                for name, item in value.items()
                if name not in ("enum", "const") and isinstance(item, dict | list)
            ]


class Resource:
    """A schema with a URI of its own: the document, or a subschema with `$id`."""

    __slots__ = ("anchors", "draft", "dynamic_anchors", "pointer", "uri")

    def __init__(self, uri: str, pointer: str, draft: Draft) -> None:
        self.uri = uri
        self.pointer = pointer
        self.draft = draft
        self.anchors: dict[str, str] = {}
        self.dynamic_anchors: dict[str, str] = {}


class Scope:
    """What a subschema inherits from the way it was reached.

    Attributes:
        closing: OPEN; CLOSED, of a schema for a whole value under `additional_properties=False`; or MEMBERS_CLOSED, of
            one that applies to the same value as a CLOSED schema: that one closes it, knowing all its declared names.
    """

    __slots__ = ("_references", "closing", "document", "draft", "dynamic", "resource", "store")

    def __init__(
        self, document: SchemaDocument, resource: Resource, dynamic: tuple[tuple[str, str], ...], closing: int
    ) -> None:
        self.document = document
        self.store = document.store
        self.resource = resource
        self.draft = resource.draft
        self.dynamic = dynamic
        self.closing = closing
        self._references: dict[tuple[str, str], Schema] = {}

    def subschema(self, value: Any, pointer: str) -> Schema:
        """The node of the subschema `value` at `pointer`; a mere reference is its target.

        Raises:
            GrammarError: it is neither an object nor a boolean, or its reference leads nowhere.
        """
        scope = self
        for _ in range(MAX_ALIASES):
            if type(value) is not dict:
                if value is True:
                    return EVERYTHING
                if value is False:
                    return NOTHING
                raise GrammarError("invalid", "a schema must be an object or a boolean", location=pointer)
            if not value:
                return EVERYTHING
            if value.get("type") in _PLAIN_TYPES and value.keys() <= _PLAIN_KEYWORDS:
                # What says no more than "a string" is the same node wherever it stands: all that follows is shared.
                key = (value["type"], scope)
            else:
                if scope.draft.id_keyword in value:
                    scope = scope.entered(value, pointer)
                key = (pointer, scope)
            node = scope.store.nodes.get(key)
            if node is not None:
                return node
            if "$ref" not in value or not scope.draft.is_mere_reference(value):
                node = scope.store.nodes[key] = Located(scope.store, value, scope, pointer)
                return node
            scope, value, pointer = scope.target("$ref", value["$ref"], pointer)
        raise GrammarError("invalid", "the reference leads to itself", location=pointer, keyword="$ref")

    def resolve(self, keyword: str, reference: Any, pointer: str) -> Schema:
        """The node that `$ref`, `$dynamicRef` or `$recursiveRef` at `pointer` leads to.

        Raises:
            GrammarError: it leads out of the document, or to nothing.
        """
        known = self._references.get((keyword, reference)) if isinstance(reference, str) else None
        if known is None:
            scope, value, target = self.target(keyword, reference, pointer)
            known = self._references[keyword, reference] = scope.subschema(value, target)
        return known

    def target(self, keyword: str, reference: Any, pointer: str) -> tuple[Scope, Any, str]:
        """Scope, value and pointer of a reference's target."""
        if not isinstance(reference, str):
            raise GrammarError("invalid", "must be a string", location=pointer, keyword=keyword)
        if keyword == "$recursiveRef":
            return self._dynamic_target(self.resource, RECURSIVE, self.resource.pointer)
        if reference in ("#", "") or reference.startswith("#/"):
            resource, fragment = self.resource, unquote(reference[1:])
        else:
            resource, fragment = self._identified(reference, pointer, keyword)
        if fragment and not fragment.startswith("/"):
            if keyword == "$dynamicRef" and fragment in resource.dynamic_anchors:
                return self._dynamic_target(resource, fragment, resource.dynamic_anchors[fragment])
            place = resource.anchors.get(fragment)
            if place is None:
                raise GrammarError(
                    "invalid", f"no anchor {fragment!r} in the document", location=pointer, keyword=keyword
                )
            scope = self._inside(resource)
            return scope, self.document.at(place), place
        return self._walked(resource, fragment, reference, pointer, keyword)

    def entered(self, value: dict[str, Any], pointer: str) -> Scope:
        """The scope inside the subschema `value`: its own when it has an `$id`."""
        identity = identity_of(value, self.draft)
        if identity is None or pointer == self.resource.pointer:
            return self
        resource = identified(self.resource, identity, pointer, value)
        return self._inside(self.document.resources().get(resource.uri, resource))

    def opened(self) -> Scope:
        """The same scope without the option that closes objects."""
        return self.document.scope(self.resource, self.dynamic, OPEN) if self.closing else self

    def of_value(self) -> Scope:
        """The scope of the schemas for properties and items."""
        return self._with(CLOSED) if self.closing == MEMBERS_CLOSED else self

    def in_place(self) -> Scope:
        """The scope of the schemas that apply to the same value."""
        return self._with(MEMBERS_CLOSED) if self.closing == CLOSED else self

    def _with(self, closing: int) -> Scope:
        return self.document.scope(self.resource, self.dynamic, closing)

    def _identified(self, reference: str, pointer: str, keyword: str) -> tuple[Resource, str]:
        base, fragment = urldefrag(reference)
        uri = urljoin(self.resource.uri, base) if base else self.resource.uri
        resource = self.document.resource(uri)
        if resource is None:
            raise GrammarError(
                "unsupported",
                f"{reference!r} is not in the document, and nothing is fetched",
                location=pointer,
                keyword=keyword,
            )
        return resource, unquote(fragment)

    def _inside(self, resource: Resource) -> Scope:
        if resource is self.resource:
            return self
        dynamic = self.dynamic
        if self.document.follows_dynamic_scope:
            seen = dict(dynamic)
            for name in resource.dynamic_anchors:
                seen.setdefault(name, resource.uri)
            dynamic = tuple(sorted(seen.items()))
        return self.document.scope(resource, dynamic, self.closing)

    def _dynamic_target(self, resource: Resource, name: str, place: str) -> tuple[Scope, Any, str]:
        if name in resource.dynamic_anchors:
            outermost = dict(self.dynamic).get(name)
            if outermost is not None:
                resource = self.document.resources()[outermost]
            place = resource.dynamic_anchors[name]
        return self._inside(resource), self.document.at(place), place

    def _walked(
        self, resource: Resource, fragment: str, reference: str, pointer: str, keyword: str
    ) -> tuple[Scope, Any, str]:
        scope = self._inside(resource)
        place, value = resource.pointer, self.document.at(resource.pointer)
        for token in fragment.split("/")[1:]:
            if isinstance(value, dict):
                scope = scope.entered(value, place)
                found = unescaped(token) in value
            else:
                found = isinstance(value, list) and token.isascii() and token.isdigit() and int(token) < len(value)
            if not found:
                raise GrammarError("invalid", f"{reference!r} leads to nothing", location=pointer, keyword=keyword)
            value = value[int(token)] if isinstance(value, list) else value[unescaped(token)]
            place = f"{place}/{token}"
        return scope, value, place


_PLAIN_TYPES = ("string", "number", "integer", "boolean", "null")
_PLAIN_KEYWORDS = frozenset(("type", *ANNOTATIONS))


def identity_of(value: dict[str, Any], draft: Draft) -> str | None:
    """The URI that a subschema gives itself, if it does."""
    identity = value.get(draft.id_keyword)
    if not isinstance(identity, str) or (draft.ignores_siblings and "$ref" in value):
        return None
    # Drafts up to 7 spell anchors as `"$id": "#name"`: no new resource.
    return None if identity.startswith("#") else identity


def identified(outer: Resource, identity: str, pointer: str, value: dict[str, Any]) -> Resource:
    """The resource that begins at `pointer`."""
    uri = urldefrag(urljoin(outer.uri, identity))[0]
    draft = draft_of(value) if "$schema" in value else outer.draft
    return Resource(uri, pointer, draft)


def declared(located: Located) -> dict[str, Schema]:
    """The nodes of the subschemas in `properties`, by name."""
    memo = memo_of(located)
    if memo.declared is None:
        subschema, pointer = located.scope.of_value().subschema, f"{located.pointer}/properties/"
        members = located.keywords.get("properties", {})
        memo.declared = {name: subschema(value, pointer + escaped(name)) for name, value in members.items()}
    return memo.declared


def escaped(token: str) -> str:
    """A key as a JSON pointer writes it."""
    return token.replace("~", "~0").replace("/", "~1") if "~" in token or "/" in token else token


def unescaped(token: str) -> str:
    """The key that a JSON pointer's token means."""
    return token.replace("~1", "/").replace("~0", "~") if "~" in token else token


def _note_anchors(resource: Resource, value: dict[str, Any], pointer: str) -> None:
    identity = value.get(resource.draft.id_keyword)
    if isinstance(identity, str) and "#" in identity and (name := identity.partition("#")[2]):
        resource.anchors.setdefault(name, pointer)
    for keyword in ("$anchor", "$dynamicAnchor"):
        name = value.get(keyword)
        if isinstance(name, str):
            resource.anchors.setdefault(name, pointer)
            if keyword == "$dynamicAnchor":
                resource.dynamic_anchors.setdefault(name, pointer)
    if value.get("$recursiveAnchor") is True and pointer == resource.pointer:
        resource.dynamic_anchors.setdefault(RECURSIVE, pointer)
