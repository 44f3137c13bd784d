"""Minutes of everything at once: is any request lost, and does anything grow?

    python -m bench soak 10 [--model demo/model] [--seed 1] [--users 24] [--json FILE]

Starts a server with two front-end workers. Users ask for every kind of answer (`common/mixed_load`) and leave now and
then at random times: while queued, while a grammar compiles, in the middle of a stream. Crowds come, keys ask for more
than they may, and requests are wrong. The engine is killed about once a minute at a random time, and a front-end worker
once. In the last two fifths nobody is killed, so that it shows whether a process grows: by a line through its memory
(PSS) in that time, see `common/process_sizes.growth_mib`.

Each request is greedy or seeded and was asked for before on the calm server: an answer that differs is lost. At the end
all that the client sent must have come to an end that it knows, and the server must have counted the same: by status in
`http_requests_total`, which both workers keep in files that outlive them (499 where a client left before an answer
began). What cannot be known are the statuses that a client did not wait for. The engine's own counters begin anew with
each engine, so only what is nought when it is idle is looked at. The exit status is 1 when something is lost or left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from zqserve.bench.common.accounted_client import AccountedClient
from zqserve.bench.common.mixed_load import bad_requests, burst_request, good_requests, slow_grammar
from zqserve.bench.common.process_sizes import ProcessSize, growth_mib, process_sizes
from zqserve.bench.common.report import Report, Row, add_report_arguments, publish
from zqserve.bench.common.servers import free_port

NUM_WORKERS = 2
STARTUP_SECONDS = 600.0
ROW_SECONDS = 30.0
SAMPLE_SECONDS = 5.0
STEADY_SHARE = 0.4
"""Of the time, at its end, in which nobody is killed."""
SECONDS_BETWEEN_KILLS = 60.0
SECONDS_BETWEEN_CROWDS = 20.0
CROWD = 250
SETTLE_SECONDS = 120.0
MORE_FDS, MORE_THREADS = 4, 2
"""That a process may have more of at the end: a connection that is being closed, a pool's next thread."""
KEYS = """keys:
  - {name: free, key: key-free}
  - {name: slow, key: key-slow, requests_per_minute: 60}
  - {name: narrow, key: key-narrow, max_concurrent: 2}
"""
FLAGS = (
    *("--workers", str(NUM_WORKERS), "--task", "embedding", "--served-model-name", "demo", "--max-num-seqs", "32"),
    *("--kv-cache-memory", "16M", "--max-queued-requests", "120", "--max-engine-restarts", "1000"),
    *("--engine-timeout", "60", "--max-queue-time", "60"),
)


