"""Registers, shared memory and spills of each GPU kernel, compiled for chips that need not be here.

    python -m bench kernel_resources [--json FILE]
    python -m bench kernel_resources --markdown     # the table of docs/kernels.md

Compiles the launches of `common/kernel_launches.py`: those that the engine would make for models that people run.
"""

from __future__ import annotations

import argparse
from typing import Any

import triton

from zqserve.bench.common.kernel_launches import all_launches
from zqserve.bench.common.report import Report, add_report_arguments, publish

CHIPS = {80: "A100 (sm_80)", 90: "H100 (sm_90)"}
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes that one block of threads can have."""


def main() -> None:
    """Compile, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", type=int, choices=list(CHIPS), action="append", help="80, 90; all if not said")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/kernels.md has it")
    add_report_arguments(parser)
    args = parser.parse_args()
    rows = [row for chip in args.chip or CHIPS for row in measure(chip)]
    if args.markdown:
        print(markdown(rows))
        return
    publish(Report(f"GPU kernels compiled by Triton {triton.__version__}", rows), args)


def measure(chip: int) -> list[dict[str, Any]]:
    """A row for each kernel and model shape."""
    rows = []
    for model, launch in all_launches(chip):
        used = launch.compile(chip)
        rows.append(
            {
                "chip": CHIPS[chip],
                "kernel": launch.kernel.__name__.removesuffix("_kernel"),
                "shape of": model,
                "warps": launch.num_warps,
                "registers": used.registers,
                "shared, KiB": round(used.shared / 1024, 1),
                "spilled, bytes": used.spilled,
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table of a page."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
