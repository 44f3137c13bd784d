"""Choosing tokens from logits on a GPU: `sampling`'s twin. A program a row, read a few times; nothing is sorted.

The limits of top-k and top-p are found by bisection over the bits of the weights: each pass counts or sums the weights
from a threshold up, and notes the nearest weights on both sides of it, so that the search ends after a few passes. All
sums run in one fixed order, so a row's token is the same in any batch. The rules, the order of the limits and the
random number are the CPU's; where a draw falls between two tokens to within rounding, the two may differ.
"""

# Inside a kernel Triton's functions have other types than their signatures say.
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from .attention_tile import LOG2E
from .launch import Launch
from .philox import uniform

BLOCK = 4096
_ONE: tl.constexpr = tl.constexpr(0x3F800000)
"""The bits of 1.0, the largest weight."""
_NONE: tl.constexpr = tl.constexpr(0x7FFFFFFF)


@dataclass(frozen=True)
class SamplingState:
    """Parameters of requests on the device, a row a request: tensors [max_num_seqs]."""

    temperature: torch.Tensor
    """float32, as `top_p` and `min_p`."""
    top_p: torch.Tensor
    min_p: torch.Tensor
    top_k: torch.Tensor
    """int64, as the others; 0: all."""
    seed: torch.Tensor
    sample_index: torch.Tensor
    position: torch.Tensor

    @staticmethod
    def greedy(num_rows: int, device: torch.device) -> SamplingState:
        """Rows that take the likeliest token."""
        floats = torch.zeros(3, num_rows, device=device)
        return SamplingState(*floats, *torch.zeros(4, num_rows, dtype=torch.int64, device=device))

    def set(self, rows: torch.Tensor, other: SamplingState) -> None:
        """Take the parameters of `other`, row by row, into `rows`, int64."""
        for name in SamplingState.__dataclass_fields__:
            getattr(self, name)[rows] = getattr(other, name)


def sample_launch(
    tokens: torch.Tensor,
    logits: torch.Tensor,
    row_of: torch.Tensor,
    state: SamplingState,
    seen: torch.Tensor | None = None,
) -> Launch:
    """Draw `tokens` int64 [num_rows] from logits float32 [num_rows, vocab_size]; -1 where no logit is finite.

    `row_of` int32 [num_rows] says where a row's request stands in `state`, and in `seen` (see `logits`), which counts
    what is drawn.
    """
    num_rows, vocab_size = logits.shape
    return Launch(
        sample_kernel,
        (num_rows,),
        {
            "tokens": tokens,
            "logits": logits,
            "vocab_size": vocab_size,
            "row_of": row_of,
            "temperature": state.temperature,
            "top_p": state.top_p,
            "min_p": state.min_p,
            "top_k": state.top_k,
            "seed": state.seed,
            "sample_index": state.sample_index,
            "position": state.position,
            "seen": seen,
        },
        {"BLOCK": BLOCK},
        num_warps=16,
    )


def score_launch(
    log_sums: torch.Tensor, logprobs: torch.Tensor, ranks: torch.Tensor, logits: torch.Tensor, tokens: torch.Tensor
) -> Launch:
    """Each row's log of the sum of exponentials and its token's logprob, float64, and rank, int64: 1 is the likeliest.

    logits float32 [num_rows, vocab_size], tokens int64 [num_rows].
    """
    num_rows, vocab_size = logits.shape
    return Launch(
        score_kernel,
        (num_rows,),
        {
            "log_sums": log_sums,
            "logprobs": logprobs,
            "ranks": ranks,
            "logits": logits,
            "tokens": tokens,
            "vocab_size": vocab_size,
        },
        {"BLOCK": BLOCK},
        num_warps=16,
    )


@triton.jit
def _weights_at(logits, start, vocab_size, maximum, inverse, BLOCK: tl.constexpr):
    token = start + tl.arange(0, BLOCK)
    values = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
    return token, tl.exp2((values - maximum) * inverse)


@triton.jit
def _measure(logits, vocab_size, maximum, inverse, least, threshold, BLOCK: tl.constexpr):
    """Of the weights whose bits are at least `least`: how many, and how much, from `threshold` up; the bits of the
    smallest of those, and of the largest of the others.
    """
    count = 0
    mass = tl.full([], 0.0, tl.float64)
    above = tl.full([BLOCK], _NONE, tl.int32)
    below = tl.full([BLOCK], 0, tl.int32)
    for start in range(0, vocab_size, BLOCK):
        _, weights = _weights_at(logits, start, vocab_size, maximum, inverse, BLOCK)
        bits = weights.to(tl.int32, bitcast=True)
        counted = (bits >= threshold) & (bits >= least)
        count += tl.sum(counted.to(tl.int32), 0)
        mass += tl.sum(tl.where(counted, weights, 0.0), 0).to(tl.float64)
        above = tl.where(counted, tl.minimum(above, bits), above)
        below = tl.where((bits < threshold) & (bits >= least), tl.maximum(below, bits), below)
    return count, mass, tl.min(above, 0), tl.max(below, 0)


@triton.jit
def _threshold(logits, vocab_size, maximum, inverse, least, min_count, min_mass, BLOCK: tl.constexpr):
    """The bits of the largest weight, `least` at least, from which up there are `min_count` weights of `min_mass`."""
    low = least
    high = tl.full([], _ONE, tl.int32) + 1
    while high - low > 1:
        middle = low + (high - low) // 2
        count, mass, above, below = _measure(logits, vocab_size, maximum, inverse, least, middle, BLOCK)
        if (count >= min_count) & (mass >= min_mass):
            low = above
        else:
            high = tl.maximum(below, low) + 1
    return low


