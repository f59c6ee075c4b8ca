"""RNNForecaster: against its equations, naive forecasts, and its own promises."""

import copy
import math

import numpy as np
import pytest
from forecasters import SMALL, fitted, wave

from fastrnn.forecasting import RNNForecaster, mase, smape
from fastrnn.forecasting.encoding import FLOOR, Encoding
from fastrnn.forecasting.series import Series

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
    (False, "std", 1, ()), (True, "mean", 5, (5,)), (False, "mean", 0, (3, 7)), (True, None, 7, ()),
    (True, "std", 2, (2,))])
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


def test_errors_where_nothing_can_be_measured_are_nan():
    """The values to compare with are all missing; NumPy does not warn."""
    values = np.concatenate([np.arange(60.0) % 7, np.full(6, np.nan)])
    model = RNNForecaster(horizon=2, window=8, updates=1, hidden_size=2, quantiles=(0.1, 0.9), random_state=0)
    test = model.backtest(values, start=-6)
    assert all(np.isnan(error) for errors in test.scores().values() for error in errors.values())
    assert all(np.isnan(share) for share in test.coverage().values())



def test_targets_undone_are_the_values_that_came():
    y = wave(60)
    series = Series(y, np.empty((60, 0)), np.empty((60, 0)))
    encoding = Encoding(3, 10, False, "std", 12, (12,), (), [series])
    encoded = encoding.encode(series)
    at = np.arange(12, 57)
    undone = encoding.decode(encoded, at, encoding.targets(encoded, series, 12)[at].astype(float))
    np.testing.assert_allclose(undone, [y[t + 1:t + 4] for t in at], rtol=1e-5)


def test_the_scale_of_a_window_that_does_not_vary_is_a_number():
    """Sums over a window are differences of long sums, whose rounding may take its variance below zero."""
    y = np.concatenate([1e3 * np.random.default_rng(0).standard_normal(200), np.full(100, 7.3)])
    moved, window = y - y[0], 10
    sums, squares = (np.cumsum(each)[window:] - np.cumsum(each)[:-window] for each in (moved, moved * moved))
    assert (squares / window - (sums / window) ** 2 < 0).any()
    series = Series(y, np.empty((300, 0)), np.empty((300, 0)))
    encoded = Encoding(1, window, False, "std", 1, (), (), [series]).encode(series)
    assert np.isfinite(encoded.scale).all() and (encoded.scale > 0).all() and np.isfinite(encoded.x).all()


def test_a_value_that_does_not_vary_has_no_targets_until_it_does():
    y = np.concatenate([np.zeros(20), [5.0, 0.0, 5.0, 0.0, 5.0]])
    series = Series(y, np.empty((25, 0)), np.empty((25, 0)))
    encoding = Encoding(1, 4, False, "std", 1, (), (), [series])
    targets = encoding.targets(encoding.encode(series), series, 0)
    assert np.isnan(targets[:20]).all() and np.isfinite(targets[20:24]).all() and np.abs(targets[20:24]).max() < 10


# ---- Forecasts ----------------------------------------------------------------------------------

def test_it_beats_naive_forecasts_by_far():
    y = wave(600, noise=0.2)
    scores = RNNForecaster(horizon=6, window=24, hidden_size=16, updates=300, random_state=0).backtest(
        y, start=480, stride=1).scores()
    assert scores["forecast"]["MAE"] < 0.25 * scores["naive"]["MAE"]
    assert scores["forecast"]["MAE"] < 0.25          # noise of 0.2 alone has a mean absolute error of 0.16


@pytest.mark.parametrize("cell, options", [("lstm", {}), ("rnn", {}), ("gru", {"num_layers": 2, "dropout": 0.1}),
                                           ("gru", {"loss": "mse"}), ("gru", {"loss": "huber", "weight_decay": 0.01})])
def test_every_cell_and_loss_learns(cell, options):
    model = RNNForecaster(**{**SMALL, "updates": 150}, cell=cell, **options)
    scores = model.backtest(wave(300), start=250).scores()
    assert scores["forecast"]["MAE"] < 0.25 * scores["naive"]["MAE"]


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
        alone = copy.copy(model)
        alone.models_ = [network]
        parts.append(alone.predict())
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
    scores = model.backtest(X, y, start=300).scores()
    assert scores["forecast"]["MAE"] < 0.4 and scores["naive"]["MAE"] > 1.2
    model.fit(X[:300], y[:300])
    future = np.array([[0.0], [1.0], [0.0]])
    forecast = model.predict(future)
    assert forecast[1] - forecast[0] > 2 and forecast[1] - forecast[2] > 2
    assert model.n_features_in_ == 1
    with pytest.warns(UserWarning, match="X: 1 row of known columns, fewer than horizon=3"):
        fewer = model.predict(future[:1])
    np.testing.assert_array_equal(fewer, model.predict(np.zeros((3, 1)))[:1])


