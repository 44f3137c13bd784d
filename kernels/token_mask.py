"""Forbids in a batch's logits the tokens that finite automata do not allow, in place, where the logits are.

Each token's bytes are walked through the table of its row's automaton, so that no mask is made elsewhere and sent. This
is the form for the CPU; `triton/token_mask.py` is the same for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit

MAX_ENDINGS = 16
"""Tokens that end the output, of one request."""


@dataclass(frozen=True)
class TokenBytes:
    """The tokens of a vocabulary.

    Attributes:
        flat: uint8 [bytes]: the bytes of all tokens.
        start: int32 [vocab + 1]: where each token's bytes begin; special tokens have none: no automaton allows them.
    """

    flat: torch.Tensor
    start: torch.Tensor

    @staticmethod
    def of(tokens: Sequence[bytes], device: torch.device | str = "cpu") -> TokenBytes:
        """The tokens in the order of their ids; b"" for special ones."""
        start = np.concatenate(([0], np.cumsum([len(token) for token in tokens]))).astype(np.int32)
        flat = np.frombuffer(b"".join(tokens) or b"\0", np.uint8).copy()
        return TokenBytes(*(torch.from_numpy(array).to(device) for array in (flat, start)))


@dataclass(frozen=True)
class AutomatonTable:
    """One or more automata, their states numbered through.

    Attributes:
        cells: int32 [states, 256]: the state behind each byte, -1: none.
        accepting: uint8 [states]: whether the output may end there.
    """

    cells: torch.Tensor
    accepting: torch.Tensor


def mask_logits(
    logits: torch.Tensor, states: torch.Tensor, automata: AutomatonTable, tokens: TokenBytes, endings: torch.Tensor
) -> None:
    """Sets the logits of forbidden tokens to -inf.

    Args:
        logits: float32 [rows, vocab], on the CPU, contiguous in the last dimension.
        states: int32 [rows]: where each row's output is; -1: it is free.
        endings: int32 [rows, MAX_ENDINGS]: tokens that are never taken for the text that they may have, but end the
            output where it may end; -1 for none.
    """
    _mask_logits(
        *(logits.numpy(), states.numpy(), automata.cells.numpy(), automata.accepting.numpy()),
        *(tokens.flat.numpy(), tokens.start.numpy(), endings.numpy()),
    )


@njit(error_model="numpy")
def _mask_logits(logits, states, cells, accepting, flat, start, endings):
    for row in range(len(states)):
        first = states[row]
        if first < 0:
            continue
        for token in range(len(start) - 1):
            allowed = False
            if token in endings[row]:
                allowed = accepting[first] != 0
            elif start[token] < start[token + 1]:
                state = first
                for place in range(start[token], start[token + 1]):
                    state = cells[state, flat[place]]
                    if state < 0:
                        break
                allowed = state >= 0
            if not allowed:
                logits[row, token] = -np.inf
