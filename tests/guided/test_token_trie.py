"""The vocabulary's trie and its slices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zqserve.guided.masks.slices import JSON_TEXT, NO_SLICE, ROOT, USES_BEFORE, Slices
from zqserve.guided.masks.token_trie import Vocabulary
from zqserve.guided.masks.trie_nodes import (
    BYTE_MASK,
    DEPTH_MASK,
    DEPTH_SHIFT,
    MAX_TOKEN_BYTES,
    NO_TOKEN,
    SKIP_MASK,
    SKIP_SHIFT,
    TOKEN_SHIFT,
)


def _texts(nodes: np.ndarray, first: int, last: int, path: bytes = b"") -> dict[int, bytes]:
    """The tokens at some nodes of a trie, with their bytes; checks that each node can be skipped."""
    found = {}
    node = first
    ends = []
    for node in range(first, last):
        packed = int(nodes[node])
        depth, skip = packed >> DEPTH_SHIFT & DEPTH_MASK, packed >> SKIP_SHIFT & SKIP_MASK
        path = path[: depth - 1] + bytes([packed & BYTE_MASK])
        assert len(path) == depth
        ends = [end for end in ends if end > node]
        assert all(skip <= end for end in ends)
        ends.append(skip)
        if packed >> TOKEN_SHIFT != NO_TOKEN:
            found[packed >> TOKEN_SHIFT] = path
    return found


@given(st.lists(st.binary(max_size=5)))
def test_the_trie_holds_each_token_once_and_twins_aside(tokens):
    vocabulary = Vocabulary([b"end", *tokens], [0])
    slices = vocabulary.slices
    found = _texts(slices.nodes, 0, slices.trie_size)
    found |= {twin: found[token] for token, twin in vocabulary.twins.tolist()}
    assert found == {token: text for token, text in enumerate(tokens, 1) if text}


def test_special_and_endless_tokens_are_left_out():
    vocabulary = Vocabulary([None, b"", b"a", b"x" * (MAX_TOKEN_BYTES + 1), b"</s>"], [4])
    assert _texts(vocabulary.slices.nodes, 0, vocabulary.slices.trie_size) == {2: b"a"}
    assert vocabulary.eos_mask.tolist() == [1 << 4]


CHARACTERS = [*"abcdefgh", '"', "é", "日"]
WORDS = ["".join(word).encode() for length in (1, 2, 3, 4) for word in itertools.product(CHARACTERS, repeat=length)]


@pytest.fixture(scope="module")
def slices() -> Slices:
    return Vocabulary([None, *WORDS, b"ab\xe6\x97", b"\xe6\x97", b"\xa5a", b"a\xff"], [0]).slices


@pytest.mark.parametrize(
    ("loops", "beyond_ascii"), [(JSON_TEXT, True), (JSON_TEXT, False), (b"abcdefghijklmnopqrstuvwxyz ", False)]
)
def test_a_piece_splits_the_tokens_below_a_node(slices, loops, beyond_ascii):
    for _ in range(USES_BEFORE):
        number = slices.number_of(loops, beyond_ascii)
    assert number != NO_SLICE
    pieces = {place: slices.piece(number, place) for place in (ROOT, 1, 2, len(slices.big_nodes) - 1)}
    made = {place: piece for place, piece in pieces.items() if piece >= 0}
    assert made
    for place, piece in made.items():
        _check_piece(slices, place, piece, loops, beyond_ascii)


def _check_piece(slices, place, piece, loops, beyond_ascii):
    node = int(slices.big_nodes[place])
    path, first, last = b"", 0, slices.trie_size
    if node >= 0:
        path = next(text for token, text in _texts(slices.nodes, 0, node + 1).items())[:0]
        path = _path_of(slices, node)
        first, last = node + 1, int(slices.nodes[node]) >> SKIP_SHIFT & SKIP_MASK
    everything = _texts(slices.nodes, first, last, path)
    rest = _texts(slices.nodes, *slices.rests[piece].tolist(), path)
    bits = np.unpackbits(slices.masks[piece].view(np.uint8), bitorder="little")
    within = {token: everything[token] for token in np.flatnonzero(bits).tolist()}
    assert within | rest == everything
    assert not within.keys() & rest.keys()
    for token, text in everything.items():
        tail = text[len(path) :].decode(errors="replace")
        assert (token in within) == _is_within(tail, text[len(path) :], loops, beyond_ascii), text


def _path_of(slices: Slices, node: int) -> bytes:
    path = b""
    for place in range(node + 1):
        packed = int(slices.nodes[place])
        path = path[: (packed >> DEPTH_SHIFT & DEPTH_MASK) - 1] + bytes([packed & BYTE_MASK])
    return path


def _is_within(text: str, raw: bytes, loops: bytes, beyond_ascii: bool) -> bool:
    if text.endswith("\N{REPLACEMENT CHARACTER}") and raw.endswith(b"\xe6\x97"):
        text = text[:-1] + "日"  # cut off
    return all(ord(char) in loops if ord(char) < 128 else beyond_ascii and char != "\ufffd" for char in text)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_a_limited_mask_holds_texts_of_so_many_characters(slices, most):
    number = slices.number_of(JSON_TEXT, True)
    bits = np.unpackbits(slices.limited_mask(number, most).view(np.uint8), bitorder="little")
    for token, text in _texts(slices.nodes, 0, slices.trie_size).items():
        decoded = text.decode(errors="replace")
        assert bool(bits[token]) == (_is_within(decoded, text, JSON_TEXT, True) and len(decoded) <= most), text


def test_slices_are_forgotten_when_there_are_too_many():
    slices = Vocabulary([None, *WORDS], [0]).slices
    for byte in range(100):
        for _ in range(USES_BEFORE):
            slices.number_of(bytes([byte]), False)
    assert slices.full
    slices.forget()
    assert not slices.full
    assert slices.generation == 1
    assert len(slices.nodes) == slices.trie_size