def test_past_columns_lead():
    rng = np.random.default_rng(0)
    lead = rng.standard_normal((400, 1))
    y = np.concatenate([[0.0], 3 * lead[:-1, 0]]) + 0.1 * rng.standard_normal(400)
    model = RNNForecaster(horizon=1, window=16, hidden_size=8, updates=300, difference=0, scaling=None, random_state=0)
    scores = model.backtest(y, past=lead, start=300).scores()
    assert scores["forecast"]["MAE"] < 0.5 and scores["naive"]["MAE"] > 2


def test_times_tell_the_hour():
    """Working hours: equal values at the beginning and at the end of a night, which only the clock tells apart."""
    times = np.datetime64("2024-01-01T00:00") + np.arange(24 * 28) * np.timedelta64(1, "h")
    hour = np.arange(len(times)) % 24
    y = np.where((hour >= 8) & (hour < 18), 5.0, 1.0) + 0.05 * np.random.default_rng(0).standard_normal(len(times))
    model = fitted(y, times=times, time_features="day", horizon=6, hidden_size=16, scaling=None, updates=300,
                   learning_rate=0.01)
    night = np.datetime64("2024-02-01T18:00") + np.arange(14) * np.timedelta64(1, "h")
    early, late = (model.apply(np.ones(5), times=night[part]).predict() for part in (slice(0, 5), slice(9, 14)))
    assert np.abs(early - 1).max() < 1 and np.abs(late[1:] - 5).max() < 1        # late[0] is on the edge


