"""How a series becomes a network's inputs and targets, and its outputs forecasts.

With z the series or its logarithm (and filled where values are missing), c_t and s_t its level and scale over the last
`window` steps, the network reads at step t

    (z_t - c_t) / s_t,   (z_t - z_{t-1}) / s_t,
    for every season m:  (z_t - z_{t-m}) / s_t,  and what is to come as it was one season before,
                         (z_{t+k-m} - c_t) / s_t,  k = 1 ... min(m, horizon)
    1 where y_t is missing (if any was in training),  sines and cosines of the time,
    past columns at t, known columns at t ... t+horizon, all standardised

and its outputs o_k, k = 1 ... horizon, mean  z_{t+k} = r_{t,k} + s_t o_k  with the reference r_{t,k}: the level c_t, or
with difference = m the last value that is a whole number of times m steps before t+k.
"""

import math
from dataclasses import dataclass

import numpy as np

PERIODS = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.2425 * 86_400.0}      # in seconds
HARMONICS = 2
LARGEST = 1e100         # of the values' size: squares of larger ones would overflow
TINY = 1e-9             # a scale below this part of the level is rounding
FLOOR = 0.05            # the scale is at least this part of the largest it has been
LOGS = {True: (np.log, np.exp, math.log, 0.0), "1p": (np.log1p, np.expm1, math.log1p, -1.0)}
# log: its array function, the inverse, its function of one number, and what values must be above


@dataclass
class Encoded:
    """x [T, I] float32; z, level, scale [T], and the largest scale so far; observed [T]: y is there."""

    x: np.ndarray
    z: np.ndarray
    level: np.ndarray
    scale: np.ndarray
    largest: np.ndarray
    observed: np.ndarray


