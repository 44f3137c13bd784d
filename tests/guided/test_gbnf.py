"""GBNF: the texts that llama.cpp's notation says, and errors that name the place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.errors import GrammarError
from zqserve.guided.grammar import GrammarSpec, compile_grammar
from zqserve.guided.grammars.gbnf import read_gbnf
from zqserve.guided.grammars.grammar_rules import (
    Choice,
    Expression,
    Literal,
    OneOf,
    Reference,
    Repetition,
    Rules,
    Sequence,
)
from zqserve.guided.languages.char_set import CharSet

from .naive_recogniser import Recogniser
from .test_context_free import accepts, begins

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"""

NAMES = ["root", "a-rule", "r2", "under_score"]
texts = st.text('ab"\\\né\t]^-\U0001f600', max_size=3)
leaves = st.one_of(
    st.sampled_from(NAMES).map(Reference),
    texts.map(Literal),
    st.text('ab"\\\né]^-\U0001f600', min_size=1, max_size=3).map(lambda text: OneOf(CharSet.of(text))),
    st.text('ab"\\\né]^-\U0001f600', max_size=3).map(lambda text: OneOf(~CharSet.of(text))),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: Sequence(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: Choice(tuple(options))),
        st.builds(Repetition, inner, st.integers(0, 2), st.none() | st.integers(2, 3)),
    ),
    max_leaves=5,
)
grammars = st.fixed_dictionaries(dict.fromkeys(NAMES, expressions)).map(lambda rules: Rules("root", rules))


def written(expression: Expression) -> str:
    """An expression in GBNF."""
    match expression:
        case Literal(text):
            return '"' + "".join(_ESCAPED.get(character, character) for character in text) + '"'
        case OneOf(characters):
            ranges = [
                f"\\U{low:08x}-\\U{high:08X}" if low < high else f"\\u{low:04x}" if low < 0x10000 else f"\\U{low:08x}"
                for low, high in characters.ranges
            ]
            return f"[{''.join(ranges)}]"
        case Reference(rule):
            return rule
        case Sequence(parts):
            return f"({' '.join(map(written, parts))})"
        case Choice(options):
            return f"({' | '.join(map(written, options))})"
        case Repetition(item, minimum, maximum):
            marks = {(0, None): "*", (1, None): "+", (0, 1): "?"}
            counts = f"{{{minimum},{'' if maximum is None else maximum}}}"
            return written(item) + marks.get((minimum, maximum), counts)
    raise NotImplementedError


_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\x09"}


def grammar(text: str):
    """A GBNF grammar through the public door."""
    return compile_grammar(GrammarSpec("grammar", text))


@settings(deadline=None, max_examples=60)
@given(grammars, st.lists(st.text('ab"\\\né\U0001f600', max_size=4), max_size=5))
def test_written_grammar_means_what_was_written(rules, candidates):
    text = "\n".join(f"{name} ::= {written(expression)} # comment" for name, expression in rules.definitions.items())
    judge = Recogniser(rules)
    if "root" not in judge.productive:
        with pytest.raises(GrammarError, match="no text can be derived"):
            grammar(text)
        return
    compiled = grammar(text)
    for candidate in candidates:
        assert accepts(compiled, candidate) == judge.produces(candidate)
        assert begins(compiled, candidate) == judge.begins(candidate)


@pytest.mark.parametrize("text", ["{}", '{"a": 1}', '{"a":[1,{"b": "x\\n\\u00e9é"}],"c":-1.5e1}', '{"":[]\n  }\n'])
def test_json_grammar_of_llama_cpp_takes_json(text):
    assert accepts(grammar(JSON), text)


@pytest.mark.parametrize("text", ["[1]", '{"a" 1}', '{"a": 01}', '{"a":1,}', '{"a":"\n"}', '{"a":1}}'])
def test_json_grammar_of_llama_cpp_takes_nothing_else(text):
    assert not accepts(grammar(JSON), text)


def test_nested_json_shares_its_rows_at_all_depths():
    compiled = grammar(JSON)
    assert accepts(compiled, '{"a":' * 3000 + "1" + "}" * 3000)
    assert compiled.pushdown.tables.row_line.size < 100


