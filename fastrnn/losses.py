"""Losses: each returns its value and its gradient dL/doutput together.

    value, d_output = loss(output, target, mask=None)

The value is the mean over the elements that count. A mask says which elements count: bools, or weights of at least 0.
Its axes are the leading axes of the output (an axis of length 1 is stretched), so that a mask [T, N] is for steps and
a mask [T, N, C] for single numbers. Elements that do not count may be NaN. Where nothing counts, the value and the
gradient are 0. Any function with this signature can be used in place of a loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ._base import validation as check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._base.typing import Array, ArrayLike, Float64Array, IntArray

__all__ = ["MSE", "MAE", "Huber", "Quantile", "CrossEntropy"]

# The type of every loss, the classes of this module among them: a callable (output, target, mask), given by position,
# that returns (value, d_output).
LossFunction: TypeAlias = "Callable[[Array, Array, Array | None], tuple[float, Array]]"


def weights(mask: ArrayLike | None, shape: tuple[int, ...]) -> Float64Array | None:
    """A mask as an array of floats that broadcasts against `shape`, the shape of what it masks; None without a mask."""
    if mask is None:
        return None
    weight = check.numbers(mask, "mask")
    if weight.ndim > len(shape) or any(n not in (1, size) for n, size in zip(weight.shape, shape)):
        raise ValueError(f"mask: expected the leading axes of {tuple(shape)}, got shape {weight.shape}")
    if weight.dtype.kind != "b" and not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError("mask: expected finite numbers of at least 0")
    return weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)).astype(np.float64)


def total_weight(mask: ArrayLike | None, shape: tuple[int, ...]) -> float:
    """The sum of the mask over all elements of `shape`: what the mean is divided by."""
    return _total(weights(mask, shape), shape)


def _total(weight: Float64Array | None, shape: tuple[int, ...]) -> float:
    size = math.prod(shape)
    return float(size if weight is None else weight.sum() * (size / max(1, weight.size)))


class Loss:
    """Base class of the losses; its own methods compute losses of the difference output - target."""

    def __call__(self, output: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, Array]:
        """Compute the loss and its gradient.

        Parameters
        ----------
        output : array_like
            What the model computed, of any shape.
        target : array_like
            What it should have computed, in the output's shape or in one that broadcasts to it.
        mask : array_like, optional
            Bools or weights for the leading axes of the output. Everything counts if it is not given.

        Returns
        -------
        value : float
            The mean over the elements that count.
        d_output : ndarray
            The gradient dL/doutput, in the shape and dtype of the output.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.losses import MSE
        >>> value, d_output = MSE()(np.array([1.0, 3.0]), np.array([1.0, np.nan]), mask=[True, False])
        >>> value, d_output.tolist()
        (0.0, [0.0, 0.0])
        """
        outputs = check.floats(output, "output")
        with np.errstate(all="ignore"):         # outputs that have diverged show in the value
            return self._mean(outputs - self._target(target, outputs), mask)

    def _target(self, target: ArrayLike, output: Array) -> Array:
        """The target in the output's dtype and shape."""
        targets = check.floats(target, "target").astype(output.dtype, copy=False)
        try:
            return np.broadcast_to(targets, output.shape)
        except ValueError:
            raise ValueError(f"target: expected shape {output.shape}, got {targets.shape}") from None

    def _mean(self, difference: Array, mask: ArrayLike | None) -> tuple[float, Array]:
        weight = weights(mask, difference.shape)
        if weight is not None:
            np.copyto(difference, 0, where=weight == 0)
        values, slopes = self._values_and_slopes(difference)
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

    def _values_and_slopes(self, difference: Array) -> tuple[Array, Array]:
        """The loss of every element of the difference, and its derivative there."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class MSE(Loss):
    """Mean squared error.

    With e = output - target the loss of an element is e^2, and its slope is 2 e.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.losses import MSE
    >>> value, d_output = MSE()(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> value, d_output.tolist()
    (2.0, [0.0, 2.0])
    """

    def _values_and_slopes(self, difference: Array) -> tuple[Array, Array]:
        return difference * difference, 2 * difference


class MAE(Loss):
    """Mean absolute error.

    With e = output - target the loss of an element is abs(e), and its slope is the sign of e, 0 at e = 0.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.losses import MAE
    >>> value, d_output = MAE()(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    >>> value, d_output.tolist()
    (1.0, [0.0, 0.5])
    """

    def _values_and_slopes(self, difference: Array) -> tuple[Array, Array]:
        return np.abs(difference), np.sign(difference)


class Huber(Loss):
    """Huber loss: squared for small errors, absolute for large ones.

    With e = output - target the loss of an element is e^2 / 2 where abs(e) is below delta, and delta (abs(e) - delta/2)
    elsewhere.

    Parameters
    ----------
    delta : float
        The size of an error from which on the loss grows linearly; above 0.

    Raises
    ------
    TypeError, ValueError
        `delta` is not a number above 0.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35, 1964.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.losses import Huber
    >>> value, d_output = Huber(delta=1.0)(np.array([1.5, 4.0]), np.array([1.0, 1.0]))
    >>> value, d_output.tolist()
    (1.3125, [0.25, 0.5])
    """

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = check.above(delta, "delta", 0)

    def _values_and_slopes(self, difference: Array) -> tuple[Array, Array]:
        slope = np.clip(difference, -self.delta, self.delta)
        return slope * (difference - slope / 2), slope


class Quantile(Loss):
    """Quantile (pinball) loss, which makes a model estimate quantiles.

    With u = target - output the loss of the column of a quantile q is max(q u, (q - 1) u). Its slope at u = 0 is that
    of u > 0. The last axis of the output has one column for each quantile. The target lacks that axis, or has it with
    length 1, or in full.

    Parameters
    ----------
    quantiles : sequence of float
        The quantiles, each between 0 and 1, in the order of the output's columns.

    Raises
    ------
    TypeError, ValueError
        `quantiles` is not a sequence of numbers between 0 and 1.

    References
    ----------
    .. [1] R. Koenker and G. Bassett, "Regression quantiles", Econometrica 46, 1978.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.losses import Quantile
    >>> value, d_output = Quantile([0.1, 0.9])(np.zeros((1, 2)), np.array([1.0]))
    >>> value, d_output.tolist()
    (0.5, [[-0.05, -0.45]])
    """

    def __init__(self, quantiles: Sequence[float] | Array) -> None:
        levels = check.as_array(quantiles, "quantiles")
        if levels.ndim != 1 or not levels.size or levels.dtype.kind not in "iuf":
            raise TypeError(f"quantiles: expected a sequence of numbers, got {levels.tolist()!r:.80}")
        if not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles: expected numbers between 0 and 1, got {levels.tolist()!r:.80}")
        self.quantiles = tuple(map(float, levels))

    def _target(self, target: ArrayLike, output: Array) -> Array:
        if output.ndim == 0 or output.shape[-1] != len(self.quantiles):
            raise ValueError(f"output: expected last axis {len(self.quantiles)}, one column a quantile, got shape "
                             f"{output.shape}")
        targets = check.floats(target, "target")
        return super()._target(targets[..., None] if targets.ndim == output.ndim - 1 else targets, output)

    def _values_and_slopes(self, difference: Array) -> tuple[Array, Array]:
        q = np.array(self.quantiles, difference.dtype)
        slope = np.where(difference > 0, 1 - q, -q)
        return difference * slope, slope


class CrossEntropy(Loss):
    """Softmax and cross-entropy over the classes of the last axis.

    With p = softmax(output) the loss of an element is -log p[target].

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.losses import CrossEntropy
    >>> value, d_output = CrossEntropy()(np.zeros((1, 2)), np.array([1]))
    >>> round(value, 4), d_output.tolist()
    (0.6931, [[0.5, -0.5]])
    """

    def __call__(self, output: ArrayLike, target: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, Array]:
        """Compute the loss and its gradient.

        The gradient of an element is p - 1 in the column of the target and p in the others, times the element's weight.

        Parameters
        ----------
        output : array_like
            The logits, [..., C] with C classes.
        target : array_like
            The classes, whole numbers 0 to C-1 in the shape [...]; any number where the mask is 0.
        mask : array_like, optional
            Bools or weights for the leading axes [...]. Everything counts if it is not given.

        Returns
        -------
        value : float
            The mean over the elements that count.
        d_output : ndarray
            The gradient dL/doutput, [..., C].

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.losses import CrossEntropy
        >>> value, d_output = CrossEntropy()(np.zeros((2, 4)), [3, -1], mask=[True, False])
        >>> round(value, 4), bool(d_output[1].any())
        (1.3863, False)
        """
        logits = check.floats(output, "output")
        if logits.ndim == 0:
            raise ValueError("output: expected a last axis of classes, got a single number")
        weight = weights(mask, logits.shape[:-1])
        targets = check.shaped(check.as_array(target, "target"), "target", logits.shape[:-1])
        if weight is not None:
            targets = np.where(weight > 0, targets, 0)
        classes = check.indices(targets, "target", logits.shape[-1])[..., None]
        if weight is not None:
            logits = np.where(weight[..., None] > 0, logits, 0)
        with np.errstate(all="ignore"):         # outputs that have diverged show in the value
            return self._mean_of_classes(logits, classes, weight)

    @staticmethod
    def _mean_of_classes(logits: Array, classes: IntArray, weight: Float64Array | None) -> tuple[float, Array]:
        shifted = logits - logits.max(-1, keepdims=True, initial=-np.inf)
        p = np.exp(shifted)
        total = p.sum(-1, keepdims=True)
        values = np.log(total) - np.take_along_axis(shifted, classes, -1)
        p /= total
        np.put_along_axis(p, classes, np.take_along_axis(p, classes, -1) - 1, -1)
        count = _total(weight, classes.shape[:-1])
        if not count:
            return 0.0, np.zeros_like(p)
        share = 1 / count if weight is None else weight[..., None] / count
        p *= np.asarray(share, p.dtype)
        return float((values * share).sum(dtype=np.float64)), p
