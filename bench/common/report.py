"""How a bench tells its result: a table, and where the command line asks for them, JSON and a picture."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .picture import Panel, check_matplotlib, draw
from .system_facts import system_facts

Row = Mapping[str, Any]
"""Columns by name: texts, numbers, or percentiles by name."""


@dataclass(frozen=True)
class Report:
    """The result of a bench."""

    title: str
    rows: Sequence[Row]
    panels: Sequence[Panel] = ()
    """What a picture of it shows."""
    notes: Sequence[str] = field(default=())
    """Sentences behind the table."""


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The two flags that every bench has."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, with what they depend on")
    parser.add_argument("--plot", type=_picture_path, metavar="FILE", help="draw them there (PNG); needs matplotlib")


def publish(report: Report, args: argparse.Namespace) -> None:
    """Print a report, and write what the flags of `add_report_arguments` ask for."""
    print(report.title)
    print(table(report.rows))
    for note in report.notes:
        print(note)
    if args.json is not None:
        args.json.write_text(json.dumps(_document(report, args), indent=1) + "\n", encoding="utf-8")
    if args.plot is not None:
        draw(args.plot, report.title, report.panels)


def figures(found: Mapping[str, Any]) -> list[Row]:
    """The rows of a bench that has single figures; those that belong together stand one under the other."""
    rows: list[Row] = []
    for name, value in found.items():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        rows += [{"figure": f"{name}: {part}" if part else name, "value": number} for part, number in parts]
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows under their names, numbers to the right. Of percentiles it has p50/p90/p99."""
    if not rows:
        return "(nothing was measured)"
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    is_text = [all(isinstance(row.get(name), str | None) for row in rows) for name in names]
    lines = []
    for line in [names, *cells]:
        padded = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_text, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "/".join(_text(value[name]) for name in ("p50", "p90", "p99") if name in value)
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _document(report: Report, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "title": report.title,
        "command": sys.argv,
        "arguments": {name: _plain(value) for name, value in vars(args).items()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": system_facts(),
        "rows": [_plain(row) for row in report.rows],
        "notes": list(report.notes),
    }


def _plain(value: object) -> object:
    """What JSON knows: NaN is null there."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def _picture_path(text: str) -> Path:
    """Fails before anything is measured where it could not be drawn."""
    try:
        check_matplotlib()
    except ImportError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)
