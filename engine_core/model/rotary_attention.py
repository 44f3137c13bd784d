"""An attention layer in three kernels, in place of transformers' module that computes the same.

One product makes queries, keys and values; one kernel normalises, rotates, writes the cache and attends; one product
makes the output. Which modules can be replaced is found out by trying: their linear layers have the usual names, and
the attention function is called with what the kernel's plain form makes of their outputs. Used by `model_surgery`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...kernels.int8_weight import Int8Rounding
from ...kernels.kernel_sequence import Buffer
from ...kernels.packed_linear import can_be_appended, pack_together
from ...kernels.paged_attention import HeadShapes
from ...kernels.reference import rotate_heads
from ...kernels.rms_norm import RMSNormKernel
from ...kernels.rotary import Rotary, RotaryBuffers
from ...kernels.thread_pool import ThreadPool
from .attention import AttentionLayers
from .stand_ins import Call, agree, probe_values, stand_ins
from .step_buffers import StepBuffers

INPUTS = (("q_proj", "k_proj", "v_proj"), ("qkv_proj",))
"""Names of the linear layers that make queries, keys and values: three, or one that makes them in this order."""

OUTPUTS = ("o_proj", "dense", "out_proj")
NORMS = (("q_norm", "k_norm"), ("q_layernorm", "k_layernorm"))

PROBE_TOKENS = 2
PROBE_POSITION = 1_000_000
"""Far enough that a layer that scales by the position shows it."""


@dataclass(frozen=True)
class Heads:
    """What a recognised module does between its linear layers."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    value_dim: int
    query_norm: RMSNormKernel | None
    key_norm: RMSNormKernel | None
    scale: float | None
    sliding_window: int | None
    softcap: float | None


class RotaryAttention(nn.Module):
    """Self-attention with rotary embedding over the paged cache of one layer."""

    def __init__(
        self, project: nn.Module, heads: Heads, attention: AttentionLayers, layer_idx: int, output: nn.Module
    ) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self._project = project
        self._output = output
        self._heads = heads
        self._attention = attention

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        *_args: Any,
        residual: torch.Tensor | None = None,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """hidden_states [1, num_tokens, hidden_size] to the same shape; position_embeddings: cosines and sines,
        [1, num_tokens, rotary_dim]; `residual`, of the shape of hidden_states, is added to the output.
        """
        heads = self._heads
        cos, sin = position_embeddings
        projected = self._project(hidden_states)
        num_tokens, width = projected.shape[1:]
        keys_from = heads.num_heads * heads.head_dim
        values_from = keys_from + heads.num_kv_heads * heads.head_dim
        out = self._attention.attend(
            self.layer_idx,
            projected.as_strided((num_tokens, heads.num_heads, heads.head_dim), (width, heads.head_dim, 1)),
            projected.as_strided(
                (num_tokens, heads.num_kv_heads, heads.head_dim), (width, heads.head_dim, 1), keys_from
            ),
            projected.as_strided(
                (num_tokens, heads.num_kv_heads, heads.value_dim), (width, heads.value_dim, 1), values_from
            ),
            scale=heads.scale,
            sliding_window=heads.sliding_window,
            softcap=heads.softcap,
            rotary=Rotary(cos[0], sin[0], heads.query_norm, heads.key_norm),
        )
        return self._output(out.view(1, num_tokens, -1), residual), None

    @property
    def can_be_appended(self) -> bool:
        return can_be_appended(self._project) and can_be_appended(self._output)

    def append_to(self, x: Buffer, out: Buffer, residual: Buffer, buffers: StepBuffers) -> None:
        """Add what `forward` does to a sequence of kernels."""
        assert can_be_appended(self._project)
        assert can_be_appended(self._output)
        heads = self._heads
        projected = buffers.get("projected", self._project.out_bytes)
        value_bytes = x.row_bytes // self._project.in_features * heads.value_dim
        attended = buffers.get("attended", heads.num_heads * value_bytes)
        self._project.append_to(buffers.sequence, x, projected)
        self._attention.append_to(
            buffers.sequence,
            self.layer_idx,
            projected,
            attended,
            HeadShapes(heads.num_heads, heads.num_kv_heads, heads.head_dim, heads.value_dim),
            buffers.batch,
            scale=heads.scale,
            sliding_window=heads.sliding_window,
            softcap=heads.softcap,
            rotary=RotaryBuffers(buffers.cos, buffers.sin, heads.query_norm, heads.key_norm),
        )
        self._output.append_to(buffers.sequence, attended, out, residual)


@dataclass(frozen=True)
class RecognisedAttention:
    """The linear layers of an attention module, and what it does between them."""

    inputs: list[nn.Linear]
    heads: Heads
    output: nn.Linear


def fuse_attention(
    module: nn.Module,
    call: Call,
    attention: AttentionLayers,
    fuse_norm: Callable[[nn.Module], RMSNormKernel | None],
    threads: ThreadPool,
    rounding: Int8Rounding | None = None,
) -> RotaryAttention | None:
    """The faster form of an attention module, or None where it is of another kind."""
    found = recognise_attention(module, call, attention, fuse_norm)
    if found is None:
        return None
    project = pack_together(found.inputs, threads, rounding)
    output = pack_together([found.output], threads, rounding)
    if project is None or output is None:
        return None
    layer_idx: Any = module.layer_idx
    return RotaryAttention(project, found.heads, attention, layer_idx, output)