def main() -> int:
    """Run a soak; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, nargs="?", default=10.0)
    parser.add_argument("--model", default="demo/model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=24, help="that ask one request after another")
    parser.add_argument("--log", type=Path, help="where the server's log goes")
    add_report_arguments(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = args.log or Path(folder, "log")
        keys = Path(folder, "keys.yaml")
        keys.write_text(KEYS, encoding="utf-8")
        with _server(args.model, keys, log) as (process, port):
            soak = Soak(process.pid, port, random.Random(args.seed), 60 * args.minutes, args.users)
            asyncio.run(soak.run())
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
        problems = soak.problems()
        if status:
            problems.append(f"the server ended with status {status} on SIGTERM")
        if tracebacks := log.read_text(errors="replace").count("Traceback"):
            problems.append(f"there are {tracebacks} tracebacks in the server's log")
    publish(Report(f"Soak of {args.minutes:g} minutes", soak.rows, notes=[*soak.notes(), *_verdict(problems)]), args)
    return int(bool(problems))


@contextmanager
def _server(model: str, keys: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that answers; killed at the end of the block if it still runs."""
    port = free_port()
    command = [sys.executable, "-m", "zqserve", "--model", model, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--api-keys-file", str(keys), *FLAGS], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not _is_healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass
class Idle:
    """The server with nothing to do: what it still has."""

    sizes: list[ProcessSize]
    metrics: dict[str, float]
    """Of the engine."""
    workers: dict[int, dict[str, float]]
    """What each front-end worker holds, by its process id."""

    @property
    def is_empty(self) -> bool:
        """Whether nobody asks for anything and all workers are there."""
        held = ("open_requests", "queued_requests", "live_requests", "compilations")
        engine = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return (
            len(self.workers) == NUM_WORKERS
            and not any(figures[name] for figures in self.workers.values() for name in held)
            and not any(self.metrics[name] for name in engine)
        )

    def by_role(self) -> dict[str, list[ProcessSize]]:
        roles: dict[str, list[ProcessSize]] = {}
        for size in self.sizes:
            roles.setdefault(size.role, []).append(size)
        return roles


@dataclass
class Soak:
    """One run."""

    pid: int
    """Of the launcher."""
    port: int
    dice: random.Random
    seconds: float
    num_users: int
    rows: list[Row] = field(default_factory=list)
    samples: dict[int, list[ProcessSize]] = field(default_factory=dict)
    """By process, in the time in which nobody is killed."""
    num_engine_kills: int = 0
    num_worker_kills: int = 0
    before: Idle | None = None
    after: Idle | None = None
    served: Counter[int] = field(default_factory=Counter)
    """POST requests that the server has counted, by status."""
    _started: float = 0.0

    async def run(self) -> None:
        self.client = AccountedClient("127.0.0.1", self.port)
        self.good, self.bad = good_requests(), bad_requests()
        for request in self.good:
            await self.client.learn(request, "key-free")
        await self._load(min(15.0, self.seconds / 4), (self._users,))  # caches fill, and every process has begun
        self.before = await self._when_idle()
        self._started = time.monotonic()
        await self._load(self.seconds, (self._users, self._crowds, self._kills, self._table, self._sampling))
        self.after = await self._when_idle()
        self._add_row()
        self.served = Counter(
            {
                int(status): int(count)
                for status, count in _sum_by(
                    await self._metrics(), r'http_requests_total{[^}]*method="POST"[^}]*status="(\d+)"'
                ).items()
            }
        )

    async def _load(self, seconds: float, parts: tuple[Callable[[float], object], ...]) -> None:
        """All parts at the same time, each until the end and then until what it asked for has come to its end."""
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part(end))  # pyright: ignore[reportArgumentType]

    async def _users(self, end: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.num_users):
                group.create_task(self._user(number, end))

    async def _user(self, number: int, end: float) -> None:
        key = {0: "key-slow", 1: "key-narrow", 2: "key-narrow", 3: "key-narrow"}.get(number, "key-free")
        dice = random.Random(self.dice.random())
        while time.monotonic() < end:
            kind, leave_after = dice.random(), None
            if dice.random() < 0.25:
                leave_after = dice.choice((0.001, 0.02, dice.expovariate(5.0), dice.expovariate(1.0))) or 0.001
            if kind < 0.12:
                request = dice.choice(self.bad)
            elif kind < 0.15:
                request, leave_after = slow_grammar(dice.randrange(10**9)), dice.uniform(0.02, 1.0)
            else:
                request = dice.choice(self.good)
            await self.client.ask(request, key, leave_after=leave_after)
            if key != "key-free":
                await asyncio.sleep(dice.uniform(0.0, 0.5))  # most of it is refused, at once

    async def _crowds(self, end: float) -> None:
        while time.monotonic() < end - SECONDS_BETWEEN_CROWDS / 2:
            await asyncio.sleep(self.dice.uniform(0.5, 1.5) * SECONDS_BETWEEN_CROWDS / 2)
            async with asyncio.TaskGroup() as group:
                for number in range(CROWD):
                    group.create_task(self.client.ask(burst_request(number % 10), "key-free"))

    async def _kills(self, end: float) -> None:
        """The engine again and again, a worker once."""
        last = end - STEADY_SHARE * self.seconds
        kill_worker_at = time.monotonic() + self.dice.uniform(0.3, 0.9) * (last - time.monotonic())
        next_kill = self._next_kill()
        while time.monotonic() < last:
            await asyncio.sleep(0.05)
            if not self.num_worker_kills and time.monotonic() > kill_worker_at:
                worker = self.dice.choice(self._processes("worker"))
                self.num_worker_kills += 1
                worker.kill()
                self.client.worker_deaths.append(time.perf_counter())
            if time.monotonic() > next_kill and (engines := self._processes("engine")):
                engines[0].kill()
                self.num_engine_kills += 1
                next_kill = self._next_kill()

    def _next_kill(self) -> float:
        mean = min(SECONDS_BETWEEN_KILLS, self.seconds / 6)
        return time.monotonic() + self.dice.uniform(0.3, 1.7) * mean

    async def _table(self, end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(max(0.0, min(ROW_SECONDS, end - time.monotonic())))
            self._add_row()
            print(" ".join(f"{name} {value}" for name, value in self.rows[-1].items()), file=sys.stderr, flush=True)

    async def _sampling(self, end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(SAMPLE_SECONDS)
            if not self._processes("launcher"):
                raise SystemExit("The server has ended; its log says why (--log FILE keeps it).")
            if time.monotonic() > end - STEADY_SHARE * self.seconds:
                for size in await asyncio.to_thread(process_sizes, self.pid):
                    self.samples.setdefault(size.pid, []).append(size)

    def _add_row(self) -> None:
        tally, sizes = self.client.tally, process_sizes(self.pid)
        row: dict[str, object] = {
            "s": round(time.monotonic() - self._started),
            "sent": tally.num_sent,
            "finished": tally.finished,
            "left": tally.left,
            **{f"{status}": tally.refused[status] for status in (400, 404, 429, 503)},
            "cut": tally.cut,
            "lost": tally.lost,
            "open": tally.num_sent - tally.num_ended,
            "kills": self.num_engine_kills + self.num_worker_kills,
            "processes": len(sizes),
        }
        for role in ("engine", "worker", "launcher", "fork server"):
            of_role = [size for size in sizes if size.role == role]
            row[f"{role} MiB"] = round(sum(size.pss_mib for size in of_role))
        row["fds"] = sum(size.num_fds for size in sizes)
        row["threads"] = sum(size.num_threads for size in sizes)
        self.rows.append(row)

    async def _when_idle(self) -> Idle:
        """The server once nothing is left to do; as it is after a time if it does not come to that."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            idle = await self._look()
            if idle.is_empty or time.monotonic() > deadline:
                await asyncio.sleep(3.0)  # helpers that were killed are gone by then, and the last connections closed
                return await self._look()
            await asyncio.sleep(0.5)

    async def _look(self) -> Idle:
        workers: dict[int, dict[str, float]] = {}
        text = ""
        for _ in range(60):  # the kernel says which worker gets a connection
            text = await self._metrics()
            found = re.findall(r'^vllm:worker_(\w+){[^}]*pid="(\d+)"} (\S+)$', text, re.MULTILINE)
            for name, pid, value in found:
                workers.setdefault(int(pid), {})[name] = float(value)
            if len(workers) == NUM_WORKERS:
                break
        engine = re.findall(r'^vllm:(\w+){model_name="demo"} (\S+)$', text, re.MULTILINE)
        return Idle(process_sizes(self.pid), {name: float(value) for name, value in engine}, workers)

    async def _metrics(self) -> str:
        async with httpx.AsyncClient(timeout=30, headers={"authorization": "Bearer key-free"}) as client:
            response = await client.get(f"http://127.0.0.1:{self.port}/metrics")
        return response.raise_for_status().text

    def _processes(self, role: str) -> list[psutil.Process]:
        return [psutil.Process(size.pid) for size in process_sizes(self.pid) if size.role == role]

    def problems(self) -> list[str]:
        """What is lost, left over, or grows."""
        assert self.before is not None
        assert self.after is not None
        return [*self._lost(), *self._miscounted(), *self._left_over(self.before, self.after), *self._growing()]

    def _lost(self) -> Iterator[str]:
        tally = self.client.tally
        if tally.num_sent != tally.num_ended:
            yield f"{tally.num_sent} requests were sent, and {tally.num_ended} have come to an end"
        for loss in tally.losses:
            yield f"lost: {loss}"

    def _miscounted(self) -> Iterator[str]:
        """The server has counted each status that a client saw, and no more than clients did not wait for."""
        tally = self.client.tally
        for status, number in sorted(tally.statuses.items()):
            if self.served[status] < number:
                yield f"clients saw the status {status} {number} times, and the server counts {self.served[status]}"
        unseen = self.served.total() - tally.statuses.total()
        if unseen > tally.num_without_status:
            yield f"{unseen} answers were counted that no client saw, and {tally.num_without_status} did not wait"

    def _left_over(self, before: Idle, after: Idle) -> Iterator[str]:
        if not after.is_empty:
            yield f"the idle server still has work: {after.workers}, {after.metrics}"
        restarts, violations = (after.metrics[f"engine_{name}_total"] for name in ("restarts", "invariant_violations"))
        if restarts != self.num_engine_kills:
            yield f"{restarts:.0f} engines were restarted, and {self.num_engine_kills} were killed"
        if violations:
            yield f"the accounts of {violations:.0f} engines contradicted themselves"
        most_tasks = max(figures["tasks"] for figures in before.workers.values())
        for pid, figures in after.workers.items():
            if figures["tasks"] > most_tasks:
                yield f"worker {pid} has {figures['tasks']:.0f} tasks when idle, and had {most_tasks:.0f}"
        roles = before.by_role()
        for role, sizes in after.by_role().items():
            had = roles.get(role, [])
            if role in ("engine", "worker", "launcher", "fork server") and len(sizes) != len(had):
                yield f"there are {len(sizes)} processes of the role {role}, and there were {len(had)}"
            for size in sizes if had else []:
                for name, slack in (("num_fds", MORE_FDS), ("num_threads", MORE_THREADS)):
                    most = max(getattr(other, name) for other in had)
                    if getattr(size, name) > most + slack:
                        yield f"{role} {size.pid} has {name} {getattr(size, name)} when idle, and had {most}"

    def _growing(self) -> Iterator[str]:
        for samples in self.samples.values():
            growth = growth_mib(samples)
            if growth is not None:
                seconds = samples[-1].time - samples[0].time
                yield f"{samples[0].role} {samples[0].pid} has grown by {growth:.1f} MiB within {seconds:.0f} s"

    def notes(self) -> list[str]:
        """What the table does not show."""
        assert self.before is not None
        assert self.after is not None
        tally = self.client.tally
        accounts = (
            f"sent {tally.num_sent} = finished {tally.finished} + refused {tally.refused.total()} + left {tally.left} "
            f"+ cut {tally.cut} + lost {tally.lost}"
        )
        counted = ", ".join(f"{status}: {number}" for status, number in sorted(self.served.items()))
        seen = ", ".join(f"{status}: {number}" for status, number in sorted(tally.statuses.items()))
        lines = [
            accounts,
            f"statuses that clients saw: {seen}; without one {tally.num_without_status}; the server counts {counted}",
            f"killed: {self.num_engine_kills} engines, {self.num_worker_kills} workers; "
            f"requests resumed: {self.after.metrics['requests_resumed_total']:.0f}",
        ]
        for role, sizes in self.after.by_role().items():
            lines.append(f"idle, {role}: {_sizes(self.before.by_role().get(role, []))} -> {_sizes(sizes)}")
        tasks = [[int(figures["tasks"]) for figures in idle.workers.values()] for idle in (self.before, self.after)]
        lines.append(f"tasks of the workers when idle: {tasks[0]} -> {tasks[1]}")
        return lines


def _sizes(sizes: list[ProcessSize]) -> str:
    return " and ".join(
        f"{size.pss_mib:.0f} MiB (resident {size.rss_mib:.0f}), {size.num_fds} fds, {size.num_threads} threads"
        for size in sizes
    )


def _verdict(problems: list[str]) -> list[str]:
    return [f"PROBLEM: {problem}" for problem in problems] or ["Nothing is lost, left over or growing."]


def _sum_by(text: str, pattern: str) -> Counter[str]:
    """The values of a metric's lines, added up by what the pattern's group says."""
    found: Counter[str] = Counter()
    for label, value in re.findall(rf"^{pattern}[^}}]*}} (\S+)$", text, re.MULTILINE):
        found[label] += int(float(value))
    return found


def _is_healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
