"""What a cached prefix wins: the same load with prompts that share long prefixes, and with prompts that share nothing.

    python -m bench prefix --model demo/model --prefixes 4 --prefix-tokens 512

Both loads have prompts of one length and take turns on one server, zqserve or any other (--base-url). The ratios are
those of a run to the run beside it.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from zqserve.bench.common.load import Pace
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.prompts import RandomPrompts, SharedPrefix
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.servers import add_server_arguments, target_of
from zqserve.bench.latency import add_request_arguments, measure


def main() -> None:
    """Shared and unshared prompts in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    add_request_arguments(parser)
    parser.set_defaults(input=32, output=64, requests=96, warm_up=2)
    parser.add_argument("--prefixes", type=int, default=4)
    parser.add_argument("--prefix-tokens", type=int, default=512)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--runs", type=int, default=2, help="of each kind")
    add_report_arguments(parser)
    args = parser.parse_args()
    kinds = {
        "shared": SharedPrefix(args.prefixes, args.prefix_tokens),
        "unshared": SharedPrefix(args.requests, args.prefix_tokens),
    }
    rows: list[dict[str, Any]] = []
    with target_of(args) as target:
        prompts = RandomPrompts(target.tokenizer())
        for run in range(args.runs):
            for kind, shared in kinds.items():
                seed = args.seed + 1000 * len(rows)
                pace = Pace(concurrency=args.concurrency)
                outcome, cpu = measure(target, prompts, pace, args, seed=seed, shared=shared)
                rows.append({"prompts": kind, "run": run + 1} | outcome.row() | {"server CPU s": cpu})
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    speed = median(shared["tok/s"] / unshared["tok/s"] for shared, unshared in pairs)
    wait = median(shared["TTFT ms"]["p50"] / unshared["TTFT ms"]["p50"] for shared, unshared in pairs)
    note = f"Shared over unshared, median of runs: tokens a second {speed:.2f}, time to first token {wait:.2f}"
    title = f"{args.prefixes} prefixes of {args.prefix_tokens} tokens, {args.input} behind, {args.output} out"
    bars = {f"{row['prompts']} {row['run']}": row["tok/s"] for row in rows}
    waits = {f"{row['prompts']} {row['run']}": row["TTFT ms"]["p50"] for row in rows}
    panels = [
        Panel("Throughput", "output tokens a second", bars=bars),
        Panel("Time to first token", "milliseconds (p50)", bars=waits),
    ]
    publish(Report(title, rows, panels, [note]), args)


if __name__ == "__main__":
    main()
