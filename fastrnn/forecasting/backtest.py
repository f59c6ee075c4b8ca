"""Forecasts beside what came, and measures of their errors."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Backtest:
    """Forecasts at many times, and what came.

    Attributes
    ----------
    series, origins : ints [M]
        Of each forecast: the number of its series; how many steps were past when it was made.
    truth, forecasts : array [M, horizon]
    quantile_forecasts : array [M, horizon, Q], or None
    quantiles : tuple of float
    others : dict of str to array [M, horizon]
        "naive": the last value; "seasonal naive m": what was last, a whole number of seasons of m steps before.
    scales : array
        Of each series, the mean absolute difference over its (first) season, in its past: what MASE is in units of.

    Examples
    --------
    >>> from fastrnn.forecasting import RNNForecaster
    >>> y = np.sin(np.arange(200) / 4)
    >>> test = RNNForecaster(horizon=3, updates=100, random_state=0).backtest(y, start=-20)
    >>> test.truth.shape, test.origins.tolist()[:3]
    ((18, 3), [180, 181, 182])
    >>> scores = test.scores()
    >>> scores["forecast"]["MAE"] < scores["naive"]["MAE"]
    True
    """

    series: np.ndarray
    origins: np.ndarray
    truth: np.ndarray
    forecasts: np.ndarray
    quantile_forecasts: np.ndarray | None
    quantiles: tuple
    others: dict
    scales: np.ndarray

    def scores(self):
        """Dict of name ("forecast", "naive", ...) to a dict of "MAE", "RMSE", "sMAPE" (per cent), "MASE"."""
        return {name: self._scores(one) for name, one in {"forecast": self.forecasts, **self.others}.items()}

    def _scores(self, forecasts):
        error = np.abs(forecasts - self.truth)
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = error / self.scales[self.series, None]
        return {"MAE": float(np.nanmean(error)), "RMSE": float(np.sqrt(np.nanmean(error**2))),
                "sMAPE": smape(self.truth, forecasts), "MASE": float(np.nanmean(scaled))}

    def coverage(self):
        """Dict of quantile to the share of values that were at or below its forecast."""
        if self.quantile_forecasts is None:
            raise ValueError("quantiles: none were forecast")
        there = ~np.isnan(self.truth)
        below = self.truth[..., None] <= self.quantile_forecasts
        return {q: float(below[there][:, n].mean()) for n, q in enumerate(self.quantiles)}


def smape(truth, forecasts):
    """Symmetric mean absolute percentage error, as M4 has it: the mean of 200 |y - f| / (|y| + |f|).

    >>> smape(np.array([100.0, 50.0]), np.array([100.0, 150.0]))
    50.0
    """
    size = np.abs(truth) + np.abs(forecasts)
    return float(np.nanmean(200 * np.abs(truth - forecasts) / np.where(size > 0, size, 1)))


def mase(truth, forecasts, past, season=1):
    """Mean absolute scaled error (Hyndman & Koehler 2006): MAE by the mean of |y_t - y_{t-season}| over the past.

    >>> mase(np.array([5.0]), np.array([8.0]), past=np.array([1.0, 3.0, 5.0]))
    1.5
    """
    return float(np.nanmean(np.abs(truth - forecasts)) / scale(past, season))


def scale(past, season):
    """The mean of |y_t - y_{t-season}|; NaN where there is none."""
    return np.nanmean(np.abs(past[season:] - past[:-season])) if len(past) > season else math.nan
