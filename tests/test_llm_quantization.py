"""Int8 weights through `LLM`: what they change in the answers of a trained model, and where they are refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.running_server import DEMO_MODEL
from tests.tiny_poolers import TEXTS, save_decoder, save_encoder
from zqserve import LLM, SamplingParams
from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.errors import UnsupportedModelError
from zqserve.engine_core.model.device import open_device
from zqserve.engine_core.model.quantization import open_rounding
from zqserve.outputs import RequestOutput

BEGINNINGS = ["Once upon a time", "The capital of France is", "My favourite colour is", "Hello, my name is"]
TOKENS_OF_MEAN = 200


def load(model: Path | str = DEMO_MODEL, **options: Any) -> LLM:
    return LLM(str(model), num_gpu_blocks_override=64, num_threads=2, **options)


def scored(llm: LLM, texts: list[list[int]]) -> list[RequestOutput]:
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    return llm.generate([{"prompt_token_ids": text} for text in texts], params, use_tqdm=False)


def logprobs_of(outputs: list[RequestOutput]) -> list[float]:
    """The log-probabilities of the prompts' tokens, end to end."""
    found = []
    for output in outputs:
        for token, entry in zip(output.prompt_token_ids or (), output.prompt_logprobs or (), strict=True):
            if entry is not None:
                found.append(entry[token].logprob)
    return found


def test_answers_are_nearly_those_of_the_weights_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    plain = load()
    with caplog.at_level(logging.INFO):
        rounded = load(quantization="int8")
    (said,) = [record.message for record in caplog.records if record.message.startswith("Rounded")]
    # Four layers of queries-keys-values, output, gate-up and down, and the vocabulary projection.
    assert said.startswith("Rounded 17 linear layers to int8: 3.3 million weights, with a relative error of 0.7")

    drawn = SamplingParams(temperature=1, seed=5, max_tokens=64, ignore_eos=True)
    answers = plain.generate(BEGINNINGS, drawn, use_tqdm=False)
    texts = [[*(answer.prompt_token_ids or ()), *answer.outputs[0].token_ids] for answer in answers]
    before, after = (logprobs_of(scored(llm, texts)) for llm in (plain, rounded))
    assert len(before) > TOKENS_OF_MEAN
    differences = [abs(a - b) for a, b in zip(before, after, strict=True)]
    assert 0 < sum(differences) / len(differences) < 0.02
    (output,) = rounded.generate(
        "The capital of France is", SamplingParams(temperature=0, max_tokens=2), use_tqdm=False
    )
    assert output.outputs[0].text.strip().startswith("Paris")


def test_none_is_what_is_done_without_it() -> None:
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=0)
    likelihoods = {
        quantization: load(quantization=quantization)
        .generate(BEGINNINGS[0], params, use_tqdm=False)[0]
        .outputs[0]
        .cumulative_logprob
        for quantization in (None, "none", "int8")
    }
    assert likelihoods[None] == likelihoods["none"] != likelihoods["int8"]


def test_what_cannot_be_rounded_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="served in float32: add --dtype bfloat16"):
        load(quantization="int8", dtype="float32")
    with pytest.raises(UnsupportedModelError, match="for decoder models; leave it out for BertModel"):
        load(save_encoder("Bert", tmp_path), quantization="int8")


def test_vectors_of_a_decoder_are_nearly_the_same(tmp_path: Path) -> None:
    folder = save_decoder("Qwen3", tmp_path)
    vectors = [
        torch.tensor(
            load(folder, runner="pooling", dtype="bfloat16", quantization=name).embed(TEXTS[0])[0].outputs.embedding
        )
        for name in (None, "int8")
    ]
    assert not torch.equal(*vectors)
    assert torch.cosine_similarity(*vectors, dim=0) > 0.99


@pytest.mark.parametrize("matrix_unit", [True, False])
def test_the_matrix_unit_is_left_out_where_the_engine_is_told_so(matrix_unit: bool) -> None:
    config = EngineConfig(model="", device="cpu", num_threads=1, quantization="int8", int8_matrix_unit=matrix_unit)
    rounding = open_rounding(config, torch.bfloat16, open_device(config, 16), print)
    assert rounding is not None
    assert rounding.matrix_unit == matrix_unit
