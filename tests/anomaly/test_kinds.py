"""The detector on kinds of series: what is not unusual, what is, and what comes after dirt."""

import datetime
import math

import numpy as np
import pytest

from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.anomaly.likelihood import score_of
from fastrnn.anomaly.statistics import Level, Records, Tail

ALARM = 5 / 6           # the score above which p < 1e-5


def scored(x, **options):
    """Scores of one channel, row by row."""
    detector, scores = RNNAnomalyDetector(random_state=0, **{"hidden_size": 16} | options), []
    for value in np.asarray(x, float).tolist():
        scores.append(detector.score_one(value))
        detector.learn_one(value)
    return np.array(scores)


# ---- Nothing unusual ------------------------------------------------------------------------------

def garch(rng, n):
    """Noise whose variance follows its own squares."""
    noise, variance, result = rng.standard_normal(n), 1.0, np.zeros(n)
    for t in range(n):
        result[t] = math.sqrt(variance) * noise[t]
        variance = 0.05 + 0.1 * result[t] ** 2 + 0.85 * variance
    return result


KINDS = {
    "normal": lambda rng, t: rng.standard_normal(len(t)),
    "uniform": lambda rng, t: rng.random(len(t)),
    "t3": lambda rng, t: rng.standard_t(3, len(t)),
    "log-normal": lambda rng, t: rng.lognormal(size=len(t)),
    "random walk": lambda rng, t: rng.standard_normal(len(t)).cumsum(),
    "trend": lambda rng, t: t / 100 + rng.standard_normal(len(t)),
    "growth": lambda rng, t: np.exp(t / 300) * (1 + 0.05 * rng.standard_normal(len(t))),
    "garch": lambda rng, t: garch(rng, len(t)),
    "poisson": lambda rng, t: rng.poisson(3, len(t)),
    "rare counts": lambda rng, t: rng.poisson(0.2, len(t)),
    "daily": lambda rng, t: 5 * np.sin(t * 2 * np.pi / 24) + rng.standard_normal(len(t)),
    "weekly": lambda rng, t: ((10 + 5 * np.sin(t * 2 * np.pi / 24)) * (1 + 0.3 * (t // 24 % 7 < 5))
                              + rng.standard_normal(len(t))),
}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_unusual_hardly_alarms(kind, seed):
    x = KINDS[kind](np.random.default_rng(seed), np.arange(5000))
    alarms = int((scored(x)[750:] > ALARM).sum())
    assert alarms <= (5 if kind in ("t3", "log-normal") else 2)


def test_many_channels_of_noise_hardly_alarm():
    x = np.random.default_rng(1).standard_normal((2000, 50))
    detector = RNNAnomalyDetector(random_state=0).fit(x[:1000])
    assert (detector.predict(x[1000:]) == -1).sum() <= 1


@pytest.mark.parametrize("level", [0.3, 5.0, -1e12, 1e-30])
def test_one_unit_in_the_last_place_is_nothing(level):
    x = np.full(600, level)
    x[400], x[450] = np.nextafter(level, np.inf), np.nextafter(level, -np.inf)
    assert scored(x).max() < 0.05


def test_a_small_change_of_a_large_level_is_not_rounding():
    x = 1e12 + 3 * np.random.default_rng(0).standard_normal(1500)
    x[1400] += 200
    scores = scored(x)
    assert scores[1400] > ALARM and (scores[750:1400] > ALARM).sum() <= 1


# ---- Something unusual ----------------------------------------------------------------------------

def test_spikes_of_all_sizes_are_told_apart():
    rng = np.random.default_rng(6)
    x = rng.standard_normal(4000)
    at = rng.choice(np.arange(1000, 4000), 40, replace=False)
    sizes = rng.uniform(6, 60, 40)
    x[at] += rng.choice([-1, 1], 40) * sizes
    scores = scored(x)[at]
    assert len(np.unique(scores)) == 40 and scores.max() < 1
    alone = scored(x, rules=("error",))[at]
    order = np.argsort(np.argsort(alone)), np.argsort(np.argsort(sizes))
    assert np.corrcoef(*order)[0, 1] > 0.5


def test_scores_go_on_beyond_the_alarm():
    digits = np.array([0, 2.5, 5, 5.001, 50, 5e3, 5e6])
    scores = np.array([score_of(value) for value in digits])
    np.testing.assert_allclose(scores[:3], digits[:3] / 6)
    assert (np.diff(scores) > 0).all() and scores[-1] < 1 and score_of(5 + 1e-9) > ALARM
    assert score_of(-1.0) == 0.0


def test_a_level_shift_alarms_and_is_then_the_level():
    rng = np.random.default_rng(2)
    x = rng.standard_normal(3000)
    x[1500:] += 200
    x[2500] += 50
    scores = scored(x)
    assert scores[1500] > ALARM
    assert (scores[1540:2500] > ALARM).sum() <= 1           # learnt within 40 rows
    assert scores[2500] > ALARM


def test_a_first_change_of_a_constant_alarms():
    x = np.full(900, 3.0)
    x[600] = 3.1
    x[700:] = 4
    scores = scored(x)
    assert scores[600] > 0.9 and scores[700] > 0.9
    assert scores[:600].max() == 0 and scores[760:].max() < ALARM


# ---- After dirt -----------------------------------------------------------------------------------

DIRT = {
    "-9999": lambda x: {1000: -9999.0}, "1e3": lambda x: {1000: 1e3}, "1e9": lambda x: {1000: 1e9},
    "1e30": lambda x: {1000: 1e30}, "early": lambda x: {5: 1e9}, "before it is judged": lambda x: {30: -9999.0},
    "10 rows": lambda x: dict.fromkeys(range(1000, 1010), -9999.0),
    "10 rows of 1e9": lambda x: dict.fromkeys(range(1000, 1010), 1e9),
    "on and off": lambda x: dict.fromkeys(range(1000, 1020, 2), 1e6),
    "stuck": lambda x: dict.fromkeys(range(1000, 1300), x[1000]),
    "stuck at 0": lambda x: dict.fromkeys(range(1000, 1300), 0.0),
    "missing": lambda x: dict.fromkeys(range(900, 1400), math.nan),
}
BASES = {
    "wave": (lambda rng, t: np.sin(t / 20) + 0.1 * rng.standard_normal(len(t)), 0.1),
    "normal": (lambda rng, t: rng.standard_normal(len(t)), 1.0),
    "random walk": (lambda rng, t: rng.standard_normal(len(t)).cumsum(), 1.0),
    "counts": (lambda rng, t: rng.poisson(5, len(t)).astype(float), 2.2),
    "constant": (lambda rng, t: np.full(len(t), 5.0), 1.0),
}


@pytest.mark.parametrize("dirt", DIRT)
@pytest.mark.parametrize("base", ["wave", "constant", *(pytest.param(name, marks=pytest.mark.slow) for name in
                                                        ("normal", "random walk", "counts"))])
def test_after_dirt_spikes_and_shifts_are_found_as_without(base, dirt):
    make, sigma = BASES[base]
    x = make(np.random.default_rng(3), np.arange(3600))
    for row, value in DIRT[dirt](x).items():
        x[row] = value
    at = np.arange(1500, 3000, 500)
    x[at] += 50 * sigma
    x[3300:] += 50 * sigma
    scores = scored(x)
    assert all(scores[row:row + 4].max() > ALARM for row in at)
    assert scores[3300:3304].max() > ALARM
    assert (scores[3340:] > ALARM).sum() <= 1


def test_what_the_network_reads_is_bounded():
    x = np.sin(np.arange(1200) / 20)
    x[1000:1010] = 1e30
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0)
    largest = 0.0
    for value in x.tolist():
        detector.learn_one(value)
        largest = max(largest, np.abs(detector._state.x).max(), *map(abs, detector._state.forecast))
    assert largest <= 8
    weight = detector._state.readout.weight
    assert np.isfinite(weight).all() and np.abs(weight).max() < 50


def test_a_row_after_a_gap_may_be_far_away():
    """A random walk goes on while nobody looks: the longer the gap, the less a step over it says."""
    walk = np.random.default_rng(4).standard_normal(2400).cumsum()
    walk[2399] = walk[1999] + 25
    close, far = walk[:2001].copy(), walk.copy()
    close[2000] = walk[1999] + 25
    far[2000:2399] = np.nan
    assert scored(close)[2000] > ALARM > 0.6 > scored(far)[2399]


# ---- The parts ------------------------------------------------------------------------------------

def test_a_level_moves_by_a_bounded_amount():
    level = Level(5000)
    rng = np.random.default_rng(0)
    for value in rng.standard_normal(1000).tolist():
        level.learn(value, False, 1.0)
    mean, deviation = level.mean, level.deviation
    assert level.learn(1e30, True, 1.0) == pytest.approx(4.0)
    assert level.mean - mean == pytest.approx(4 * deviation / 1001) and level.deviation < 1.01 * deviation
    assert level.learn(1e30, True, 0.0) == pytest.approx(4.0)       # a frozen one moves not at all
    assert level.count == 1001


def test_the_read_out_learns_from_clipped_errors():
    """Of an error of 40 scales, within the bounds of what the network reads, four are learnt."""
    x = np.sin(np.arange(1000) / 20) + 0.01 * np.random.default_rng(0).standard_normal(1000)
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:, None])
    channel = detector._state.channels[0]
    scale, deviation = channel.scale, channel.level.deviation
    detector.learn_one(channel.center + 40 * scale)
    assert channel.residual == pytest.approx(4 * scale / deviation)
    scale, deviation = channel.scale, channel.level.deviation
    detector.learn_one(channel.center - 0.5 * scale)
    assert channel.residual == pytest.approx(-0.5 * scale / deviation)


