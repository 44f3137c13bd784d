"""The engine on its way for a GPU, every kernel in the interpreter, against transformers and the engine on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, Qwen3ForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import build_engine_core
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams

VOCAB_SIZE = 120
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
NUM_TOKENS = 5
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
DRAWN = SamplingParams(
    temperature=1.1, top_k=50, top_p=0.9, min_p=0.01, repetition_penalty=1.1, presence_penalty=0.2,
    seed=7, logprobs=2, max_tokens=NUM_TOKENS, ignore_eos=True,
)  # fmt: skip
PROMPTS = [[5, 9, 33, 2, 7, 61, 4, 18, 90, 77, 13, 20, 8, 3, 100, 41, 6, 12, 19, 25], [11], [42, 7, 7]]


def _tokens(directory: Path, device: str) -> list[list[int]]:
    """What follows each prompt, greedy, then drawn; a step has no room for all, so that chunks and decodes meet."""
    config = EngineConfig(
        model=str(directory),
        device=device,
        num_blocks=24,
        max_num_seqs=6,
        max_num_batched_tokens=17,
        num_threads=1,
    )
    core = build_engine_core(config)
    for key, prompt in enumerate(2 * PROMPTS):
        params = GREEDY if key < len(PROMPTS) else DRAWN
        core.add_request(EngineRequest(key=key, prompt_token_ids=prompt, params=params))
    found: list[list[int]] = [[] for _ in 2 * PROMPTS]
    while core.has_unfinished():
        for output in core.step().get(b"", []):
            assert output.error is None
            found[output.key] += output.token_ids
    return found


@pytest.mark.parametrize("model_class", [LlamaForCausalLM, Qwen3ForCausalLM])
def test_tokens_are_those_of_transformers_and_of_the_engine_on_a_cpu(model_class: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = model_class(model_class.config_class(**SHAPE)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path)
    plain = [
        model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS)
        for prompt in PROMPTS
    ]
    found = _tokens(tmp_path, "cuda")
    assert found[: len(PROMPTS)] == [row[0, len(prompt) :].tolist() for row, prompt in zip(plain, PROMPTS, strict=True)]
    assert found == _tokens(tmp_path, "cpu")
