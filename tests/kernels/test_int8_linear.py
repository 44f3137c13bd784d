"""The int8 linear layers, on the matrix unit and in vector instructions, against their plain form and float64, and the
promise that a row's bits do not depend on its batch.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zqserve.kernels import int8_linear
from zqserve.kernels.fma_int8_linear import FmaInt8Linear
from zqserve.kernels.gated_activation import ACTIVATIONS, GatedActivation
from zqserve.kernels.int8_linear import LARGEST_INPUT, MAX_IN_FEATURES, Int8Linear, pack_int8
from zqserve.kernels.int8_weight import Int8Rounding
from zqserve.kernels.kernel_sequence import KernelSequence
from zqserve.kernels.reference import int8_linear as plain
from zqserve.kernels.thread_pool import ThreadPool

needs_amx = pytest.mark.skipif(
    not int8_linear.is_available(), reason="the processor has no AMX for int8, or Linux refused its use"
)
SHAPES = [(100, 300), (72, 40), (64, 32), (1, 33), (768, 3072), (3072, 768)]
BATCHES = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100, 128, 256, 257, 333, 600]


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


@pytest.fixture(
    params=[pytest.param(True, marks=needs_amx, id="matrix unit"), pytest.param(False, id="vector instructions")]
)
def matrix_unit(request: pytest.FixtureRequest) -> bool:
    return request.param


def _layer(
    in_features: int,
    out_features: int,
    matrix_unit: bool,
    *,
    bias: bool = True,
    num_threads: int = 1,
    activation: str | None = None,
) -> Int8Linear | FmaInt8Linear:
    layer = pack_int8(
        _random(out_features, in_features, seed=1),
        _random(out_features, seed=2) if bias else None,
        ThreadPool(num_threads),
        Int8Rounding(matrix_unit=matrix_unit),
        activation,
    )
    assert isinstance(layer, Int8Linear if matrix_unit else FmaInt8Linear)
    return layer


@needs_amx
@settings(max_examples=25, deadline=None)
@given(
    in_features=st.integers(1, 400),
    out_features=st.integers(32, 200),
    rows=st.integers(1, 80),
    bias=st.booleans(),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    outlier=st.sampled_from([1.0, 100.0, 10_000.0]),
    seed=st.integers(0, 1000),
)
def test_on_the_matrix_unit_it_is_exact_up_to_the_rounding_of_the_inputs(
    in_features: int, out_features: int, rows: int, bias: bool, scale: float, outlier: float, seed: int
) -> None:
    x = (scale * _random(rows, in_features, seed=seed)).to(torch.bfloat16)
    x[:, seed % in_features] *= outlier
    weight = _random(out_features, in_features, seed=seed + 1)
    added = (scale * _random(out_features, seed=seed + 2)).to(torch.bfloat16) if bias else None
    layer = pack_int8(weight, added, ThreadPool(1), Int8Rounding())
    assert layer is not None
    rounded = Int8Rounding().round(weight)
    wide = rounded.values.double() * rounded.scales.double()[:, None]
    exact = x.double() @ wide.T + (0.0 if added is None else added.double())
    steps = x.double().abs().amax(1, keepdim=True) / LARGEST_INPUT
    of_inputs = 0.51 * steps * wide.abs().sum(1)
    of_floats = 2.0**-20 * (x.double().abs() @ wide.abs().T + exact.abs())
    y = layer(x)
    assert y.shape == (rows, out_features)
    assert y.dtype == torch.bfloat16
    assert ((y.double() - exact).abs() <= exact.abs() * 2.0**-8 + of_inputs + of_floats).all()


@settings(max_examples=40, deadline=None)
@given(
    in_features=st.integers(1, 400),
    out_features=st.integers(32, 200),
    rows=st.integers(1, 300),
    bias=st.booleans(),
    has_residual=st.booleans(),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    outlier=st.sampled_from([1.0, 100.0, 10_000.0]),
    seed=st.integers(0, 1000),
)
def test_in_vector_instructions_it_is_exact_up_to_float32(
    in_features: int,
    out_features: int,
    rows: int,
    bias: bool,
    has_residual: bool,
    scale: float,
    outlier: float,
    seed: int,
) -> None:
    x = (scale * _random(rows, in_features, seed=seed)).to(torch.bfloat16)
    x[:, seed % in_features] *= outlier
    weight = _random(out_features, in_features, seed=seed + 1)
    added = (scale * _random(out_features, seed=seed + 2)).to(torch.bfloat16) if bias else None
    residual = (scale * _random(rows, out_features, seed=seed + 3)).to(torch.bfloat16) if has_residual else None
    layer = pack_int8(weight, added, ThreadPool(1), Int8Rounding(matrix_unit=False))
    assert layer is not None
    rounded = Int8Rounding().round(weight)
    wide = rounded.values.double() * rounded.scales.double()[:, None]
    exact = x.double() @ wide.T + (0.0 if added is None else added.double())
    # Each of the products is added with half a bit's error of what has come together so far.
    of_sums = (in_features + 3) * 2.0**-24 * (x.double().abs() @ wide.abs().T + exact.abs())
    allowed = exact.abs() * 2.0**-8 + of_sums
    if residual is not None:
        exact = exact + residual.double()
        allowed += exact.abs() * 2.0**-8
    y = layer(x, residual)
    assert y.shape == (rows, out_features)
    assert y.dtype == torch.bfloat16
    assert ((y.double() - exact).abs() <= allowed * (1 + 2.0**-7)).all()


@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_it_is_as_near_to_float64_as_the_output_can_be(in_features: int, out_features: int, matrix_unit: bool) -> None:
    x, residual = _random(77, in_features, seed=3), _random(77, out_features, seed=4)
    weight, bias = _random(out_features, in_features, seed=1), _random(out_features, seed=2)
    exact = plain(x.double(), Int8Rounding().round(weight), bias.double())
    nearest, y = plain(x, Int8Rounding().round(weight), bias), _layer(in_features, out_features, matrix_unit)(x)
    assert (y.double() - exact).norm() <= 1.01 * (nearest.double() - exact).norm() + 1e-6
    assert torch.equal(_layer(in_features, out_features, matrix_unit)(x, residual), residual + y)


@pytest.mark.parametrize(("in_features", "out_features"), SHAPES)
def test_row_has_the_same_bits_in_every_batch(in_features: int, out_features: int, matrix_unit: bool) -> None:
    layer = _layer(in_features, out_features, matrix_unit)
    x = _random(max(BATCHES), in_features, seed=3)
    expected = layer(x)
    for rows in BATCHES:
        assert torch.equal(layer(x[:rows]), expected[:rows]), f"first {rows} rows"
        assert torch.equal(layer(x[-rows:]), expected[-rows:]), f"last {rows} rows"


@pytest.mark.parametrize("width", [16, 32, 48, 160])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_that_of_the_outputs(activation: str, width: int, matrix_unit: bool) -> None:
    """Gates and values stand by turns, sixteen of each."""
    x = _random(70, 100, seed=3)
    outputs = _layer(100, 2 * width, matrix_unit)(x)
    gates, values = outputs.view(70, -1, 2, 16).transpose(1, 2).flatten(2).unbind(1)
    expected = GatedActivation(activation, ThreadPool(1))(torch.cat([gates, values], -1))
    y = _layer(100, 2 * width, matrix_unit, activation=activation)(x)
    assert y.shape == (70, width)
    assert torch.equal(y, expected)


@pytest.mark.parametrize("rows", [1, 33, 333])
def test_number_of_threads_does_not_change_the_bits(rows: int, matrix_unit: bool) -> None:
    x = _random(rows, 768, seed=3)
    expected = _layer(768, 3072, matrix_unit)(x)
    for num_threads in (2, 3):
        assert torch.equal(_layer(768, 3072, matrix_unit, num_threads=num_threads)(x), expected)


@pytest.mark.parametrize("rows", [1, 8, 40, 200])
def test_in_a_sequence_it_has_the_bits_of_its_forward(rows: int, matrix_unit: bool) -> None:
    threads = ThreadPool(2)
    wide, narrow = (_layer(*shape, matrix_unit, num_threads=threads.size) for shape in ((100, 300), (300, 64)))
    sequence = KernelSequence(threads, num_counts=1)
    x, between = sequence.buffer(200, 0), sequence.buffer(600, 0)
    rounded, as_float32 = sequence.buffer(128, 0), sequence.buffer(256, 0)
    wide.append_to(sequence, x, between)
    narrow.append_to(sequence, between, rounded)
    narrow.append_to(sequence, between, as_float32)
    given = _random(rows, 100, seed=3)
    sequence.prepare([rows])
    sequence.view(x, torch.bfloat16)[:] = given
    for _ in range(2):
        sequence.run()
        expected = narrow(wide(given))
        assert torch.equal(sequence.view(rounded, torch.bfloat16), expected)
        assert torch.equal(sequence.view(as_float32, torch.float32), expected.float())


def test_what_lies_beside_the_input_does_not_enter(matrix_unit: bool) -> None:
    layer = _layer(72, 40, matrix_unit)
    x = _random(5, 72, seed=3)
    surrounded = torch.full((7, 96), torch.inf).to(torch.bfloat16)
    surrounded[1:6, :72] = x
    assert torch.equal(layer(surrounded[1:6, :72]), layer(x))


def test_leading_dimensions_are_kept(matrix_unit: bool) -> None:
    layer = _layer(72, 40, matrix_unit)
    x = _random(2, 3, 72, seed=3)
    assert torch.equal(layer(x).view(6, 40), layer(x.view(6, 72)))
    assert layer(x[:0]).shape == (0, 3, 40)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_spoil_their_row_alone(value: float, matrix_unit: bool) -> None:
    layer = _layer(100, 300, matrix_unit)
    x = _random(40, 100, seed=3)
    expected = layer(x)
    x[3, 7] = value
    y = layer(x)
    assert not y[3].isfinite().any()
    others = [row for row in range(40) if row != 3]
    assert torch.equal(y[others], expected[others])


@pytest.mark.parametrize("value", [0.0, 1e-39, -1e-31])
def test_a_row_of_nothing_gives_the_bias(value: float, matrix_unit: bool) -> None:
    layer = _layer(100, 300, matrix_unit)
    assert torch.equal(layer(torch.full((2, 100), value).to(torch.bfloat16))[1], _random(300, seed=2))


@pytest.mark.parametrize("x", [torch.zeros(2, 72), torch.zeros(2, 71, dtype=torch.bfloat16)])
def test_input_of_another_dtype_or_width_is_refused(x: torch.Tensor, matrix_unit: bool) -> None:
    with pytest.raises(ValueError, match="bfloat16"):
        _layer(72, 40, matrix_unit)(x)


def test_float32_weights_and_layers_of_a_few_outputs_are_left_to_others() -> None:
    rounding = Int8Rounding()
    assert pack_int8(torch.zeros(40, 72), None, ThreadPool(1), rounding) is None
    assert pack_int8(torch.zeros(4, 72, dtype=torch.bfloat16), None, ThreadPool(1), rounding) is None
    assert rounding.num_layers == 0


def test_more_inputs_than_the_matrix_unit_can_sum_are_left_to_vector_instructions() -> None:
    weight, x = _random(32, MAX_IN_FEATURES + 1, seed=1), _random(2, MAX_IN_FEATURES + 1, seed=3)
    layer = pack_int8(weight, None, ThreadPool(1), Int8Rounding())
    assert isinstance(layer, FmaInt8Linear)
    torch.testing.assert_close(layer(x), plain(x, Int8Rounding().round(weight)), rtol=2e-2, atol=1e-1)


@pytest.mark.parametrize("shape", [(300, 100), (3, 200_000), (1, 1)])
def test_a_weight_is_rounded_to_the_nearest_step_of_its_output(shape: tuple[int, int]) -> None:
    weight = _random(*shape, seed=1) * torch.arange(1, shape[0] + 1)[:, None]
    weight[-1] *= 0.0
    rounding = Int8Rounding()
    rounded = rounding.round(weight)
    restored = rounded.values.double() * rounded.scales.double()[:, None]
    errors = (restored - weight.double()).abs()
    assert (errors <= 0.5001 * rounded.scales.double()[:, None]).all()
    assert torch.equal(rounded.values.abs().amax(1)[:-1], torch.full((shape[0] - 1,), 127, dtype=torch.int8))
    assert (rounding.num_layers, rounding.num_weights) == (1, weight.numel())
    if shape[0] > 1:
        expected = float((restored - weight.double()).norm() / weight.double().norm())
        assert rounding.relative_error == pytest.approx(expected, rel=1e-3)


def test_the_error_is_that_of_all_weights_together() -> None:
    rounding = Int8Rounding()
    assert rounding.relative_error == 0
    weights = [_random(40, 50, seed=1), 3 * _random(30, 70, seed=2)]
    rounded = [rounding.round(weight) for weight in weights]
    error = sum(
        float((one.values.double() * one.scales.double()[:, None] - weight.double()).square().sum())
        for one, weight in zip(rounded, weights, strict=True)
    )
    norm = sum(float(weight.double().square().sum()) for weight in weights)
    assert rounding.relative_error == pytest.approx((error / norm) ** 0.5, rel=1e-3)
    assert 0.001 < rounding.relative_error < 0.01