class Encoding:
    """The options above, and what was learnt of the training series: means and scales of columns.

    Parameters
    ----------
    horizon, window, log, scaling, difference, seasons, time_features
        As RNNForecaster has them, checked.
    series : list of Series
        Those trained on.
    """

    def __init__(self, horizon, window, log, scaling, difference, seasons, time_features, series):
        self.horizon, self.window, self.log, self.scaling = horizon, window, log, scaling
        self.difference, self.seasons, self.time_features = difference, seasons, time_features
        self.missing = any(np.isnan(one.y[first_observed(one.y):]).any() for one in series)
        self.known, self.past = (_statistics(np.concatenate([getattr(one, kind) for one in series]))
                                 for kind in ("known", "past"))
        self.profiles = [min(m, horizon) for m in seasons]
        self.reach = max([1, difference, *seasons])         # how far back a step looks for single values
        n_known, n_past = len(self.known[0]), len(self.past[0])
        self.past_at = 2 + len(seasons) + sum(self.profiles) + self.missing + self.times_size
        self.known_at = self.past_at + n_past
        self.size = self.known_at + n_known * (1 + horizon)

    @property
    def times_size(self):
        return 2 * HARMONICS * len(self.time_features)

    # ---- A series at once -----------------------------------------------------------------------

    def encode(self, series):
        """Every step of a series, whose first value is there."""
        y, T = series.y, len(series)
        observed = ~np.isnan(y)
        z = self.transformed(y)
        fill = self.seasons[0] if self.seasons else 1
        for t in np.flatnonzero(~observed):
            z[t] = z[t - fill] if t >= fill else z[t - 1]
        level, scale, largest = self._rolling(z, observed)
        inverse = 1 / scale
        parts = [(z - level) * inverse, self._lag(z, 1) * inverse]
        parts += [self._lag(z, m) * inverse for m in self.seasons]
        for m, size in zip(self.seasons, self.profiles, strict=True):
            profile = self.ahead(z, m)[:, :size]
            parts.append(np.where(np.isnan(profile), 0, (profile - level[:, None]) * inverse[:, None]))
        if self.missing:
            parts.append(~observed)
        if self.time_features:
            parts.append(self.times(series.clock.seconds(np.arange(T))))
        parts.append(self.standardised(series.past, self.past))
        known = self.standardised(series.known_to(T + self.horizon), self.known)
        parts.append(np.lib.stride_tricks.sliding_window_view(known, 1 + self.horizon, 0).swapaxes(1, 2))
        x = np.empty((T, self.size), np.float32)
        x[:] = np.concatenate([part.reshape(T, -1) for part in parts], 1)
        return Encoded(x, z, level, scale, largest, observed)

    def targets(self, encoded, series, first):
        """o [T, horizon] float32, NaN where it is unknown, or not to be learnt: before step `first`."""
        T, H = len(series), self.horizon
        z = np.concatenate([np.where(encoded.observed, encoded.z, np.nan), np.full(H, np.nan)])
        truth = np.lib.stride_tricks.sliding_window_view(z[1:], H)[:T]
        reference = self.ahead(encoded.z, self.difference) if self.difference else encoded.level[:, None]
        found = (truth - reference) / encoded.scale[:, None]
        found[:first] = np.nan
        found[encoded.largest <= TINY * np.abs(encoded.level)] = np.nan        # nothing has varied yet
        return found.astype(np.float32)

    def reference(self, encoded, at):
        """r [len(at), horizon] of the steps `at`."""
        if not self.difference:
            return np.repeat(encoded.level[at, None], self.horizon, 1)
        found = self.ahead(encoded.z, self.difference, at)
        return np.where(np.isnan(found), encoded.z[at, None], found)

    def decode(self, encoded, at, outputs):
        """Forecasts [len(at), horizon, ...] of the steps `at`, from the network's outputs there."""
        shape = len(at), self.horizon, *(1,) * (outputs.ndim - 2)
        z = self.reference(encoded, at).reshape(shape) + encoded.scale[at].reshape(-1, *shape[2:], 1) * outputs
        return LOGS[self.log][1](z) if self.log else z

    def transformed(self, y):
        """z of y, a fresh array."""
        return LOGS[self.log][0](y) if self.log else y.copy()

    def ahead(self, z, m, at=None):
        """For each step t, or those of `at`, z[t + k - m * ceil(k / m)], k = 1 ... horizon; NaN before its start."""
        at = np.arange(len(z)) if at is None else at
        source = np.asarray(at)[:, None] + self.offsets(m)
        return np.where(source < 0, np.nan, z[np.maximum(source, 0)])

    def offsets(self, m):
        """From a step to what is m steps, or a multiple, before each step of the horizon; none is above 0."""
        k = np.arange(1, self.horizon + 1)
        return k - m * -(-k // m)

    @staticmethod
    def _lag(z, m):
        """z_t - z_{t-m}, 0 where there is no z_{t-m}."""
        return np.concatenate([np.zeros(min(m, len(z))), z[m:] - z[:-m]])

    def _rolling(self, z, observed):
        """Level and scale over the observed values of the last `window` steps, and the largest scale so far."""
        T, w = len(z), self.window
        if self.scaling is None:
            return np.zeros(T), np.ones(T), np.ones(T)
        base = z[0]
        moved = np.where(observed, z - base, 0)

        def total(values):
            sums = np.concatenate([[0.0], np.cumsum(values)])
            return sums[1:] - sums[np.maximum(np.arange(1, T + 1) - w, 0)]

        count = total(observed)
        some = np.maximum(count, 1)
        mean = total(moved) / some
        level = np.where(count > 0, base + mean, 0)
        if self.scaling == "std":
            scale = np.sqrt(np.maximum(total(moved * moved) / some - mean * mean, 0))
        elif not self.log:
            scale = total(np.where(observed, np.abs(z), 0)) / some
        else:
            scale = np.ones(T)
        for t in np.flatnonzero(count == 0):            # a window without a value: as it was
            level[t], scale[t] = level[t - 1], scale[t - 1]
        largest = np.maximum.accumulate(scale)
        return level, np.where(largest > TINY * np.abs(level), np.maximum(scale, FLOOR * largest), 1.0), largest

    def times(self, seconds):
        """Sines and cosines of times [T] in seconds, [T, times_size]."""
        angles = [2 * math.pi * n / PERIODS[name] for name in self.time_features for n in range(1, HARMONICS + 1)]
        angles = np.asarray(seconds)[:, None] * np.array(angles)
        return np.stack([np.sin(angles), np.cos(angles)], 2).reshape(len(angles), -1)

    @staticmethod
    def standardised(values, statistics):
        """Columns less their training mean, by their training scale; 0 where one is missing."""
        found = (values - statistics[0]) / statistics[1]
        found[np.isnan(found)] = 0
        return found


def _statistics(values):
    """Mean and standard deviation of columns, of what is there; 1 for a column that does not vary."""
    there = ~np.isnan(values)
    count = np.maximum(there.sum(0), 1)
    mean = np.where(there, values, 0).sum(0) / count
    spread = np.sqrt(np.where(there, (values - mean) ** 2, 0).sum(0) / count)
    return mean, np.where(spread > TINY * np.abs(mean), spread, 1.0)


def first_observed(y):
    """Where the first value is; len(y) if there is none."""
    there = ~np.isnan(y)
    return int(np.argmax(there)) if there.any() else len(y)