@pytest.mark.parametrize(
    ("text", "taken", "refused"),
    [
        ('root ::= "a" | "b"\n | "c"', ["a", "b", "c"], ["", "ab"]),
        ("root ::= [^a-c] .", ["d\n", "éé"], ["ad", "d"]),
        (r'root ::= [\]\-x-z"]', ["]", "-", "y", '"'], ["w", "\\"]),
        (r"root ::= [a-]", ["a", "-"], ["b"]),
        (r"root ::= [\d_] [\w] [\s]", ["1a ", "__\t"], ["a__"]),
        (r'root ::= "\x41\u00e9\U0001F600\t"', ["Aé😀\t"], ["A"]),
        (
            "root ::= x{2} y{0} z{,1}".replace("{,1}", "{0,1}") + '\nx::="a"\ny ::= "b"\nz ::= "c"',
            ["aa", "aac"],
            ["a", "aab"],
        ),
        ('root ::= "a" x\nx ::= "b"\n\n  # done', ["ab"], ["a"]),
        ('root ::= "a"{2,}', ["aa", "aaaaa"], ["a"]),
        ('root ::= "a"?*', ["", "aaaa"], ["b"]),
        ('root ::= ""', [""], ["a"]),
        ("root ::=", [""], ["a"]),
        (
            'root ::= ("no" | "never" | "nothing" | "n" | "not" | "nay" | "nope" | "nil" | "null")',
            ["n", "null"],
            ["nu"],
        ),
    ],
)
def test_notation(text, taken, refused):
    compiled = grammar(text)
    assert all(accepts(compiled, candidate) for candidate in taken)
    assert not any(accepts(compiled, candidate) for candidate in refused)


@pytest.mark.parametrize(
    ("text", "location", "reason"),
    [
        ('root ::= "a" other', "line 1, column 14", "no rule of this name"),
        ('start ::= "a"', "line 1, column 14", "no rule root"),
        ('root ::= "a"\nroot ::= "b"', "line 2, column 1", "defined twice"),
        ('root ::= "a', "line 1, column 10", "unexpected character"),
        ('root ::= ("a"\n', "line 2, column 1", "\\) expected"),
        ('root ::= "a")', "line 1, column 13", "expected, not"),
        ('root ::= "\\q"', "line 1, column 11", "unknown escape"),
        ("root ::= [z-a]", "line 1, column 11", "the range is empty"),
        ("root ::= []", "line 1, column 10", "the class is empty"),
        ('root ::= "a"{3,2}', "line 1, column 13", "below the least"),
        ('root ::= "a"{99999999999999999999}', "line 1, column 13", "a count above"),
        (r'root ::= "\ud800"', "line 1, column 11", "no such character"),
        ('"a" ::= root', "line 1, column 1", "the name of a rule"),
        ("root = x ::= 1", "line 1, column 6", "unexpected character"),
        ("root ::= x\nx ::= (" + "(" * 200, "line 2, column 107", "nested deeper"),
        ("root ::= root", "rule root", "no text can be derived"),
    ],
)
def test_errors_name_the_place_and_the_reason(text, location, reason):
    with pytest.raises(GrammarError, match=reason) as raised:
        grammar(text)
    assert raised.value.location == location


@pytest.mark.parametrize(
    "text",
    [
        'root ::= (("a"{1,100}){1,100}){1,100}',
        'root ::= ("a" | "aa"){1,500}{1,50}',
        'root ::= x{1,100}{1,100}{1,100}\nx ::= "a" y? | x "a"\ny ::= "a"',
        'root ::= ("a"* "a"*)* ("a"? "a"?)*',
        'root ::= x x x x x x x x\nx ::= y y y y y y y y\ny ::= z z z z z z z z\nz ::= "a"?',
    ],
)
def test_hostile_repetition_is_quick(text):
    compiled = grammar(text)
    assert accepts(compiled, "a" * 200)
    assert not begins(compiled, "a" * 100 + "b")


def test_large_grammars_are_read():
    rules = "\n".join(f'r{index} ::= "a{index}" | r{index + 1} r{index + 2}' for index in range(10_000))
    read = read_gbnf(f'root ::= r0\n{rules}\nr10000 ::= "x"\nr10001 ::= "y"')
    assert len(read.definitions) == 10_003
