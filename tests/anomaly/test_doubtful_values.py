"""Rows behind a glitch, and what a row's own error, leaving a range and many channels count for."""

import numpy as np
import pytest

from fastrnn.anomaly import RNNAnomalyDetector, likelihood
from fastrnn.anomaly.alike import judge_alike
from fastrnn.anomaly.likelihood import Channel
from fastrnn.anomaly.readout import Readout
from fastrnn.anomaly.repair import Repair


def digits(x, **options):
    """-log10 p of every row of one channel or several."""
    rows = np.asarray(x, float).reshape(len(x), -1)
    detector = RNNAnomalyDetector(random_state=0, **{"hidden_size": 16} | options).partial_fit(rows[:1])
    return np.r_[0.0, -detector.score_samples(rows[1:])]


def autoregressive(rng, rows, weight=0.95):
    """x_t = weight x_t-1 + noise."""
    x = rng.standard_normal(rows)
    for row in range(1, rows):
        x[row] += weight * x[row - 1]
    return x


# ---- Behind a glitch ------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["autoregressive", "smooth"])
def test_rows_behind_a_glitch_are_not_unusual(kind, monkeypatch):
    """They are forecast as if the glitch had not been; without that some of them rank as high as the glitches."""
    rng = np.random.default_rng(0)
    x = (autoregressive(rng, 2000) if kind == "autoregressive"
         else np.sin(np.arange(2000) / 15) + 0.02 * rng.standard_normal(2000))
    at = np.arange(1000, 2000, 100)
    x[at] += 15 if kind == "autoregressive" else 0.5
    behind = at[:, None] + np.arange(1, 9)

    def highest(**changed):
        for name, value in changed.items():
            monkeypatch.setattr(likelihood, name, value)
        found = digits(x, rules=("error",))
        return found[at].min(), found[behind].max(1).mean()

    glitches, afterwards = highest()
    assert glitches > 5 and afterwards < 2.5
    assert highest(DOUBTED=1e9)[1] > 2 * afterwards        # nothing is ever doubted


def test_a_change_that_lasts_is_followed():
    """Behind a shift of the level the rows as they came forecast better: they are not unusual for long, either."""
    rng = np.random.default_rng(1)
    x = autoregressive(rng, 1500)
    x[1000:] += 12
    found = digits(x, rules=("error",))
    assert found[1000] > 5 and (found[1004:1060] > 3).sum() <= 2


def test_the_second_forecast_is_of_other_last_rows():
    rng = np.random.default_rng(2)
    readout = Readout(2, 5, 0.99, lags=3)
    for _ in range(50):
        readout.forecast(rng.standard_normal(5).astype(np.float32), rng.standard_normal(2).tolist())
        readout.learn(rng.standard_normal(2).tolist())
    h, last = rng.standard_normal(5).astype(np.float32), [0.5, -0.5]
    first = readout.forecast(h, last)
    lagged = readout.lagged.copy()
    assert lagged[:2].tolist() == last
    np.testing.assert_allclose(readout.otherwise(lagged), first, rtol=1e-12)
    lagged[0] = readout.features[5] = 1.0
    np.testing.assert_allclose(readout.weight @ readout.features, readout.otherwise(lagged), rtol=1e-12)
    lagged[:] = 1e9
    assert np.abs(readout.otherwise(lagged)).max() == 8.0


def test_repaired_rows_are_there_for_as_long_as_the_doubtful_one_is_read():
    repair, came = Repair(1, 3), np.array([3.0, 2.0, 1.0])
    repair.learn(came, [0.5], True)                 # 4 came, 0.5 was expected
    assert repair.left == 3 and repair.lagged.tolist() == [0.5, 3.0, 2.0]
    repair.learn(np.array([4.0, 3.0, 2.0]), [5.0], False)
    assert repair.left == 2 and repair.lagged.tolist() == [5.0, 0.5, 3.0]
    repair.learn(np.zeros(3), [6.0], False)
    repair.learn(np.zeros(3), [7.0], False)
    assert repair.left == 0                         # the doubtful row is read no more
    repair.learn(np.array([7.0, 6.0, 5.0]), [1.5], True)
    assert repair.left == 3 and repair.lagged.tolist() == [1.5, 7.0, 6.0]


def test_the_nearer_forecast_judges_and_the_first_one_learns():
    x = autoregressive(np.random.default_rng(3), 600)
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:, None])
    state, (channel,) = detector._state, detector._state.channels
    expected, deviation = channel.forecast, channel.level.deviation
    assert not state.repair.left
    detector.learn_one(channel.center + 10 * deviation)
    assert channel.doubted and state.repair.left == 16 and state.repair.lagged[0] == expected
    other = channel.level.mean + channel.level.deviation * channel.other
    assert other != channel.center
    channel.judge(other)
    assert channel.miss == 0 and channel.expected == channel.other
    channel.judge(channel.center)
    assert channel.miss == 0 and channel.expected == channel.forecast
    weight = state.readout.weight.copy()
    # The first forecast erred by the glitch that it read, so that it has nothing to learn from this value.
    detector.learn_one(other + 0.2 * (other - channel.center))
    assert channel.miss != 0
    assert channel.residual == 0 and np.array_equal(state.readout.weight, weight) and not channel.doubted
    for _ in range(15):
        detector.learn_one(channel.center)
    assert not state.repair.left and np.isnan(channel.other)


