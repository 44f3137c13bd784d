"""Loads a model for pooling: an encoder as transformers runs it, a decoder on the paged attention.

A model that generates too is not loaded a second time: `share_with_generation` takes the runner's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from ..config import EngineConfig
from ..context_length import context_length
from ..errors import UnsupportedModelError
from ..model.device import Device, open_device
from ..model.model_loader import LoadedModel, build_model, choose_dtype, load_model, quieten
from ..model_files import read_json
from ..serving_mode import PoolingKind
from .decoder_model import DecoderModel
from .encoder_model import EncoderModel
from .pooler import Pooler
from .pooling_config import PoolingConfig, load_pooling_config, position_offset
from .pooling_core import batched_tokens
from .pooling_runner import PoolingRunner

logger = logging.getLogger(__name__)

_CLASSES: dict[PoolingKind, Any] = {
    "embed": AutoModel,
    "classify": AutoModelForSequenceClassification,
    "token_classify": AutoModelForTokenClassification,
}


def load_pooling_runner(
    config: EngineConfig, kind: PoolingKind, progress: Callable[[str], None] = logger.info
) -> PoolingRunner:
    """Load `config.model` for pooling alone. Raises `UnsupportedModelError` when it cannot be served rightly."""
    quieten()
    pooling = load_pooling_config(config.model, config.pooler_config)
    hf_config = AutoConfig.from_pretrained(config.model, trust_remote_code=False)
    max_model_len = _max_model_len(config, pooling)
    device = open_device(config, max_model_len)
    if _is_decoder(hf_config) and kind != "token_classify":
        loaded = load_model(config, device, max_model_len, progress, _CLASSES[kind])
        if kind == "embed" or hasattr(loaded.model, "score"):
            return _decoder_runner(config, kind, pooling, loaded, device, max_model_len, progress)
        raise UnsupportedModelError(f"{loaded.architecture} keeps its classes in a layer that is not known.")
    return _encoder_runner(config, kind, pooling, hf_config, device, max_model_len, progress)


def share_with_generation(
    config: EngineConfig,
    loaded: LoadedModel,
    device: Device,
    max_model_len: int,
    progress: Callable[[str], None] = logger.info,
) -> PoolingRunner:
    """Embeddings of a language model that is loaded already."""
    pooling = load_pooling_config(config.model, config.pooler_config)
    if pooling.max_seq_length is not None:
        max_model_len = min(max_model_len, pooling.max_seq_length)
    return _decoder_runner(config, "embed", pooling, loaded, device, max_model_len, progress)


def _decoder_runner(
    config: EngineConfig,
    kind: PoolingKind,
    pooling: PoolingConfig,
    loaded: LoadedModel,
    device: Device,
    max_model_len: int,
    progress: Callable[[str], None],
) -> PoolingRunner:
    model = DecoderModel(
        loaded,
        device,
        block_size=config.block_size,
        max_tokens=max(batched_tokens(config), max_model_len),
        max_texts=config.max_num_seqs,
    )
    pooler = Pooler(pooling, "lasttoken", device.torch_device) if kind == "embed" else None
    return _warm(
        PoolingRunner(
            model,
            pooler,
            pooling,
            device=device.torch_device,
            max_model_len=max_model_len,
            vocab_size=loaded.config.vocab_size,
            dtype=_name(loaded.dtype),
        ),
        config,
        progress,
    )


def _encoder_runner(
    config: EngineConfig,
    kind: PoolingKind,
    pooling: PoolingConfig,
    hf_config: Any,
    device: Device,
    max_model_len: int,
    progress: Callable[[str], None],
) -> PoolingRunner:
    architecture = (hf_config.architectures or [type(hf_config).__name__])[0]
    if getattr(hf_config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{architecture} is an encoder-decoder model, which is not served.")
    if config.quantization != "none":
        raise UnsupportedModelError(
            f"--quantization {config.quantization} is for decoder models; leave it out for {architecture}."
        )
    started = time.monotonic()
    dtype = choose_dtype(config, hf_config, device, progress)
    progress(f"Loading {architecture} in {_name(dtype)} on {device.torch_device}.")
    # Without padding nothing has to be masked or left out, whatever ids the text has.
    model = build_model(config, hf_config, architecture, dtype, None, _CLASSES[kind])
    model = model.to(device.torch_device).eval().requires_grad_(False)
    vocab_size = model.base_model.get_input_embeddings().num_embeddings
    encoder = EncoderModel(
        model, device, position_offset=position_offset(hf_config.to_dict()), max_model_len=max_model_len
    )
    how = "texts of any lengths at once" if encoder.is_flat else "texts of one length at a time"
    progress(f"Loaded {architecture} in {time.monotonic() - started:.1f} s; it runs {how}.")
    pooler = Pooler(pooling, "cls", device.torch_device) if kind == "embed" else None
    runner = PoolingRunner(
        encoder,
        pooler,
        pooling,
        device=device.torch_device,
        max_model_len=max_model_len,
        vocab_size=vocab_size,
        dtype=_name(dtype),
    )
    return _warm(runner, config, progress)


def _warm(runner: PoolingRunner, config: EngineConfig, progress: Callable[[str], None]) -> PoolingRunner:
    started = time.monotonic()
    runner.warm_up(min(batched_tokens(config), runner.max_model_len))
    progress(f"Warmed up in {time.monotonic() - started:.1f} s.")
    return runner


def _is_decoder(hf_config: Any) -> bool:
    """Whether each token of the model sees only those before it."""
    text_config = hf_config.get_text_config()
    is_causal = (
        type(text_config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(text_config) not in MODEL_FOR_MASKED_LM_MAPPING
    )
    return is_causal and not getattr(text_config, "use_bidirectional_attention", False)


def _max_model_len(config: EngineConfig, pooling: PoolingConfig) -> int:
    """The longest text: what the positions allow, what the model was trained for, and what the configuration says."""
    hf_config = read_json(Path(config.model) / "config.json")
    limits = (context_length(hf_config) - position_offset(hf_config), pooling.max_seq_length, config.max_model_len)
    return min(limit for limit in limits if limit is not None)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
