"""Forecasts beside what came, and measures of their errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .plots import draw_backtest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from .._base.typing import ArrayLike, Float64Array, IntArray
    from .calendar import Clock


@dataclass(repr=False)
class Backtest:
    """Forecasts made at many times, and the values that came; the result of ``RNNForecaster.backtest``.

    M forecasts were made, each of `horizon` steps.

    Attributes
    ----------
    series : array of int, [M]
        The number of each forecast's series.
    origins : array of int, [M]
        How many steps of the series were past when each forecast was made.
    truth : array of float64, [M, horizon]
        The values that came; NaN where one is missing.
    forecasts : array of float64, [M, horizon]
        The forecasts; where there are quantiles, their median.
    quantile_forecasts : array of float64, [M, horizon, Q], or None
        Forecasts of all quantiles, rising.
    quantiles : tuple of float
        The Q quantiles; empty if none were asked for.
    others : dict of str to array, [M, horizon]
        "naive": the last value; "seasonal naive m": the last value that lies a multiple of m steps before.
    scales : array of float64
        For each series, the mean absolute difference over its (first) season in its past: the unit of MASE.
    names : tuple
        The name of each series in a frame; None elsewhere.
    clocks : tuple
        What tells the times of each series; None where it has none.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.forecasting import RNNForecaster
    >>> y = np.sin(np.arange(200) / 4)
    >>> test = RNNForecaster(horizon=3, updates=100, random_state=0).backtest(y, start=-20)
    >>> test
    <Backtest of 18 forecasts, horizon 3, 1 series>
    >>> test.truth.shape, test.origins.tolist()[:3]
    ((18, 3), [180, 181, 182])
    >>> scores = test.scores()
    >>> scores["forecast"]["MAE"] < scores["naive"]["MAE"]
    True
    """

    series: IntArray
    origins: IntArray
    truth: Float64Array
    forecasts: Float64Array
    quantile_forecasts: Float64Array | None
    quantiles: tuple[float, ...]
    others: dict[str, Float64Array]
    scales: Float64Array
    names: tuple[object, ...] = ()
    clocks: tuple[Clock | None, ...] = ()

    @classmethod
    def _joined(cls, parts: Sequence[Backtest]) -> Backtest:
        """One Backtest of several with the same horizon and quantiles."""
        def join(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        others = {name: np.concatenate([part.others[name] for part in parts]) for name in parts[0].others}
        return cls(join("series"), join("origins"), join("truth"), join("forecasts"),
                   join("quantile_forecasts") if parts[0].quantiles else None, parts[0].quantiles, others,
                   join("scales"))

    def _part(self, series: int) -> Backtest:
        """The forecasts of one series."""
        rows = self.series == series
        every = self.quantile_forecasts
        return Backtest(self.series[rows], self.origins[rows], self.truth[rows], self.forecasts[rows],
                        None if every is None else every[rows], self.quantiles,
                        {name: values[rows] for name, values in self.others.items()}, self.scales)

    def __repr__(self) -> str:
        count, horizon = self.truth.shape
        return f"<Backtest of {count} forecasts, horizon {horizon}, {len(self.scales)} series>"

    def scores(self) -> dict[str, dict[str, float]]:
        """Measure the errors of the forecasts and of the naive ones.

        Returns
        -------
        dict of str to dict
            For "forecast", "naive" and each "seasonal naive m": "MAE", "RMSE", "sMAPE" (in per cent), "MASE". Means
            are over all forecasts and steps; missing values are left out.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> scores = RNNForecaster(horizon=3, updates=100, random_state=0).backtest(y, start=-20).scores()
        >>> list(scores), list(scores["naive"])
        (['forecast', 'naive', 'seasonal naive 25'], ['MAE', 'RMSE', 'sMAPE', 'MASE'])
        """
        return {name: self._errors(values) for name, values in {"forecast": self.forecasts, **self.others}.items()}

    def _errors(self, forecasts: Float64Array) -> dict[str, float]:
        error = np.abs(forecasts - self.truth)
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = error / self.scales[self.series, None]
        return {"MAE": _mean(error), "RMSE": math.sqrt(_mean(error**2)), "sMAPE": smape(self.truth, forecasts),
                "MASE": _mean(scaled)}

    def coverage(self) -> dict[float, float]:
        """Count how often the values stayed at or below each quantile's forecast.

        Returns
        -------
        dict of float to float
            For each quantile the share of values; of a forecaster that is right about its intervals it is near the
            quantile itself.

        Raises
        ------
        ValueError
            No quantiles were forecast.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(300) / 4) + 0.1 * np.random.default_rng(0).standard_normal(300)
        >>> model = RNNForecaster(horizon=3, updates=200, quantiles=(0.1, 0.9), random_state=0)
        >>> coverage = model.backtest(y, start=-100).coverage()
        >>> 0.05 < coverage[0.1] < coverage[0.5] < coverage[0.9]
        True
        """
        if self.quantile_forecasts is None:
            raise ValueError("quantiles: none were forecast")
        observed = ~np.isnan(self.truth)
        below = self.truth[..., None] <= self.quantile_forecasts
        return {q: _mean(below[observed][:, n].astype(float)) for n, q in enumerate(self.quantiles)}

    def plot(self, series: int | str = 0, *, ahead: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the forecasts of one series over the values that came.

        Parameters
        ----------
        series : int or str
            Which series: its number, or its name in a frame.
        ahead : int, optional
            Draw what was forecast so many steps before, 1 to horizon, as one line, beside the naive forecasts. If it is
            not given, every forecast is drawn whole, from the step at which it was made.
        ax : matplotlib.axes.Axes, optional
            Where to draw. If it is not given, a new figure is made, without pyplot.

        Returns
        -------
        matplotlib.axes.Axes
            The axes that were drawn in; ``ax.figure.savefig(path)`` writes the figure.

        Raises
        ------
        ImportError
            Matplotlib is missing: ``pip install fastrnn[plot]``.
        TypeError, ValueError
            An unsuitable argument, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn.forecasting import RNNForecaster
        >>> y = np.sin(np.arange(200) / 4)
        >>> test = RNNForecaster(horizon=3, updates=50, random_state=0).backtest(y, start=-20)
        >>> ax = test.plot(ahead=3)
        >>> ax.get_xlabel(), [text.get_text() for text in ax.get_legend().get_texts()]
        ('step', ['values', 'naive', 'seasonal naive 25', 'forecasts 3 steps ahead'])
        """
        return draw_backtest(self, series, ahead, ax)


