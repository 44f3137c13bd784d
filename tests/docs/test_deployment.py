"""The examples of docs/deployment.md are accepted as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.running_server import ROOT
from zqserve.server.command_line.cli import ServeCommand, parse
from zqserve.server.http.api_keys import read_key_file

PAGE = (ROOT / "docs" / "deployment.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_file_of_keys_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(block("yaml"))
    team, batch = read_key_file(path)
    assert (team.name, team.requests_per_minute, team.max_concurrent) == ("team-a", 600, 8)
    assert (batch.name, batch.requests_per_minute, batch.max_concurrent) == ("nightly-batch", None, None)


def test_the_command_of_the_systemd_unit_is_known() -> None:
    (command,) = re.findall(r"ExecStart=\S+/zqserve (.*)", block("ini"))
    parsed = parse(shlex.split(command))
    assert isinstance(parsed, ServeCommand)
    assert parsed.config.drain_timeout == 30
    assert parsed.config.api_keys_file == Path("/etc/zqserve/keys.yaml")


def test_every_flag_that_the_page_names_is_one() -> None:
    flags = set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--stop-timeout"}
    values = {"--api-key": "k", "--api-keys-file": "f"}
    for flag in sorted(flags):
        assert isinstance(parse(["model", flag, values.get(flag, "7")]), ServeCommand)
