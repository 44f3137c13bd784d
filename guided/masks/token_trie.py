"""The tokens of a model as a trie of bytes, which a mask walk follows instead of trying token by token.

One `Vocabulary` per model, shared by all grammars.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .slices import Slices
from .trie_nodes import MAX_TOKEN_BYTES, NO_TOKEN, build_trie
from .walk_memory import WalkMemory


class Vocabulary:
    """What the token ids stand for.

    Attributes:
        tokens: the bytes of each id; b"" for special tokens, which no grammar allows (but for the end).
        eos_token_ids: the tokens that end the output.
        num_words: the length of a mask in uint32 words; bit t % 32 of word t // 32 belongs to token t.
        eos_mask: uint32[num_words], the end tokens.
        longest: the bytes of the longest token.
        twins: int32[n, 2]: (a token in the trie, another token with the same bytes).
        places: two int64[len(tokens)]: where the bytes of each token lie in memory, and how many they are.
        slices: the trie, and ready-made parts of masks.
        walk_memory: to make masks in, one at a time.
    """

    def __init__(self, tokens: Sequence[bytes | None], eos_token_ids: Iterable[int]) -> None:
        self.eos_token_ids = frozenset(eos_token_ids)
        self.tokens = [b"" if token is None or len(token) > MAX_TOKEN_BYTES else bytes(token) for token in tokens]
        for token in self.eos_token_ids:
            self.tokens[token] = b""
        if len(self.tokens) >= NO_TOKEN:
            raise ValueError(f"a vocabulary has at most {NO_TOKEN - 1} tokens")
        self.num_words = (len(self.tokens) + 31) // 32
        self.eos_mask = np.zeros(self.num_words, np.uint32)
        for token in self.eos_token_ids:
            self.eos_mask[token >> 5] |= np.uint32(1 << (token & 31))
        self.eos_mask.flags.writeable = False
        self.longest = max(map(len, self.tokens), default=0)
        nodes, self.twins = _build(self.tokens)
        self.slices = Slices(nodes, self.num_words)
        self.walk_memory = WalkMemory()
        self._text = np.frombuffer(b"".join(self.tokens) or b"\0", np.uint8)
        lengths = np.array([len(token) for token in self.tokens], np.int64)
        addresses = self._text.ctypes.data + np.cumsum(lengths) - lengths
        self._addresses = array("q", addresses.tolist())
        self.places = addresses, lengths

    def address_of(self, token: int) -> int:
        """Where the bytes of a token lie in memory."""
        return self._addresses[token]


def _build(tokens: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """The nodes of the trie, and the twins."""
    firsts: list[tuple[bytes, int]] = []
    twins = []
    for text, token in sorted((text, token) for token, text in enumerate(tokens) if text):
        if firsts and firsts[-1][0] == text:
            twins.append((firsts[-1][1], token))
        else:
            firsts.append((text, token))
    joined = b"".join(text for text, _ in firsts)
    flat = np.frombuffer(joined or b"\0", np.uint8)
    offsets = np.zeros(len(firsts) + 1, np.int64)
    np.cumsum([len(text) for text, _ in firsts], out=offsets[1:])
    nodes = np.zeros(len(joined), np.uint64)
    count = build_trie(flat, offsets, np.array([token for _, token in firsts], np.int64), nodes)
    return nodes[:count], np.array(twins, np.int32).reshape(-1, 2)
