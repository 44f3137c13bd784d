"""Output tokens a second of the offline engine, by batch size, and beside it with int8 weights, or plain transformers.

    python bench/offline.py --model demo/model --batch 1 8 32 --input 64 --output 64 [--quantization int8]
                            [--transformers]

Prompts are random tokens, answers greedy and of full length, so the work is the same for both.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zqserve import LLM, SamplingParams
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish
from zqserve.engine_core.config import Quantization


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--input", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quantization", choices=["int8"], help="run the engine with these weights too")
    parser.add_argument("--transformers", action="store_true", help="run transformers' generate too")
    add_report_arguments(parser)
    args = parser.parse_args()

    engines = {"zqserve": _zqserve(args.model, args.output)}
    if args.quantization is not None:
        engines[args.quantization] = _zqserve(args.model, args.output, args.quantization)
    if args.transformers:
        engines["transformers"] = _transformers(args.model, args.output)
    vocab_size = json.loads((Path(args.model) / "config.json").read_text())["vocab_size"]
    figures: list[dict[str, Any]] = []
    for batch in args.batch:
        row: dict[str, Any] = {"batch": batch}
        for name, generate in engines.items():
            # The best of some runs, taken in turns, is what the machine can do when nobody disturbs it.
            row[name] = max(
                _speed(generate, batch, args.input, args.output, vocab_size, run) for run in range(args.runs)
            )
        if args.quantization is not None:
            row["ratio"] = row[args.quantization] / row["zqserve"]
        figures.append(row)
    lines = {name: [(row["batch"], row[name]) for row in figures] for name in engines}
    panel = Panel("Offline throughput", "output tokens a second", "requests at once", lines, log_x=True)
    title = f"Output tokens a second of {args.model}, {args.input} in, {args.output} out"
    publish(Report(title, figures, [panel]), args)


Generate = Callable[[list[list[int]]], Any]


def _speed(generate: Generate, batch: int, num_input: int, num_output: int, vocab_size: int, run: int) -> float:
    draw = random.Random(1000 * run + batch)
    prompts = [[draw.randrange(3, vocab_size) for _ in range(num_input)] for _ in range(batch)]
    started = time.perf_counter()
    generate(prompts)
    return batch * num_output / (time.perf_counter() - started)


def _zqserve(model: str, num_output: int, quantization: Quantization = "none") -> Generate:
    llm = LLM(model, quantization=quantization)
    params = SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True, detokenize=False)
    return lambda prompts: llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)


def _transformers(model: str, num_output: int) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(model).eval()
    return lambda prompts: plain.generate(
        torch.tensor(prompts), do_sample=False, max_new_tokens=num_output, min_new_tokens=num_output
    )


if __name__ == "__main__":
    main()