def _mean(values: Float64Array) -> float:
    """The mean of the values that are there; NaN, without numpy's warning, where there are none."""
    return math.nan if np.isnan(values).all() else float(np.nanmean(values))


def smape(truth: ArrayLike, forecasts: ArrayLike) -> float:
    """Compute the symmetric mean absolute percentage error, as the M4 competition has it.

    It is the mean of 200 |y - f| / (|y| + |f|), in per cent; 0 where both are 0. Missing values (NaN) are left out.

    Parameters
    ----------
    truth : array_like
        The values y that came.
    forecasts : array_like
        The forecasts f, shaped as `truth`.

    Returns
    -------
    float
        The error, 0 to 200 per cent.

    References
    ----------
    Makridakis, Spiliotis & Assimakopoulos, The M4 Competition: 100,000 time series and 61 forecasting methods,
    International Journal of Forecasting 36 (2020).

    Examples
    --------
    >>> from fastrnn.forecasting import smape
    >>> smape([100.0, 50.0], [100.0, 150.0])
    50.0
    """
    y, f = np.asarray(truth), np.asarray(forecasts)
    size = np.abs(y) + np.abs(f)
    return _mean(np.asarray(200 * np.abs(y - f) / np.where(size > 0, size, 1)))


def mase(truth: ArrayLike, forecasts: ArrayLike, past: ArrayLike, season: int = 1) -> float:
    """Compute the mean absolute scaled error.

    It is the mean absolute error divided by the mean of |y_t - y_{t-season}| over the past: below 1, forecasts are
    better than the (seasonal) naive forecast was one step ahead. Missing values (NaN) are left out.

    Parameters
    ----------
    truth : array_like
        The values that came.
    forecasts : array_like
        Their forecasts, shaped as `truth`.
    past : array_like, [T]
        The series before the forecasts.
    season : int
        Steps of a season; 1: the plain naive forecast is the unit.

    Returns
    -------
    float
        The error; NaN where the past is no longer than a season.

    References
    ----------
    Hyndman & Koehler, Another look at measures of forecast accuracy, International Journal of Forecasting 22 (2006).

    Examples
    --------
    >>> from fastrnn.forecasting import mase
    >>> mase([5.0], [8.0], past=[1.0, 3.0, 5.0])
    1.5
    """
    error = np.nanmean(np.abs(np.asarray(truth) - np.asarray(forecasts)))
    return float(error / scale(np.asarray(past, np.float64), season))


def scale(past: Float64Array, season: int) -> float:
    """The mean of |y_t - y_{t-season}|; NaN where there is none."""
    return float(np.nanmean(np.abs(past[season:] - past[:-season]))) if len(past) > season else math.nan


def naive_forecasts(y: Float64Array, at: IntArray, horizon: int, seasons: Sequence[int]) -> dict[str, Float64Array]:
    """The naive and seasonal naive forecasts [len(at), horizon] from the steps `at` of a series."""
    ahead = np.arange(1, horizon + 1)
    result = {"naive": y[_last_observed(y, at)][:, None].repeat(horizon, 1)}
    for m in seasons:
        source = at[:, None] + (ahead - m * -(-ahead // m))
        result[f"seasonal naive {m}"] = y[_last_observed(y, np.maximum(source, 0))]
    return result


def _last_observed(y: Float64Array, at: IntArray) -> IntArray:
    """The step of the last value at or before each step; the series begins with a value."""
    last = np.maximum.accumulate(np.where(np.isnan(y), 0, np.arange(len(y))))
    return last[at]
