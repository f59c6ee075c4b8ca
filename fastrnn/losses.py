"""Losses: each gives its value and dL/doutput at once.

    value, d_output = loss(output, target, mask=None)

The value is the mean over the elements that count. A mask says which do: bools, or numbers of at least 0 that weigh
them; its axes are the output's leading ones (those of length 1 stretch), so that [T, N] masks steps and [T, N, C]
single numbers. What does not count may be NaN. Where nothing counts, value and gradient are 0. Any function with this
signature can stand in the place of a loss.
"""

import math

import numpy as np

from ._base import validation as check

__all__ = ["MSE", "MAE", "Huber", "Quantile", "CrossEntropy"]


def weights(mask, shape):
    """A mask as an array of floats that broadcasts against `shape`, the elements it masks; None for no mask."""
    if mask is None:
        return None
    mask = check.numbers(mask, "mask")
    if mask.ndim > len(shape) or any(n not in (1, size) for n, size in zip(mask.shape, shape)):
        raise ValueError(f"mask: expected the leading axes of {tuple(shape)}, got shape {mask.shape}")
    if mask.dtype.kind != "b" and not (np.isfinite(mask).all() and (mask >= 0).all()):
        raise ValueError("mask: expected finite numbers of at least 0")
    return mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)).astype(np.float64)


def total_weight(mask, shape):
    """How much counts: the sum of the mask over all elements of `shape`."""
    return _total(weights(mask, shape), shape)


def _total(weight, shape):
    size = math.prod(shape)
    return float(size if weight is None else weight.sum() * (size / max(1, weight.size)))


class Loss:
    """A loss of differences: a value for each element of output - target, and its slope."""

    def __call__(self, output, target, mask=None):
        """The loss and its gradient.

        Parameters
        ----------
        output : array
        target : array
            Of the output's shape, or one that broadcasts to it.
        mask : array, optional
            Bools or weights for the output's leading axes.

        Returns
        -------
        value : float
        d_output : array
            dL/doutput, shaped as output.
        """
        output = check.floats(output, "output")
        with np.errstate(all="ignore"):         # of outputs that have gone astray: the value tells
            return self._mean(output - self._target(target, output), mask)

    def _target(self, target, output):
        target = check.floats(target, "target").astype(output.dtype, copy=False)
        try:
            return np.broadcast_to(target, output.shape)
        except ValueError:
            raise ValueError(f"target: expected shape {output.shape}, got {target.shape}") from None

    def _mean(self, difference, mask):
        weight = weights(mask, difference.shape)
        if weight is not None:
            np.copyto(difference, 0, where=weight == 0)
        values, slopes = self._of(difference)
        count = _total(weight, difference.shape)
        if not count:
            return 0.0, np.zeros_like(difference)
        if weight is None:
            value = values.sum(dtype=np.float64) / count
            slopes *= slopes.dtype.type(1 / count)
        else:
            value = (values * weight).sum() / count
            slopes *= (weight / count).astype(slopes.dtype)
        return float(value), slopes

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class MSE(Loss):
    """Mean squared error: (output - target)^2.

    >>> value, d_output = MSE()(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> value, d_output.tolist()
    (2.0, [0.0, 2.0])
    """

    def _of(self, e):
        return e * e, 2 * e


class MAE(Loss):
    """Mean absolute error: |output - target|; its slope at 0 is 0.

    >>> value, d_output = MAE()(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> value, d_output.tolist()
    (1.0, [0.0, 0.5])
    """

    def _of(self, e):
        return np.abs(e), np.sign(e)


class Huber(Loss):
    """Huber (1964): e^2 / 2 where |e| = |output - target| is below delta, else delta (|e| - delta / 2).

    Parameters
    ----------
    delta : float

    >>> value, d_output = Huber(delta=1.0)(np.array([1.5, 4.0]), np.array([1.0, 1.0]))
    >>> value, d_output.tolist()
    (1.3125, [0.25, 0.5])
    """

    def __init__(self, delta=1.0):
        self.delta = check.above(delta, "delta", 0)

    def _of(self, e):
        slope = np.clip(e, -self.delta, self.delta)
        return slope * (e - slope / 2), slope


