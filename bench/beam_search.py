"""Beam search beside transformers': output tokens a second of one search after another, and whether they agree.

    python bench/beam_search.py --model demo/model

Both run in this process and take turns, search by search, so that what else the machine does meets both alike. Tokens
are those of the beams, width × max_tokens a search: EOS is ignored, so that both do the same work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from zqserve import LLM, BeamSearchParams
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish

PROMPTS = [
    "The capital of France is",
    "Once upon a time",
    "Question: What is bread made of?\nAnswer:",
    "San Francisco is a",
    "The number 7 is",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-threads", type=int, default=torch.get_num_threads(), help="of both")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    add_report_arguments(parser)
    args = parser.parse_args()
    llm = LLM(args.model, dtype=args.dtype, num_threads=args.num_threads)
    peer = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype).eval()
    prompts = [llm.get_tokenizer().encode(prompt) for prompt in PROMPTS]
    searches: dict[str, Callable[[list[int]], list[list[int]]]] = {
        "zqserve": lambda prompt: ours(llm, prompt, args),
        "transformers": lambda prompt: theirs(peer, prompt, args),
    }
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    num_equal = 0
    for number in range(args.rounds + 1):
        for prompt in prompts:
            found = []
            for name, search in searches.items():
                # torch's threads are a setting of the process, and the engine lowers it for its own small steps.
                torch.set_num_threads(args.num_threads)
                start = time.perf_counter()
                found.append(search(prompt))
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
            num_equal += found[0] == found[1]
    num_tokens = args.width * args.max_tokens
    rows = [
        {"engine": name, "tok/s (median)": num_tokens / median(taken), "tok/s (best)": num_tokens / min(taken)}
        for name, taken in seconds.items()
    ]
    ratio = median(b / a for a, b in zip(*seconds.values(), strict=True))
    total = (args.rounds + 1) * len(prompts)
    note = f"zqserve is {ratio:.2f} times as fast (median of pairs); {num_equal} of {total} searches agree in all beams"
    bars = {row["engine"]: row["tok/s (median)"] for row in rows}
    panel = Panel("Beam search", "output tokens a second", bars=bars)
    publish(Report(f"Beam search of width {args.width}", rows, [panel], [note]), args)


def ours(llm: LLM, prompt: list[int], args: argparse.Namespace) -> list[list[int]]:
    params = BeamSearchParams(beam_width=args.width, max_tokens=args.max_tokens, ignore_eos=True)
    (output,) = llm.beam_search({"prompt_token_ids": prompt}, params)
    return [sequence.tokens for sequence in output.sequences]


@torch.no_grad()
def theirs(model: Any, prompt: list[int], args: argparse.Namespace) -> list[list[int]]:
    found = model.generate(
        torch.tensor([prompt]),
        num_beams=args.width,
        num_return_sequences=args.width,
        do_sample=False,
        max_new_tokens=args.max_tokens,
        eos_token_id=None,
    )
    return found.tolist()


if __name__ == "__main__":
    main()
