"""The examples of docs/beam_search.md are run as they stand there; only the port and the key are others."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import httpx

from tests.running_server import ROOT, RunningServer

PAGE = (ROOT / "docs" / "beam_search.md").read_text()
PAGE_URL = "http://127.0.0.1:8000"


def blocks(language: str, containing: str) -> str:
    """The one code block of a language that contains a text."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in b]
    return found


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def run_curl(server: RunningServer, containing: str) -> Any:
    command = shlex.split(blocks("bash", containing))
    assert (command[0], command[2]) == ("curl", "-d")
    headers = {**server.headers, "content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
    answer = httpx.post(command[1].replace(PAGE_URL, server.url), content=command[3], headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_curl_lines_bring_four_answers(server: RunningServer) -> None:
    choices = run_curl(server, "/v1/completions")["choices"]
    assert choices[0]["text"] == " Paris."
    assert len({choice["text"] for choice in choices}) == 4
    assert len(set(run_curl(server, "/generate")["text"])) == 4


def test_the_sdk_example_prints_two_answers(server: RunningServer) -> None:
    code = blocks("python", "OpenAI").replace(PAGE_URL, server.url)
    code = code.replace('api_key="-"', f'api_key="{server.api_key}"').replace('"demo/model"', '"demo"')
    lines = run_python(code)
    assert lines[0] == "' Paris.' stop"
    assert len(lines) == 2


def test_the_offline_example_prints_what_was_found() -> None:
    lines = run_python(blocks("python", "from zqserve import LLM"))
    assert len(lines) >= 4
    assert lines[0].endswith("The capital of France is Paris.")
