"""Loads a model with transformers' own code and prepares it for paged execution.

Order of things: read the config, build the class with our attention function, probe it with one token (which refuses
models that would answer wrongly), then replace slow parts by fast ones.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from ..config import EngineConfig
from ..errors import UnsupportedModelError
from ..host_runtime import give_back_freed_memory
from . import model_surgery
from .attention import AttentionLayers
from .device import Device
from .quantization import account, open_rounding

logger = logging.getLogger(__name__)

_DTYPES = {
    "half": torch.float16,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float": torch.float32,
    "float32": torch.float32,
}

_UPDATED_ROPE_TYPES = {"dynamic", "longrope"}
"""Rotary embeddings that transformers updates in each forward."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, and its attention."""

    model: Any
    config: Any
    """The text part of the transformers config."""
    dtype: torch.dtype
    attention: AttentionLayers
    architecture: str


def load_model(
    config: EngineConfig,
    device: Device,
    max_model_len: int,
    progress: Callable[[str], None],
    auto_class: Any = AutoModelForCausalLM,
) -> LoadedModel:
    """Load `config.model` as what `auto_class` of transformers makes of it.

    Raises `UnsupportedModelError` when it cannot be served rightly, OSError when its files cannot be read.
    """
    quieten()
    hf_config = AutoConfig.from_pretrained(config.model, trust_remote_code=False)
    architecture = (hf_config.architectures or [type(hf_config).__name__])[0]
    if getattr(hf_config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{architecture} is an encoder-decoder model; only decoder models are served.")
    dtype = choose_dtype(config, hf_config, device, progress)
    rounding = open_rounding(config, dtype, device, progress)
    attention = AttentionLayers(device.attention)
    chunk = getattr(hf_config.get_text_config(), "attention_chunk_size", None)
    if chunk is not None and max_model_len > chunk:
        raise UnsupportedModelError(
            f"{architecture} attends in chunks of {chunk} tokens, which the paged attention does not do: serve it with "
            f"--max-model-len {chunk} or less."
        )
    started = time.monotonic()
    progress(f"Loading {architecture} in {_name(dtype)} on {device.torch_device}.")
    model = build_model(config, hf_config, architecture, dtype, attention.name, auto_class)
    model = model.eval().requires_grad_(False)
    text_config = model.config.get_text_config()
    _pin_rope(model, architecture, max_model_len)
    _probe(model, attention, architecture, text_config.num_hidden_layers)
    if device.is_cpu:
        model_surgery.operate(model, attention, device.threads, rounding)
        give_back_freed_memory()
    else:
        from . import gpu_surgery  # needs Triton, which not every machine without a GPU has

        gpu_surgery.operate(model, attention, device.threads, device.torch_device)
    if rounding is not None:
        progress(account(rounding, model))
    progress(f"Loaded {architecture} in {time.monotonic() - started:.1f} s.")
    return LoadedModel(model, text_config, dtype, attention, architecture)


def quieten() -> None:
    """Keep transformers' warnings, and its progress bars where nobody watches, out of the log."""
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def choose_dtype(config: EngineConfig, hf_config: Any, device: Device, progress: Callable[[str], None]) -> torch.dtype:
    if config.dtype != "auto":
        return _DTYPES[config.dtype]
    stored = getattr(hf_config, "dtype", None) or getattr(hf_config.get_text_config(), "dtype", None)
    if isinstance(stored, str):
        stored = getattr(torch, stored)
    if stored is None:
        stored = torch.float32
    if device.is_cpu and stored == torch.float16:
        progress("The checkpoint is in float16, which CPUs compute slowly: using bfloat16 (--dtype float16 keeps it).")
        return torch.bfloat16
    return stored


def build_model(
    config: EngineConfig,
    hf_config: Any,
    architecture: str,
    dtype: torch.dtype,
    attention_name: str | None,
    auto_class: Any,
) -> Any:
    """The model on the CPU; `attention_name` None leaves the choice to transformers.

    Raises `UnsupportedModelError` where transformers has no such class, or no such attention for it.
    """
    try:
        if config.load_format == "dummy":
            torch.manual_seed(config.seed)
            return auto_class.from_config(hf_config, dtype=dtype, attn_implementation=attention_name)
        model, info = auto_class.from_pretrained(
            config.model,
            config=hf_config,
            dtype=dtype,
            attn_implementation=attention_name,
            use_safetensors={"safetensors": True, "pt": False}.get(config.load_format),
            local_files_only=True,
            output_loading_info=True,
        )
    except ValueError as error:
        text = str(error)
        if "does not support" in text or "Unrecognized configuration class" in text:
            raise UnsupportedModelError(
                f"{architecture} cannot be served: transformers has no {auto_class.__name__} of this kind whose "
                f"attention can be replaced ({text.splitlines()[0][:200]})."
            ) from None
        raise
    # Of the base alone, the pooler is a layer that nobody asks for; many checkpoints have none.
    missing = [key for key in sorted(info["missing_keys"]) if auto_class is not AutoModel or "pooler" not in key]
    if missing:
        raise UnsupportedModelError(
            f"The weights of {architecture} lack {len(missing)} that {type(model).__name__} has, such as {missing[0]}: "
            "it would answer at random."
        )
    return model


def _probe(model: Any, attention: AttentionLayers, architecture: str, num_layers: int) -> None:
    """Run one token through the model to see which layers call our attention, and how."""
    token = torch.zeros(1, 1, dtype=torch.long)
    try:
        with torch.inference_mode():
            model(input_ids=token, position_ids=token, use_cache=False)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{architecture} cannot be served: it failed on one token with the paged attention ({error})."
        ) from error
    attention.check_layers(architecture, num_layers)


def _pin_rope(model: torch.nn.Module, architecture: str, max_model_len: int) -> None:
    """Fix rotary embeddings that would choose their frequencies by the longest sequence of the batch.

    Such a choice would make one request's tokens depend on the others. It is made once, for sequences of
    `max_model_len`, and the per-forward update is switched off.
    """
    for module in model.modules():
        rotary: Any = module
        rope_type = getattr(rotary, "rope_type", None)
        if isinstance(rope_type, dict) and not _UPDATED_ROPE_TYPES.isdisjoint(rope_type.values()):
            raise UnsupportedModelError(
                f"{architecture} cannot be served: its layers differ in rotary embeddings that change with the length."
            )
        if isinstance(rope_type, str) and rope_type in _UPDATED_ROPE_TYPES:
            rotary(torch.zeros(1, 1, 1), torch.tensor([[max_model_len - 1]]))
            rotary.rope_type = "pinned"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
