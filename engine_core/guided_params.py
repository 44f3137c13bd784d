"""How an answer is constrained, as the offline API says it: the public names that users of vLLM know.

`SamplingParams(guided_decoding=GuidedDecodingParams(choice=["yes", "no"]))`, or the newer form
`SamplingParams(structured_outputs=StructuredOutputsParams(regex=r"\\d+"))`. They stay in the front-end; the engine gets
the compiled grammar.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import InvalidRequestError

BACKENDS = ("auto", "zqserve", "outlines", "lm-format-enforcer", "xgrammar", "guidance", "llguidance")
"""Names that `backend` may have; all mean the one compiler that there is."""
BACKEND_OPTIONS = (
    "no-fallback",
    "disable-any-whitespace",
    "no-additional-properties",
    "any-property-order",
    "disable-fallback",
)
"""What may follow a backend's name behind a colon, separated by commas. The first and the last change nothing."""


class StructuredOutputsParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Exactly one of the first six is given."""

    json: Any = None
    """A JSON Schema: its text, a dict, or a pydantic class."""
    regex: str | None = None
    """The whole answer matches it."""
    choice: list[str] | None = None
    """The answer is one of these."""
    grammar: str | None = None
    """GBNF or Lark."""
    json_object: bool | None = None
    """Any JSON object."""
    structural_tag: Any = None
    """Free text with tags in it whose content follows a schema: its JSON text, or a dict."""
    whitespace_pattern: str | None = None
    """A regular expression of the white space between the parts of JSON; None: a few bounded forms."""
    disable_any_whitespace: bool = False
    """No white space in JSON, but one space behind `,` and `:` is not promised either."""
    disable_additional_properties: bool = False
    """Objects whose schema does not speak of additional properties have none."""
    disable_fallback: bool = False
    """Taken for the sake of existing scripts: there is nothing to fall back to."""


class GuidedDecodingParams(StructuredOutputsParams, kw_only=True, omit_defaults=True):
    """The older form of `StructuredOutputsParams`, with the name of a backend."""

    backend: str | None = None
    """Any name that vLLM knows, with its options (`xgrammar:no-fallback`); see `backend_options`."""


def backend_options(param: str, backend: str) -> frozenset[str]:
    """The options behind a backend's name. Raises `InvalidRequestError` for a name or an option that nobody knows."""
    name, _, rest = backend.partition(":")
    options = frozenset(filter(None, rest.split(",")))
    unknown = sorted(options.difference(BACKEND_OPTIONS))
    if name not in BACKENDS:
        raise InvalidRequestError(param, f"{param} must be one of {', '.join(BACKENDS)}, got {name[:60]!r}.")
    if unknown:
        known = ", ".join(BACKEND_OPTIONS)
        raise InvalidRequestError(param, f"{param} takes the options {known}, got {unknown[0][:60]!r}.")
    return options
