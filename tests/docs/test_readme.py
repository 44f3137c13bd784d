"""The README's examples."""

from __future__ import annotations

from tests.docs.page import PAGE_URL, read_page, run_python

README = read_page("README.md")


def test_the_curl_line_answers_with_paris(demo_url: str) -> None:
    answer = README.curl("capital of France", demo_url, language="")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_the_curl_line_with_a_choice_answers_with_one_of_them(demo_url: str) -> None:
    answer = README.curl("guided_choice", demo_url, language="")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] in ("warm", "cold")


def test_the_streamed_sdk_example_finds_the_sentiment(demo_url: str) -> None:
    code = README.block("python", "stream=True")
    assert PAGE_URL in code
    assert run_python(code, demo_url) == ["Positive."]


def test_the_offline_example_completes_both_prompts() -> None:
    first, second = run_python(README.block("python", "from zqserve import LLM"))
    assert first.startswith("Prompt: 'Hello, my name is', Generated text: ' ")
    assert second.startswith("Prompt: 'The capital of France is', Generated text: ' Paris")
