"""Intervals from the errors that forecasts made in the past: conformal calibration.

At the rolling origins the blend of forecasts was off by r_{n,o,k}, for series n, origin o and k steps ahead (of the
logarithm, where forecasts are made of it). Their mean size is described by

    s_{n,k} = u_n c_n s_k,

with u_n the mean absolute difference of the series, s_k the mean of |r| / u over series and origins (drawn towards a
power of k where origins are few), and c_n the series' own ratio (drawn towards 1). The quantile p of a forecast is

    f_{n,k} + s_{n,k} q_p,

with q_p that of all r / s (of several series, each half of a series' errors over the c_n of the other half); for an
interval of level 1 - a the level is 1 - a + a min(0.3, 1 / (2 n)), with n the number of residuals that do not overlap.
Beyond the horizon s_k grows as the power of k does.

References: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005); Gibbs & Candes, Adaptive conformal
inference under distribution shift (2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._base.typing import ArrayLike, Float64Array

GRID = 401              # probabilities at which quantiles of residuals are kept
MOST_PATHS = 400        # residual paths that are kept for samples
SEVERAL = 5             # series from which on each half of a series' errors is measured by the other half
FEW = 8.0               # so many residuals that do not overlap count as much as the fitted power does


class Interval(NamedTuple):
    """Forecasts with an interval around them; each field is shaped as the forecasts.

    Attributes
    ----------
    lower, point, upper : array
        The bounds, and the forecast between them.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecasting import RNNForecaster
    >>> y = np.sin(np.arange(200) / 4) + 0.1 * np.random.default_rng(0).standard_normal(200)
    >>> lower, point, upper = RNNForecaster(horizon=3, random_state=0).fit(y).predict(interval=0.9)
    >>> bool((lower < point).all() and (point < upper).all())
    True
    """

    lower: Any
    point: Any
    upper: Any


@storable
@dataclass
class Calibration:
    """What is known of the errors of the forecasts.

    Attributes
    ----------
    spread : array of float64, [N, horizon]
        The mean size of the error of each series, k steps ahead.
    units : array of float64, [N]
        The mean absolute difference of each series.
    growth : float
        The power of k by which the spread grows beyond the horizon.
    quantiles : array of float64, [GRID]
        Quantiles of errors in units of the spread, at evenly spaced probabilities from 0 to 1.
    paths : array of float64, [R, horizon]
        Errors in units of the spread, from single origins, for samples.
    count : float
        The number of errors that do not overlap.
    """

    spread: Float64Array
    units: Float64Array
    growth: float
    quantiles: Float64Array
    paths: Float64Array
    count: float

    @classmethod
    def of(cls, residuals: Float64Array, units: Float64Array, count: float) -> Calibration:
        """The calibration by residuals [O, N, horizon], NaN where there is none, of N of the series with `units`.

        `count` is the number of residuals of a series that do not overlap.
        """
        horizon = residuals.shape[2]
        scaled = np.abs(residuals) / np.where(units > 0, units, np.inf)[:, None]
        varied = units > 0
        if not varied.any() or not np.isfinite(scaled[:, varied]).any():
            return cls(units[:, None] * np.ones((1, horizon)), units, 0.5, _NORMAL, np.zeros((1, horizon)), 1.0)
        total = max(1.0, count * min(int(varied.sum()), 50))
        common, growth = _smoothed(_mean(scaled[:, varied], (0, 1)), total)
        own = _own_sizes(scaled / common, count)
        spread = (units * own)[:, None] * common
        standard = residuals / np.where(spread > 0, spread, np.inf)
        if varied.sum() >= SEVERAL and len(residuals) > 3:      # errors in units that other errors of the series gave
            half = len(residuals) // 2
            first, second = (_own_sizes(part / common, count / 2) for part in (scaled[:half], scaled[half:]))
            standard[:half] *= (own / second)[:, None]
            standard[half:] *= (own / first)[:, None]
        pool = np.sort(standard[:, varied][np.isfinite(residuals[:, varied])])
        kept = _quantiles(pool, total)
        paths = standard[:, varied].reshape(-1, horizon)
        paths = paths[np.isfinite(paths).all(1)]
        if not len(paths):
            paths = np.nan_to_num(standard[:, varied].reshape(-1, horizon))
        if len(paths) > MOST_PATHS:
            paths = paths[np.linspace(0, len(paths) - 1, MOST_PATHS).astype(int)]
        return cls(spread, units, growth, kept, paths, total)

    def for_series(self, units: Float64Array, kept: int = 0) -> Calibration:
        """The calibration of other series, which only their units tell apart; the first `kept` stay as they are."""
        varied = self.units > 0
        ratio = (self.spread[varied] / self.units[varied, None]).mean(0) if varied.any() else 1.0
        spread = units[:, None] * ratio * np.ones((1, self.spread.shape[1]))
        spread[:kept] = self.spread[:kept]
        return replace(self, spread=spread, units=units)

    def spreads(self, steps: int) -> Float64Array:
        """The spread [N, steps], beyond the horizon too."""
        horizon = self.spread.shape[1]
        if steps <= horizon:
            return self.spread[:, :steps]
        further = (np.arange(horizon + 1, steps + 1) / horizon) ** self.growth
        return np.concatenate([self.spread, self.spread[:, -1:] * further], 1)

    def quantile(self, p: ArrayLike) -> Float64Array:
        """Quantiles of errors in units of the spread."""
        p = np.asarray(p, np.float64)
        level = np.abs(2 * p - 1)               # of the interval that p bounds
        level = level + (1 - level) * min(0.3, 0.5 / self.count)
        moved = 0.5 + np.sign(p - 0.5) * level / 2
        result: Float64Array = np.interp(moved, np.linspace(0, 1, len(self.quantiles)), self.quantiles)
        return result

    def errors(self, levels: Sequence[float]) -> Float64Array:
        """Quantiles of errors in units of the spread; 0.5 stands for the point forecast itself, and none crosses it."""
        p = np.asarray(levels, np.float64)
        errors = self.quantile(p)
        return np.where(p < 0.5, np.minimum(errors, 0), np.where(p > 0.5, np.maximum(errors, 0), 0.0))

    def samples(self, count: int, steps: int, rng: np.random.Generator) -> Float64Array:
        """Errors [count, N, steps]: whole paths from single origins, so that steps hang together."""
        N, horizon = self.spread.shape
        blocks = [self.paths[rng.integers(len(self.paths), size=(count, N))] for _ in range(-(-steps // horizon))]
        spreads, errors = self.spreads(steps), np.concatenate(blocks, 2)[..., :steps]
        if steps > horizon:             # later blocks go on from the end of the first as far as errors accumulate
            k = np.arange(horizon + 1, steps + 1)
            tie = min(1.0, 2 * self.growth) * (horizon / k) ** self.growth
            errors[..., horizon:] = (tie * errors[..., horizon - 1:horizon]
                                     + np.sqrt(1 - tie**2) * errors[..., horizon:])
        return errors * spreads


def _own_sizes(ratios: Float64Array, count: float) -> Float64Array:
    """The mean size [N] of each series' errors [O, N, horizon] beside the common ones, drawn towards 1."""
    own = _mean(ratios, (0, 2))
    own = np.where(np.isfinite(own) & (own > 0), own, 1.0)
    shrink = count / (count + 2) if ratios.shape[1] > 1 else 0.0
    result: Float64Array = np.exp(shrink * np.log(own))
    return result


