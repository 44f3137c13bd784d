"""What requests ask for of their logits before a token is drawn: penalties and masks, in one pass over the rows.

Penalties need to know which tokens a request has seen. That is kept on the device, a row a request: how often each
token stands in the output, and in the highest bit whether it stands in the prompt; the sampler counts as it draws.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import Launch

BLOCK = 1024
IN_PROMPT = -(2**31)
_IN_PROMPT: tl.constexpr = tl.constexpr(IN_PROMPT)


def adjust_launch(
    logits: torch.Tensor,
    row_of: torch.Tensor,
    seen: torch.Tensor | None,
    penalties: torch.Tensor | None,
    mask_of: torch.Tensor | None,
    mask_words: torch.Tensor | None,
) -> Launch:
    """Change `logits` float32 [num_rows, vocab_size] in place.

    `row_of` int32 [num_rows] says where a row's request stands in `seen` int32 [max_num_seqs, vocab_size] and in
    `penalties` float32 [max_num_seqs, 3] (repetition, frequency, presence); both or neither are given. `mask_of` int32
    [num_rows] says which row of `mask_words` int32 [num_masks, words] it has, -1 for none: bit t % 32 of word t // 32
    allows token t.
    """
    num_rows, vocab_size = logits.shape
    return Launch(
        adjust_logits_kernel,
        (num_rows, -(-vocab_size // BLOCK)),
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
        {"BLOCK": BLOCK},
    )


@triton.jit
def adjust_logits_kernel(
    logits, row_of, seen, penalties, mask_of, mask_words, num_words, vocab_size, BLOCK: tl.constexpr
):
    """Grid [rows, blocks of tokens]."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocab_size
    at = logits + row * vocab_size + token
    values = tl.load(at, mask=inside, other=0.0)
    if seen is not None:
        request = tl.load(row_of + row).to(tl.int64)
        repetition = tl.load(penalties + request * 3)
        frequency = tl.load(penalties + request * 3 + 1)
        presence = tl.load(penalties + request * 3 + 2)
        if (repetition != 1.0) | (frequency != 0.0) | (presence != 0.0):
            entry = tl.load(seen + request * vocab_size + token, mask=inside, other=0)
            count = entry & 0x7FFFFFFF
            repeated = tl.where(values > 0, values / repetition, values * repetition)
            values = tl.where(entry != 0, repeated, values)
            values = tl.where(count > 0, values - (frequency * count.to(tl.float32) + presence), values)
    if mask_of is not None:
        mask = tl.load(mask_of + row).to(tl.int64)
        if mask >= 0:
            words = tl.load(mask_words + mask * num_words + token // 32, mask=inside, other=0)
            values = tl.where(((words >> (token % 32)) & 1) != 0, values, float("-inf"))
    tl.store(at, values, mask=inside)
