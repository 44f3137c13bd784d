"""Stop strings end a text at the same place, however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zqserve.server.engine_link.stop_checker import StopChecker


def run(pieces: list[str], stop: list[str], *, include: bool = False, exempt: int = 0) -> tuple[str, str | None]:
    """The text shown of pieces, of which the first `exempt` may not end a match, and the stop string found."""
    checker = StopChecker(stop, include_in_output=include)
    shown = ""
    for number, piece in enumerate(pieces):
        shown += checker.add(piece, exempt=number < exempt)
        if checker.matched is not None:
            return shown, checker.matched
    return shown + checker.finish(), None


def test_a_stop_string_across_pieces_is_found() -> None:
    assert run(["Hello S", "TO", "P now"], ["STOP"]) == ("Hello ", "STOP")
    assert run(["Hello S", "TO", "P now"], ["STOP"], include=True) == ("Hello STOP", "STOP")


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none() -> None:
    checker = StopChecker(["STOP", "\n\n"])
    assert checker.add("go ST") == "go "
    assert checker.add("A") == "STA"
    assert checker.add("R\n") == "R"
    assert checker.finish() == "\n"
    assert checker.matched is None


def test_only_the_longest_possible_beginning_is_held_back() -> None:
    checker = StopChecker(["aab"])
    assert checker.add("xaaa") == "xa"
    assert checker.add("b") == ""
    assert checker.matched == "aab"


def test_the_stop_string_that_ends_first_wins_and_then_the_first_in_the_list() -> None:
    assert run(["abcd"], ["abcd", "bc"]) == ("a", "bc")
    assert run(["abcd"], ["bc", "abc"]) == ("a", "bc")
    assert run(["abcd"], ["abc", "bc"]) == ("", "abc")


def test_exempt_pieces_end_no_match_but_may_begin_one() -> None:
    assert run(["STOP", " S", "TOP"], ["STOP"], exempt=2) == ("STOP ", "STOP")
    assert run(["STOP", " S", "TOP"], ["STOP"], exempt=3) == ("STOP STOP", None)
    assert run(["STO", "P"], ["STOP"], exempt=1) == ("", "STOP")


letters = st.text("ab", min_size=0, max_size=8)


@given(
    pieces=st.lists(letters, max_size=12),
    stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    include=st.booleans(),
)
def test_pieces_make_no_difference(pieces: list[str], stop: list[str], include: bool) -> None:
    text = "".join(pieces)
    ends = [(text.find(word) + len(word), number, word) for number, word in enumerate(stop) if word in text]
    if ends:
        end, _, word = min(ends)
        expected = (text[: end if include else end - len(word)], word)
    else:
        expected = (text, None)
    assert run(pieces, stop, include=include) == expected
    assert run(list(text), stop, include=include) == expected


@given(pieces=st.lists(letters, max_size=12), stop=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1))
def test_what_is_held_back_always_begins_a_stop_string(pieces: list[str], stop: list[str]) -> None:
    checker, shown, text = StopChecker(stop), "", ""
    for piece in pieces:
        shown += checker.add(piece)
        text += piece
        if checker.matched is not None:
            return
        held = text[len(shown) :]
        assert text.startswith(shown)
        assert not held or any(word.startswith(held) and word != held for word in stop)
