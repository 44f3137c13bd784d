"""Plain torch forms of the kernels, for any device: the oracle of the tests, and what runs where no compiled form does.

They share the signatures and the cache layout of the compiled forms (`paged_attention`, `sampling`), and promise
correctness, not speed or equal bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .attention_batch import AttentionBatch
from .int8_weight import Int8Weight
from .philox import uniform
from .rotary import Rotary
from .sampling import AllowedTokens, SamplingRows


class ReferenceAttention:
    """`PagedAttention` by gathering each sequence's keys and values."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        batch: AttentionBatch,
        *,
        scale: float,
        sliding_window: int = 0,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> torch.Tensor:
        """See `PagedAttention.__call__`."""
        value_dim, block_size = value.shape[2], value_cache.shape[2]
        if rotary is not None:
            query = rotate_heads(query, rotary.cos, rotary.sin, rotary.query_norm)
            key = rotate_heads(key, rotary.cos, rotary.sin, rotary.key_norm)
        # A sequence may share a block that another one fills in this step: all is written before anything is read.
        for seq, context_len in enumerate(batch.context_len.tolist()):
            first, last = batch.query_start[seq : seq + 2].tolist()
            positions = np.arange(context_len, context_len + last - first)
            blocks = torch.from_numpy(batch.block_table[seq, positions // block_size]).long().to(key.device)
            offsets = torch.from_numpy(positions % block_size).to(key.device)
            key_cache[blocks, :, :, offsets] = key[first:last]
            value_cache[blocks, :, offsets, :value_dim] = value[first:last]
        out = query.new_empty(query.shape[0], query.shape[1], value_dim)
        for seq, context_len in enumerate(batch.context_len.tolist()):
            first, last = batch.query_start[seq : seq + 2].tolist()
            num_keys = context_len + last - first
            table = torch.from_numpy(batch.block_table[seq, : -(-num_keys // block_size)]).long().to(key.device)
            keys = key_cache[table].permute(0, 3, 1, 2).flatten(0, 1)[:num_keys]
            values = value_cache[table].transpose(1, 2).flatten(0, 1)[:num_keys, :, :value_dim]
            out[first:last] = _attend(
                query[first:last], keys, values, context_len, scale, sliding_window, softcap, sinks
            )
        return out


def rotate_heads(
    heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, norm: Callable[[torch.Tensor], torch.Tensor] | None
) -> torch.Tensor:
    """Rotary embedding of heads [num_tokens, num_heads, head_dim], normalised before; see `rotary`."""
    if norm is not None:
        heads = norm(heads)
    turned, rest = heads[..., : cos.shape[-1]], heads[..., cos.shape[-1] :]
    first, second = turned.chunk(2, -1)
    turned = turned * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]
    return torch.cat((turned, rest), -1)


def _attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    context_len: int,
    scale: float,
    sliding_window: int,
    softcap: float,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One sequence: query [n, heads, dim], keys and values [context_len + n, kv_heads, dim]; float32 inside."""
    group = query.shape[1] // keys.shape[1]
    keys = keys.float().repeat_interleave(group, 1)
    values = values.float().repeat_interleave(group, 1)
    scores = torch.einsum("nhd,mhd->hnm", query.float(), keys) * scale
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(context_len, len(keys), device=keys.device)[:, None]
    place = torch.arange(len(keys), device=keys.device)[None, :]
    hidden = place > position
    if sliding_window > 0:
        hidden |= place <= position - sliding_window
    scores = scores.masked_fill(hidden, -torch.inf)
    if sinks is not None:
        sink_column = sinks.float()[:, None, None].expand(-1, len(query), 1)
        weights = torch.cat([scores, sink_column], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return torch.einsum("hnm,mhd->nhd", weights, values).to(query.dtype)


class ReferenceSampling:
    """`SamplingKernel` by sorting whole rows."""

    def sample(self, logits: torch.Tensor, rows: SamplingRows, allowed: AllowedTokens | None = None) -> np.ndarray:
        """See `SamplingKernel.sample`."""
        if allowed is not None:
            forbid_others(logits, allowed)
        draws = [
            uniform(seed, index, position)
            for seed, index, position in zip(rows.seed, rows.sample_index, rows.position, strict=True)
        ]
        tokens = [
            _sample_row(row, rows.temperature[i], int(rows.top_k[i]), rows.top_p[i], rows.min_p[i], draws[i])
            for i, row in enumerate(logits)
        ]
        return np.array(tokens, np.int64)

    def score(self, logits: torch.Tensor, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `SamplingKernel.score`."""
        log_sums = logits.double().logsumexp(-1)
        chosen = logits.gather(1, torch.from_numpy(tokens).to(logits.device)[:, None])
        logprobs = chosen[:, 0].double() - log_sums
        ranks = (logits > chosen).sum(-1) + 1
        return log_sums.cpu().numpy(), logprobs.cpu().numpy(), ranks.cpu().numpy()


def forbid_others(logits: torch.Tensor, allowed: AllowedTokens) -> None:
    """Set the logits [num_rows, vocab_size] of tokens that are not allowed to -inf.

    The words cross to the device as they are, and are taken apart there.
    """
    masked = np.flatnonzero(allowed.row >= 0)
    words = torch.from_numpy(allowed.words[allowed.row[masked]].view(np.int32)).to(logits.device)
    bits = (words[:, :, None] >> torch.arange(32, device=logits.device, dtype=torch.int32)) & 1
    forbidden = bits.flatten(1)[:, : logits.shape[1]] == 0
    rows = torch.from_numpy(masked).to(logits.device)
    logits[rows] = logits[rows].masked_fill(forbidden, -torch.inf)


def kept_weights(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """Unnormalised weights [vocab_size] of one row after min-p, top-k and top-p; float64."""
    weights = ((logits - logits.max()).double() / float(temperature)).exp()
    if min_p > 0:
        weights = weights.where(weights >= float(min_p), 0.0)
    if 0 < top_k < len(weights):
        weights = weights.where(weights >= weights.topk(top_k).values[-1], 0.0)
    if top_p < 1:
        falling, order = weights.sort(descending=True, stable=True)
        before = falling.cumsum(0) - falling
        keep = before < float(top_p) * falling.sum()
        weights = torch.zeros_like(weights).index_put((order[keep],), falling[keep])
    return weights


def _sample_row(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, min_p: float, draw: float) -> int:
    if not torch.isfinite(logits.max()):
        return -1
    if temperature == 0:
        return int(logits.argmax())
    running = kept_weights(logits, temperature, top_k, top_p, min_p).cumsum(0)
    return int(torch.searchsorted(running, draw * running[-1], right=True).clamp(max=len(running) - 1))


def int8_linear(
    x: torch.Tensor, weight: Int8Weight, bias: torch.Tensor | None = None, residual: torch.Tensor | None = None
) -> torch.Tensor:
    """`Int8Linear.forward` without an activation, up to its rounding of x: x [..., in_features] bfloat16, the product
    and the bias in float64.
    """
    y = x.double() @ (weight.values.double() * weight.scales.double()[:, None]).T
    if bias is not None:
        y += bias.double()
    y = y.to(x.dtype)
    return y if residual is None else residual + y
