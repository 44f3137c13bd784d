"""A growing array whose address the compiled loops find, and how wide tables are pickled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Column:
    """A growing flat array; `values[:size]` is in use, the rest is filled with `default`.

    When it moves it puts the address of the array into `addresses[slot]`, which is how the compiled walk finds it.
    """

    __slots__ = ("_addresses", "_default", "_slot", "size", "values")

    def __init__(
        self, addresses: NDArray[np.int64], slot: int, values: NDArray[np.int32], size: int, default: int
    ) -> None:
        self.values = values
        self.size = size
        self._default = default
        self._addresses, self._slot = addresses, slot

    def append(self, value: int) -> int:
        """Returns the value's place."""
        place = self.size
        if place == len(self.values):
            self.reserve(place + 1)
        self.values[place] = value
        self.size = place + 1
        return place

    def extend(self, values: Sequence[int] | NDArray[np.int32]) -> int:
        """Returns the first value's place."""
        place, size = self.size, self.size + len(values)
        if size > len(self.values):
            self.reserve(size)
        self.values[place:size] = values
        self.size = size
        return place

    def reserve(self, size: int) -> None:
        """Makes room for at least `size` values."""
        if size > len(self.values):
            grown = np.empty(max(2 * len(self.values), size), np.int32)
            grown[self.size :] = self._default
            grown[: self.size] = self.values[: self.size]
            self.values = grown
            self._addresses[self._slot] = address_of(grown)


def address_of(array: NDArray[Any]) -> int:
    """Where the array's first value lies."""
    return array.__array_interface__["data"][0]


def pack_lines(lines: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32], int]:
    """Lines of 256 cells, which are mostly long runs of equal ones: where each run begins, its cell, how many lines."""
    flat = lines.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] - 1)).astype(np.int32)
    return starts, flat[starts], len(lines)


def unpack_lines(starts: NDArray[np.int32], cells: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """What `pack_lines` packed."""
    return np.repeat(cells, np.diff(starts, append=np.int32(count * 256))).reshape(count, 256)
