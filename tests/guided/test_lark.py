"""Lark's notation: derivations with the ignored terminals between tokens, as Lark's own Earley parser reads them.

The expected answers were compared with lark 1.3 (`parser="earley", lexer="dynamic_complete"`).
"""

from __future__ import annotations

import pytest

from zqserve.guided.errors import GrammarError
from zqserve.guided.grammar import CompiledGrammar, GrammarSpec, compile_grammar

from .test_context_free import accepts, begins

CALCULATOR = r"""
?start: sum
      | NAME "=" sum    -> assign_var

?sum: product
    | sum "+" product   -> add
    | sum "-" product   -> sub

?product: atom
    | product "*" atom  -> mul
    | product "/" atom  -> div

?atom: NUMBER           -> number
     | "-" atom         -> neg
     | NAME             -> var
     | "(" sum ")"

%import common.CNAME -> NAME
%import common.NUMBER
%import common.WS_INLINE

%ignore WS_INLINE
"""

JSON = r"""
?start: value
?value: object | array | string | SIGNED_NUMBER -> number | "true" | "false" | "null"
array: "[" [value ("," value)*] "]"
object: "{" [pair ("," pair)*] "}"
pair: string ":" value
string: ESCAPED_STRING
%import common (ESCAPED_STRING, SIGNED_NUMBER, WS)
%ignore WS
"""

SQL = r"""
start: select ";"?
select: "select"i columns "from"i NAME [where]
columns: "*" | NAME ("," NAME)~0..3
where.2: "where"i NAME ("=" | "<" | ">") (NUMBER | QUOTED)
NAME.-1: /(?!select|from)[a-z_]\w*/i
QUOTED: "'" /[^']*/ "'"
NUMBER: DIGIT+ ("." DIGIT+)?
DIGIT: "0".."9"
%ignore /\s+/
%ignore COMMENT
COMMENT: "--" /[^\n]*/ "\n"
"""


def grammar(text: str) -> CompiledGrammar:
    """A Lark grammar through the public door."""
    return compile_grammar(GrammarSpec("grammar", text))


@pytest.mark.parametrize("text", ["1", "x = 1 + 2.5e3 * -(y / 3)", " ( ( 1 ) ) ", "-  -x", "a=b", "1e5"])
def test_calculator_takes_sums(text):
    assert accepts(grammar(CALCULATOR), text)


@pytest.mark.parametrize("text", ["", "1 +", "x = y = 1", "(1", "1)", "x\n", "2x", "1 2"])
def test_calculator_takes_nothing_else(text):
    assert not accepts(grammar(CALCULATOR), text)


@pytest.mark.parametrize("text", ["{}", ' { "a" : [ 1 , -2.5e+3 , null ] }\n', r'"\"\\\u00e9"', "[[[]]]"])
def test_json_takes_json(text):
    assert accepts(grammar(JSON), text)


@pytest.mark.parametrize("text", ["{,}", "[1,]", '"a', "nul", '{"a" 1}', "1.2.3"])
def test_json_takes_nothing_else(text):
    assert not accepts(grammar(JSON), text)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("SELECT * FROM t", True),
        ("select a, b,c From t -- comment\n where x<'y z';", True),
        ("select a,b,c,d from t", True),
        ("select a,b,c,d,e from t", False),
        ("selecta fromt", True),
        ("select a from t where x = 1.", False),
    ],
)
def test_sql_with_ignored_comments_and_counts(text, taken):
    without_lookahead = SQL.replace("(?!select|from)", "")
    assert accepts(grammar(without_lookahead), text) == taken


