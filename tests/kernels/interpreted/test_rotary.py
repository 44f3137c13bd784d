"""Rotation with norms and the write into the cache, against the plain form in float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels.rotary import Rotary
from zqserve.kernels.triton.rms_norm import RMSNormKernel
from zqserve.kernels.triton.rotary import rotate_launch

BLOCK_SIZE = 16


@given(
    st.integers(1, 5),
    st.sampled_from([(1, 1), (4, 2), (9, 3)]),
    st.sampled_from([(64, 64), (64, 32), (80, 80), (128, 128), (96, 24), (24, 0)]),
    st.sampled_from([16, 40, 64]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float16]),
)
@settings(max_examples=15)
def test_any_heads(
    num_tokens: int,
    heads: tuple[int, int],
    dims: tuple[int, int],
    value_dim: int,
    normed: bool,
    interleaved: bool,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(5)
    (num_heads, num_kv_heads), (head_dim, rotary_dim) = heads, dims

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).to(dtype)

    # Queries, keys and values lie beside each other in one product.
    widths = [num_heads * head_dim, num_kv_heads * head_dim, num_kv_heads * value_dim]
    parts = draw(num_tokens, sum(widths)).split(widths, 1)
    query, key, value = (
        part.unflatten(1, (count, -1))
        for part, count in zip(parts, (num_heads, num_kv_heads, num_kv_heads), strict=True)
    )
    norms = [RMSNormKernel(1 + draw(head_dim), 1e-6, round_before_weight=False) if normed else None for _ in range(2)]
    rotary = Rotary(draw(num_tokens, rotary_dim), draw(num_tokens, rotary_dim), *norms) if rotary_dim else None
    key_cache = torch.full((4, num_kv_heads, BLOCK_SIZE, head_dim), torch.nan, dtype=dtype)
    value_cache = torch.full((4, num_kv_heads, BLOCK_SIZE, value_dim), torch.nan, dtype=dtype)
    slots = torch.randperm(4 * BLOCK_SIZE, generator=generator)[:num_tokens]
    slots[-1] = -1
    turned = torch.empty(num_tokens, num_heads, head_dim, dtype=dtype) if rotary else None
    rotate_launch(*(turned, query, key, value, key_cache, value_cache, slots, rotary), interleaved=interleaved).run()

    tolerance = 3e-6 if dtype == torch.float32 else 4e-3
    if turned is not None:
        expected = _turned(query, rotary, norms[0], interleaved)
        torch.testing.assert_close(turned.double(), expected, rtol=tolerance, atol=tolerance)
    expected_keys = _turned(key, rotary, norms[1], interleaved) if rotary else key.double()
    written = slots[slots >= 0]
    found = key_cache[written // BLOCK_SIZE, :, written % BLOCK_SIZE].double()
    torch.testing.assert_close(found, expected_keys[slots >= 0], rtol=tolerance, atol=tolerance)
    assert torch.equal(value_cache[written // BLOCK_SIZE, :, written % BLOCK_SIZE], value[slots >= 0])
    for cache in (key_cache, value_cache):
        assert int(cache[:, 0, :, 0].isfinite().sum()) == len(written)


def _turned(heads: torch.Tensor, rotary: Rotary | None, norm: RMSNormKernel | None, interleaved: bool) -> torch.Tensor:
    assert rotary is not None
    x = heads.double()
    if norm is not None:
        x = x * (x.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight.double()
    cos, sin = rotary.cos.double()[:, None], rotary.sin.double()[:, None]
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    if interleaved:
        partners = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
    else:
        first, second = turned.chunk(2, -1)
        partners = torch.cat((-second, first), -1)
    return torch.cat((turned * cos + partners * sin, rest), -1)