def test_a_glitch_widens_a_range_by_a_bounded_part():
    records = Records(5000, 0.02)
    for row, value in enumerate(np.random.default_rng(0).standard_normal(1000).tolist()):
        records.learn(value, row)
    low, high, mean_excess = records.low, records.high, records.m
    records.learn(1e30, 1000)
    assert records.low == low and high < records.high <= high + 0.5 * (high - low)
    assert records.m < mean_excess + 0.2 * (high - low)
    width = records.high - low
    assert records.bounded(1e30) == pytest.approx(records.high + 0.25 * width) and records.bounded(0.1) == 0.1


def test_the_quantiles_of_a_tail():
    rng = np.random.default_rng(0)
    sample = rng.exponential(2.0, 20_000)
    tail = Tail(1.43, 1.71, 0.15, 3.0, 2.0)
    for value in sample.tolist():
        tail.learn(value, 1.0)
    assert np.mean(sample > tail.q) == pytest.approx(0.1, abs=0.03)
    assert np.mean(sample > tail.u) == pytest.approx(0.02, abs=0.01)
    assert tail.m == pytest.approx(2.0, rel=0.4)
    assert tail.digits(tail.u) == pytest.approx(1.7, abs=0.01) and tail.digits(tail.q) == pytest.approx(1.0)
    further = [tail.digits(value) for value in (0.1, 1, 5, 10, 50, 1e6)]
    assert (np.diff(further) > 0).all()


