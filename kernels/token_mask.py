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

TEXT, SPECIAL, END = range(3)
"""What a token is: bytes; nothing that an automaton allows; the end of the output."""


@dataclass(frozen=True)
class TokenBytes:
    """The tokens of a vocabulary.

    Attributes:
        flat: uint8 [bytes]: the bytes of all tokens.
        start: int32 [vocab + 1]: where each token's bytes begin.
        kind: uint8 [vocab]: TEXT, SPECIAL or END.
    """

    flat: torch.Tensor
    start: torch.Tensor
    kind: torch.Tensor

    @staticmethod
    def of(tokens: Sequence[bytes], end_tokens: Sequence[int], device: torch.device | str = "cpu") -> TokenBytes:
        """The tokens in the order of their ids; b"" for special ones."""
        lengths = np.array([len(token) for token in tokens], np.int64)
        kind = np.where(lengths > 0, TEXT, SPECIAL).astype(np.uint8)
        kind[list(end_tokens)] = END
        start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        flat = np.frombuffer(b"".join(tokens) or b"\0", np.uint8).copy()
        return TokenBytes(*(torch.from_numpy(array).to(device) for array in (flat, start, kind)))


@dataclass(frozen=True)
class AutomatonTable:
    """One or more automata, their states numbered through.

    Attributes:
        cells: int32 [states, 256]: the state behind each byte, -1: none.
        accepting: uint8 [states]: whether the output may end there.
    """

    cells: torch.Tensor
    accepting: torch.Tensor


def mask_logits(logits: torch.Tensor, states: torch.Tensor, automata: AutomatonTable, tokens: TokenBytes) -> None:
    """Sets the logits of forbidden tokens to -inf.

    Args:
        logits: float32 [rows, vocab], on the CPU, contiguous in the last dimension.
        states: int32 [rows]: where each row's output is; -1: it is free.
    """
    _mask_logits(
        *(logits.numpy(), states.numpy(), automata.cells.numpy(), automata.accepting.numpy()),
        *(tokens.flat.numpy(), tokens.start.numpy(), tokens.kind.numpy()),
    )


@njit(error_model="numpy")
def _mask_logits(logits, states, cells, accepting, flat, start, kind):
    for row in range(len(states)):
        first = states[row]
        if first < 0:
            continue
        for token in range(len(kind)):
            allowed = accepting[first] != 0
            if kind[token] == TEXT:
                state = first
                for place in range(start[token], start[token + 1]):
                    state = cells[state, flat[place]]
                    if state < 0:
                        break
                allowed = state >= 0
            elif kind[token] == SPECIAL:
                allowed = False
            if not allowed:
                logits[row, token] = -np.inf
