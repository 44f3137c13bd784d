"""What int8 weights change in a model's answers, held to bfloat16, with float32 beside it as a measure.

    python -m bench quantization --model demo/model

Answers are drawn from the model in bfloat16 at temperature 1. The other forms are asked how likely they find each of
those tokens, and for greedy answers of their own:

- `KL, mnats`: by how many thousandths of a nat the other form finds a token less likely, on average. Of tokens drawn
  from bfloat16 that is an estimate of the Kullback-Leibler divergence, which may fall below zero where there is none.
- `|logprob|, mnats`: the mean absolute difference of the log-probabilities.
- `top token, %`: of the places, those where both find the same token the most likely one.
- `greedy answers, %`: those that are the same to the end; `greedy tokens, %`: those that stand before a difference.

Of a model with random weights this says how well the mechanics work, and nothing about the quality of answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zqserve import LLM, SamplingParams
from zqserve.bench.common.picture import Panel
from zqserve.bench.common.report import Report, add_report_arguments, publish

FORMS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "float32": {"dtype": "float32"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
}
BEGINNINGS = [
    "Once upon a time",
    "The capital of",
    "My favourite colour is",
    "The future of AI is",
    "Question: What is",
    "Hello, my name is",
    "The president of the United States is",
    "A list of numbers:",
]


@dataclass(frozen=True)
class Judgement:
    """What one form of the model makes of given texts."""

    logprobs: list[float]
    """Of the drawn tokens, all texts end to end."""
    top_tokens: list[int]
    greedy: list[list[int]]


def main() -> None:
    """Draw texts, let each form judge them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--answers", type=int, default=128, help="texts that are drawn")
    parser.add_argument("--output", type=int, default=64, help="tokens of each")
    add_report_arguments(parser)
    args = parser.parse_args()

    llm = LLM(args.model, **FORMS["bfloat16"])
    beginnings = [BEGINNINGS[i % len(BEGINNINGS)] for i in range(args.answers)]
    drawn = [
        SamplingParams(temperature=1, seed=seed, max_tokens=args.output, ignore_eos=True)
        for seed in range(args.answers)
    ]
    answers = llm.generate(beginnings, drawn, use_tqdm=False)
    prompts: list[list[int]] = [list(answer.prompt_token_ids or ()) for answer in answers]
    texts: list[list[int]] = [
        prompt + list(answer.outputs[0].token_ids) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    judgements = {"bfloat16": _judge(llm, prompts, texts, args.output)}
    del llm
    for name in list(FORMS)[1:]:
        judgements[name] = _judge(LLM(args.model, **FORMS[name]), prompts, texts, args.output)

    rows = [_compare(name, judgements["bfloat16"], judgements[name]) for name in list(FORMS)[1:]]
    bars = {row["weights"]: row["|logprob|, mnats"] for row in rows}
    title = f"{args.model} beside itself in bfloat16, {len(judgements['bfloat16'].logprobs):,} tokens"
    publish(Report(title, rows, [Panel("Distance from bfloat16", "thousandths of a nat", bars=bars)]), args)


def _judge(llm: LLM, prompts: Sequence[list[int]], texts: Sequence[list[int]], num_output: int) -> Judgement:
    scored = llm.generate(
        [{"prompt_token_ids": text} for text in texts],
        SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=1),
        use_tqdm=False,
    )
    logprobs, top_tokens = [], []
    for prompt, text, output in zip(prompts, texts, scored, strict=True):
        entries = output.prompt_logprobs or []
        for token, entry in list(zip(text, entries, strict=True))[len(prompt) :]:
            assert entry is not None
            logprobs.append(entry[token].logprob)
            top_tokens.append(next(other for other, place in entry.items() if place.rank == 1))
    greedy = llm.generate(
        [{"prompt_token_ids": text[: len(prompt) + 4]} for prompt, text in zip(prompts, texts, strict=True)],
        SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True),
        use_tqdm=False,
    )
    return Judgement(logprobs, top_tokens, [list(output.outputs[0].token_ids) for output in greedy])


def _compare(name: str, base: Judgement, other: Judgement) -> dict[str, Any]:
    pairs = list(zip(base.logprobs, other.logprobs, strict=True))
    same_top = sum(a == b for a, b in zip(base.top_tokens, other.top_tokens, strict=True))
    answers = list(zip(base.greedy, other.greedy, strict=True))
    return {
        "weights": name,
        "KL, mnats": 1000 * sum(a - b for a, b in pairs) / len(pairs),
        "|logprob|, mnats": 1000 * sum(abs(a - b) for a, b in pairs) / len(pairs),
        "top token, %": 100 * same_top / len(pairs),
        "greedy answers, %": 100 * sum(a == b for a, b in answers) / len(answers),
        "greedy tokens, %": 100 * sum(_num_same(a, b) for a, b in answers) / sum(len(a) for a, _ in answers),
    }


def _num_same(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens before the first difference."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


if __name__ == "__main__":
    main()