def test_a_run_is_judged_by_what_was_before_it():
    tail = Tail(1.43, 1.71, 0.15, 3.0, 2.0)
    for value in np.random.default_rng(0).exponential(1.0, 5000).tolist():
        tail.learn(value, 1.0)
    tail.learn(0.0, 1.0)
    before = tail.digits(9.0)
    for _ in range(30):
        assert tail.digits(9.0) == before
        tail.learn(9.0, 1.0)
    tail.learn(0.0, 1.0)
    assert tail.digits(9.0) < before                # the run is over, and was learnt


def test_ranges_forget():
    records = Records(200, 0.02)
    x = np.random.default_rng(0).standard_normal(2000)
    x[:100] *= 10
    for row, value in enumerate(x.tolist()):
        if row - records.start >= 200:
            records.forget(row)
        records.learn(value, row)
    assert records.high < 6
    assert records.digits(30.0, 2000) > 3 > records.digits(records.high + 0.1, 2000)


def test_records_are_expected_of_what_sets_them():
    trend, noise = Records(5000, 0.02), Records(5000, 0.02)
    rng = np.random.default_rng(0).standard_normal(2000)
    for row in range(2000):
        trend.learn(0.1 * row + rng[row], row)
        noise.learn(float(rng[row]), row)
    assert trend.digits(trend.high + 1, 2000) < 2.5 < noise.digits(noise.high + 1, 2000)


# ---- Channels together ----------------------------------------------------------------------------

