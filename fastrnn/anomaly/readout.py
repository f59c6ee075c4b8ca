"""The linear read-out of the network's state, refitted at every row by recursive least squares."""

import math

import numpy as np

from .._base import validation as check

CLIP = 4.0              # what the network sees and learns from stays within so many standard deviations


class Readout:
    """Recursive least squares with forgetting, the same regressors for all channels:

        f = [h, z, 1]                                   forecast of the next z: W f
        d = lambda + f' P f
        W += error (P f)' / d,  P = (P - (P f) (P f)' / d) / lambda

    P and W lie in one array: one product with f gives P f and the forecast, one outer product updates both. What P was
    divided by is kept apart as a number, `scale`. It grows only while the trace of P is below ten times what it was at
    first: where rows bring nothing new, P would grow for ever. Source: Haykin, Adaptive Filter Theory.
    """

    def __init__(self, channels, hidden, forgetting):
        self.forgetting = check.above(check.probability(forgetting, "forgetting"), "forgetting", 0)
        self.hidden, self.size = hidden, hidden + channels + 1
        self.arrays = np.eye(self.size + channels, self.size)       # P above W [channels, size]
        self.weight[:, hidden:-1] = np.eye(channels)                # as the last row
        self.scale, self.trace, self.bound = 1.0, float(self.size), 10.0 * self.size
        self.features, self.product = np.zeros(self.size), np.zeros(len(self.arrays))
        self.features[-1] = 1
        self.step = np.empty_like(self.arrays)

    @property
    def weight(self):
        """[channels, size], to read and write."""
        return self.arrays[self.size:]

    def forecast(self, h, z):
        """The forecast (a list) after a row z (a list) that took the net to h."""
        features, size = self.features, self.size
        features[:self.hidden] = h
        features[self.hidden:-1] = z
        self.arrays.dot(features, self.product)
        return [CLIP if y > CLIP else -CLIP if y < -CLIP else y for y in self.product[size:].tolist()]

    def learn(self, errors):
        """Errors (a list) of the last forecast; 0 where the value is missing."""
        product, size, scale = self.product, self.size, self.scale
        gain = product[:size]
        share = scale / (self.forgetting + scale * float(self.features.dot(gain)))
        product[size:] = [-error for error in errors]
        product *= math.sqrt(share)             # on both sides: P stays symmetric to the bit
        self.arrays -= np.dot(product[:, None], gain[None], self.step)
        self.trace -= float(gain.dot(gain))
        if scale * self.trace < self.bound:
            self.scale = scale / self.forgetting
            if self.scale > 1e6:
                self._rescale()

    def _rescale(self):
        self.arrays[:self.size] *= self.scale
        self.trace, self.scale = self.scale * self.trace, 1.0
