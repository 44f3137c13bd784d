"""The launches of the GPU's kernels in the shapes of real models, on tensors that take no memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from zqserve.kernels.rotary import Rotary
from zqserve.kernels.triton.decode_attention import split_size
from zqserve.kernels.triton.gated_activation import GatedActivation
from zqserve.kernels.triton.launch import Launch
from zqserve.kernels.triton.paged_attention import DeviceBatch, PagedAttention
from zqserve.kernels.triton.request_state import RequestState, choose_launches
from zqserve.kernels.triton.rms_norm import RMSNormKernel
from zqserve.kernels.triton.rotary import rotate_launch
from zqserve.kernels.triton.sampling import score_launch

NUM_SEQS, NUM_TOKENS, BLOCK_SIZE, MAX_MODEL_LEN = 64, 512, 16, 32_768


@dataclass(frozen=True)
class ModelShape:
    """What a model's kernels are compiled for."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    activation: str = "silu"
    head_norms: bool = False
    sliding_window: int = 0
    softcap: float = 0.0
    sinks: bool = False


MODELS = {
    "Llama-3.1-8B": ModelShape(32, 8, 128, 4096, 14_336, 128_256),
    "Qwen3-0.6B": ModelShape(16, 8, 128, 1024, 3072, 151_936, head_norms=True),
    "Gemma-2-9B": ModelShape(16, 8, 256, 3584, 14_336, 256_000, "gelu_tanh", sliding_window=4096, softcap=50.0),
    "gpt-oss-20b": ModelShape(64, 8, 64, 2880, 2880, 201_088, sliding_window=128, sinks=True),
    "Phi-2": ModelShape(32, 32, 80, 2560, 10_240, 51_200),
}

_meta = partial(torch.empty, device="meta")
_bf16 = partial(_meta, dtype=torch.bfloat16)
_ints = partial(_meta, dtype=torch.int32)
_longs = partial(_meta, dtype=torch.int64)


def attention_launches(shape: ModelShape, capability: int) -> Iterator[Launch]:
    """Rotation and cache write, decode and prompt attention of one layer, as a step of both launches them."""
    heads, kv_heads, dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
    split = split_size(MAX_MODEL_LEN)
    attention = PagedAttention(capability, split)
    query, key = _bf16(NUM_TOKENS, heads, dim), _bf16(NUM_TOKENS, kv_heads, dim)
    cache = _bf16(1024, kv_heads, BLOCK_SIZE, dim)
    norm = RMSNormKernel(_bf16(dim), 1e-6, round_before_weight=True) if shape.head_norms else None
    rotary = Rotary(_bf16(NUM_TOKENS, dim), _bf16(NUM_TOKENS, dim), norm, norm)
    batch = DeviceBatch(
        query_start=_ints(NUM_SEQS + 1),
        num_keys=_ints(NUM_SEQS),
        block_table=_ints(NUM_SEQS, MAX_MODEL_LEN // BLOCK_SIZE),
        slots=_longs(NUM_TOKENS),
        decode_seqs=_ints(NUM_SEQS),
        item_seq=_ints(NUM_SEQS),
        item_start=_ints(NUM_SEQS),
        tokens_per_item=attention.tokens_per_item(dim, heads // kv_heads, 2),
        num_splits=MAX_MODEL_LEN // split,
        split=split,
    )
    yield rotate_launch(query, query, key, key, cache, cache, batch.slots, rotary)
    sinks = _meta(heads) if shape.sinks else None
    yield from attention.attend_launches(
        query, query, cache, cache, batch, dim**-0.5, shape.sliding_window, shape.softcap, sinks
    )


def layer_launches(shape: ModelShape) -> Iterator[Launch]:
    """Norm and gate of one layer."""
    hidden = _bf16(NUM_TOKENS, shape.hidden_size)
    norm = RMSNormKernel(_bf16(shape.hidden_size), 1e-6, round_before_weight=True)
    yield norm.launch(hidden, hidden, hidden, hidden)
    gate = GatedActivation(shape.activation)
    yield gate.launch(_bf16(NUM_TOKENS, shape.intermediate_size), _bf16(NUM_TOKENS, 2 * shape.intermediate_size))


def sampling_launches(shape: ModelShape) -> Iterator[Launch]:
    """What chooses the tokens of a step."""
    logits, rows, tokens = _meta(NUM_SEQS, shape.vocab_size), _ints(NUM_SEQS), _longs(NUM_SEQS)
    state = RequestState.empty(NUM_SEQS, shape.vocab_size, num_automaton_states=1000, device=torch.device("meta"))
    yield from choose_launches(tokens, logits, rows, state)
    doubles = _meta(2, NUM_SEQS, dtype=torch.float64)
    yield score_launch(doubles[0], doubles[1], tokens, logits, tokens)


def all_launches(capability: int) -> Iterator[tuple[str, Launch]]:
    """(model, launch) of every kernel that the chip of this capability would be given."""
    for name, shape in MODELS.items():
        for launch in attention_launches(shape, capability):
            yield name, launch
    for name in ("Llama-3.1-8B", "Gemma-2-9B"):
        for launch in layer_launches(MODELS[name]):
            yield name, launch
    for launch in sampling_launches(MODELS["Llama-3.1-8B"]):
        yield "Llama-3.1-8B", launch
