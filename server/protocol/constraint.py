"""The fields that constrain an answer. A schema stays the JSON text that it came as: its numbers are exact."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

ABSENT: Any = msgspec.field(default_factory=msgspec.Raw)
"""The default of a field that takes JSON of any kind: no JSON at all."""


class StructuredOutputs(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`structured_outputs`: exactly one of the first six."""

    json: msgspec.Raw = ABSENT
    """A JSON Schema, or the text of one."""
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: msgspec.Raw = ABSENT
    """An object, or the text of one."""
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    disable_fallback: bool | None = None
    """Taken without effect: there is nothing to fall back to."""


class JsonSchemaFormat(msgspec.Struct, kw_only=True):
    """`response_format.json_schema`. The schema is always kept to, whatever `strict` says."""

    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


FORMATS = ("text", "json_object", "json_schema", "structural_tag")
"""Types of `response_format`."""


class ResponseFormat(msgspec.Struct, kw_only=True):
    """`response_format`, as the OpenAI API has it, and vLLM's structural tags."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(FORMATS)})]
    json_schema: JsonSchemaFormat | None = None
    structures: msgspec.Raw = ABSENT
    triggers: msgspec.Raw = ABSENT
    format: msgspec.Raw = ABSENT
