"""The Jinja2 environment in which chat templates run: immutable, and with a budget.

Templates come with models and, unless the server forbids it, with requests. They reach plain data only; each rendering
may take so many loop turns and calls, so much time, and may make texts so long. What this does not bound is the time
and memory of one single operation (a filter over a long text, a wide format): so the server renders the templates of
requests in a process that can be killed (`template_renderer.py`).
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_TURNS = 1_000_000
MAX_SECONDS = 5.0
MAX_CHARACTERS = 32 * 1024 * 1024
CACHED_TEMPLATES = 64

_BUDGET = " budget"
"""Name of the budget among a template's variables; the space keeps templates from it."""
_COUNTED = " counted"
_JOINED = " joined"


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def compile_template(source: str) -> jinja2.Template:
    """A template ready to `render`. Raises `jinja2.TemplateError`."""
    return _environment().from_string(source)


def parse_template(source: str) -> nodes.Template:
    """The syntax tree of a template, as written. Raises `jinja2.TemplateError`."""
    return _environment().parse(source)


def render(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of plain data. Raises whatever the template runs into."""
    pieces: list[str] = []
    num_characters = 0
    for piece in template.generate({**variables, _BUDGET: _Budget()}):
        num_characters += len(piece)
        _check_length(num_characters)
        pieces.append(piece)
    return "".join(pieces)


def plain(value: Any) -> Any:
    """Data rebuilt of plain types: a template gets no object whose methods could do harm.

    Anything that JSON does not know becomes the name of its type.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"


class _Budget:
    """What one rendering may still spend."""

    def __init__(self) -> None:
        self._num_turns = 0
        self._deadline = time.monotonic() + MAX_SECONDS

    def spend(self) -> None:
        self._num_turns += 1
        if self._num_turns > MAX_TURNS:
            raise jinja2.TemplateRuntimeError(f"it takes more than {MAX_TURNS} loop turns and calls")
        if self._num_turns % 256 == 0 and time.monotonic() > self._deadline:
            raise jinja2.TemplateRuntimeError(f"it takes longer than {MAX_SECONDS:.0f} s")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox; loops, calls and operators that make long texts go through the budget."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (abs(left) <= 2**64 and abs(right) <= 64):
            raise jinja2.TemplateRuntimeError("a power is too large")
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    _check_length(len(sequence) * times)
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _check_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __context.parent[_BUDGET].spend()
        return super().call(__context, __obj, *args, **kwargs)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Counting().visit(source), *args, **kwargs)


class _Counting(NodeTransformer):
    """Rewrites a template so that its loops are counted and its concatenations measured."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _COUNTED, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:
        self.generic_visit(node)
        operands = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(operands, _JOINED, [], [], None, None, lineno=node.lineno)


@jinja2.pass_context
def _counted(context: Context, iterable: Iterable[Any]) -> Iterator[Any]:
    budget: _Budget = context.parent[_BUDGET]
    for item in iterable:
        budget.spend()
        yield item


def _joined(operands: list[Any]) -> str:
    texts = [str(operand) for operand in operands]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise jinja2.TemplateRuntimeError(f"it makes a text of more than {MAX_CHARACTERS} characters")


class _Generation(jinja2.ext.Extension):
    """The `{% generation %}` block, which marks answers for training: its content alone."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _SafeNamespace(Namespace):
    """Jinja2's `namespace()`, which keeps no names of Python's insides."""

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace takes no name that begins with an underscore: {name!r}")
        super().__setitem__(name, value)


@functools.lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols])
    environment.filters |= {"tojson": _to_json, _COUNTED: _counted, _JOINED: _joined}
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _SafeNamespace,
    }
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja2's own filter escapes for HTML; this one writes JSON as transformers does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
