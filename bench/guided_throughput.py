"""Guided beside free output: how many output tokens a second of the engine a constraint costs, or wins.

    python bench/guided_throughput.py --model demo/model

For each case, all requests run guided and free in turns, the free ones with the lengths of the guided ones, so that
both do the same work and what else the machine does meets both alike. A ratio above 1 says that guided is faster.
The ratio of seconds is the median of all rounds; that of processor time compares the least of each, and is the one to
trust where other things run beside. Answers are sampled with temperature 1: a model with random weights follows no
pattern, and so takes the longest way through each constraint.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.messages import EngineRequest, Grammar
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.engine_core.tokenizer import load_tokenizer
from zqserve.server.constraints.constraint import Constraint
from zqserve.server.constraints.grammar_worker import compile_constraint
from zqserve.server.engine_link.model_info import load_model_info

PROMPT = "{}: Describe a character of a role playing game, as a record with name, age and armor."
CHARACTER = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
        "armor": {"enum": ["leather", "chainmail", "plate"]},
        "weapon": {"enum": ["sword", "axe", "mace", "spear", "bow", "crossbow"]},
        "strength": {"type": "integer", "minimum": 1, "maximum": 100},
    },
    "required": ["name", "age", "armor", "weapon", "strength"],
    "additionalProperties": False,
}
LIST = {"type": "array", "items": CHARACTER, "minItems": 60}
CASES = {
    "free text": Constraint(param="", kind="regex", text=r"[\s\S]*"),
    "numbers": Constraint(param="", kind="regex", text=r"(\d{1,5}, ){400}"),
    "character": Constraint(param="", kind="json", text=json.dumps(CHARACTER)),
    "character, no white space": Constraint(param="", kind="json", text=json.dumps(CHARACTER), any_whitespace=False),
    "characters": Constraint(param="", kind="json", text=json.dumps(LIST)),
}


@dataclass(frozen=True)
class Batch:
    """The requests of one run."""

    prompts: Sequence[Sequence[int]]
    eos_token_ids: Sequence[int]
    concurrency: int
    max_tokens: int


@dataclass(frozen=True)
class Run:
    """What one run took."""

    lengths: list[int]
    num_steps: int
    seconds: float
    cpu_seconds: float

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--requests", type=int, default=64, help="of each run")
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--num-threads", type=int, help="of the model")
    add_report_arguments(parser)
    args = parser.parse_args()
    info = load_model_info(args.model)
    tokenizer = load_tokenizer(args.model)
    prompts = [tokenizer.encode(PROMPT.format(number)) for number in range(args.requests)]
    batch = Batch(prompts, info.eos_token_ids, args.concurrency, args.max_tokens)
    rows: list[dict[str, Any]] = []
    for jump_ahead in (True, False):
        config = EngineConfig(
            model=args.model, jump_ahead=jump_ahead, enable_prefix_caching=False, num_threads=args.num_threads
        )
        core = build_engine_core(config, progress=lambda line: None)
        is_ready = threading.Event()
        core.prepare_guided_decoding(when_done=is_ready.set)
        is_ready.wait()
        for name in args.cases:
            jump = {"case": name, "jump": "on" if jump_ahead else "off"}
            rows.append(jump | compare(core, batch, CASES[name], args.rounds))
    bars = {f"{row['case']}, jump {row['jump']}": row["free/guided seconds"] for row in rows}
    panel = Panel("Guided over free", "times as fast", bars=bars)
    publish(Report(f"Guided beside free, {args.concurrency} at once", rows, [panel]), args)


def compare(core: EngineCore, batch: Batch, constraint: Constraint, num_rounds: int) -> dict[str, Any]:
    """The row of a case, behind its name."""
    grammar = Grammar(constraint.content_key(), compile_constraint(constraint))
    run(core, batch, grammar, seed=0)
    run(core, batch, None, seed=0)
    before = core.stats()
    guided: list[Run] = []
    free: list[Run] = []
    for number in range(num_rounds):
        seed = 1000 * (1 + number)
        guided.append(run(core, batch, grammar, seed))
        free.append(run(core, batch, None, seed, guided[-1].lengths))
    after = core.stats()
    num_tokens = sum(one.num_tokens for one in guided)
    ratios = [other.seconds / one.seconds for one, other in zip(guided, free, strict=True)]
    cpu = _least(free) / _least(guided)
    return {
        "tokens/answer": num_tokens / num_rounds / len(batch.prompts),
        "forced": f"{(after.num_forced_tokens - before.num_forced_tokens) / num_tokens:.0%}",
        "guided steps": sum(one.num_steps for one in guided),
        "free steps": sum(one.num_steps for one in free),
        "free/guided seconds": median(ratios),
        "range": f"{min(ratios):.2f}..{max(ratios):.2f}",
        "free/guided processor time": cpu,
        "late masks": after.num_late_masks - before.num_late_masks,
    }


def run(core: EngineCore, batch: Batch, grammar: Grammar | None, seed: int, lengths: Sequence[int] = ()) -> Run:
    """All requests, as many at once as `batch` says. lengths: of the answers, where they are given.

    Raises RuntimeError when a request fails.
    """
    found = [0] * len(batch.prompts)
    num_begun = num_live = num_steps = 0
    seconds, cpu_seconds = time.perf_counter(), time.process_time()
    while num_begun < len(found) or num_live:
        while num_live < batch.concurrency and num_begun < len(found):
            max_tokens = lengths[num_begun] if lengths else batch.max_tokens
            params = SamplingParams(temperature=1.0, seed=seed + num_begun, max_tokens=max_tokens, ignore_eos=True)
            core.add_request(
                EngineRequest(
                    key=num_begun,
                    prompt_token_ids=list(batch.prompts[num_begun]),
                    params=params,
                    eos_token_ids=list(batch.eos_token_ids),
                    grammar=grammar,
                )
            )
            num_begun += 1
            num_live += 1
        for output in core.step().get(b"", []):
            if output.error is not None:
                raise RuntimeError(output.error)
            found[output.key] += len(output.token_ids)
            num_live -= output.finish_reason is not None
        num_steps += 1
    return Run(found, num_steps, time.perf_counter() - seconds, time.process_time() - cpu_seconds)


def _least(runs: Sequence[Run]) -> float:
    """Processor seconds a token; runs of one case differ a little in length."""
    return min(one.cpu_seconds / one.num_tokens for one in runs)


if __name__ == "__main__":
    main()
