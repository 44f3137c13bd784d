"""A page of the documentation: its code blocks, and what comes of them when they are run as they stand there; only the
port is another one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.running_server import ROOT

PAGE_URL = "http://127.0.0.1:8000"
"""Where the pages say that the server listens."""


@dataclass(frozen=True)
class Page:
    """The text of a page."""

    text: str

    def blocks(self, language: str) -> list[str]:
        """The code blocks of a language, in their order."""
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", self.text, re.DOTALL | re.MULTILINE)
        return [text for name, text in fenced if name == language]

    def block(self, language: str, containing: str) -> str:
        """The one code block of a language that contains a text."""
        (found,) = [block for block in self.blocks(language) if containing in block]
        return found

    def curl(self, containing: str, url: str, language: str = "bash") -> httpx.Response:
        """What the curl line with this text in it brings from the server at `url`."""
        command = shlex.split(self.block(language, containing))
        assert command[0] == "curl"
        target = next(word for word in command if word.startswith(PAGE_URL))
        headers = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d sends
        if "-H" in command:
            name, value = command[command.index("-H") + 1].split(": ")
            headers[name] = value
        body = command[command.index("-d") + 1]
        return httpx.post(target.replace(PAGE_URL, url), content=body, headers=headers, timeout=60)


def read_page(path: str) -> Page:
    """The page at a path of the repository."""
    return Page(Path(ROOT / path).read_text())


def run_python(code: str, url: str = PAGE_URL, **environment: str) -> list[str]:
    """The lines that a script prints, which asks the server at `url`."""
    done = subprocess.run(
        [sys.executable, "-c", code.replace(PAGE_URL, url)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
