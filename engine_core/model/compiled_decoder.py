"""The whole forward of a Llama-like model as one compiled call, in place of transformers' code around the layers.

A step of few tokens would spend more time on the way from one kernel to the next than in them. Which models are of the
kind is found out by trying, with stand-ins for their layers; each layer adds its kernels to the sequence itself. The
arithmetic is that of the layers' own `forward`, kernel by kernel, so the logits have the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ...kernels.attention_batch import BATCH_SIZE, AttentionBatch
from ...kernels.kernel_sequence import KernelSequence
from ...kernels.packed_linear import Appendable, can_be_appended
from ...kernels.rms_norm import RMSNormKernel
from ...kernels.row_gather import append_gather
from ...kernels.thread_pool import ThreadPool
from .decoder_layer import PreNormDecoderLayer
from .fused_norm import FusedRMSNorm
from .rotary_table import RotaryTable
from .stand_ins import probe_values, stand_ins
from .step_buffers import StepBuffers

TOKENS, WANTED = 0, 1
"""The counts of the sequence: tokens of a step, and those of them whose logits are wanted."""

LAYERS, NORM, ROTARY = "layers", "norm", "rotary_emb"
PROBE_IDS, PROBE_POSITIONS = (1, 0, 3), (2, 3, 5)


@dataclass(frozen=True)
class DecoderParts:
    """A model that is nothing but embeddings, layers, a norm and a head."""

    embeddings: torch.Tensor
    """[vocab_size, hidden_size], contiguous."""
    rotary: nn.Module
    layers: list[PreNormDecoderLayer]
    norm: RMSNormKernel
    head: Appendable


class CompiledDecoder:
    """Token ids to logits."""

    def __init__(self, parts: DecoderParts, threads: ThreadPool, max_positions: int) -> None:
        """The caches of the model's attention must be set."""
        dtype = parts.embeddings.dtype
        hidden_size = parts.embeddings.shape[1]
        sequence = self._sequence = KernelSequence(threads, num_counts=2)
        self._table = RotaryTable(parts.rotary, dtype, hidden_size, max_positions)
        self._batch = np.zeros(BATCH_SIZE, np.int64)
        self._token_ids, self._positions = sequence.buffer(8, TOKENS), sequence.buffer(8, TOKENS)
        self._wanted = sequence.buffer(8, WANTED)

        row_bytes = self._table.row_bytes
        cos, sin = sequence.buffer(row_bytes, TOKENS), sequence.buffer(row_bytes, TOKENS)
        buffers = StepBuffers(sequence, TOKENS, cos, sin, self._batch)
        hidden_bytes = hidden_size * dtype.itemsize
        hidden = buffers.get("hidden", hidden_bytes)
        append_gather(sequence, parts.embeddings, self._token_ids, hidden)
        append_gather(sequence, self._table.cos, self._positions, cos)
        append_gather(sequence, self._table.sin, self._positions, sin)
        for layer in parts.layers:
            layer.append_to(hidden, buffers)

        last, normed = (sequence.buffer(hidden_bytes, WANTED) for _ in range(2))
        append_gather(sequence, hidden, self._wanted, last)
        parts.norm.append_to(sequence, last, normed)
        self._logits = sequence.buffer(parts.head.out_bytes // dtype.itemsize * 4, WANTED)
        parts.head.append_to(sequence, normed, self._logits)

    def logits(
        self, token_ids: np.ndarray, positions: np.ndarray, batch: AttentionBatch, wanted: np.ndarray
    ) -> torch.Tensor:
        """Logits float32 [len(wanted), vocab_size] of the wanted ones of a step's flat tokens, until the next call.

        token_ids, positions, wanted: int64.
        """
        sequence = self._sequence
        self._table.fill(batch.last_position)
        sequence.prepare([len(token_ids), len(wanted)])
        sequence.array(self._token_ids, np.int64)[:] = token_ids
        sequence.array(self._positions, np.int64)[:] = positions
        sequence.array(self._wanted, np.int64)[:] = wanted
        self._batch[:] = batch.values
        sequence.run()
        return sequence.view(self._logits, torch.float32)


def compile_decoder(model: nn.Module, threads: ThreadPool, max_positions: int) -> CompiledDecoder | None:
    """The faster form of a model whose parts have been replaced and whose caches are set; None for another kind."""
    parts = _recognise(model)
    return None if parts is None else CompiledDecoder(parts, threads, max_positions)


def _recognise(model: Any) -> DecoderParts | None:
    base = getattr(model, getattr(model, "base_model_prefix", ""), None)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers, norm, rotary = (getattr(base, name, None) for name in (LAYERS, NORM, ROTARY))
    if not isinstance(base, nn.Module) or not isinstance(rotary, nn.Module) or not isinstance(layers, nn.ModuleList):
        return None
    if not isinstance(embedding, nn.Embedding) or not isinstance(norm, FusedRMSNorm) or not can_be_appended(head):
        return None
    fused = [layer for layer in layers if isinstance(layer, PreNormDecoderLayer) and layer.can_be_appended]
    weight = embedding.weight
    known = len(fused) == len(layers) > 0 and weight.is_contiguous() and _is_plain(model, base, rotary)
    if not known or weight.dtype not in (torch.bfloat16, torch.float32):
        return None
    return DecoderParts(weight.detach(), rotary, fused, norm.kernel, head)


def _is_plain(model: Any, base: Any, rotary: nn.Module) -> bool:
    """Whether the model hands from each part to the next what the one before gave, and nothing else happens."""
    weight = model.get_input_embeddings().weight
    head_name = next((name for name, child in model.named_children() if child is model.get_output_embeddings()), None)
    if head_name is None:
        return False
    dtype, shape = weight.dtype, (1, len(PROBE_IDS), weight.shape[1])
    names = [name for name, _ in base.layers.named_children()]
    states = [probe_values(*shape, dtype=dtype, seed=seed) for seed in range(len(names) + 1)]
    logits = probe_values(1, len(PROBE_IDS), weight.shape[0], dtype=dtype, seed=len(states))
    ids, positions = torch.tensor([PROBE_IDS]), torch.tensor([PROBE_POSITIONS])
    try:
        with (
            torch.inference_mode(),
            stand_ins(base.layers, dict(zip(names, states, strict=False))) as layers,
            stand_ins(base, {NORM: states[-1]}) as norm,
            stand_ins(model, {head_name: logits}) as head,
        ):
            result = model(input_ids=ids, position_ids=positions, use_cache=False).logits
            angles = rotary(states[0], positions)
    except Exception:  # whatever a model of another kind raises when its parts are not what it expects
        return False
    placed = [*layers.values(), norm[NORM], head[head_name]]
    expected = [weight[ids], *states]
    passed_on = all(
        part.input is not None and torch.equal(part.input, x) for part, x in zip(placed, expected, strict=True)
    )
    return (
        passed_on and torch.equal(result, logits) and all(_are_given(layer.kwargs, angles) for layer in layers.values())
    )


def _are_given(kwargs: dict[str, Any], angles: tuple[torch.Tensor, ...]) -> bool:
    """Whether a layer was called with these cosines and sines."""
    given = kwargs.get("position_embeddings")
    return isinstance(given, tuple) and all(torch.equal(a, b) for a, b in zip(given, angles, strict=True))
