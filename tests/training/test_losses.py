"""Losses: against torch and by hand, their gradients against central differences, masks, bad input."""

import numpy as np
import pytest
import torch
from helpers import assert_same_bits, central_differences, refuses

from fastrnn.losses import MAE, MSE, CrossEntropy, Huber, Quantile

QUANTILES = (0.1, 0.5, 0.9)
# name -> loss, makes (output, target), a function of tensors that gives each element's loss
CASES = {
    "mse": (MSE(), torch.nn.MSELoss(reduction="none")),
    "mae": (MAE(), torch.nn.L1Loss(reduction="none")),
    "huber": (Huber(), torch.nn.HuberLoss(reduction="none")),
    "huber 0.3": (Huber(delta=0.3), torch.nn.HuberLoss(reduction="none", delta=0.3)),
    "quantile": (Quantile(QUANTILES), lambda output, target: torch.maximum(
        torch.tensor(QUANTILES) * (target[..., None] - output),
        (torch.tensor(QUANTILES) - 1) * (target[..., None] - output))),
    "cross-entropy": (CrossEntropy(), lambda output, target: torch.nn.functional.cross_entropy(
        output.movedim(-1, 1), target, reduction="none")),
}


def data(name, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    output = (2 * rng.standard_normal((5, 4, 3))).astype(dtype)
    if name == "cross-entropy":
        return output, rng.integers(0, 3, (5, 4))
    return output, rng.standard_normal((5, 4) if name == "quantile" else (5, 4, 3)).astype(dtype)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 3e-6), (np.float64, 1e-7)])
@pytest.mark.parametrize("name", CASES)
def test_against_torch(name, dtype, tolerance, masked):
    loss, theirs = CASES[name]
    output, target = data(name, dtype)
    mask = np.random.default_rng(1).random((5, 4)) < 0.6 if masked else np.ones((5, 4), bool)
    leaf = torch.tensor(output, requires_grad=True)
    expected = theirs(leaf, torch.tensor(target))[torch.tensor(mask)].mean()
    expected.backward()
    value, d_output = loss(output, target, mask if masked else None)
    assert type(value) is float and d_output.dtype == dtype and d_output.shape == output.shape
    np.testing.assert_allclose(value, expected.item(), rtol=tolerance)
    np.testing.assert_allclose(d_output, leaf.grad.numpy(), rtol=tolerance, atol=tolerance / 10)
    assert not d_output[~mask].any()


