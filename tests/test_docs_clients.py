"""The examples of docs/clients.md are run as they stand there; only the port is another one."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.resources.chat.completions import Completions as ChatCompletions
from openai.resources.completions import Completions

from tests.running_server import ROOT, RunningServer, free_port
from zqserve.server.protocol.chat import ChatCompletionRequest
from zqserve.server.protocol.completions import CompletionRequest

PAGE = (ROOT / "docs" / "clients.md").read_text()
PAGE_URL = "http://127.0.0.1:8000"
REFUSED = {"logits_processors", "logprob_token_ids", "prompt_embeds"}
"""Fields that are known and always answered 400."""

FIELDS: list[tuple[str, str, Any]] = [
    (name, of, json.loads(value))
    for name, of, value in re.findall(r"^\| `(\w+)` \| (t c|t|c) \| `(.*?)` \| \S", PAGE, re.MULTILINE)
]


def blocks(language: str, containing: str) -> str:
    """The one code block of a language that contains a text."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if containing in b]
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    (command,) = re.findall(r"`zqserve (serve demo/model)`", PAGE)
    log: Path = tmp_path_factory.mktemp("docs") / "log"
    flags = [*shlex.split(command), "--port", str(port), "--kv-cache-memory", "64M"]
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "zqserve", *flags], cwd=ROOT, stderr=output)
    running = RunningServer(process, f"http://127.0.0.1:{port}", log)
    running.wait_until_healthy()
    yield running.url
    running.stop()


def run_python(code: str, url: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code.replace(PAGE_URL, url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("containing", "printed"),
    [
        ("logprobs=1", [r"The capital of France is Paris\.", r" Paris \[-0\.\d+\]"]),
        ("content.done", [r"(.*cold.*)", r".*cold.*", "stop"]),
        ("AsyncOpenAI", [r"The capital of France is Paris\.", r"The capital of Italy is Rome\."]),
        ("class Review", ["Review (positive|negative) [1-5]"]),
        ("NotFoundError", [r"temperature .*between 0.* and 2.*", "model 404"]),
        ("job-17", ["cmpl-job-17"]),
        ("httpx.stream", [" Paris.*"]),
        ("extra_body=", [r" [A-Z][a-z]+ [1-4]"]),
    ],
)
def test_a_python_example_prints_what_it_says(containing: str, printed: list[str], url: str) -> None:
    lines = run_python(blocks("python", containing), url)
    assert len(lines) == len(printed)
    for line, pattern in zip(lines, printed, strict=True):
        assert re.fullmatch(pattern, line), line


def send_curl(containing: str, url: str) -> httpx.Response:
    """What a curl line sends, its content type included."""
    command = shlex.split(blocks("bash", containing))
    body = command[command.index("-d") + 1]
    target = next(word for word in command if word.startswith(PAGE_URL))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if "-H" in command:
        name, value = command[command.index("-H") + 1].split(": ")
        headers[name] = value
    return httpx.post(target.replace(PAGE_URL, url), content=body, headers=headers, timeout=60)


def test_the_curl_lines_are_answered(url: str) -> None:
    assert send_curl('"max_tokens": 1', url).json()["choices"][0]["text"] == " Paris"
    events = send_curl("curl -N", url).text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert json.loads(events[-3].removeprefix("data: "))["usage"]["completion_tokens"] > 1


def test_the_base_url_of_the_environment_is_enough(url: str) -> None:
    *settings, python, flag, code = shlex.split(blocks("bash", "OPENAI_BASE_URL"))
    assert (python, flag) == ("python", "-c")
    environment = dict(setting.replace(PAGE_URL, url).split("=", 1) for setting in settings)
    assert run_python(code, url, **environment) == [" Paris"]


@pytest.mark.parametrize("kind", ["t", "c"])
def test_the_table_has_every_field_that_the_sdk_lacks(kind: Literal["t", "c"]) -> None:
    request = CompletionRequest if kind == "t" else ChatCompletionRequest
    create = Completions.create if kind == "t" else ChatCompletions.create
    lacking = set(request.__struct_fields__) - set(inspect.signature(create).parameters) - REFUSED
    listed = {name for name, of, _ in FIELDS if kind in of.split()}
    assert listed == lacking


@pytest.mark.parametrize(("name", "of", "value"), FIELDS, ids=[name for name, _, _ in FIELDS])
def test_a_field_of_the_table_is_taken(name: str, of: str, value: Any, url: str) -> None:
    body = value if isinstance(value, dict) and name in value else {name: value}
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
    if "t" in of:
        answer = client.completions.create(
            model="demo/model", prompt="The capital of France is", max_tokens=8, extra_body=body
        )
        assert answer.choices[0].finish_reason in ("stop", "length")
    if "c" in of:
        messages: Any = [{"role": "user", "content": "What is the capital of France?"}]
        if name in ("continue_final_message", "echo"):
            messages.append({"role": "assistant", "content": "It is"})
        chat = client.chat.completions.create(model="demo/model", messages=messages, max_tokens=8, extra_body=body)
        assert chat.choices[0].finish_reason in ("stop", "length")
