"""The examples of docs/responses_and_messages.md."""

from __future__ import annotations

from tests.docs.page import read_page, run_python

PAGE = read_page("docs/responses_and_messages.md")


def test_the_example_of_responses_prints_three_answers(demo_url: str) -> None:
    of_responses, _ = PAGE.blocks("python")
    text, place, streamed = run_python(of_responses, demo_url)
    assert "Paris" in text
    assert place.startswith("continent=")
    assert streamed


def test_the_example_of_messages_answers_and_calls(demo_url: str) -> None:
    _, of_messages = PAGE.blocks("python")
    assert run_python(of_messages, demo_url) == ["end_turn", "weather True"]


def test_the_curl_line_is_answered(demo_url: str) -> None:
    answer = PAGE.curl("/v1/messages", demo_url)
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "message"
