"""Tool calls in the texts that models write, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.server.tools.formats import FORMATS, detect_format, parse_tool_calls
from zqserve.server.tools.parser import ToolCallParser
from zqserve.server.tools.pieces import Content, Piece, ToolCallArguments, ToolCallStart, gathered
from zqserve.server.tools.tool_definitions import read_tools

NAMES = ("hermes", "llama3_json", "mistral", "pythonic", "qwen3_xml")


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


MAYBE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
SHAPE = {"type": "object", "properties": {"size": {"type": "number"}}}
TOOLS = [
    tool("get_weather", city={"type": "string"}, days={"type": "integer"}, unit=MAYBE, exact={"type": "boolean"}),
    tool("draw", shape={"$ref": "#/$defs/Shape"}, colors={"type": "array"}, note={}),
    tool("now"),
]
TOOLS[1]["function"]["parameters"]["$defs"] = {"Shape": SHAPE}


def parse(format: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    content, calls = parse_tool_calls(text, format, TOOLS)
    return content, [(call.name, call.arguments) for call in calls]


def fed(format: str, texts: list[str]) -> list[Piece]:
    """The pieces of an answer that comes in parts."""
    offered = read_tools(TOOLS)
    parser = ToolCallParser(lambda answer: FORMATS[format].read(answer, offered))
    return [piece for text in texts for piece in parser.feed(text)] + parser.finish()


def without_ids(pieces: list[Piece]) -> list[Any]:
    """The pieces with neighbours put together."""
    joined: list[Any] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(piece, ToolCallStart):
            joined.append((piece.index, piece.name))
        elif isinstance(piece, Content) and isinstance(last, Content):
            joined[-1] = Content(last.text + piece.text)
        elif isinstance(piece, ToolCallArguments) and isinstance(last, ToolCallArguments) and last.index == piece.index:
            joined[-1] = ToolCallArguments(piece.index, last.text + piece.text)
        else:
            joined.append(piece)
    return joined


WEATHER = '{"city": "Oslo, \\"NO\\" {]", "days": 2}'
QWEN3_XML_CALL = """<tool_call>
<function=get_weather>
<parameter=city>
Oslo
"NO"
</parameter>
<parameter=days>
2
</parameter>
</function>
</tool_call>"""


@pytest.mark.parametrize(
    ("format", "text", "content", "calls"),
    [
        (
            "hermes",
            f'I look it up.\n<tool_call>\n{{"name": "get_weather", "arguments": {WEATHER}}}\n</tool_call>\n'
            '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
            "I look it up.",
            [("get_weather", WEATHER), ("now", "{}")],
        ),
        (
            "hermes",
            '<tool_call>{"arguments": {"days": 1}, "name": "get_weather"}',
            "",
            [("get_weather", '{"days": 1}')],
        ),
        ("hermes", '<tool_call>{"name": "now"}</tool_call> Done.', "Done.", [("now", "{}")]),
        ("hermes", '<tool_call>{"name": "elsewhere", "arguments": null}</tool_call>', "", [("elsewhere", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
        (
            "llama3_json",
            f'{{"name": "get_weather", "parameters": {WEATHER}}}; '
            '{"type": "function", "name": "now", "parameters": {}}',
            "",
            [("get_weather", WEATHER), ("now", "{}")],
        ),
        ("llama3_json", 'Wait. <|python_tag|>{"name": "now", "parameters": {}}', "Wait.", [("now", "{}")]),
        (
            "mistral",
            f'Well[TOOL_CALLS] [{{"name": "get_weather", "arguments": {WEATHER}}}, '
            '{"name": "now", "arguments": {}}]',
            "Well",
            [("get_weather", WEATHER), ("now", "{}")],
        ),
        (
            "mistral",
            f"[TOOL_CALLS]get_weather[ARGS]{WEATHER}[TOOL_CALLS]now{{}}",
            "",
            [("get_weather", WEATHER), ("now", "{}")],
        ),
        (
            "pythonic",
            "[get_weather(city='Oslo, \"NO\" {]', days=2, exact=True), now()]",
            "",
            [("get_weather", '{"city": "Oslo, \\"NO\\" {]", "days": 2, "exact": true}'), ("now", "{}")],
        ),
        (
            "pythonic",
            '[draw(shape={"size": -1.5e3, "in": (None, [.5, +2])}, note="a\\n\\x41\\u00e9\\d")]',
            "",
            [("draw", '{"shape": {"size": -1.5e3, "in": [null, [0.5, 2]]}, "note": "a\\nA\\u00e9\\\\d"}')],
        ),
        (
            "qwen3_xml",
            f"I look it up.\n\n{QWEN3_XML_CALL}\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
            "I look it up.",
            [("get_weather", '{"city": "Oslo\\n\\"NO\\"", "days": 2}'), ("now", "{}")],
        ),
        (
            "qwen3_xml",  # the outer tag forgotten; values of all types
            '<function=draw><parameter=shape>{"size": 1}</parameter><parameter=colors>["a"]</parameter>'
            "<parameter=note>12</parameter></function>",
            "",
            [("draw", '{"shape": {"size": 1}, "colors": ["a"], "note": "12"}')],
        ),
        (
            "qwen3_xml",
            "<function=get_weather><parameter=unit>null</parameter><parameter=exact>True</parameter>"
            "<parameter=days>soon</parameter></function></tool_call>",
            "",
            [("get_weather", '{"unit": null, "exact": true, "days": "soon"}')],
        ),
    ],
)
def test_calls_are_found_in_what_models_write(
    format: str, text: str, content: str, calls: list[tuple[str, str]]
) -> None:
    assert parse(format, text) == (content, calls)
    for _, arguments in calls:
        json.loads(arguments)
    assert without_ids(fed(format, list(text))) == without_ids(fed(format, [text]))


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("hermes", "if a <tool_cal and b> c"),
        ("hermes", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
        ("hermes", '<tool_call>\n{"na'),
        ("llama3_json", '{"answer": 42}'),
        ("llama3_json", '{"name": "Bob", "parameters": {"age": 3}}'),
        ("llama3_json", '  {"name": "now" '[:-2]),
        ("mistral", "[TOOL_CALLS] none of them"),
        ("mistral", '[TOOL_CALLS][{"name": '),
        ("pythonic", "[1, 2, get_weather(city)]"),
        ("pythonic", "[print(a=1)]"),
        ("pythonic", "[__import__('os')]"),
        ("qwen3_xml", "<tool_call>\n<function=a b>\n</function>"),
    ],
)
def test_text_that_only_looks_like_a_call_is_content(format: str, text: str) -> None:
    assert parse(format, text) == (text, [])


@pytest.mark.parametrize(
    ("format", "text", "arguments"),
    [
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": [1, "x', '{"a": [1, "x'),
        ("hermes", '<tool_call>{"name": "now", "arguments": {}}\n</tool_c', "{}"),
        ("hermes", '<tool_call>{"name": "now", "argum', ""),
        ("llama3_json", '{"name": "now", "parameters": {"a"', '{"a"'),
        ("llama3_json", '{"name": "now", "parameters": {}}; ', "{}"),
        ("mistral", '[TOOL_CALLS][{"name": "now", "arguments": {}},', "{}"),
        ("pythonic", '[now(a="x', '{"a": "x'),
        ("pythonic", "[now(", ""),
        ("qwen3_xml", "<tool_call><function=now><parameter=a>\nsome\n", '{"a": "some'),
        ("qwen3_xml", "<tool_call><function=now>\n</function>\n</tool", "{}"),
    ],
)
def test_answer_that_is_cut_has_the_call_as_far_as_it_came(format: str, text: str, arguments: str) -> None:
    assert parse(format, text) == ("", [("now", arguments)])


def test_what_follows_a_broken_call_is_content() -> None:
    broken = '<tool_call>{"name": "now", "arguments": {"a": oops}}</tool_call>'
    assert parse("hermes", broken) == ("oops}}</tool_call>", [("now", '{"a": ')])
    deep = "[" * 300
    assert parse("hermes", f'<tool_call>{{"name": "now", "arguments": {{"a": {deep}')[0].count("[") == 101
    assert parse("pythonic", f"[now(a={deep}")[1] == [("now", '{"a": ' + "[" * 100)]


FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<function=", "</function>", ">"),
    *("<parameter=", "</parameter>", '{"name": "now", ', '"arguments": ', '"parameters": ', "{}", "{", "}", "[", "]"),
    *('"now"', '"name"', "now", "draw(", "(", ")", "a=", "shape", "1", "-0.5e+1", "true", "None", '"', "'", "\\u00e9"),
    *("\\", ":", ",", "; ", " ", "\n", "\n\n", "é", "🙂", "x", '\\"', "\\ud83d", "day", "note>"),
    *(QWEN3_XML_CALL[:60], QWEN3_XML_CALL, '<tool_call>\n{"name": "draw", "arguments": {"a": "b'),
    *('{"name": "now", "parameters": {"k": [1, "é"]}}', "[draw(note='x', shape={'a': (1,)})", "[now()"),
]


@pytest.mark.parametrize("format", NAMES)
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=14), data=st.data())
def test_pieces_are_the_same_however_the_text_is_cut(format: str, parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    in_parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = without_ids(fed(format, [text]))
    assert without_ids(fed(format, in_parts)) == whole
    assert without_ids(fed(format, list(text))) == whole
    content, calls = gathered(fed(format, [text]))
    if not calls:
        assert content == text


def test_content_is_not_held_back_longer_than_a_call_may_have_begun() -> None:
    parser = ToolCallParser(lambda answer: FORMATS["hermes"].read(answer, []))
    assert parser.feed("Let me see") == [Content("Let me see")]
    assert parser.feed(", a <too") == [Content(", a")]
    assert parser.feed("l>") == [Content(" <tool>")]
    assert parser.feed("\n<tool_call>") == []
    start, arguments = parser.feed('{"name": "f", "arguments": {"a": 1')
    assert isinstance(start, ToolCallStart)
    assert start.id.startswith("chatcmpl-tool-")
    assert arguments == ToolCallArguments(0, '{"a": 1')
    assert parser.feed("2}") == [ToolCallArguments(0, "2}")]
    assert parser.feed("}\n</tool_call>\n") == []
    assert parser.feed("So.") == [Content("So.")]
    assert parser.finish() == []


def test_strings_of_xml_and_python_are_passed_on_as_they_come() -> None:
    for format, begin in (("qwen3_xml", "<function=now><parameter=a>\n"), ("pythonic", "[now(a='")):
        parser = ToolCallParser(lambda answer, f=format: FORMATS[f].read(answer, read_tools(TOOLS)))
        assert parser.feed(begin)[-1] == ToolCallArguments(0, '{"a": "')
        assert parser.feed('some "text') == [ToolCallArguments(0, 'some \\"text')]


def test_ids_are_of_the_form_that_the_models_templates_take() -> None:
    def ids(format: str, text: str) -> list[str]:
        return [call.id for call in parse_tool_calls(text, format, TOOLS)[1]]

    first, second = ids("hermes", '<tool_call>{"name": "now"}</tool_call>' * 2)
    assert first != second
    assert all(each.startswith("chatcmpl-tool-") for each in (first, second))
    (short,) = ids("mistral", "[TOOL_CALLS]now{}")
    assert len(short) == 9
    assert short.isalnum()


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ('For each call: <tool_call>\n{"name": <function-name>, "arguments": <args>}\n</tool_call>', "hermes"),
        ("<tool_call>\n<function=example>\n<parameter=p>\nvalue\n</parameter>", "qwen3_xml"),
        ('Respond in the format {"name": function name, "parameters": dictionary of argument name…}', "llama3_json"),
        ("{{- '[TOOL_CALLS][' }}", "mistral"),
        ("you MUST put it as [func_name1(params_name1=params_value1, params_name2=…)]", "pythonic"),
        (r"{{- '<tool_call>\n{\"name\": <function-name>, \"arguments\": <args>}\n</tool_call>' }}", "hermes"),
        ("<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>{% set arguments = tc.arguments %}", None),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
        (None, None),
    ],
)
def test_format_is_read_from_the_template_where_it_is_certain(template: str | None, name: str | None) -> None:
    found = detect_format(template)
    assert (found.name if found else None) == name
