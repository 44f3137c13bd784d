"""`token_mask.mask_logits` for a GPU, and what follows it: the automaton's state moves on with the token that is drawn.

Rows without an automaton cost a look. What a row with one costs is bounded by one look-up for each byte of each token
(less than a million for 128,000 tokens), but a block of tokens stops where all its tokens are dead: behind the first
byte or two where the grammar says what comes, so that only the inside of free text walks all of them. The table's lines
that a row reads are few and stay in the nearest cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..token_mask import MAX_ENDINGS, AutomatonTable, TokenBytes
from .launch import Launch

BLOCK = 256
PROGRAMS = 64
"""Of a row, at most; see `logits.PROGRAMS`."""


def mask_launch(
    logits: torch.Tensor,
    row_of: torch.Tensor,
    states: torch.Tensor,
    automata: AutomatonTable,
    tokens: TokenBytes,
    endings: torch.Tensor,
) -> Launch:
    """Sets logits float32 [num_rows, vocab_size], contiguous, of forbidden tokens to -inf: see
    `token_mask.mask_logits`. All tensors are on one device; `row_of` int32 [num_rows] says where a row's request stands
    in `states` and `endings`.
    """
    num_rows, vocab_size = logits.shape
    programs = min(PROGRAMS, -(-vocab_size // BLOCK))
    return Launch(
        mask_logits_kernel,
        (num_rows, programs),
        {
            "logits": logits,
            "row_of": row_of,
            "states": states,
            "cells": automata.cells,
            "accepting": automata.accepting,
            "flat": tokens.flat,
            "start": tokens.start,
            "endings": endings,
            "vocab_size": vocab_size,
        },
        {"MAX_ENDINGS": MAX_ENDINGS, "BLOCK": BLOCK, "STRIDE": BLOCK * programs},
    )


def follow_launch(
    drawn: torch.Tensor, row_of: torch.Tensor, states: torch.Tensor, automata: AutomatonTable, tokens: TokenBytes
) -> Launch:
    """Moves `states` int32 [max_num_seqs] on by the tokens `drawn` int64 [num_rows]; -1 (none) and tokens without text
    leave them. A token that the automaton does not take ends the output, and leaves it too.
    """
    return Launch(
        follow_kernel,
        (len(drawn),),
        {
            "drawn": drawn,
            "row_of": row_of,
            "states": states,
            "cells": automata.cells,
            "flat": tokens.flat,
            "start": tokens.start,
        },
        {},
        num_warps=1,
    )


@triton.jit
def mask_logits_kernel(
    logits,
    row_of,
    states,
    cells,
    accepting,
    flat,
    start,
    endings,
    vocab_size,
    MAX_ENDINGS: tl.constexpr,
    BLOCK: tl.constexpr,
    STRIDE: tl.constexpr,
):
    """Grid [rows, programs], each of which takes every so manieth block of tokens, a lane a token."""
    row = tl.program_id(0).to(tl.int64)
    request = tl.load(row_of + row).to(tl.int64)
    first_state = tl.load(states + request)
    if first_state >= 0:
        may_end = tl.load(accepting + first_state) != 0
        for first in range(tl.program_id(1) * BLOCK, vocab_size, STRIDE):
            token = first + tl.arange(0, BLOCK)
            inside = token < vocab_size
            place = tl.load(start + token, mask=inside, other=0)
            end = tl.load(start + token + 1, mask=inside, other=0)
            state = tl.where(place < end, first_state, -1)
            while tl.max(((place < end) & (state >= 0)).to(tl.int32), 0) > 0:  # pyright: ignore[reportOperatorIssue]
                walking = (place < end) & (state >= 0)
                byte = tl.load(flat + place, mask=walking, other=0).to(tl.int32)
                state = tl.where(walking, tl.load(cells + state * 256 + byte, mask=walking, other=-1), state)
                place += 1
            allowed = state >= 0
            for number in range(MAX_ENDINGS):
                allowed = tl.where(token == tl.load(endings + request * MAX_ENDINGS + number), may_end, allowed)
            tl.store(logits + row * vocab_size + token, float("-inf"), mask=inside & (allowed == 0))


@triton.jit
def follow_kernel(drawn, row_of, states, cells, flat, start):
    """Grid [rows]."""
    row = tl.program_id(0)
    at = states + tl.load(row_of + row)
    state = tl.load(at)
    token = tl.load(drawn + row)
    if (state >= 0) & (token >= 0):
        place = tl.load(start + token)
        end = tl.load(start + token + 1)
        while (place < end) & (state >= 0):
            state = tl.load(cells + state * 256 + tl.load(flat + place).to(tl.int32))
            place += 1
        if state >= 0:
            tl.store(at, state)
