"""The examples of docs/responses_and_messages.md are run as they stand there; only the port is another one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.running_server import ROOT, RunningServer, free_port

PAGE = (ROOT / "docs" / "responses_and_messages.md").read_text()
PAGE_URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    (command,) = re.findall(r"run against `zqserve (serve demo/model)`", PAGE)
    log = tmp_path_factory.mktemp("docs") / "log"
    flags = [*shlex.split(command), "--port", str(port), "--kv-cache-memory", "16M"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "zqserve", *flags], cwd=ROOT, stderr=output)
    running = RunningServer(process, f"http://127.0.0.1:{port}", log)
    running.wait_until_healthy()
    yield running.url
    running.stop()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run_python(code: str, url: str) -> list[str]:
    code = code.replace(PAGE_URL, url)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_example_of_responses_prints_three_answers(url: str) -> None:
    of_responses, _ = blocks("python")
    text, place, streamed = run_python(of_responses, url)
    assert "Paris" in text
    assert place.startswith("continent=")
    assert streamed


def test_the_example_of_messages_answers_and_calls(url: str) -> None:
    _, of_messages = blocks("python")
    assert run_python(of_messages, url) == ["end_turn", "weather True"]


def test_the_curl_line_is_answered(url: str) -> None:
    (line,) = blocks("bash")
    command = shlex.split(line)
    assert (command[0], command[2]) == ("curl", "-d")
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
    answer = httpx.post(command[1].replace(PAGE_URL, url), content=command[3], headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "message"
