"""Packed layers of several projections against the same layers one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zqserve.kernels.gated_activation import ACTIVATIONS, GatedActivation
from zqserve.kernels.packed_linear import pack_gated, pack_together
from zqserve.kernels.thread_pool import ThreadPool

DTYPES = [torch.float32, torch.bfloat16]


def _linears(sizes: list[int], in_features: int, *, bias: bool, dtype: torch.dtype) -> list[nn.Linear]:
    torch.manual_seed(3)
    return [nn.Linear(in_features, size, bias=bias).to(dtype).requires_grad_(False) for size in sizes]


def _input(rows: int, in_features: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(rows, in_features, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [16, 40, 1040])
def test_a_gated_layer_equals_its_product_and_the_gate(
    dtype: torch.dtype, activation: str, bias: bool, size: int
) -> None:
    threads = ThreadPool(2)
    linears = _linears([size, size], 96, bias=bias, dtype=dtype)
    gated, both = pack_gated(linears, activation, threads), pack_together(linears, threads)
    if gated is None or both is None:
        pytest.skip("no packed layer for this dtype on this processor")
    x = _input(600, 96, dtype)
    expected = GatedActivation(activation, threads)(both(x))
    for rows in (1, 5, 16, 33, 64, 600):
        assert torch.equal(gated(x[:rows]), expected[:rows])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gate_and_value_may_come_from_one_layer(activation: str) -> None:
    threads = ThreadPool(1)
    linears = _linears([32, 32], 64, bias=True, dtype=torch.float32)
    (merged,) = _linears([64], 64, bias=True, dtype=torch.float32)
    merged.weight.copy_(torch.cat([linear.weight for linear in linears]))
    merged.bias.copy_(torch.cat([linear.bias for linear in linears]))
    x = _input(7, 64, torch.float32)
    one, two = pack_gated([merged], activation, threads), pack_gated(linears, activation, threads)
    assert one is not None
    assert two is not None
    assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_layers_of_one_input_give_their_outputs_end_to_end(dtype: torch.dtype) -> None:
    linears = _linears([40, 8, 24], 72, bias=True, dtype=dtype)
    packed = pack_together(linears, ThreadPool(1))
    if packed is None:
        pytest.skip("no packed layer for this dtype on this processor")
    x = _input(5, 72, dtype)
    expected = torch.cat([linear(x) for linear in linears], -1)
    torch.testing.assert_close(packed(x), expected, rtol=2e-2, atol=1e-2)


def test_layers_of_different_kinds_are_not_stacked() -> None:
    plain, with_bias = (
        _linears([8], 72, bias=False, dtype=torch.float32),
        _linears([8], 72, bias=True, dtype=torch.float32),
    )
    narrow = _linears([8], 64, bias=False, dtype=torch.float32)
    for other in (with_bias, narrow):
        assert pack_together([*plain, *other], ThreadPool(1)) is None
        assert pack_gated([*plain, *other], "silu", ThreadPool(1)) is None
