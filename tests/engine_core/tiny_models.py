"""Tiny models with random weights, one for each architecture that is promised to work.

Random weights prove the mechanics (which token follows under any schedule), not the quality of an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig

VOCAB_SIZE = 199

_DENSE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_DENSE, "num_key_value_heads": 2}
_WINDOW = {"sliding_window": 24}
_GPT2 = {
    "vocab_size": VOCAB_SIZE,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": _GROUPED,
    "Qwen2": _GROUPED,
    "Qwen3": {**_GROUPED, "head_dim": 32},
    "Mistral": {**_GROUPED, **_WINDOW, "head_dim": 16},
    "Gemma": {**_GROUPED, "head_dim": 24},
    "Gemma2": {**_GROUPED, **_WINDOW, "head_dim": 16, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 5.0},
    "Gemma3Text": {**_GROUPED, **_WINDOW, "head_dim": 16, "num_hidden_layers": 7},
    "Phi": _GROUPED,
    "Phi3": {**_GROUPED, **_WINDOW},
    "OPT": {
        **{k: v for k, v in _DENSE.items() if k != "intermediate_size"},
        "ffn_dim": 96,
        "word_embed_proj_dim": 64,
        "init_std": 0.15,
    },
    "GPT2": _GPT2,
    "GPTNeoX": _DENSE,
    "Mixtral": {**_GROUPED, "num_local_experts": 4},
    "Qwen2Moe": {
        **_GROUPED,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "Qwen3Moe": {
        **_GROUPED,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    },
    "Olmo": _GROUPED,
    "Olmo2": _GROUPED,
    "Olmoe": {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    "Starcoder2": {**_GROUPED, **_WINDOW},
    "Cohere": _GROUPED,
    "Cohere2": {**_GROUPED, **_WINDOW, "head_dim": 16, "num_hidden_layers": 4},
    "StableLm": _GROUPED,
    "Granite": {**_GROUPED, "attention_multiplier": 0.2, "residual_multiplier": 0.5},
    "Glm": {**_GROUPED, "head_dim": 16},
    "Glm4": {**_GROUPED, "head_dim": 16},
    "Nemotron": _GROUPED,
    "Persimmon": _DENSE,
    "GptOss": {**_GROUPED, **_WINDOW, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "SmolLM3": _GROUPED,
    "Exaone4": {**_GROUPED, **_WINDOW, "num_hidden_layers": 4},
    "GPTBigCode": _GPT2,
    "DeepseekV3": {
        **_DENSE,
        "num_key_value_heads": 4,
        "moe_intermediate_size": 32,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 24,
    },
    "Ernie4_5": {**_GROUPED, "head_dim": 16},
    "SeedOss": {**_GROUPED, "head_dim": 16},
    "HunYuanDenseV1": {**_GROUPED, "head_dim": 16},
    "Helium": {**_GROUPED, "head_dim": 16},
    "BitNet": _GROUPED,
    "Apertus": _GROUPED,
    "Dots1": {
        **_GROUPED,
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "Llama4Text": {
        **_GROUPED,
        "intermediate_size_mlp": 96,
        "head_dim": 16,
        "num_local_experts": 4,
        "attention_chunk_size": 256,
    },
}

REFUSED: dict[str, dict[str, Any]] = {
    "Bloom": {"vocab_size": VOCAB_SIZE, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "CodeGen": {"vocab_size": VOCAB_SIZE, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8},
    "XGLM": {"vocab_size": VOCAB_SIZE, "d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4},
    "Mamba": {"vocab_size": VOCAB_SIZE, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
}


def config_of(name: str) -> PreTrainedConfig:
    """The tiny configuration of an architecture."""
    arguments = {**ARCHITECTURES, **REFUSED}[name]
    return getattr(transformers, f"{name}Config")(**arguments)


def save_model(
    name: str, folder: Path, dtype: torch.dtype = torch.float32, config: PreTrainedConfig | None = None
) -> Path:
    """Write the seeded tiny model under `folder` and return its directory."""
    directory = folder / name
    torch.manual_seed(17)
    model = AutoModelForCausalLM.from_config(config or config_of(name), dtype=dtype)
    model.generation_config.eos_token_id = None
    model.save_pretrained(directory)
    return directory
