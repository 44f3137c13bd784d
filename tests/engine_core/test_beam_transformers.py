"""Beam searches find the sequences and the scores of transformers' own, whatever runs beside them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import build_engine_core
from zqserve.engine_core.messages import BeamOutput, EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams

from .tiny_models import VOCAB_SIZE, save_model

NAMES = ["Llama", "Gemma2", "GPT2", "Qwen3Moe", "DeepseekV3"]
PAD = VOCAB_SIZE + 1
"""What transformers fills up with: no token of the model."""


def _cases(draw: random.Random) -> list[dict[str, Any]]:
    """Searches of all kinds; a model of random weights ends often only where many tokens end a sequence."""
    cases = []
    for early_stopping in (False, True, "never"):
        for length_penalty in draw.sample((0.0, 1.0, 2.0, -1.0), 2):
            max_tokens = draw.choice([1, 3, 17, 24])
            cases.append(
                {
                    "prompt": [draw.randrange(3, VOCAB_SIZE) for _ in range(draw.choice([1, 5, 16, 17, 40]))],
                    "width": draw.choice([2, 3, 4, 5]),
                    "max_tokens": max_tokens,
                    "min_tokens": draw.choice([0, 0, min(3, max_tokens)]),
                    "repetition_penalty": draw.choice([1.0, 1.0, 1.3]),
                    "early_stopping": early_stopping,
                    "length_penalty": length_penalty,
                    "eos_token_ids": draw.sample(range(3, VOCAB_SIZE), draw.choice([0, 1, 3, 40])),
                }
            )
    return cases


def _request(key: int, case: dict[str, Any]) -> EngineRequest:
    params = SamplingParams(
        use_beam_search=True,
        n=case["width"],
        temperature=0,
        max_tokens=case["max_tokens"],
        min_tokens=case["min_tokens"],
        repetition_penalty=case["repetition_penalty"],
        early_stopping=case["early_stopping"],
        length_penalty=case["length_penalty"],
        logprobs=2,
    )
    return EngineRequest(key=key, prompt_token_ids=case["prompt"], eos_token_ids=case["eos_token_ids"], params=params)


@torch.no_grad()
def _expected(model: Any, case: dict[str, Any]) -> tuple[list[list[int]], list[float]]:
    """Sequences without their padding, and their scores."""
    options = {"min_new_tokens": case["min_tokens"]} if case["min_tokens"] else {}
    found = model.generate(
        torch.tensor([case["prompt"]]),
        num_beams=case["width"],
        num_return_sequences=case["width"],
        do_sample=False,
        max_new_tokens=case["max_tokens"],
        repetition_penalty=case["repetition_penalty"],
        early_stopping=case["early_stopping"],
        length_penalty=case["length_penalty"],
        eos_token_id=case["eos_token_ids"] or None,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    sequences = found.sequences[:, len(case["prompt"]) :].tolist()
    return [[token for token in sequence if token != PAD] for sequence in sequences], found.sequences_scores.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_beam_search_finds_what_transformers_finds(name: str, tmp_path: Path) -> None:
    directory = save_model(name, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    core = build_engine_core(
        EngineConfig(
            model=str(directory),
            max_model_len=96,
            max_num_batched_tokens=24,
            num_blocks=24,
            max_num_seqs=16,
            num_threads=1,
        )
    )
    cases = _cases(random.Random(name))
    found: dict[int, list[BeamOutput]] = {}
    waiting = list(enumerate(cases))
    while waiting or core.has_unfinished():
        if waiting:
            key, case = waiting.pop(0)
            core.add_request(_request(key, case))
            # An ordinary request beside each search.
            greedy = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, seed=0)
            core.add_request(EngineRequest(key=1000 + key, prompt_token_ids=case["prompt"], params=greedy))
        for output in core.step().get(b"", []):
            assert output.error is None
            if output.beams is not None:
                found[output.key] = output.beams
    assert core.stats().kv_cache_usage == 0
    for key, case in enumerate(cases):
        sequences, scores = _expected(reference, case)
        assert [beam.token_ids for beam in found[key]] == sequences, case
        for beam, score in zip(found[key], scores, strict=True):
            if case["repetition_penalty"] == 1.0:
                rank = beam.cumulative_logprob / len(beam.token_ids) ** case["length_penalty"]
                assert rank == pytest.approx(score, rel=1e-4, abs=1e-4)
            assert beam.logprobs is not None
            assert [entry.token_ids[0] for entry in beam.logprobs] == beam.token_ids
            assert sum(entry.logprobs[0] for entry in beam.logprobs) == pytest.approx(beam.cumulative_logprob)
            assert all(entry.rank >= 1 and len(entry.token_ids) == 3 for entry in beam.logprobs)
