"""Automatic choices: forecasts that do not lose to naive ones, and what is said of them."""

import tracemalloc
import warnings

import numpy as np
import pytest
from helpers import refuses

from fastrnn.forecasting import RNNForecaster, judging, weights
from fastrnn.forecasting.origins import Origins
from fastrnn.forecasting.weights import simplex_weights

FAST = {"horizon": 6, "updates": 30, "hidden_size": 4, "random_state": 0}       # for what does not depend on accuracy


def ratio(y, horizon=8, start=-80, **options):
    """The mean absolute error over that of the best naive forecast, and the Backtest."""
    test = RNNForecaster(horizon=horizon, random_state=0, **options).backtest(y, start=start, stride=4)
    scores = test.scores()
    return scores["forecast"]["MAE"] / min(each["MAE"] for name, each in scores.items() if name != "forecast"), test


def wave(T, noise=1.0, seed=0):
    return 50 + 10 * np.sin(np.arange(T) * 2 * np.pi / 12) + noise * np.random.default_rng(seed).standard_normal(T)


# ---- Each kind of series --------------------------------------------------------------------------

def test_a_random_walk_is_forecast_about_as_by_its_last_value():
    ratios = [ratio(np.random.default_rng(seed).standard_normal(300).cumsum(), updates=60)[0] for seed in range(4)]
    assert np.mean(ratios) < 1.05


def test_noise_a_sine_and_a_trend_are_forecast_better_than_naively():
    rng = np.random.default_rng(0)
    assert ratio(rng.standard_normal(300), updates=60)[0] < 0.8
    assert ratio(wave(300), updates=60)[0] < 0.8
    assert ratio(0.2 * np.arange(300) + rng.standard_normal(300), updates=60)[0] < 0.9


def test_early_stopping_does_no_harm():
    plain, stopped = (ratio(wave(300), updates=100, patience=patience)[0] for patience in (None, 5))
    assert stopped < 1.05 * plain


@pytest.mark.parametrize("value", [5.0, 2e-6, -1e12, 0.0])
def test_a_constant_is_forecast_exactly_alone_and_beside_others(value):
    alone = RNNForecaster(**FAST).fit(np.full(100, value))
    assert alone.predict(9).tolist() == [value] * 9
    assert alone.predict(interval=0.9).lower.tolist() == [value] * 6
    beside = RNNForecaster(**FAST).fit([wave(100), np.full(60, value)])
    assert beside.predict()[1].tolist() == [value] * 6
    assert alone.stream().step(value).tolist() == [value] * 6


def test_counts_stay_at_0_or_above():
    rng = np.random.default_rng(1)
    few = np.where(rng.random(300) < 0.15, rng.poisson(3, 300) + 1, 0.0)
    compared, test = ratio(few, updates=60, quantiles=(0.05, 0.95))
    assert compared < 1.05 and test.forecasts.min() >= 0 and test.quantile_forecasts.min() >= 0
    model = RNNForecaster(**FAST).fit([few, few - 1])
    assert model.choice_.nonnegative == (True, False) and "never below 0" in model.summary()
    assert model.predict(interval=0.99).lower[0].min() >= 0 and model.predict(samples=50)[:, 0].min() >= 0
    assert model.predict(interval=0.99).lower[1].min() < 0
    assert RNNForecaster(**FAST, nonnegative=False).fit(few).predict(interval=0.99).lower.min() < 0
    stream = model.stream(interval=0.9)
    for value in few[:20]:
        stream.step(value)
        assert stream.forecast.min() >= 0 and stream.forecast_interval.lower.min() >= 0


@pytest.mark.parametrize("scale, level", [(3.0, 1e12), (1e-7, 1e-6), (1e-7, 0.0), (1e9, 0.0)])
def test_the_height_and_scale_of_a_series_do_not_matter(scale, level):
    y = (wave(200) - 50) / 10
    one, other = RNNForecaster(**FAST, log=False).fit(y), RNNForecaster(**FAST, log=False).fit(level + scale * y)
    np.testing.assert_allclose((other.predict() - level) / scale, one.predict(), atol=0.02)
    assert other.choice_.seasons == one.choice_.seasons == (12,)


