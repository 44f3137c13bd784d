"""What the surgery recognises, and that what it puts in computes the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from zqserve.engine_core.model import model_surgery
from zqserve.engine_core.model.attention import AttentionLayers
from zqserve.engine_core.model.gated_mlp import fuse_mlp
from zqserve.kernels.attention_batch import make_batch
from zqserve.kernels.paged_attention import PagedAttention
from zqserve.kernels.thread_pool import ThreadPool

from .tiny_models import config_of

NUM_TOKENS = 40
FUSED = ("PreNormDecoderLayer", "RotaryAttention", "GatedMLP")


def _operated(model: nn.Module, attention: AttentionLayers, threads: ThreadPool) -> Counter[str]:
    """Operate on the model and count what it is made of afterwards."""
    with torch.inference_mode():
        token = torch.zeros(1, 1, dtype=torch.long)
        model(input_ids=token, position_ids=token, use_cache=False)
    model_surgery.operate(model, attention, threads)
    return Counter(type(module).__name__ for module in model.modules())


def _model(name: str, dtype: torch.dtype, attention: AttentionLayers | None, **changes: object) -> nn.Module:
    config = config_of(name)
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(17)
    implementation = "eager" if attention is None else attention.name
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=implementation)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Phi3", "SmolLM3", "StableLm", "Olmo"])
def test_every_layer_of_the_common_kind_is_fused(name: str) -> None:
    threads = ThreadPool(1)
    attention = AttentionLayers(PagedAttention(threads))
    kinds = _operated(_model(name, torch.float32, attention), attention, threads)
    assert [kinds[kind] for kind in FUSED] == [3, 3, 3]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Olmo", {"clip_qkv": 8.0}),  # values are cut off
        ("Cohere", {}),  # rotates neighbours
        ("Olmo2", {}),  # one norm over all heads
        ("Llama4Text", {}),  # scales by the position
    ],
)
def test_attention_of_another_kind_stays_as_it_is(name: str, changes: dict[str, object]) -> None:
    threads = ThreadPool(1)
    attention = AttentionLayers(PagedAttention(threads))
    kinds = _operated(_model(name, torch.float32, attention, **changes), attention, threads)
    assert kinds["RotaryAttention"] == 0


def test_residual_branches_that_are_scaled_stay_as_they_are() -> None:
    threads = ThreadPool(1)
    attention = AttentionLayers(PagedAttention(threads))
    kinds = _operated(_model("Granite", torch.float32, attention), attention, threads)
    assert [kinds[kind] for kind in FUSED] == [0, 3, 3]


class _MLP(nn.Module):
    """A feed-forward layer whose gate is made by `gate`."""

    def __init__(self, activation: nn.Module, limit: float | None = None) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(32, 48, bias=False), nn.Linear(32, 48, bias=False)
        self.down_proj = nn.Linear(48, 32, bias=False)
        self.act_fn = activation
        self._limit = limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = self.up_proj(x)
        if self._limit is not None:
            up = up.clamp(max=self._limit)
        return self.down_proj(self.act_fn(self.gate_proj(x)) * up)


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(approximate="tanh")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_mlp_gives_what_the_old_one_gave(activation: nn.Module, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    mlp = _MLP(activation).to(dtype).requires_grad_(False)
    x = torch.randn(2, 9, 32).to(dtype)
    fused = fuse_mlp(mlp, ThreadPool(1))
    if fused is None and dtype == torch.bfloat16:
        pytest.skip("no packed layer for bfloat16 on this processor")
    assert fused is not None
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(fused(x), mlp(x), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(fused(x, x), x + mlp(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "mlp", [_MLP(nn.ReLU()), _MLP(nn.GELU()), _MLP(nn.SiLU(), limit=7.0), _MLP(nn.Sigmoid())], ids=str
)
def test_an_mlp_of_another_kind_is_not_taken_for_a_gated_one(mlp: nn.Module) -> None:
    assert fuse_mlp(mlp.requires_grad_(False), ThreadPool(1)) is None


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma3Text", "Phi3", "Phi", "Granite"])
def test_a_bfloat16_model_gives_the_logits_of_transformers_up_to_rounding(name: str, tmp_path: Path) -> None:
    threads = ThreadPool(2)
    attention = AttentionLayers(PagedAttention(threads))
    model = _model(name, torch.bfloat16, attention)
    _operated(model, attention, threads)
    blocks = -(-NUM_TOKENS // 16)
    attention.set_caches(
        {
            layer: (
                torch.zeros(blocks, shape.num_kv_heads, shape.head_dim, 16, dtype=torch.bfloat16),
                torch.zeros(blocks, shape.num_kv_heads, 16, -(-shape.value_dim // 16) * 16, dtype=torch.bfloat16),
            )
            for layer, shape in attention.geometry.items()
        }
    )
    ids = torch.randint(3, 199, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(5))
    positions = torch.arange(NUM_TOKENS)[None]
    table = np.arange(blocks, dtype=np.int32)[None]
    group = max(shape.num_heads // shape.num_kv_heads for shape in attention.geometry.values())
    attention.set_batch(make_batch(np.array([NUM_TOKENS], np.int32), np.zeros(1, np.int32), table, 16, group))
    with torch.inference_mode():
        found = model(input_ids=ids, position_ids=positions, use_cache=False).logits.float()
        exact = _model(name, torch.float32, None)
        plain = _model(name, torch.bfloat16, None)
        expected = exact(input_ids=ids).logits
        error = (plain(input_ids=ids).logits.float() - expected).square().mean().sqrt()
    # No further from the float32 model than transformers' own bfloat16 is.
    assert (found - expected).square().mean().sqrt() < 1.5 * error
