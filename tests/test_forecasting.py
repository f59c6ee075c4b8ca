"""RNNForecaster: against its equations, its own promises (streams, tables, missing values), naive forecasts, scikit-learn."""

import copy
import importlib.util
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from child import python
from helpers import refuses

from fastrnn._encoding import FLOOR, Encoding
from fastrnn._series import Clock, Series
from fastrnn.estimators import NotFittedError
from fastrnn.forecasting import RNNForecaster, mase, smape

SMALL = {"horizon": 4, "window": 12, "hidden_size": 8, "updates": 40, "random_state": 0}


def wave(T, period=12.0, noise=0.1, level=10.0, seed=0):
    """A season, a slow trend and noise; above 0."""
    t = np.arange(T)
    return level + 3 * np.sin(t / period * 2 * np.pi) + 0.01 * t + noise * np.random.default_rng(seed).standard_normal(T)


def fitted(y, **options):
    extra = {name: options.pop(name) for name in ("X", "past", "times") if name in options}
    X = extra.pop("X", None)
    model = RNNForecaster(**{**SMALL, **options})
    return model.fit(X, y, **extra) if X is not None else model.fit(y, **extra)


# ---- What the network reads and says ------------------------------------------------------------

def by_the_equations(y, known, past, t, log, scaling, difference, seasons, window, horizon):
    """Inputs, reference and scale at step t, number by number; y without missing values."""
    z = [math.log(v) if log else v for v in y]
    recent = z[max(0, t + 1 - window):t + 1]
    level, scale = sum(recent) / len(recent), 1.0
    if scaling == "std":
        spread = [np.std(z[max(0, u + 1 - window):u + 1]) for u in range(t + 1)]
        scale = max(spread[t], FLOOR * max(spread)) if max(spread) > 1e-9 * abs(level) else 1.0
    elif scaling == "mean":
        sizes = [np.mean(np.abs(z[max(0, u + 1 - window):u + 1])) for u in range(t + 1)]
        scale = 1.0 if log else max(sizes[t], FLOOR * max(sizes))
    else:
        level = 0.0

    def lag(m):
        return z[t] - z[t - m] if t >= m else 0.0

    def before(k, m):
        at = t + k - m * math.ceil(k / m)
        return z[at] if at >= 0 else None

    x = [(z[t] - level) / scale, lag(1) / scale, *(lag(m) / scale for m in seasons)]
    for m in seasons:
        for k in range(1, min(m, horizon) + 1):
            value = before(k, m)
            x.append(0.0 if value is None else (value - level) / scale)
    x += past[t].tolist()
    for k in range(horizon + 1):
        x += known[min(t + k, len(known) - 1)].tolist()
    reference = [level if not difference else before(k, difference) for k in range(1, horizon + 1)]
    return x, [z[t] if r is None else r for r in reference], scale


@pytest.mark.parametrize("log, scaling, difference, seasons", [
    (False, "std", 1, ()), (True, "mean", 5, (5,)), (False, "mean", 0, (3, 7)), (True, None, 7, ()), (True, "std", 2, (2,))])
