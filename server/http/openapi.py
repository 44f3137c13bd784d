"""The OpenAPI 3.1 document of the server, made of its endpoints and of the Structs that decode the requests.

Field descriptions are the docstrings that stand below the fields, limits what `msgspec.Meta` says of them.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from ..protocol.error import ErrorResponse
from .endpoint import JSON, NOT_SERVED, PROBES, Endpoint, ObjectSequence, ServerSentEvents

_REF = "#/components/schemas/{name}"
_HEADER_REF = "#/components/headers/{name}"
_SECURITY_SCHEME = "apiKey"

_MEANINGS = {
    400: "The request is malformed, a field has a wrong value, or the model does not answer such requests.",
    401: "The request shows no valid key.",
    404: "The model is not served here.",
    408: "The body was not complete within --body-timeout.",
    413: "The body is larger than --max-body-size.",
    429: "The key has used up what it may; Retry-After says when to ask again.",
    500: "The engine failed under the request, or the server made a mistake.",
    501: "Not supported.",
    503: "Too many requests wait, or none is taken now; Retry-After says when to ask again.",
    504: "The request has taken longer than --request-timeout.",
}

_HEADERS = {
    "X-Request-Id": "The id that the request came with, or was given.",
    "Retry-After": "Seconds after which to ask again.",
    "WWW-Authenticate": "How to show a key.",
}
_HEADERS_OF = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
"""Those that come with a status, beside the first."""


def openapi_document(
    endpoints: Sequence[Endpoint], *, version: str, root_path: str = "", open_paths: Collection[str] | None = None
) -> dict[str, Any]:
    """The document as plain data.

    `open_paths` are those that need no key; None: there is no key at all.
    """
    types = [type_ for endpoint in endpoints for type_ in endpoint.types] + [ErrorResponse]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = {id(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    structs = _structs(msgspec.inspect.multi_type_info(types))
    docstrings = _docstrings({base.__module__ for struct in structs for base in _bases(struct)})
    for struct in structs:
        _describe(components.get(struct.__name__, {}), struct, docstrings)
    paths: dict[str, Any] = {}
    tags = dict.fromkeys(endpoint.tag for endpoint in endpoints if endpoint.tag != NOT_SERVED) | {NOT_SERVED: None}
    for endpoint in endpoints:
        guarded = open_paths is not None and endpoint.path not in open_paths
        for method in endpoint.verbs:
            operations = paths.setdefault(endpoint.path_format, {})
            operations[method.lower()] = _operation(endpoint, method, schema_of, guarded)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "zqserve",
            "version": version,
            "summary": "An OpenAI-compatible server for open language models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root_path or "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {"schemas": components, "headers": _header_components()},
    }
    if open_paths is not None:
        document["components"]["securitySchemes"] = {_SECURITY_SCHEME: {"type": "http", "scheme": "bearer"}}
    return document


def _operation(endpoint: Endpoint, method: str, schema_of: dict[int, Any], guarded: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": "_".join(re.findall(r"\w+", f"{method.lower()} {endpoint.path_format}")),
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "parameters": [
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
            for parameter in endpoint.param_convertors
        ],
        "responses": _responses(endpoint, method, schema_of, guarded),
    }
    if endpoint.requests:
        content: dict[str, Any] = {"schema": _any_of(endpoint.requests, schema_of)}
        if endpoint.example is not None:
            content["example"] = endpoint.example
        operation["requestBody"] = {
            "required": True,
            "description": "JSON, whatever Content-Type says. Unknown fields are passed over.",
            "content": {JSON: content},
        }
    if guarded:
        operation["security"] = [{_SECURITY_SCHEME: []}]
    return operation


def _header_components() -> dict[str, Any]:
    return {
        name: {
            "description": description,
            "required": True,
            "schema": {"type": "integer", "minimum": 0} if name == "Retry-After" else {"type": "string"},
        }
        for name, description in _HEADERS.items()
    }


def _responses(endpoint: Endpoint, method: str, schema_of: dict[int, Any], guarded: bool) -> dict[str, Any]:
    statuses = {*endpoint.errors, 500}
    if endpoint.tag != PROBES:
        statuses.add(503)  # at the server's end
    if method == "POST":
        statuses |= {429, 503}  # the queue is before every path
    if endpoint.requests:
        statuses |= {400, 408, 413}
    if any("model" in request.__struct_fields__ for request in endpoint.requests):
        statuses.add(404)
    if guarded:
        statuses.add(401)
    responses: dict[str, Any] = {} if endpoint.refuses else {"200": _success(endpoint, schema_of)}
    for status in sorted(statuses):
        meaning = _MEANINGS.get(status, HTTPStatus(status).phrase)
        content = {JSON: {"schema": schema_of[id(endpoint.error)]}}
        responses[str(status)] = {"description": meaning, "content": content}
    for status, response in responses.items():
        names = ("X-Request-Id", *_HEADERS_OF.get(int(status), ()))
        response["headers"] = {name: {"$ref": _HEADER_REF.format(name=name)} for name in names}
    return responses


def _success(endpoint: Endpoint, schema_of: dict[int, Any]) -> dict[str, Any]:
    if not endpoint.answers:
        return {"description": "The body is empty."}
    content = {endpoint.media_type: {"schema": _any_of(endpoint.answers, schema_of)}}
    match endpoint.stream:
        case None:
            return {"description": "The answer.", "content": content}
        case ServerSentEvents() as stream:
            content["text/event-stream"] = {"schema": _event(stream, schema_of)}
            return {"description": "The answer; with `stream: true`, server-sent events.", "content": content}
        case ObjectSequence() as stream:
            separators = {separator: kind.partition(";")[0] for separator, kind in stream.separators.items()}
            for separator, kind in separators.items():
                content[kind] = {"schema": _sequence(stream, separator, kind, schema_of)}
            return {
                "description": "The answer; with `stream: true`, JSON objects with a separator behind each.",
                "content": content,
            }


def _event(stream: ServerSentEvents, schema_of: dict[int, Any]) -> dict[str, Any]:
    """One event of a stream."""
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": _any_of(stream.objects, schema_of),
    }
    if stream.ends_with_done:
        data = {"anyOf": [data, {"const": "[DONE]"}]}
    return {"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["data"]}


def _sequence(stream: ObjectSequence, separator: str, kind: str, schema_of: dict[int, Any]) -> dict[str, Any]:
    """The text of a whole stream; `contentSchema` is that of each object in it."""
    return {
        "type": "string",
        "description": f"JSON objects, U+{ord(separator):04X} behind each.",
        "contentMediaType": kind,
        "contentSchema": _any_of(stream.objects, schema_of),
    }


def _any_of(types: Sequence[Any], schema_of: dict[int, Any]) -> dict[str, Any]:
    schemas = [schema_of[id(type_)] for type_ in types]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _structs(infos: Iterable[Any]) -> list[type[msgspec.Struct]]:
    """Every Struct that the descriptions of types lead to."""
    found: dict[type[msgspec.Struct], None] = {}
    waiting = list(infos)
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found[info.cls] = None
        if isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            for name in info.__struct_fields__:
                value = getattr(info, name)
                waiting += value if isinstance(value, tuple) else [value]
    return list(found)


def _bases(struct: type[msgspec.Struct]) -> list[type]:
    """The classes that have fields of `struct`, itself first."""
    return list(itertools.takewhile(lambda base: base is not msgspec.Struct, struct.__mro__))


def _describe(
    schema: dict[str, Any], struct: type[msgspec.Struct], docstrings: Mapping[tuple[str, str], dict[str, str]]
) -> None:
    """Put the docstrings of the fields of `struct` into its schema."""
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    for base in _bases(struct):
        for field, text in docstrings.get((base.__module__, base.__qualname__), {}).items():
            schema.get("properties", {}).get(names[field], {}).setdefault("description", text)


def _docstrings(modules: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """The docstring below each field of the classes of modules whose source is at hand, by module and class."""
    found = {}
    for module in modules:
        try:
            source = inspect.getsource(sys.modules[module])
        except OSError:
            continue
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.ClassDef):
                found[module, statement.name] = _field_docstrings(statement)
    return found


def _field_docstrings(definition: ast.ClassDef) -> dict[str, str]:
    docstrings = {}
    for statement, following in itertools.pairwise(definition.body):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        match following:
            case ast.Expr(value=ast.Constant(value=str(text))):
                docstrings[statement.target.id] = " ".join(text.split())
    return docstrings
