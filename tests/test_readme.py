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
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (found,) = [text for name, text in fenced if name == language and containing in text]
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


def curl(url: str, containing: str) -> httpx.Response:
    """What the README's curl line with this text in it sends, its content type included."""
    command = shlex.split(blocks("", containing))
    assert command[0] == "curl"
    assert command[1].startswith(README_URL)
    assert command[2] == "-d"
    return httpx.post(
        command[1].replace(README_URL, url),
        content=command[3],
        headers={"content-type": "application/x-www-form-urlencoded"},
        timeout=60,
    )


def test_the_curl_line_answers_with_paris(url: str) -> None:
    answer = curl(url, "capital of France")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


def test_the_curl_line_with_a_choice_answers_with_one_of_them(url: str) -> None:
    answer = curl(url, "guided_choice")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] in ("warm", "cold")


def test_the_streamed_sdk_example_finds_the_sentiment(url: str) -> None:
    code = blocks("python", "stream=True")
    assert README_URL in code
    assert run_python(code.replace(README_URL, url)).strip() == "Positive."


def test_the_offline_example_completes_both_prompts() -> None:
    printed = run_python(blocks("python", "from zqserve import LLM"))
    assert "Prompt: 'Hello, my name is', Generated text: ' " in printed
    assert "Prompt: 'The capital of France is', Generated text: ' Paris" in printed
