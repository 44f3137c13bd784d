"""/generate: the request of three servers (vLLM's demo, Outlines, BentoML's guide), and its answer."""

from __future__ import annotations

from typing import Any

import msgspec

from .constraint import ABSENT
from .sampling import GenerationFields


class GenerateRequest(GenerationFields, kw_only=True):
    """The body of POST /generate."""

    prompt: str | list[int] | None = None
    """A text, or token ids. Without one, the answer is a character of BentoML's guide."""
    schema: msgspec.Raw = ABSENT
    """A JSON Schema, or the text of one, that the answer must match. It goes before regex."""
    regex: str | None = None
    """What the answer as a whole must match."""
    json_schema: msgspec.Raw = ABSENT
    """The same as schema, but the answer is the JSON value itself."""
    echo_prompt: bool | None = None
    """Whether the prompt stands in front of each text. Default: where nothing constrains the answer."""
    stream_separator: str | None = None
    """What ends each object of a stream: a newline, or NUL as of old."""

    logprobs: Any = None
    """Refused: there is no place for them in the answer."""


class GenerateResponse(msgspec.Struct):
    """The answer, and each object of a stream: the texts so far."""

    text: list[str]
