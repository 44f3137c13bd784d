"""Philox4x32-10 inside a kernel: the same numbers as `kernels.philox` for the same seed, sample and position."""

# Inside a kernel Triton's functions have other types than their signatures say.
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

ROUNDS: tl.constexpr = tl.constexpr(10)


@triton.jit
def uniform(seed, sample_index, position):
    """A float64 in [0, 1) with 53 random bits, from int64 `seed`, `sample_index` and `position`."""
    counter_0 = position.to(tl.uint32)
    counter_1 = (position >> 32).to(tl.uint32)
    counter_2 = sample_index.to(tl.uint32)
    counter_3 = (sample_index >> 32).to(tl.uint32)
    key_0 = seed.to(tl.uint32)
    key_1 = (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(ROUNDS):
        product_0 = counter_0.to(tl.uint64) * 0xD2511F53
        product_1 = counter_2.to(tl.uint64) * 0xCD9E8D57
        counter_0 = (product_1 >> 32).to(tl.uint32) ^ counter_1 ^ key_0
        counter_1 = product_1.to(tl.uint32)
        counter_2 = (product_0 >> 32).to(tl.uint32) ^ counter_3 ^ key_1
        counter_3 = product_0.to(tl.uint32)
        key_0 = (key_0.to(tl.uint64) + 0x9E3779B9).to(tl.uint32)
        key_1 = (key_1.to(tl.uint64) + 0xBB67AE85).to(tl.uint32)
    bits = ((counter_0.to(tl.uint64) << 32) | counter_1.to(tl.uint64)) >> 11
    return bits.to(tl.float64) * 1.1102230246251565e-16