def test_inputs_targets_and_forecasts_by_the_equations(log, scaling, difference, seasons):
    rng, T, H, window = np.random.default_rng(1), 30, 4, 6
    series = Series(rng.uniform(1, 5, T), rng.standard_normal((T, 2)), rng.standard_normal((T, 1)))
    encoding = Encoding(H, window, log, scaling, difference, seasons, (), [series])
    encoded = encoding.encode(series)
    targets = encoding.targets(encoded, series, 3)
    known, past = ((values - values.mean(0)) / values.std(0) for values in (series.known, series.past))
    for t in range(T):
        x, reference, scale = by_the_equations(series.y, known, past, t, log, scaling, difference, seasons, window, H)
        np.testing.assert_allclose(encoded.x[t], x, rtol=1e-5, atol=1e-5)
        outputs = rng.standard_normal(H)
        forecast = np.array(reference) + scale * outputs
        np.testing.assert_allclose(encoding.decode(encoded, np.array([t]), outputs[None])[0],
                                   np.exp(forecast) if log else forecast, rtol=1e-9)
        if t >= max(3, difference):
            ahead = np.array([series.y[t + k] if t + k < T else np.nan for k in range(1, H + 1)])
            expected = ((np.log(ahead) if log else ahead) - reference) / scale
            np.testing.assert_allclose(targets[t], expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(targets[:3]).all()


def test_targets_undone_are_the_values_that_came():
    y = wave(60)
    series = Series(y, np.empty((60, 0)), np.empty((60, 0)))
    encoding = Encoding(3, 10, False, "std", 12, (12,), (), [series])
    encoded = encoding.encode(series)
    at = np.arange(12, 57)
    undone = encoding.decode(encoded, at, encoding.targets(encoded, series, 12)[at].astype(float))
    np.testing.assert_allclose(undone, [y[t + 1:t + 4] for t in at], rtol=1e-5)


def test_a_value_that_does_not_vary_has_no_targets_until_it_does():
    y = np.concatenate([np.zeros(20), [5.0, 0.0, 5.0, 0.0, 5.0]])
    series = Series(y, np.empty((25, 0)), np.empty((25, 0)))
    encoding = Encoding(1, 4, False, "std", 1, (), (), [series])
    targets = encoding.targets(encoding.encode(series), series, 0)
    assert np.isnan(targets[:20]).all() and np.isfinite(targets[20:24]).all() and np.abs(targets[20:24]).max() < 10


# ---- Forecasts ----------------------------------------------------------------------------------

def test_it_beats_naive_forecasts_by_far():
    y = wave(600, noise=0.2)
    found = RNNForecaster(horizon=6, window=24, hidden_size=16, updates=300, random_state=0).backtest(
        y, start=480, stride=1).scores()
    assert found["forecast"]["MAE"] < 0.25 * found["naive"]["MAE"]
    assert found["forecast"]["MAE"] < 0.25          # noise of 0.2 alone has a mean absolute error of 0.16


@pytest.mark.parametrize("cell, options", [("lstm", {}), ("rnn", {}), ("gru", {"num_layers": 2, "dropout": 0.1}),
                                           ("gru", {"loss": "mse"}), ("gru", {"loss": "huber", "weight_decay": 0.01})])
def test_every_cell_and_loss_learns(cell, options):
    y = wave(300)
    model = fitted(y[:-4], cell=cell, updates=150, **options)
    assert np.abs(model.predict() - y[-4:]).mean() < 0.5 * np.abs(y[-5] - y[-4:]).mean()


def test_the_kinds_of_table_agree():
    series = [wave(90, period=8 + n, level=10 * (n + 1), seed=n) for n in range(3)]
    listed, stacked = fitted(series), fitted(np.stack(series, 1))
    assert listed.predict().shape == (3, 4) and stacked.predict().shape == (4, 3)
    np.testing.assert_array_equal(listed.predict(), stacked.predict().T)
    alone = listed.apply(series[1])
    np.testing.assert_allclose(alone.predict(), listed.predict()[1], rtol=1e-6)
    np.testing.assert_array_equal(fitted(series[0][:, None]).predict()[:, 0], fitted(series[0]).predict())


def test_series_of_any_length_and_scale_are_one_model():
    rng = np.random.default_rng(0)
    series = [10.0 ** rng.uniform(-3, 6) * wave(T, seed=n) for n, T in enumerate((300, 40, 120, 5, 75))]
    truth = [y[-4:] for y in series if len(y) > 40]
    model = fitted([y[:-4] if len(y) > 40 else y for y in series], window=24, updates=200, log=True, scaling="mean")
    forecast = model.predict()[[0, 2, 4]]
    naive = smape(np.array(truth), np.array([np.repeat(y[-5], 4) for y in series if len(y) > 40]))
    assert np.isfinite(model.predict()).all() and smape(np.array(truth), forecast) < naive / 2


def test_scale_and_shift_of_a_series_pass_through():
    y = wave(150)
    np.testing.assert_allclose(fitted(1000 * y - 7).predict(), 1000 * fitted(y).predict() - 7, rtol=1e-3)
    np.testing.assert_allclose(fitted(1000 * y, log=True, scaling="mean").predict(),
                               1000 * fitted(y, log=True, scaling="mean").predict(), rtol=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    y = wave(120)
    a, b, c = fitted(y), fitted(y), fitted(y, random_state=1)
    np.testing.assert_array_equal(a.predict(), b.predict())
    assert not np.array_equal(a.predict(), c.predict())
    np.testing.assert_array_equal(a.fit(y).predict(), b.predict())


def test_an_ensemble_is_the_mean_of_its_networks():
    model = fitted(wave(120), ensemble=3, difference=0)
    parts = []
    for network in model.models_:
        one = copy.copy(model)
        one.models_ = [network]
        parts.append(one.predict())
    assert np.ptp(parts, axis=0).max() > 1e-4
    np.testing.assert_allclose(model.predict(), np.mean(parts, 0), rtol=1e-6)


def test_beyond_the_horizon_forecasts_are_taken_for_observations():
    y = wave(120)
    model = fitted(y)
    first = model.predict()
    second = model.apply(np.concatenate([y, first])).predict()
    np.testing.assert_array_equal(model.predict(7), np.concatenate([first, second])[:7])
    np.testing.assert_array_equal(model.predict(2), first[:2])


def test_known_columns_tell_what_is_to_come():
    rng = np.random.default_rng(0)
    X = (rng.random((400, 1)) < 0.3).astype(float)
    y = 5 + 4 * X[:, 0] + 0.1 * rng.standard_normal(400)
    model = RNNForecaster(horizon=3, window=16, hidden_size=16, updates=300, difference=0, random_state=0)
    found = model.backtest(X, y, start=300).scores()
    assert found["forecast"]["MAE"] < 0.4 and found["naive"]["MAE"] > 1.2
    model.fit(X[:300], y[:300])
    future = np.array([[0.0], [1.0], [0.0]])
    forecast = model.predict(future)
    assert forecast[1] - forecast[0] > 2 and forecast[1] - forecast[2] > 2
    assert model.n_features_in_ == 1
    np.testing.assert_array_equal(model.predict(future[:1]), model.predict(np.zeros((3, 1)))[:1])


def test_past_columns_lead():
    rng = np.random.default_rng(0)
    lead = rng.standard_normal((400, 1))
    y = np.concatenate([[0.0], 3 * lead[:-1, 0]]) + 0.1 * rng.standard_normal(400)
    found = RNNForecaster(horizon=1, window=16, hidden_size=8, updates=300, difference=0, random_state=0).backtest(
        y, past=lead, start=300).scores()
    assert found["forecast"]["MAE"] < 0.5 and found["naive"]["MAE"] > 2


def test_times_tell_the_hour():
    """Working hours, whose on and off the last values alone do not tell."""
    times = np.datetime64("2024-01-01T00:00") + np.arange(24 * 28) * np.timedelta64(1, "h")
    hour = np.arange(len(times)) % 24
    y = np.where((hour >= 8) & (hour < 18), 5.0, 1.0) + 0.05 * np.random.default_rng(0).standard_normal(len(times))
    options = {"horizon": 6, "window": 48, "hidden_size": 16, "updates": 200, "difference": 0, "random_state": 0}
    plain = RNNForecaster(**options).backtest(y, start=24 * 21).scores()["forecast"]["MAE"]
    told = RNNForecaster(**options, time_features="day").backtest(y, times=times, start=24 * 21).scores()
    assert told["forecast"]["MAE"] < 0.75 * plain


def test_missing_values():
    rng = np.random.default_rng(0)
    y = wave(400)
    holed = np.where(rng.random(400) < 0.15, np.nan, y)
    holed[:7] = np.nan          # it starts later
    holed[-2:] = np.nan         # and its last values are not in yet
    model = fitted(holed[:-4], updates=200, window=24, seasons=12)
    forecast = model.predict()
    assert np.isfinite(forecast).all() and np.abs(forecast - y[-4:]).mean() < 0.5
    assert model.encoding_.missing and not fitted(y[:100]).encoding_.missing
    np.testing.assert_array_equal(model.apply(holed[7:-4]).predict(), forecast)
    # a model trained on whole series takes holes too
    assert np.isfinite(fitted(y[:100]).apply(holed).predict()).all()


def test_quantiles_rise_and_cover():
    y = np.random.default_rng(0).standard_normal(900)
    model = RNNForecaster(horizon=2, window=32, hidden_size=8, updates=400, quantiles=(0.9, 0.1), difference=0,
                          random_state=0)
    found = model.backtest(y, start=500)
    assert found.quantiles == (0.1, 0.5, 0.9) and found.quantile_forecasts.shape == (399, 2, 3)
    assert np.all(np.diff(found.quantile_forecasts, axis=-1) >= 0)
    np.testing.assert_array_equal(found.forecasts, found.quantile_forecasts[..., 1])
    for q, share in found.coverage().items():
        assert abs(share - q) < 0.08, (q, share)
    model.fit(y)
    assert model.predict(quantiles=True).shape == (2, 3)
    np.testing.assert_array_equal(model.predict(), model.predict(quantiles=True)[:, 1])


def test_patience_keeps_the_last_horizon_for_validation():
    y = wave(200)
    other = np.concatenate([y[:-4], y[-4:] + 50])
    a, b = (fitted(one, patience=3, updates=400, lr=0.02).history_[0] for one in (y, other))
    assert a["loss"][0] == b["loss"][0] and a["validation_loss"][0] < b["validation_loss"][0]
    assert a.epochs - 1 - a.best_epoch <= 3


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
    model = fitted(y[:30], updates=10, **STREAMS[name], times=None if times is None else times[:30])
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
    model = fitted(y[:60], X=X[:60], past=past[:60])
    stream = model.stream(X=X[60:64])
    np.testing.assert_allclose(stream.forecast, model.predict(X[60:64]), rtol=2e-5)
    for t in range(60, 110):
        forecast = stream.step(y[t], known=X[t + 4], past=past[t])
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
    for value in (np.inf, 0.0, -1.0):
        with refuses(ValueError, "value"):
            stream.step(value)
    with refuses(ValueError, "known, past"):
        stream.step(10.0, known=[1.0])
    assert stream.forecast is before
    np.testing.assert_array_equal(stream.step(10.0), model.stream().step(10.0))


# ---- Backtests ----------------------------------------------------------------------------------

def test_a_backtest_is_predict_at_every_origin():
    y = [wave(80), wave(60, level=30, seed=1)]
    y[1][:5] = np.nan
    model = fitted([one[:40] for one in y], seasons=6)
    found = model.backtest(y, start=40, stride=3, refit=False)
    assert found.series.tolist() == [0] * 13 + [1] * 6 and found.origins[:3].tolist() == [40, 43, 46]
    for n, origin, forecast, truth in zip(found.series, found.origins, found.forecasts, found.truth, strict=True):
        np.testing.assert_allclose(forecast, model.apply(y[n][:origin]).predict(), rtol=1e-5)
        np.testing.assert_array_equal(truth, y[n][origin:origin + 4])
    np.testing.assert_array_equal(found.others["naive"][0], np.repeat(y[0][39], 4))
    np.testing.assert_array_equal(found.others["seasonal naive 6"][0], y[0][34:38])
    np.testing.assert_allclose(found.scales[0], np.abs(y[0][6:40] - y[0][:34]).mean())


def test_a_refitted_backtest_has_seen_nothing_of_what_it_forecasts():
    y = wave(100)
    changed = np.concatenate([y[:60], 100 - y[60:]])
    a, b = (RNNForecaster(**SMALL).backtest(one, start=-40, stride=36) for one in (y, changed))
    np.testing.assert_array_equal(a.forecasts[0], b.forecasts[0])
    np.testing.assert_array_equal(a.forecasts[0], fitted(y[:60]).predict())
    assert not np.array_equal(a.forecasts[1], b.forecasts[1])


def test_scores():
    truth, forecasts, past = np.array([10.0, np.nan, 20.0]), np.array([12.0, 5.0, 20.0]), np.array([1.0, 2.0, 4.0, 4.0])
    assert smape(truth, forecasts) == pytest.approx((200 * 2 / 22 + 0) / 2)
    assert smape(np.zeros(2), np.zeros(2)) == 0
    assert mase(truth, forecasts, past) == pytest.approx(1 / 1) and mase(truth, forecasts, past, 2) == pytest.approx(1 / 2.5)
    found = RNNForecaster(**SMALL).backtest(wave(80), start=50).scores()["naive"]
    y, ahead = wave(80), np.arange(1, 5)
    error = np.array([y[t + ahead] - y[t] for t in range(49, 76)])
    assert found == pytest.approx({"MAE": np.abs(error).mean(), "RMSE": np.sqrt((error**2).mean()),
                                   "sMAPE": smape(*np.broadcast_arrays([y[t + ahead] for t in range(49, 76)],
                                                                       y[49:76, None])),
                                   "MASE": np.abs(error).mean() / np.abs(np.diff(y[:50])).mean()})


# ---- Frames and times ---------------------------------------------------------------------------

def long_table():
    """Two series of 60 and 50 days in turn, with a known and a past column."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(60)
    rows = [("b", d, *rng.uniform(1, 2, 3)) for d in days] + [("a", d, *rng.uniform(1, 2, 3)) for d in days[:50]]
    order = rng.permutation(110)
    shop, day, sales, price, visits = (np.array(column)[order] for column in zip(*rows, strict=True))
    return {"shop": shop, "day": day.astype("datetime64[us]"), "sales": sales.astype(float),
            "price": price.astype(float), "visits": visits.astype(float)}


def as_frame(library, data):
    if library == "pyarrow":
        return pytest.importorskip("pyarrow").table(data)
    return pytest.importorskip(library).DataFrame(data)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_long_frame(library):
    data = long_table()
    columns = {"target": "sales", "time": "day", "series": "shop", "known": ["price"], "past": ["visits"]}
    options = {"seasons": 7, "time_features": ["week"], "quantiles": [0.1, 0.9]}
    model = RNNForecaster(**SMALL, **columns, **options).fit(as_frame(library, data))
    names = list(dict.fromkeys(data["shop"]))

    def of(name, column):
        rows = data["shop"] == name
        return data[column][rows][np.argsort(data["day"][rows])]

    same = RNNForecaster(**SMALL, **options).fit(
        [of(n, "price")[:, None] for n in names], [of(n, "sales") for n in names],
        past=[of(n, "visits")[:, None] for n in names], times=[of(n, "day") for n in names])
    ahead = {n: of(n, "day")[-1] + np.arange(1, 5) * np.timedelta64(1, "D") for n in names}
    future = {"shop": np.repeat(names, 4), "day": np.concatenate(list(ahead.values())), "price": np.linspace(1, 2, 8)}
    frame = model.predict(as_frame(library, future))
    assert type(frame) is type(as_frame(library, future))
    expected = same.predict([future["price"][:4, None], future["price"][4:, None]])
    np.testing.assert_array_equal(np.asarray(frame["sales"]), expected.ravel())
    np.testing.assert_array_equal(np.asarray(frame["day"]).astype("datetime64[us]"), future["day"])
    assert np.asarray(frame["shop"]).tolist() == future["shop"].tolist()
    wide = model.predict(as_frame(library, future), quantiles=True)
    np.testing.assert_array_equal(np.asarray(wide["sales_q0.9"]),
                                  same.predict([future["price"][:4, None], future["price"][4:, None]],
                                               quantiles=True)[..., 2].ravel())
    stream = model.stream(names[1], X=future["price"][4:, None])
    np.testing.assert_allclose(stream.forecast, expected[1], rtol=2e-5)
    pickle.loads(pickle.dumps(model)).predict(as_frame(library, future))

    with refuses(ValueError, "day"):
        model.predict(as_frame(library, future | {"day": future["day"] + np.timedelta64(1, "D")}))
    with refuses(ValueError, "X"):
        model.predict(as_frame(library, {name: values[:4] for name, values in future.items()}))


def test_a_wide_frame_has_a_series_in_each_target():
    polars = pytest.importorskip("polars")
    data = {"day": np.datetime64("2024-01-01") + np.arange(60), "a": wave(60), "b": wave(60, seed=1)}
    model = RNNForecaster(**SMALL, target=("a", "b"), time="day").fit(polars.DataFrame(data))
    found = model.predict()
    assert found.columns == ["day", "a", "b"] and found.height == 4
    expected = fitted(np.stack([data["a"], data["b"]], 1)).predict()
    np.testing.assert_array_equal(found.select("a", "b").to_numpy(), expected)


def test_text_and_zoned_times_in_a_frame():
    pandas = pytest.importorskip("pandas")
    y, when = wave(60), pandas.date_range("2024-03-01", periods=60, freq="h", tz="Europe/Berlin")
    text = pandas.DataFrame({"when": when.strftime("%Y-%m-%d %H:%M:%S"), "y": y})
    zoned = pandas.DataFrame({"when": when, "y": y})
    a, b = (RNNForecaster(**SMALL, target="y", time="when", time_features="day").fit(one).predict()
            for one in (text, zoned))
    pandas.testing.assert_frame_equal(a, b)
    assert str(a["when"].iloc[0]) == "2024-03-03 12:00:00"


def test_frames_that_do_not_fit():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"y": wave(60), "x": wave(60)})
    for error, name, columns, X in [
            (ValueError, "X", {"target": "z"}, frame), (TypeError, "X", {"target": "y"}, wave(60)),
            (ValueError, "target", {"time": "x"}, frame), (TypeError, "known", {"target": "y", "known": [3]}, frame),
            (TypeError, "time", {"target": "y", "time": 3}, frame)]:
        with refuses(error, name):
            RNNForecaster(**SMALL, **columns).fit(X)
    with refuses(ValueError, "y, past, times"):
        RNNForecaster(**SMALL, target="y").fit(frame, wave(60))


def test_without_narwhals_frames_name_the_extra_and_arrays_work():
    assert "fastrnn[frames]" in python("""
        import sys
        sys.modules["narwhals"] = sys.modules["narwhals.stable.v2"] = None
        import numpy as np
        from fastrnn.forecasting import RNNForecaster
        RNNForecaster(updates=2).fit(np.sin(np.arange(50))).predict()
        try:
            RNNForecaster(target="y").fit({"y": np.ones(5)})
        except ImportError as error:
            print(error)
    """, prelude="")


@pytest.mark.parametrize("start, step, T, expected", [
    ("2024-01-31", "M", 3, ["2024-01-31", "2024-02-29", "2024-03-31"]),
    ("2023-11-15T06:00", "M", 3, ["2023-11-15T06:00", "2023-12-15T06:00", "2024-01-15T06:00"]),
    ("2024-02-28", "D", 3, ["2024-02-28", "2024-02-29", "2024-03-01"])])
def test_clocks(start, step, T, expected):
    clock, at = Clock.of(expected)
    assert at.tolist() == list(range(T)) and clock.months == (step == "M")
    back = np.array(expected, "datetime64[us]")
    np.testing.assert_array_equal(clock.at(np.arange(T)), back)
    np.testing.assert_array_equal(clock.moved(1).at(np.arange(T - 1)), back[1:])
    assert clock.second(2) == clock.seconds(2) == back[2].astype(np.int64) / 1e6


def test_a_time_left_out_is_a_missing_value():
    times = np.datetime64("2024-01-01T00:00") + np.arange(100) * np.timedelta64(15, "m")
    y = wave(100)
    holed = y.copy()
    holed[[20, 21, 50]] = np.nan
    kept = ~np.isnan(holed)
    np.testing.assert_array_equal(fitted(holed[kept], times=times[kept]).predict(), fitted(holed, times=times).predict())


# ---- Bad input ----------------------------------------------------------------------------------

@pytest.mark.parametrize("error, name, options", [
    (ValueError, "horizon", {"horizon": 0}), (TypeError, "window", {"window": 2.5}), (ValueError, "cell", {"cell": "mlp"}),
    (TypeError, "cell", {"cell": None}), (ValueError, "loss", {"loss": "mape"}), (TypeError, "log", {"log": None}),
    (ValueError, "log", {"log": "2"}), (ValueError, "scaling", {"scaling": "max"}), (ValueError, "seasons", {"seasons": 1}),
    (TypeError, "seasons", {"seasons": (24, "week")}), (ValueError, "difference", {"difference": -1}),
    (ValueError, "time_features", {"time_features": "hour"}), (ValueError, "times", {"time_features": "day"}),
    (ValueError, "quantiles", {"quantiles": (0.1, 1.0)}), (ValueError, "dropout", {"dropout": 0.5}),
    (ValueError, "lr", {"lr": 0}), (ValueError, "patience", {"patience": 0}), (ValueError, "ensemble", {"ensemble": 0}),
    (TypeError, "random_state", {"random_state": "seed"}), (TypeError, "progress", {"progress": 1}),
    (ValueError, "sequence", {"sequence": 1})])
def test_unsuitable_parameters(error, name, options):
    with refuses(error, name):
        RNNForecaster(**{**SMALL, **options}).fit(wave(50))


@pytest.mark.parametrize("error, name, call", [
    (TypeError, "y", lambda m: m.fit(None)), (ValueError, "y", lambda m: m.fit(np.ones((2, 3, 4)))),
    (ValueError, "y", lambda m: m.fit([])), (ValueError, "y", lambda m: m.fit(np.full(50, np.nan))),
    (ValueError, "y", lambda m: m.fit([1.0])), (ValueError, "y", lambda m: m.fit(np.ones(50))),
    (ValueError, "y", lambda m: m.fit(np.full(50, np.inf))), (ValueError, "y", lambda m: m.fit(1j * wave(50))),
    (TypeError, "y", lambda m: m.fit(np.array(["a"] * 50))), (ValueError, r"y\[1\]", lambda m: m.fit([wave(50), wave(1)])),
    (ValueError, "X", lambda m: m.fit(np.ones((49, 2)), wave(50))), (ValueError, "X", lambda m: m.fit(np.ones(50), wave(50))),
    (ValueError, "past", lambda m: m.fit(wave(50), past=np.ones((51, 1)))),
    (ValueError, "X", lambda m: m.fit(np.ones((50, 1)), [wave(50)])),
    (ValueError, "times", lambda m: m.fit(wave(50), times=np.arange(49).astype("datetime64[D]"))),
    (TypeError, "times", lambda m: m.fit(wave(50), times=["soon"] * 50)),
    (ValueError, "times", lambda m: m.fit(wave(3), times=np.array([0, 0, 1]).astype("datetime64[D]"))),
    (ValueError, "times", lambda m: m.fit(wave(3), times=np.array([0, 2, 5]).astype("datetime64[D]"))),
    (ValueError, "times", lambda m: m.fit(wave(3), times=np.array(["2024-01-01", "NaT", "2024-01-03"], "datetime64[D]"))),
    (ValueError, "start", lambda m: m.backtest(wave(50), start=50)),
    (TypeError, "start", lambda m: m.backtest(wave(50), start=0.5)),
    (ValueError, "stride", lambda m: m.backtest(wave(50), start=40, stride=0))])
def test_unsuitable_data(error, name, call):
    with refuses(error, name):
        call(RNNForecaster(**SMALL))


def test_unsuitable_requests():
    y = wave(60)
    model, known = fitted(y), fitted(y, X=np.arange(120.0).reshape(60, 2))
    for error, name, call in [
            (ValueError, "X", lambda: model.predict(0)), (ValueError, "quantiles", lambda: model.predict(quantiles=True)),
            (ValueError, "X", lambda: known.predict()), (ValueError, "X", lambda: known.predict(3)),
            (ValueError, "X has 1 features", lambda: known.predict(np.ones((4, 1)))),
            (ValueError, "X", lambda: fitted(y, past=y[:, None]).predict(5)),
            (ValueError, "X", lambda: fitted(y, quantiles=(0.1,)).predict(5, quantiles=True)),
            (ValueError, "past", lambda: fitted(y, past=y[:, None]).apply(y)), (ValueError, "series", lambda: model.stream(1)),
            (ValueError, "series", lambda: model.stream("a")), (TypeError, "X", lambda: known.stream()),
            (ValueError, "X", lambda: known.stream(X=np.ones((3, 2)))),
            (ValueError, "known", lambda: known.stream(X=np.ones((4, 2))).step(1.0)),
            (ValueError, "log", lambda: RNNForecaster(**SMALL).set_params(log=True, target="y").set_params(logs=1))]:
        if name == "log":
            with pytest.raises(ValueError, match="^logs: not a parameter"):
                call()
        else:
            with refuses(error, name):
                call()
    with pytest.raises(ValueError, match=r"^y: log=True needs values above 0, got -"):
        RNNForecaster(**SMALL, log=True).fit(y - 12)


def test_a_failed_fit_leaves_the_estimator_as_it_was():
    model = fitted(wave(60))
    before = model.predict()
    with refuses(ValueError, "y"):
        model.fit(np.ones(50))
    np.testing.assert_array_equal(model.predict(), before)


# ---- scikit-learn's manners ---------------------------------------------------------------------

def test_nothing_else_is_imported():
    assert python("""
        import sys, numpy
        before = set(sys.modules)
        from fastrnn.forecasting import RNNForecaster
        model = RNNForecaster(updates=2).fit(numpy.sin(numpy.arange(50)))
        model.predict(), model.stream().step(0.0), model.get_params(), repr(model)
        loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
        print(*sorted(name for name in loaded if "cython" not in name))
    """, prelude="").split() == ["fastrnn"]


def test_without_sklearn_the_error_is_our_own():
    assert python("""
        from fastrnn.estimators import NotFittedError
        from fastrnn.forecasting import RNNForecaster
        try:
            RNNForecaster().predict()
        except NotFittedError as error:
            print(error)
    """, prelude="").startswith("this RNNForecaster is not fitted yet")
    assert issubclass(NotFittedError, ValueError) and issubclass(NotFittedError, AttributeError)


def test_pickled_and_cloned():
    base = pytest.importorskip("sklearn.base")
    model = fitted(wave(80), seasons=(5,), quantiles=(0.1,))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(), model.predict())
    twin = base.clone(model)
    assert twin.get_params() == model.get_params() and not hasattr(twin, "models_")
    assert repr(twin) == "RNNForecaster(horizon=4, window=12, hidden_size=8, seasons=(5,), quantiles=(0.1,), " \
                         "updates=40, random_state=0)"


# check -> why it does not apply. Rows of X are the steps that follow the series, in order.
EXCEPTIONS = {
    "check_methods_sample_order_invariance": "a row's forecast depends on its place: the rows are consecutive steps",
    "check_methods_subset_invariance": "predict(X[10:]) takes X[10] for the first step after the series",
}


def test_check_estimator():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    found = checks.check_estimator(RNNForecaster(window=8, hidden_size=4, updates=4), expected_failed_checks=EXCEPTIONS,
                                   on_skip=None)
    status = {}
    for one in found:
        status.setdefault(one["status"], set()).add(one["check_name"])
    assert status["xfail"] == set(EXCEPTIONS) and len(status["passed"]) > 40
    assert status.keys() <= {"passed", "xfail", "skipped"}
    assert status.get("skipped", set()) <= {"check_array_api_input"}       # it asks for an environment variable


def test_search_over_folds_in_time():
    selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 1))
    y = 3 * X[:, 0] + 0.1 * rng.standard_normal(200)
    search = selection.GridSearchCV(RNNForecaster(horizon=20, window=12, hidden_size=8, difference=0, lr=0.01,
                                                  random_state=0), {"updates": [1, 200]},
                                    cv=selection.TimeSeriesSplit(2, test_size=20)).fit(X, y)
    assert search.best_params_ == {"updates": 200} and search.best_score_ > 0.5


# ---- M4 -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def m4():
    spec = importlib.util.spec_from_file_location("m4", Path(__file__).parents[1] / "benchmarks" / "m4.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("group", ["Hourly", "Weekly"])
def test_naive_figures_are_the_published_ones(m4, data_dir, group):
    h, m, published, _ = m4.GROUPS[group]
    past, truth = (m4.load(data_dir / "m4", group, part) for part in ("train", "test"))
    assert len(past) == len(truth) == {"Hourly": 414, "Weekly": 359}[group]
    naive = [m4.naive_forecasts(y, h, m) for y in past]
    found = {name: m4.scores(past, truth, [one[name] for one in naive], m)[0] for name in naive[0]}
    assert found["Naive2"] == pytest.approx(published["Naive2"], abs=0.005)
    if group == "Hourly":
        assert found["seasonal naive"] == pytest.approx(13.912, abs=0.005)
        assert found["naive"] == pytest.approx(43.003, abs=0.005)


def test_a_slice_of_the_hourly_series(m4, data_dir):
    """A twelfth of the series and of the training, on the last horizon of the training part: well below naive figures."""
    h, m, _, options = m4.GROUPS["Hourly"]
    series = m4.load(data_dir / "m4", "Hourly", "train")[::12]
    past, truth = [y[:-h] for y in series], [y[-h:] for y in series]
    model = RNNForecaster(**{**options, "horizon": h, "ensemble": 1, "updates": 100, "hidden_size": 24,
                             "random_state": 0}).fit(past)
    naive = [m4.naive_forecasts(y, h, m) for y in past]
    found = {name: m4.scores(past, truth, [one[name] for one in naive], m)[0] for name in naive[0]}
    assert m4.scores(past, truth, model.predict(), m)[0] < 0.9 * min(found.values())