def related(rows, seed=0):
    """Two channels that nearly agree, and one apart."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(rows)
    return np.stack([common + 0.05 * rng.standard_normal(rows), rng.standard_normal(rows),
                     common + 0.05 * rng.standard_normal(rows)], 1)


def test_an_anomaly_that_every_channel_hides():
    x = related(2000)
    x[1800] = [1.3, 0.0, -1.3]              # neither is unusual alone
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:1500])
    digits = -detector.score_samples(x[1500:])
    assert digits[300] > 5 and (digits > 5).sum() == 1
    by_channel = detector.explain(x[1500:])[300]
    assert by_channel.argmax() in (0, 2) and by_channel.max() > ALARM > by_channel[1]
    alone = RNNAnomalyDetector(hidden_size=8, rules=("error", "average", "range"), random_state=0).fit(x[:1500])
    assert -alone.score_samples(x[1500:])[300] < 2


def test_channels_that_agree_entirely_are_not_alarmed_about():
    x = np.repeat(np.random.default_rng(0).standard_normal((1500, 1)), 3, 1)
    scores = -RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:500]).score_samples(x[500:])
    assert np.isfinite(scores).all() and (scores > 5).sum() <= 1


def test_missing_channels_are_left_out_of_what_is_judged_together():
    x = related(1500)
    x[1000:, 2] = np.nan
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:1000])
    digits = -detector.score_samples(x[1000:])
    assert np.isfinite(digits).all() and (digits > 5).sum() <= 1


# ---- Frozen, and going on -------------------------------------------------------------------------

def test_a_frozen_detector_goes_on_alarming():
    """Where a long anomaly is learnt by an online model."""
    x = np.sin(np.arange(3000) / 8) + 0.05 * np.random.default_rng(0).standard_normal(3000)
    x[2000:] = 1.5 + 0.05 * np.random.default_rng(1).standard_normal(1000)
    share = {}
    for adapt in (1.0, 0.1, 0.0):
        detector = RNNAnomalyDetector(hidden_size=16, adapt=adapt, random_state=0).fit(x[:1500, None])
        labels = detector.predict(x[1500:, None])
        assert (labels[:500] == -1).sum() <= 1
        share[adapt] = np.mean(labels[500:] == -1)
    assert share[0.0] > 0.9 and share[1.0] < 0.1 and share[1.0] <= share[0.1] <= share[0.0]


def test_a_frozen_detector_learns_nothing():
    x = np.sin(np.arange(900) / 8)[:, None] + 0.05 * np.random.default_rng(0).standard_normal((900, 2))
    detector = RNNAnomalyDetector(hidden_size=8, adapt=0, random_state=0).fit(x[:500])
    state = detector._state
    arrays, covariance = state.readout.arrays.copy(), state.joint.covariance.copy()
    before = [(c.level.mean, c.level.deviation, c.point.u, c.average_error.m, c.fast, c.slow, c.ranges.high)
              for c in state.channels]
    for row in 10 * x[500:]:
        detector.learn_one(row)
    np.testing.assert_array_equal(state.readout.arrays, arrays)
    np.testing.assert_array_equal(state.joint.covariance, covariance)
    assert before == [(c.level.mean, c.level.deviation, c.point.u, c.average_error.m, c.fast, c.slow, c.ranges.high)
                      for c in state.channels]


@pytest.mark.parametrize("adapt", [0.0, 0.3, 1.0])
def test_one_call_or_two_with_the_rows_learnt_between(adapt):
    walk = np.random.default_rng(1).standard_normal(1000).cumsum()[:, None]
    detector = RNNAnomalyDetector(adapt=adapt, random_state=0).fit(walk[:500])
    at_once = detector.score_samples(walk[500:])
    first = detector.score_samples(walk[500:750])
    again = detector.partial_fit(walk[500:750]).score_samples(walk[750:])
    np.testing.assert_array_equal(np.r_[first, again], at_once)


def test_rules_are_turned_off():
    x = np.random.default_rng(0).standard_normal(1200)
    x[1000] = 30
    on = {rules: scored(x, rules=rules)[1000] for rules in [("error",), ("average",), ("range",), ("joint",)]}
    assert on["error",] > ALARM and 0 < on["average",] < ALARM < on["range",]
    assert on["joint",] == 0                      # there is but one channel
    every = scored(x)
    assert every[1000] == pytest.approx(max(on.values()))


# ---- Lags -----------------------------------------------------------------------------------------

def test_lags_forecast_what_a_ridge_regression_does():
    """At least as well as a ridge regression of 16 lags, on series that such a one is right for."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(4000)
    series = {"noise": noise, "wave": 5 * np.sin(np.arange(4000) / 4) + noise, "walk": noise.cumsum()}
    x = np.zeros(4000)
    for t in range(12, 4000):
        x[t] = 0.5 * x[t - 1] + 0.45 * x[t - 12] + noise[t]
    series["season"] = x
    for name, x in series.items():
        lagged = np.lib.stride_tricks.sliding_window_view(x, 16)[:-1]
        design, y = np.c_[lagged, np.ones(len(lagged))], x[16:]
        ridge = np.linalg.solve(design[:1984].T @ design[:1984] + np.eye(17), design[:1984].T @ y[:1984])
        detector, misses = RNNAnomalyDetector(random_state=0), []
        for value in x.tolist():
            misses.append(value - (0 if detector._state is None else detector._state.channels[0].center))
            detector.learn_one(value)
        assert np.abs(misses[2000:]).mean() < 1.05 * np.abs(y - design @ ridge)[1984:].mean(), name


