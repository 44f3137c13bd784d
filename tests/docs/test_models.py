"""The example of docs/models.md shows what the command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

from tests.running_server import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text()


def test_the_example_of_show_is_what_is_printed() -> None:
    ((command, shown),) = re.findall(r"```\n\$ zqserve (.*?)\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-m", "zqserve", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == shown


def test_every_command_of_the_table_has_help() -> None:
    for command in re.findall(r"^\| `zqserve models (\w+)", PAGE, re.MULTILINE):
        done = subprocess.run(
            [sys.executable, "-m", "zqserve", "models", command, "--help"], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0
        assert f"zqserve models {command}" in done.stdout
