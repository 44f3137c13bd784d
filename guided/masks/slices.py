"""Ready-made parts of masks, for rows in which text may loop: the inside of a string, free text.

A *slice* is a set of characters. Where an automaton stays in one row as long as characters of the set come, all tokens
made of such characters alone are allowed, and a mask of them is made once for all grammars. What must still be walked
is the trie of the other tokens: a few thousand nodes instead of hundreds of thousands.

A *piece* is that for the tokens below one node of the trie: such a row may be reached anywhere, for example behind the
first byte that tells a free key from the named ones. Only nodes with many others below them have pieces. Those of JSON
strings are made at once, for other slices only that of all tokens, when it is needed often.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .trie_nodes import (
    BIG,
    DEPTH_MASK,
    DEPTH_SHIFT,
    NO_PIECE,
    SKIP_MASK,
    SKIP_SHIFT,
    UNKNOWN_PIECE,
    count_characters,
    make_piece,
)

NO_SLICE = -1
MAX_SLICES = 32
MAX_PIECES = 2000
"""How many are kept; when there are more, all are forgotten, and made again on need."""
MAX_LIMITED = 1000
NOT_WITHIN = (1 << 16) - 1
"""In place of the length of a token that is not within a slice."""
MAX_USES_KNOWN = 10_000
USES_BEFORE = 3
"""How often a slice is asked for before it is made, which costs milliseconds."""
JSON_TEXT = bytes(byte for byte in range(0x20, 0x80) if byte not in b'"\\')
"""What may stand for itself in a JSON string."""
STRINGS = (JSON_TEXT, True)
ROOT = 0
"""In place of a big node: all tokens."""


class Slices:
    """The trie of a vocabulary, and the pieces made of it.

    Attributes:
        nodes: uint64[capacity]: the trie, then the rests of the pieces; see mask_walk.
        trie_size: the number of nodes of the trie.
        full: whether there is no room for more slices or pieces; `forget` makes room.
        generation: grows when all slices are forgotten, and numbers of slices become void.
        big_nodes: int64[m]: -1 for the root, then the nodes that have pieces, ascending.
        piece_of: int32[MAX_SLICES, m]: the number of the piece, or UNKNOWN_PIECE, or NO_PIECE.
        rests: int64[pieces, 2]: where in `nodes` the rest of a piece lies.
        masks: uint32[pieces, words].
    """

    def __init__(self, trie: NDArray[np.uint64], num_words: int) -> None:
        self.trie_size = len(trie)
        self.nodes = trie.copy()
        skips = ((trie >> np.uint64(SKIP_SHIFT)) & np.uint64(SKIP_MASK)).astype(np.int64)
        self.big_nodes = np.concatenate(([-1], np.flatnonzero(skips - np.arange(len(trie)) > BIG)))
        self._num_words = num_words
        self.generation = 0
        self._uses: dict[tuple[bytes, bool], int] = {}
        self._clear()
        strings = self.number_of(*STRINGS)
        for place in range(len(self.big_nodes)):
            self.piece(strings, place)

    def number_of(self, loops: bytes, beyond_ascii: bool) -> int:
        """The number of the slice of some ASCII bytes and, if `beyond_ascii`, all other characters.

        NO_SLICE: there is no room for it, or it was not asked for often enough.
        """
        key = (loops, beyond_ascii)
        number = self._numbers.get(key)
        if number is None:
            uses = self._uses[key] = self._uses.get(key, 0) + 1
            if len(self._uses) > MAX_USES_KNOWN:
                self._uses.clear()
            if uses < USES_BEFORE and key != STRINGS:
                return NO_SLICE
            if len(self._numbers) == MAX_SLICES:
                self.full = True
                return NO_SLICE
            number = self._numbers[key] = len(self._numbers)
            accepted = np.zeros(128, np.uint8)
            accepted[list(loops)] = 1
            self._sets.append((accepted, beyond_ascii))
            if key != STRINGS:
                # Only keys of objects, which are strings, need pieces inside the trie often enough.
                self.piece_of[number, ROOT + 1 :] = NO_PIECE
        return number

    def piece(self, number: int, place: int) -> int:
        """The piece (or NO_PIECE) of a slice at a place in `big_nodes`, made if it is not known yet."""
        piece = int(self.piece_of[number, place])
        if piece == UNKNOWN_PIECE:
            piece = self.piece_of[number, place] = self._make(number, int(self.big_nodes[place]))
        return int(piece)

    def limited_mask(self, number: int, most: int) -> NDArray[np.uint32]:
        """The tokens within a slice that have at most so many characters (the last one may be cut off)."""
        mask = self._limited.get((number, most))
        if mask is None:
            lengths = self._lengths.get(number)
            if lengths is None:
                lengths = self._lengths[number] = np.full(32 * self._num_words, NOT_WITHIN, np.uint16)
                accepted, beyond_ascii = self._sets[number]
                count_characters(self.nodes, self.trie_size, accepted, beyond_ascii, lengths)
            mask = np.packbits(lengths <= most, bitorder="little").view(np.uint32)
            self._limited[number, most] = mask
            self.full |= len(self._limited) >= MAX_LIMITED
        return mask

    def forget(self) -> None:
        """Drops all pieces and slices."""
        self.generation += 1
        self.nodes = self.nodes[: self.trie_size].copy()
        self._clear()

    def _clear(self) -> None:
        self._numbers: dict[tuple[bytes, bool], int] = {}
        self._sets: list[tuple[NDArray[np.uint8], bool]] = []
        self._size = self.trie_size
        self.full = False
        self.num_pieces = 0
        self._limited: dict[tuple[int, int], NDArray[np.uint32]] = {}
        self._lengths: dict[int, NDArray[np.uint16]] = {}
        self.piece_of = np.full((MAX_SLICES, len(self.big_nodes)), UNKNOWN_PIECE, np.int32)
        self.rests = np.zeros((8, 2), np.int64)
        self.masks = np.zeros((8, self._num_words), np.uint32)

    def _make(self, number: int, node: int) -> int:
        if node < 0:
            first, last, depth = 0, self.trie_size, 0
        else:
            packed = int(self.nodes[node])
            first, last = node + 1, packed >> SKIP_SHIFT & SKIP_MASK
            depth = packed >> DEPTH_SHIFT & DEPTH_MASK
        accepted, beyond_ascii = self._sets[number]
        if self._size + last - first > len(self.nodes):
            self.nodes = np.concatenate((self.nodes, np.zeros(max(last - first, len(self.nodes) // 2), np.uint64)))
        if self.num_pieces == len(self.rests):
            self.rests = np.concatenate((self.rests, np.zeros_like(self.rests)))
            self.masks = np.concatenate((self.masks, np.zeros_like(self.masks)))
        mask = self.masks[self.num_pieces]
        mask.fill(0)
        size = make_piece(self.nodes, first, last, depth, accepted, beyond_ascii, mask, self._size)
        if last - first - (size - self._size) < BIG:
            return NO_PIECE
        piece = self.num_pieces
        self.full |= piece >= MAX_PIECES
        self.rests[piece] = self._size, size
        self._size, self.num_pieces = size, piece + 1
        return piece