def _mean(values: Float64Array, axes: tuple[int, ...]) -> Float64Array:
    """The mean of values that are not missing; NaN where all are."""
    observed = np.isfinite(values)
    count = observed.sum(axes)
    total = np.where(observed, values, 0).sum(axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _smoothed(sizes: Float64Array, count: float) -> tuple[Float64Array, float]:
    """Mean sizes of errors [horizon] drawn towards a power of the step, and that power."""
    k = np.arange(1, len(sizes) + 1)
    known = np.isfinite(sizes) & (sizes > 0)
    if not known.any():
        return np.ones(len(sizes)), 0.5
    x, y = np.log(k[known]), np.log(sizes[known])
    weight = 1 / k[known]               # evenly over the logarithm of k
    centre, middle = np.average(x, weights=weight), np.average(y, weights=weight)
    variance = np.average((x - centre) ** 2, weights=weight)
    power = np.average((x - centre) * (y - middle), weights=weight) / variance if variance > 0 else 0.5
    prior = 4.0 / count
    power = float(np.clip((power + prior * 0.5) / (1 + prior) if variance > 0 else 0.5, 0.0, 1.0))
    fitted = middle + power * (np.log(k) - centre)
    raw = np.where(known, np.log(np.where(known, sizes, 1.0)), fitted)
    share = count / (count + FEW)
    return np.exp(share * raw + (1 - share) * fitted), power


def _quantiles(pool: Float64Array, count: float) -> Float64Array:
    """Quantiles of residuals in units of their mean size, drawn towards those of a normal distribution."""
    if not len(pool) or pool[0] == pool[-1]:
        return _NORMAL
    p = np.linspace(0, 1, GRID)
    both = np.sort(np.concatenate([pool, -pool]))
    share = count / (count + 2 * FEW)
    mirrored, own = np.quantile(both, p), np.quantile(pool, p)
    empirical = share * own + (1 - share) * mirrored
    few = count / (count + FEW / 2)
    result = few * empirical + (1 - few) * _NORMAL
    result[0], result[-1] = min(result[0], 1.15 * result[1]), max(result[-1], 1.15 * result[-2])
    return np.maximum.accumulate(result)


def _normal_quantiles() -> Float64Array:
    """Quantiles of a normal distribution whose mean absolute value is 1, from its density on a fine grid."""
    x = np.linspace(-4, 4, 8001)
    mass = np.cumsum(np.exp(-x * x / 2))
    result: Float64Array = np.interp(np.linspace(0, 1, GRID), mass / mass[-1], x) * np.sqrt(np.pi / 2)
    return result


_NORMAL = _normal_quantiles()
