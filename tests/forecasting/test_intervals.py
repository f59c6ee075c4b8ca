"""Intervals: conformal calibration, samples, and bounds that follow a stream."""

import numpy as np
import pytest
from helpers import refuses

from fastrnn.forecasting import Interval, RNNForecaster
from fastrnn.forecasting.base_stream import AdaptiveInterval
from fastrnn.forecasting.intervals import Calibration

FAST = {"horizon": 6, "updates": 30, "hidden_size": 4, "random_state": 0}
QUANTILES = (0.025, 0.1, 0.25, 0.75, 0.9, 0.975)


def wave(T, seed=0):
    return 50 + 10 * np.sin(np.arange(T) * 2 * np.pi / 12) + np.random.default_rng(seed).standard_normal(T)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random walk", "noise", "sine"])
def test_intervals_cover_what_they_say(kind):
    shares = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y = {"random walk": rng.standard_normal(500).cumsum(), "noise": rng.standard_normal(500),
             "sine": wave(500, seed)}[kind]
        test = RNNForecaster(horizon=6, updates=30, hidden_size=4, quantiles=QUANTILES, random_state=0).backtest(
            y, start=300, stride=2)
        q, truth = test.quantile_forecasts, test.truth
        assert (np.diff(q, axis=-1) >= 0).all() and q.shape[-1] == 7
        shares.append([((truth >= q[..., n]) & (truth <= q[..., -1 - n])).mean() for n in (2, 1, 0)])
    np.testing.assert_allclose(np.mean(shares, 0), [0.5, 0.8, 0.95], atol=0.08)


def test_an_interval_is_lower_point_upper_past_the_horizon_too():
    y = np.random.default_rng(0).standard_normal(500).cumsum()
    model = RNNForecaster(**FAST).fit(y)
    interval = model.predict(20, interval=0.9)
    assert isinstance(interval, Interval) and interval.lower.shape == (20,)
    np.testing.assert_array_equal(interval.point, model.predict(20))
    width = interval.upper - interval.lower
    assert (width > 0).all() and width[19] > 1.3 * width[5] > 1.3**2 * width[0]       # a walk wanders
    inner = model.predict(20, interval=0.5)
    assert (inner.lower > interval.lower).all() and (inner.upper < interval.upper).all()
    columns = RNNForecaster(**FAST).fit(np.stack([y, -y], 1)).predict(interval=0.9)
    assert columns.upper.shape == (6, 2)
    pure = RNNForecaster(**FAST, blend=False).fit(y).predict(interval=0.9)
    assert (pure.lower < pure.point).all() and (pure.point < pure.upper).all()


def test_intervals_of_a_frame_are_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"when": np.datetime64("2024-01-01") + np.arange(80), "y": wave(80)})
    model = RNNForecaster(**FAST, target="y", time="when").fit(frame)
    table = model.predict(interval=0.8)
    assert list(table) == ["when", "y_lower", "y", "y_upper"] and (table["y_lower"] < table["y"]).all()
    assert list(model.predict(samples=2)) == ["when", "y_sample1", "y_sample2"]


def test_quantiles_past_the_horizon_and_around_the_point():
    model = RNNForecaster(**FAST, quantiles=(0.1, 0.9)).fit(wave(150))
    values = model.predict(15, quantiles=True)
    assert values.shape == (15, 3) and (np.diff(values, axis=1) > 0).all()
    np.testing.assert_array_equal(values[:, 1], model.predict(15))
    np.testing.assert_allclose(values[:, 2], model.predict(15, interval=0.8).upper)


def test_samples_spread_as_the_interval_and_hang_together():
    y = np.random.default_rng(0).standard_normal(400).cumsum()
    model = RNNForecaster(**FAST, blend="naive").fit(y)
    paths = model.predict(12, samples=3000)
    assert paths.shape == (3000, 12)
    interval = model.predict(12, interval=0.8)
    width = np.quantile(paths, 0.9, axis=0) - np.quantile(paths, 0.1, axis=0)
    np.testing.assert_allclose(width, interval.upper - interval.lower, rtol=0.35)
    errors = paths - y[-1]
    assert np.corrcoef(errors[:, 4], errors[:, 5])[0, 1] > 0.7 and np.corrcoef(errors[:, 5], errors[:, 7])[0, 1] > 0.5
    np.testing.assert_array_equal(paths, model.predict(12, samples=3000))
    two = RNNForecaster(**FAST, blend="naive").fit([y, y[:100]]).predict(samples=4)
    assert two.shape == (4, 2, 6)


def test_unsuitable_requests():
    model = RNNForecaster(**FAST).fit(wave(80))
    for name, wrong in (("interval", {"interval": 1.5}), ("samples", {"samples": 0}),
                        ("quantiles, interval, samples", {"interval": 0.5, "samples": 3})):
        with refuses(ValueError, name):
            model.predict(**wrong)
    with refuses(ValueError, "interval"):
        model.stream(interval=-1)


def test_the_spread_is_the_mean_size_of_errors_where_origins_are_many():
    rng = np.random.default_rng(0)
    sizes = np.array([1.0, 2.0, 1.5])
    residuals = rng.standard_normal((4000, 1, 3)) * sizes
    calibration = Calibration.of(residuals, np.array([0.7]), 4000.0)
    np.testing.assert_allclose(calibration.spread[0], sizes * np.sqrt(2 / np.pi), rtol=0.05)
    quantiles = calibration.quantile([0.1, 0.5, 0.9]) * np.sqrt(2 / np.pi)
    np.testing.assert_allclose(quantiles, [-1.2816, 0, 1.2816], atol=0.06)
    own = Calibration.of(residuals * np.array([1.0, 5.0])[:, None], np.array([0.7, 0.7]), 4000.0)
    np.testing.assert_allclose(own.spread[1] / own.spread[0], 5, rtol=0.05)


def test_bounds_of_a_stream_follow_errors_that_grow():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(200)
    model = RNNForecaster(horizon=2, blend="mean", random_state=0).fit(y)
    stream, inside = model.stream(interval=0.8), []
    for value in 6 * rng.standard_normal(1500):
        interval = stream.forecast_interval
        inside.append(interval.lower[0] <= value <= interval.upper[0])
        stream.step(value)
    assert np.mean(inside[:20]) < 0.45 and abs(np.mean(inside[300:]) - 0.8) < 0.05


def test_bounds_of_a_stream_are_their_equations():
    calibration = Calibration(np.array([[2.0, 3.0]]), np.ones(1), 0.5, np.linspace(-2, 2, 401), np.zeros((1, 2)), 1e9)
    adaptive = AdaptiveInterval(calibration, 0, 2, 0.8)
    bounds, made = np.array([[-1.6, -1.6], [1.6, 1.6]]), []
    p, spread = np.array([0.1, 0.9]), np.array([2.0, 3.0])
    for t, (z, forecasts) in enumerate([(0.0, [1.0, 2.0]), (9.0, [3.0, 1.0]), (-7.0, [0.0, 0.0]), (1.0, [5.0, 4.0])]):
        if t:
            adaptive.observe(z)
            for k in range(min(t, 2)):
                error, width = (z - made[t - 1 - k][k]) / spread[k], bounds[1, k] - bounds[0, k]
                bounds[:, k] += 0.03 * width * (p - (error < bounds[:, k]))
        made.append(forecasts)
        expected = np.array(forecasts) + spread * bounds
        np.testing.assert_allclose(adaptive.bounds(np.array(forecasts)), expected, rtol=1e-6)
