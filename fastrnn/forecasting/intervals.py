"""Intervals from the errors that forecasts made in the past: conformal calibration.

At the rolling origins the blend of forecasts was off by r_{n,o,k}, the value that came less the forecast, for series n,
origin o and k steps ahead (of the logarithm, where forecasts are made of it). Their mean size is described by

    s_{n,k} = u_n c_n s_k,

with u_n the mean absolute difference of the series, s_k the mean of |r| / u over series and origins, and c_n the
series' own ratio (drawn towards 1). At an origin u is that of the values until then, so that errors of a series that
grows have the units of their time. log s_k is drawn towards m + p log k: m is free, p has the prior N(0.5, 0.4^2), and
what lies off the line the standard deviation 0.15. The mean of so few errors says what it says with a variance v_k of
its logarithm; so the quantile p of a forecast is

    f_{n,k} + s_{n,k} q_p t_p(1 / (2 v_k)) / t_p(inf),

with q_p that of all r / s (of several series, each half of a series' errors over the c_n of the other half), and t_p
those of Student's distribution. Beyond the horizon s_k grows as a power of k does.

References: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005); Gibbs & Candes, Adaptive conformal
inference under distribution shift (2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._base.trees import storable

if TYPE_CHECKING:
    from typing import Any

    from .._base.typing import ArrayLike, Float64Array, IntArray

GRID = 401              # probabilities at which quantiles of residuals are kept
MOST_PATHS = 400        # residual paths that are kept for samples
SEVERAL = 5             # series from which on each half of a series' errors is measured by the other half
FEW = 2.0               # so many errors that do not overlap count as much as a normal distribution's shape does
LOPSIDED = 16.0         # the same, of a shape that is not the same on both sides beside one that is
LOG_VARIANCE = 0.57     # of the logarithm of a normal error's size: pi / 2 - 1
POWER = 0.5, 0.4        # of k by which errors grow: mean and standard deviation beforehand
OFF = 0.15, 0.7         # standard deviation of log s_k about the power, and over how far in log k it is alike
LEAST_FREEDOM = 3.0     # degrees of freedom, at the least


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
    freedom : array of float64, [horizon], or None
        Degrees of freedom of the quantiles, k steps ahead, as the sizes are known from few errors; None: no limit.
    """

    spread: Float64Array
    units: Float64Array
    growth: float
    quantiles: Float64Array
    paths: Float64Array
    count: float
    freedom: Float64Array | None = None

    @classmethod
    def of(cls, residuals: Float64Array, units: Float64Array, count: float, known: Float64Array | None = None,
           past: Float64Array | None = None) -> Calibration:
        """The calibration by residuals [O, N, horizon], values less forecasts, NaN where there is none.

        `units` are those of the N series, and `past` [O, N] those that were known at the origins. `count` is the number
        of residuals of a series that do not overlap, and `known` [N, horizon] how many of them at each step.
        """
        horizon = residuals.shape[2]
        varied = units > 0
        past = np.broadcast_to(units, residuals.shape[:2]) if past is None else past
        scaled = residuals / np.where(past > 0, past, np.inf)[..., None]
        observed = np.isfinite(scaled[:, varied])
        if not observed.any():
            return cls(units[:, None] * np.ones((1, horizon)), units, 0.5, _NORMAL, np.zeros((1, horizon)), 1.0,
                       np.full(horizon, LEAST_FREEDOM))
        if known is None:
            known = np.minimum(np.isfinite(scaled).sum(0), count * horizon / np.arange(1, horizon + 1))
        independent = known[varied].sum(0) * _different(scaled[:, varied])
        common, growth, variance = _sizes(_mean(np.abs(scaled[:, varied]), (0, 1)), independent)
        sizes = np.abs(scaled) / common
        own = _own_sizes(sizes, count)
        standard = scaled / (own[:, None] * common)
        if varied.sum() >= SEVERAL and len(residuals) > 3:      # errors in units that other errors of the series gave
            half = len(residuals) // 2
            first, second = (_own_sizes(part, count / 2) for part in (sizes[:half], sizes[half:]))
            standard[:half] *= (own / second)[:, None]
            standard[half:] *= (own / first)[:, None]
        standard = standard[:, varied]
        total = float(independent.mean())
        kept = _quantiles(np.sort(standard[observed]), total)
        paths = standard.reshape(-1, horizon)
        paths = paths[np.isfinite(paths).all(1)]
        if not len(paths):
            paths = np.nan_to_num(standard.reshape(-1, horizon))
        if len(paths) > MOST_PATHS:
            paths = paths[np.linspace(0, len(paths) - 1, MOST_PATHS).astype(int)]
        return cls((units * own)[:, None] * common, units, growth, kept, paths, max(1.0, total),
                   np.maximum(0.5 / variance, LEAST_FREEDOM))

    def for_series(self, units: Float64Array, kept: int = 0, places: IntArray | None = None) -> Calibration:
        """The calibration of other series, which only their units tell apart.

        The first `kept` stay as they are; or, where `places` says of each series which of those before it is (-1: none
        of them), those that were there before.
        """
        varied = self.units > 0
        ratio = (self.spread[varied] / self.units[varied, None]).mean(0) if varied.any() else 1.0
        spread = units[:, None] * ratio * np.ones((1, self.spread.shape[1]))
        spread[:kept] = self.spread[:kept]
        if places is not None:
            spread[places >= 0] = self.spread[places[places >= 0]]
        return replace(self, spread=spread, units=units)

    def spreads(self, steps: int) -> Float64Array:
        """The spread [N, steps], beyond the horizon too."""
        return further(self.spread, self.growth, 0, steps)

    def errors(self, levels: ArrayLike, steps: int) -> Float64Array:
        """Quantiles [steps, Q] of errors in units of the spread; that of 0.5 is 0, for the point forecast itself.

        None crosses it.
        """
        p = np.asarray(levels, np.float64)
        errors = np.interp(p, np.linspace(0, 1, len(self.quantiles)), self.quantiles)
        errors = np.where(p < 0.5, np.minimum(errors, 0), np.where(p > 0.5, np.maximum(errors, 0), 0.0))
        if self.freedom is None:
            return np.repeat(errors[None], steps, 0)
        freedom = self.freedom[np.minimum(np.arange(steps), len(self.freedom) - 1)]
        return errors * _heavier(p, freedom[:, None])

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
        if self.freedom is not None:    # as the sizes are not exactly known: Student's distribution
            freedom = float(np.median(self.freedom))
            errors *= np.sqrt(freedom / rng.chisquare(freedom, (count, N, 1)))
        return errors * spreads


