"""The AMX linear layer against float64, and the promise that a row's bits do not depend on its batch."""

from __future__ import annotations

import pytest
import torch

from zqserve.kernels import amx_linear
from zqserve.kernels.amx_linear import AmxLinear, pack_amx
from zqserve.kernels.thread_pool import ThreadPool

needs_amx = pytest.mark.skipif(
    not amx_linear.is_available(), reason="the processor has no AMX for bfloat16, or Linux refused its use"
)
SHAPES = [(100, 300), (72, 40), (32, 16), (1, 1), (768, 3072), (3072, 768)]
BATCHES = [1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 128, 333, 512, 600]


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def _layer(in_features: int, out_features: int, *, bias: bool, num_threads: int = 1) -> AmxLinear:
    layer = pack_amx(
        _random(out_features, in_features, seed=1),
        _random(out_features, seed=2) if bias else None,
        ThreadPool(num_threads),
    )
    assert layer is not None
    return layer


@needs_amx
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_result_is_the_exact_sum_rounded_once_up_to_float32_error(
    in_features: int, out_features: int, bias: bool
) -> None:
    x = _random(77, in_features, seed=3)
    weight, added = _random(out_features, in_features, seed=1), _random(out_features, seed=2)
    exact = x.double() @ weight.double().T + (added.double() if bias else 0.0)
    terms = x.double().abs() @ weight.double().abs().T + added.double().abs()
    y = _layer(in_features, out_features, bias=bias)(x)
    assert y.dtype == torch.bfloat16
    assert y.shape == (77, out_features)
    half_ulp = exact.abs() * 2.0**-8
    float32_error = terms * in_features**0.5 * 2.0**-24
    assert ((y.double() - exact).abs() <= half_ulp + float32_error).all()


@needs_amx
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_row_has_the_same_bits_in_every_batch(in_features: int, out_features: int, bias: bool) -> None:
    layer = _layer(in_features, out_features, bias=bias)
    x = _random(max(BATCHES), in_features, seed=3)
    expected = layer(x)
    for rows in BATCHES:
        assert torch.equal(layer(x[:rows]), expected[:rows]), f"first {rows} rows"
        assert torch.equal(layer(x[-rows:]), expected[-rows:]), f"last {rows} rows"


@needs_amx
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_a_residual_is_added_to_the_rounded_output(in_features: int, out_features: int, bias: bool) -> None:
    layer = _layer(in_features, out_features, bias=bias)
    x, residual = _random(600, in_features, seed=3), _random(600, out_features, seed=4)
    expected = layer(x) + residual
    for rows in BATCHES:
        assert torch.equal(layer(x[:rows], residual[:rows]), expected[:rows])


@needs_amx
@pytest.mark.parametrize("rows", [1, 33, 333])
def test_number_of_threads_does_not_change_the_bits(rows: int) -> None:
    x = _random(rows, 768, seed=3)
    expected = _layer(768, 3072, bias=True)(x)
    for num_threads in (2, 3):
        assert torch.equal(_layer(768, 3072, bias=True, num_threads=num_threads)(x), expected)


@needs_amx
def test_what_lies_beside_the_input_does_not_enter() -> None:
    layer = _layer(72, 40, bias=True)
    x = _random(5, 72, seed=3)
    surrounded = torch.full((7, 96), torch.inf).to(torch.bfloat16)
    surrounded[1:6, :72] = x
    assert torch.equal(layer(surrounded[1:6, :72]), layer(x))


@needs_amx
def test_leading_dimensions_are_kept() -> None:
    layer = _layer(72, 40, bias=False)
    x = _random(2, 3, 72, seed=3)
    y = layer(x)
    assert y.shape == (2, 3, 40)
    assert torch.equal(y.view(6, 40), layer(x.view(6, 72)))
    assert layer(x[:0]).shape == (0, 3, 40)


@needs_amx
def test_nan_and_infinity_stay_in_their_row() -> None:
    layer = _layer(100, 300, bias=True)
    x = _random(40, 100, seed=3)
    expected = layer(x)
    x[3, 7], x[20, 50] = torch.nan, torch.inf
    y = layer(x)
    assert y[3].isnan().all()
    assert y[20].isinf().all()
    others = [row for row in range(40) if row not in (3, 20)]
    assert torch.equal(y[others], expected[others])


@needs_amx
@pytest.mark.parametrize("x", [torch.zeros(2, 72), torch.zeros(2, 71, dtype=torch.bfloat16)])
def test_input_of_another_dtype_or_width_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="bfloat16"):
        _layer(72, 40, bias=False)(x)


def test_float32_weights_are_left_to_others() -> None:
    assert pack_amx(torch.zeros(40, 72), None, ThreadPool(1)) is None
