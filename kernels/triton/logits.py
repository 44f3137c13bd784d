"""What requests ask for of their logits before a token is drawn: penalties, biases and fixed sets of tokens.

Penalties need to know which tokens a request has seen. That is kept on the device, a row a request: how often each
token stands in the output, and in the highest bit whether it stands in the prompt; the sampler counts as it draws.

A row whose request asks for nothing costs the look at that. Arithmetic is that of `engine_core`'s processors, operation
by operation: divisions round as IEEE 754 says, and nothing is fused, so that the logits are theirs to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from .launch import Launch

BLOCK = 1024
PROGRAMS = 32
"""Of a row, at most: many more cost time in rows that ask for nothing, fewer leave a chip idle that has few rows."""
MAX_EDITS = 1024
"""Tokens whose logits a request may have changed one by one."""
NEVER = 2**31 - 1
"""In `LogitEdits.begin`."""
IN_PROMPT = -(2**31)
_IN_PROMPT: tl.constexpr = tl.constexpr(IN_PROMPT)


@dataclass(frozen=True)
class LogitEdits:
    """Changes to single logits, a row a request, which stands for the first `count` entries of its row.

    Attributes:
        count: int32 [max_num_seqs].
        tokens: int32 [max_num_seqs, MAX_EDITS], distinct within a row.
        values: float32, of that shape: what is added.
        begin: int32, of that shape: the number of output tokens from which on the token may come, NEVER; forbidden
            before.
    """

    count: torch.Tensor
    tokens: torch.Tensor
    values: torch.Tensor
    begin: torch.Tensor

    @staticmethod
    def empty(num_rows: int, device: torch.device) -> LogitEdits:
        """No changes."""
        shape = (num_rows, MAX_EDITS)
        return LogitEdits(
            count=torch.zeros(num_rows, dtype=torch.int32, device=device),
            tokens=torch.empty(shape, dtype=torch.int32, device=device),
            values=torch.empty(shape, device=device),
            begin=torch.empty(shape, dtype=torch.int32, device=device),
        )


def adjust_launch(
    logits: torch.Tensor,
    row_of: torch.Tensor,
    seen: torch.Tensor | None,
    penalties: torch.Tensor | None,
    mask_of: torch.Tensor | None,
    mask_words: torch.Tensor | None,
) -> Launch:
    """Change `logits` float32 [num_rows, vocab_size] in place.

    `row_of` int32 [num_rows] says where a row's request stands in `seen` int32 [max_num_seqs, vocab_size], in
    `penalties` float32 [max_num_seqs, 3] (repetition, frequency, presence; both or neither are given) and in `mask_of`
    int32 [max_num_seqs], which says which row of `mask_words` int32 [num_masks, words] it has, -1 for none: bit t % 32
    of word t // 32 allows token t.
    """
    num_rows, vocab_size = logits.shape
    num_blocks = -(-vocab_size // BLOCK)
    return Launch(
        adjust_logits_kernel,
        (num_rows, min(PROGRAMS, num_blocks)),
        {
            "logits": logits,
            "row_of": row_of,
            "seen": seen,
            "penalties": penalties,
            "mask_of": mask_of,
            "mask_words": mask_words,
            "num_words": 0 if mask_words is None else mask_words.shape[1],
            "vocab_size": vocab_size,
        },
        {"BLOCK": BLOCK, "STRIDE": BLOCK * min(PROGRAMS, num_blocks)},
        fuses_products=False,
    )


def edit_launch(logits: torch.Tensor, row_of: torch.Tensor, edits: LogitEdits, position: torch.Tensor) -> Launch:
    """Change single logits of float32 [num_rows, vocab_size] in place.

    `row_of` int32 [num_rows] says where a row's request stands in `edits` and in `position` int64 [max_num_seqs], the
    number of its output tokens.
    """
    num_rows, vocab_size = logits.shape
    return Launch(
        edit_logits_kernel,
        (num_rows,),
        {
            "logits": logits,
            "row_of": row_of,
            "position": position,
            "num_edits": edits.count,
            "tokens": edits.tokens,
            "added": edits.values,
            "begin": edits.begin,
            "vocab_size": vocab_size,
        },
        {"MAX_EDITS": MAX_EDITS, "BLOCK": 128},
    )


@triton.jit
def adjust_logits_kernel(
    logits,
    row_of,
    seen,
    penalties,
    mask_of,
    mask_words,
    num_words,
    vocab_size,
    BLOCK: tl.constexpr,
    STRIDE: tl.constexpr,
):
    """Grid [rows, programs], each of which takes every so manieth block of tokens."""
    row = tl.program_id(0).to(tl.int64)
    request = tl.load(row_of + row).to(tl.int64)
    repetition, frequency, presence = 1.0, 0.0, 0.0
    mask = tl.full([], -1, tl.int64)
    if seen is not None:
        repetition = tl.load(penalties + request * 3)
        frequency = tl.load(penalties + request * 3 + 1)
        presence = tl.load(penalties + request * 3 + 2)
    if mask_of is not None:
        mask = tl.load(mask_of + request).to(tl.int64)
    is_penalised = (repetition != 1.0) | (frequency != 0.0) | (presence != 0.0)
    if is_penalised | (mask >= 0):
        for start in range(tl.program_id(1) * BLOCK, vocab_size, STRIDE):
            token = start + tl.arange(0, BLOCK)
            inside = token < vocab_size
            at = logits + row * vocab_size + token
            values = tl.load(at, mask=inside, other=0.0)
            if seen is not None:
                entry = tl.load(seen + request * vocab_size + token, mask=inside, other=0)
                count = entry & 0x7FFFFFFF
                repeated = tl.where(values > 0, tl.div_rn(values, repetition), values * repetition)
                values = tl.where(entry != 0, repeated, values)
                values = tl.where(count > 0, values - (frequency * count.to(tl.float32) + presence), values)
            if mask_of is not None:
                # Without a mask of its own a row may have any token: all bits.
                masked = tl.where(inside, mask, -1) >= 0
                words = tl.load(mask_words + mask * num_words + token // 32, mask=masked, other=-1)
                values = tl.where(((words >> (token % 32)) & 1) != 0, values, float("-inf"))
            tl.store(at, values, mask=inside)


@triton.jit
def edit_logits_kernel(
    logits, row_of, position, num_edits, tokens, added, begin, vocab_size, MAX_EDITS: tl.constexpr, BLOCK: tl.constexpr
):
    """Grid [rows]."""
    row = tl.program_id(0).to(tl.int64)
    request = tl.load(row_of + row).to(tl.int64)
    count = tl.load(num_edits + request)
    drawn = tl.load(position + request)
    for start in range(0, count, BLOCK):
        place = start + tl.arange(0, BLOCK)
        inside = place < count
        entry = request * MAX_EDITS + place
        token = tl.load(tokens + entry, mask=inside, other=0)
        may_come = drawn >= tl.load(begin + entry, mask=inside, other=0)
        at = logits + row * vocab_size + token
        values = tl.load(at, mask=inside, other=0.0) + tl.load(added + entry, mask=inside, other=0.0)
        tl.store(at, tl.where(may_come, values, float("-inf")), mask=inside)
