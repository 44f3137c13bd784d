"""What an answer must match, from whatever field said it: of a request, or of `SamplingParams` offline.

The `Constraint` is compiled by `grammar_compiler.py`, offline by `LLM` itself, into the grammar that the engine gets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from ...engine_core.errors import InvalidRequestError
from ...engine_core.guided_params import GuidedDecodingParams, StructuredOutputsParams, backend_options
from ...engine_core.sampling_params import SamplingParams
from ..protocol.constraint import FORMATS, ResponseFormat, StructuredOutputs
from ..protocol.sampling import GenerationFields

ConstraintKind = Literal["regex", "choice", "json", "json_object", "grammar", "structural_tag"]


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """One constraint, ready to be compiled."""

    param: str
    """The field that it came in, for error messages; not a part of what is compiled."""
    kind: ConstraintKind
    text: str
    """The pattern, the schema, the grammar, or the choices as a JSON list; "" for any JSON object."""
    whitespace_pattern: str | None = None
    any_whitespace: bool = True
    additional_properties: bool = True
    any_order: bool = False
    check_only: bool = False
    """Whether nothing is to be held to this schema: then it need only be well-formed."""

    def content_key(self) -> bytes:
        """Names what is compiled: equal for equal content, whatever field it came in."""
        return blake2b(msgspec.msgpack.encode(msgspec.structs.replace(self, param="")), digest_size=16).digest()


def request_constraint(
    request: GenerationFields,
    default_backend: str = "auto",
    more: Sequence[tuple[str, ConstraintKind, str | None]] = (),
) -> Constraint | None:
    """The constraint that a request asks for, if any. Raises `InvalidRequestError`.

    `default_backend` holds, for its options' sake, where the request names none. `more` are fields of this endpoint
    alone: name, kind and text.
    """
    backend = default_backend if request.guided_decoding_backend is None else request.guided_decoding_backend
    options = backend_options("guided_decoding_backend", backend)
    outputs = request.structured_outputs or StructuredOutputs()
    constraint = _only_one(
        [
            ("guided_json", "json", json_text("guided_json", request.guided_json)),
            ("guided_regex", "regex", request.guided_regex),
            ("guided_choice", "choice", _choice("guided_choice", request.guided_choice)),
            ("guided_grammar", "grammar", request.guided_grammar),
            ("guided_json_object", "json_object", "" if request.guided_json_object else None),
            ("structured_outputs.json", "json", json_text("structured_outputs.json", outputs.json)),
            ("structured_outputs.regex", "regex", outputs.regex),
            ("structured_outputs.choice", "choice", _choice("structured_outputs.choice", outputs.choice)),
            ("structured_outputs.grammar", "grammar", outputs.grammar),
            ("structured_outputs.json_object", "json_object", "" if outputs.json_object else None),
            (
                "structured_outputs.structural_tag",
                "structural_tag",
                json_text("structured_outputs.structural_tag", outputs.structural_tag),
            ),
            ("response_format", *_response_format(request.response_format)),
            *more,
        ],
    )
    if constraint is None and request.structured_outputs is not None:
        raise InvalidRequestError("structured_outputs", f"structured_outputs has none of {', '.join(_KINDS)}.")
    patterns = {
        "guided_whitespace_pattern": request.guided_whitespace_pattern,
        "structured_outputs.whitespace_pattern": outputs.whitespace_pattern,
    }
    return _with_options(
        constraint,
        {param: pattern for param, pattern in patterns.items() if pattern is not None},
        any_whitespace=not outputs.disable_any_whitespace and "disable-any-whitespace" not in options,
        additional_properties=not outputs.disable_additional_properties and "no-additional-properties" not in options,
        any_order="any-property-order" in options,
    )


def params_constraint(params: SamplingParams, default_backend: str = "auto") -> Constraint | None:
    """The same of `SamplingParams`. Raises `InvalidRequestError`."""
    given: StructuredOutputsParams | None = params.guided_decoding or params.structured_outputs
    if given is None:
        return None
    param = "structured_outputs" if params.guided_decoding is None else "guided_decoding"
    own_backend = given.backend if isinstance(given, GuidedDecodingParams) else None
    options = backend_options(f"{param}.backend", default_backend if own_backend is None else own_backend)
    constraint = _only_one(
        [
            (f"{param}.json", "json", _python_json(f"{param}.json", given.json)),
            (f"{param}.regex", "regex", given.regex),
            (f"{param}.choice", "choice", _choice(f"{param}.choice", given.choice)),
            (f"{param}.grammar", "grammar", given.grammar),
            (f"{param}.json_object", "json_object", "" if given.json_object else None),
            (
                f"{param}.structural_tag",
                "structural_tag",
                _python_json(f"{param}.structural_tag", given.structural_tag),
            ),
        ],
    )
    if constraint is None:
        raise InvalidRequestError(param, f"{param} has none of {', '.join(_KINDS)}.")
    pattern = given.whitespace_pattern
    return _with_options(
        constraint,
        {} if pattern is None else {f"{param}.whitespace_pattern": pattern},
        any_whitespace=not given.disable_any_whitespace and "disable-any-whitespace" not in options,
        additional_properties=not given.disable_additional_properties and "no-additional-properties" not in options,
        any_order="any-property-order" in options,
    )


_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


def _only_one(fields: Iterable[tuple[str, ConstraintKind, str | None]]) -> Constraint | None:
    """The constraint of the one field that says something."""
    given = [Constraint(param=param, kind=kind, text=text) for param, kind, text in fields if text is not None]
    if len(given) > 1:
        first, second = given[0].param, given[1].param
        raise InvalidRequestError(second, f"Only one constraint may be given, got {first} and {second}.")
    return given[0] if given else None


def _with_options(
    constraint: Constraint | None,
    whitespace: dict[str, str],
    *,
    any_whitespace: bool,
    additional_properties: bool,
    any_order: bool,
) -> Constraint | None:
    """The constraint with the options that hold for JSON; a pattern of white space that nothing uses is refused."""
    if len(whitespace) > 1:
        raise InvalidRequestError(None, f"Only one of {' and '.join(whitespace)} may be given.")
    for param in whitespace:
        if constraint is None or constraint.kind not in ("json", "json_object", "structural_tag"):
            raise InvalidRequestError(param, f"{param} needs a constraint that is JSON.")
        if not any_whitespace:
            raise InvalidRequestError(param, f"{param} contradicts disable_any_whitespace.")
    if constraint is None:
        return None
    return msgspec.structs.replace(
        constraint,
        whitespace_pattern=next(iter(whitespace.values()), None),
        any_whitespace=any_whitespace,
        additional_properties=additional_properties,
        any_order=any_order,
    )


def _choice(param: str, choice: list[str] | None) -> str | None:
    if choice is None:
        return None
    if not choice or not all(isinstance(text, str) for text in choice):
        raise InvalidRequestError(param, f"{param} must be a list of at least one string.")
    return msgspec.json.encode(choice).decode()


def json_text(param: str, raw: msgspec.Raw) -> str | None:
    """The JSON text of an object (or a schema that is true or false), which a string may hold."""
    text = bytes(raw).decode().strip()
    if text in ("", "null"):
        return None
    if text[0] == '"':
        text = msgspec.json.decode(text, type=str)
    elif text[0] != "{" and text not in ("true", "false"):
        raise InvalidRequestError(param, f"{param} must be an object, or its JSON text.")
    return text


def _python_json(param: str, value: Any) -> str | None:
    """JSON text of a text, a dict or a pydantic class."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        value = value.model_json_schema()
    if not isinstance(value, dict | bool):
        raise InvalidRequestError(param, f"{param} must be JSON text, a dict or a pydantic class, got {type(value)}.")
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(param, f"{param} cannot be written as JSON: {error}.") from None


def _response_format(given: ResponseFormat | None) -> tuple[ConstraintKind, str | None]:
    param = "response_format"
    if given is None or given.type == "text":
        return "json_object", None
    if given.type == "json_object":
        return "json_object", ""
    if given.type == "json_schema":
        schema = None if given.json_schema is None else json_text(param, given.json_schema.schema)
        if schema is None:
            raise InvalidRequestError(param, "response_format of type json_schema needs json_schema.schema.")
        return "json", schema
    if given.type == "structural_tag":
        parts = {name: bytes(getattr(given, name)).decode() for name in ("structures", "triggers", "format")}
        body = "".join(f', "{name}": {text}' for name, text in parts.items() if text)
        if not body:
            raise InvalidRequestError(param, "response_format of type structural_tag needs structures or format.")
        return "structural_tag", f'{{"type": "structural_tag"{body}}}'
    raise InvalidRequestError(
        param, f"response_format.type must be one of {', '.join(FORMATS)}, got {given.type[:40]!r}."
    )
