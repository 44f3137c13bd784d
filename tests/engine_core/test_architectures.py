"""Every promised architecture gives the tokens of plain transformers, whatever the schedule; others are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.errors import UnsupportedModelError
from zqserve.engine_core.messages import EngineRequest, TokenLogprobs
from zqserve.engine_core.sampling_params import SamplingParams

from .tiny_models import ARCHITECTURES, REFUSED, VOCAB_SIZE, config_of, save_model

MAX_TOKENS = 40


def _prompts() -> list[list[int]]:
    """Prompts of different lengths; the last two share a prefix longer than two blocks."""
    generator = torch.Generator().manual_seed(5)

    def draw(length: int) -> list[int]:
        return torch.randint(3, VOCAB_SIZE, (length,), generator=generator).tolist()

    shared = draw(37)
    return [draw(1), draw(70), draw(16), draw(33), shared + draw(4), shared + draw(9), draw(50)]


def _serve(core: EngineCore, prompts: list[list[int]]) -> tuple[list[list[int]], list[TokenLogprobs]]:
    """Greedy tokens of every prompt, which arrive two steps apart; and the prompt logprobs of the second."""
    outputs: list[list[int]] = [[] for _ in prompts]
    prompt_logprobs: list[TokenLogprobs] = []
    arrivals: Iterator[int] = iter(range(len(prompts)))
    step = 0
    while step < 2 * len(prompts) or core.has_unfinished():
        key = next(arrivals, None) if step % 2 == 0 else None
        if key is not None:
            params = SamplingParams(
                temperature=0.0, max_tokens=MAX_TOKENS, seed=0, ignore_eos=True, prompt_logprobs=0 if key == 1 else None
            )
            core.add_request(EngineRequest(key=key, prompt_token_ids=prompts[key], params=params))
        for output in core.step().get(b"", []):
            assert output.error is None
            outputs[output.key] += output.token_ids
            prompt_logprobs += output.prompt_logprobs or []
        step += 1
    return outputs, prompt_logprobs


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tokens_under_a_hostile_schedule_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    directory = save_model(name, tmp_path)
    prompts = _prompts()
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    # 10 blocks of 16 hold the longest request, but not all that arrive: some are preempted.
    config = EngineConfig(
        model=str(directory),
        max_model_len=160,
        max_num_batched_tokens=16,
        num_blocks=10,
        max_num_seqs=6,
        num_threads=1,
    )
    core = build_engine_core(config)
    outputs, prompt_logprobs = _serve(core, prompts)
    assert core.stats().num_preemptions > 0
    assert core.stats().prefix_cache_hits > 0
    for prompt, output in zip(prompts, outputs, strict=True):
        expected = reference.generate(
            torch.tensor([prompt]), max_new_tokens=MAX_TOKENS, do_sample=False, eos_token_id=None
        )
        assert output == expected[0, len(prompt) :].tolist()
        assert len(output) == MAX_TOKENS
    with torch.no_grad():
        logprobs = reference(torch.tensor([prompts[1]])).logits[0].float().log_softmax(-1)
    wanted = logprobs[torch.arange(len(prompts[1]) - 1), torch.tensor(prompts[1][1:])]
    found = torch.tensor([entry.logprobs[0] for entry in prompt_logprobs])
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_bypasses_the_attention_function_is_refused_at_load(name: str, tmp_path: Path) -> None:
    directory = save_model(name, tmp_path)
    with pytest.raises(UnsupportedModelError, match=f"{name}ForCausalLM cannot be served"):
        build_engine_core(EngineConfig(model=str(directory), num_blocks=8, num_threads=1))


def test_a_length_dependent_rope_is_chosen_by_the_longest_context_and_not_by_the_batch(tmp_path: Path) -> None:
    config = config_of("Phi3")
    config.sliding_window = None
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0] * 8,
        "long_factor": [1.5 + 0.2 * i for i in range(8)],
        "original_max_position_embeddings": 24,
    }
    directory = save_model("Phi3", tmp_path, config=config)
    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    # Every prompt is on the long side, where transformers chooses as we do; one is served beside a short one.
    prompts = [prompt for prompt in _prompts() if len(prompt) > 24]
    core = build_engine_core(EngineConfig(model=str(directory), num_blocks=60, num_threads=1))
    outputs, _ = _serve(core, [[7], *prompts])
    for prompt, output in zip(prompts, outputs[1:], strict=True):
        expected = reference.generate(
            torch.tensor([prompt]), max_new_tokens=MAX_TOKENS, do_sample=False, eos_token_id=None
        )
        assert output == expected[0, len(prompt) :].tolist()


def test_a_model_that_attends_in_chunks_is_refused_beyond_a_chunk(tmp_path: Path) -> None:
    directory = save_model("Llama4Text", tmp_path)
    with pytest.raises(UnsupportedModelError, match="--max-model-len 256"):
        build_engine_core(EngineConfig(model=str(directory), num_blocks=60, max_model_len=300))
