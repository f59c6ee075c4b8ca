"""``RNNForecaster.score``: R^2 of forecasts beside the values that came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .following import following, read_following
from .plots import as_arrays

if TYPE_CHECKING:
    from .._base.typing import ArrayLike, Float64Array
    from .forecaster import RNNForecaster


def score(model: RNNForecaster, X: Any, y: ArrayLike | None) -> float:
    """R^2 of a fitted forecaster: of predict(X) beside y; or, without y, of the rows of X, which follow its series."""
    if y is not None:
        came, forecast = np.asarray(y, float), np.asarray(model.predict(X))
        if came.shape != forecast.shape:
            raise ValueError(f"y: expected shape {forecast.shape}, that of the forecasts, got {came.shape}")
        return r_squared(came, forecast, -1 if model.panel_.kind == "list" else 0)
    if X is None or isinstance(X, (int, np.integer)):
        raise TypeError("y: expected the values that came, got None")
    rows, others = following(model.panel_, read_following(model, X))
    if others or any(each is None for each in rows):
        names = [each.name for each in others] or [
            series.name for series, each in zip(model.panel_.series, rows, strict=True) if each is None]
        raise ValueError("X: expected rows of the series that were fitted, and of no others: series "
                         f"{', '.join(map(str, names))}")
    pieces = [each for each in rows if each is not None]
    steps = max(map(len, pieces))
    values: Float64Array = np.full((len(pieces), steps), np.nan)
    for n, each in enumerate(pieces):
        values[n, :len(each)] = each.y
    forecast = as_arrays(model).predict([each.known_to(steps) for each in pieces] if model.n_features_in_ else steps)
    return r_squared(values, forecast, -1)


def r_squared(values: Float64Array, forecast: Float64Array, axis: int) -> float:
    """1 - sum (y - f)^2 / sum (y - mean y)^2 over the values that are there; the mean is taken along the axis of time.

    Where the values do not vary it is 1 for perfect forecasts and 0 for others.
    """
    observed = ~np.isnan(values)
    if not observed.any():
        raise ValueError("y: expected values, all are missing")
    count = np.maximum(observed.sum(axis, keepdims=True), 1)
    mean = np.where(observed, values, 0).sum(axis, keepdims=True) / count
    spread = float(np.sum((values - mean)[observed] ** 2))
    error = float(np.sum((values - forecast)[observed] ** 2))
    return 1 - error / spread if spread else float(not error)
