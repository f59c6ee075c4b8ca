"""The linear read-out of the network's state, refitted at every row by recursive least squares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._base import validation as check
from .._base.trees import storable

if TYPE_CHECKING:
    from .._base.typing import ArrayLike, Float64Array

CLIP = 4.0              # what the network reads and learns from stays within so many standard deviations


@storable
class Readout:
    """Recursive least squares with forgetting, the same regressors for all channels.

    ::

        f = [h, z, 1]                                   the forecast of the next z is W f
        d = lambda + f' P f
        W += error (P f)' / d,  P = (P - (P f) (P f)' / d) / lambda

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

    References
    ----------
    Haykin, Adaptive Filter Theory, Prentice Hall.
    """

    def __init__(self, channels: int, hidden: int, forgetting: float) -> None:
        self.forgetting = check.above(check.probability(forgetting, "forgetting"), "forgetting", 0)
        self.hidden, self.size = hidden, hidden + channels + 1
        self.arrays: Float64Array = np.eye(self.size + channels, self.size)     # P above W [channels, size]
        self.weight[:, hidden:-1] = np.eye(channels)                # the first forecast: the next row is as the last
        self.scale, self.trace, self.bound = 1.0, float(self.size), 10.0 * self.size
        self.features, self.product = np.zeros(self.size), np.zeros(len(self.arrays))
        self.features[-1] = 1
        self.step = np.empty_like(self.arrays)

    @property
    def weight(self) -> Float64Array:
        """W [channels, size], a view to read and write."""
        return self.arrays[self.size:]

    def forecast(self, h: ArrayLike, z: list[float]) -> list[float]:
        """The forecast after a row z that took the network to the state h."""
        features, size = self.features, self.size
        features[:self.hidden] = h
        features[self.hidden:-1] = z
        self.arrays.dot(features, self.product)
        return [CLIP if y > CLIP else -CLIP if y < -CLIP else y for y in self.product[size:].tolist()]

    def learn(self, errors: list[float]) -> None:
        """Learn from the errors of the last forecast; 0 where the value is missing."""
        product, size, scale = self.product, self.size, self.scale
        gain = product[:size]
        share = scale / (self.forgetting + scale * float(self.features.dot(gain)))
        product[size:] = [-error for error in errors]
        product *= math.sqrt(share)             # on both sides of the outer product, so that P stays symmetric
        self.arrays -= np.dot(product[:, None], gain[None], self.step)
        self.trace -= float(gain.dot(gain))
        if scale * self.trace < self.bound:
            self.scale = scale / self.forgetting
            if self.scale > 1e6:
                self._rescale()

    def _rescale(self) -> None:
        """Multiply P by its scale, before the scale grows too large."""
        self.arrays[:self.size] *= self.scale
        self.trace, self.scale = self.scale * self.trace, 1.0
