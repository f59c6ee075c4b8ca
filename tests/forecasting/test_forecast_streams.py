"""Streamed forecasts: those of predict, an observation at a time."""

import pickle

import numpy as np
import pytest
from forecasters import fitted, wave
from helpers import refuses

# ---- Streams ------------------------------------------------------------------------------------

STREAMS = {
    "plain": {}, "lstm, two layers": {"cell": "lstm", "num_layers": 2}, "rnn": {"cell": "rnn"},
    "season": {"seasons": 6, "difference": 6}, "seasons": {"seasons": (3, 10), "difference": 3, "log": True},
    "long season": {"seasons": 40, "difference": 40, "log": "1p", "scaling": "mean"},
    "level": {"difference": 0, "scaling": "mean"}, "unscaled": {"scaling": None, "difference": 0},
    "quantiles": {"quantiles": (0.1, 0.9), "difference": 2}, "ensemble": {"ensemble": 3},
    "times": {"time_features": ("day", "week", "year")},
}


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_forecasts_as_predict_does(name, holes):
    y = wave(150)
    if holes:
        y[np.random.default_rng(0).random(150) < 0.2] = np.nan
        y[60:80] = np.nan       # longer than the window
        y[0] = 10.0
    times = np.datetime64("2024-01-01") + np.arange(150) * np.timedelta64(1, "h") if name == "times" else None
    model = fitted(y[:60], updates=10, **STREAMS[name], times=None if times is None else times[:60])
    model = model.apply(y[:30], times=None if times is None else times[:30])
    stream = model.stream()
    np.testing.assert_allclose(stream.forecast, model.predict(), rtol=2e-5)
    for t in range(30, 150):
        forecast = stream.step(y[t])
        assert forecast is stream.forecast
        if t % 7 == 0 or t > 140:
            whole = model.apply(y[:t + 1], times=None if times is None else times[:t + 1])
            np.testing.assert_allclose(forecast, whole.predict(), rtol=2e-5, err_msg=f"step {t}")
            if stream.forecast_quantiles is not None:
                np.testing.assert_allclose(stream.forecast_quantiles, whole.predict(quantiles=True), rtol=2e-5)


def test_a_stream_takes_columns():
    rng = np.random.default_rng(0)
    X, past, y = rng.standard_normal((120, 2)), rng.standard_normal((120, 1)), wave(120)
    X[80:85, 1], past[100:105] = np.nan, np.nan
    model = fitted(y[:60], X=X[:60], past=past[:60])
    stream = model.stream(X=X[60:64])
    np.testing.assert_allclose(stream.forecast, model.predict(X[60:64]), rtol=2e-5)
    for t in range(60, 110):
        forecast = stream.step(y[t], known=X[t + 4], past=past[t])
        if t in (80, 103, 104):
            whole = model.apply(X[:t + 1], y[:t + 1], past=past[:t + 1])
            np.testing.assert_allclose(forecast, whole.predict(X[t + 1:t + 5]), rtol=2e-5)
    for name, row in (("known", [np.inf, 0.0]), ("known", [0.0]), ("past", [-np.inf]), ("past", None)):
        with refuses(ValueError, name):
            stream.step(y[110], **{"known": X[114], "past": past[110]} | {name: row})
    assert stream.forecast is forecast
    whole = model.apply(X[:110], y[:110], past=past[:110])
    np.testing.assert_allclose(forecast, whole.predict(X[110:114]), rtol=2e-5)


def test_streams_are_apart_and_pickle():
    model = fitted([wave(60, seed=n) for n in range(2)], seasons=5, quantiles=(0.2,))
    first, second = model.stream(0), model.stream(1)
    assert not np.array_equal(first.forecast, second.forecast)
    before = second.forecast.copy()
    first.step(11.0)
    np.testing.assert_array_equal(second.forecast, before)
    twin = pickle.loads(pickle.dumps(first))
    for value in (9.0, None, 12.0, float("nan"), 10.0):
        np.testing.assert_array_equal(twin.step(value), first.step(value))
        np.testing.assert_array_equal(twin.forecast_quantiles, first.forecast_quantiles)


def test_a_long_stream_does_not_drift():
    rng = np.random.default_rng(0)
    y = 1e6 + np.cumsum(rng.standard_normal(3000))
    model = fitted(y[:100], updates=5)
    stream = model.stream()
    for value in y[100:]:
        forecast = stream.step(value)
    np.testing.assert_allclose(forecast - y[-1], model.apply(y).predict() - y[-1], rtol=1e-3, atol=1e-4)


def test_a_refused_observation_changes_nothing():
    model = fitted(wave(60), log=True)
    stream = model.stream()
    before = stream.forecast
    with refuses(TypeError, "value"):
        stream.step("ten")
    with refuses(TypeError, "value"):
        stream.step([1.0, 2.0])
    for value in (np.inf, 1e101, 0.0, -1.0):
        with refuses(ValueError, "value"):
            stream.step(value)
    with refuses(ValueError, "known, past"):
        stream.step(10.0, known=[1.0])
    assert stream.forecast is before
    np.testing.assert_array_equal(stream.step(10.0), model.stream().step(10.0))


def test_what_streams_and_backtests_say_of_themselves():
    model = fitted(wave(60), updates=2)
    stream = model.stream()
    stream.step(10.0)
    assert repr(stream) == "<ForecastStream after 61 observations, horizon 4>"
    assert repr(model.backtest(wave(60), start=50, refit=False)) == "<Backtest of 7 forecasts, horizon 4, 1 series>"


@pytest.mark.parametrize("name, start, zone", [
    ("h", "2024-10-24", "Europe/Berlin"), ("h", "2024-03-28", "Australia/Lord_Howe"),
    ("D", "2024-03-01", "America/Lima"), ("B", "2024-01-05", None), ("B", "2024-02-10", "Europe/Berlin"),
    ("ME", "2010-01-31", None),
    ("BME", "2010-01-31", None), ("SMS", "2016-01-01", "UTC"), ("QE", "1980-03-31", None)])
def test_streams_and_backtests_over_calendars(name, start, zone):
    """The times of streams, of forecasts past the horizon and of backtests go on as the calendar does."""
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range(start, periods=140, freq=name, tz=zone)
    y = pandas.Series(wave(130), index[:130])
    model = fitted(y[:100], updates=3, time_features=("day", "week", "year"))
    stream = model.stream()
    for t in range(100, 130):
        forecast = stream.step(y.iloc[t])
        if t % 9 == 0:
            np.testing.assert_allclose(forecast, model.apply(y[:t + 1]).predict(), rtol=2e-5)
    assert model.apply(y).predict(10).index.equals(index[130:])
    test = model.backtest(y, start=-20, refit=False)
    clock, origin = test.clocks[0], int(test.origins[3])
    assert clock.local([origin])[0] == index[origin].tz_localize(None).to_datetime64()
    np.testing.assert_allclose(test.forecasts[3], model.apply(y[:origin]).predict(), rtol=2e-5)
