"""Each row of docs/compatibility.md names the tests that hold it, in the files of `proofs_of_rows/`: a table for each
section of the page, in which the first cell of a row is the key of its tests.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from tests.running_server import ROOT

PAGE = ROOT / "docs" / "compatibility.md"
PROOFS = Path(__file__).parent / "proofs_of_rows"

Sections = dict[str, dict[str, list[str]]]


def rows_of_page() -> dict[str, list[str]]:
    """The first cells of the rows of each section."""
    sections: dict[str, list[str]] = {}
    title = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("| "):
            row, status, _ = (cell.strip() for cell in line.strip("|").split("|"))
            if status != "status":
                sections.setdefault(title, []).append(row)
    return sections


def proofs() -> Sections:
    """The tests of each row, of all files; no two files speak of one section."""
    sections: Sections = {}
    for path in sorted(PROOFS.glob("*.toml")):
        of_file: Sections = tomllib.loads(path.read_text())
        assert not sections.keys() & of_file.keys()
        sections |= of_file
    return sections


def functions_of(path: Path) -> set[str]:
    """The names of a file's test functions."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_section_has_its_proofs() -> None:
    assert set(proofs()) == set(rows_of_page())


@pytest.mark.parametrize("section", sorted(proofs()))
def test_every_row_has_a_proof_and_every_proof_a_row(section: str) -> None:
    proven, rows = proofs()[section], rows_of_page()[section]
    assert len(set(rows)) == len(rows)
    assert [row for row in rows if not proven.get(row)] == []
    assert sorted(proven.keys() - set(rows)) == []


def test_every_proof_is_a_test() -> None:
    named = {test for rows in proofs().values() for tests in rows.values() for test in tests}
    files = {test.partition("::")[0] for test in named}
    known = {f"{file}::{name}" for file in files for name in functions_of(ROOT / file) if name.startswith("test_")}
    assert sorted(named - known) == []
