"""Guided beside free chat on any OpenAI-compatible server: what a schema costs, and the first token under a new one.

    python -m bench guided --model demo/model
    python -m bench guided --base-url http://127.0.0.1:8101 --concurrency 16

Each round sends the same requests with `response_format` and without, in turns. Tokens a second compare the two at the
lengths that answers happen to have; TPOT is a token's own cost. The first answer under a schema that the server has
never seen includes its compilation. `guided_throughput` measures the engine alone.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import Any

from zqserve.bench.common.answers import Answer
from zqserve.bench.common.load import Outcome, Pace, run_load
from zqserve.bench.common.percentiles import summary
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.bench.common.servers import Target, add_server_arguments, target_of

PATH = "/v1/chat/completions"


def main() -> None:
    """Free and guided chat in turns, then new schemas one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64, help="of a run")
    parser.add_argument("--output", type=int, default=96, help="most tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-schemas", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    add_report_arguments(parser)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with target_of(args) as target:
        warm_up = [_body(target, args, 0, schema) for schema in (None, _schema("warm"))]
        run_load(target.base_url, PATH, warm_up, Pace(concurrency=1))
        for run in range(args.rounds):
            for kind, schema in (("free", None), ("guided", _schema("name"))):
                bodies = [_body(target, args, 1000 * run + number, schema) for number in range(args.requests)]
                outcome = run_load(target.base_url, PATH, bodies, Pace(concurrency=args.concurrency))
                rows.append({"chat": kind, "run": run + 1} | outcome.row() | _validity(outcome, schema))
        new = [_first_answer(target, args, number) for number in range(args.new_schemas)]
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    ratio = median(free["TPOT ms"]["mean"] / guided["TPOT ms"]["mean"] for free, guided in pairs)
    waits = summary([answer.ttft for answer in new if answer.error is None], 1000)
    notes = [
        f"Guided over free, median of rounds: {ratio:.3f} as many tokens a second within a stream",
        f"First token under a new schema, alone: {waits['p50']:.1f} ms (p50), {waits['p99']:.1f} ms (p99)",
    ]
    bars = {f"{row['chat']} {row['run']}": row["tok/s"] for row in rows}
    panels = [
        Panel("Throughput", "output tokens a second", bars=bars),
        Panel("First token, new schema", "milliseconds", bars=waits),
    ]
    publish(Report(f"Guided and free chat, {args.concurrency} at once", rows, panels, notes), args)


def _schema(name: str) -> dict[str, Any]:
    """A record; `name` makes it new to the server."""
    return {
        "type": "object",
        "properties": {
            name: {"type": "string", "maxLength": 16},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
            "armor": {"enum": ["leather", "chainmail", "plate"]},
            "strength": {"type": "integer", "minimum": 1, "maximum": 100},
        },
        "required": [name, "age", "armor", "strength"],
        "additionalProperties": False,
    }


def _body(target: Target, args: argparse.Namespace, number: int, schema: dict[str, Any] | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": target.model,
        "messages": [{"role": "user", "content": f"Describe character {number} of a role playing game as JSON."}],
        "max_tokens": args.output,
        "temperature": 1.0,
        "seed": args.seed + number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if schema is None:
        return body
    return body | {"response_format": {"type": "json_schema", "json_schema": {"name": "record", "schema": schema}}}


def _first_answer(target: Target, args: argparse.Namespace, number: int) -> Answer:
    body = _body(target, args, number, _schema(f"name_{args.seed}_{number}"))
    return run_load(target.base_url, PATH, [body], Pace(concurrency=1)).answers[0]


def _validity(outcome: Outcome, schema: dict[str, Any] | None) -> dict[str, Any]:
    """How many of the guided answers that ended by themselves are records."""
    if schema is None:
        return {}
    ended = [answer for answer in outcome.good if answer.finish_reason == "stop"]
    return {"ended": len(ended), "records": sum(_is_record(answer.text, schema) for answer in ended)}


def _is_record(text: str, schema: dict[str, Any]) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and set(schema["required"]) <= set(value)


if __name__ == "__main__":
    main()
