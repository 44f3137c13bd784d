"""Which of equally likely tokens a request is told of does not depend on what the others of its step ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.messages import EngineRequest, TokenLogprobs
from zqserve.engine_core.sampling_params import SamplingParams

WATCHED = 0
PROMPT = [7, 11, 13, 17]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which each token is exactly as likely as another one."""
    directory = tmp_path_factory.mktemp("pairs")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[128:] = model.lm_head.weight[:128]
    model.save_pretrained(directory)
    return directory


def entries(model_dir: Path, *others: int) -> list[TokenLogprobs]:
    """What a request for one alternative a token is told, beside requests for so many."""
    core: EngineCore = build_engine_core(EngineConfig(model=str(model_dir), device="cpu", num_blocks=64, num_threads=1))
    for key, number in enumerate((1, *others)):
        params = SamplingParams(max_tokens=40, seed=3, logprobs=number, prompt_logprobs=number, ignore_eos=True)
        core.add_request(EngineRequest(key=key, prompt_token_ids=PROMPT, params=params))
    told: list[TokenLogprobs] = []
    while core.has_unfinished():
        for output in core.step().get(b"", []):
            assert output.error is None
            if output.key == WATCHED:
                told += [*(output.prompt_logprobs or ()), *(output.logprobs or ())]
    return told


def test_the_alternatives_of_a_request_are_its_own(model_dir: Path) -> None:
    alone = entries(model_dir)
    assert len(alone) == len(PROMPT) - 1 + 40
    assert all(len(entry.token_ids) == 2 for entry in alone)
    for others in ((2,), (0,), (5, 20), (3, 1, -1)):
        assert entries(model_dir, *others) == alone
