"""`python -m bench`: the list of benches, and what they write."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running_server import DEMO_MODEL, ROOT, RunningServer
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish, table

ADAPTERS = {"guided_engine"}
"""Files that another program runs."""


def _bench(*words: str, key: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OPENAI_API_KEY": key}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_every_file_of_the_folder_is_listed_with_a_line() -> None:
    names = {path.stem for path in (ROOT / "bench").glob("*.py")} - {"__init__", "__main__"} - ADAPTERS
    lines = [line.split(None, 1) for line in _bench().stdout.splitlines() if line.startswith("  ")]
    assert {line[0] for line in lines} == names
    assert all(len(line) == 2 for line in lines), "a bench has no first line"


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    done = _bench("latencies")
    assert done.returncode == 1
    assert "latencies" in done.stderr
    assert "latency" in done.stderr


@pytest.mark.parametrize("pace", [("--concurrency", "1", "3"), ("--rate", "50")])
def test_latency_of_a_running_server(server: RunningServer, tmp_path: Path, pace: tuple[str, ...]) -> None:
    rows = _latency(server, tmp_path, *pace, "--requests", "6", "--output", "5", "--shared-prefixes", "2", "16")
    assert len(rows) == len(pace) - 1
    for row in rows:
        assert (row["requests"], row["errors"]) == (6, 0)
        assert row["tokens"] == 6 * 5
        for name in ("TTFT ms", "TPOT ms", "ITL ms", "E2E ms"):  # no time lies between tokens that came together
            assert 0 <= row[name]["p50"] <= row[name]["p90"] <= row[name]["p99"]
        assert 0 < row["TTFT ms"]["p99"] <= row["E2E ms"]["p99"]
        assert row["TTFT ms"]["p50"] < row["E2E ms"]["p50"]


def test_latency_of_chat_by_token_counts_of_the_server(server: RunningServer, tmp_path: Path) -> None:
    (row,) = _latency(server, tmp_path, "--concurrency", "2", "--requests", "2", "--output", "3", "--endpoint", "chat")
    assert (row["errors"], row["tokens"]) == (0, 6)


def test_requests_that_are_refused_are_counted_and_shown(server: RunningServer, tmp_path: Path) -> None:
    (row,) = _latency(server, tmp_path, "--concurrency", "2", "--requests", "3", "--output", "100000")
    assert row["errors"] == 3
    assert "100000" in row["first error"]
    assert row["TTFT ms"]["p50"] is None


def _latency(server: RunningServer, folder: Path, *words: str) -> list[dict[str, Any]]:
    common = ("--base-url", server.url, "--tokenizer", str(DEMO_MODEL), "--input", "8", "--warm-up", "1")
    done = _bench("latency", *common, *words, "--json", str(folder / "figures.json"), key=server.api_key)
    assert done.returncode == 0, done.stderr
    document = json.loads((folder / "figures.json").read_text())
    assert document["arguments"]["base_url"] == server.url
    assert document["system"]["cores"] >= 1
    return document["rows"]


def test_prefixes_are_shared_or_not(server: RunningServer, tmp_path: Path) -> None:
    common = ("--base-url", server.url, "--tokenizer", str(DEMO_MODEL), "--requests", "4", "--runs", "1")
    sizes = ("--prefixes", "1", "--prefix-tokens", "64", "--input", "4", "--output", "2", "--concurrency", "1")
    done = _bench("prefix", *common, *sizes, "--json", str(tmp_path / "figures.json"), key=server.api_key)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [(row["prompts"], row["errors"]) for row in rows] == [("shared", 0), ("unshared", 0)]


def test_guided_answers_are_records(server: RunningServer, tmp_path: Path) -> None:
    sizes = ("--requests", "2", "--rounds", "1", "--new-schemas", "1", "--concurrency", "2", "--output", "80")
    flags = ("--base-url", server.url, *sizes, "--json", str(tmp_path / "figures.json"))
    done = _bench("guided", *flags, key=server.api_key)
    assert done.returncode == 0, done.stderr
    _, guided = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert guided["errors"] == 0
    assert guided["ended"] == guided["records"] > 0


def _arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_report_arguments(parser)
    return parser.parse_args(words)


def test_a_report_is_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "a", "tok/s": 1234.5, "ms": {"mean": 2.0, "p50": 1.0, "p99": 3.25}},
        {"name": "bc", "tok/s": math.nan},
    ]
    publish(Report("Title", rows, notes=["A note."]), _arguments("--json", str(tmp_path / "r.json")))
    assert capsys.readouterr().out.splitlines() == [
        "Title",
        "name  tok/s         ms",
        "a     1,234  1.00/3.25",
        "bc        -",
        "A note.",
    ]
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["rows"] == [rows[0], {"name": "bc", "tok/s": None}]
    assert document["notes"] == ["A note."]
    assert "nothing" in table([])


def test_a_report_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    panels = [
        Panel("lines", "y", "x", {"a": [(1, 2), (2, 3)], "b": [(1, 1)]}, log_x=True),
        Panel("bars", "y", bars={"a": 1}),
    ]
    publish(Report("Title", [{"a": 1}], panels), _arguments("--plot", str(tmp_path / "r.png")))
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        _arguments("--plot", str(tmp_path / "r.png"))
    assert "zqserve[bench]" in capsys.readouterr().err
