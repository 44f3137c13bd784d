"""A model with made-up weights on a GPU, and its decode and prompt steps without an engine around them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.initialization import no_init_weights

from zqserve.engine_core.config import EngineConfig
from zqserve.engine_core.model import kv_cache
from zqserve.engine_core.model.device import Device, open_device
from zqserve.engine_core.model.gpu_decode import DecodeSteps
from zqserve.engine_core.model.model_loader import LoadedModel, load_model
from zqserve.kernels.attention_batch import make_batch
from zqserve.kernels.triton.decode_attention import split_size
from zqserve.kernels.triton.request_state import RequestState

BLOCK_SIZE = 16

_LLAMA: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
_QWEN3 = {**_LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "rms_norm_eps": 1e-6}
CONFIGS = {
    "Llama-3.1-8B": {
        **_LLAMA,
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    },
    "Qwen3-0.6B": {
        **_QWEN3,
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
}
_TINY = {
    "dtype": "float32",
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
TINY_CONFIGS = {name: {**config, **_TINY} for name, config in CONFIGS.items()}
"""The same architectures, small enough for Triton's interpreter."""


def write_config(config: dict[str, Any], folder: Path) -> Path:
    """A model directory with nothing but a config."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@dataclass
class GpuModel:
    """A model as the engine loads it, with a cache of `num_blocks` blocks."""

    loaded: LoadedModel
    device: Device
    max_model_len: int
    num_blocks: int

    @staticmethod
    def load(folder: Path, max_model_len: int, num_seqs: int) -> GpuModel:
        """`num_seqs` sequences of `max_model_len` tokens fit into the cache."""
        config = EngineConfig(model=str(folder), device="cuda", load_format="dummy")
        device = open_device(config, max_model_len)
        with no_init_weights(), torch.inference_mode():
            loaded = load_model(config, device, max_model_len, lambda line: None)
            for name, weight in loaded.model.named_parameters():
                if weight.dim() > 1:
                    weight.normal_(0, 0.02)
                elif name.endswith("bias"):
                    weight.zero_()
        num_blocks = num_seqs * -(-max_model_len // BLOCK_SIZE)
        caches = kv_cache.make_caches(loaded.attention.geometry, num_blocks, BLOCK_SIZE, loaded.dtype, device)
        loaded.attention.set_caches(caches)
        return GpuModel(loaded, device, max_model_len, num_blocks)

    @property
    def weight_bytes(self) -> int:
        """What a decode step reads of weights: of a separate input embedding, next to nothing."""
        embeddings = self.loaded.model.get_input_embeddings().weight
        head = self.loaded.model.get_output_embeddings().weight
        total = sum(weight.numel() * weight.element_size() for weight in self.loaded.model.parameters())
        return total - (0 if head is embeddings else embeddings.numel() * embeddings.element_size())

    @property
    def key_bytes(self) -> int:
        """Bytes of keys and values of one token."""
        shapes = self.loaded.attention.geometry.values()
        return sum(s.num_kv_heads * (s.head_dim + s.value_dim) for s in shapes) * self.loaded.dtype.itemsize

    def block_tables(self, num_seqs: int) -> np.ndarray:
        """int32 [num_seqs, max_blocks]: blocks of their own for each sequence."""
        each = -(-self.max_model_len // BLOCK_SIZE)
        return np.arange(num_seqs * each, dtype=np.int32).reshape(num_seqs, each)

    def prefill(self, token_ids: torch.Tensor) -> torch.Tensor:
        """One forward over prompts int64 [num_seqs, length], each from the start of its blocks; the last logits."""
        num_seqs, length = token_ids.shape
        group = max(s.num_heads // s.num_kv_heads for s in self.loaded.attention.geometry.values())
        lens = np.full(num_seqs, length, np.int32)
        self.loaded.attention.set_batch(
            make_batch(lens, np.zeros(num_seqs, np.int32), self.block_tables(num_seqs), BLOCK_SIZE, group)
        )
        positions = torch.arange(length, device=token_ids.device).repeat(num_seqs)
        last = torch.arange(1, num_seqs + 1, device=token_ids.device) * length - 1
        with torch.inference_mode():
            output = self.loaded.model(
                input_ids=token_ids.reshape(1, -1), position_ids=positions[None], use_cache=False, logits_to_keep=last
            )
        return output.logits[0]

    def decode_steps(self, last_tokens: torch.Tensor, context_len: int) -> DecodeSteps:
        """Greedy steps of sequences behind `context_len` computed tokens; last_tokens int64 [num_seqs]."""
        num_seqs, device = len(last_tokens), self.device.torch_device
        head = self.loaded.model.get_output_embeddings()
        requests = RequestState.empty(num_seqs, head.out_features, num_automaton_states=0, device=device)
        steps = DecodeSteps(
            *(self.loaded.model, self.loaded.attention, requests, num_seqs, self.max_model_len),
            split=split_size(self.max_model_len),
            block_size=BLOCK_SIZE,
            device=device,
        )
        steps.request_rows.copy_(torch.arange(num_seqs))
        table = torch.from_numpy(self.block_tables(num_seqs)).to(device)
        steps.state.block_table.copy_(table)
        steps.state.token_ids.copy_(last_tokens)
        steps.state.positions.fill_(context_len)
        steps.state.num_keys.fill_(context_len + 1)
        steps.state.slots.copy_(table[:, context_len // BLOCK_SIZE].long() * BLOCK_SIZE + context_len % BLOCK_SIZE)
        return steps
