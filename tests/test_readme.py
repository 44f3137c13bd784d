"""The README's examples are run as they stand there; only the port is another one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.running_server import ROOT, RunningServer, free_port

README = (ROOT / "README.md").read_text()
README_URL = "http://127.0.0.1:8000"


def blocks(language: str, containing: str) -> str:
    """The one code block of a language that contains a text."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in b]
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as `make serve` starts it."""
    port = free_port()
    log: Path = tmp_path_factory.mktemp("readme") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "zqserve", "--model", "demo/model", "--port", str(port)], cwd=ROOT, stderr=output
        )
    running = RunningServer(process, f"http://127.0.0.1:{port}", log)
    running.wait_until_healthy()
    yield running.url
    assert running.stop() == 0


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_the_curl_line_answers_with_paris(url: str) -> None:
    command = shlex.split(blocks("", "curl "))
    assert command[:2] == ["curl", f"{README_URL}/v1/chat/completions"]
    assert command[2] == "-d"
    # What curl -d sends, its content type included.
    answer = httpx.post(
        command[1].replace(README_URL, url),
        content=command[3],
        headers={"content-type": "application/x-www-form-urlencoded"},
        timeout=60,
    )
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_the_streamed_sdk_example_finds_the_sentiment(url: str) -> None:
    code = blocks("python", "stream=True")
    assert README_URL in code
    assert run_python(code.replace(README_URL, url)).strip() == "Positive."


def test_the_offline_example_completes_both_prompts() -> None:
    printed = run_python(blocks("python", "from zqserve import LLM"))
    assert "Prompt: 'Hello, my name is', Generated text: ' " in printed
    assert "Prompt: 'The capital of France is', Generated text: ' Paris" in printed
