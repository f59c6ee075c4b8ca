"""Intervals: conformal calibration, samples, and bounds that follow a stream."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import refuses

from fastrnn.forecasting import Interval, RNNForecaster
from fastrnn.forecasting.base_stream import AdaptiveInterval
from fastrnn.forecasting.intervals import Calibration
from fastrnn.forecasting.judging import Judged, Table
from fastrnn.forecasting.origins import Origins
from fastrnn.forecasting.residuals import _crossed
from fastrnn.forecasting.weights import weights_of

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


def growing(rng, T):
    """Years of a company: growth that differs from year to year."""
    growth = rng.normal(0.03, 0.03) + rng.uniform(0.02, 0.15) * rng.standard_normal(T)
    return rng.lognormal(6, 1) * np.exp(growth.cumsum())


def quarters(rng, T):
    """A season of four steps on a level that wanders, all of it in proportion."""
    season = np.exp(0.15 * rng.standard_normal(4))[np.arange(T) % 4]
    return rng.lognormal(6, 1) * season * np.exp((0.01 + 0.03 * rng.standard_normal(T)).cumsum())


def around_a_mean(rng, T):
    """A first-order autoregression with errors of Student's distribution."""
    y, errors = np.zeros(T + 20), rng.standard_t(3, T + 20)
    for t in range(1, T + 20):
        y[t] = 0.7 * y[t - 1] + errors[t]
    return 50 + y[20:]


