"""How sets of characters are spelled in bytes: the first bytes of characters, what is left of them, JSON's escapes.

A *shape* says which characters go together, as ranges with small numbers for where they lead; it knows nothing of
states. Its arcs (bytes, the shape of what is left, which numbers that one uses) are worked out once and serve every
state whose arcs have this shape. `text_lowering` makes rows of them.
"""

from __future__ import annotations

from collections.abc import Iterable

ShapeRanges = tuple[tuple[int, int, "int | ShapeRanges"], ...]
"""(first, last, target): sorted, disjoint. A target is a number, or for high surrogates the ranges of the second
half."""

ShapeArc = tuple[int, int, "Shape | None", tuple[int, ...]]
"""(first byte, last byte, shape of what is left or None: the character is complete, numbers of the targets)."""

BACKSLASH, LETTER_U = 0x5C, 0x75
SHORT_ESCAPES = {0x22: 0x22, 0x5C: 0x5C, 0x2F: 0x2F, 0x62: 8, 0x66: 12, 0x6E: 10, 0x72: 13, 0x74: 9}
"""Byte after the backslash -> the code point that it stands for."""


class Shape:
    """Ranges of something that is spelled in bytes. One object for each content, within `Shapes`.

    Attributes:
        kind: "utf-8" and "string": code points (in a string with escapes); "continuation": what `size` bits are left of
            a code point; "escape": code points, a backslash read; "hex": what `size` hexadecimal digits are left of a
            UTF-16 code unit; "second": the low surrogates, from 0, that must follow as an escape; "second u": the
            same, a backslash read.
        size: see there.
        ranges: what is spelled.
    """

    __slots__ = ("arcs", "kind", "ranges", "size")

    def __reduce__(self) -> tuple:
        return shape_of, (self.kind, self.size, self.ranges)

    def __init__(self, kind: str, size: int, ranges: ShapeRanges) -> None:
        self.kind, self.size, self.ranges = kind, size, ranges
        self.arcs: list[ShapeArc] | None = None


MAX_SHAPES = 20_000
"""Shapes that are kept; when there are more, all are forgotten, and made again on need."""


