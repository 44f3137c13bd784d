"""The automaton's tables: what owners put into them comes out again, also from a pickle."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zqserve.guided.automata import tables as tables_module
from zqserve.guided.automata.block import Block
from zqserve.guided.automata.cells import DEAD, SMALL_RESULTS, pop_cell
from zqserve.guided.automata.choice_rows import add_choices
from zqserve.guided.automata.finite_table import finite_table
from zqserve.guided.automata.pushdown import Pushdown
from zqserve.guided.errors import GrammarError
from zqserve.guided.matcher import GrammarMatcher

from .hand_made import Automaton, Counted, HandMade, Json, allowed_tokens, generate, make_vocabulary


class _Nothing:
    """Knows rows by their arcs, and notes what it is asked to resume."""

    def __init__(self) -> None:
        self.resumed: list[tuple[object, int]] = []

    def expand_row(self, pushdown: Pushdown, row: int, key: tuple) -> None:
        arcs, final = key
        pushdown.set_arcs(row, arcs)
        if final >= 0:
            pushdown.set_final(row, final)

    def resume(self, pushdown: Pushdown, ret: int, key: object, result: int) -> int:
        self.resumed.append((key, result))
        return DEAD


bytes_of_arcs = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted)
arcs = st.lists(st.tuples(bytes_of_arcs, st.integers(-1, 50)).map(lambda arc: (*arc[0], arc[1])))


@given(arcs, st.integers(-1, 3 * SMALL_RESULTS))
def test_a_row_has_the_cells_of_its_arcs_the_later_over_the_earlier(arcs, final):
    pushdown = Pushdown()
    row = pushdown.new_row(_Nothing(), (arcs, final))
    expected = [DEAD] * 256
    for low, high, cell in arcs:
        expected[low : high + 1] = [cell] * (high + 1 - low)
    assert [pushdown.cell(row, byte) for byte in range(256)] == expected
    assert sorted(pushdown.live_bytes(row)) == [byte for byte in range(256) if expected[byte] != DEAD]
    assert (pushdown.final(row) >= 0) == (final >= 0)


def test_results_of_any_width_come_back_to_the_owner_once_each():
    pushdown, owner = Pushdown(), _Nothing()
    ret = pushdown.new_return(owner, "key")
    wide = 1 << 200
    for result in (0, 5, wide, 5, wide):
        number = (-2 - pushdown.pop(result)) // 2
        assert pushdown.resume(ret, number) == DEAD
    assert owner.resumed == [("key", 0), ("key", 5), ("key", wide)]


def test_equal_calls_are_one_cell_and_are_told_from_ends():
    pushdown = Pushdown()
    assert pushdown.push((1, 2), 3) == pushdown.push((1, 2), 3)
    assert len({pushdown.push((1, 2), 3), pushdown.push((2, 1), 3), pushdown.push((), 3), pushdown.pop(0), DEAD}) == 5
    assert pushdown.pushed(pushdown.push((7, 8), 3)) == ([7, 8], 3)


def test_a_block_is_copied_once_and_its_rows_lead_to_each_other():
    cells = np.full((2, 256), DEAD, np.int32)
    cells[0, ord("a")], cells[1, ord("b")], cells[1, ord('"')] = 1, 0, pop_cell(3)
    block = Block("test", cells, np.array([-1, 2], np.int32))
    pushdown = Pushdown()
    pushdown.new_row(_Nothing(), ((), -1))
    first = pushdown.add_block(block)
    assert pushdown.add_block(block) == first
    second = pushdown.cell(first, ord("a"))
    assert pushdown.cell(second, ord("b")) == first
    assert pushdown.cell(second, ord('"')) == pushdown.pop(3)
    assert pushdown.cell(second, ord("x")) == DEAD
    assert (pushdown.final(first), pushdown.final(second)) == (-1, 2)


def _choices_taken(pushdown: Pushdown, row: int) -> dict[bytes, int]:
    """The strings behind a row, and the number of each one's result."""
    found = {}
    waiting = [(row, b"")]
    while waiting:
        row, text = waiting.pop()
        for byte in pushdown.live_bytes(row):
            cell = pushdown.cell(row, byte)
            if cell >= 0:
                waiting.append((cell, text + bytes([byte])))
            else:
                found[text + bytes([byte])] = (-2 - cell) // 2
    return found


quoted = st.binary(max_size=4).map(lambda text: text.replace(b'"', b"") + b'"')


@given(st.dictionaries(quoted, st.integers(0, 99), min_size=1))
def test_choices_are_exactly_the_strings_with_their_results(texts):
    pushdown = Pushdown()
    choices = add_choices(pushdown, texts.items())
    assert _choices_taken(pushdown, choices.row) == texts


@given(st.sets(st.text("ab", max_size=4), min_size=1), st.sets(st.integers(0, 40)))
def test_a_beginning_is_allowed_if_an_allowed_choice_begins_so(names, allowed):
    pushdown = Pushdown()
    texts = {name.encode() + b'"': index for index, name in enumerate(sorted(names))}
    choices = add_choices(pushdown, texts.items())
    ret = pushdown.new_return(_Nothing(), "key", choices=choices, allowed=allowed)
    waiting = [(choices.row, b"")]
    while waiting:
        row, text = waiting.pop()
        expected = any(name.startswith(text) and index in allowed for name, index in texts.items())
        assert pushdown.is_allowed(ret, row) == expected
        for byte in pushdown.live_bytes(row):
            if pushdown.cell(row, byte) >= 0:
                waiting.append((pushdown.cell(row, byte), text + bytes([byte])))