def test_fewer_lags_for_more_channels():
    for channels, lags in ((1, 16), (2, 16), (8, 4), (50, 1)):
        detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(np.zeros((20, channels)))
        assert detector._state.readout.lags == lags
    assert RNNAnomalyDetector(hidden_size=4, lags=3).fit(np.zeros((20, 8)))._state.readout.lags == 3


# ---- Times ----------------------------------------------------------------------------------------

def watches(rows, seed=0):
    """A daily wave, looked at after an hour and up to twenty: without the times nobody knows what comes next."""
    rng = np.random.default_rng(seed)
    hours = np.datetime64("2024-01-01T00", "h") + rng.integers(1, 20, rows).cumsum()
    angle = 2 * np.pi * (hours - np.datetime64("2024-01-01T00", "h")).astype(float) / 24
    return hours, 3 * np.sin(angle) + 0.3 * rng.standard_normal(rows)


def test_times_are_learnt_from():
    hours, x = watches(2000)
    misses = {}
    for name, times in (("with", hours), ("without", None)):
        known = {} if times is None else {"times": times[:1500]}
        detector, errors = RNNAnomalyDetector(random_state=0).fit(x[:1500, None], **known), []
        for row in range(1500, 2000):
            time = None if times is None else times[row]
            detector.score_one(x[row], time)
            errors.append(x[row] - detector._state.channels[0].center)
            detector.learn_one(x[row], time)
        misses[name] = np.abs(errors).mean()
    assert misses["with"] < 0.3 and misses["without"] > 1.5, misses


def test_times_in_every_form_are_the_same():
    pandas = pytest.importorskip("pandas")
    hours, x = watches(480)
    options = dict(hidden_size=4, random_state=0)
    texts = hours.astype(str).tolist()
    zoned = pandas.DatetimeIndex(hours).tz_localize("Africa/Nairobi")
    detector = RNNAnomalyDetector(**options).fit(x[:300, None], times=hours[:300])
    expected = detector.score_samples(x[300:, None], times=hours[300:])
    moments = hours.astype("datetime64[us]").astype(datetime.datetime).tolist()
    for times in (texts, moments, pandas.Series(hours), zoned):
        detector = RNNAnomalyDetector(**options).fit(x[:300, None], times=times[:300])
        np.testing.assert_array_equal(detector.score_samples(x[300:, None], times=times[300:]), expected)
    frame = pandas.DataFrame({"x": x}, index=zoned)
    detector = RNNAnomalyDetector(**options).fit(frame[:300])
    np.testing.assert_array_equal(detector.score_samples(frame[300:]), expected)
    streamed = []
    for time, value in zip(zoned[300:], x[300:].tolist(), strict=True):
        streamed.append(detector.score_one(value, time))
        assert detector.explain_one(value, time)[0] == streamed[-1]
        detector.learn_one(value, time)
    np.testing.assert_array_equal(streamed, [score_of(-digits) for digits in expected])


def test_a_time_that_was_not_expected_gets_its_own_forecast():
    hours, x = watches(600)
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:, None], times=hours)
    next_hour = hours[-1] + np.timedelta64(1, "h")
    as_expected = detector.score_one(0.1, next_hour)
    assert detector.score_one(0.1, next_hour + np.timedelta64(9, "h")) != as_expected
    assert detector.score_one(0.1, next_hour) == as_expected


def test_times_are_given_with_every_row_or_none():
    hours, x = watches(240)
    with_times = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:, None], times=hours)
    without = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:, None])
    for call, match in ((lambda: with_times.score_samples(x[:, None]), "times: expected the time of every row"),
                        (lambda: with_times.learn_one(0.1), "time: expected the time of the row"),
                        (lambda: without.score_samples(x[:, None], times=hours), "times: expected None"),
                        (lambda: without.score_one(0.1, hours[0]), "time: expected None"),
                        (lambda: with_times.predict(x[:, None], times=hours[:5]), "expected 240 of them"),
                        (lambda: with_times.score_one(0.1, "noon"), "time: expected datetimes, got 'noon'"),
                        (lambda: with_times.fit(x[:, None], times=np.arange(240)), "times: expected datetimes")):
        with pytest.raises((TypeError, ValueError), match=match):
            call()
    regardless = RNNAnomalyDetector(hidden_size=4, time_features=(), random_state=0).fit(x[:, None], times=hours)
    assert regardless.score_one(0.1) == without.score_one(0.1)


