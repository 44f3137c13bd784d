"""bfloat16 to float32 is exact."""

from __future__ import annotations

import pytest
import torch

from zqserve.kernels.thread_pool import ThreadPool
from zqserve.kernels.widening import WideningKernel


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (3, 37), (5, 32_000)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_number_keeps_its_value(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = WideningKernel(ThreadPool(2))(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, x.float())


def test_a_view_is_read_by_its_strides() -> None:
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(WideningKernel(ThreadPool(1))(x.t()), x.t().float())