def further(spread: Float64Array, growth: float, first: int, steps: int) -> Float64Array:
    """The spread [..., steps] from `first` + 1 steps ahead on, of that of the first steps [..., horizon]."""
    horizon = spread.shape[-1]
    if first + steps <= horizon:
        return spread[..., first:first + steps]
    beyond = (np.arange(max(first, horizon) + 1, first + steps + 1) / horizon) ** growth
    return np.concatenate([spread[..., first:], spread[..., -1:] * beyond], -1)


def _different(scaled: Float64Array) -> float:
    """How many of N series' errors [O, N, horizon] are as good as independent ones, as a share of N.

    With the mean correlation rho of two series' errors of one time it is 1 / (1 + (N - 1) rho).
    """
    observed = np.isfinite(scaled)
    values = np.where(observed, scaled, 0.0)
    size = np.sqrt((values**2).sum(0) / np.maximum(observed.sum(0), 1))
    values = values / np.where(size > 0, size, 1.0)
    together = (values.sum(1) ** 2 - (values**2).sum(1)).sum()
    count = observed.sum(1)
    pairs = (count * (count - 1)).sum()
    rho = np.clip(together / pairs, 0.0, 1.0) if pairs else 0.0
    return float(1 / (1 + (scaled.shape[1] - 1) * rho))


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


def _sizes(sizes: Float64Array, count: Float64Array) -> tuple[Float64Array, float, Float64Array]:
    """Mean sizes of errors [horizon] drawn towards a power of the step; that power; the variance of their logarithms.

    `count` [horizon] is from how many errors each is known. Errors of neighbouring steps overlap, so their means are
    correlated, as min(k, j) / max(k, j).
    """
    k = np.arange(1, len(sizes) + 1)
    known = np.isfinite(sizes) & (sizes > 0)
    if not known.any():
        return np.ones(len(sizes)), 0.5, np.full(len(sizes), LOG_VARIANCE)
    x, (mean, deviation) = np.log(k), POWER
    y = np.log(sizes[known]) - mean * x[known]
    noise = np.sqrt(LOG_VARIANCE / np.maximum(count, 1e-3))
    noise = np.outer(noise, noise) * np.minimum.outer(k, k) / np.maximum.outer(k, k)
    prior = 25.0 + deviation**2 * np.outer(x, x) + OFF[0]**2 * np.exp(-np.abs(np.subtract.outer(x, x)) / OFF[1])
    total = (prior + noise)[np.ix_(known, known)] + 1e-9 * np.eye(known.sum())
    gain = np.linalg.solve(total, prior[known]).T
    power = mean + deviation**2 * (x[known] @ np.linalg.solve(total, y))
    variance = np.diag(prior) - np.einsum("jk,kj->j", gain, prior[known])
    return np.exp(mean * x + gain @ y), float(np.clip(power, 0.0, 1.0)), np.maximum(variance, 1e-9)


def _quantiles(pool: Float64Array, count: float) -> Float64Array:
    """Quantiles of residuals in units of their mean size, drawn towards those of a normal distribution."""
    if not len(pool) or pool[0] == pool[-1]:
        return _NORMAL
    p = np.linspace(0, 1, GRID)
    both = np.sort(np.concatenate([pool, -pool]))
    share = count / (count + LOPSIDED)
    mirrored, own = np.quantile(both, p), np.quantile(pool, p)
    empirical = share * own + (1 - share) * mirrored
    few = count / (count + FEW)
    result = few * empirical + (1 - few) * _NORMAL
    result[0], result[-1] = min(result[0], 1.15 * result[1]), max(result[-1], 1.15 * result[-2])
    return np.maximum.accumulate(result)


def _heavier(p: Float64Array, freedom: Float64Array) -> Float64Array:
    """Quantiles of Student's t distribution over those of the normal one, by the expansion in 1 / freedom."""
    z = np.interp(p, np.linspace(0, 1, GRID), _NORMAL) * np.sqrt(2 / np.pi)
    square = z * z
    result: Float64Array = (1 + (square + 1) / (4 * freedom) + ((5 * square + 16) * square + 3) / (96 * freedom**2)
                            + (((3 * square + 19) * square + 17) * square - 15) / (384 * freedom**3))
    return result


def _normal_quantiles() -> Float64Array:
    """Quantiles of a normal distribution whose mean absolute value is 1, from its density on a fine grid."""
    x = np.linspace(-4, 4, 8001)
    mass = np.cumsum(np.exp(-x * x / 2))
    result: Float64Array = np.interp(np.linspace(0, 1, GRID), mass / mass[-1], x) * np.sqrt(np.pi / 2)
    return result


_NORMAL = _normal_quantiles()
