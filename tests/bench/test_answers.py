"""The arithmetic of a streamed answer, on streams written down with the times of their pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zqserve.bench.common.answers import read_answer
from zqserve.bench.common.http_stream import Exchange
from zqserve.bench.common.percentiles import percentile, summary


def _event(text: str, finish_reason: str | None = None) -> bytes:
    finish = "null" if finish_reason is None else f'"{finish_reason}"'
    return b'data: {"choices":[{"index":0,"text":"%s","finish_reason":%s}]}\n\n' % (text.encode(), finish.encode())


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_times_count_from_the_request_to_each_event_with_a_choice() -> None:
    """As `vllm bench serve` has it: TPOT over the tokens behind the first one, which the server counts."""
    pieces = [
        (10.5, _event("a")),
        (10.7, _event("b") + _event("c")),
        (11.1, b": keep-alive\n\n" + _event("d", "length")),
        (11.2, USAGE + DONE),
    ]
    answer = read_answer(Exchange(sent=10.0, status=200, pieces=pieces))
    assert answer.error is None
    assert (answer.text, answer.num_tokens, answer.num_prompt_tokens) == ("abcd", 4, 5)
    assert (answer.finish_reason, answer.is_complete) == ("length", True)
    assert answer.times == pytest.approx([0.5, 0.7, 0.7, 1.1])
    assert answer.ttft == pytest.approx(0.5)
    assert answer.latency == pytest.approx(1.1)
    assert answer.tpot == pytest.approx(0.6 / 3)
    assert answer.itls == pytest.approx([0.2, 0.0, 0.4])


def test_an_event_counts_from_the_piece_that_completes_it() -> None:
    first, second = _event("a"), _event("b")
    pieces = [(1.0, first[:20]), (2.0, first[20:] + second[:-2]), (3.0, second[-2:] + DONE)]
    answer = read_answer(Exchange(sent=0.0, status=200, pieces=pieces))
    assert answer.times == [2.0, 3.0]
    assert answer.num_tokens == 2, "without usage, events are counted"


def test_a_role_is_no_token_of_a_chat() -> None:
    def delta(content: bytes) -> bytes:
        return b'data: {"choices":[{"index":0,"delta":%s,"finish_reason":null}]}\n\n' % content

    pieces = [
        (1.0, delta(b'{"role":"assistant","content":""}')),
        (2.0, delta(b'{"content":"Hi"}')),
        (3.0, delta(b'{"reasoning_content":"!"}') + DONE),
    ]
    answer = read_answer(Exchange(sent=0.0, status=200, pieces=pieces))
    assert (answer.times, answer.text) == ([2.0, 3.0], "Hi!")


@pytest.mark.parametrize(
    ("exchange", "told"),
    [
        (Exchange(status=503, pieces=[(1.0, b'{"error":{"message":"too many"}}')]), "503"),
        (Exchange(status=200, pieces=[(1.0, _event("a") + b'data: {"error":{"message":"broke"}}\n\n')]), "broke"),
        (Exchange(status=200, pieces=[(1.0, b"data: no json\n\n")]), "no json"),
        (Exchange(status=200, pieces=[(1.0, DONE)]), "without a token"),
        (Exchange(status=200, pieces=[(1.0, _event("a"))], error="the connection ended"), "connection"),
    ],
)
def test_what_went_wrong_is_told(exchange: Exchange, told: str) -> None:
    assert told in (read_answer(exchange).error or "")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), abs=1e-6)


def test_a_summary_is_in_the_unit_that_was_asked_for() -> None:
    assert summary([0.001, 0.003], 1000) == {"mean": 2.0, "p50": 2.0, "p90": 2.8, "p99": 2.98}
