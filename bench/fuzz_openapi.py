"""Asks a server what its own OpenAPI document allows and forbids, and looks for any answer that is not in there.

    nice -n 10 python -m bench.fuzz_openapi --cases 10000 --seed 1 [--model DIR] [--server-args FLAGS] [--key KEY]

Starts a server, reads its /openapi.json, and lets schemathesis try each operation: its examples, the borders of each
field (coverage), random cases (fuzzing), and, where operations lead to each other, chains of them (stateful). Rounds of
random cases with further seeds follow until there were --cases.

An answer must have a status, content type, body and headers of the document; what the document forbids must be refused;
nothing may be a 5xx. Prints JSON: the cases of each phase, their statuses, what failed (with a curl line each), and the
memory of the server's processes before and after each round. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from tests.running_server import API_KEY, RunningServer, start_server

PHASES = ("examples", "coverage", "fuzzing", "stateful")
SMALL = ("--kv-cache-memory", "64M", "--max-num-seqs", "64", "--override-generation-config", '{"max_new_tokens": 8}')
"""Flags of the server: most answers would be as long as the context otherwise."""
UNCHECKED = ["positive_data_acceptance"]
"""A request may have the form that the document asks for, and still say what makes no sense."""
UNAUTHORIZED = 401
"""Asked beside the cases: each that went well is tried without the key, and with a wrong one."""
NOT_IMPLEMENTED = 501
"""What paths that we know and do not serve answer, as their description says."""
FEW_ANSWERS, MOST_ANSWERS = 64, 16_384
"""Of one request: those that are tried, and those that the document allows."""
REQUEST_SECONDS = 120
MAX_TOLD = 50
"""Failures that are printed."""


@dataclass
class Findings:
    """What the rounds have brought."""

    cases: Counter[str] = field(default_factory=Counter)
    """By phase."""
    statuses: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)

    def take(self, event: events.ScenarioFinished) -> None:
        """Count what one operation, or one chain, was asked."""
        recorder = event.recorder
        for id, interaction in recorder.interactions.items():
            status = interaction.response.status_code if interaction.response else "no answer"
            self.statuses[str(status)] += 1
            self.cases[event.phase.value] += status != UNAUTHORIZED
            for check in recorder.checks.get(id, ()):
                self.checks += 1
                info = check.failure_info
                if info is None or (check.name == "not_a_server_error" and status == NOT_IMPLEMENTED):
                    continue
                found = {"phase": event.phase.value, "operation": event.label or "", "check": check.name}
                self.failures.append({**found, "what": str(info.failure), "curl": info.code_sample})


def main() -> int:
    """Fuzz until there were enough cases; 1 when something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="at least so many in sum")
    parser.add_argument("--examples", type=int, default=20, help="random cases of each operation, in a round")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--workers", type=int, default=2, help="operations that are tried at once")
    parser.add_argument("--phases", default=",".join(PHASES), help="of the first round")
    parser.add_argument("--model", default="demo/model")
    parser.add_argument("--server-args", default="", metavar="FLAGS", help="more flags of the server, in one word")
    parser.add_argument("--key", default=API_KEY, help="shown with each request: one of a file in --server-args")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # and end the server
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(
            Path(folder, "log"), "--model", str(Path(args.model).resolve()), *SMALL, *shlex.split(args.server_args)
        )
        try:
            report = _report(server, args)
        finally:
            status = server.stop()
        report |= {"exit status": status, "tracebacks in the log": server.log.read_text().count("Traceback")}
    print(json.dumps(report, indent=1))
    return int(bool(report["failures"] or not report["alive"] or report["tracebacks in the log"]))


def _report(server: RunningServer, args: argparse.Namespace) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {args.key}"}
    answer = httpx.get(f"{server.url}/openapi.json", headers=headers, timeout=REQUEST_SECONDS)
    document = answer.raise_for_status().json()
    found, begun = Findings(), time.monotonic()
    memory = [_memory(server.process.pid)]
    seed, phases = args.seed, args.phases.split(",")
    while sum(found.cases.values()) < args.cases:
        before = sum(found.cases.values())
        _round(document, server.url, found, args, seed=seed, phases=phases)
        memory.append(_memory(server.process.pid))
        seed, phases = seed + 1, ["fuzzing"]
        if sum(found.cases.values()) == before:
            break
    return {
        "operations": sum(len(methods) for methods in document["paths"].values()),
        "cases": {**found.cases, "in sum": sum(found.cases.values())},
        "rounds": seed - args.seed,
        "statuses": dict(sorted(found.statuses.items())),
        "checks": found.checks,
        "failures": len(found.failures),
        "failed": found.failures[:MAX_TOLD],
        "alive": httpx.get(f"{server.url}/health", timeout=REQUEST_SECONDS).status_code == 200,
        "memory MiB": memory,
        "seconds": round(time.monotonic() - begun),
    }


def _round(
    document: dict[str, Any], base_url: str, found: Findings, args: argparse.Namespace, *, seed: int, phases: list[str]
) -> None:
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": base_url,
            "auth": {"openapi": {"apiKey": {"bearer": args.key}}},
            "workers": args.workers,
            "request-timeout": REQUEST_SECONDS,
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
            "phases": {name: {"enabled": name in phases} for name in PHASES},
            "checks": {name: {"enabled": False} for name in UNCHECKED},
            "generation": {
                "max-examples": args.examples,
                "no-shrink": True,
                "database": "none",
                "with-security-parameters": False,
            },
            "output": {"sanitization": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)

    @schema.hook
    def filter_case(context: object, case: schemathesis.Case) -> bool:
        return not _asks_for_crowds(case.body)

    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished():
                found.take(event)
                print(event.phase.value, event.label, sum(found.cases.values()), file=sys.stderr)
            case events.NonFatalError():
                found.failures.append({"phase": str(event.phase), "operation": event.label, "what": str(event.info)})
            case events.FatalError():
                raise event.exception
            case _:
                pass


def _asks_for_crowds(body: object) -> bool:
    """Whether a body that may be good asks for thousands of answers: those alone would take the whole time."""
    if not isinstance(body, dict):
        return False
    numbers = [body.get(name) for name in ("n", "best_of")]
    return any(isinstance(number, int) and FEW_ANSWERS < number <= MOST_ANSWERS for number in numbers)


def _memory(pid: int) -> dict[str, int]:
    """MiB that belong to each process of the server alone."""
    root = psutil.Process(pid)
    return {
        f"{process.name()} {process.pid}": process.memory_full_info().uss >> 20
        for process in [root, *root.children(recursive=True)]
    }


if __name__ == "__main__":
    sys.exit(main())
