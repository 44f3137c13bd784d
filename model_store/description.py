"""What a model is, and what serving it takes: `zqserve models show`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine_core.config import Dtype
from ..engine_core.context_length import context_length, text_config_of
from ..engine_core.model_files import read_json
from ..engine_core.serving_mode import serving_mode
from ..engine_core.tokenizer import Tokenizer, load_tokenizer
from .cache import kind_name
from .weights import Weights, read_weights

_LANES = 16
"""The cache pads the values of a head to a multiple of this."""
_DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True)
class ModelDescription:
    """A model as its files tell."""

    architecture: str
    kind: str
    """generate, embed, classify or token_classify: what it is served for without flags."""
    context_length: int
    vocab_size: int
    chat_templates: tuple[str, ...]
    """Their names; most models have one or none."""
    num_parameters: int
    """0 where only PyTorch files tell."""
    dtype: str
    """What it is served in."""
    weight_bytes: int
    cache_bytes_per_token: int | None
    """Of keys and values of all layers; None where the config does not say, or where nothing is cached."""


def describe(directory: Path, dtype: Dtype = "auto") -> ModelDescription:
    """Read the model's files. Raises ValueError or `UnsupportedModelError` for what is missing or damaged."""
    config = read_json(directory / "config.json")
    if not config:
        raise ValueError(f"There is no config.json in {directory}: it is no model in Hugging Face form.")
    mode = serving_mode(directory)
    tokenizer = tokenizer_of(directory)
    weights = read_weights(directory)
    served = served_dtype(config, dtype)
    return ModelDescription(
        architecture=mode.architecture,
        kind=kind_name(mode),
        context_length=context_length(config),
        vocab_size=int(text_config_of(config).get("vocab_size") or 0),
        chat_templates=() if tokenizer is None else tuple(tokenizer.chat_templates),
        num_parameters=weights.num_parameters,
        dtype=served,
        weight_bytes=_weight_bytes(weights, config, served),
        cache_bytes_per_token=cache_bytes_per_token(config, served) if mode.generates else None,
    )


def tokenizer_of(directory: Path) -> Tokenizer | None:
    """The model's tokenizer, None where there is none that can be read."""
    try:
        return load_tokenizer(directory)
    except ValueError:
        return None


def served_dtype(config: dict[str, Any], asked: Dtype) -> str:
    """The type of the weights in memory, on a CPU: what --dtype says, else what the model was saved in."""
    if asked != "auto":
        return asked
    merged = text_config_of(config)
    stored = str(merged.get("dtype") or merged.get("torch_dtype") or "float32").removeprefix("torch.")
    return "bfloat16" if stored == "float16" else stored


def cache_bytes_per_token(config: dict[str, Any], dtype: str) -> int | None:
    """Bytes of one token's keys and values over all layers, as the engine lays them out; None where unknown."""
    config = text_config_of(config)
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    heads = _first(config, "num_attention_heads", "n_head", "num_heads", "n_heads")
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    if not (layers and heads and hidden):
        return None
    kv_heads = _first(config, "num_key_value_heads", "num_kv_heads") or (1 if config.get("multi_query") else heads)
    head_dim = _first(config, "head_dim") or hidden // heads
    key_dim = head_dim
    if _first(config, "qk_rope_head_dim"):
        key_dim = (_first(config, "qk_nope_head_dim") or 0) + (_first(config, "qk_rope_head_dim") or 0)
    value_dim = _first(config, "v_head_dim") or head_dim
    padded = -(-value_dim // _LANES) * _LANES
    item_bytes = 4 if dtype in ("float16", "half") else _DTYPE_BYTES.get(dtype, 4)
    return layers * kv_heads * (key_dim + padded) * item_bytes


def _weight_bytes(weights: Weights, config: dict[str, Any], dtype: str) -> int:
    """Quantised weights count as stored: what they become depends on the method."""
    return weights.num_bytes(None if config.get("quantization_config") else _DTYPE_BYTES.get(dtype))


def _first(config: dict[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