def test_times_that_run_backwards_are_refused():
    hours, x = watches(240)
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:, None], times=hours)
    state = detector.snapshot()
    wrong = hours.copy()
    wrong[7] = hours[3]
    for call, match in ((lambda: detector.fit(x[:, None], times=wrong), "times: .* in row 7 after "),
                        (lambda: detector.score_samples(x[:, None], times=wrong), "times: .* in row 7 after "),
                        (lambda: detector.partial_fit(x[:5, None], times=hours[:5]), "times: .*that of the last row"),
                        (lambda: detector.learn_one(0.1, hours[-2]), "time: .*that of the last row"),
                        (lambda: detector.score_one(0.1, hours[-2]), "time: .*that of the last row"),
                        (lambda: detector.explain_one(0.1, hours[-2]), "time: .*that of the last row")):
        with pytest.raises(ValueError, match=match):
            call()
        assert detector.snapshot() == state         # nothing is changed
    later = hours[-1] + np.timedelta64(9, "h")
    detector.score_one(0.1, later)                  # what was only asked about is no row that was learnt
    detector.learn_one(0.1, later - np.timedelta64(8, "h"))
    detector.learn_one(0.1, later - np.timedelta64(8, "h"))       # two rows of one time are none that runs backwards
    assert detector.score_samples(x[:, None], times=hours).shape == (240,)      # the rows of ``fit`` may be judged


def test_the_wall_clock_may_go_back_where_times_have_a_zone():
    """In the night of the change 02:00 comes twice; as instants the times rise."""
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2024-10-26", periods=120, freq="30min", tz="Europe/Berlin")
    x = np.sin(np.arange(120) * 2 * np.pi / 48)
    shown = times.tz_localize(None)
    assert (np.diff(shown) < np.timedelta64(0)).any()
    scores = []
    for each in (times, list(times.to_pydatetime()), [time.isoformat() for time in times]):
        detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:48, None], times=each[:48])
        scores.append(detector.score_samples(x[48:, None], times=each[48:]))
        for time, value in zip(each[48:], x[48:].tolist(), strict=True):
            detector.learn_one(value, time)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    with pytest.raises(ValueError, match=r"times: .* in row "):
        RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:, None], times=shown)


def test_times_with_a_zone_and_without_one_do_not_follow_each_other():
    hours, x = watches(240)
    zoned = [time + "+02:00" for time in hours.astype(str).tolist()]
    later = "2031-01-01T00:00"
    options = dict(hidden_size=4, random_state=0)
    with_zone = RNNAnomalyDetector(**options).fit(x[:, None], times=zoned)
    without = RNNAnomalyDetector(**options).fit(x[:, None], times=hours)
    for call, match in ((lambda: with_zone.learn_one(0.1, later), "time: expected times with a zone"),
                        (lambda: without.score_one(0.1, later + "Z"), "time: expected times without a zone"),
                        (lambda: with_zone.score_samples(x[:, None], times=hours), "times: expected times with a zone"),
                        (lambda: without.partial_fit(x[:, None], times=zoned), "times: expected times without a zone"),
                        (lambda: without.fit(x[:3, None], times=[*zoned[:2], later]), "times: expected all times")):
        with pytest.raises(ValueError, match=match):
            call()


def test_training_by_back_propagation_reads_times():
    hours, x = watches(480)
    detector = RNNAnomalyDetector(hidden_size=4, updates=3, random_state=0).fit(x[:, None], times=hours)
    assert detector.model_.input_size == 1 + 12
    assert np.isfinite(detector.score_one(0.1, hours[-1] + np.timedelta64(1, "h")))


@pytest.mark.parametrize("options, error, match", [
    ({"adapt": 1.5}, ValueError, "adapt"), ({"adapt": -0.1}, ValueError, "adapt"), ({"lags": 0}, ValueError, "lags"),
    ({"lags": 1.5}, TypeError, "lags"), ({"rules": ("error", "vibes")}, ValueError, "rules"),
    ({"rules": ()}, ValueError, "rules: expected one of .* at least, got"),
    ({"time_features": ("hour",)}, ValueError, "time_features")])
def test_unsuitable_parameters(options, error, match):
    with pytest.raises(error, match=match):
        RNNAnomalyDetector(**options).fit(np.zeros((60, 1)))