PANELS = {"growing": (growing, 11, 50, 6), "quarters": (quarters, 16, 60, 8),
          "around a mean": (around_a_mean, 15, 50, 4)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.filterwarnings("ignore:y.*too few to train")
def test_intervals_of_panels_of_short_series_hold_at_every_step(kind):
    """Sixteen panels of 24 series: 384 forecasts; exact shares have standard deviations of 2.6, 2.0 and 1.1 points."""
    make, shortest, longest, horizon = PANELS[kind]
    inside = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        series = [make(rng, int(length) + horizon) for length in rng.integers(shortest, longest + 1, 24)]
        model = RNNForecaster(horizon=horizon, random_state=0).fit([y[:-horizon] for y in series])
        intervals = [model.predict(interval=level) for level in (0.5, 0.8, 0.95)]
        truth = np.array([y[-horizon:] for y in series])
        inside.append([(np.array(each.lower) <= truth) & (truth <= np.array(each.upper)) for each in intervals])
    shares = np.concatenate(inside, 1).mean(1)
    np.testing.assert_allclose(shares.mean(1), [0.5, 0.8, 0.95], atol=0.05)
    promised = np.array([[0.5], [0.8], [0.95]])
    assert (np.abs(shares - promised) <= 0.05 + 2 * np.sqrt(promised * (1 - promised) / 384)).all(), shares


@pytest.mark.slow
@pytest.mark.parametrize("kind, most", [("walk", (0.04, 0.03)), ("noise", (0.08, 0.045))])
@pytest.mark.filterwarnings("ignore:y.*too few to train")
def test_intervals_of_single_short_series_hold(kind, most):
    """150 series of 30 values: exact shares of 80 and 95 % have standard deviations of 3.3 and 1.8 points at a step.

    Nobody knows of so short a series of noise that its errors will not grow with the step: its intervals are wide.
    """
    inside = []
    for seed in range(150):
        y = np.random.default_rng(seed).standard_normal(36)
        y = y.cumsum() if kind == "walk" else y
        model = RNNForecaster(horizon=6, random_state=0).fit(y[:30])
        inside.append([(each.lower <= y[30:]) & (y[30:] <= each.upper)
                       for each in (model.predict(interval=level) for level in (0.8, 0.95))])
    off = np.mean(inside, (0, 2)) - [0.8, 0.95]
    assert (off > -0.035).all() and (off < most).all(), off


@pytest.mark.slow
def test_the_upper_bound_reaches_the_rare_sizes_of_an_intermittent_series():
    """The 95 % interval of a series that is 0 at four times in five or more holds nearly all: its lower bound is 0."""
    inside = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y = np.where(rng.random(172) < rng.uniform(0.1, 0.2), 1.0 + rng.poisson(3, 172), 0.0)
        interval = RNNForecaster(horizon=12, random_state=0).fit(y[:160]).predict(interval=0.95)
        assert (interval.lower == 0).all()
        inside.append(y[160:] <= interval.upper)
    assert 0.92 < np.mean(inside) < 0.995


def test_bounds_lie_on_the_side_to_which_values_were_off():
    """Values that come above their forecasts by a skewed error, never below them."""
    rng = np.random.default_rng(0)
    residuals = rng.exponential(2.0, (4000, 1, 2))
    lower, upper = (Calibration.of(residuals, np.ones(1), 4000.0).errors([0.05, 0.95], 2)
                    * Calibration.of(residuals, np.ones(1), 4000.0).spreads(2)[0][:, None]).T
    np.testing.assert_allclose(upper, 2 * np.log(20), rtol=0.06)
    assert (np.abs(lower) < 0.2).all()


def test_few_errors_widen_bounds_as_students_distribution_does():
    rng = np.random.default_rng(0)
    normal = np.quantile(rng.standard_normal(400_000), np.linspace(0, 1, 401))
    known = Calibration(np.ones((1, 3)), np.ones(1), 0.5, normal, np.zeros((1, 3)), 1.0)
    table = {3.0: (1.6377, 3.1824), 5.0: (1.4759, 2.5706), 30.0: (1.3104, 2.0423)}      # quantiles 0.9 and 0.975 of t
    wider = replace(known, freedom=np.array(list(table))).errors([0.9, 0.975], 4) / known.errors([0.9, 0.975], 4)
    expected = np.array([table[3.0], table[5.0], table[30.0], table[30.0]]) / [1.2816, 1.9600]
    np.testing.assert_allclose(wider, expected, rtol=0.02)
    assert (Calibration.of(rng.standard_normal((2, 1, 3)), np.ones(1), 1.0).freedom[[0, 2]] <= [5, 4]).all()
    assert (Calibration.of(rng.standard_normal((900, 1, 3)), np.ones(1), 900.0).freedom > 100).all()


def test_errors_that_series_share_tell_as_much_as_those_of_one():
    rng = np.random.default_rng(0)
    own = rng.standard_normal((40, 10, 1))
    shared = np.repeat(own[:, :1], 10, 1) + 0.05 * own
    known = np.full((10, 1), 40.0)
    many, one = (Calibration.of(each, np.ones(10), 40.0, known).count for each in (own, shared))
    assert many > 200 and one < 50


def test_errors_are_in_units_of_their_time():
    """Differences that double, and errors that double with them: the next are as large as the last ones."""
    scale = np.repeat([1.0, 8.0], 100)
    residuals = scale[:, None, None] * np.random.default_rng(0).standard_normal((200, 1, 1))
    plain = Calibration.of(residuals, np.array([8.0]), 200.0)
    timed = Calibration.of(residuals, np.array([8.0]), 200.0, past=scale[:, None])
    assert plain.spread[0, 0] < 4.5 and abs(timed.spread[0, 0] / 8 - 0.8) < 0.1


def test_residuals_are_those_of_weights_that_other_origins_gave():
    """Of many members that are noise the best are worse elsewhere: residuals are larger than those of their choice."""
    rng = np.random.default_rng(0)
    origins = Origins.of(np.array([60]), 60, 1, (20, 10))
    errors = rng.standard_normal((len(origins.at), 1, 40, 1))
    names = [f"smoothing {m}" for m in range(40)]
    table = Table([], rng.standard_normal((1, 60)), origins)
    weights, pull = weights_of(errors, names, origins, "naive")
    judged = Judged(table, names, names, None, errors, errors[:, :, 0], weights, "naive", pull)
    late = errors[origins.judged]
    chosen, crossed = np.abs(np.einsum("onkh,nk->onh", late, weights)).mean(), np.abs(_crossed(judged, weights)).mean()
    assert crossed > 1.1 * chosen
    half = -(-len(late) // 2)       # the second half of the residuals is that of the first half's weights
    expected, _ = weights_of(np.where(np.arange(len(errors))[:, None, None, None] >= len(errors) - len(late) + half,
                                      np.nan, errors), names, origins, "naive")
    np.testing.assert_allclose(_crossed(judged, weights)[half:, 0, 0],
                               -np.einsum("okh,k->oh", late[half:, 0], expected[0])[:, 0], rtol=1e-9)


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
    quantiles = calibration.errors([0.1, 0.5, 0.9], 3)[0] * np.sqrt(2 / np.pi)
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


def test_bounds_of_a_stream_widen_while_values_are_missing():
    """As those of ``predict`` do from the same end, on which a stream of its own begins; they narrow when one comes."""
    y = np.random.default_rng(0).standard_normal(200).cumsum()
    model = RNNForecaster(**FAST, blend="naive").fit(y)
    stream = model.stream(interval=0.8)
    widths = []
    for value in (None, None, None, y[-1]):
        stream.step(value)
        widths.append(stream.forecast_interval.upper - stream.forecast_interval.lower)
    missing = model.apply(np.append(y, [np.nan] * 3))
    expected = missing.predict(interval=0.8)
    np.testing.assert_allclose(widths[2], expected.upper - expected.lower, rtol=1e-9)
    begun = missing.stream(interval=0.8).forecast_interval
    np.testing.assert_allclose(begun.upper, expected.upper, rtol=1e-9)
    assert (widths[2] > widths[0]).all() and (widths[3] < 0.95 * widths[0]).all()


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
