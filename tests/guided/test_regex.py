"""Regular expressions: against `re`, against interegular's algebra, and what is refused."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interegular import parse_pattern

from zqserve.guided.errors import GrammarError
from zqserve.guided.languages.language import JointAutomaton, Language

ATOMS = st.sampled_from(
    ["a", "b", "c", ".", "[ab]", "[^a]", r"\d", r"\w", r"\W", r"\s", "1", "é", r"\n", "[a-c1]", "(?:)"]
)
QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "{,2}", "*?", "??"])
PATTERNS = st.recursive(
    st.tuples(ATOMS, QUANTIFIERS).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map("|".join).map("({})".format),
        st.tuples(inner, QUANTIFIERS).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)
ASSERTED = st.lists(
    st.one_of(
        PATTERNS,
        st.sampled_from(["^", "$", r"\b", r"\B", r"\A", r"\Z", "(?<=a)", "(?<![ab])"]),
        PATTERNS.map("(?={})".format),
        PATTERNS.map("(?!{})".format),
    ),
    min_size=1,
    max_size=4,
).map("".join)
TEXTS = st.text("abc1é \n_", max_size=6)


@settings(max_examples=300, deadline=None)
@given(PATTERNS, st.lists(TEXTS, min_size=3, max_size=8))
def test_python_dialect_is_fullmatch(pattern, texts):
    language = Language.regex(pattern, "python")
    for text in texts:
        assert language.contains(text) == bool(re.fullmatch(pattern, text)), (pattern, text)


@settings(max_examples=300, deadline=None)
@given(ASSERTED, st.lists(TEXTS, min_size=3, max_size=8))
def test_assertions_are_those_of_re(pattern, texts):
    language = Language.regex(pattern, "python")
    for text in texts:
        assert language.contains(text) == bool(re.fullmatch(pattern, text)), (pattern, text)


@settings(max_examples=200, deadline=None)
@given(
    ASSERTED.filter(lambda pattern: r"\A" not in pattern and r"\Z" not in pattern and "{,2}" not in pattern),
    st.lists(TEXTS, min_size=3, max_size=8),
)
def test_ecma_dialect_is_a_search_within_what_python_finds(pattern, texts):
    narrow, wide = Language.regex(pattern, "ecma"), Language.regex(pattern, "ecma_either")
    for text in texts:
        found = bool(re.search(pattern, text))
        ascii_only = text.isascii() and not text.endswith("\n")
        if ascii_only and "(?!" not in pattern:
            assert narrow.contains(text) == found, (pattern, text)
        assert found or not narrow.contains(text), (pattern, text)
        assert wide.contains(text) or not found, (pattern, text)


@settings(max_examples=80, deadline=None)
@given(st.text("abc|*+?()", max_size=10), st.text("abc|*+?()", max_size=10))
def test_algebra_agrees_with_interegular(one, other):
    try:
        re.compile(one), re.compile(other)
        mine = Language.regex(one, "python"), Language.regex(other, "python")
    except (re.error, GrammarError):
        return
    theirs = parse_pattern(one).to_fsm(), parse_pattern(other).to_fsm()
    assert (mine[0] & mine[1]).is_empty() == theirs[0].isdisjoint(theirs[1])
    assert (mine[0] - mine[1]).is_empty() == theirs[0].issubset(theirs[1])
    assert (mine[1] - mine[0]).is_empty() == theirs[1].issubset(theirs[0])


@settings(max_examples=100, deadline=None)
@given(ASSERTED, st.randoms(use_true_random=False))
def test_walks_along_arcs_always_come_to_a_match(pattern, choose):
    joint = JointAutomaton((Language.regex(pattern, "python"),))
    state, text = joint.start, ""
    for _ in range(200):
        if state is None or (joint.accepted(state) and (not joint.arcs(state) or choose.random() < 0.3)):
            break
        low, high, state = choose.choice(joint.arcs(state))
        text += chr(choose.choice((low, high)))
    if state is not None and joint.accepted(state):
        assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("flags", ["i", "s", "m", "x", "is", "a", "ia"])
@pytest.mark.parametrize("pattern", ["a.b", "K[k-s]+", "^ a $ # x", "É|ß", r"\w \d", "(?-i:a)b", "(?s:.)."])
def test_flags_mean_what_they_mean_in_re(flags, pattern):
    pattern = f"(?{flags}){pattern}"
    language = Language.regex(pattern, "python")
    samples = [
        "a.b",
        "A.B",
        "a\nb",
        "Kks",
        "kKſ",
        "a",
        "É",
        "é",
        "ß",
        "ẞ",
        "a",
        "ab",
        "aB",
        "AB",
        "a1",
        "é1",
        " a ",
        "a  1",
        "\n ",
        "xa",
        " a \n",
    ]
    for text in samples:
        assert language.contains(text) == bool(re.fullmatch(pattern, text)), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "valid", "invalid"),
    [
        (r"^\S+@\S+$", ["a@b"], ["a@", "a b@c d"]),
        ("foo", ["foo", "xfoox"], ["fo"]),
        (r"^\u0041\x42\cJ$", ["AB\n"], ["AB"]),
        (r"^\uD83D\uDE00+$", ["😀", "😀😀"], ["\ufffd", ""]),
        (r"^\u{1F600}$", ["😀"], ["x"]),
        (r"^\p{Lu}\p{L}*\P{L}$", ["Äb1", "X-"], ["xa1"]),
        (r"^[\p{Letter}\d]+$", ["é4"], ["-"]),
        (r"^[^\d]$", ["a"], ["1", "१"]),
        (r"^\d$", ["1"], ["१"]),
        (r"^.$", ["a", "😀"], ["\n", "\r", "\u2028"]),
        (r"a{2,3}?$", ["baa"], ["ba"]),
        (r"^(?<year>\d{4})$", ["2024"], ["24"]),
        (r"^[\w-.]+$", ["a-b.c"], ["a b"]),
        (r"^(?!(?:no|never)$)[a-z]+$", ["yes", "nov"], ["no", "never"]),
        (r"^(?:(?!--).)*$", ["a-b"], ["a--b"]),
        (r"\bfoo\b", ["a foo b", "foo"], ["food"]),
        (r"^\/api\/[^/]+$", ["/api/x"], ["/api/"]),
        ("^$", [""], ["a", "\n"]),
        (
            r"^(\/?((\.{2})|([a-z0-9\-]*))($|\/))*$",
            ["", "a/b", "/a/../b/", "..", "//"],
            ["a//.b", "A", "a/...", "a/b/\n"],
        ),
        (r"^(?:a(?:$|,))+$", ["a", "a,a", "a,"], ["", ",", "aa"]),
    ],
)
def test_patterns_of_schemas(pattern, valid, invalid):
    language = Language.regex(pattern, "ecma")
    assert [text for text in valid if not language.contains(text)] == []
    assert [text for text in invalid if language.contains(text)] == []


@pytest.mark.parametrize(
    ("pattern", "position"),
    [
        ("a++", 1),
        ("ab(?>c)", 2),
        (r"(a)\1", 3),
        ("x[[:alpha:]]", 2),
        ("(ab", 0),
        ("ab)", 2),
        ("*a", 0),
        ("a**", 2),
        ("a{3,2}", 1),
        ("[b-a]", 2),
        ("[ab", 0),
        ("a\\", 1),
        (r"\q", 0),
        (r"\p{Klingon}", 0),
        ("a(?<=bc)", 1),
        ("(?:(?=a)b|c)*d", 3),
        (r"\xg0", 0),
        ("(?P=name)", 0),
        ("(?(1)a|b)", 0),
        ("a(?i)b", 1),
    ],
)
def test_what_is_refused_names_the_position(pattern, position):
    with pytest.raises(GrammarError) as refusal:
        Language.regex(pattern, "python")
    assert refusal.value.location == f"position {position}"
    assert refusal.value.fault in ("invalid", "unsupported")


@pytest.mark.parametrize("pattern", ["[]a]", "[^]a]", "a{,2}", "(?i)a", r"\1", "(?#x)a"])
def test_what_readers_disagree_about_is_refused_in_schemas(pattern):
    with pytest.raises(GrammarError, match=r"position [01]"):
        Language.regex(pattern, "ecma")


@pytest.mark.parametrize("pattern", ["(" * 5000 + ")" * 5000, "(?:" * 2000 + "a" + ")*" * 2000, "a" * 200_000])
def test_huge_patterns_are_refused(pattern):
    with pytest.raises(GrammarError):
        Language.regex(pattern, "python")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("((a{1,100}){1,100}){1,100}", "a" * 500),
        ("((a|aa){1,500}){1,50}", "a" * 500),
        (r"[\s\S]{0,20000}", "x\n" * 250),
        ("(a*)*b", "a" * 500 + "b"),
        ("(.*a){20}", "xa" * 250),
        ("(a?){100}a{100}", "a" * 150),
        ("(x+x+)+y", "x" * 200 + "y"),
        ("(a|a?)+b", "a" * 300 + "b"),
        ("(?=.*a)(?=.*b)(?=.*c).{3,100000}", "cab" * 100),
    ],
)
def test_catastrophic_patterns_are_quick(pattern, text):
    assert Language.regex(pattern, "python").contains(text)


def test_optional_parts_in_a_long_row_do_not_recurse():
    pattern = "".join(f"(?:{letter}x)?" for letter in random.Random(1).choices("abcdef", k=3000))
    assert Language.regex(pattern, "python").contains("")
