"""Structural tags: free text and, at marked places in it, text that obeys a schema. The form of tool calls.

    {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<function="], "tags": [
        {"type": "tag", "begin": "<function=add>", "end": "</function>", "content":
            {"type": "json_schema", "json_schema": {…}}}]}}

Two forms are read: the old one (`structures` and `triggers`) and the new one (`format`) of xgrammar and vLLM, with
const_string, json_schema, regex, grammar, any_text, sequence, or, optional, star, plus, repeat, tag, triggered_tags,
tags_with_separator and dispatch. What has to do with single tokens (token, any_tokens, max_tokens …) is refused: a
grammar here is one of text.

Free text (any_text, and around triggered tags) never holds a trigger, an excluded string, or the end of the tag
around it: where a trigger is complete, one of the tags that begin with it must go on. `at_least_one` begins with a tag
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..errors import GrammarError
from ..json_schema.schema import Schema
from ..languages.language import Language
from .gbnf import read_gbnf
from .grammar_rules import (
    EMPTY,
    Choice,
    Expression,
    FreeText,
    JsonValue,
    Literal,
    Reference,
    Regular,
    Repetition,
    Rules,
    Sequence,
)
from .lark_syntax import read_lark

START = "format"

MAX_NESTING = 50
"""Formats within formats."""

NOT_TEXT = {"token", "exclude_token", "any_tokens", "token_triggered_tags", "token_dispatch", "qwen_xml_parameter"}
"""Formats of xgrammar that are refused, by name."""

SchemaReader = Callable[[Any, str], Schema]
"""Reads a decoded JSON Schema; the JSON pointer at which it stands is for errors."""


def read_structural_tag(document: Any, read_schema: SchemaReader) -> Rules:
    """The rules of a structural tag.

    Args:
        document: the decoded JSON: the object with `format`, or with `structures` and `triggers`.
        read_schema: must refuse schemas that nothing satisfies.

    Raises:
        GrammarError: malformed or not supported; with a JSON pointer.
    """
    fields = _Fields(document, "")
    fields.get("type", str, "structural_tag")
    reader = _Reader(read_schema)
    if "format" in fields.values:
        whole = reader.format(fields.take("format"), "/format", ())
    else:
        triggers = fields.texts("triggers")
        tags = [reader.old_tag(tag, f"/structures/{index}") for index, tag in enumerate(fields.get("structures", list))]
        whole = reader.triggered(triggers, tags, (), fields)
    fields.finish()
    reader.definitions[START] = whole
    return Rules(START, reader.definitions)


def read_grammar(text: str) -> Rules:
    """The rules of a grammar's text: GBNF if `::=` is in it, else Lark."""
    return read_gbnf(text) if "::=" in text else read_lark(text)


class _Fields:
    """The fields of one JSON object; each is taken once, and none may be left."""

    def __init__(self, value: Any, pointer: str) -> None:
        if not isinstance(value, dict):
            raise GrammarError("invalid", "an object expected", location=pointer or "/")
        self.values = dict(value)
        self.pointer = pointer

    def take(self, name: str) -> Any:
        """A field that must be there."""
        if name not in self.values:
            raise GrammarError("invalid", "this field is missing", location=self.pointer or "/", keyword=name)
        return self.values.pop(name)

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """A field of this type; without a default it must be there."""
        if name not in self.values and default is not None:
            return default
        value = self.take(name)
        if type(value) is not kind:
            raise GrammarError("invalid", f"{_TYPE_NAMES[kind]} expected", location=f"{self.pointer}/{name}")
        return value

    def texts(self, name: str, default: list[str] | None = None) -> list[str]:
        """A field that is a list of strings that are not empty."""
        values = self.get(name, list, default)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value:
                location = f"{self.pointer}/{name}/{index}"
                raise GrammarError("invalid", "a string expected that is not empty", location=location)
        return values

    def refuse(self, *names: str) -> None:
        """Refuses fields that ask for what is not supported; null, false and empty ask for nothing."""
        for name in names:
            if self.values.pop(name, None):
                raise GrammarError("unsupported", "this field is not supported", location=self.pointer, keyword=name)

    def finish(self) -> None:
        """Refuses fields that were not taken."""
        for name in self.values:
            raise GrammarError("invalid", "there is no such field", location=self.pointer or "/", keyword=name)