def test_a_missing_value_is_not_doubted():
    x = autoregressive(np.random.default_rng(4), 400)
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:, None])
    channel = detector._state.channels[0]
    detector.learn_one(1e3)
    assert channel.doubted
    detector.learn_one(float("nan"))
    assert not channel.doubted and detector._state.repair.left == 15


# ---- What counts ----------------------------------------------------------------------------------

def test_a_glitch_in_a_calm_ranks_no_higher_than_in_a_storm():
    """A row's own error is judged by the errors of some 2000 rows, not by the latest."""
    noise = np.random.default_rng(5).standard_normal(4000)
    calm = noise * np.where(np.arange(4000) // 100 % 2, 0.5, 1.5)
    calm[2550], calm[3650] = 8.0, 8.0                       # in a calm and in a storm
    found = digits(calm, rules=("error",))
    assert found[2550] > 3 and found[3650] > 3
    assert abs(found[2550] - found[3650]) < 1.0


def leaving(explained, channels=1):
    """The digits of a large error that leaves the range, by how much of the variance the forecasts explain."""
    channel, rng = Channel(5000, 0.02, ("range",), channels), np.random.default_rng(6)
    for value in rng.standard_normal(500).tolist():
        channel.expect(0.0)
        channel.learn(value, 1.0)
    channel.expect(0.0)
    channel.slow = channel.level.deviation / 1.2533 * (1 - explained) ** 0.5
    assert channel._explained() == pytest.approx(explained, abs=1e-9)
    return channel.judge(5.0)


def test_leaving_a_range_counts_more_where_forecasts_are_good():
    assert leaving(0.9) > leaving(0.5) + 0.1 > leaving(0.0) + 0.2


def test_ranges_of_many_channels_count_less():
    assert leaving(0.0, 10) == pytest.approx(leaving(0.0) - 1.0)


def channels_with_tails(*tails):
    """Channels whose tails have these quantiles and mean excesses."""
    channels = [Channel(5000, 0.02) for _ in tails]
    for channel, (u, m) in zip(channels, tails, strict=True):
        channel.point.u = channel.point.held_u = u
        channel.point.m = channel.point.held_m = m
    return channels


def judged(channel, w):
    return channel.point.digits(w * channel.gain + channel.offset)


def test_channels_that_differ_by_chance_alone_are_judged_alike():
    channels = channels_with_tails((1.68, 0.14), (1.74, 0.16), (1.71, 0.15))
    alone = [judged(channel, 3.0) for channel in channels]
    judge_alike(channels)
    together = [judged(channel, 3.0) for channel in channels]
    assert np.ptp(alone) > 0.3 and np.ptp(together) < 1e-9
    assert min(alone) < together[0] < max(alone)
    assert judged(channels[0], 1.7098) == pytest.approx(1.7, abs=0.01)      # the mean quantile is that of 2 % for all


def test_channels_of_other_kinds_keep_their_own_tails():
    channels = channels_with_tails((1.7, 0.15), (2.6, 0.6))
    alone = [judged(channel, 4.0) for channel in channels]
    judge_alike(channels)
    together = [judged(channel, 4.0) for channel in channels]
    assert np.ptp(together) > 0.9 * np.ptp(alone)


def test_a_detector_judges_like_channels_alike():
    x = np.random.default_rng(8).standard_normal((2000, 4))
    channels = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x)._state.channels
    assert np.ptp([judged(channel, 2.5) for channel in channels]) < 0.5 * np.ptp(
        [channel.point.digits(2.5) for channel in channels])
    channel = channels[0]
    channel.error_cost = 0.0
    channel.ranges = None
    channel.error = 0.0                             # the average of errors is small
    size = 2.5 ** 2 / (channel.ratio ** 2 * channel.inverse)
    assert channel.judge(channel.center + size) == pytest.approx(judged(channel, 2.5))


def test_the_average_of_errors_hardly_outranks_the_rows_own():
    """So that the rows behind a spike do not rank like it."""
    x = np.random.default_rng(9).standard_normal(1500)
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0, rules=("average",)).fit(x[:, None])
    channel = detector._state.channels[0]
    channel.error = 10.0                            # as behind a great many large errors
    assert channel.judge(channel.center) == pytest.approx(1.5)
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0, rules=("error", "average")).fit(x[:, None])
    channel = detector._state.channels[0]
    far = channel.center + 30.0
    own = channel.judge(far)
    channel.judged, channel.error = np.nan, 10.0
    assert own < channel.judge(far) <= own + 0.1 + 1.5 + 1e-9


def test_a_glitch_in_one_of_several_noisy_channels_ranks_first():
    rng = np.random.default_rng(7)
    x = np.sin(np.arange(3000)[:, None] / [10, 23, 7, 15]) + rng.standard_normal((3000, 4))
    at = np.arange(1050, 3000, 200)
    x[at, rng.integers(4, size=len(at))] += 8
    found = digits(x)
    assert set(np.argsort(found[500:])[-len(at):] + 500) == set(at)
