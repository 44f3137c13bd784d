"""Kills the engine in the middle of many streams, again and again, and compares each answer to that of a calm run.

    python -m bench.faults --streams 64 --kills 3 [--model demo/model] [--seed 1]

Starts a server of its own. Then SIGTERM in the middle of as many streams: how many end as they should.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.faults.mixed_requests import Outcome, requests, run
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, figures, publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--model", default="demo/model")
    parser.add_argument("--max-tokens", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    add_report_arguments(parser)
    args = parser.parse_args()
    os.environ["ZQSERVE_TEST_MODEL"] = str(Path(args.model).resolve())
    found = _measure(args.streams, args.kills, args.max_tokens, random.Random(args.seed))
    equal = {name: found[name] for name in ("streams", "equal after the kills", "equal after SIGTERM")}
    panel = Panel("Streams that end as they should", "streams", bars=equal)
    publish(Report(f"{args.streams} streams, {args.kills} kills", figures(found), [panel]), args)


def _measure(num_streams: int, num_kills: int, max_tokens: int, dice: random.Random) -> dict[str, Any]:
    from tests.faults.processes import metric  # they look for the model when they are imported
    from tests.running_server import start_server

    bodies = requests(num_streams, max_tokens=max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder, "log"), "--max-num-seqs", "256", "--kv-cache-memory", "256M")
        started = time.monotonic()
        calm = asyncio.run(run(server.url, server.headers, bodies))
        calm_seconds = time.monotonic() - started
        over = threading.Event()
        killer = threading.Thread(target=_kill, args=(server, num_kills, calm_seconds, dice, over))
        killer.start()
        disturbed = asyncio.run(run(server.url, server.headers, bodies))
        over.set()
        killer.join()
        restarts = metric(server, "engine_restarts_total")
        resumed = metric(server, "requests_resumed_total")
        timer = threading.Timer(calm_seconds / 3, server.process.send_signal, (signal.SIGTERM,))
        timer.start()
        drained = asyncio.run(run(server.url, server.headers, bodies))
        status = server.process.wait(120)
        log = server.log.read_text()
    pauses = sorted(outcome.longest_pause for outcome in disturbed if outcome.times)
    return {
        "streams": num_streams,
        "calm seconds": round(calm_seconds, 1),
        "calm errors": sum(outcome.status != 200 or outcome.error is not None for outcome in calm),
        "engine restarts": restarts,
        "requests resumed": resumed,
        "equal after the kills": _num_equal(calm, disturbed),
        "longest pause of a stream, s": {"p50": round(statistics.median(pauses), 2), "max": round(pauses[-1], 2)},
        "equal after SIGTERM": _num_equal(calm, drained),
        "exit status after SIGTERM": status,
        "tracebacks in the log": log.count("Traceback"),
    }


def _kill(server: Any, number: int, calm_seconds: float, dice: random.Random, over: threading.Event) -> None:
    """Kill the engine some time after it has gone on with the requests, `number` times."""
    from tests.faults.processes import kill_engine, metric, wait_until

    for _ in range(number):
        wait_until(lambda: over.is_set() or metric(server, "num_requests_running") > 0)
        if over.wait(dice.uniform(0.1, 0.5) * calm_seconds / number):
            return
        kill_engine(server)


def _num_equal(calm: list[Outcome], other: list[Outcome]) -> int:
    return sum(before.result == after.result for before, after in zip(calm, other, strict=True))


if __name__ == "__main__":
    main()
