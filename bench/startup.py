"""Seconds from the start of the process to the first streamed token, and what the idle server costs.

    python -m bench startup --model demo/model --runs 3 --idle 20
    python -m bench startup --model DIR --command "llama-server -m model.gguf --port {port}"

The request is sent again and again until the server answers it, as a client that cannot wait would.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import signal
import subprocess
import sys
import time
from typing import Any

import psutil

from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.servers import free_port

MAX_SETTLE_SECONDS = 60.0
QUIET_SECONDS = 0.03
"""CPU time of all processes in two seconds, of a server that has done with its start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo/model")
    parser.add_argument("--command", help="that starts another server on 127.0.0.1 and {port}, of {model}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch the idle server")
    add_report_arguments(parser)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for run in range(args.runs):
        port = free_port()
        started = time.perf_counter()
        server = subprocess.Popen(_command(args, port), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_for_token(port, server)
            rows.append({"what": f"run {run + 1}", "first token, s": time.perf_counter() - started})
            if run == args.runs - 1:
                rows += _watch_idle(server.pid, args.idle)
        finally:
            server.send_signal(signal.SIGTERM)
            rows.append({"what": f"run {run + 1}", "exit status": server.wait(60)})
    seconds = {row["what"]: row["first token, s"] for row in rows if "first token, s" in row}
    memory = {row["what"]: row["MiB"] for row in rows if "MiB" in row}
    panels = [Panel("First token", "seconds", bars=seconds), Panel("Memory, idle", "MiB", bars=memory)]
    publish(Report(f"Start of {args.command or 'zqserve'} with {args.model}", rows, panels), args)


def _command(args: argparse.Namespace, port: int) -> list[str]:
    if args.command is not None:
        return shlex.split(args.command.format(port=port, model=args.model))
    return [sys.executable, "-m", "zqserve", "--model", args.model, "--host", "127.0.0.1", "--port", str(port)]


def _wait_for_token(port: int, server: subprocess.Popen[bytes]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4, "stream": True})
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/v1/chat/completions", body)
            response = connection.getresponse()
            if response.status == 200:
                # The first event carries the role; the second is the first token's.
                while b'"content":"' not in (line := response.readline()) or b'"role"' in line:
                    if not line:
                        raise SystemExit("the stream ended without a token")
                return
            if response.status != 503:
                raise SystemExit(f"{response.status}: {response.read()!r}")
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    raise SystemExit(f"the server ended with status {server.returncode}")


def _watch_idle(pid: int, seconds: float) -> list[dict[str, Any]]:
    """What the server costs that has nothing to do, once what its start began in the background is done."""
    parent = psutil.Process(pid)
    begun, used = time.monotonic(), -1.0
    while time.monotonic() - begun < MAX_SETTLE_SECONDS:
        processes = [parent, *parent.children(recursive=True)]
        used, before = sum(sum(p.cpu_times()[:2]) for p in processes), used
        if used - before < QUIET_SECONDS:
            break
        time.sleep(2.0)
    settled = {"what": "begun in the background, then idle", "s": time.monotonic() - begun, "CPU s": used}
    processes = [parent, *parent.children(recursive=True)]
    before = {p: sum(p.cpu_times()[:2]) for p in processes}
    time.sleep(seconds)
    rows: list[dict[str, Any]] = []
    for p in processes:
        memory = p.memory_full_info()
        share = (sum(p.cpu_times()[:2]) - before[p]) / seconds
        name = f"{p.name()} {' '.join(p.cmdline()[1:3])}"[:40]
        rows.append({"what": name, "MiB": memory.pss / 2**20, "resident": memory.rss / 2**20, "core, %": 100 * share})
    # Pages that several share count once in the sum.
    sums = {name: sum(row[name] for row in rows) for name in ("MiB", "core, %")}
    return [settled, *rows, {"what": "all processes"} | sums]


if __name__ == "__main__":
    main()