def test_a_choice_that_begins_another_is_refused():
    with pytest.raises(ValueError, match="beginning"):
        add_choices(Pushdown(), [(b"a", 0), (b"ab", 1)])


def test_twenty_thousand_choices_take_no_lines():
    pushdown = Pushdown()
    add_choices(pushdown, ((f'value number {index}"'.encode(), index) for index in range(20_000)))
    assert pushdown.tables.num_lines < 10


@pytest.mark.parametrize("owner", [Json(unique=True), Json(names=(b"a", b"ab")), Counted(2, 5)], ids=repr)
def test_a_pickled_grammar_goes_on_as_the_original(owner):
    grammar, vocabulary = owner.grammar(), make_vocabulary(b'ab12"[]{}:, \\n')
    generate(GrammarMatcher(grammar, vocabulary), seed=1, most=20)
    copy = pickle.loads(pickle.dumps(grammar))
    for seed in range(5):
        outputs = [generate(GrammarMatcher(each, vocabulary), seed, most=40) for each in (copy, grammar)]
        assert outputs[0] == outputs[1]


def test_a_pickle_is_small():
    grammar = Json().grammar()
    generate(GrammarMatcher(grammar, make_vocabulary(b'ab12"[]{}:, ')), seed=1)
    assert len(pickle.dumps(grammar)) < 20_000


class _Endless:
    """Each row leads to new rows."""

    def expand_row(self, pushdown: Pushdown, row: int, key: int) -> None:
        pushdown.set_cells(row, [pushdown.new_row(self, key + 1)] * 256)
        pushdown.set_final(row, 0)

    def resume(self, pushdown: Pushdown, ret: int, key: object, result: int) -> int:
        return pushdown.push((ret,), self.row)

    row: int


def test_a_grammar_of_too_many_states_is_refused_when_they_are_visited(monkeypatch):
    monkeypatch.setattr(tables_module, "MAX_LINES", 50)
    pushdown = Pushdown()
    pushdown.start_row = pushdown.new_row(_Endless(), 0)
    matcher = GrammarMatcher(HandMade(pushdown), make_vocabulary(b"ab", [b"a" * 100]))
    with pytest.raises(GrammarError, match="states"):
        matcher.mask()


def test_a_grammar_that_calls_itself_without_end_is_refused():
    pushdown, owner = Pushdown(), _Endless()
    owner.row = pushdown.new_row(_Nothing(), ((), 0))
    pushdown.start_row, pushdown.start_returns = owner.row, (pushdown.new_return(owner, 0),)
    matcher = GrammarMatcher(HandMade(pushdown), make_vocabulary(b"a"))
    for ask in (matcher.mask, matcher.accepting, lambda: matcher.advance(2), matcher.forced_bytes):
        with pytest.raises(GrammarError, match="without end"):
            ask()


def test_the_stack_of_the_start_is_returned_to():
    class Ends(_Nothing):
        def resume(self, pushdown: Pushdown, ret: int, key: object, result: int) -> int:
            return pushdown.new_row(self, (((ord("b"), ord("b"), pushdown.pop(0)),), -1))

    pushdown, owner = Pushdown(), Ends()
    pushdown.start_row = pushdown.new_row(owner, (((ord("a"), ord("a"), pushdown.pop(0)),), -1))
    pushdown.start_returns = (pushdown.new_return(owner, 0),)
    matcher = GrammarMatcher(HandMade(pushdown), make_vocabulary(b"ab", [b"ab"]))
    assert allowed_tokens(matcher) == {2, 4}
    assert matcher.advance(4)
    assert matcher.finished()


def test_a_finite_grammar_becomes_a_table_and_one_that_calls_does_not():
    automaton = Automaton([{97: 1, 98: 0}, {98: 0, 99: 2}, {}, {97: 3}], {0, 2})
    table = finite_table(automaton.grammar().pushdown)
    assert table is not None
    assert len(table.cells) == 3  # the fourth state is never reached
    for length in range(5):
        for text in itertools.product(b"abc", repeat=length):
            state = 0
            for byte in text:
                state = table.cells[state, byte] if state >= 0 else DEAD
            assert (state >= 0 and bool(table.accepting[state])) == automaton.accepts(bytes(text))
    assert finite_table(Json().grammar().pushdown) is None
    assert finite_table(automaton.grammar().pushdown, max_states=2) is None


def test_a_counted_text_becomes_a_table():
    table = finite_table(Counted(1, 2).grammar().pushdown)
    assert table is not None
    for text in (b'""', b'"a"', b'"aa"', b'"aaa"', b'"a', b'"\\na"', b'"\xc3\xa9a"'):
        state = 0
        for byte in text:
            state = table.cells[state, byte] if state >= 0 else DEAD
        expected = text in (b'"a"', b'"aa"', b'"\\na"', b'"\xc3\xa9a"')
        assert (state >= 0 and bool(table.accepting[state])) == expected, text
