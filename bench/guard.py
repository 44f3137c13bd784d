"""Holds what a decode step costs to limits that are counted, never timed: instructions, operations, messages, bytes.

    python -m bench guard                 # compare; the exit status is 1 where a limit is passed
    python -m bench guard --update        # write new limits: what is counted now, and a quarter more

The limits are in `guard_limits.json`. The counts are nearly the same on every machine with the same versions of Python
and torch; a change that makes a step do more fails the test-suite and has to say so by a new limit.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zqserve.bench.common.frontend_counts import frontend_counts
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.step_counts import engine_counts, scheduler_counts, wire_counts

LIMITS = Path(__file__).parent / "guard_limits.json"
HEADROOM = 1.25
"""More than versions of Python differ by, and less than one thing too many for each token."""
DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"

PARTS: Mapping[str, Callable[[], Iterator[tuple[str, float]]]] = {
    "scheduler": scheduler_counts,
    "wire": wire_counts,
    "engine": lambda: engine_counts(str(DEMO_MODEL)),
    "frontend": lambda: frontend_counts(str(DEMO_MODEL)),
}


def main() -> None:
    """Count, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--update", action="store_true", help="write the limits instead of comparing with them")
    add_report_arguments(parser)
    args = parser.parse_args()
    limits = read_limits()
    counted = count(args.parts)
    if args.update:
        limits |= {name: _limit(number) for name, number in counted.items()}
        LIMITS.write_text(json.dumps(limits, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"figure": name, "counted": number, "limit": limits.get(name), "": _verdict(number, limits.get(name))}
        for name, number in counted.items()
    ]
    shares = {name: number / limits[name] for name, number in counted.items() if limits.get(name)}
    report = Report(f"Counts (Python {platform.python_version()})", rows, [Panel("Of the limit", "share", bars=shares)])
    publish(report, args)
    if any(row[""] for row in rows):
        raise SystemExit(1)


def count(parts: list[str]) -> dict[str, float]:
    """Every figure of these parts, by name."""
    return {f"{part}: {name}": number for part in parts for name, number in PARTS[part]()}


def read_limits() -> dict[str, float]:
    """What each figure may be at most."""
    return json.loads(LIMITS.read_text(encoding="utf-8")) if LIMITS.is_file() else {}


def _limit(number: float) -> float:
    """A quarter more, but for small whole numbers, which shall stay what they are."""
    return number if number == int(number) and number < 10 else round(number * HEADROOM, 2)


def _verdict(number: float, limit: float | None) -> str:
    if limit is None:
        return "has no limit: run with --update"
    return "" if number <= limit else "OVER"


if __name__ == "__main__":
    main()
