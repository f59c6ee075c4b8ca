"""Products of bfloat16 weights: rounding, and the float32 tile's sums of the rounded numbers, bit for bit."""

import numpy as np
import pytest
from helpers import assert_same_bits, using_isa

import fastrnn
from fastrnn import _core
from fastrnn._base import dispatch
from fastrnn.nn import reference

FLOAT32 = np.dtype(np.float32)
WITHOUT_PAIRS = " without its product of pairs"


@pytest.fixture(params=[*fastrnn.available_isas(), "avx512" + WITHOUT_PAIRS])
def kernels(request):
    """Every way to sum bfloat16 products on this machine in turn; in use while the test runs."""
    name = request.param.removesuffix(WITHOUT_PAIRS)
    if name not in fastrnn.available_isas():
        pytest.skip(f"this machine does not run {name}")
    with using_isa(name):
        table = dispatch.table(FLOAT32, "bfloat16")
        _core.use_dot(table, name == request.param)
        try:
            yield request.param
        finally:
            _core.use_dot(table, True)


def halves(values):
    """The bits of numbers that bfloat16 holds exactly."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)


def product(weight, bias, x):
    dense = _core.Dense(dispatch.table(FLOAT32, "bfloat16"), halves(weight), bias)
    return dense.apply(x, np.empty((len(x), len(weight)), np.float32), 1)


@pytest.mark.parametrize("I", [1, 2, 3, 65, 334, 2047])
@pytest.mark.parametrize("O", [1, 16, 33, 70, 257])
def test_sums_are_those_of_the_float32_tile(kernels, I, O):
    rng = np.random.default_rng(I + O)
    weight = reference.round_half(rng.standard_normal((O, I)).astype(np.float32))
    bias = rng.standard_normal(O).astype(np.float32)
    x = rng.standard_normal((19, I)).astype(np.float32)
    dense = _core.Dense(dispatch.table(FLOAT32), weight, bias)
    expected = dense.apply(reference.round_half(x), np.empty((19, O), np.float32), 1)
    assert not np.array_equal(expected, dense.apply(x, np.empty((19, O), np.float32), 1))
    found = product(weight, bias, x)
    assert_same_bits(found, expected)
    for rows in (slice(3, 4), slice(0, 2), slice(5, 13)):
        assert_same_bits(product(weight, bias, x[rows]), expected[rows])


def test_numbers_are_rounded_as_the_oracle_says(kernels):
    """One weight of 1 for each number of a row, so that the sums are the rounded numbers themselves."""
    bits = np.random.default_rng(0).integers(0, 2**32, (300, 70), np.uint32)
    bits[0, :20] = [0x3F808000, 0x3F818000, 0x3F80FFFF, 0x3F807FFF, 0xBF808000, 0xBF818000, 0, 0x80000000, 0x7F7F7FFF,
                    0x7F7F8000, 0x7F7FFFFF, 0xFF7FFFFF, 0x007FFFFF, 0x00800000, 0x807FFFFF, 1, 0x3F008001, 0x3F017FFF,
                    0x7EFFFFFF, 0x00FFFFFF]
    x = bits.view(np.float32)
    x[~np.isfinite(x)] = 1
    found = product(np.eye(70, dtype=np.float32), None, x)
    assert_same_bits(found, reference.round_half(x) + np.float32(0))
    assert found[0, :6].tolist() == [1, 1.015625, 1.0078125, 1, -1, -1.015625]
    assert np.isfinite(found).all() and found[0, 10] == float.fromhex("0x1.fep127") == -found[0, 11]


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e38, 1e-40])
def test_extreme_numbers(kernels, bad):
    rng = np.random.default_rng(1)
    weight = reference.round_half(rng.standard_normal((40, 21)).astype(np.float32))
    x = rng.standard_normal((9, 21)).astype(np.float32)
    expected = product(weight, None, x)
    x[4, 20] = bad
    found = product(weight, None, x)
    assert_same_bits(np.delete(found, 4, axis=0), np.delete(expected, 4, axis=0))
    dense = _core.Dense(dispatch.table(FLOAT32), weight, None)
    assert_same_bits(found[4:5], dense.apply(reference.round_half(x[4:5]), np.empty((1, 40), np.float32), 1))
    if np.isnan(bad):
        assert np.isnan(found[4]).all()
    if np.isnan(bad) or np.isinf(bad):      # any NaN stays one, whatever its bits are
        x[4, 20:] = np.array([0x7F800001 if np.isnan(bad) else 0x7FFFFFFF], np.uint32).view(np.float32)
        assert np.isnan(product(weight, None, x)[4]).all()
