"""The examples of docs/beam_search.md."""

from __future__ import annotations

from tests.docs.page import read_page, run_python

PAGE = read_page("docs/beam_search.md")


def test_the_curl_lines_bring_four_answers(demo_url: str) -> None:
    choices = PAGE.curl("/v1/completions", demo_url).json()["choices"]
    assert choices[0]["text"] == " Paris."
    assert len({choice["text"] for choice in choices}) == 4
    assert len(set(PAGE.curl("/generate", demo_url).json()["text"])) == 4


def test_the_sdk_example_prints_two_answers(demo_url: str) -> None:
    lines = run_python(PAGE.block("python", "OpenAI"), demo_url)
    assert lines[0] == "' Paris.' stop"
    assert len(lines) == 2


def test_the_offline_example_prints_what_was_found() -> None:
    lines = run_python(PAGE.block("python", "from zqserve import LLM"))
    assert len(lines) >= 4
    assert lines[0].endswith("The capital of France is Paris.")