@pytest.mark.parametrize("power", [90, -90])
def test_scales_beyond_those_of_float32_are_as_any_other(power):
    """Forecasts, intervals and a stream of the same series in another unit, without warnings."""
    y, scale = wave(150), 2.0 ** round(power / np.log10(2))
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for unit in (1.0, scale):
            model = RNNForecaster(horizon=4, updates=30, hidden_size=4, random_state=0).fit(unit * y[:-5])
            assert len(model.choice_.members) > 1
            stream = model.stream(interval=0.8)
            steps = [stream.step(unit * value) for value in y[-5:]]
            results.append(np.array([*model.predict(interval=0.8), *steps, *stream.forecast_interval]) / unit)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-4)


@pytest.mark.parametrize("scale, match", [(1e120, "y: expected values up to 1e"), (1e-160, "y: expected values that ")])
def test_scales_whose_squares_have_no_room_are_refused(scale, match):
    with refuses(ValueError, match):
        RNNForecaster(horizon=4).fit(scale * wave(60))


def test_forecasts_of_members_are_gone_before_weights_are_sought(monkeypatch):
    """They are in float64, and together twice as large as their errors or more."""
    held = []

    def measured(errors, *rest):
        held.append((tracemalloc.get_traced_memory()[0] - before) / errors.nbytes)
        return weights.weights_of(errors, *rest)

    monkeypatch.setattr(judging, "weights_of", measured)
    series = [wave(120, seed=n) for n in range(30)]
    model = RNNForecaster(horizon=12, seasons=12, blend=["naive", "smoothing", "theta", "decay", "drift", "mean"])
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    model.fit(series)
    tracemalloc.stop()
    assert held and max(held) < 6.5         # with them 8.2, without them 4.9: what the series take is counted as well


def test_a_long_gap():
    y = wave(300)
    y[100:190] = np.nan
    forecast = RNNForecaster(horizon=6, updates=60, random_state=0).fit(y[:-6]).predict()
    assert np.abs(forecast - y[-6:]).mean() < 2.5


