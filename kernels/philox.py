"""Philox4x32-10, a counter-based random number generator (Salmon et al., SC 2011, doi:10.1145/2063384.2063405).

A number is a pure function of (key, counter). The sampler's key is the request's seed and its counter the sample's
index and the token's position, so a draw can be repeated anywhere, in any batch and any order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
ROUNDS = 10


@njit(error_model="numpy")
def uniform(seed, sample_index, position):
    """A float64 in [0, 1) with 53 random bits, from int64 `seed`, `sample_index` and `position`."""
    word_0, word_1 = philox(
        np.uint64(position) & _LOW,
        np.uint64(position) >> _WORD,
        np.uint64(sample_index) & _LOW,
        np.uint64(sample_index) >> _WORD,
        np.uint64(seed) & _LOW,
        np.uint64(seed) >> _WORD,
    )
    return np.float64(((word_0 << _WORD) | word_1) >> np.uint64(11)) * 2.0**-53


@njit(error_model="numpy")
def philox(counter_0, counter_1, counter_2, counter_3, key_0, key_1):
    """The first two 32-bit words of Philox4x32-10 for a counter of four words and a key of two, all as uint64."""
    for _ in range(ROUNDS):
        product_0 = _MULTIPLIER_0 * counter_0
        product_1 = _MULTIPLIER_1 * counter_2
        counter_0 = (product_1 >> _WORD) ^ counter_1 ^ key_0
        counter_1 = product_1 & _LOW
        counter_2 = (product_0 >> _WORD) ^ counter_3 ^ key_1
        counter_3 = product_0 & _LOW
        key_0 = (key_0 + _WEYL_0) & _LOW
        key_1 = (key_1 + _WEYL_1) & _LOW
    return counter_0, counter_1
