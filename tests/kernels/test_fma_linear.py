"""The float32 linear layer: right, and with the same bits for a row in every batch."""

from __future__ import annotations

import pytest
import torch

from zqserve.kernels.fma_linear import FmaLinear
from zqserve.kernels.thread_pool import ThreadPool


@pytest.mark.parametrize(("in_features", "out_features"), [(100, 300), (72, 40), (768, 256), (256, 1000)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_equals_the_product_and_a_row_has_the_same_bits_in_every_batch(in_features, out_features, bias) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out_features, in_features, generator=generator)
    offset = torch.randn(out_features, generator=generator) if bias else None
    x = torch.randn(130, in_features, generator=generator)
    linear = FmaLinear(weight, offset, threads=ThreadPool(2))
    whole = linear(x)
    expected = x.double() @ weight.double().T + (0 if offset is None else offset.double())
    torch.testing.assert_close(whole.double(), expected, rtol=1e-4, atol=1e-4)
    for count in (1, 2, 3, 4, 5, 6, 7, 31, 48, 49, 97):
        assert torch.equal(linear(x[:count]), whole[:count])
        assert torch.equal(linear(x[-count:]), whole[-count:])
    assert torch.equal(linear(x[None, :1]), whole[None, :1])
    residual = torch.randn(130, out_features, generator=generator)
    assert torch.equal(linear(x, residual), whole + residual)
