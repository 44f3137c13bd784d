"""The classes that a number of character sets split all characters into: an alphabet of bit masks.

Where no set tells two characters apart, they are one class; a set is then a mask of classes, and all that automata do
with characters is done with masks.
"""

from __future__ import annotations

from collections.abc import Iterable

from .char_set import ALL_CHARACTERS, CharSet


class CharacterClasses:
    """Splits all characters into classes that every given set either holds whole or not at all.

    Attributes:
        full_mask: all classes.
    """

    def __init__(self, char_sets: Iterable[CharSet]) -> None:
        distinct = list({char_set.ranges: None for char_set in char_sets} | {ALL_CHARACTERS.ranges: None})
        toggles: dict[int, int] = {}
        for index, ranges in enumerate(distinct):
            for low, high in ranges:
                toggles[low] = toggles.get(low, 0) ^ (1 << index)
                toggles[high + 1] = toggles.get(high + 1, 0) ^ (1 << index)
        numbers: dict[int, int] = {}
        self._class_ranges: list[list[tuple[int, int]]] = []
        signature, start = 0, 0
        for point in sorted(toggles):
            if signature:
                number = numbers.setdefault(signature, len(self._class_ranges))
                if number == len(self._class_ranges):
                    self._class_ranges.append([])
                self._class_ranges[number].append((start, point - 1))
            signature ^= toggles[point]
            start = point
        masks = [0] * len(distinct)
        for signature, number in numbers.items():
            while signature:
                lowest = signature & -signature
                masks[lowest.bit_length() - 1] |= 1 << number
                signature ^= lowest
        self._masks = dict(zip(distinct, masks, strict=True))
        self.full_mask = (1 << len(self._class_ranges)) - 1
        self._mask_ranges: dict[int, tuple[tuple[int, int], ...]] = {}

    def mask_of(self, char_set: CharSet) -> int:
        """The classes that make up a set given to the constructor."""
        return self._masks[char_set.ranges]

    def ranges_of(self, mask: int) -> tuple[tuple[int, int], ...]:
        """The code points of some classes, as sorted (first, last) pairs."""
        ranges = self._mask_ranges.get(mask)
        if ranges is None:
            parts: list[tuple[int, int]] = []
            rest = mask
            while rest:
                lowest = rest & -rest
                parts += self._class_ranges[lowest.bit_length() - 1]
                rest ^= lowest
            ranges = self._mask_ranges[mask] = CharSet.of_ranges(parts).ranges
        return ranges
