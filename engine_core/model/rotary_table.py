"""Cosines and sines of rotary embedding by position, made by the model's own module as positions are first reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

POSITIONS_AT_ONCE = 512


class RotaryTable:
    """`cos` and `sin` [max_positions, rotary_dim] in the model's dtype; rows up to what was filled hold something."""

    def __init__(self, rotary: nn.Module, dtype: torch.dtype, hidden_size: int, max_positions: int) -> None:
        """rotary: as transformers has it, (hidden states, position ids) to cosines and sines."""
        self._rotary: Any = rotary
        self._hidden = torch.zeros(1, 1, hidden_size, dtype=dtype)
        self._num_filled = 0
        rotary_dim = self._angles(0, 1)[0].shape[-1]
        self.row_bytes = rotary_dim * dtype.itemsize
        self.cos, self.sin = (_untouched(max_positions, rotary_dim, dtype) for _ in range(2))

    def fill(self, last_position: int) -> None:
        """Make the rows up to a position."""
        while self._num_filled <= last_position:
            first, last = self._num_filled, min(self._num_filled + POSITIONS_AT_ONCE, len(self.cos))
            if first == last:
                raise ValueError(f"Position {last_position} is beyond the {last} of the model.")
            self.cos[first:last], self.sin[first:last] = self._angles(first, last)
            self._num_filled = last

    def _angles(self, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self._rotary(self._hidden, torch.arange(first, last)[None])
        return cos[0], sin[0]


def _untouched(rows: int, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros that take memory only where they are written."""
    bits = np.zeros((rows, size), np.int16 if dtype.itemsize == 2 else np.int32)
    return torch.from_numpy(bits).view(dtype)
