"""Rounds the weights of linear layers to int8 when a model is loaded, for `int8_linear` and `fma_int8_linear`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

LARGEST = 127

ROUNDED_AT_ONCE = 1 << 17
"""Weights of which a float32 copy is held: as many as the second cache keeps through all passes."""

SECONDS_BETWEEN_WORDS = 5


@dataclass(frozen=True)
class Int8Weight:
    """A weight [out_features, in_features] as integers and one scale for each output."""

    values: torch.Tensor
    """int8 [out_features, in_features]."""
    scales: torch.Tensor
    """float32 [out_features]: the weight is `values * scales[:, None]`."""


class Int8Rounding:
    """Rounds weights, and keeps account of what that changed."""

    def __init__(self, progress: Callable[[str], None] | None = None, *, matrix_unit: bool = True) -> None:
        """progress: told every few seconds how far it is. matrix_unit: whether the processor's matrix unit is to
        multiply the weights, where it has one.
        """
        self.matrix_unit = matrix_unit
        self.num_layers = 0
        self.num_weights = 0
        self._squared_error = 0.0
        self._squared_norm = 0.0
        self._progress = progress
        self._told = time.monotonic()

    @property
    def relative_error(self) -> float:
        """Root of the mean squared error of all weights, over that of the weights themselves."""
        return math.sqrt(self._squared_error / self._squared_norm) if self._squared_norm else 0.0

    def round(self, weight: torch.Tensor) -> Int8Weight:
        """A weight [out_features, in_features] on the CPU. An output's scale leaves its largest weight what it is."""
        weight = weight.detach()
        rounded = Int8Weight(torch.empty(weight.shape, dtype=torch.int8), torch.empty(weight.shape[0]))
        outputs = max(1, ROUNDED_AT_ONCE // weight.shape[1])
        parts = [slice(start, start + outputs) for start in range(0, weight.shape[0], outputs)]
        num_threads = torch.get_num_threads()
        # Operations on a part are too short for torch's own team, in which each thread waits for the others.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                sums = list(pool.map(lambda part: _round_part(weight, rounded, part), parts))
        finally:
            torch.set_num_threads(num_threads)
        self._squared_error += math.fsum(error for error, _ in sums)
        self._squared_norm += math.fsum(norm for _, norm in sums)
        self.num_layers += 1
        self.num_weights += weight.numel()
        if self._progress is not None and time.monotonic() - self._told > SECONDS_BETWEEN_WORDS:
            self._told = time.monotonic()
            self._progress(f"Rounded {self.num_weights / 1e6:,.0f} million weights to int8 so far.")
        return rounded


def _round_part(weight: torch.Tensor, rounded: Int8Weight, part: slice) -> tuple[float, float]:
    """Round some outputs; returns the squared norms of their error, and of themselves."""
    wide = weight[part].float()
    scales = rounded.scales[part] = torch.linalg.vector_norm(wide, math.inf, dim=1) / LARGEST
    scales = scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    norm = _squared_norm(wide)
    values = (wide / scales).round_()
    rounded.values[part] = values
    return _squared_norm(wide.addcmul_(values, scales, value=-1)), norm


def _squared_norm(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x)) ** 2
