"""A request's tokens and log-probabilities are the same to the bit, whatever is scheduled beside it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore, build_engine_core
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.sampling_params import SamplingParams

VOCAB_SIZE = 512
# Wide enough that a matrix library would cut the sums of small and large batches differently.
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 768,
    "intermediate_size": 1088,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
}
KEY = 0
"""The request under watch; the others have other keys."""

Answer = tuple[list[int], list[list[float]]]


@pytest.fixture(scope="module", params=["float32", "bfloat16", "int8", "int8 without a matrix unit"])
def make_core(request, tmp_path_factory) -> Callable[..., EngineCore]:
    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    llama, rounded = request.param == "float32", request.param.startswith("int8")
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)) if llama else Qwen3ForCausalLM(Qwen3Config(**SHAPE))
    model.to(torch.float32 if llama else torch.bfloat16).save_pretrained(directory)
    weights = {"quantization": "int8" if rounded else "none", "int8_matrix_unit": request.param == "int8"}

    def make(**changes: object) -> EngineCore:
        return build_engine_core(
            EngineConfig(
                **{
                    "model": str(directory),
                    **weights,
                    "num_blocks": 400,
                    "num_threads": 2,
                    **changes,
                }
            )
        )

    return make


def _request(key: int, prompt: list[int], **changes: object) -> EngineRequest:
    params = SamplingParams(temperature=1.0, top_p=0.95, max_tokens=24, seed=11, logprobs=3, ignore_eos=True)
    return EngineRequest(key=key, prompt_token_ids=prompt, params=params, **changes)


def _prompt(length: int, seed: int) -> list[int]:
    return torch.randint(0, VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def _answer(core: EngineCore) -> Answer:
    """Turn the core until it is idle; the tokens and log-probabilities of the request under watch."""
    tokens: list[int] = []
    logprobs: list[list[float]] = []
    while core.has_unfinished():
        for output in core.step().get(b"", []):
            assert output.error is None
            if output.key == KEY:
                tokens += output.token_ids
                logprobs += [entry.logprobs for entry in output.logprobs or []]
    return tokens, logprobs


@pytest.fixture(scope="module")
def alone(make_core) -> Answer:
    core = make_core()
    core.add_request(_request(KEY, _prompt(90, 0)))
    return _answer(core)


def test_among_31_others(make_core, alone) -> None:
    core = make_core()
    for key in range(1, 32):
        core.add_request(_request(key, _prompt(5 + 3 * key, key)))
        if key == 15:
            core.step()
            core.add_request(_request(KEY, _prompt(90, 0)))
    assert _answer(core) == alone


@pytest.mark.parametrize("budget", [7, 16, 50])
def test_with_its_prompt_in_chunks(make_core, alone, budget) -> None:
    core = make_core(max_num_batched_tokens=budget)
    core.add_request(_request(1, _prompt(20, 1)))
    core.add_request(_request(KEY, _prompt(90, 0)))
    assert _answer(core) == alone


def test_with_its_prefix_in_the_cache(make_core, alone) -> None:
    core = make_core()
    core.add_request(_request(1, [*_prompt(90, 0)[:70], 5]))
    _answer(core)
    core.add_request(_request(KEY, _prompt(90, 0)))
    assert _answer(core) == alone
    assert core.stats().prefix_cache_hits == 64


def test_after_preemptions(make_core, alone) -> None:
    core = make_core(num_blocks=10, max_num_batched_tokens=40, enable_prefix_caching=False)
    for key in (1, 2, 3, KEY):
        core.add_request(_request(key, _prompt(90 if key == KEY else 30 + key, key)))
    assert _answer(core) == alone
    assert core.stats().num_preemptions > 0


def test_resumed_from_the_tokens_of_an_engine_that_died(make_core, alone) -> None:
    tokens, logprobs = alone
    core = make_core()
    core.add_request(_request(1, _prompt(40, 1)))
    core.add_request(_request(KEY, _prompt(90, 0), output_token_ids=tokens[:9]))
    assert _answer(core) == (tokens[9:], logprobs[9:])


def test_with_one_thread(make_core, alone) -> None:
    core = make_core(num_threads=1)
    core.add_request(_request(KEY, _prompt(90, 0)))
    assert _answer(core) == alone