def test_known_columns_need_no_room_in_the_layer():
    """Twenty of them, one for each step of the horizon, and two hidden units."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 1))
    y = 3 * X[:, 0] + 0.1 * rng.standard_normal(300)
    model = RNNForecaster(horizon=20, window=12, hidden_size=2, difference=0, scaling=None, learning_rate=0.02,
                          random_state=0)
    scores = model.backtest(X, y, start=200).scores()
    assert scores["forecast"]["MAE"] < 0.25 and scores["naive"]["MAE"] > 2


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
    test = model.backtest(y, start=500)
    assert test.quantiles == (0.1, 0.5, 0.9) and test.quantile_forecasts.shape == (399, 2, 3)
    assert np.all(np.diff(test.quantile_forecasts, axis=-1) >= 0)
    np.testing.assert_array_equal(test.forecasts, test.quantile_forecasts[..., 1])
    for q, share in test.coverage().items():
        assert abs(share - q) < 0.08, (q, share)
    model.fit(y)
    assert model.predict(quantiles=True).shape == (2, 3)
    np.testing.assert_array_equal(model.predict(), model.predict(quantiles=True)[:, 1])


def test_missing_values_count_in_no_coverage():
    y = np.random.default_rng(0).standard_normal(300)
    y[[210, 211, 250, 270]] = np.nan
    model = RNNForecaster(horizon=2, updates=20, hidden_size=4, quantiles=(0.1, 0.9), random_state=0)
    test = model.backtest(y, start=200)
    there = ~np.isnan(test.truth)
    assert (~there).sum() >= 4
    for n, (q, share) in enumerate(test.coverage().items()):
        below = test.truth[there] <= test.quantile_forecasts[..., n][there]
        assert share == pytest.approx(below.mean()), q


def test_patience_keeps_the_last_horizon_for_validation():
    y = wave(200)
    other = np.concatenate([y[:-4], y[-4:] + 50])
    a, b = (fitted(series, patience=3, updates=400, learning_rate=0.02).history_[0] for series in (y, other))
    assert a["loss"][0] == b["loss"][0] and a["validation_loss"][0] < b["validation_loss"][0]
    assert a.epochs - 1 - a.best_epoch <= 3


# ---- Backtests ----------------------------------------------------------------------------------

def test_a_backtest_is_predict_at_every_origin():
    y = [wave(80), wave(60, level=30, seed=1)]
    y[1][:5] = np.nan
    model = fitted([series[:40] for series in y], seasons=6)
    test = model.backtest(y, start=40, stride=3, refit=False)
    assert test.series.tolist() == [0] * 13 + [1] * 6 and test.origins[:3].tolist() == [40, 43, 46]
    for n, origin, forecast, truth in zip(test.series, test.origins, test.forecasts, test.truth, strict=True):
        np.testing.assert_allclose(forecast, model.apply(y[n][:origin]).predict(), rtol=1e-5)
        np.testing.assert_array_equal(truth, y[n][origin:origin + 4])
    np.testing.assert_array_equal(test.others["naive"][0], np.repeat(y[0][39], 4))
    np.testing.assert_array_equal(test.others["seasonal naive 6"][0], y[0][34:38])
    np.testing.assert_allclose(test.scales[0], np.abs(y[0][6:40] - y[0][:34]).mean())


def test_a_refitted_backtest_has_seen_nothing_of_what_it_forecasts():
    y = wave(100)
    changed = np.concatenate([y[:60], 100 - y[60:]])
    a, b = (RNNForecaster(**SMALL).backtest(series, start=-40, stride=36) for series in (y, changed))
    np.testing.assert_array_equal(a.forecasts[0], b.forecasts[0])
    np.testing.assert_array_equal(a.forecasts[0], fitted(y[:60]).predict())
    assert not np.array_equal(a.forecasts[1], b.forecasts[1])


def test_scores():
    truth, forecasts, past = np.array([10.0, np.nan, 20.0]), np.array([12.0, 5.0, 20.0]), np.array([1.0, 2.0, 4.0, 4.0])
    assert smape(truth, forecasts) == pytest.approx((200 * 2 / 22 + 0) / 2)
    assert smape(np.zeros(2), np.zeros(2)) == 0
    assert mase(truth, forecasts, past) == pytest.approx(1 / 1)
    assert mase(truth, forecasts, past, 2) == pytest.approx(1 / 2.5)
    scores = RNNForecaster(**SMALL).backtest(wave(80), start=50).scores()["naive"]
    y, ahead = wave(80), np.arange(1, 5)
    error = np.array([y[t + ahead] - y[t] for t in range(49, 76)])
    assert scores == pytest.approx({"MAE": np.abs(error).mean(), "RMSE": np.sqrt((error**2).mean()),
                                   "sMAPE": smape(*np.broadcast_arrays([y[t + ahead] for t in range(49, 76)],
                                                                       y[49:76, None])),
                                   "MASE": np.abs(error).mean() / np.abs(np.diff(y[:50])).mean()})


# ---- M4 -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def m4(script):
    return script("m4")


@pytest.mark.parametrize("group", ["Hourly", "Weekly"])
def test_naive_figures_are_the_published_ones(m4, data_dir, group):
    h, m, published, _ = m4.GROUPS[group]
    past, truth = (m4.load(data_dir / "m4", group, part) for part in ("train", "test"))
    assert len(past) == len(truth) == {"Hourly": 414, "Weekly": 359}[group]
    naive = [m4.naive_forecasts(y, h, m) for y in past]
    errors = {name: m4.scores(past, truth, [forecasts[name] for forecasts in naive], m)[0] for name in naive[0]}
    assert errors["Naive2"] == pytest.approx(published["Naive2"], abs=0.005)
    if group == "Hourly":
        assert errors["seasonal naive"] == pytest.approx(13.912, abs=0.005)
        assert errors["naive"] == pytest.approx(43.003, abs=0.005)


@pytest.mark.slow
def test_a_slice_of_the_hourly_series(m4, data_dir):
    """A twelfth of the series, a twentieth of the training, on the last horizon of the training part."""
    h, m, _, options = m4.GROUPS["Hourly"]
    series = m4.load(data_dir / "m4", "Hourly", "train")[::12]
    past, truth = [y[:-h] for y in series], [y[-h:] for y in series]
    model = RNNForecaster(**{**options, "horizon": h, "ensemble": 1, "updates": 100, "hidden_size": 24,
                             "random_state": 0}).fit(past)
    naive = [m4.naive_forecasts(y, h, m) for y in past]
    errors = {name: m4.scores(past, truth, [forecasts[name] for forecasts in naive], m)[0] for name in naive[0]}
    assert m4.scores(past, truth, model.predict(), m)[0] < 0.9 * min(errors.values())
