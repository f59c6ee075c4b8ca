"""What the tests of the forecaster share."""

import numpy as np
import pytest

from fastrnn.forecasting import RNNForecaster

SMALL = {"horizon": 4, "window": 12, "hidden_size": 8, "updates": 40, "random_state": 0, "blend": False,
         "log": False, "difference": 1, "seasons": (), "ensemble": 1, "nonnegative": False}
QUICK = SMALL | {"updates": 3}
COLUMNS = QUICK | {"target": "y", "time": "ds"}         # of a table
LIBRARIES = pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])


def wave(T, period=12.0, noise=0.1, level=10.0, seed=0):
    """A season, a slow trend and noise; above 0."""
    t = np.arange(T)
    noise = noise * np.random.default_rng(seed).standard_normal(T)
    return level + 3 * np.sin(t / period * 2 * np.pi) + 0.01 * t + noise


def fitted(y, **options):
    extra = {name: options.pop(name) for name in ("X", "past", "times", "static") if name in options}
    X = extra.pop("X", None)
    model = RNNForecaster(**{**SMALL, **options})
    return model.fit(X, y, **extra) if X is not None else model.fit(y, **extra)


def table(library, **columns):
    """A table of a library of LIBRARIES."""
    if library == "pyarrow":
        return pytest.importorskip("pyarrow").table(columns)
    return pytest.importorskip(library).DataFrame(columns)
