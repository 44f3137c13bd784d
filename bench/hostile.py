"""Everything hostile at once beside quiet streams: is anything but a refusal answered, and do the streams notice?

    python -m bench hostile [--model demo/model] [--streams 8] [--quiet-seconds 10] [--json FILE]

Streams run all the while, first alone and then beside each kind of hostile input (`common/hostile_input`), whose inputs
come 4 at once. The exit status is 1 when something was answered with a fault, when a stream broke off, or when a
process of the server ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import groupby, pairwise
from urllib.parse import urlsplit

import psutil

from zqserve.bench.common.hostile_input import HostileInput, hostile_inputs
from zqserve.bench.common.http_stream import HttpConnection
from zqserve.bench.common.percentiles import summary
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, Row, add_report_arguments, publish
from zqserve.bench.common.servers import Target, add_server_arguments, target_of

AT_ONCE = 4
SECONDS_TO_ANSWER = 180.0
NO_ANSWER = "no answer"
REFUSALS = (501, 503)
"""Statuses from 500 on that say no to a request, and are no fault."""


def main() -> int:
    """Run the list; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--quiet-seconds", type=float, default=10.0)
    add_server_arguments(parser)
    add_report_arguments(parser)
    args = parser.parse_args()
    with target_of(args) as target:
        before = _processes(target.pid)
        rows, broken = asyncio.run(_measure(target, args.streams, args.quiet_seconds))
        ended = before - _processes(target.pid)
    faults = sum(row["faults"] for row in rows)
    notes = [
        f"{sum(row['tried'] for row in rows)} inputs, {faults} faults, {broken} streams broken off, "
        f"{len(ended)} of {len(before)} processes ended."
    ]
    panel = Panel("Longest gap in a stream", "ms", bars={row["kind"]: row["longest gap ms"] for row in rows})
    publish(Report(f"Hostile input beside {args.streams} streams", rows, [panel], notes), args)
    return 1 if faults or broken or ended else 0


class _Streams:
    """Answers that are streamed one after another, and the gaps within them."""

    def __init__(self, target: Target, key: str | None) -> None:
        self.num_broken = 0
        self._target = target
        self._key = key
        self._gaps: list[float] = []
        self._connections: set[HttpConnection] = set()
        self._taken_until: dict[HttpConnection, float] = {}

    async def run(self, number: int) -> None:
        """One stream after another on one connection, until it is cancelled."""
        address = urlsplit(self._target.base_url)
        loop = asyncio.get_running_loop()
        body = {"model": self._target.model, "prompt": f"{number}: Once upon a time", "max_tokens": 400}
        data = json.dumps({**body, "ignore_eos": True, "stream": True, "temperature": 0}).encode()
        authorization = f"authorization: Bearer {self._key}\r\n" if self._key else ""
        head = f"POST {address.path}/v1/completions HTTP/1.1\r\nhost: x\r\n{authorization}content-length: {len(data)}"
        while True:
            _, connection = await loop.create_connection(HttpConnection, address.hostname, address.port)
            self._connections.add(connection)
            exchange = await connection.exchange(head.encode() + b"\r\n\r\n" + data, time.perf_counter())
            self._take(connection)
            connection.close()
            self._connections.discard(connection)
            is_whole = exchange.error is None and exchange.pieces and b"[DONE]" in exchange.pieces[-1][1]
            self.num_broken += not is_whole

    def take_gaps(self) -> list[float]:
        """Seconds between pieces since the last time."""
        for connection in self._connections:
            self._take(connection)
        gaps, self._gaps = self._gaps, []
        return gaps

    def _take(self, connection: HttpConnection) -> None:
        """The gaps that ended since the last look; the first piece of an answer ends none."""
        times = [moment for moment, _ in connection.so_far.pieces]
        seen = self._taken_until.get(connection, 0.0)
        self._gaps += [after - before for before, after in pairwise(times) if after > seen]
        if times:
            self._taken_until[connection] = times[-1]


async def _measure(target: Target, num_streams: int, quiet_seconds: float) -> tuple[list[Row], int]:
    key = os.environ.get("OPENAI_API_KEY")
    inputs_by_kind = {  # made before anything is timed
        kind: list(inputs) for kind, inputs in groupby(hostile_inputs(key), key=lambda given: given.kind)
    }
    streams = _Streams(target, key)
    tasks = [asyncio.ensure_future(streams.run(number)) for number in range(num_streams)]
    await asyncio.sleep(2.0)
    streams.take_gaps()
    await asyncio.sleep(quiet_seconds)
    rows: list[Row] = [_row("(quiet)", Counter(), streams.take_gaps())]
    address = urlsplit(target.base_url)
    for kind, inputs in inputs_by_kind.items():
        print(f"{kind} ...", file=sys.stderr)
        places = asyncio.Semaphore(AT_ONCE)
        answers = await asyncio.gather(
            *(_send(given, address.hostname or "127.0.0.1", address.port or 80, places) for given in inputs)
        )
        rows.append(_row(kind, Counter(answers), streams.take_gaps()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rows, streams.num_broken


def _row(kind: str, answers: Counter[str], gaps: list[float]) -> Row:
    faults = sum(number for answer, number in answers.items() if _is_fault(answer))
    return {
        "kind": kind,
        "tried": answers.total(),
        "faults": faults,
        "answers": ", ".join(f"{number} x {answer}" for answer, number in answers.most_common()),
        "gap ms": summary(gaps, 1000),
        "longest gap ms": round(1000 * max(gaps, default=0.0), 1),
    }


def _is_fault(answer: str) -> bool:
    return answer == NO_ANSWER or (answer.isdigit() and int(answer) >= 500 and int(answer) not in REFUSALS)


async def _send(given: HostileInput, host: str, port: int, places: asyncio.Semaphore) -> str:
    """Send an input; the last status that came back, "closed" without one, or `NO_ANSWER`."""
    if given.slow:  # they take no place: there are many of them at once
        return await _talk(given, host, port)
    async with places:
        return await _talk(given, host, port)


async def _talk(given: HostileInput, host: str, port: int) -> str:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return type(error).__name__
    answer = bytearray()
    drip = asyncio.ensure_future(_drip(writer)) if given.slow else None
    try:
        writer.write(given.data)
        if given.leaves:
            await writer.drain()
            await asyncio.sleep(0.05)
            return "left"
        async with asyncio.timeout(SECONDS_TO_ANSWER):
            while piece := await reader.read(1 << 16):
                answer += piece
    except TimeoutError:
        return NO_ANSWER
    except OSError:
        pass  # it was closed while we were still sending
    finally:
        if drip is not None:
            drip.cancel()
        writer.transport.abort()
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return statuses[-1].decode() if statuses else "closed"


async def _drip(writer: asyncio.StreamWriter) -> None:
    """A byte a second."""
    with suppress(OSError):
        while True:
            await asyncio.sleep(1.0)
            writer.write(b" ")
            await writer.drain()


def _processes(pid: int | None) -> set[tuple[int, str]]:
    """The server, its front-end workers and its engine; helpers for grammars and templates come and go."""
    if pid is None:
        return set()
    root = psutil.Process(pid)
    own = [root, *root.children()]
    engines = [child for child in root.children(recursive=True) if child.name() == "zqserve-engine"]
    return {(process.pid, process.name()) for process in [*own, *engines]}


if __name__ == "__main__":
    raise SystemExit(main())
