"""Norms and gates against float64."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels.triton.gated_activation import GatedActivation
from zqserve.kernels.triton.rms_norm import RMSNormKernel

dtypes = st.sampled_from([torch.float32, torch.float16])
sizes = st.sampled_from([1, 16, 100, 1_024, 1_500])


@given(st.integers(1, 3), sizes, st.booleans(), st.booleans(), dtypes)
@settings(max_examples=15)
def test_norms(num_rows: int, size: int, added: bool, early: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    shapes = [(size,), (num_rows, size), (num_rows, size)]
    weight, x, residual = (torch.randn(*shape, generator=generator).to(dtype) for shape in shapes)
    norm = RMSNormKernel(weight, 1e-5, round_before_weight=early)
    total = x + residual if added else x
    found, found_total = norm.add(x, residual) if added else (norm(x), x)
    assert torch.equal(found_total, total)
    expected = total.double() * (total.double().square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    tolerance = 3e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@given(st.integers(1, 3), sizes, st.sampled_from(["silu", "gelu_tanh"]), dtypes)
@settings(max_examples=10)
def test_gates(num_rows: int, size: int, activation: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(7)
    x = (4 * torch.randn(num_rows, 2 * size, generator=generator)).to(dtype)
    gate, up = x.double().chunk(2, -1)
    functional = torch.nn.functional
    active = functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")
    tolerance = 3e-6 if dtype == torch.float32 else 2e-3
    found = GatedActivation(activation)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), active * up, rtol=tolerance, atol=tolerance)
