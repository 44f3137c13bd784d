"""The numbers that the engine sends, as JSON has them: lists of floats, or base64 of float32."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from operator import mul
from typing import Literal

from ...engine_core.pooling.pooling_messages import Pooled


def floats(pooled: Pooled) -> list[float]:
    """All numbers, row after row."""
    return _array(pooled.data).tolist()


def float_rows(pooled: Pooled) -> list[float] | list[list[float]]:
    """The vector of a text, or one for each of its tokens."""
    values = floats(pooled)
    if len(pooled.shape) == 1:
        return values
    size = pooled.shape[-1]
    return [values[start : start + size] for start in range(0, len(values), size)]


def base64_text(pooled: Pooled, endianness: Literal["native", "little", "big"] | None) -> str:
    """base64 of float32, little-endian unless it says otherwise."""
    swapped = endianness == "big" or (endianness == "native" and sys.byteorder == "big")
    if not swapped:
        return base64.b64encode(pooled.data).decode()
    values = array("f", pooled.data)
    values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """Cosine of the angle between two vectors; 0 where one of them is 0."""
    norms = sum(map(mul, first, first)) * sum(map(mul, second, second))
    return sum(map(mul, first, second)) / norms**0.5 if norms > 0 else 0.0


def _array(data: bytes) -> array[float]:
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values
