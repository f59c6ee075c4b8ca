"""How a series becomes a network's inputs and targets, and how the network's outputs become forecasts.

With z the series or its logarithm (filled where values are missing), and c_t and s_t its level and scale over the last
`window` steps, the network reads at step t

    (z_t - c_t) / s_t,   (z_t - z_{t-1}) / s_t,
    for every season m:  (z_t - z_{t-m}) / s_t,  and the steps to come as they were one season before,
                         (z_{t+k-m} - c_t) / s_t,  k = 1 ... min(m, horizon)
    1 where y_t is missing (if values were missing in training),  sines and cosines of the time,
    static columns, past columns at t, known columns at t ... t+horizon, all standardised

and its outputs o_k, k = 1 ... horizon, stand for  z_{t+k} = r_{t,k} + s_t o_k.  The reference r_{t,k} is the level c_t;
with difference = m it is the last value that lies a multiple of m steps before t+k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._base.typing import Array, ArrayLike, BoolArray, Float64Array, IntArray
    from .series import Series

PERIODS = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.2425 * 86_400.0}      # in seconds
HARMONICS = 2
LARGEST = 1e100         # of the values' size: squares of larger ones would overflow
SMALLEST = 1e-130       # of the values' range: squares of parts of smaller ones would be 0
TINY = 1e-13            # a scale below this part of the level is rounding
FLOOR = 0.05            # the scale is at least this part of the largest it has been


@dataclass(frozen=True)
class Logarithm:
    """What the parameter `log` asks for: the function of arrays, its inverse, that of one number, and the bound that
    values must be above."""

    forward: Callable[..., Any]
    inverse: Callable[..., Any]
    scalar: Callable[[float], float]
    above: float


LOGARITHMS: dict[bool | str, Logarithm] = {True: Logarithm(np.log, np.exp, math.log, 0.0),
                                           "1p": Logarithm(np.log1p, np.expm1, math.log1p, -1.0)}


@dataclass
class Encoded:
    """A series of T steps as the network reads it."""

    x: Array                    # inputs of the network [T, I], float32
    z: Float64Array             # values or their logarithms [T], filled where they are missing
    level: Float64Array         # [T]
    scale: Float64Array         # [T]
    largest: Float64Array       # the largest scale up to each step [T]
    observed: BoolArray         # whether the series has a value there [T]


@storable
class Encoding:
    """How series are read, with the means and scales of the training series' columns.

    Parameters
    ----------
    horizon, window, log, scaling, difference, seasons, time_features
        As RNNForecaster has them, checked.
    series : sequence of Series
        Those trained on.
    """

    def __init__(self, horizon: int, window: int, log: bool | str, scaling: str | None, difference: int,
                 seasons: tuple[int, ...], time_features: tuple[str, ...], series: Sequence[Series]) -> None:
        self.horizon, self.window, self.log, self.scaling = horizon, window, log, scaling
        self.difference, self.seasons, self.time_features = difference, seasons, time_features
        self.missing = any(bool(np.isnan(each.y[first_observed(each.y):]).any()) for each in series)
        self.known = _statistics(np.concatenate([each.known for each in series]))       # mean and scale of each column
        self.past = _statistics(np.concatenate([each.past for each in series]))
        self.static = _statistics(np.stack([np.empty(0) if each.static is None else each.static for each in series]))
        self.profiles = [min(m, horizon) for m in seasons]
        self.reach = max([1, difference, *seasons])         # how far back a step looks for single values
        n_known, n_past = len(self.known[0]), len(self.past[0])
        # First inputs of the past and of the known columns:
        self.past_at = (2 + len(seasons) + sum(self.profiles) + self.missing + self.times_size
                        + len(self.static[0]))
        self.known_at = self.past_at + n_past
        self.size = self.known_at + n_known * (1 + horizon)

    @property
    def times_size(self) -> int:
        """How many inputs say the time."""
        return 2 * HARMONICS * len(self.time_features)

    # ---- A series at once -----------------------------------------------------------------------

    def encode(self, series: Series) -> Encoded:
        """Every step of a series, which begins with a value."""
        y, T = series.y, len(series)
        observed, z = ~np.isnan(y), self.filled(y)
        level, scale, largest = self._rolling(z, observed)
        inverse = 1 / scale
        parts = [(z - level) * inverse, self._lag(z, 1) * inverse]
        parts += [self._lag(z, m) * inverse for m in self.seasons]
        for m, size in zip(self.seasons, self.profiles, strict=True):
            profile = self.ahead(z, m)[:, :size]
            parts.append(np.where(np.isnan(profile), 0, (profile - level[:, None]) * inverse[:, None]))
        if self.missing:
            parts.append(~observed)
        parts.append(self.columns(series, np.arange(T)))
        x = np.empty((T, self.size), np.float32)
        x[:] = np.concatenate([part.reshape(T, -1) for part in parts], 1)
        return Encoded(x, z, level, scale, largest, observed)

    def filled(self, y: Float64Array) -> Float64Array:
        """z of y, a fresh array; a missing value is as one season before, or as the last one."""
        z = self.transformed(y)
        fill = self.seasons[0] if self.seasons else 1
        for t in np.flatnonzero(np.isnan(y)).tolist():
            z[t] = z[t - fill] if t >= fill else z[t - 1]
        return z

    def columns(self, series: Series, steps: IntArray) -> Float64Array:
        """What the network reads at some steps beside the series itself: time, static, past and known columns."""
        parts: list[Float64Array] = []
        if self.time_features and series.clock is not None:
            parts.append(self.times(series.clock.seconds(steps)))
        if series.static is not None:
            static = self.standardised(series.static, self.static)
            parts.append(np.broadcast_to(static, (len(steps), len(static))))
        parts.append(self.standardised(series.past[steps], self.past))
        if len(self.known[0]):
            ahead = np.minimum(steps[:, None] + np.arange(1 + self.horizon), len(series.known) - 1)
            parts.append(self.standardised(series.known[ahead], self.known).reshape(len(steps), -1))
        return np.concatenate(parts, 1)

    def targets(self, encoded: Encoded, series: Series, first: int) -> Array:
        """o [T, horizon] as float32, NaN where it is unknown or not to be learnt, which is before step `first`."""
        T, H = len(series), self.horizon
        z = np.concatenate([np.where(encoded.observed, encoded.z, np.nan), np.full(H, np.nan)])
        truth = np.lib.stride_tricks.sliding_window_view(z[1:], H)[:T]
        reference = self.ahead(encoded.z, self.difference) if self.difference else encoded.level[:, None]
        targets = (truth - reference) / encoded.scale[:, None]
        targets[:first] = np.nan
        targets[encoded.largest <= TINY * np.abs(encoded.level)] = np.nan       # nothing has varied yet
        return targets.astype(np.float32)

    def reference(self, encoded: Encoded, at: IntArray) -> Float64Array:
        """r [len(at), horizon] of the steps `at`."""
        if not self.difference:
            return np.repeat(encoded.level[at, None], self.horizon, 1)
        before = self.ahead(encoded.z, self.difference, at)
        return np.where(np.isnan(before), encoded.z[at, None], before)

    def decode(self, encoded: Encoded, at: IntArray, outputs: Float64Array) -> Float64Array:
        """Forecasts [len(at), horizon, ...] of the steps `at`, from the network's outputs there."""
        return self.restored(self.placed(encoded, at, outputs))

    def placed(self, encoded: Encoded, at: IntArray, outputs: Float64Array) -> Float64Array:
        """z [len(at), horizon, ...] that the network's outputs at the steps `at` stand for."""
        shape = len(at), self.horizon, *(1,) * (outputs.ndim - 2)
        z: Float64Array = (self.reference(encoded, at).reshape(shape)
                           + encoded.scale[at].reshape(-1, *shape[2:], 1) * outputs)
        return z

    @staticmethod
    def varied(encoded: Encoded, at: IntArray) -> BoolArray:
        """Whether the series has varied by the steps `at` [len(at)]."""
        result: BoolArray = encoded.largest[at] > TINY * np.abs(encoded.level[at])
        return result

    def restored(self, z: Float64Array) -> Float64Array:
        """Values from their z."""
        y: Float64Array = LOGARITHMS[self.log].inverse(z) if self.log else z
        return y

    def transformed(self, y: Float64Array) -> Float64Array:
        """z of y, a fresh array."""
        return LOGARITHMS[self.log].forward(y) if self.log else y.copy()

    def ahead(self, z: Float64Array, m: int, at: IntArray | None = None) -> Float64Array:
        """For each step t, or those of `at`, z[t + k - m * ceil(k / m)], k = 1 ... horizon; NaN before its start."""
        steps = np.arange(len(z)) if at is None else np.asarray(at)
        source = steps[:, None] + self.offsets(m)
        return np.where(source < 0, np.nan, z[np.maximum(source, 0)])

    def offsets(self, m: int) -> IntArray:
        """From a step to what is m steps, or a multiple, before each step of the horizon; none is above 0."""
        k = np.arange(1, self.horizon + 1)
        return k - m * -(-k // m)

    @staticmethod
    def _lag(z: Float64Array, m: int) -> Float64Array:
        """z_t - z_{t-m}, 0 where there is no z_{t-m}."""
        return np.concatenate([np.zeros(min(m, len(z))), z[m:] - z[:-m]])

    def _rolling(self, z: Float64Array, observed: BoolArray) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Level and scale over the observed values of the last `window` steps, and the largest scale so far."""
        T, w = len(z), self.window
        if self.scaling is None:
            return np.zeros(T), np.ones(T), np.ones(T)
        base = z[0]
        moved = np.where(observed, z - base, 0)

        def total(values: Array) -> Float64Array:
            sums: Float64Array = np.concatenate([[0.0], np.cumsum(values)])
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

    def times(self, seconds: ArrayLike) -> Float64Array:
        """Sines and cosines of times [T] in seconds, [T, times_size]."""
        frequencies = [2 * math.pi * n / PERIODS[name] for name in self.time_features for n in range(1, HARMONICS + 1)]
        angles = np.asarray(seconds)[:, None] * np.array(frequencies)
        return np.stack([np.sin(angles), np.cos(angles)], 2).reshape(len(angles), -1)

    @staticmethod
    def standardised(values: Float64Array, statistics: tuple[Float64Array, Float64Array]) -> Float64Array:
        """Columns less their training mean, divided by their training scale; 0 where a value is missing."""
        result = (values - statistics[0]) / statistics[1]
        result[np.isnan(result)] = 0
        return result


def _statistics(values: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Mean and standard deviation of each column's values that are not missing; 1 for a column that does not vary."""
    observed = ~np.isnan(values)
    count = np.maximum(observed.sum(0), 1)
    mean = np.where(observed, values, 0).sum(0) / count
    deviation = np.sqrt(np.where(observed, (values - mean) ** 2, 0).sum(0) / count)
    return mean, np.where(deviation > TINY * np.abs(mean), deviation, 1.0)


def missing_at_end(y: Float64Array) -> int:
    """How many values are missing after the last one."""
    if len(y) and not math.isnan(y[-1]):
        return 0
    return first_observed(y[::-1])


def first_observed(y: Float64Array) -> int:
    """The step of the first value; len(y) if all are missing."""
    observed = ~np.isnan(y)
    return int(np.argmax(observed)) if observed.any() else len(y)
