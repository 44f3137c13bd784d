"""Rows over bytes: JSON strings in every spelling, UTF-8 text, nothing else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.automata.cells import DEAD
from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.languages.language import JointAutomaton, Language
from zqserve.guided.languages.text_lowering import JsonStringRows, Utf8Rows

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(st.one_of(st.sampled_from('ab"\\/\n\t\x00é߿ࠀ￿𐀀😀\U0010ffff\ud7ff\ue000'), CHARACTERS), max_size=4)
LANGUAGES = st.one_of(
    st.just(Language.everything()),
    st.tuples(st.integers(0, 2), st.integers(2, 4)).map(lambda bounds: Language.length(*bounds)),
    st.lists(TEXTS, min_size=1, max_size=5).map(Language.literals),
    st.sampled_from(
        [r"[a-b\"\\]*", "[^a]*", "[\u0080-\u07ff]+|[\U00010000-\U0010ffff]{1,2}", r"\w+", "[😀-😎é]{0,3}", ".{0,2}"]
    ).map(lambda pattern: Language.regex(pattern, "python")),
)


def run(pushdown: Pushdown, row: int, data: bytes) -> int | None:
    """The result with which the callee ends behind the last byte; None: it does not."""
    for index, byte in enumerate(data):
        cell = pushdown.cell(row, byte)
        if cell < DEAD:
            return (-2 - cell) // 2 if index == len(data) - 1 else None
        if cell == DEAD:
            return None
        row = cell
    return None


def spellings(text: str) -> list[bytes]:
    """The inside of the text as a JSON string with its closing quote, spelled in several ways."""
    units = text.encode("utf-16-be")
    numbers = [int.from_bytes(units[index : index + 2], "big") for index in range(0, len(units), 2)]
    return [
        json.dumps(text).encode()[1:],
        json.dumps(text, ensure_ascii=False).encode()[1:],
        json.dumps(text).replace("/", "\\/").encode()[1:],
        "".join(f"\\u{number:04X}" for number in numbers).encode() + b'"',
        "".join(f"\\u{number:04x}" for number in numbers).encode() + b'"',
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(LANGUAGES, min_size=1, max_size=3), st.lists(TEXTS, min_size=1, max_size=4))
def test_every_spelling_of_a_string_stands_for_its_text(languages, texts):
    pushdown = Pushdown()
    start = JsonStringRows(pushdown, JointAutomaton(tuple(languages))).start
    for text in texts:
        expected = sum(1 << index for index, language in enumerate(languages) if language.contains(text))
        for data in spellings(text):
            assert json.loads(b'"' + data) == text
            assert (run(pushdown, start, data) or 0) == expected, data


@settings(max_examples=200, deadline=None)
@given(LANGUAGES, st.data())
def test_random_walks_over_bytes_make_json_strings_of_the_language(language, data):
    pushdown = Pushdown()
    row, text = JsonStringRows(pushdown, JointAutomaton((language,))).start, b'"'
    for _ in range(60):
        cells = [(byte, cell) for byte in range(256) if (cell := pushdown.cell(row, byte)) != DEAD]
        assert cells, text
        ends = [(byte, cell) for byte, cell in cells if cell < DEAD]
        byte, cell = data.draw(st.sampled_from(ends)) if ends and len(text) > 20 else data.draw(st.sampled_from(cells))
        text += bytes([byte])
        if cell < DEAD:
            assert language.contains(json.loads(text))
            break
        row = cell


@pytest.mark.parametrize(
    "data",
    [
        b'\\ud800"',
        b'\\udc00"',
        b'\\ud800\\u0041"',
        b'\\ud83d\\ud83d"',
        b'\n"',
        b'\\x41"',
        b'\\u00"',
        b'\xff"',
        b'\xc0\x80"',
        b'\xed\xa0\x80"',
        b'\xf4\x90\x80\x80"',
        b'a"b',
    ],
)
def test_what_is_no_json_string_is_dead(data):
    pushdown = Pushdown()
    assert run(pushdown, JsonStringRows(pushdown, JointAutomaton((Language.everything(),))).start, data) is None


@settings(max_examples=150, deadline=None)
@given(st.lists(LANGUAGES, min_size=1, max_size=2), st.lists(TEXTS, min_size=1, max_size=4))
def test_plain_text_ends_with_the_languages_that_accept(languages, texts):
    pushdown = Pushdown()
    start = Utf8Rows(pushdown, JointAutomaton(tuple(languages))).start
    for text in texts:
        row: int | None = start
        for byte in text.encode():
            cell = pushdown.cell(row, byte)
            row = cell if cell >= 0 else None
            if row is None:
                break
        expected = sum(1 << index for index, language in enumerate(languages) if language.contains(text))
        assert (-1 if row is None else pushdown.final(row)) == (expected or -1)


def test_any_string_takes_few_rows():
    pushdown = Pushdown()
    rows = JsonStringRows(pushdown, JointAutomaton((Language.literal("x") + Language.everything(),)))
    assert run(pushdown, rows.start, b'x and \\u00e9 then \xf0\x9f\x98\x80"') == 1
    assert pushdown.tables.row_line.size < 40
