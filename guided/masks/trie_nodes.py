"""The nodes of a vocabulary's trie: how they are packed, and the compiled loops that build and sort them.

A trie is flat and in depth-first order, one uint64 a node: the token that ends there (or NO_TOKEN), the place of the
next node that is not below it, its depth (1 for a token's first byte) and its byte.
"""

from __future__ import annotations

import numpy as np

from .compiled_loops import compiled
from .utf8_reader import utf8_step

TOKEN_BITS, SKIP_BITS, DEPTH_BITS, BYTE_BITS = 21, 24, 11, 8
"""Fields of a node, from the highest bit down."""
NO_TOKEN = (1 << TOKEN_BITS) - 1
MAX_TOKEN_BYTES = (1 << DEPTH_BITS) - 2

BYTE_MASK, DEPTH_MASK, SKIP_MASK = (1 << BYTE_BITS) - 1, (1 << DEPTH_BITS) - 1, (1 << SKIP_BITS) - 1
DEPTH_SHIFT, SKIP_SHIFT, TOKEN_SHIFT = BYTE_BITS, BYTE_BITS + DEPTH_BITS, BYTE_BITS + DEPTH_BITS + SKIP_BITS

BIG = 400
"""Nodes below a node, from which on it may have pieces (see slices)."""
NO_PIECE, UNKNOWN_PIECE = -1, -2


@compiled
def build_trie(flat, offsets, tokens, trie):
    """Writes the trie of sorted, different, non-empty byte strings; returns the number of nodes.

    Args:
        flat, offsets: the strings (uint8) one after another, and where each begins (int64, one more than strings).
        tokens: int64, the token of each.
        trie: uint64, long enough: at most one node a byte.
    """
    nodes = 0
    # The nodes of the current string by depth.
    path = np.zeros(MAX_TOKEN_BYTES + 2, np.int64)
    depth_before = 0
    for index in range(len(tokens)):
        first, last = offsets[index], offsets[index + 1]
        length = last - first
        shared = 0
        if index > 0:
            before = offsets[index - 1]
            while shared < length and shared < depth_before and flat[before + shared] == flat[first + shared]:
                shared += 1
        for depth in range(shared + 1, depth_before + 1):
            trie[path[depth]] |= np.uint64(nodes) << np.uint64(SKIP_SHIFT)
        for depth in range(shared + 1, length + 1):
            token = tokens[index] if depth == length else NO_TOKEN
            trie[nodes] = (
                (np.uint64(token) << np.uint64(TOKEN_SHIFT))
                | (np.uint64(depth) << np.uint64(DEPTH_SHIFT))
                | np.uint64(flat[first + depth - 1])
            )
            path[depth] = nodes
            nodes += 1
        depth_before = length
    for depth in range(1, depth_before + 1):
        trie[path[depth]] |= np.uint64(nodes) << np.uint64(SKIP_SHIFT)
    return nodes


@compiled
def add_twins(mask, twins):
    """Allows each token whose twin (a token with the same bytes) is allowed. `twins`: int32[n, 2]."""
    for index in range(len(twins)):
        token, twin = np.int64(twins[index, 0]), np.int64(twins[index, 1])
        if mask[token >> 5] >> np.uint32(token & 31) & np.uint32(1):
            mask[twin >> 5] |= np.uint32(1) << np.uint32(twin & 31)


@compiled
def count_characters(trie, end, accepted, beyond_ascii, lengths):
    """Sets the number of characters (the last may be cut off) of the tokens made of accepted ASCII bytes and, if
    `beyond_ascii`, other characters."""
    states = np.zeros(MAX_TOKEN_BYTES + 2, np.int64)
    counts = np.zeros(MAX_TOKEN_BYTES + 2, np.int64)
    node = 0
    while node < end:
        packed = trie[node]
        byte = np.int64(packed & np.uint64(BYTE_MASK))
        here = np.int64((packed >> np.uint64(DEPTH_SHIFT)) & np.uint64(DEPTH_MASK))
        state, count = states[here - 1], counts[here - 1]
        if state == 0:
            count += 1
        if state == 0 and byte < 128:
            state = 0 if accepted[byte] else -1
        elif beyond_ascii:
            state = utf8_step(state, byte)
        else:
            state = -1
        if state < 0:
            node = np.int64((packed >> np.uint64(SKIP_SHIFT)) & np.uint64(SKIP_MASK))
            continue
        states[here], counts[here] = state, count
        token = np.int64(packed >> np.uint64(TOKEN_SHIFT))
        if token != NO_TOKEN:
            lengths[token] = count
        node += 1


@compiled
def make_piece(trie, first, last, depth, accepted, beyond_ascii, mask, rest):
    """Splits the tokens at the nodes `first` to `last`, all below a node at `depth`, by what follows that depth.

    Those that go on with accepted ASCII bytes (uint8[128]) and, if `beyond_ascii`, other UTF-8 characters (the last of
    which may be cut off) get their bit in `mask`; of the others the trie is written to `trie` from `rest` on. Returns
    the end of it.
    """
    states = np.zeros(MAX_TOKEN_BYTES + 2, np.int64)
    kept = np.zeros(last - first + 1, np.bool_)
    within = np.zeros(last - first + 1, np.bool_)
    dead = MAX_TOKEN_BYTES + 2
    for node in range(first, last):
        packed = trie[node]
        byte = np.int64(packed & np.uint64(BYTE_MASK))
        here = np.int64((packed >> np.uint64(DEPTH_SHIFT)) & np.uint64(DEPTH_MASK))
        if here > dead:
            continue
        dead = MAX_TOKEN_BYTES + 2
        state = states[here - 1] if here > depth + 1 else 0
        if state == 0 and byte < 128:
            state = 0 if accepted[byte] else -1
        elif beyond_ascii:
            state = utf8_step(state, byte)
        else:
            state = -1
        if state < 0:
            dead = here
            continue
        states[here] = state
        within[node - first] = True
        token = np.int64(packed >> np.uint64(TOKEN_SHIFT))
        if token != NO_TOKEN:
            mask[token >> 5] |= np.uint32(1) << np.uint32(token & 31)
    # Backwards: which nodes have a token of the others at or below them, and how many such nodes are behind each.
    behind = np.zeros(last - first + 1, np.int64)
    needed = np.zeros(MAX_TOKEN_BYTES + 3, np.bool_)
    for node in range(last - 1, first - 1, -1):
        packed = trie[node]
        here = np.int64((packed >> np.uint64(DEPTH_SHIFT)) & np.uint64(DEPTH_MASK))
        other = not within[node - first] and np.int64(packed >> np.uint64(TOKEN_SHIFT)) != NO_TOKEN
        kept[node - first] = other or needed[here + 1]
        needed[here + 1] = False
        needed[here] |= kept[node - first]
        behind[node - first] = behind[node - first + 1] + kept[node - first]
    end = rest + behind[0]
    for node in range(first, last):
        if kept[node - first]:
            packed = trie[node]
            token = np.int64(packed >> np.uint64(TOKEN_SHIFT))
            if within[node - first]:
                token = NO_TOKEN
            skip = np.int64((packed >> np.uint64(SKIP_SHIFT)) & np.uint64(SKIP_MASK))
            trie[end - behind[node - first]] = (
                (np.uint64(token) << np.uint64(TOKEN_SHIFT))
                | (np.uint64(end - behind[skip - first]) << np.uint64(SKIP_SHIFT))
                | (packed & np.uint64((1 << SKIP_SHIFT) - 1))
            )
    return end
