"""The examples of docs/embeddings.md are run as they stand there; only the port is another one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running_server import ROOT, RunningServer, free_port

PAGE = (ROOT / "docs" / "embeddings.md").read_text()
PAGE_URL = "http://127.0.0.1:8000"


def blocks(language: str, containing: str) -> str:
    """The one code block of a language that contains a text."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in b]
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    (command,) = re.findall(r"`zqserve (serve demo/model --task embedding)` starts it", PAGE)
    log: Path = tmp_path_factory.mktemp("docs") / "log"
    flags = [*shlex.split(command), "--port", str(port), "--kv-cache-memory", "16M"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "zqserve", *flags], cwd=ROOT, stderr=output)
    running = RunningServer(process, f"http://127.0.0.1:{port}", log)
    running.wait_until_healthy()
    yield running.url
    running.stop()


def run_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def run_curl(url: str, containing: str) -> Any:
    command = shlex.split(blocks("bash", containing))
    assert (command[0], command[2]) == ("curl", "-d")
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
    answer = httpx.post(command[1].replace(PAGE_URL, url), content=command[3], headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_sdk_example_prints_two_vectors(url: str) -> None:
    size = json.loads((ROOT / "demo/model/config.json").read_text())["hidden_size"]
    assert run_python(blocks("python", "OpenAI").replace(PAGE_URL, url)) == ["2", str(size)]


def test_the_curl_lines_score_and_rank(url: str) -> None:
    assert len(run_curl(url, "/score")["data"]) == 2
    assert len(run_curl(url, "/rerank")["results"]) == 1


def test_the_offline_example_embeds_and_scores() -> None:
    size = json.loads((ROOT / "demo/model/config.json").read_text())["hidden_size"]
    assert run_python(blocks("python", "from zqserve import LLM")) == [str(size), "1.0"]
