"""The GPU's kernels without a GPU: right in Triton's interpreter, and compiled for the chips they are for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def test_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "interpreted")]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


@pytest.mark.parametrize(("chip", "shared_limit"), [(80, 163), (90, 227)])
def test_all_kernels_compile_without_spills_and_are_as_the_page_says(chip: int, shared_limit: int, tmp_path) -> None:
    """The page's figures hold for the compiler that it names."""
    triton = pytest.importorskip("triton")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "bench", "kernel_resources", "--chip", str(chip), "--json", str(figures)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    rows = json.loads(figures.read_text())["rows"]
    assert {row["kernel"] for row in rows} >= {"split_attention", "prefill_attention", "rotate_and_write", "sample"}
    for row in rows:
        assert row["spilled, bytes"] == 0, row
        assert row["registers"] <= 255, row
        assert row["shared, KiB"] <= shared_limit, row
    page = (ROOT / "docs" / "kernels.md").read_text()
    if f"Triton {triton.__version__}" in page:
        for row in rows:
            assert "| " + " | ".join(str(value) for value in row.values()) + " |" in page
