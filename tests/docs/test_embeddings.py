"""The examples of docs/embeddings.md."""

from __future__ import annotations

import json

from tests.docs.page import read_page, run_python
from tests.running_server import ROOT

PAGE = read_page("docs/embeddings.md")
SIZE = json.loads((ROOT / "demo/model/config.json").read_text())["hidden_size"]


def test_the_page_names_the_command_of_its_server() -> None:
    assert "`zqserve serve demo/model --task embedding` starts it" in PAGE.text


def test_the_sdk_example_prints_two_vectors(embedding_url: str) -> None:
    assert run_python(PAGE.block("python", "OpenAI"), embedding_url) == [f"2 {SIZE}"]


def test_the_curl_lines_score_and_rank(embedding_url: str) -> None:
    assert len(PAGE.curl("/score", embedding_url).json()["data"]) == 2
    assert len(PAGE.curl("/rerank", embedding_url).json()["results"]) == 1


def test_the_offline_example_embeds_and_scores() -> None:
    assert run_python(PAGE.block("python", "from zqserve import LLM")) == [str(SIZE), "1.0"]