def test_one_wild_value_is_left_out_and_named():
    y = wave(200)
    wild = y.copy()
    wild[70] = 1e9
    with pytest.warns(UserWarning, match="y: the value 1e[+]09 in row 70"):
        model = RNNForecaster(**FAST).fit(wild)
    assert model.choice_.left_out == ((0, 70),) and "row 70" in repr(model)
    wild[70] = np.nan
    np.testing.assert_array_equal(model.predict(), RNNForecaster(**FAST).fit(wild).predict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in (np.random.default_rng(0).standard_t(2, 500), np.r_[np.zeros(100), 1.0, np.zeros(50)],
                       np.exp(np.arange(100) / 4.0)):
            assert RNNForecaster(**FAST, blend=["naive"]).fit(values).choice_.left_out == ()


@pytest.mark.parametrize("T", [2, 3, 5, 9, 15])
def test_short_series(T):
    y = wave(T)
    with pytest.warns(UserWarning, match="too few to train a network"):
        model = RNNForecaster(**FAST).fit(y)
    lower, point, upper = model.predict(20, interval=0.8)
    assert np.isfinite([lower, point, upper]).all() and (lower <= point).all() and (point <= upper).all()
    assert y.min() - 50 < point.min() and point.max() < y.max() + 50 and model.models_ == []
    assert (upper > lower).all() or T == 2
    np.testing.assert_allclose(model.stream().forecast, model.predict(), rtol=1e-9)


def test_a_single_value_is_an_error_that_says_so():
    for y in ([3.0], [np.nan, 3.0]):
        with refuses(ValueError, "y"):
            RNNForecaster(**FAST).fit(np.array(y))


# ---- What is chosen, and said ---------------------------------------------------------------------

def test_choices_are_attributes_and_said():
    model = RNNForecaster(horizon=6, updates=40, random_state=0).fit(wave(300))
    chosen = model.choice_
    assert chosen.seasons == model.seasons_ == (12,) and chosen.difference == 12 and chosen.log is False
    assert chosen.weights.shape == (1, len(chosen.members)) and chosen.weights.sum() == pytest.approx(1)
    assert 1 <= chosen.updates <= 40 and chosen.origins == 40 and chosen.judged == 75
    assert "seasons: 12" in repr(model) and repr(model).startswith("RNNForecaster(horizon=6, updates=40")
    assert model.blend_.members == tuple(name for name, w in zip(chosen.members, chosen.weights[0], strict=True) if w)
    assert model.options_.window == chosen.window >= 12


def test_the_logarithm_is_taken_of_what_changes_in_proportion():
    rng, t = np.random.default_rng(0), np.arange(300)
    grows = np.exp(0.01 * t + 0.3 * np.sin(t / 12 * 2 * np.pi) + 0.1 * rng.standard_normal(300))
    options = {**FAST, "blend": ["naive"]}
    assert RNNForecaster(**options).fit(grows).choice_.log is True
    assert RNNForecaster(**options).fit(wave(300)).choice_.log is False
    assert RNNForecaster(**options).fit(grows - 2).choice_.log is False
    assert RNNForecaster(**options).fit([grows, -grows]).choice_.log is False


def test_what_is_given_stays():
    given = {"seasons": (6, 7), "difference": 0, "log": True, "window": 20, "hidden_size": 5, "ensemble": 2}
    model = RNNForecaster(horizon=3, updates=20, random_state=0, **given).fit(wave(150))
    assert {name: getattr(model.options_, name) for name in given} == given


def test_a_blend_of_named_members():
    y = wave(200)
    model = RNNForecaster(**FAST, blend="naive").fit(y)
    assert model.blend_.members == ("naive",) and model.predict().tolist() == [y[-1]] * 6
    model = RNNForecaster(**FAST, blend=["seasonal naive"]).fit(y)
    np.testing.assert_allclose(model.predict(20), np.tile(y[-12:], 2)[:20])
    model = RNNForecaster(**FAST, blend=["network"]).fit(y)
    assert model.blend_.members == ("network",)
    np.testing.assert_allclose(model.predict(), model._forecast(model.panel_.series)[0], rtol=1e-9)
    for error, wrong in ((ValueError, "nought"), (ValueError, []), (ValueError, ["naive", "best"])):
        with refuses(error, "blend"):
            RNNForecaster(blend=wrong).fit(y)


def test_the_forecast_is_the_weighted_sum_of_its_members():
    y = wave(200)
    model = RNNForecaster(**FAST, blend=["naive", "mean", "median", "drift"]).fit(y)
    weights = dict(zip(model.choice_.members, model.choice_.weights[0], strict=True))
    k = np.arange(1, 7)
    expected = (weights["naive"] * y[-1] + weights["mean"] * y.mean() + weights["median"] * np.median(y)
                + weights["drift"] * (y[-1] + k * (y[-1] - y[0]) / 199))
    np.testing.assert_allclose(model.predict(), expected, rtol=1e-9)


def test_weights_go_to_the_best_where_origins_are_many_and_stay_where_they_are_few():
    rng = np.random.default_rng(0)
    common = rng.standard_normal((1, 400, 1))
    errors = np.concatenate([common, 1.2 * common, 0.8 * common], 2)
    prior = np.array([[0.6, 0.2, 0.2]])
    many = simplex_weights(errors, prior, np.array([100.0]))[0]
    few = simplex_weights(errors[:, :2], prior, np.array([0.5]))[0]
    assert many[2] > 0.95 and many.sum() == pytest.approx(1) and few[0] > 0.35
    apart = rng.standard_normal((1, 400, 2))            # independent errors: half of each is best
    np.testing.assert_allclose(simplex_weights(apart, np.array([[0.5, 0.5]]), np.array([100.0])), 0.5, atol=0.1)


def test_origins_lie_in_the_last_part_and_trained_members_have_not_seen_it():
    origins = Origins.of(np.array([300, 40]), 300, 6)
    assert origins.ends.tolist() == [225, 27]
    assert origins.at[origins.judged].min() == 225 and origins.at.max() == 299
    assert min(origins.places(0, 300)) == 225 and max(origins.places(0, 300)) == 299
    assert min(origins.places(1, 40)) >= 27


def test_a_series_longer_than_base_forecasts_look_back():
    y = wave(4600)
    model = RNNForecaster(**FAST, blend=["network", "linear", "smoothing"]).fit(y)
    truth = 50 + 10 * np.sin(np.arange(4600, 4606) * 2 * np.pi / 12)
    assert np.abs(model.predict() - truth).max() < 1.5
    assert model.choice_.judged == 500
    stream = RNNForecaster(**FAST, blend=["mean", "smoothing"]).fit(y[:4300]).stream()
    for value in y[4300:]:
        stream.step(value)
    np.testing.assert_allclose(stream.forecast, RNNForecaster(**FAST, blend=["mean", "smoothing"]).fit(y[:4300]).apply(
        y).predict(), rtol=1e-9)


def test_the_future_changes_no_earlier_forecast():
    y = wave(160)
    changed = np.concatenate([y[:120], 100 - y[120:]])
    a, b = (RNNForecaster(**FAST, quantiles=(0.1, 0.9)).backtest(values, start=120, stride=34)
            for values in (y, changed))
    np.testing.assert_array_equal(a.forecasts[0], b.forecasts[0])
    np.testing.assert_array_equal(a.quantile_forecasts[0], b.quantile_forecasts[0])
    assert not np.array_equal(a.forecasts[1], b.forecasts[1])


def test_panels_of_many_series_share_their_weights():
    rng = np.random.default_rng(0)
    series = [wave(60, seed=n) + 10 * n for n in range(230)] + [np.full(50, 7.0)]
    model = RNNForecaster(horizon=4, updates=40, hidden_size=4, random_state=0).fit(series)
    forecast = model.predict()
    assert forecast.shape == (231, 4) and forecast[-1].tolist() == [7.0] * 4
    truth = np.array([50 + 10 * np.sin(np.arange(60, 64) * 2 * np.pi / 12) + 10 * n for n in range(230)])
    assert np.abs(forecast[:-1] - truth).mean() < 1.2
    other = model.apply([wave(60, seed=n) for n in rng.integers(300, 400, 3)])
    assert other.predict().shape == (3, 4) and np.abs(other.predict() - truth[0]).mean() < 1.5


STREAMS = {"plain": {}, "log": {"log": True}, "quantiles": {"quantiles": (0.1, 0.9)}, "level": {"difference": 0},
           "horizon above season": {"horizon": 17}, "seasons": {"seasons": (12, 24)}, "linear": {"blend": "linear"},
           "naive ones": {"blend": ["naive", "seasonal naive", "drift", "mean", "median"]},
           "recursions": {"blend": ["smoothing", "trend", "theta", "decay"]}}


@pytest.mark.slow
@pytest.mark.parametrize("cut", [15, 120])
@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.filterwarnings("ignore:y. 15 values are too few")
def test_a_stream_of_a_blend_forecasts_as_predict_does(name, cut):
    y = wave(170)
    y[np.random.default_rng(0).random(170) < 0.1] = np.nan
    y[0] = 50.0
    options = {**FAST, "updates": 10, "seasons": 12, **STREAMS[name]}
    model = RNNForecaster(**options).fit(y[:cut])
    stream = model.stream(interval=0.8)
    np.testing.assert_allclose(stream.forecast, model.predict(), rtol=2e-5)
    np.testing.assert_allclose(stream.forecast_interval.upper, model.predict(interval=0.8).upper, rtol=2e-5)
    for t in range(cut, 170):
        forecast = stream.step(y[t])
        if t % 9 == 0 or t in (24, 25, 48, 49):
            whole = model.apply(y[:t + 1])
            np.testing.assert_allclose(forecast, whole.predict(), rtol=2e-5, err_msg=f"step {t}")
            if stream.forecast_quantiles is not None:
                np.testing.assert_allclose(stream.forecast_quantiles, whole.predict(quantiles=True), rtol=2e-5)


def test_a_blend_lives_on():
    """It is saved and loaded, and goes on with new rows as if it had been applied to the longer series."""
    y = wave(150)
    model = RNNForecaster(**FAST).fit(y[:120])
    still = model.apply(y)
    model.update(y[120:], updates=0)
    np.testing.assert_allclose(model.predict(), still.predict(), rtol=1e-9)
    before = model.predict(9, interval=0.8)
    panel = RNNForecaster(**FAST).fit([y, y[::-1]])
    weights = panel.blend_.weights
    panel.update([y[:6], y[:6], y], updates=0)
    np.testing.assert_array_equal(panel.blend_.weights, [*weights, weights.mean(0)])
    assert panel.predict().shape == (3, 6) and panel.predict(interval=0.5).lower.shape == (3, 6)
    trained = model.apply(y)
    trained.update(y[:30], updates=5)
    assert np.isfinite(trained.predict()).all()
    np.testing.assert_array_equal(model.predict(9, interval=0.8), before)


@pytest.mark.parametrize("options", [{}, {"log": True, "seasons": (6, 12)}, {"blend": "naive"}])
def test_a_blend_is_saved_to_the_bit(tmp_path, options):
    model = RNNForecaster(**FAST, **options).fit([wave(100), wave(80, seed=1)])
    model.save(tmp_path / "model.npz")
    twin = RNNForecaster.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(twin.predict(9, interval=0.8), model.predict(9, interval=0.8))
    np.testing.assert_array_equal(twin.predict(9, samples=3), model.predict(9, samples=3))
    np.testing.assert_array_equal(twin.stream(1).step(50.0), model.stream(1).step(50.0))
    assert repr(twin) == repr(model)


@pytest.mark.parametrize("options", [{}, {"quantiles": (0.1, 0.9)}, {"blend": ["seasonal naive", "median", "decay"]}])
def test_a_snapshot_brings_a_stream_of_a_blend_back(options):
    model = RNNForecaster(**FAST, **options).fit(wave(120))
    stream, other = model.stream(interval=0.8), model.stream(interval=0.8)
    for value in wave(140)[120:]:
        stream.step(value)
    other.restore(stream.snapshot())
    for value in (40.0, None, 55.0):
        np.testing.assert_array_equal(other.step(value), stream.step(value))
        np.testing.assert_array_equal(other.forecast_interval, stream.forecast_interval)


@pytest.mark.parametrize("options", [{}, {"blend": False}])
@pytest.mark.parametrize("refit", [True, False])
def test_a_backtest_leaves_out_the_wild_values_that_came_before(options, refit):
    """Also where the forecaster was fitted before, and nothing is trained."""
    y = wave(300)
    clean = RNNForecaster(**FAST, **options).backtest(y, start=-40, stride=4).scores()["forecast"]["MAE"]
    y[100] = 1e9
    model = RNNForecaster(**FAST, **options)
    with pytest.warns(UserWarning, match="left out as missing"):
        model.fit(y[:-40])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        test = model.backtest(y, start=-40, stride=4, refit=refit)
    assert test.scores()["forecast"]["MAE"] < 1.5 * clean
    assert (test.scales < 50).all()


def test_where_no_origin_has_a_value_after_it_nothing_is_measured():
    """NumPy does not warn of a mean of nothing."""
    with pytest.warns(UserWarning, match="too few to train") as warned:
        model = RNNForecaster(**FAST | {"horizon": 1}).fit([[1.0, 3, np.nan], [2.0, 4, np.nan]])
    assert [each.category for each in warned] == [UserWarning]
    assert np.isfinite(model.predict()).all() and (model.choice_.errors == 1).all()


def test_without_errors_before_the_prior_is_for_the_forecast_that_is_first():
    names = ["network", "naive", "seasonal naive 12", "drift", "smoothing 12", "ets", "ets 12"]
    unknown = np.full((3, 2, len(names), 4), np.nan)
    prior = weights._prior(names, "naive", unknown)[0]
    np.testing.assert_allclose(prior / prior[0], [1, 5, 2, 1, 0.15, 8, 1.2])
    prior = weights._prior(names, "seasonal naive 12", unknown)[0]
    np.testing.assert_allclose(prior / prior[0], [1, 2, 5, 1, 1, 1.2, 8])


def test_where_all_members_err_alike_the_weights_are_the_prior():
    errors = np.repeat(np.random.default_rng(0).standard_normal((1, 40, 1)), 3, 2)
    prior = np.array([[0.6, 0.3, 0.1]])
    np.testing.assert_allclose(simplex_weights(errors, prior, np.array([4.0])), prior, atol=1e-6)


def test_weights_are_drawn_to_the_panels_as_strongly_as_helps():
    """Where all series have the same best member, and few errors, strongly; where each has another, weakly."""
    rng, N, M, K = np.random.default_rng(0), 40, 60, 6
    prior, counts = np.full((1, K), 1 / K), np.full(N, 4.0)
    noise = rng.standard_normal((N, M, K)) + 0.5 * rng.standard_normal((N, 1, K))
    alike = weights._common(noise * np.array([0.7, 1, 1, 1, 1, 1]), prior, counts)
    different = weights._common(noise * np.where(np.arange(K) == np.arange(N)[:, None] % K, 0.1, 1)[:, None], prior,
                                counts)
    assert alike.strength > different.strength == min(weights.STRENGTHS)
    assert alike.prior.argmax() == 0 and alike.prior.max() > different.prior.max()
    assert weights._common(noise[:1], prior, counts[:1]).strength == weights.TAU


def test_weights_settle_however_strong_the_pull():
    errors, prior = np.random.default_rng(0).standard_normal((3, 40, 3)), np.array([[0.6, 0.3, 0.1]])
    result = simplex_weights(errors, prior, np.array([0.5, 1.0, 2.0]), 100.0)
    np.testing.assert_allclose(result, np.repeat(prior, 3, 0), atol=0.01)


def test_no_more_errors_are_independent_than_there_are_origins():
    origins = Origins.of(np.array([1000, 60]), 1000, 2, (14, 10))
    assert origins.judged.sum() == origins.count == origins.counts[0] == 14 and origins.counts[1] <= 7


@pytest.mark.filterwarnings("ignore:.*too few to train:UserWarning")
def test_a_local_trend_in_a_short_series_is_followed():
    """Forty quarters whose growth changes smoothly: exponential smoothing has most of the weight, and errs little."""
    ratios, shares = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        growth = 2 + 3 * np.sin(np.arange(48) / 15 + 2 * seed)
        y = 500 + growth.cumsum() + np.tile(rng.standard_normal(4), 12) + 0.2 * rng.standard_normal(48)
        model = RNNForecaster(horizon=8, random_state=seed).fit(y[:-8])
        names = np.array([name.startswith("ets") for name in model.choice_.members])
        shares.append(model.choice_.weights[0, names].sum())
        drift = y[-9] + (y[-9] - y[0]) / 39 * np.arange(1, 9)
        ratios.append(np.abs(model.predict() - y[-8:]).mean() / np.abs(drift - y[-8:]).mean())
    assert np.mean(ratios) < 0.66 and np.mean(shares) > 0.3, (ratios, shares)        # 0.71 without "ets"