def recognise_attention(
    module: nn.Module,
    call: Call,
    attention: AttentionLayers,
    fuse_norm: Callable[[nn.Module], RMSNormKernel | None],
) -> RecognisedAttention | None:
    """What an attention module consists of, or None where it is of another kind."""
    children = dict(module.named_children())
    for names in INPUTS:
        output_name = next((name for name in OUTPUTS if name in children), None)
        if output_name is None or any(name not in children for name in names):
            continue
        linears: list[Any] = [children[name] for name in (*names, output_name)]
        if any(type(linear) is not nn.Linear for linear in linears):
            continue
        norms = _head_norms(children, fuse_norm)
        heads = None if norms is None else _recognise(module, call, names, output_name, norms, attention)
        if heads is not None:
            return RecognisedAttention(linears[:-1], heads, linears[-1])
    return None


Norms = tuple[RMSNormKernel | None, RMSNormKernel | None]


def _head_norms(children: dict[str, nn.Module], fuse_norm: Callable[[nn.Module], RMSNormKernel | None]) -> Norms | None:
    """The norms of query and key heads: no norms, two, or None for norms of another kind."""
    for query_name, key_name in NORMS:
        if query_name in children and key_name in children:
            query_norm, key_norm = fuse_norm(children[query_name]), fuse_norm(children[key_name])
            return None if query_norm is None or key_norm is None else (query_norm, key_norm)
    return None, None


def _recognise(
    module: Any, call: Call, names: tuple[str, ...], output_name: str, norms: Norms, attention: AttentionLayers
) -> Heads | None:
    """What the module does between its linear layers, where that is what `Rotary` and the paged attention do."""
    widths = [getattr(module, name).out_features for name in names]
    output = getattr(module, output_name)
    dtype = output.weight.dtype
    embeddings: Any = call.kwargs.get("position_embeddings")
    if dtype not in (torch.bfloat16, torch.float32) or not _are_embeddings(embeddings, dtype):
        return None
    rotary_dim = embeddings[0].shape[-1]
    cos, sin = (probe_values(1, PROBE_TOKENS, rotary_dim, dtype=dtype, seed=seed) for seed in (1, 2))
    projected = probe_values(1, PROBE_TOKENS, sum(widths), dtype=dtype, seed=3)
    attended = probe_values(1, PROBE_TOKENS, output.in_features, dtype=dtype, seed=4)
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]] = []

    def record(
        _module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_args: Any, **kwargs: Any
    ) -> torch.Tensor:
        seen.append((query.clone(), key.clone(), value.clone(), kwargs))
        return attended.clone().view(1, PROBE_TOKENS, query.shape[1], -1)

    kwargs = {**call.kwargs, "position_embeddings": (cos, sin)}
    for name in ("position_ids", "cache_position"):
        if isinstance(kwargs.get(name), torch.Tensor):
            kwargs[name] = kwargs[name] + PROBE_POSITION
    try:
        with (
            stand_ins(module, {**dict(zip(names, projected.split(widths, -1), strict=True)), output_name: None}),
            attention.intercepted(record),
        ):
            result = module(*call.args, **kwargs)
        query, key, value, parameters = seen[0]
        num_heads, head_dim = query.shape[1], query.shape[3]
        num_kv_heads, value_dim = value.shape[1], value.shape[3]
        sizes = [num_heads * head_dim, num_kv_heads * head_dim, num_kv_heads * value_dim]
        queries, keys, values = projected[0].split(sizes, -1)
    except Exception:  # whatever a module of another kind raises when its parts are not what it expects
        return None
    if rotary_dim > head_dim or any(norm is not None and norm.weight.numel() != head_dim for norm in norms):
        return None
    expected_query = rotate_heads(queries.unflatten(-1, (num_heads, head_dim)), cos[0], sin[0], norms[0])
    expected_key = rotate_heads(keys.unflatten(-1, (num_kv_heads, head_dim)), cos[0], sin[0], norms[1])
    same = (
        len(seen) == 1
        and agree(query[0].transpose(0, 1), expected_query)
        and agree(key[0].transpose(0, 1), expected_key)
        and agree(value[0].transpose(0, 1), values.unflatten(-1, (num_kv_heads, value_dim)))
        and isinstance(result, tuple)
        and len(result) == 2
        and agree(result[0], attended)
        and result[1] is None
    )
    if not same:
        return None
    return Heads(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        query_norm=norms[0],
        key_norm=norms[1],
        scale=parameters.get("scaling"),
        sliding_window=parameters.get("sliding_window"),
        softcap=parameters.get("softcap"),
    )


def _are_embeddings(value: Any, dtype: torch.dtype) -> bool:
    """Whether `value` is a pair of cosines and sines, [1, num_tokens, rotary_dim] with an even rotary_dim."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    return all(
        isinstance(part, torch.Tensor)
        and part.dtype == dtype
        and part.shape[:-1] == (1, PROBE_TOKENS)
        and part.shape[-1] % 2 == 0
        for part in value
    )
