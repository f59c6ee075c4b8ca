"""Errors of all channels together: an anomaly that each channel hides, because it is their relation that broke."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .._base.trees import storable
from .statistics import Tail

if TYPE_CHECKING:
    from .._base.typing import Float64Array

MEMORY = 1000           # rows that the covariance looks back on
RIDGE = 0.01            # of the mean variance, added to each: correlations are never taken for perfect
BOUNDED = 5.0           # scales of an error: larger ones enter the covariance as these
LARGEST = 1e9           # scales of an error: larger ones count as these


@storable
class Joint:
    """How far the errors of a row are from what errors of the channels have in common (Mahalanobis' distance).

    ::

        D^2 = r' (R + ridge)^-1 r

    r are the channels' errors in their scales, 0 where a value is missing, R is the running mean of r r' with every
    error clipped. The distance is judged by its own tail. The channel to blame is the one that the other channels
    expected least: the largest |v_j| / sqrt(Q_jj), with Q the inverse and v = Q r.

    Parameters
    ----------
    channels : int
        Two at least.
    """

    def __init__(self, channels: int) -> None:
        variance = 0.5 * math.pi                        # of normal errors in their mean sizes
        self.covariance: Float64Array = variance * np.eye(channels)
        self.inverse: Float64Array = np.eye(channels) / variance
        self.count, self.stale, self.refresh = 0, 0, max(20, channels)
        self.settled = 50 + 2 * channels                # rows before it is judged
        q, u, far = (_root_of_chi(channels, normal) for normal in (1.2816, 2.0537, 3.0902))
        self.tail = Tail(q, u, (far - u) / math.log(20.0), 6.0)
        self.errors: list[float] = []
        self.w = 0.0

    def digits(self, errors: list[float]) -> float:
        """-log10 of the probability of errors so far from the common ones."""
        r = np.array([max(-LARGEST, min(LARGEST, error)) for error in errors])
        self.errors = errors
        distance = float(r.dot(self.inverse.dot(r)))
        self.w = w = distance ** 0.25 if distance > 0 else 0.0
        return self.tail.digits(w)

    def blamed(self, errors: list[float]) -> int:
        """The channel that the others expected least."""
        return int(np.argmax(np.abs(self.inverse.dot(errors)) / np.sqrt(np.diagonal(self.inverse))))

    def learn(self, errors: list[float], share: float) -> None:
        """Take the errors of a row in, with the weight `share`."""
        if errors != self.errors:
            self.digits(errors)
        self.tail.learn(self.w, share)
        self.count = min(self.count + 1, MEMORY)
        r = np.array([max(-BOUNDED, min(BOUNDED, error)) for error in errors])
        self.covariance += (share / (self.count + 20)) * (r[:, None] * r - self.covariance)
        self.stale += 1
        if self.stale >= self.refresh:
            self.stale = 0
            ridge = RIDGE * float(self.covariance.trace()) / len(r)
            self.inverse = np.linalg.inv(self.covariance + ridge * np.eye(len(r))).astype(np.float64, copy=False)


def _root_of_chi(channels: int, normal: float) -> float:
    """The root of a quantile of chi with so many degrees of freedom (Wilson & Hilferty 1931)."""
    part = 2.0 / (9.0 * channels)
    return float((channels * (1.0 - part + normal * math.sqrt(part)) ** 3) ** 0.25)
