"""Thousands of requests at once: what each is answered, and how long `/health` takes meanwhile.

    python bench/overload.py --url http://127.0.0.1:8000 --requests 5000 [--key KEY] [--pid PID]

Speaks HTTP by hand, so that the client costs little. With --pid, the memory of that process and its
children is watched.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import json
import multiprocessing
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import psutil

from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, figures, publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--key", default="none")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--pid", type=int, help="the server's process")
    add_report_arguments(parser)
    args = parser.parse_args()
    address = urlsplit(args.url)
    host, port = address.hostname or "127.0.0.1", address.port or 80
    found = asyncio.run(_measure(host, port, args.requests, args.key, args.max_tokens, args.pid))
    panel = Panel("Answers", "requests", bars=found["answered"])
    publish(Report(f"{args.requests} requests at once", figures(found), [panel]), args)


async def _measure(host: str, port: int, number: int, key: str, max_tokens: int, pid: int | None) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    waits: list[float] = []
    body = json.dumps({"prompt": "What is the capital of France?", "max_tokens": max_tokens, "ignore_eos": True})

    async def ask() -> None:
        begun = time.monotonic()
        try:
            status = await _status(host, port, "POST /v1/completions", key, body)
        except OSError as error:
            status = type(error).__name__
        statuses[status] += 1
        waits.append(time.monotonic() - begun)

    # In a process of its own: this one is as busy as the server.
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        over = multiprocessing.get_context("spawn").Manager().Event()
        watched = asyncio.get_running_loop().run_in_executor(pool, _watch, host, port, pid, over)
        await asyncio.sleep(2.0)
        started = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(number)))
        seconds = time.monotonic() - started
        over.set()
        health, memory = await watched
    return {
        "answered": dict(statuses),
        "seconds": round(seconds, 2),
        "longest wait": round(max(waits), 2),
        "health": {
            "probes": len(health),
            "p50 ms": round(1000 * health[len(health) // 2], 1),
            "worst ms": round(1000 * health[-1], 1),
        },
        "peak memory MiB": memory,
    }


async def _status(host: str, port: int, what: str, key: str, body: str = "") -> str:
    """The status code of an answer, read to its end."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"{what} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    answer = await reader.read()
    writer.close()
    return answer[9:12].decode() or "closed"


def _watch(host: str, port: int, pid: int | None, over: Any) -> tuple[list[float], dict[str, int]]:
    """Until `over` is set: seconds of each look at `/health`, in order, and the peak memory by process, MiB."""
    seconds: list[float] = []
    peaks: dict[str, int] = {}
    while not over.is_set():
        begun = time.monotonic()
        asyncio.run(_status(host, port, "GET /health", "none"))
        seconds.append(time.monotonic() - begun)
        for each in [] if pid is None else [psutil.Process(pid), *psutil.Process(pid).children()]:
            name = f"{each.name()} {each.pid}"
            peaks[name] = max(peaks.get(name, 0), each.memory_info().rss >> 20)
        time.sleep(0.02)
    return sorted(seconds), peaks


if __name__ == "__main__":
    main()
