"""What serving costs beside the model: processor time of the front-end for each streamed token, with an echo engine.

    python -m bench frontend --streams 32
    python -m bench frontend --base-url http://127.0.0.1:8101 --pid PID --tokenizer DIR --streams 32

The engine gives all streams a token at a fixed pace, so that each token is an event of its own, as in a server that
keeps up. Any other server is measured in its own processes (--pid): look at the row of the one that speaks HTTP.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zqserve.bench.common.load import Outcome, Pace, run_load
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.prompts import RandomPrompts
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.servers import (
    Target,
    add_server_arguments,
    cpu_by_process,
    free_port,
    settle,
    spent,
    started,
    target_of,
)
from zqserve.bench.latency import PATHS, add_request_arguments, request_bodies


def main() -> None:
    """One row for each process that took part, at each number of streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32], help="at once")
    parser.add_argument("--steps-per-second", type=float, default=50.0, help="of the echo engine")
    add_request_arguments(parser)
    add_report_arguments(parser)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with _target(args) as target:
        if target.pid is None:
            parser.error("with --base-url, --pid names the process of that server")
        prompts = RandomPrompts(target.tokenizer())
        for streams in args.streams:
            seed = args.seed + streams
            bodies = request_bodies(target, prompts, args, args.requests or 2 * streams, seed=seed)
            run_load(target.base_url, PATHS[args.endpoint], bodies[: args.warm_up], Pace(concurrency=streams))
            if args.base_url is None:
                settle(target.pid)
            before = cpu_by_process(target.pid)
            outcome = run_load(target.base_url, PATHS[args.endpoint], bodies, Pace(concurrency=streams))
            rows += _rows(streams, outcome, spent(before, cpu_by_process(target.pid)))
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["process"], []).append((row["streams"], row["CPU µs/token"]))
    panel = Panel("Processor time of a streamed token", "microseconds", "streams", points, log_x=True)
    publish(Report(f"Processor time for each streamed token of {args.base_url or 'zqserve'}", rows, [panel]), args)


def _rows(streams: int, outcome: Outcome, seconds: dict[str, float]) -> list[dict[str, Any]]:
    events = sum(len(answer.times) for answer in outcome.good)
    common = {
        "streams": streams,
        "errors": len(outcome.answers) - len(outcome.good),
        "tokens": outcome.num_tokens,
        "tokens/event": outcome.num_tokens / max(1, events),
    }
    client = {"this client": outcome.cpu_seconds}
    return [
        common | {"process": name, "CPU s": round(used, 2), "CPU µs/token": used * 1e6 / max(1, outcome.num_tokens)}
        for name, used in (seconds | client).items()
    ]


@contextmanager
def _target(args: argparse.Namespace) -> Iterator[Target]:
    if args.base_url is not None:
        with target_of(args) as target:
            yield target
        return
    with echo_server(args.model, args.steps_per_second) as target:
        yield target


@contextmanager
def echo_server(model: str, steps_per_second: float) -> Iterator[Target]:
    """zqserve's front-end on an engine that computes nothing."""
    port = free_port()
    flags = ["--model", model, "--port", str(port), "--steps-per-second", str(steps_per_second)]
    with started([sys.executable, "-m", "zqserve.bench.common.echo_server", *flags], port) as process:
        yield Target(f"http://127.0.0.1:{port}", model, Path(model), process.pid)


if __name__ == "__main__":
    main()
