"""Context-free grammars: exactly the texts of their derivations, whatever recursion and ambiguity they have."""

from __future__ import annotations

import pickle
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.budget import Budget
from zqserve.guided.errors import BudgetExceededError, GrammarError
from zqserve.guided.grammars.context_free import ContextFreeMachine
from zqserve.guided.grammars.grammar_rules import (
    EMPTY,
    Choice,
    Expression,
    FreeText,
    Literal,
    OneOf,
    Reference,
    Regular,
    Repetition,
    Rules,
    Sequence,
)
from zqserve.guided.languages.char_set import CharSet
from zqserve.guided.languages.language import Language
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import EOS, HandMade, generate, make_vocabulary
from .naive_recogniser import Recogniser

BYTES = make_vocabulary(bytes(range(256)))
TOKENS = make_vocabulary(b"abc\xc3\xa9", [b"ab", b"ba", b"aa", b"aab", b"\xc3\xa9a", b"a\xc3", b"bbb", b"abc"])

NAMES = ["ROOT", "one", "two", "three"]
LANGUAGES = [Language.regex(pattern, "python") for pattern in ("a*", "(ab|é)+", "[ab]{2,3}", "b?a", "[^a]b")]

leaves = st.one_of(
    st.sampled_from(NAMES).map(Reference),
    st.sampled_from(NAMES).map(Reference),
    st.text("abé", max_size=3).map(Literal),
    st.sampled_from([CharSet.of("ab"), CharSet.of("é"), CharSet.of("cé"), CharSet(())]).map(OneOf),
    st.sampled_from(LANGUAGES).map(Regular),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: Sequence(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: Choice(tuple(options))),
        st.builds(
            lambda item, minimum, more: Repetition(item, minimum, None if more is None else minimum + more),
            inner,
            st.integers(0, 2),
            st.none() | st.integers(0, 2),
        ),
    ),
    max_leaves=6,
)
grammars = st.fixed_dictionaries(dict.fromkeys(NAMES, expressions)).map(lambda rules: Rules("ROOT", rules))


def machine(rules: Rules, budget: Budget | None = None) -> HandMade:
    """The grammar as a matcher wants it."""
    pushdown = Pushdown(budget)
    pushdown.start_row = ContextFreeMachine(pushdown, rules).start_row()
    return HandMade(pushdown)


def begins(grammar: HandMade, text: str) -> bool:
    """Whether all bytes of the text are taken."""
    return _read(grammar, text) is not None


def accepts(grammar: HandMade, text: str) -> bool:
    """Whether the text is taken and may end."""
    matcher = _read(grammar, text)
    return matcher is not None and matcher.accepting()


def _read(grammar: HandMade, text: str) -> GrammarMatcher | None:
    matcher = GrammarMatcher(grammar, BYTES)
    return matcher if all(matcher.advance(byte + 2) for byte in text.encode()) else None


def rules_of(**definitions: Expression) -> Rules:
    """Rules that begin with `ROOT`."""
    return Rules("ROOT", definitions)


def words(*parts: Expression | str) -> Sequence:
    """A sequence in which strings are literals and upper-case ones are rules."""
    return Sequence(
        tuple(
            (Reference(part) if part.isupper() else Literal(part)) if isinstance(part, str) else part for part in parts
        )
    )


@settings(deadline=None, max_examples=300)
@given(grammars, st.lists(st.text("abcé", max_size=6), min_size=3, max_size=8), st.integers())
def test_random_grammar_takes_what_a_simple_recogniser_takes(rules, texts, seed):
    judge = Recogniser(rules)
    if "ROOT" not in judge.productive:
        with pytest.raises(GrammarError) as raised:
            machine(rules)
        assert raised.value.fault == "unsatisfiable"
        return
    grammar = machine(rules)
    output, ended = generate(GrammarMatcher(grammar, TOKENS), seed, most=6)
    made = output.decode(errors="ignore")
    for text in {*texts, made, *(made[:length] for length in range(len(made)))}:
        if len(text) > 8:
            continue
        assert begins(grammar, text) == judge.begins(text), text
        assert accepts(grammar, text) == judge.produces(text), text
    assert not ended or len(made) > 8 or judge.produces(made)


