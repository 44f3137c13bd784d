"""docs/compatibility.md: its sums are right, and what it says of flags is what the command line does."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.running_server import ROOT
from zqserve.server.command_line.cli import ServeCommand, Shown, UsageError, parse
from zqserve.server.command_line.flag_compatibility import FOREIGN_FLAGS

PAGE = (ROOT / "docs" / "compatibility.md").read_text()
ROWS = [
    (cells[0], cells[1], cells[2])
    for line in PAGE.splitlines()
    if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 3
    if cells[1] != "status"
]
FLAGS = [
    (flag, status, here)
    for row, status, here in ROWS
    for flag in re.findall(r"`--([a-z-]+)`", row)
    if flag not in ("no-flag", "version")  # spellings, and the flag that asks for no server
]


def test_every_row_has_a_status_and_the_sums_are_right() -> None:
    assert len(ROWS) == sum(line.startswith("| ") for line in PAGE.splitlines()) - PAGE.count("| status |")
    counts = Counter(status for _, status, _ in ROWS)
    assert set(counts) <= {"done", "refused", "open"}
    stated = re.search(r"Rows: (\d+) done, (\d+) refused, (\d+) open\.", PAGE)
    assert stated is not None
    assert [int(number) for number in stated.groups()] == [counts["done"], counts["refused"], counts["open"]]


def test_every_refusal_says_how() -> None:
    assert [row for row, status, here in ROWS if status == "refused" and not here] == []


@pytest.mark.parametrize(("flag", "status", "here"), FLAGS, ids=[flag for flag, _, _ in FLAGS])
def test_a_flag_does_what_its_row_says(flag: str, status: str, here: str) -> None:
    foreign = FOREIGN_FLAGS.get(flag)
    if status == "refused":
        assert foreign is not None
        assert foreign.verdict == "refused"
        for quoted in re.findall(r'"(.*?)"', here):
            assert quoted in foreign.why
    elif here.startswith("no effect"):
        assert foreign is not None
        assert foreign.verdict == "no effect"
    elif status == "done" and foreign is not None:
        assert "true" in foreign.harmless
    elif status == "done":
        shown = parse([f"--help={flag}"])
        assert isinstance(shown, Shown)
        assert f"--{flag}" in shown.text


def test_values_that_are_no_refusal_are_taken() -> None:
    for flag, status, here in FLAGS:
        for value in re.findall(r"\w+", here.partition(":")[0].removeprefix("but ")) if here.startswith("but ") else ():
            parsed = parse(["m", f"--{flag}", value])
            assert isinstance(parsed, ServeCommand), flag
            assert status == "refused"
    with pytest.raises(UsageError):
        parse(["m", "--tensor-parallel-size", "2"])
