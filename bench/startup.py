"""Seconds from the start of the process to the first streamed token, and what the idle server costs.

    python bench/startup.py --model demo/model --runs 3 --idle 20

The request is sent again and again until the server answers it, as a client that cannot wait would.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import psutil


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds to watch the idle server")
    args = parser.parse_args()
    for run in range(args.runs):
        port = _free_port()
        started = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "zqserve", "--model", args.model, "--host", "127.0.0.1", "--port", str(port)],
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for_token(port, server)
            print(f"run {run}: first token after {time.perf_counter() - started:.2f} s", flush=True)
            if run == args.runs - 1:
                _watch_idle(server.pid, args.idle)
        finally:
            server.send_signal(signal.SIGTERM)
            print(f"run {run}: exit status {server.wait(60)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def _watch_idle(pid: int, seconds: float) -> None:
    parent = psutil.Process(pid)
    processes = [parent, *parent.children(recursive=True)]
    time.sleep(1.0)
    before = {p: sum(p.cpu_times()[:2]) for p in processes}
    time.sleep(seconds)
    total = 0.0
    for p in processes:
        used = sum(p.cpu_times()[:2]) - before[p]
        total += used
        name = f"{p.name()} {' '.join(p.cmdline()[1:3])}"
        memory = p.memory_full_info()
        sizes = f"{memory.pss / 2**20:.0f} MiB (resident {memory.rss / 2**20:.0f})"
        print(f"pid {p.pid} {name}: {sizes}, {used / seconds:.2%} of a core idle")
    memory = sum(p.memory_full_info().pss for p in processes) / 2**20
    print(f"all processes: {memory:.0f} MiB, shared pages counted once; {total / seconds:.2%} of a core idle")


if __name__ == "__main__":
    main()