@settings(deadline=None, max_examples=30)
@given(grammars, st.integers())
def test_pickled_grammar_goes_on_where_it_was(rules, seed):
    try:
        grammar = machine(rules)
    except GrammarError:
        return
    expected = generate(GrammarMatcher(grammar, TOKENS), seed, most=4)
    again = pickle.loads(pickle.dumps(grammar))
    assert generate(GrammarMatcher(again, TOKENS), seed, most=4) == expected


ARITHMETIC = rules_of(
    ROOT=Choice((words("SUM"),)),
    SUM=Choice((words("SUM", "+", "PRODUCT"), words("PRODUCT"))),
    PRODUCT=Choice((words("PRODUCT", "*", "ATOM"), words("ATOM"))),
    ATOM=Choice((words("n"), words("(", "SUM", ")"))),
)


@pytest.mark.parametrize("text", ["n", "n+n*n", "(n+n)*(n)", "((((n))))*n+n"])
def test_left_recursion_reads_arithmetic(text):
    grammar = machine(ARITHMETIC)
    assert accepts(grammar, text)
    assert not begins(grammar, text + ")")
    assert not accepts(grammar, text + "+")


def test_hidden_and_mutual_left_recursion_and_rules_that_only_name_themselves_end():
    rules = rules_of(
        ROOT=Choice((words("MAYBE", "ROOT", "a"), words("OTHER"), words("ROOT"), words("b"))),
        MAYBE=Choice((EMPTY, words("c"))),
        OTHER=Choice((words("ROOT", "d"), words("OTHER"))),
    )
    grammar, judge = machine(rules), Recogniser(rules)
    for length in range(5):
        for letters in product("abcd", repeat=length):
            text = "".join(letters)
            assert accepts(grammar, text) == judge.produces(text)
            assert begins(grammar, text) == judge.begins(text)


def test_deep_recursion_costs_no_row_for_each_level():
    rules = rules_of(ROOT=Choice((words("[", "ROOT", "]"), words("x"))))
    grammar = machine(rules)
    assert accepts(grammar, "[" * 20_000 + "x" + "]" * 20_000)
    assert not accepts(grammar, "[" * 20_000 + "x" + "]" * 19_999)
    assert grammar.pushdown.tables.row_line.size < 20


def test_palindromes_are_read_although_their_middle_is_unknown():
    rules = rules_of(ROOT=Choice((words("a", "ROOT", "a"), words("b", "ROOT", "b"), EMPTY)))
    grammar = machine(rules)
    text = "abaabbbab"
    assert accepts(grammar, text + text[::-1])
    assert not accepts(grammar, text + text[:-1])


def test_ambiguous_sequences_need_few_rows():
    rules = rules_of(ROOT=Choice((words("ROOT", "ROOT"), words("a"), EMPTY)))
    grammar = machine(rules)
    assert accepts(grammar, "a" * 3000)
    assert grammar.pushdown.tables.row_line.size < 20


def test_exponentially_many_parses_are_one_row_for_each_byte():
    rules = rules_of(ROOT=Choice((words("ROOT", "ROOT"), words("ROOT", "ROOT", "ROOT"), words("a"), EMPTY)))
    grammar = machine(rules)
    assert accepts(grammar, "a" * 200)
    assert grammar.pushdown.tables.row_line.size < 220


def test_ambiguity_of_many_rules_does_not_multiply():
    chain = {
        f"R{index}": Choice((words(f"R{index + 1}", "x"), words(f"R{index + 1}", "y"), words("a", f"R{index + 1}")))
        for index in range(200)
    }
    grammar = machine(Rules("R0", chain | {"R200": Literal("b")}))
    assert begins(grammar, "a" * 100 + "b" + "x" * 99)
    assert accepts(grammar, "a" * 100 + "b" + "xy" * 50)


