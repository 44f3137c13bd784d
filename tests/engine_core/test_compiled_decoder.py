"""Which models are run as one compiled call, and that it gives the bits of their layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.engine import EngineCore
from zqserve.engine_core.messages import EngineRequest
from zqserve.engine_core.model import model_surgery
from zqserve.engine_core.model.attention import AttentionLayers
from zqserve.engine_core.model.compiled_decoder import compile_decoder
from zqserve.engine_core.model.model_runner import ModelRunner
from zqserve.engine_core.sampling_params import SamplingParams
from zqserve.kernels import amx_linear
from zqserve.kernels.attention_batch import make_batch
from zqserve.kernels.int8_weight import Int8Rounding
from zqserve.kernels.paged_attention import PagedAttention
from zqserve.kernels.thread_pool import ThreadPool

from .tiny_models import config_of, save_model

FAMILY = ["Llama", "Qwen2", "Qwen3", "Mistral", "Phi3", "SmolLM3", "SeedOss"]
OTHERS = ["Gemma", "Gemma2", "Granite", "Cohere", "StableLm", "GPT2", "Mixtral"]
WEIGHTS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "int8": torch.bfloat16,
    "int8 without a matrix unit": torch.bfloat16,
}
BLOCK_SIZE = 16
MAX_POSITIONS = 128

STEPS = [
    ([40], [0]),  # tokens and context of each sequence: a prompt
    ([1, 70], [40, 0]),  # a decode beside another prompt
    ([1, 1], [41, 70]),
    ([6, 1], [42, 71]),
]


class _Model:
    """A model on two threads with caches of its own."""

    def __init__(self, name: str, dtype: torch.dtype, rounding: Int8Rounding | None = None) -> None:
        self.threads = ThreadPool(2)
        self.attention = AttentionLayers(PagedAttention(self.threads))
        torch.manual_seed(17)
        model: nn.Module = AutoModelForCausalLM.from_config(
            config_of(name), dtype=dtype, attn_implementation=self.attention.name
        )
        self.model = model.eval().requires_grad_(False)
        token = torch.zeros(1, 1, dtype=torch.long)
        with torch.inference_mode():
            self.model(input_ids=token, position_ids=token, use_cache=False)
        model_surgery.operate(self.model, self.attention, self.threads, rounding)
        self.clear_caches(dtype)

    def clear_caches(self, dtype: torch.dtype) -> None:
        num_blocks = 2 * MAX_POSITIONS // BLOCK_SIZE
        self.attention.set_caches(
            {
                layer: (
                    torch.zeros(num_blocks, shape.num_kv_heads, shape.head_dim, BLOCK_SIZE, dtype=dtype),
                    torch.zeros(
                        num_blocks, shape.num_kv_heads, BLOCK_SIZE, -(-shape.value_dim // 16) * 16, dtype=dtype
                    ),
                )
                for layer, shape in self.attention.geometry.items()
            }
        )

    @property
    def group(self) -> int:
        return max(shape.num_heads // shape.num_kv_heads for shape in self.attention.geometry.values())


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", FAMILY)
def test_it_gives_the_bits_of_the_layers(name: str, weights: str) -> None:
    dtype = WEIGHTS[weights]
    if weights == "bfloat16" and not amx_linear.is_available():
        pytest.skip("without AMX the linear layers of bfloat16 are oneDNN's, which no sequence takes")
    rounding = Int8Rounding(matrix_unit=weights == "int8") if weights.startswith("int8") else None
    mine = _Model(name, dtype, rounding)
    assert rounding is None or rounding.num_layers == 4 * len(mine.attention.geometry) + 1
    tables = np.arange(2 * MAX_POSITIONS // BLOCK_SIZE, dtype=np.int32).reshape(2, -1)
    generator = torch.Generator().manual_seed(5)
    steps = []
    for lens, contexts in STEPS:
        ids = torch.randint(3, 199, (sum(lens),), generator=generator)
        positions = np.concatenate([np.arange(context, context + n) for n, context in zip(lens, contexts, strict=True)])
        table = np.ascontiguousarray(tables[: len(lens)])
        batch = make_batch(np.array(lens, np.int32), np.array(contexts, np.int32), table, BLOCK_SIZE, mine.group)
        steps.append((ids, positions, batch))

    expected = []
    for ids, positions, batch in steps:
        mine.attention.set_batch(batch)
        with torch.inference_mode():
            output = mine.model(input_ids=ids[None], position_ids=torch.from_numpy(positions)[None], use_cache=False)
        expected.append(output.logits[0].float())

    mine.clear_caches(dtype)
    compiled = compile_decoder(mine.model, mine.threads, MAX_POSITIONS)
    assert compiled is not None
    for (ids, positions, batch), logits in zip(steps, expected, strict=True):
        for wanted in (list(range(len(ids))), [len(ids) - 1, 0], []):
            found = compiled.logits(ids.numpy(), positions, batch, np.array(wanted, np.int64))
            assert torch.equal(found, logits[wanted])


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_of_another_kind_stays_as_it_is(name: str) -> None:
    other = _Model(name, torch.float32)
    assert compile_decoder(other.model, other.threads, MAX_POSITIONS) is None


def test_a_model_that_changes_its_logits_stays_as_it_is() -> None:
    model = _Model("Llama", torch.float32)
    forward = model.model.forward

    def capped(*args: object, **kwargs: object) -> object:
        output = forward(*args, **kwargs)
        output.logits = 30.0 * torch.tanh(output.logits / 30.0)
        return output

    model.model.forward = capped
    assert compile_decoder(model.model, model.threads, MAX_POSITIONS) is None


def test_an_engine_never_calls_the_code_of_such_a_model(tmp_path: Path) -> None:
    config = EngineConfig(model=str(save_model("Llama", tmp_path)), num_blocks=32, max_model_len=200)
    runner = ModelRunner(config)

    def fail(*_args: object) -> None:
        raise AssertionError("the code around the layers ran")

    runner.loaded.model.register_forward_pre_hook(fail)
    core = EngineCore(runner, config)
    params = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
    core.add_request(EngineRequest(key=1, prompt_token_ids=list(range(3, 90)), params=params))
    tokens = []
    while core.has_unfinished():
        for output in core.step().get(b"", []):
            assert output.error is None
            tokens += output.token_ids
    assert len(tokens) == 5