class Shapes:
    """All shapes met so far, in any grammar: most grammars need the same ones."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, int, ShapeRanges], Shape] = {}

    def get(self, kind: str, size: int, ranges: ShapeRanges) -> Shape:
        """The shape with this content."""
        key = (kind, size, ranges)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = Shape(kind, size, ranges)
        return shape

    def normal(self, kind: str, size: int, ranges: ShapeRanges) -> tuple[Shape, tuple[int, ...]]:
        """The shape of ranges with any targets, numbered as they come, and the targets."""
        numbers: dict[int, int] = {}
        renumbered = _renumbered(ranges, numbers)
        return self.get(kind, size, renumbered), tuple(numbers)

    def arcs(self, shape: Shape) -> list[ShapeArc]:
        """What the next byte may be."""
        if shape.arcs is None:
            shape.arcs = self._find_arcs(shape)
        return shape.arcs

    def _find_arcs(self, shape: Shape) -> list[ShapeArc]:
        kind, ranges = shape.kind, shape.ranges
        if kind == "utf-8":
            return self._first_bytes(ranges)
        if kind == "string":
            raw = _without(ranges, ((0, 0x1F), (0x22, 0x22), (BACKSLASH, BACKSLASH)))
            escaped = [(BACKSLASH, BACKSLASH, *self.normal("escape", 0, ranges))] if ranges else []
            return self._first_bytes(raw) + escaped
        if kind == "continuation":
            return self._continuation_bytes(shape.size, ranges)
        if kind == "escape":
            return self._escapes(ranges)
        if kind == "hex":
            return self._hexadecimal(shape.size, ranges)
        if kind == "second":
            return [(BACKSLASH, BACKSLASH, *self.normal("second u", 0, ranges))]
        units = tuple([(0xDC00 + low, 0xDC00 + high, target) for low, high, target in ranges])
        return [(LETTER_U, LETTER_U, *self.normal("hex", 4, units))]

    def _first_bytes(self, ranges: ShapeRanges) -> list[ShapeArc]:
        arcs: list[ShapeArc] = [(low, high, None, (_number(target),)) for low, high, target in _clip(ranges, 0, 0x7F)]
        for first, last, lead, bits in (
            (0x80, 0x7FF, 0xC0, 6),
            (0x800, 0xFFFF, 0xE0, 12),
            (0x10000, 0x10FFFF, 0xF0, 18),
        ):
            for block, last_block, rest in split(_clip(ranges, first, last), bits):
                arcs.append((lead + block, lead + last_block, *self.normal("continuation", bits, rest)))
        return arcs

    def _continuation_bytes(self, bits: int, ranges: ShapeRanges) -> list[ShapeArc]:
        if bits == 6:
            return [(0x80 + low, 0x80 + high, None, (_number(target),)) for low, high, target in ranges]
        return [
            (0x80 + block, 0x80 + last, *self.normal("continuation", bits - 6, rest))
            for block, last, rest in split(ranges, bits - 6)
        ]

    def _escapes(self, ranges: ShapeRanges) -> list[ShapeArc]:
        arcs: list[ShapeArc] = []
        for byte, point in SHORT_ESCAPES.items():
            arcs += [(byte, byte, None, (_number(target),)) for _, _, target in _clip(ranges, point, point)]
        beyond = _clip(ranges, 0x10000, 0x10FFFF)
        astral = tuple([(low - 0x10000, high - 0x10000, target) for low, high, target in beyond])
        surrogates = [(0xD800 + first, 0xD800 + last, rest) for first, last, rest in split(astral, 10)]
        units = sorted([*_clip(ranges, 0, 0xFFFF), *surrogates], key=lambda unit: unit[0])
        arcs.append((LETTER_U, LETTER_U, *self.normal("hex", 4, tuple(units))))
        return arcs

    def _hexadecimal(self, digits: int, ranges: ShapeRanges) -> list[ShapeArc]:
        arcs: list[ShapeArc] = []
        for low, high, rest in split(ranges, 4 * digits - 4):
            target = rest[0][2]
            following: tuple[Shape | None, tuple[int, ...]]
            if digits > 1:
                following = self.normal("hex", digits - 1, rest)
            elif isinstance(target, int):
                following = (None, (target,))
            else:
                following = self.normal("second", 0, target)
            if low <= 9:
                arcs.append((0x30 + low, 0x30 + min(high, 9), following[0], following[1]))
            if high >= 10:
                for letter in (0x41, 0x61):
                    arcs.append((letter + max(low, 10) - 10, letter + high - 10, following[0], following[1]))
        return arcs


SHAPES = Shapes()


def shape_of(kind: str, size: int, ranges: ShapeRanges) -> Shape:
    """A shape by what it says: what a pickle names, which may name functions but no methods."""
    return SHAPES.get(kind, size, ranges)


def split(ranges: ShapeRanges, bits: int) -> list[tuple[int, int, ShapeRanges]]:
    """Cuts ranges into blocks of 2**bits.

    Returns:
        (first block, last block, the ranges within each of them).
    """
    mask = (1 << bits) - 1
    blocks: list[tuple[int, int, ShapeRanges]] = []
    open_block = -1
    pieces: list[tuple[int, int, int | ShapeRanges]] = []
    for low, high, target in ranges:
        first, last = low >> bits, high >> bits
        if first != open_block and pieces:
            blocks.append((open_block, open_block, tuple(pieces)))
            pieces = []
        if first == last and (low & mask or high & mask != mask):
            pieces.append((low & mask, high & mask, target))
            open_block = first
            continue
        if low & mask:
            pieces.append((low & mask, mask, target))
            blocks.append((first, first, tuple(pieces)))
            pieces = []
            first += 1
        whole_until = last if high & mask == mask else last - 1
        if first <= whole_until:
            blocks.append((first, whole_until, ((0, mask, target),)))
        open_block = last
        if whole_until < last:
            pieces.append((0, high & mask, target))
    if pieces:
        blocks.append((open_block, open_block, tuple(pieces)))
    return blocks


def _clip(ranges: ShapeRanges, first: int, last: int) -> ShapeRanges:
    """The part of the ranges from `first` to `last`."""
    return tuple(
        [(max(low, first), min(high, last), target) for low, high, target in ranges if low <= last and high >= first]
    )


def _without(ranges: ShapeRanges, gaps: Iterable[tuple[int, int]]) -> ShapeRanges:
    """The ranges without some code points, in order."""
    kept: list[tuple[int, int, int | ShapeRanges]] = []
    start = 0
    for low, high in gaps:
        kept += _clip(ranges, start, low - 1)
        start = high + 1
    return (*kept, *_clip(ranges, start, 0x10FFFF))


def _renumbered(ranges: ShapeRanges, numbers: dict[int, int]) -> ShapeRanges:
    return tuple(
        [
            (
                low,
                high,
                numbers.setdefault(target, len(numbers)) if isinstance(target, int) else _renumbered(target, numbers),
            )
            for low, high, target in ranges
        ]
    )


def _number(target: int | ShapeRanges) -> int:
    assert isinstance(target, int)
    return target