@pytest.mark.parametrize("left_recursive", [False, True])
def test_ten_thousand_rules_compile(left_recursive):
    more = [words("b")] if left_recursive else []
    chain: dict[str, Expression] = {
        f"R{index}": Choice((words(f"R{index + 1}", "x"), words(f"R{index + 1}"), *more)) for index in range(10_000)
    }
    last = Choice((words("R0", "z"), words("a"))) if left_recursive else Literal("a")
    grammar = machine(Rules("R0", chain | {"R10000": last}))
    assert accepts(grammar, "axxx")
    assert accepts(grammar, "axzb") is False
    assert accepts(grammar, "bxzx") is left_recursive


@pytest.mark.parametrize(
    ("item", "counts"),
    [(Literal("a"), [(1, 100)] * 3), (Choice((Literal("a"), Literal("aa"))), [(1, 500), (1, 50)])],
)
def test_nested_counts_are_simplified(item, counts):
    most = 2 if isinstance(item, Choice) else 1
    for low, high in counts:
        item, most = Repetition(item, low, high), most * high
    grammar = machine(rules_of(ROOT=item))
    assert accepts(grammar, "a")
    assert accepts(grammar, "a" * 2000)
    assert not accepts(grammar, "")
    assert most >= 50_000


def test_counts_with_gaps_keep_their_gaps():
    rules = rules_of(ROOT=Repetition(Repetition(Literal("a"), 3, 4), 0, 2), more=EMPTY)
    grammar = machine(rules)
    assert [length for length in range(12) if accepts(grammar, "a" * length)] == [0, 3, 4, 6, 7, 8]
    exact = machine(rules_of(ROOT=Repetition(words("a", Repetition(Literal("b"), 0, 1)), 300, 100_000)))
    assert not accepts(exact, "ab" * 299)
    assert accepts(exact, "ab" * 300)


def test_what_cannot_be_completed_is_never_begun():
    rules = rules_of(ROOT=Choice((words("a", "NEVER"), words("ab"), words("NEVER"))), NEVER=words("c", "NEVER"))
    grammar = machine(rules)
    assert begins(grammar, "ab")
    assert not begins(grammar, "ac")
    assert not begins(grammar, "c")


def test_grammar_without_any_text_is_refused():
    with pytest.raises(GrammarError, match="no text can be derived") as raised:
        machine(rules_of(ROOT=words("a", "ROOT")))
    assert raised.value.fault == "unsatisfiable"


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.text("aBé", min_size=1, max_size=3), max_size=4),
    st.lists(st.text("aBé", min_size=1, max_size=3), max_size=2),
    st.booleans(),
    st.lists(st.text("aBé12", max_size=9), min_size=5, max_size=10),
)
def test_free_text_stops_where_a_mark_is_complete_for_the_first_time(stops, excluded, may_end, texts):
    after = {stop: str(index) for index, stop in enumerate(stops)}
    free = FreeText(tuple((stop, Literal(digit)) for stop, digit in after.items()), tuple(excluded), may_end)
    if not may_end and not stops:
        return
    grammar = machine(rules_of(ROOT=free))
    texts += [text[:length] + digit for text in texts for length in range(9) for digit in ("0", "1")]
    for text in texts:
        ends = [end for end in range(len(text) + 1) if text[:end].endswith((*stops, *excluded))]
        if ends:
            expected = any(text[: ends[0]].endswith(stop) and text[ends[0] :] == digit for stop, digit in after.items())
        else:
            expected = may_end
        assert accepts(grammar, text) == expected, text


def test_end_is_the_only_token_where_nothing_may_follow():
    matcher = GrammarMatcher(machine(rules_of(ROOT=words("a", "b"))), BYTES)
    assert matcher.accept_tokens([ord("a") + 2, ord("b") + 2]) == 2
    assert matcher.finished()
    assert matcher.advance(EOS)


def test_work_is_paid_from_the_budget_and_goes_on_after_it_was_used_up():
    rules = rules_of(ROOT=words("A", "A"), A=Choice((EMPTY, *(words("x", str(n), "A") for n in range(3000)))))
    budget = Budget()
    grammar = machine(rules, budget)
    with pytest.raises(BudgetExceededError), budget.limited(0):
        grammar.pushdown.final(grammar.pushdown.start_row)
    assert accepts(grammar, "x17x2999x0")
