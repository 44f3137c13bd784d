"""`token_mask.mask_logits` for a GPU: a program per row and block of tokens, a lane per token."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..token_mask import END, TEXT, AutomatonTable, TokenBytes
from .launch import Launch

BLOCK = 256
_TEXT: tl.constexpr = tl.constexpr(TEXT)
_END: tl.constexpr = tl.constexpr(END)


def mask_launch(logits: torch.Tensor, states: torch.Tensor, automata: AutomatonTable, tokens: TokenBytes) -> Launch:
    """Sets the logits of forbidden tokens to -inf; see `token_mask.mask_logits`. All tensors are on one device."""
    rows, vocab_size = logits.shape
    return Launch(
        mask_logits_kernel,
        (rows, -(-vocab_size // BLOCK)),
        {
            "logits": logits,
            "logits_stride": logits.stride(0),
            "states": states,
            "cells": automata.cells,
            "accepting": automata.accepting,
            "flat": tokens.flat,
            "start": tokens.start,
            "kind": tokens.kind,
            "vocab_size": vocab_size,
        },
        {"BLOCK": BLOCK},
    )


@triton.jit
def mask_logits_kernel(
    logits,
    logits_stride,
    states,
    cells,
    accepting,
    flat,
    start,
    kind,
    vocab_size,
    BLOCK: tl.constexpr,
):
    """Grid [rows, blocks of tokens]."""
    row = tl.program_id(0)
    first_state = tl.load(states + row)
    if first_state >= 0:
        token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = token < vocab_size
        begin = tl.load(start + token, mask=inside, other=0)
        length = tl.load(start + token + 1, mask=inside, other=0) - begin
        token_kind = tl.load(kind + token, mask=inside, other=0)
        state = tl.zeros([BLOCK], tl.int32) + first_state
        for place in range(tl.max(length, 0)):  # pyright: ignore[reportArgumentType]
            walking = (place < length) & (state >= 0)
            byte = tl.load(flat + begin + place, mask=walking, other=0).to(tl.int32)
            state = tl.where(walking, tl.load(cells + state * 256 + byte, mask=walking, other=-1), state)
        may_end = tl.load(accepting + first_state) != 0
        allowed = ((token_kind == _TEXT) & (state >= 0)) | ((token_kind == _END) & may_end)
        place_of_logit = logits + row.to(tl.int64) * logits_stride + token
        tl.store(place_of_logit, float("-inf"), mask=inside & (allowed == 0))