@pytest.mark.parametrize(
    ("text", "taken", "refused"),
    [
        ('start: "a"i "Ü"i', ["aü", "AÜ"], ["ä"]),
        (r'start: "\n\t\x41\u00e9\"\\"', ['\n\tAé"\\'], ["nt"]),
        (r'start: "\+"', ["\\+"], ["+"]),
        (r"start: /a.b/s /c/i /\//", ["a\nbC/"], ["abc/", "a\nbC"]),
        ('start: "a".."c" "é".."ü"', ["bö"], ["dö"]),
        ('start: ["a"] ("b" | "c")+ "d"? "e"*', ["b", "abcbde", "cee"], ["a", "abdd"]),
        ('start: "a"~2 "b"~1..2', ["aab", "aabb"], ["ab", "aa"]),
        ('start: a\n     | b\n\n// comment\n# other\na: "x"\nb: "y" |', ["x", "y", ""], ["xy"]),
        ('start: _a T\n_a: "x"\n_T: "y"\nT: _T "z"', ["xyz"], ["xy"]),
        ('!start: ?inner\n?inner: "x"'.replace(" ?inner", " inner"), ["x"], [""]),
        ('%llguidance {}\nstart: "x"', ["x"], ["y"]),
        ("start: WORD INT\n%import common (WORD, INT)", ["ab12"], ["12"]),
        ("start: C_COMMENT\n%import common.C_COMMENT", ["/* a * b **/"], ["/* a */ */", "/* *"]),
        ('start: "a" "b"\n%import unicode.WS\n%ignore WS', ["a\xa0b", " ab "], ["a\u2003b"]),
        ('start: T "b"\nT: "x" "y"\n%ignore " "', ["xyb", " xy b "], ["x yb"]),
        ('start: "a"?\n%ignore " "', ["", "  ", " a "], ["aa"]),
    ],
)
def test_notation(text, taken, refused):
    compiled = grammar(text)
    for candidate in taken:
        assert accepts(compiled, candidate), candidate
    for candidate in refused:
        assert not accepts(compiled, candidate), candidate


def test_any_way_to_split_a_text_into_terminals_counts():
    compiled = grammar('start: "if" NAME | NAME\nNAME: /[a-z]+/\n%ignore " "')
    assert accepts(compiled, "iffy")
    assert accepts(compiled, "if y")
    assert not begins(compiled, "ify z")


@pytest.mark.parametrize(
    ("text", "location", "reason"),
    [
        ('start: "a" other', "line 1, column 12", "no rule of this name"),
        ("start: OTHER", "line 1, column 8", "no terminal of this name"),
        ('begin: "a"', "line 1, column 11", "no rule start"),
        ('start: "a"\nstart: "b"', "line 2, column 1", "defined twice"),
        ('start: "a\n"', "line 1, column 8", "unexpected character"),
        ('start: ("a"', "line 1, column 12", "\\) expected"),
        ('Start: "a"', "line 1, column 1", "all lower case"),
        ("start: T\nT: start", "line 2, column 4", "cannot contain a rule"),
        ("start: T\nT: U | V\nU: V\nV: U?", "line 4, column 4", "cannot contain itself"),
        ('start: t{"a"}\nt{x}: x', "line 1, column 9", "templates"),
        ("start: A\n%declare A", "line 2, column 1", "not supported"),
        ('start: "a"\n%override start: "b"', "line 2, column 1", "not supported"),
        ("start: A\n%import .other.A", "line 2, column 1", "no other files"),
        ("start: A\n%import python.A", "line 2, column 9", "only common and unicode"),
        ("start: FOO\n%import common.FOO", "line 2, column 16", "no terminal of this name"),
        ('start: "a"~3..2', "line 1, column 15", "below the least"),
        ('start: "ab".."c"', "line 1, column 8", "one character"),
        ("start: /[/", "line 1, column 8", "position"),
        ('start: "a" @other', "line 1, column 12", "expected, not @"),
        ("start: " + "(" * 200, "line 1, column 108", "nested deeper"),
        ("start: start", "rule start", "no text can be derived"),
    ],
)
def test_errors_name_the_place_and_the_reason(text, location, reason):
    with pytest.raises(GrammarError, match=reason) as raised:
        grammar(text)
    assert raised.value.location == location
