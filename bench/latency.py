"""Time to first token, between tokens, and tokens a second of any OpenAI-compatible server, at a rate or a concurrency.

    python -m bench latency --model demo/model --concurrency 1 8 32 --input 128 --output 128
    python -m bench latency --base-url http://127.0.0.1:8101 --tokenizer DIR --rate 2 4 8 --shared-prefixes 4 512

Prompts are random tokens of the server's tokenizer, answers greedy and of full length. Each run draws its own prompts,
so that no prefix cache answers one from another; the first requests warm up and are not counted. Figures are taken as
`vllm bench serve` takes them (`common/answers.py`).
"""

from __future__ import annotations

import argparse
from typing import Any

from zqserve.bench.common.load import Outcome, Pace, run_load
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.prompts import RandomPrompts, SharedPrefix
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.servers import Target, add_server_arguments, cpu_by_process, spent, target_of

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


def main() -> None:
    """Measure each pace that was asked for, some times each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32], help="requests at once")
    pace.add_argument("--rate", type=float, nargs="+", help="requests a second, with Poisson arrivals")
    add_request_arguments(parser)
    parser.add_argument("--shared-prefixes", type=int, nargs=2, metavar=("NUMBER", "TOKENS"), help="such as 4 512")
    parser.add_argument("--runs", type=int, default=1, help="of each pace")
    add_report_arguments(parser)
    args = parser.parse_args()
    shared = SharedPrefix(*args.shared_prefixes) if args.shared_prefixes else None
    paces: list[dict[str, Any]] = [{"concurrency": number} for number in args.concurrency]
    if args.rate:
        paces = [{"rate": rate} for rate in args.rate]
    rows: list[dict[str, Any]] = []
    with target_of(args) as target:
        prompts = RandomPrompts(target.tokenizer())
        for how in paces:
            for run in range(args.runs):
                seed = args.seed + 1000 * len(rows)
                pace_ = Pace(**how, seed=seed)
                outcome, cpu = measure(target, prompts, pace_, args, seed=seed, shared=shared)
                rows.append({"load": str(pace_), "run": run + 1} | outcome.row() | {"server CPU s": cpu})
    title = f"{args.input} tokens in, {args.output} out, from {target.model}"
    publish(Report(title, rows, _panels(rows, "requests a second" if args.rate else "requests at once")), args)


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """What each request asks for."""
    parser.add_argument("--input", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--requests", type=int, help="of a run; default: four times the concurrency, 64 at a rate")
    parser.add_argument("--warm-up", type=int, default=2, help="requests before each run, which are not counted")
    parser.add_argument("--endpoint", choices=PATHS, default="completions")
    parser.add_argument("--token-ids", action="store_true", help="send prompts as token ids, not as text")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--stop-at-eos", action="store_true", help="send no ignore_eos: answers may be shorter")
    parser.add_argument("--seed", type=int, default=1)


def measure(
    target: Target,
    prompts: RandomPrompts,
    pace: Pace,
    args: argparse.Namespace,
    *,
    seed: int,
    shared: SharedPrefix | None = None,
) -> tuple[Outcome, float | None]:
    """One run at a pace, and the processor seconds of the server, where its process is known.

    args: of `add_request_arguments`.
    """
    number = args.requests or (64 if pace.concurrency is None else max(8, 4 * pace.concurrency))
    path = PATHS[args.endpoint]
    if args.warm_up:
        bodies = request_bodies(target, prompts, args, args.warm_up, seed=seed + 500_000)
        run_load(target.base_url, path, bodies, Pace(concurrency=max(args.warm_up, 1)))
    bodies = request_bodies(target, prompts, args, number, seed=seed, shared=shared)
    before = None if target.pid is None else cpu_by_process(target.pid)
    outcome = run_load(target.base_url, path, bodies, pace)
    if before is None or target.pid is None:
        return outcome, None
    return outcome, round(sum(spent(before, cpu_by_process(target.pid)).values()), 3)


def request_bodies(
    target: Target,
    prompts: RandomPrompts,
    args: argparse.Namespace,
    number: int,
    *,
    seed: int,
    shared: SharedPrefix | None = None,
) -> list[dict[str, Any]]:
    """The bodies of a run's requests, as the arguments of `add_request_arguments` want them."""
    draw = prompts.token_ids if args.token_ids else prompts.texts
    common: dict[str, Any] = {
        "model": target.model,
        "max_tokens": args.output,
        "temperature": args.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if not args.stop_at_eos:
        common["ignore_eos"] = True
    found = draw(number, args.input, seed=seed, shared=shared)
    if args.endpoint == "chat":
        return [common | {"messages": [{"role": "user", "content": prompt}]} for prompt in found]
    return [common | {"prompt": prompt} for prompt in found]


def _panels(rows: list[dict[str, Any]], x_label: str) -> list[Panel]:
    """Speed and latency over the load."""
    loads = [float(row["load"].split("/")[0].split()[0]) for row in rows]

    def line(value: Any) -> list[tuple[float, float]]:
        return [(load, value(row)) for load, row in zip(loads, rows, strict=True)]

    panels = [Panel("Throughput", "output tokens a second", x_label, {"": line(lambda row: row["tok/s"])}, log_x=True)]
    for name in ("TTFT ms", "TPOT ms", "E2E ms"):
        lines = {part: line(lambda row, name=name, part=part: row[name][part]) for part in ("p50", "p90", "p99")}
        panels.append(Panel(name.split()[0], "milliseconds", x_label, lines, log_x=True))
    return panels


if __name__ == "__main__":
    main()
