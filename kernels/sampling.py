"""Choosing tokens from logits on the CPU: a row a work item, each row's sums in one fixed order.

A row is greedy (temperature 0: the first of the largest logits) or drawn: weights exp((logit - max) / temperature), of
which min-p, top-k and top-p keep some, in that order; one Philox number picks among them by inverse transform. Only the
part of a row that a limit falls into is ever sorted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numba import njit

from .philox import uniform
from .simd import (
    LANES,
    TILE,
    address_of,
    bits_of,
    copy_16,
    exp_of_tile,
    fill_16,
    forbid_16,
    load_f32,
    load_f64,
    load_i64,
    max_of_tile,
    max_of_tiles,
    scale_16,
    store_f32,
    store_f64,
    store_i64,
    sum_of_16,
    sum_of_tile,
)
from .thread_pool import KernelArguments, ThreadPool, compile_kernel
from .threading_primitives import atomic_add

NUM_BINS = (0x3F800000 >> 15) + 1
"""Bins of a weight in [0, 1] by the upper bits of its float32: 256 a power of two."""

STRETCH = 16 * TILE
"""Logits whose largest is found before lanes are compared with each other."""


@dataclass(frozen=True)
class SamplingRows:
    """Parameters of the rows of a step, one entry a row: float32, int64 and bool numpy arrays [num_rows]."""

    temperature: np.ndarray
    top_k: np.ndarray
    """0: all."""
    top_p: np.ndarray
    min_p: np.ndarray
    seed: np.ndarray
    sample_index: np.ndarray
    position: np.ndarray

    @cached_property
    def addresses(self) -> list[int]:
        """Of the arrays, as the kernel takes them: costly to get, and the same for many steps."""
        fields = (self.temperature, self.top_k, self.top_p, self.min_p, self.seed, self.sample_index, self.position)
        return [array.ctypes.data for array in fields]


@dataclass(frozen=True)
class AllowedTokens:
    """Which tokens some rows of a step may choose from; nothing outside of a row's set is ever drawn."""

    words: np.ndarray
    """uint32 [num_masks, num_words], contiguous, num_words even: bit t % 32 of word t // 32 allows token t."""
    row: np.ndarray
    """int64 [num_rows]: the mask of each row, -1 for a row that may choose any token."""