class Quantile(Loss):
    """Quantile (pinball) loss, Koenker & Bassett (1978), of u = target - output: max(q u, (q - 1) u).

    The output's last axis has one column for each quantile; the target is without that axis, or has it with length 1,
    or full. Its slope at u = 0 is that of u > 0.

    Parameters
    ----------
    quantiles : sequence of float
        Each between 0 and 1.

    >>> value, d_output = Quantile([0.1, 0.9])(np.zeros((1, 2)), np.array([1.0]))
    >>> value, d_output.tolist()
    (0.5, [[-0.05, -0.45]])
    """

    def __init__(self, quantiles):
        quantiles = check.as_array(quantiles, "quantiles")
        if quantiles.ndim != 1 or not quantiles.size or quantiles.dtype.kind not in "iuf":
            raise TypeError(f"quantiles: expected a sequence of numbers, got {quantiles.tolist()!r:.80}")
        if not ((quantiles > 0) & (quantiles < 1)).all():
            raise ValueError(f"quantiles: expected numbers between 0 and 1, got {quantiles.tolist()!r:.80}")
        self.quantiles = tuple(map(float, quantiles))

    def _target(self, target, output):
        if output.ndim == 0 or output.shape[-1] != len(self.quantiles):
            raise ValueError(f"output: expected last axis {len(self.quantiles)}, one column a quantile, got shape "
                             f"{output.shape}")
        target = check.floats(target, "target")
        return super()._target(target[..., None] if target.ndim == output.ndim - 1 else target, output)

    def _of(self, e):
        q = np.array(self.quantiles, e.dtype)
        slope = np.where(e > 0, 1 - q, -q)
        return e * slope, slope


class CrossEntropy(Loss):
    """Softmax and cross-entropy: -log p[target], p = softmax(output) over the last axis, C classes.

    Targets are whole numbers 0 ... C-1 in the output's leading axes; where the mask is 0 any number may stand.

    >>> value, d_output = CrossEntropy()(np.zeros((1, 2)), np.array([1]))
    >>> round(value, 4), d_output.tolist()
    (0.6931, [[0.5, -0.5]])
    """

    def __call__(self, output, target, mask=None):
        """The loss and its gradient: p - 1 at the target, p elsewhere, times the element's weight.

        Parameters
        ----------
        output : array [..., C]
            Logits.
        target : ints [...]
        mask : array, optional
            Bools or weights of the leading axes.

        Returns
        -------
        value : float
        d_output : array
        """
        output = check.floats(output, "output")
        if output.ndim == 0:
            raise ValueError("output: expected a last axis of classes, got a single number")
        weight = weights(mask, output.shape[:-1])
        target = check.as_array(target, "target")
        check.shaped(target, "target", output.shape[:-1])
        if weight is not None:
            target = np.where(weight > 0, target, 0)
        target = check.indices(target, "target", output.shape[-1])[..., None]
        if weight is not None:
            output = np.where(weight[..., None] > 0, output, 0)
        with np.errstate(all="ignore"):         # of outputs that have gone astray: the value tells
            return self._mean(output, target, weight)

    def _mean(self, output, target, weight):
        shifted = output - output.max(-1, keepdims=True, initial=-np.inf)
        p = np.exp(shifted)
        total = p.sum(-1, keepdims=True)
        losses = np.log(total) - np.take_along_axis(shifted, target, -1)
        p /= total
        np.put_along_axis(p, target, np.take_along_axis(p, target, -1) - 1, -1)
        count = _total(weight, target.shape[:-1])
        if not count:
            return 0.0, np.zeros_like(p)
        weight = 1 / count if weight is None else weight[..., None] / count
        p *= np.asarray(weight, p.dtype)
        return float((losses * weight).sum(dtype=np.float64)), p
