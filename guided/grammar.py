"""The door of guided decoding: what an output must look like (`GrammarSpec`), compiled (`compile_grammar`).

    grammar = compile_grammar(GrammarSpec("regex", r"[0-9]{3}-[0-9]{4}"))
    matcher = GrammarMatcher(grammar, vocabulary)          # matcher.py

All errors that a grammar can have come from `compile_grammar`, before any text is generated. It may take long and much
memory for a hostile grammar: run it in a worker process with limits; the result can be pickled.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any, Literal

import msgspec

from .automata.cells import DEAD
from .automata.pushdown import Pushdown
from .budget import Budget
from .errors import GrammarError
from .grammars.choice import read_choice
from .grammars.context_free import ContextFreeMachine
from .grammars.structural_tag import read_grammar, read_structural_tag
from .json_schema.machine import JsonMachine, JsonOptions
from .json_schema.schema import Schema, SchemaOptions, is_shallow, read_schema
from .json_schema.whitespace import WhitespaceOptions
from .languages.language import JointAutomaton, Language
from .languages.text_lowering import Utf8Rows

MAX_TEXT_BYTES = 1 << 20
"""A pattern, schema or grammar longer than this is refused."""

GrammarKind = Literal["regex", "choice", "json", "json_object", "grammar", "structural_tag"]


class GrammarSpec(msgspec.Struct, frozen=True):
    """What the output must look like. The same spec always compiles to the same grammar.

    Attributes:
        kind: how to read `text`.
        text: regex: a pattern of Python's `re`, which matches the whole output. choice: a JSON list of strings. json: a
            JSON Schema as JSON text. json_object: not used. grammar: GBNF if it holds `::=`, else Lark.
            structural_tag: JSON text, in the old form (`structures`, `triggers`) or the new one (`format`).
        whitespace_pattern: a regex for the white space inside JSON; None: bounded white space.
        any_whitespace: False: no white space in JSON at all.
        additional_properties: False: JSON objects that do not say whether they may have other properties may not.
        any_order: True: JSON objects may have their properties in any order, instead of that of the schema.
    """

    kind: GrammarKind
    text: str = ""
    whitespace_pattern: str | None = None
    any_whitespace: bool = True
    additional_properties: bool = True
    any_order: bool = False

    def content_key(self) -> str:
        """Hex sha256 of the content, for caches."""
        return sha256(msgspec.json.encode(self)).hexdigest()


class CompiledGrammar:
    """A grammar, ready for matchers; it grows as outputs visit it, and can be pickled at any time.

    Attributes:
        spec: what it was compiled from.
        pushdown: the automaton; its `start_row` and `start_returns` are the configuration before the first byte.
    """

    def __init__(self, spec: GrammarSpec, pushdown: Pushdown) -> None:
        self.spec = spec
        self.pushdown = pushdown

    def num_bytes(self) -> int:
        """About how much memory it takes now, with what its matchers share."""
        tables = self.pushdown.tables
        cells = tables.num_lines * 1024 + 4 * (tables.compact.size + tables.allowed.size)
        # A row of several: its places in the tables, its owner's keys, and the terms or states that it stands for.
        states = (tables.row_line.size + 2 * tables.return_kind.size) * 300
        caches = sum(cache.num_bytes() for cache in self.pushdown.caches.values())
        return cells + states + caches + 2 * len(self.spec.text) + 10_000

    def forget(self) -> None:
        """Drops the masks and the configurations that its matchers share, which are found again on need."""
        for cache in self.pushdown.caches.values():
            cache.forget()

    def stop_growing(self) -> None:
        """From now on an output that needs more than is there fails with a GrammarError."""
        self.pushdown.tables.max_lines = self.pushdown.tables.num_lines


def compile_grammar(spec: GrammarSpec, budget: Budget | None = None) -> CompiledGrammar:
    """Compiles a grammar and builds its first row.

    Args:
        budget: pays for the work, now and when the grammar grows later; None: without limit.

    Raises:
        GrammarError: malformed, not supported, not satisfiable, or too complex.
        BudgetExceededError: the budget is used up.
    """
    if len(spec.text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise GrammarError("too_complex", f"longer than {MAX_TEXT_BYTES} bytes")
    pushdown = Pushdown(budget or Budget())
    try:
        _lower(spec, pushdown)
        pushdown.final(pushdown.start_row)
    except RecursionError:
        raise GrammarError("too_complex", "nested too deeply") from None
    return CompiledGrammar(spec, pushdown)


def _lower(spec: GrammarSpec, pushdown: Pushdown) -> None:
    """Gives the pushdown its start."""
    match spec.kind:
        case "regex":
            _lower_language(Language.regex(spec.text, "python"), pushdown)
        case "choice":
            _lower_language(read_choice(_read_json(spec.text)), pushdown)
        case "grammar":
            pushdown.start_row = ContextFreeMachine(pushdown, read_grammar(spec.text)).start_row()
        case "json" | "json_object":
            schemas = _Schemas(spec, pushdown)
            schema = schemas.read(_ANY_OBJECT if spec.kind == "json_object" else _read_json(spec.text), "")
            pushdown.start_row = schemas.machine.value_row((schema,))
        case "structural_tag":
            schemas = _Schemas(spec, pushdown)
            rules = read_structural_tag(_read_json(spec.text), schemas.read)
            pushdown.start_row = ContextFreeMachine(pushdown, rules, schemas.machine).start_row()


def _lower_language(language: Language, pushdown: Pushdown) -> None:
    pushdown.start_row = Utf8Rows(pushdown, JointAutomaton((language,), pushdown.budget)).start
    if pushdown.start_row == DEAD:
        raise GrammarError("unsatisfiable", "no text matches")


class _Schemas:
    """Reads JSON Schemas with the options of a spec, for one JSON machine."""

    def __init__(self, spec: GrammarSpec, pushdown: Pushdown) -> None:
        self._options = SchemaOptions(additional_properties=spec.additional_properties)
        self._budget = pushdown.budget
        self._shallow = is_shallow(spec.text)
        whitespace = WhitespaceOptions("bounded" if spec.any_whitespace else "none")
        if spec.whitespace_pattern is not None:
            whitespace = WhitespaceOptions("pattern", spec.whitespace_pattern)
        self.machine = JsonMachine(pushdown, JsonOptions(any_order=spec.any_order, whitespace=whitespace))

    def read(self, document: Any, pointer: str) -> Schema:
        """A decoded schema that stands at a JSON pointer. Raises GrammarError also if nothing satisfies it."""
        if not isinstance(document, dict | bool):
            raise GrammarError("invalid", "a schema is an object, true or false", location=pointer)
        try:
            schema = read_schema(document, options=self._options, budget=self._budget, shallow=self._shallow)
            if not self.machine.satisfiable(schema):
                raise GrammarError("unsatisfiable", "no JSON value satisfies this schema")
        except GrammarError as error:
            if not pointer:
                raise
            location = pointer + error.location
            raise GrammarError(error.fault, error.reason, location=location, keyword=error.keyword) from None
        return schema


def _read_json(text: str) -> Any:
    """The value of a JSON text, with exact decimals."""
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise GrammarError("invalid", f"no valid JSON: {error}") from None
    except InvalidOperation:
        raise GrammarError("invalid", "a number's exponent is beyond all bounds") from None


_DECODER = msgspec.json.Decoder(float_hook=Decimal)

_ANY_OBJECT: dict[str, Any] = {"type": "object"}