@triton.jit
def _draw(logits, vocab_size, maximum, inverse, least, top_k, top_p, draw, BLOCK: tl.constexpr):
    """The token that `draw` in [0, 1) falls on, of the weights that the limits keep."""
    count, mass, _, _ = _measure(logits, vocab_size, maximum, inverse, least, least, BLOCK)
    no_mass = tl.full([], 0.0, tl.float64)
    if (top_k > 0) & (top_k < count):
        least = _threshold(logits, vocab_size, maximum, inverse, least, top_k.to(tl.int32), no_mass, BLOCK)
        count, mass, _, _ = _measure(logits, vocab_size, maximum, inverse, least, least, BLOCK)
    num_equals = count
    if top_p < 1.0:
        target = top_p.to(tl.float64) * mass
        least = _threshold(logits, vocab_size, maximum, inverse, least, 1, target, BLOCK)
        all_equals, _, _, _ = _measure(logits, vocab_size, maximum, inverse, least, least, BLOCK)
        more, mass, _, _ = _measure(logits, vocab_size, maximum, inverse, least + 1, least + 1, BLOCK)
        # Of the weights that equal the last one, the first tokens are kept: as many as the target needs.
        equal = least.to(tl.float32, bitcast=True).to(tl.float64)
        needed = tl.maximum(tl.ceil((target - mass) / equal), 1.0)
        num_equals = tl.minimum(needed, (all_equals - more).to(tl.float64)).to(tl.int32)
        mass += equal * num_equals.to(tl.float64)
    target = draw * mass
    running = no_mass
    equals = 0
    last = -1
    found = -1
    for start in range(0, vocab_size, BLOCK):
        token, weights = _weights_at(logits, start, vocab_size, maximum, inverse, BLOCK)
        bits = weights.to(tl.int32, bitcast=True)
        is_equal = bits == least
        rank = equals + tl.cumsum(is_equal.to(tl.int32), 0)
        kept = (bits > least) | (is_equal & (rank <= num_equals))
        weights = tl.where(kept, weights, 0.0)
        tile_mass = tl.sum(weights, 0).to(tl.float64)
        last = tl.maximum(last, tl.max(tl.where(kept, token, -1), 0))
        if (found < 0) & (running + tile_mass > target):
            passed = running + tl.cumsum(weights.to(tl.float64), 0) > target
            found = tl.min(tl.where(kept & passed, token, tl.max(tl.where(kept, token, -1), 0)), 0)
        running += tile_mass
        equals += tl.sum(is_equal.to(tl.int32), 0)
    return tl.where(found < 0, last, found)


@triton.jit
def sample_kernel(
    tokens,
    logits,
    vocab_size,
    row_of,
    temperature,
    top_p,
    min_p,
    top_k,
    seed,
    sample_index,
    position,
    seen,
    BLOCK: tl.constexpr,
):
    """Grid [rows]."""
    row = tl.program_id(0).to(tl.int64)
    request = tl.load(row_of + row).to(tl.int64)
    logits += row * vocab_size
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    best_token = tl.full([BLOCK], _NONE, tl.int32)
    for start in range(0, vocab_size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        values = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
        best_token = tl.where(values > best, token, best_token)
        best = tl.where(values > best, values, best)
    maximum = tl.max(best, 0)
    chosen = tl.min(tl.where(best == maximum, best_token, _NONE), 0)
    heat = tl.load(temperature + request)
    if (maximum > float("-inf")) & (maximum < float("inf")):
        if heat > 0.0:
            # The bits of positive floats are ordered as they are; 1 is the smallest above 0.
            least = tl.maximum(tl.load(min_p + request).to(tl.int32, bitcast=True), 1)
            chosen = _draw(
                logits, vocab_size, maximum, LOG2E / heat, least,
                tl.load(top_k + request), tl.load(top_p + request),
                uniform(tl.load(seed + request), tl.load(sample_index + request), tl.load(position + request)),
                BLOCK,
            )  # fmt: skip
        if seen is not None:
            at = seen + request * vocab_size + chosen
            tl.store(at, tl.load(at) + 1)
    else:
        chosen = -1
    tl.store(tokens + row, chosen.to(tl.int64))


@triton.jit
def score_kernel(log_sums, logprobs, ranks, logits, tokens, vocab_size, BLOCK: tl.constexpr):
    """Grid [rows]."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * vocab_size
    chosen = tl.load(logits + tl.load(tokens + row))
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    larger = tl.zeros([BLOCK], tl.int32)
    for start in range(0, vocab_size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        values = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
        best = tl.maximum(best, values)
        larger += (values > chosen).to(tl.int32)
    maximum = tl.max(best, 0)
    mass = tl.full([], 0.0, tl.float64)
    for start in range(0, vocab_size, BLOCK):
        _, weights = _weights_at(logits, start, vocab_size, maximum, LOG2E, BLOCK)
        mass += tl.sum(weights, 0).to(tl.float64)
    log_sum = maximum.to(tl.float64) + tl.log(mass)
    tl.store(log_sums + row, log_sum)
    tl.store(logprobs + row, chosen.to(tl.float64) - log_sum)
    tl.store(ranks + row, (tl.sum(larger, 0) + 1).to(tl.int64))