class _Tag:
    """A tag: how it begins, and what follows that."""

    def __init__(self, begin: str, rest: Expression, pointer: str) -> None:
        self.begin, self.rest, self.pointer = begin, rest, pointer

    def whole(self) -> Expression:
        return Sequence((Literal(self.begin), self.rest))


class _Reader:
    def __init__(self, read_schema: SchemaReader) -> None:
        self._read_schema = read_schema
        self._depth = 0
        self.definitions: dict[str, Expression] = {}

    def format(self, value: Any, pointer: str, ends: tuple[str, ...]) -> Expression:
        """What a format produces; free text in it does not hold any of `ends`."""
        fields = _Fields(value, pointer)
        kind = fields.get("type", str)
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise GrammarError("too_complex", f"formats are nested deeper than {MAX_NESTING}", location=pointer)
        expression = self._format(kind, fields, ends)
        self._depth -= 1
        fields.finish()
        return expression

    def _format(self, kind: str, fields: _Fields, ends: tuple[str, ...]) -> Expression:
        pointer = fields.pointer
        match kind:
            case "const_string":
                return Literal(fields.get("value", str))
            case "json_schema":
                return self._json(fields)
            case "regex":
                return Regular(_at(f"{pointer}/pattern", lambda: Language.regex(fields.get("pattern", str), "python")))
            case "grammar":
                return self._grammar(fields)
            case "any_text":
                return self._any_text(fields, ends, ())
            case "sequence":
                return Sequence(self._formats(fields, ends))
            case "or":
                return Choice(self._formats(fields, ends))
            case "optional" | "star" | "plus":
                content = self.format(fields.take("content"), f"{pointer}/content", ends)
                return Repetition(content, int(kind == "plus"), 1 if kind == "optional" else None)
            case "repeat":
                return self._repeat(fields, ends)
            case "tag":
                return self._tag(fields).whole()
            case "tags_with_separator":
                return self._tags_with_separator(fields)
            case "triggered_tags":
                return self._triggered_tags(fields, ends, ())
            case "dispatch":
                return self._dispatch(fields, ends, ())
        if kind in NOT_TEXT:
            raise GrammarError("unsupported", "this format is not supported", location=pointer, keyword=kind)
        raise GrammarError("invalid", "there is no such format", location=pointer, keyword=kind)

    def _formats(self, fields: _Fields, ends: tuple[str, ...]) -> tuple[Expression, ...]:
        elements = fields.get("elements", list)
        if not elements:
            raise GrammarError("invalid", "the list is empty", location=f"{fields.pointer}/elements")
        return tuple(
            self.format(element, f"{fields.pointer}/elements/{index}", ends) for index, element in enumerate(elements)
        )

    def _json(self, fields: _Fields) -> Expression:
        fields.get("any_order", bool, False)
        fields.refuse("excludes")
        if fields.get("style", str, "json") != "json":
            raise GrammarError("unsupported", "only json is supported", location=fields.pointer, keyword="style")
        if fields.values.pop("max_whitespace_cnt", None) is not None:
            reason = "the white space is that of the whole request"
            raise GrammarError("unsupported", reason, location=fields.pointer, keyword="max_whitespace_cnt")
        return self._value(fields.take("json_schema"), f"{fields.pointer}/json_schema")

    def _value(self, schema: Any, pointer: str) -> Expression:
        return JsonValue(self._read_schema(schema, pointer))

    def _grammar(self, fields: _Fields) -> Expression:
        pointer = f"{fields.pointer}/grammar"
        text = fields.get("grammar", str)
        rules = _at(pointer, lambda: read_grammar(text))
        for name, expression in rules.definitions.items():
            self.definitions[f"{pointer} {name}"] = _renamed(expression, pointer)
        return Reference(f"{pointer} {rules.start}")

    def _repeat(self, fields: _Fields, ends: tuple[str, ...]) -> Expression:
        minimum, maximum = fields.get("min", int), fields.get("max", int)
        if minimum < 0 or maximum < -1 or 0 <= maximum < minimum:
            raise GrammarError("invalid", "0 <= min <= max expected, or max -1", location=fields.pointer)
        content = self.format(fields.take("content"), f"{fields.pointer}/content", ends)
        return Repetition(content, minimum, None if maximum < 0 else maximum)

    # Tags.

    def old_tag(self, value: Any, pointer: str) -> _Tag:
        """A member of `structures`."""
        fields = _Fields(value, pointer)
        content = self._value(fields.take("schema"), f"{pointer}/schema")
        tag = _Tag(fields.get("begin", str), Sequence((content, Literal(fields.get("end", str)))), pointer)
        fields.finish()
        return tag

    def _tags(self, fields: _Fields) -> list[_Tag]:
        tags = []
        for index, value in enumerate(fields.get("tags", list)):
            inner = _Fields(value, f"{fields.pointer}/tags/{index}")
            if inner.get("type", str, "tag") != "tag":
                raise GrammarError("invalid", "a tag expected", location=f"{inner.pointer}/type")
            tags.append(self._tag(inner))
            inner.finish()
        if not tags:
            raise GrammarError("invalid", "the list is empty", location=f"{fields.pointer}/tags")
        return tags

    def _tag(self, fields: _Fields) -> _Tag:
        pointer = fields.pointer
        begin, end = fields.take("begin"), fields.take("end")
        ends = end if isinstance(end, list) else [end]
        for name, texts in (("begin", [begin]), ("end", ends)):
            if any(isinstance(text, dict) for text in texts):
                raise GrammarError("unsupported", "tokens are not supported", location=f"{pointer}/{name}")
            if not texts or not all(isinstance(text, str) for text in texts):
                raise GrammarError("invalid", "a string expected", location=f"{pointer}/{name}")
        return _Tag(begin, self._content(fields.take("content"), f"{pointer}/content", tuple(ends)), pointer)

    def _content(self, value: Any, pointer: str, ends: tuple[str, ...]) -> Expression:
        """The content of a tag, and its end. Free text goes on until an end is complete for the first time."""
        stops = tuple(end for end in ends if end)
        free = {"any_text": self._any_text, "triggered_tags": self._triggered_tags, "dispatch": self._dispatch}
        if isinstance(value, dict) and value.get("type") in free and len(stops) == len(ends):
            fields = _Fields(value, pointer)
            expression = free[fields.get("type", str)](fields, (), stops)
            fields.finish()
            return expression
        content = self.format(value, pointer, stops)
        return Sequence((content, Choice(tuple(Literal(end) for end in ends))))

    def _tags_with_separator(self, fields: _Fields) -> Expression:
        separator = Literal(fields.get("separator", str))
        tag = Choice(tuple(tag.whole() for tag in self._tags(fields)))
        if not fields.get("stop_after_first", bool, False):
            tag = Sequence((tag, Repetition(Sequence((separator, tag)), 0, None)))
        return tag if fields.get("at_least_one", bool, False) else Repetition(tag, 0, 1)

    # Free text.

    def _any_text(self, fields: _Fields, excluded: tuple[str, ...], ends: tuple[str, ...]) -> Expression:
        """Free text; with `ends` until one of them, which is part of it."""
        fields.refuse("max_tokens")
        excluded += tuple(fields.texts("excludes", []))
        most = fields.values.pop("max_chars", None)
        if most is not None and (type(most) is not int or most < 0):
            raise GrammarError("invalid", "a number expected", location=f"{fields.pointer}/max_chars")
        if most is None:
            return FreeText(tuple((end, EMPTY) for end in ends), excluded, not ends)
        text = Language.length(0, most) - _holding(excluded + ends)
        return Sequence((Regular(text), Choice(tuple(map(Literal, ends)) or (EMPTY,))))

    def _triggered_tags(self, fields: _Fields, excluded: tuple[str, ...], ends: tuple[str, ...]) -> Expression:
        triggers = fields.texts("triggers")
        excluded += tuple(fields.texts("excludes", []))
        tags = self._tags(fields)
        return self.triggered(triggers, tags, excluded, fields, ends)

    def triggered(
        self,
        triggers: list[str],
        tags: list[_Tag],
        excluded: tuple[str, ...],
        fields: _Fields,
        ends: tuple[str, ...] = (),
    ) -> Expression:
        """Free text and tags; with `ends` until one of them."""
        at_least_one = fields.get("at_least_one", bool, False)
        once = fields.get("stop_after_first", bool, False)
        if not triggers:
            raise GrammarError("invalid", "the list is empty", location=f"{fields.pointer}/triggers")
        for tag in tags:
            if not any(tag.begin.startswith(trigger) for trigger in triggers):
                raise GrammarError("invalid", "no trigger is the beginning of `begin`", location=tag.pointer)
        after_all = Choice(tuple(map(Literal, ends))) if ends else EMPTY
        text = f"{fields.pointer} text"
        after = after_all if once else Reference(text)
        stops: dict[str, Expression] = dict.fromkeys(ends, EMPTY)
        for trigger in triggers:
            begun = [tag for tag in tags if tag.begin.startswith(trigger)]
            rests = [Sequence((Literal(tag.begin[len(trigger) :]), tag.rest)) for tag in begun]
            stops[trigger] = Sequence((Choice(tuple(rests)), after))
        self.definitions[text] = FreeText(tuple(stops.items()), excluded, not ends)
        return Sequence((Choice(tuple(tag.whole() for tag in tags)), after)) if at_least_one else Reference(text)

    def _dispatch(self, fields: _Fields, excluded: tuple[str, ...], ends: tuple[str, ...]) -> Expression:
        excluded += tuple(fields.texts("excludes", []))
        text = f"{fields.pointer} text"
        after_all = Choice(tuple(map(Literal, ends))) if ends else EMPTY
        after = Reference(text) if fields.get("loop", bool, True) else after_all
        options: dict[str, list[Expression]] = {}
        rules = fields.get("rules", list)
        for index, rule in enumerate(rules):
            pointer = f"{fields.pointer}/rules/{index}"
            if not isinstance(rule, list) or len(rule) != 2 or not isinstance(rule[0], str) or not rule[0]:
                raise GrammarError("invalid", "a pair of a string and a format expected", location=pointer)
            options.setdefault(rule[0], []).append(self.format(rule[1], f"{pointer}/1", ()))
        if not rules:
            raise GrammarError("invalid", "the list is empty", location=f"{fields.pointer}/rules")
        stops: dict[str, Expression] = dict.fromkeys(ends, EMPTY)
        stops |= {pattern: Sequence((Choice(tuple(contents)), after)) for pattern, contents in options.items()}
        self.definitions[text] = FreeText(tuple(stops.items()), excluded, not ends)
        return Reference(text)


def _holding(marks: Iterable[str]) -> Language:
    """All texts that hold one of these strings."""
    return Language.everything() + Language.literals(marks) + Language.everything()


def _at(pointer: str, read: Callable[[], Any]) -> Any:
    """Runs `read`; an error in it names the pointer before its own place."""
    try:
        return read()
    except GrammarError as error:
        place = f"{pointer}, {error.location}" if error.location else pointer
        raise GrammarError(error.fault, error.reason, location=place, keyword=error.keyword) from None


def _renamed(expression: Expression, prefix: str) -> Expression:
    """The expression with all names of rules prefixed."""
    match expression:
        case Reference(rule):
            return Reference(f"{prefix} {rule}")
        case Sequence(parts):
            return Sequence(tuple(_renamed(part, prefix) for part in parts))
        case Choice(options):
            return Choice(tuple(_renamed(option, prefix) for option in options))
        case Repetition(item, minimum, maximum):
            return Repetition(_renamed(item, prefix), minimum, maximum)
    return expression


_TYPE_NAMES = {str: "a string", list: "a list", bool: "true or false", int: "a whole number", dict: "an object"}
