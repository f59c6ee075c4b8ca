"""The linear read-out of the network's state and the last rows, refitted by recursive least squares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._base import validation as check
from .._base.trees import storable
from .statistics import BOUND as CLIP

if TYPE_CHECKING:
    from .._base.typing import ArrayLike, Float64Array


@storable
class Readout:
    """Recursive least squares with forgetting, the same regressors for all channels.

    ::

        f = [h, z_t, ..., z_{t-lags+1}, s, 1]           the forecast of the next z is W f
        d = lambda + f' P f
        W += error (P f)' / d,  P = (P - (P f) (P f)' / d) / lambda

    with s the sines and cosines of the time to come, if any. The errors are clipped by the caller (Huber 1964). A row
    of weight w < 1 counts as a part of a row: with lambda^w, and w f' P f and w error in place of f' P f and error.

    P and W are kept in one array: one product with f gives P f and the forecast, one outer product updates both. The
    number that P was divided by is kept apart as `scale`. It grows only while the trace of P is below ten times its
    first value: where rows bring nothing new, P would grow for ever.

    Parameters
    ----------
    channels : int
        Values of a row.
    hidden : int
        Size of the network's state h.
    forgetting : float
        lambda, in (0, 1].
    lags : int
        Rows that it reads, the last one among them.
    times : int
        Size of s.

    References
    ----------
    Haykin, Adaptive Filter Theory, Prentice Hall. Huber, Robust Estimation of a Location Parameter, 1964.
    """

    def __init__(self, channels: int, hidden: int, forgetting: float, lags: int = 1, times: int = 0) -> None:
        self.forgetting = check.above(check.probability(forgetting, "forgetting"), "forgetting", 0)
        self.hidden, self.channels, self.lags, self.times = hidden, channels, lags, times
        self.size = hidden + channels * lags + times + 1
        self.arrays: Float64Array = np.eye(self.size + channels, self.size)     # P above W [channels, size]
        self.weight[:, hidden:hidden + channels] = np.eye(channels)     # the first forecast: the next row as the last
        self.scale, self.trace, self.bound = 1.0, float(self.size), 10.0 * self.size
        self.features, self.product = np.zeros(self.size), np.zeros(len(self.arrays))
        self.features[-1] = 1
        self.step = np.empty_like(self.arrays)

    @property
    def weight(self) -> Float64Array:
        """W [channels, size], a view to read and write."""
        return self.arrays[self.size:]

    def forecast(self, h: ArrayLike, z: list[float], times: list[float] | None = None) -> list[float]:
        """The forecast after a row z that took the network to the state h."""
        features, hidden = self.features, self.hidden
        if self.lags > 1:
            end = hidden + self.channels * self.lags
            features[hidden + self.channels:end] = features[hidden:end - self.channels]
        features[:hidden] = h
        if len(z) == 1:                         # one number is written much faster than a list
            features[hidden] = z[0]
        else:
            features[hidden:hidden + self.channels] = z
        return self.again(times)

    def again(self, times: list[float] | None = None) -> list[float]:
        """The forecast by the features as they are, of another time if it is given."""
        if times is not None:
            self.features[-1 - self.times:-1] = times
        self.arrays.dot(self.features, self.product)
        return [CLIP if y > CLIP else -CLIP if y < -CLIP else y for y in self.product[self.size:].tolist()]

    @property
    def lagged(self) -> Float64Array:
        """The last rows, the latest first [lags * channels], a view."""
        return self.features[self.hidden:self.hidden + self.lags * self.channels]

    def otherwise(self, lagged: Float64Array) -> list[float]:
        """The forecast by the features as they are, with other last rows in place of these."""
        forecast = self.weight.dot(self.features) + self.weight[:, self.hidden:][:, :len(lagged)].dot(
            lagged - self.lagged)
        result: list[float] = np.clip(forecast, -CLIP, CLIP).tolist()
        return result

    def learn(self, errors: list[float], share: float = 1.0) -> None:
        """Learn from the last forecast's errors, clipped, with the weight `share`; 0 where the value is missing."""
        product, size, scale = self.product, self.size, self.scale
        gain = product[:size]
        forgetting = self.forgetting if share == 1.0 else self.forgetting ** share
        part = share * scale / (forgetting + share * scale * float(self.features.dot(gain)))
        if len(errors) == 1:                    # one number is written much faster than a list
            product[size] = -errors[0]
        else:
            product[size:] = [-error for error in errors]
        product *= math.sqrt(part)             # on both sides of the outer product, so that P stays symmetric
        self.arrays -= np.dot(product[:, None], gain[None], self.step)
        self.trace -= float(gain.dot(gain))
        if scale * self.trace < self.bound:
            self.scale = scale / forgetting
            if self.scale > 1e6:
                self._rescale()

    def _rescale(self) -> None:
        """Multiply P by its scale, before the scale grows too large."""
        self.arrays[:self.size] *= self.scale
        self.trace, self.scale = self.scale * self.trace, 1.0
