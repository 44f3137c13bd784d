"""The gate of a feed-forward layer against torch's two operations, element by element."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from zqserve.kernels.gated_activation import ACTIVATIONS, GatedActivation
from zqserve.kernels.thread_pool import ThreadPool

FUNCTIONS = {"silu": F.silu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}
DTYPES = [torch.bfloat16, torch.float32]


def _random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return (8 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("size", [1, 16, 96, 1100, 9000])
def test_it_equals_activation_times_up(dtype: torch.dtype, activation: str, size: int) -> None:
    x = _random(2, 7, 2 * size, dtype=dtype)
    found = GatedActivation(activation, ThreadPool(2))(x)
    gate, up = x.chunk(2, -1)
    expected = FUNCTIONS[activation](gate) * up
    assert found.dtype == dtype
    # A unit in the last place of each of the two roundings.
    tolerance = 2.0**-7 if dtype == torch.bfloat16 else 2.0**-20
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-5)
    if dtype == torch.bfloat16:
        # Far below zero the tanh form of GELU cancels, which torch shows and this kernel does not.
        assert (found == expected)[gate > -1.5].float().mean() > 0.99


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gates_far_from_zero_open_or_close(dtype: torch.dtype, activation: str) -> None:
    gate = torch.tensor([-1e30, -200.0, -100.0, 0.0, 100.0, 200.0, 1e30], dtype=dtype)
    found = GatedActivation(activation, ThreadPool(1))(torch.cat([gate, torch.ones_like(gate)]))
    torch.testing.assert_close(found, gate.clamp(min=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_in_every_batch(dtype: torch.dtype) -> None:
    x = _random(64, 2 * 1000, dtype=dtype)
    whole = GatedActivation("silu", ThreadPool(2))(x)
    alone = GatedActivation("silu", ThreadPool(1))
    for row in (0, 1, 31, 63):
        assert torch.equal(alone(x[row : row + 1]), whole[row : row + 1])


def test_nan_stays_where_it_is() -> None:
    x = _random(3, 40, dtype=torch.float32)
    x[1, 3] = torch.nan
    found = GatedActivation("silu", ThreadPool(1))(x)
    assert found.isnan().nonzero().tolist() == [[1, 3]]