class SamplingKernel:
    """Draws one token a row."""

    def __init__(self, vocab_size: int, threads: ThreadPool) -> None:
        self._vocab_size = vocab_size
        self._threads = threads
        self._sample = compile_kernel(_sample)
        self._score = compile_kernel(_score)
        padded = -(-vocab_size // TILE) * TILE
        # A thread's scratch: weights, the bins' counts and masses, the members of one bin, one tile of sums.
        self._stride = 4 * padded + 16 * NUM_BINS + 16 * padded + 4 * TILE
        self._scratch = torch.empty(self._stride * threads.size, dtype=torch.uint8)
        self._arguments = KernelArguments(20)
        self._arguments.values[13] = self._scratch.data_ptr()
        self._arguments.values[14] = self._stride
        self._set_tokens(0)

    def _set_tokens(self, num_rows: int) -> None:
        """Make room for as many tokens."""
        self._tokens = np.empty(num_rows, np.int64)
        self._arguments.values[12] = self._tokens.ctypes.data

    def sample(self, logits: torch.Tensor, rows: SamplingRows, allowed: AllowedTokens | None = None) -> np.ndarray:
        """logits float32 [num_rows, vocab_size], contiguous; those of tokens that are not allowed become -inf.

        Returns int64 [num_rows]; -1 where no logit is finite.
        """
        num_rows = logits.shape[0]
        if num_rows > len(self._tokens):
            self._set_tokens(2 * num_rows)
        v = self._arguments.values
        v[:5] = (0, 0, num_rows, self._vocab_size, logits.data_ptr())
        v[5:12] = rows.addresses
        if allowed is None:
            v[15] = 0
        else:
            v[15] = allowed.words.ctypes.data
            v[16] = 4 * allowed.words.shape[1]
            v[17] = allowed.row.ctypes.data
        self._threads.run(self._sample, self._arguments, parallel=num_rows > 1)
        return self._tokens[:num_rows].copy()

    def score(self, logits: torch.Tensor, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-probabilities: logits float32 [num_rows, vocab_size], tokens int64 [num_rows].

        Returns each row's log of the sum of exponentials (float64), each token's logprob (float64) and its rank
        (int64, 1 is the most likely).
        """
        num_rows = logits.shape[0]
        log_sums, logprobs = np.empty(num_rows), np.empty(num_rows)
        ranks = np.empty(num_rows, np.int64)
        v = self._arguments.values
        v[:5] = (0, 0, num_rows, self._vocab_size, logits.data_ptr())
        v[5] = tokens.ctypes.data
        v[6] = log_sums.ctypes.data
        v[7] = logprobs.ctypes.data
        v[8] = ranks.ctypes.data
        self._threads.run(self._score, self._arguments, parallel=num_rows > 1)
        return log_sums, logprobs, ranks


def _sample(args):
    """Kernel: one token a row."""
    base = address_of(args)
    num_rows, size = args[2], args[3]
    padded = (size + TILE - 1) // TILE * TILE
    weights = args[13] + args[14] * atomic_add(base + 8, 1)
    counts = weights + 4 * padded
    masses = counts + 8 * NUM_BINS
    members = masses + 8 * NUM_BINS
    while True:
        row = atomic_add(base, 1)
        if row >= num_rows:
            return
        logits = args[4] + 4 * row * size
        mask = load_i64(args[17] + 8 * row) if args[15] != 0 else -1
        first = 0
        if mask >= 0:
            maximum = _forbid_others(logits, args[15] + args[16] * mask, size)
        else:
            maximum, first = _row_max(logits, size)
        temperature = load_f32(args[5] + 4 * row)
        if not maximum > np.float32(-np.inf) or maximum == np.float32(np.inf):
            token = -1
        elif temperature == np.float32(0.0):
            token = _first_equal(logits, maximum, first, size)
        else:
            mass = _weights(weights, logits, maximum, temperature, size, members)
            top_k = load_i64(args[6] + 8 * row)
            top_p = load_f32(args[7] + 4 * row)
            min_p = load_f32(args[8] + 4 * row)
            draw = uniform(load_i64(args[9] + 8 * row), load_i64(args[10] + 8 * row), load_i64(args[11] + 8 * row))
            if min_p > np.float32(0.0):
                mass = _drop_below(weights, size, min_p)
            if 0 < top_k < size or top_p < np.float32(1.0):
                mass = _keep_top(weights, size, top_k, top_p, counts, masses, members)
            token = _pick(weights, size, draw * mass)
        store_i64(args[12] + 8 * row, token)


def _score(args):
    """Kernel: log-sum-exp, logprob and rank of the given token of each row."""
    base = address_of(args)
    num_rows, size = args[2], args[3]
    padded = (size + TILE - 1) // TILE * TILE
    weights = args[13] + args[14] * atomic_add(base + 8, 1)
    while True:
        row = atomic_add(base, 1)
        if row >= num_rows:
            return
        logits = args[4] + 4 * row * size
        maximum, _ = _row_max(logits, size)
        mass = _weights(weights, logits, maximum, np.float32(1.0), size, weights + 4 * padded)
        log_sum = np.float64(maximum) + math.log(mass)
        chosen = load_f32(logits + 4 * load_i64(args[5] + 8 * row))
        rank = 1
        for i in range(size):
            if load_f32(logits + 4 * i) > chosen:
                rank += 1
        store_f64(args[6] + 8 * row, log_sum)
        store_f64(args[7] + 8 * row, np.float64(chosen) - log_sum)
        store_i64(args[8] + 8 * row, rank)


@njit(error_model="numpy")
def _forbid_others(logits, allowed, size):
    """The logits of tokens whose bit is not set become -inf. Returns the largest of the others."""
    whole = size - size % TILE
    maximum = np.float32(-np.inf)
    for first in range(0, whole, TILE):
        tile = logits + 4 * first
        word = load_i64(allowed + first // 8)
        if word == 0:
            for i in range(0, TILE, LANES):
                fill_16(tile + 4 * i, np.float32(-np.inf))
            continue
        if word != -1:
            for i in range(0, TILE, LANES):
                forbid_16(tile + 4 * i, word >> i)
        maximum = max(maximum, max_of_tile(tile))
    for i in range(whole, size):
        if (load_i64(allowed + whole // 8) >> (i - whole)) & 1 == 0:
            store_f32(logits + 4 * i, np.float32(-np.inf))
        maximum = max(maximum, load_f32(logits + 4 * i))
    return maximum


@njit(error_model="numpy")
def _row_max(logits, size):
    """The largest, and where the stretch of tiles that holds the first of its equals begins."""
    whole = size - size % TILE
    maximum, found = np.float32(-np.inf), 0
    for first in range(0, whole, STRETCH):
        largest = max_of_tiles(logits + 4 * first, min(STRETCH, whole - first) // TILE)
        if largest > maximum:
            maximum, found = largest, first
    for i in range(whole, size):
        if load_f32(logits + 4 * i) > maximum:
            maximum, found = load_f32(logits + 4 * i), whole
    return maximum, found


@njit(error_model="numpy")
def _first_equal(logits, maximum, first, size):
    """The first token from `first`, the begin of a tile, whose logit is `maximum`."""
    whole = size - size % TILE
    for i in range(first, whole, TILE):
        if max_of_tile(logits + 4 * i) == maximum:
            for j in range(i, i + TILE):
                if load_f32(logits + 4 * j) == maximum:
                    return j
    for i in range(whole, size):
        if load_f32(logits + 4 * i) == maximum:
            return i
    return -1


@njit(error_model="numpy")
def _weights(weights, logits, maximum, temperature, size, sums):
    """weights[i] = exp((logits[i] - maximum) / temperature); the tail of the last tile holds zeros. Returns the sum."""
    inverse = np.float32(1.0) / temperature
    mass = 0.0
    for i in range(0, size, TILE):
        tile = weights + 4 * i
        live = min(TILE, size - i)
        if live == TILE:
            for j in range(0, TILE, LANES):
                copy_16(tile + 4 * j, logits + 4 * (i + j))
                scale_16(tile + 4 * j, inverse)
        else:
            for j in range(live):
                store_f32(tile + 4 * j, load_f32(logits + 4 * (i + j)) * inverse)
            for j in range(live, TILE):
                store_f32(tile + 4 * j, np.float32(-np.inf))
        fill_16(sums, np.float32(0.0))
        exp_of_tile(tile, maximum * inverse, sums)
        mass += np.float64(sum_of_16(sums))
    return mass


@njit(error_model="numpy")
def _drop_below(weights, size, least):
    """Weights below `least` (the largest weight is 1) become 0. Returns the sum of the rest."""
    mass = 0.0
    for i in range(size):
        weight = load_f32(weights + 4 * i)
        if weight < least:
            store_f32(weights + 4 * i, np.float32(0.0))
        else:
            mass += np.float64(weight)
    return mass


@njit(error_model="numpy")
def _keep_top(weights, size, top_k, top_p, counts, masses, members):
    """Keep the `top_k` largest weights (0: all; equals of the last stay) and of those the smallest set of the largest
    that holds `top_p` of their sum; the others become 0. Returns the sum of what is kept.
    """
    for b in range(NUM_BINS):
        store_i64(counts + 8 * b, 0)
        store_f64(masses + 8 * b, 0.0)
    for i in range(size):
        weight = load_f32(weights + 4 * i)
        if weight > np.float32(0.0):
            b = 8 * (np.int64(bits_of(weight)) >> 15)
            store_i64(counts + b, load_i64(counts + b) + 1)
            store_f64(masses + b, load_f64(masses + b) + np.float64(weight))
    kth = np.float32(0.0)
    if 0 < top_k < size:
        kth = _kth_largest(weights, size, top_k, counts, members)
    last_token = size
    if top_p < np.float32(1.0):
        kth, last_token = _nucleus(weights, size, kth, np.float64(top_p), masses, members)
    mass = 0.0
    for i in range(size):
        weight = load_f32(weights + 4 * i)
        if weight > kth or (weight == kth and i <= last_token):
            mass += np.float64(weight)
        else:
            store_f32(weights + 4 * i, np.float32(0.0))
    return mass


@njit(error_model="numpy")
def _kth_largest(weights, size, top_k, counts, members):
    """The top_k-th largest weight; 0 when fewer are above 0."""
    seen = 0
    b = NUM_BINS - 1
    while b >= 0 and seen + load_i64(counts + 8 * b) < top_k:
        seen += load_i64(counts + 8 * b)
        b -= 1
    if b < 0:
        return np.float32(0.0)
    count = _collect(weights, size, b, np.float32(0.0), members)
    _sort_members(members, count)
    return load_f32(weights + 4 * load_i64(members + 8 * (top_k - seen - 1)))


@njit(error_model="numpy")
def _nucleus(weights, size, least, top_p, masses, members):
    """(weight, token) of the last member of the smallest set of the largest weights, from `least` up, that holds
    `top_p` of their sum. Among equal weights the lower token comes first.
    """
    total = 0.0
    for i in range(size):
        weight = load_f32(weights + 4 * i)
        if weight >= least:
            total += np.float64(weight)
    target = top_p * total
    above = 0.0
    b = NUM_BINS - 1
    lowest = np.int64(bits_of(least)) >> 15
    while b > lowest and above + load_f64(masses + 8 * b) < target:
        above += load_f64(masses + 8 * b)
        b -= 1
    count = _collect(weights, size, b, least, members)
    _sort_members(members, count)
    token = size
    for i in range(count):
        token = load_i64(members + 8 * i)
        above += np.float64(load_f32(weights + 4 * token))
        if above >= target:
            break
    if token == size:
        return least, size
    return load_f32(weights + 4 * token), token


@njit(error_model="numpy")
def _collect(weights, size, b, least, members):
    """Tokens whose weight, at least `least` and above 0, falls into bin b, into `members`; returns how many."""
    count = 0
    for i in range(size):
        weight = load_f32(weights + 4 * i)
        if weight > np.float32(0.0) and weight >= least and (np.int64(bits_of(weight)) >> 15) == b:
            # A key that sorts falling weights, then rising tokens: the inverted bits, then the token.
            key = ((np.int64(0x7FFFFFFF) - np.int64(bits_of(weight))) << 32) | i
            store_i64(members + 8 * count, key)
            count += 1
    return count


@njit(error_model="numpy")
def _sort_members(members, count):
    """Sort the keys in place (heapsort) and leave the tokens."""
    for start in range(count // 2 - 1, -1, -1):
        _sift_down(members, start, count)
    for end in range(count - 1, 0, -1):
        largest, last = load_i64(members), load_i64(members + 8 * end)
        store_i64(members, last)
        store_i64(members + 8 * end, largest)
        _sift_down(members, 0, end)
    for i in range(count):
        store_i64(members + 8 * i, load_i64(members + 8 * i) & 0xFFFFFFFF)


@njit(error_model="numpy")
def _sift_down(members, root, end):
    while 2 * root + 1 < end:
        child = 2 * root + 1
        if child + 1 < end and load_i64(members + 8 * child) < load_i64(members + 8 * child + 8):
            child += 1
        parent_key, child_key = load_i64(members + 8 * root), load_i64(members + 8 * child)
        if parent_key >= child_key:
            return
        store_i64(members + 8 * root, child_key)
        store_i64(members + 8 * child, parent_key)
        root = child


@njit(error_model="numpy")
def _pick(weights, size, target):
    """The token at which the running sum of the weights, tile by tile, passes `target`; else the last with any weight.

    The last tile is filled up with zeros.
    """
    running = 0.0
    chosen = -1
    for first in range(0, size, TILE):
        mass = np.float64(sum_of_tile(weights + 4 * first))
        if mass > 0.0:
            chosen = first
            if running + mass > target:
                break
            running += mass
    else:
        target = np.inf
    if chosen < 0:
        return -1
    last = -1
    for i in range(chosen, chosen + TILE):
        weight = load_f32(weights + 4 * i)
        if weight > np.float32(0.0):
            running += np.float64(weight)
            last = i
            if running > target:
                break
    return last