@pytest.mark.parametrize("shape", [(), (5,), (5, 4), (1, 4), (5, 1), (5, 4, 3)])
@pytest.mark.parametrize("name", CASES)
def test_gradients_against_central_differences(name, shape):
    """With masks of every shape that is allowed."""
    if name == "cross-entropy" and len(shape) == 3:
        pytest.skip("a class's logit has no weight of its own")
    loss, _ = CASES[name]
    output, target = data(name)
    mask = np.random.default_rng(2).uniform(0.1, 2, shape)
    mask.flat[0] = 1.0 if mask.size == 1 else 0.0
    _, d_output = loss(output, target, mask)
    expected = central_differences(lambda: loss(output, target, mask)[0], output, 1e-6)
    np.testing.assert_allclose(d_output, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_a_weight_of_two_is_an_element_twice(name):
    loss, _ = CASES[name]
    output, target = data(name)
    twice = np.concatenate([output, output[:2]]), np.concatenate([target, target[:2]])
    weight = np.ones(5)
    weight[:2] = 2
    np.testing.assert_allclose(loss(output, target, weight)[0], loss(*twice)[0], rtol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_what_is_masked_may_be_anything(name):
    loss, _ = CASES[name]
    output, target = data(name)
    mask = np.zeros((5, 4), bool)
    mask[1:3] = True
    expected = loss(output, target, mask)
    target = target.copy()
    output[~mask], target[~mask] = np.nan, -7 if target.dtype.kind == "i" else np.inf
    result = loss(output, target, mask)
    assert result[0] == expected[0]
    assert_same_bits(result[1], expected[1])


@pytest.mark.parametrize("name", CASES)
def test_where_nothing_counts_all_is_zero(name):
    output, target = data(name)
    for mask, size in ((np.zeros((5, 4), bool), 5), (None, 0)):
        value, d_output = CASES[name][0](output[:size], target[:size], mask)
        assert value == 0 and d_output.shape == output[:size].shape and not d_output.any()


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_left_as_they_were(name):
    output, target = data(name)
    before = output.copy(), target.copy()
    CASES[name][0](output, target, np.eye(5, 4, dtype=bool))
    assert_same_bits({"output": output, "target": target}, {"output": before[0], "target": before[1]})


def test_by_hand():
    assert MAE()([1.0, 1.0], [1.0, 3.0])[1].tolist() == [0.0, -0.5]           # the slope at 0 is 0
    value, d_output = Quantile([0.9])(np.zeros((2, 1)), np.array([[2.0], [-2.0]]))
    np.testing.assert_allclose([value, *d_output.ravel()], [(0.9 * 2 + 0.1 * 2) / 2, -0.45, 0.05])
    value, d_output = Quantile([0.1, 0.9])(np.ones((1, 2)), np.ones((1, 2)))       # the slope at 0 is that of u > 0
    assert value == 0 and d_output.tolist() == [[-0.05, -0.45]]
    value, d_output = CrossEntropy()(np.array([[1000.0, 0.0, -1000.0]]), [1])  # no overflow
    assert value == 1000 and d_output.tolist() == [[1.0, -1.0, 0.0]]


def test_a_nan_that_counts_is_seen():
    output, target = data("mse")
    output[0, 0, 0] = np.nan
    value, d_output = MSE()(output, target)
    assert np.isnan(value) and np.isnan(d_output).sum() == 1


def test_they_say_what_they_are():
    assert [repr(loss) for loss, _ in CASES.values()] == [
        "MSE()", "MAE()", "Huber(delta=1.0)", "Huber(delta=0.3)", "Quantile(quantiles=(0.1, 0.5, 0.9))",
        "CrossEntropy()"]


X = np.zeros((5, 4, 3))
BAD = [
    (lambda: MSE()(X, X[..., :2]), ValueError, "target"),
    (lambda: MSE()(None, X), TypeError, "output"),
    (lambda: MSE()(X.astype(complex), X), TypeError, "output"),
    (lambda: MSE()(X, X, np.ones((4, 5))), ValueError, "mask"),
    (lambda: MSE()(X, X, np.ones((5, 4, 3, 1))), ValueError, "mask"),
    (lambda: MSE()(X, X, -np.ones((5, 4))), ValueError, "mask"),
    (lambda: MSE()(X, X, np.full((5, 4), np.nan)), ValueError, "mask"),
    (lambda: MSE()(X, X, np.full((5, 4), "x")), TypeError, "mask"),
    (lambda: Huber(0), ValueError, "delta"),
    (lambda: Huber("1"), TypeError, "delta"),
    (lambda: Quantile([]), TypeError, "quantiles"),
    (lambda: Quantile(0.5), TypeError, "quantiles"),
    (lambda: Quantile([0.5, 1.0]), ValueError, "quantiles"),
    (lambda: Quantile([0.5])(X, X), ValueError, "output"),
    (lambda: CrossEntropy()(X, np.zeros((5, 4))), TypeError, "target"),
    (lambda: CrossEntropy()(X, np.zeros((5, 4, 3), int)), ValueError, "target"),
    (lambda: CrossEntropy()(X, np.full((5, 4), 3)), ValueError, "target"),
    (lambda: CrossEntropy()(1.0, 0), ValueError, "output"),
    (lambda: CrossEntropy()(X, np.zeros((5, 4), int), np.ones((5, 4, 3))), ValueError, "mask"),
]


@pytest.mark.parametrize("call, error, name", BAD)
def test_bad_input(call, error, name):
    with refuses(error, name):
        call()


@pytest.mark.parametrize("name", CASES)
def test_outputs_that_have_gone_astray_warn_of_nothing(name):
    """The value shows it, and the caller decides what to do about it."""
    output, target = data(name, np.float32)
    output[0] = [np.nan, np.inf, -np.inf]
    output[1:] = 3e38
    assert not np.isfinite(CASES[name][0](output, target)[0])
