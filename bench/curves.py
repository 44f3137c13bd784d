"""How costs grow: of a step with batch, context and queue, and of the front-end with connected clients.

    python -m bench curves --model demo/model --plot curves.png

Scheduling is measured with a runner that computes nothing, the front-end with an engine that computes nothing, both in
processor time; steps of the model in seconds. What is not flat, or a line of small slope, is a defect: the last column
says how much each further one (sequence, token, waiting request, client) costs, over the whole curve.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from math import nan
from statistics import fmean, median
from typing import Any

from zqserve.bench.common.echo_engine import IDLE
from zqserve.bench.common.load import Pace, run_load
from zqserve.bench.common.null_runner import add_requests, null_core
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.prompts import RandomPrompts
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.servers import cpu_by_process, settle, spent
from zqserve.bench.frontend import echo_server
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.messages import StepOutputs
from zqserve.engine_core.wire import pack

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192)
QUEUES = (1, 10, 100, 500, 1000, 2000, 5000)
CLIENTS = (1, 10, 100, 250, 500, 1000)
USUAL_BATCH = 32
USUAL_CONTEXT = 256
ACTIVE_STREAMS = 8
STEPS_PER_SECOND = 50.0

Cost = tuple[float, float]
"""Of a step: the mean, and the worst of all."""
Points = list[tuple[float, Cost]]


def main() -> None:
    """Measure the curves that were asked for."""
    curves: dict[str, tuple[str, str, Callable[[argparse.Namespace], Iterator[tuple[float, Cost]]]]] = {
        "scheduler/batch": ("sequences that run", "µs", _scheduler_over_batch),
        "scheduler/context": ("tokens of context", "µs", _scheduler_over_context),
        "scheduler/queue": ("requests that wait", "µs", _scheduler_over_queue),
        "model/batch": ("sequences that run", "ms", _model_over_batch),
        "model/context": ("tokens of context", "ms", _model_over_context),
        "frontend/streams": ("streams that run", "µs", _frontend_over_streams),
        "frontend/clients": ("streams that wait", "µs", _frontend_over_clients),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo/model", help="directory")
    parser.add_argument("--curves", nargs="+", choices=curves, default=list(curves), metavar="CURVE")
    parser.add_argument("--steps", type=int, default=64, help="of each point; the front-end takes four times as many")
    add_report_arguments(parser)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    panels: list[Panel] = []
    for name in args.curves:
        x_label, unit, measure = curves[name]
        points = list(measure(args))
        rows += [
            {"curve": name, "at": int(x), "a step": mean, "worst step": worst, "unit": unit}
            for x, (mean, worst) in points
        ]
        rows[-1]["for each further"] = f"{1000 * _slope(points):.4g} {'ns' if unit == 'µs' else 'µs'}"
        panels.append(Panel(name, f"{unit} a step", x_label, {"": [(x, mean) for x, (mean, _) in points]}))
    publish(Report("Cost of a step", rows, panels), args)


def _slope(points: Points) -> float:
    """Of the line from the first point to the last one."""
    (first_x, (first_y, _)), (last_x, (last_y, _)) = points[0], points[-1]
    return (last_y - first_y) / (last_x - first_x) if last_x > first_x else 0.0


def _scheduler_over_batch(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    for batch in BATCHES:
        core = null_core(max_num_seqs=batch, context=USUAL_CONTEXT + args.steps + 16)
        add_requests(core, batch, prompt_tokens=USUAL_CONTEXT, max_tokens=args.steps + 8)
        yield batch, _scheduling_microseconds(core, args.steps)


def _scheduler_over_context(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    for context in CONTEXTS:
        core = null_core(max_num_seqs=USUAL_BATCH, context=context + args.steps + 16)
        add_requests(core, USUAL_BATCH, prompt_tokens=context, max_tokens=args.steps + 8)
        yield context, _scheduling_microseconds(core, args.steps)


def _scheduler_over_queue(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    for queue in QUEUES:
        core = null_core(max_num_seqs=USUAL_BATCH, context=USUAL_CONTEXT + args.steps + 16)
        add_requests(core, USUAL_BATCH + queue, prompt_tokens=USUAL_CONTEXT, max_tokens=args.steps + 8)
        yield queue, _scheduling_microseconds(core, args.steps)


def _scheduling_microseconds(core: EngineCore, num_steps: int) -> Cost:
    """Processor time of a step and of the message that tells of it, with what `core` has been given."""
    core.step()
    found: list[float] = []
    for _ in range(num_steps):
        started = time.thread_time_ns()
        outputs = core.step()
        stats = core.stats()
        for client_outputs in outputs.values():
            pack(StepOutputs(client_outputs, stats))
        found.append((time.thread_time_ns() - started) / 1000)
    return fmean(found), max(found)


def _model_over_batch(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    core = build_engine_core(EngineConfig(model=args.model, max_num_seqs=BATCHES[-1]), progress=lambda line: None)
    for number, batch in enumerate(BATCHES):
        yield batch, _model_milliseconds(core, batch, 128, args.steps, first_key=1000 * number)


def _model_over_context(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    core = build_engine_core(EngineConfig(model=args.model), progress=lambda line: None)
    for number, context in enumerate(CONTEXTS):
        if context + args.steps + 8 <= core.max_model_len:
            yield context, _model_milliseconds(core, 1, context, args.steps, first_key=1000 * number)


def _model_milliseconds(core: EngineCore, batch: int, context: int, num_steps: int, *, first_key: int) -> Cost:
    """Of a decode step."""
    add_requests(core, batch, prompt_tokens=context, max_tokens=num_steps + 4, first_key=first_key)
    begun: set[int] = set()
    while len(begun) < batch:
        begun.update(output.key for output in core.step().get(b"", []))
    found: list[float] = []
    while core.has_unfinished():
        started = time.perf_counter()
        core.step()
        found.append(1000 * (time.perf_counter() - started))
    core.reset_prefix_cache()
    return median(found), max(found)


def _frontend_over_streams(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    with echo_server(args.model, STEPS_PER_SECOND) as target:
        assert target.pid is not None
        prompts = RandomPrompts(target.tokenizer())
        for streams in BATCHES:
            bodies = _bodies(args, prompts, streams, max_tokens=4 * args.steps)
            run_load(target.base_url, "/v1/completions", bodies[:1], Pace(concurrency=1))
            settle(target.pid)
            yield streams, _frontend_microseconds(target.base_url, target.pid, bodies)


def _frontend_over_clients(args: argparse.Namespace) -> Iterator[tuple[float, Cost]]:
    """A few streams run while many others wait for their first token."""
    with echo_server(args.model, STEPS_PER_SECOND) as target:
        assert target.pid is not None
        prompts = RandomPrompts(target.tokenizer())
        waiting: list[threading.Thread] = []
        num_waiting = 0
        for clients in CLIENTS:
            number = clients - num_waiting
            idle = [body | {"cache_salt": IDLE} for body in _bodies(args, prompts, number, max_tokens=2)]
            load = (target.base_url, "/v1/completions", idle, Pace(concurrency=number))
            waiting.append(threading.Thread(target=run_load, args=load, daemon=True))
            waiting[-1].start()
            num_waiting = clients
            bodies = _bodies(args, prompts, ACTIVE_STREAMS, max_tokens=4 * args.steps)
            run_load(target.base_url, "/v1/completions", bodies[:1], Pace(concurrency=1))
            settle(target.pid)
            yield clients, _frontend_microseconds(target.base_url, target.pid, bodies)
    for thread in waiting:
        thread.join()


def _bodies(args: argparse.Namespace, prompts: RandomPrompts, number: int, *, max_tokens: int) -> list[dict[str, Any]]:
    common = {"model": args.model, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return [common | {"prompt": prompt} for prompt in prompts.token_ids(number, 16, seed=number)]


def _frontend_microseconds(base_url: str, pid: int, bodies: list[dict[str, Any]]) -> Cost:
    """Processor time of all front-end processes for one step of these streams."""
    before = cpu_by_process(pid)
    outcome = run_load(base_url, "/v1/completions", bodies, Pace(concurrency=len(bodies)))
    used = spent(before, cpu_by_process(pid))
    errors = [answer.error for answer in outcome.answers if answer.error is not None]
    if errors:
        raise SystemExit(f"{len(errors)} of {len(bodies)} streams failed: {errors[0]}")
    num_steps = max(answer.num_tokens for answer in outcome.answers)
    mean = 1e6 * sum(seconds for name, seconds in used.items() if "echo-engine" not in name) / num_steps
    return mean, nan


if __name__ == "__main__":
    main()
