"""The anomaly detector: what it finds, its equations, no look ahead, and the manners of its two protocols."""

import copy
import math
import pickle

import numpy as np
import pytest
from child import python

import fastrnn
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.anomaly.fitting import train
from fastrnn.anomaly.likelihood import score_of
from fastrnn.anomaly.readout import Readout

ALARM = 5 / 6           # the score above which p < 1e-5


def wave(rows=1500, channels=1, seed=0, noise=0.05):
    """Sines of unlike periods with noise, [rows, channels]."""
    t = np.arange(rows)[:, None]
    return (np.sin(t / (5 + 3 * np.arange(channels)))
            + noise * np.random.default_rng(seed).standard_normal((rows, channels)))


def watched(detector, x, scores=True):
    """Scores of rows as river walks a stream."""
    results = []
    for row in x:
        results.append(detector.score_one(row) if scores else None)
        detector.learn_one(row)
    return np.array(results)


@pytest.fixture
def detector():
    return RNNAnomalyDetector(hidden_size=8, random_state=0)


# ---- What it finds --------------------------------------------------------------------------------

@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_what_is_in_range_but_not_what_was_to_come(cell):
    x = wave()
    x[1200:1206] *= -1
    scores = watched(RNNAnomalyDetector(cell, 16, margin=None, random_state=0), x)
    assert scores[1200:1210].max() > ALARM
    assert scores[300:1200].max() < ALARM and np.mean(scores[300:1200]) < 0.15


def test_what_leaves_the_range():
    x = wave(noise=0.5)
    x[1200] = 1.05 * x.max()
    with_range, without = (watched(RNNAnomalyDetector(hidden_size=8, margin=margin, random_state=0), x)[1200]
                           for margin in (0.02, None))
    assert with_range > 1.3 * without


def test_a_level_that_creeps_out_is_seen_by_its_average():
    """No value alone leaves the range of noise, their mean does."""
    rng = np.random.default_rng(0)
    x = np.clip(rng.standard_normal((1200, 1)), -2, 2)
    x[:10] = 0                                      # where an average of few values would reach far
    x[1000:] = 1.8 + 0.05 * rng.standard_normal((200, 1))
    with_range, without = (watched(RNNAnomalyDetector(hidden_size=8, margin=margin, random_state=0), x)[1003:1020]
                           for margin in (0.05, None))
    assert with_range.max() > 1.5 * without.max() and x.max() < 2.4


def test_it_adapts():
    """A new normal is unusual at first, and then no more."""
    x = wave(4000)
    x[2000:] = 3 + np.sin(np.arange(2000)[:, None] / 2.5) + 0.05 * np.random.default_rng(1).standard_normal((2000, 1))
    scores = watched(RNNAnomalyDetector(hidden_size=16, memory=500, random_state=0), x)
    assert scores[2000:2010].max() > 0.9
    assert np.mean(scores[3000:] > ALARM) < 0.005


def test_a_steady_series_alarms_at_nothing():
    scores = watched(RNNAnomalyDetector(random_state=0), [1.0] * 300)
    assert not scores.any()


NOISE = {"normal": lambda rng: rng.standard_normal(20_000), "uniform": lambda rng: rng.random(20_000),
         "heavy tails": lambda rng: rng.standard_t(3, 20_000), "lognormal": lambda rng: rng.lognormal(size=20_000)}


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISE)
def test_likelihood_is_calibrated(noise):
    """On noise, p <= 10^-digits comes about so often: near to it at 0.1, and further out as the class says."""
    x = NOISE[noise](np.random.default_rng(3))
    scores = watched(RNNAnomalyDetector(hidden_size=8, margin=None, random_state=0), x.tolist())[2000:]
    rates = [np.mean(scores >= digits / 6) for digits in (1, 2, 3)]
    assert 0.08 <= rates[0] <= 0.11
    assert 0.0005 <= rates[1] <= 0.02
    assert rates[2] <= 0.004
    if noise == "normal":
        assert 0.004 <= rates[1] <= 0.012 and 0.0001 <= rates[2] <= 0.002


def test_training_by_back_propagation_forecasts_better():
    """Of a series whose next value is a product of the last two, which no linear read-out of values can know."""
    rng = np.random.default_rng(0)
    signs = np.sign(rng.standard_normal(3000))
    for t in range(2, 3000, 3):
        signs[t] = signs[t - 1] * signs[t - 2]
    errors = {}
    for epochs in (0, 30):
        detector = RNNAnomalyDetector(hidden_size=16, margin=None, updates=2 * epochs, random_state=0)
        detector.fit(signs[:2500, None])
        products = []
        for value in signs[2500:].tolist():
            products.append(detector._state.forecast[0] * value)
            detector.learn_one(value)
        errors[epochs] = np.mean(products[2 - 2500 % 3::3])
    assert errors[30] > errors[0] + 0.1, errors


# ---- Channels -------------------------------------------------------------------------------------

def test_explains_which_channel():
    x = wave(900, 3)
    x[800, 1] += 3
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:700])
    by_channel = detector.explain(x[700:])
    assert by_channel.shape == (200, 3) and by_channel[100].argmax() == 1 and by_channel[100, 1] > 0.9
    assert by_channel[100, [0, 2]].max() < 0.7
    digits = -detector.score_samples(x[700:])
    largest = by_channel.max(1)
    by_channel_digits = np.where(largest <= ALARM, 6 * largest, largest / (1 - largest))
    expected = np.maximum(by_channel_digits - math.log10(4), 0)      # Bonferroni's correction: three, and all together
    np.testing.assert_allclose(digits, expected, rtol=1e-9, atol=1e-12)


def test_names_of_channels():
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0)
    for row in wave(100, 2).tolist():
        detector.learn_one(dict(zip(("load", "heat"), row, strict=True)))
    assert list(detector.feature_names_in_) == ["load", "heat"]
    scores = detector.explain_one({"heat": 9.0, "load": 0.0})
    assert list(scores) == ["load", "heat"] and scores["heat"] > 0.9 > scores["load"]
    assert detector.score_one({"heat": 9.0}) > 0.9                # what is left out is missing
    with pytest.raises(ValueError, match="expected values of load, heat, got cold"):
        detector.score_one({"cold": 1.0})


def test_a_frame_and_an_array_are_the_same():
    pandas = pytest.importorskip("pandas")
    x = wave(200, 2)
    frame = pandas.DataFrame(x, columns=["a", "b"])
    of_frame, of_array = (RNNAnomalyDetector(hidden_size=4, random_state=0).fit(data) for data in (frame, x))
    np.testing.assert_array_equal(of_frame.score_samples(frame), of_array.score_samples(x))
    assert list(of_frame.feature_names_in_) == ["a", "b"] and not hasattr(of_array, "feature_names_in_")


# ---- Missing values -------------------------------------------------------------------------------

def test_missing_values_score_nothing_and_are_bridged():
    x = wave(1200)
    x[::7] = np.nan
    x[1000:1010] = np.nan
    scores = watched(RNNAnomalyDetector(hidden_size=16, random_state=0), x)
    assert not scores[np.isnan(x[:, 0])].any() and np.isfinite(scores).all()
    assert scores[300:].max() < ALARM
    x[1100] = 5
    assert watched(RNNAnomalyDetector(hidden_size=16, random_state=0), x)[1100] > 0.9


def test_none_is_nan_and_a_row_of_missing_values_changes_no_statistics(detector):
    for value in wave(200)[:, 0].tolist():
        detector.learn_one(value)
    other = copy.deepcopy(detector)
    detector.learn_one(None)
    other.learn_one(math.nan)
    assert detector.score_one(0.3) == other.score_one(0.3)
    assert other._state.channels[0].level.count == 200


def test_a_value_is_judged_anew_after_a_missing_row():
    """The network went on by its own forecast, so the same value meets another one."""
    detector = RNNAnomalyDetector(hidden_size=8, margin=None, random_state=0)
    watched(detector, wave(300)[:, 0].tolist(), scores=False)
    other = copy.deepcopy(detector)
    before = detector.score_one(0.5)
    detector.learn_one(math.nan)
    other.learn_one(math.nan)
    assert detector.score_one(0.5) == other.score_one(0.5) != before


def test_all_missing():
    x = np.full((100, 2), np.nan)
    for updates in (0, 1):
        detector = RNNAnomalyDetector(hidden_size=4, updates=updates, random_state=0).fit(x)
        assert not detector.score_samples(x).any()


# ---- One order of time ----------------------------------------------------------------------------

def test_no_row_is_seen_before_its_turn(detector):
    """Scores of a beginning do not depend on what follows."""
    x = wave(400, 2)
    whole = watched(detector, x)
    changed = np.vstack([x[:250], 100 * x[:150]])
    other = watched(RNNAnomalyDetector(hidden_size=8, random_state=0), changed)
    np.testing.assert_array_equal(other[:250], whole[:250])


@pytest.mark.parametrize("updates", [0, 2])
@pytest.mark.parametrize("refractory", [0, 20])
def test_streamed_and_at_once_are_the_same(updates, refractory):
    x = wave(500, 2)
    x[400] = 4
    detector = RNNAnomalyDetector(hidden_size=8, updates=updates, refractory=refractory, random_state=0).fit(x[:300])
    at_once = detector.score_samples(x[300:])
    np.testing.assert_array_equal(detector.score_samples(x[300:]), at_once)         # it learned on a copy
    np.testing.assert_array_equal(watched(detector, x[300:]), [score_of(-digits) for digits in at_once])
    again = RNNAnomalyDetector(hidden_size=8, updates=updates, refractory=refractory, random_state=0).fit(x[:300])
    again.partial_fit(x[300:380]).partial_fit(x[380:])
    assert again.score_one(x[0]) == detector.score_one(x[0])


def test_scoring_changes_nothing(detector):
    watched(detector, wave(200))
    expected = detector.score_one(0.7)
    for value in (9.0, -4.0, 0.1, math.nan):
        detector.score_one(value)
        detector.explain_one(value)
    assert detector.score_one(0.7) == expected
    fresh = RNNAnomalyDetector(hidden_size=8, random_state=0)
    watched(fresh, wave(200), scores=False)
    assert fresh.score_one(0.7) == expected


def test_an_alarm_is_raised_once():
    x = wave(800)
    x[600:640] = 4.0
    raised, all_ = (watched(RNNAnomalyDetector(hidden_size=8, refractory=rows, random_state=0), x) for rows in (50, 0))
    assert raised[600] == all_[600] > 0.9 and not raised[601:640].any() and all_[601:603].max() > 0
    later = np.flatnonzero(raised)
    assert all(raised[row] > raised[max(0, row - 50):row].max(initial=0) for row in later)


# ---- The equations, written again -----------------------------------------------------------------

class Written:
    """The quantiles and the mean excess of a tail, once more; `following`: how many m an excess of a run counts for."""

    def __init__(self, q, u, m, power, following):
        self.q, self.u, self.m, self.power, self.following = q, u, m, power, following
        self.k, self.n, self.quiet = 8, 25, 0
        self.held = u, m                        # as they were before a run of rows above q

    def digits(self, x):
        u, m = self.held
        if x > u:
            return 1.7 + self.k * math.log10(1 + (x - u) / (self.k * m))
        return 1 + 0.7 * (x - self.q) / (u - self.q) if x > self.q else (x / self.q) ** self.power

    def learn(self, x):
        if x <= self.q:
            self.held = self.u, self.m
        self.n, self.quiet = min(self.n + 1, 2000), self.quiet + 1
        above_q, above_u, u = x > self.q, x > self.u, self.u
        longer = self.quiet / 50 if self.quiet > 200 and not above_q else 1
        step = self.m / self.n * longer
        lower = max(self.m / min(self.n, 500), step if longer > 1 else 0)
        new = self.u + (49 if above_u else -1) * step
        if above_q:
            self.q += 9 * lower
            self.u = max(new, 1.05 * self.q)
        else:                                   # neither falls below the other, or below 0.3
            self.q -= lower if self.q > 0.3 + lower else 0
            self.u = new if new > 1.05 * self.q else u
        if above_u:
            self.k = min(self.k + 1, 48)
            most, self.quiet = 4 if self.quiet >= 10 else self.following, 0
            self.m = max(self.m + (min(x - u, most * self.m) - self.m) / self.k, 0.02)


def test_scores_follow_the_equations():
    """The detector of one channel in plain NumPy: reservoir, lags, least squares, scales of errors, tails."""
    x, H, L, lam = wave(400)[:, 0], 6, 3, 0.99
    x[300] += 0.5
    detector = RNNAnomalyDetector(hidden_size=H, lags=L, forgetting=lam, margin=None, random_state=0)
    scores = watched(detector, x.tolist())
    layer, size = detector.model_, H + L + 1
    P, W, h = np.eye(size), np.eye(size)[H:H + 1].copy(), np.zeros((1, 1, H), np.float32)
    f, lags, forecast = None, np.zeros(L), 0.0
    repaired, left, other, seconds = None, 0, None, 0       # the lags without doubtful values, and their forecast
    point, average = Written(1.43, 1.71, 0.15, 3, 2), Written(1.11, 1.22, 0.055, 6, 4)
    error = 0.92
    for t, value in enumerate(x):
        if t < 10:                              # median, and clipped distances from it
            seen = np.sort(x[:t + 1])
            mean = seen[len(seen) // 2]
            distance = np.sort(np.abs(seen - mean))
            variance = np.mean(np.minimum(distance, 3 * 1.4826 * distance[len(seen) // 2]) ** 2)
            deviation = max(math.sqrt(variance), 4e-15 * abs(mean))
            z = np.clip((value - mean) / deviation, -4, 4)
            fast = slow = deviation / 1.2533
        else:
            scale = max(math.sqrt(fast * slow), 0.05 * deviation)
            miss, expected = value - (mean + deviation * forecast), forecast
            second = other is not None and abs(value - (mean + deviation * other)) < abs(miss)
            if second:
                miss, expected, seconds = value - (mean + deviation * other), other, seconds + 1
            own = math.sqrt(abs(miss) / max(slow, 0.05 * deviation))
            likely = point.held[0] + 5 * point.held[1]
            error += (min(math.sqrt(abs(miss) / scale), likely) - error) / 4
            alone, together = point.digits(own), average.digits(error) - 0.6
            digits = max(alone - 0.1, min(together, alone + 1.5), 0) if t >= 50 else 0
            assert scores[t] == pytest.approx(digits / 6 if digits <= 5 else digits / (digits + 1), abs=1e-9), t
            z = (value - mean) / deviation
            clipped = 0 if second else np.clip(miss, -4 * scale, 4 * scale) / deviation
            doubted = t >= 30 and own > point.held[0] + 2 * point.held[1]
            assert abs(z) < 4                   # beyond, other rules hold
            surprise = min(abs(miss), 5 * scale)
            rows = t - 10 + 5
            fast, slow = fast + (surprise - fast) / min(rows, 32), slow + (surprise - slow) / min(rows, 2000)
            if t >= 30:
                point.learn(own)
                average.learn(error)
            gain = P @ f / (lam + f @ P @ f)
            W += clipped * gain
            P = P - np.outer(gain, f @ P)
            if np.trace(P) < 10 * size:
                P /= lam
            mean, variance = (mean + deviation * z / (t + 1),
                              (1 - 1 / (t + 1)) * (variance + (deviation * z) ** 2 / (t + 1)))
            deviation = math.sqrt(variance)
        h = layer(np.float32([[[z]]]), h)[1]
        before, lags = lags, np.r_[z, lags[:-1]]
        f = np.r_[h.ravel(), lags, 1.0]
        forecast, other = float(np.clip(W[0] @ f, -8, 8)), None
        if t >= 10 and (doubted or left):
            repaired = np.r_[expected if doubted else z, (repaired if left else before)[:-1]]
            left = L if doubted else left - 1
            other = float(np.clip(W[0] @ np.r_[h.ravel(), repaired, 1.0], -8, 8)) if left else None
    assert scores[300] > 0.5 and seconds > 0


def test_least_squares_stay_sound_for_long():
    """Constant input: nothing new comes in, and the inverse correlation neither grows nor loses its symmetry."""
    readout = Readout(1, 4, 0.99)
    for _ in range(20_000):
        forecast = readout.forecast(np.float32([0.1, 0.2, 0.3, 0.4]), [1.0])
        readout.learn([0.5 - forecast[0]])
    P = readout.arrays[:readout.size] * readout.scale
    assert np.isfinite(P).all() and np.array_equal(P, P.T) and np.linalg.eigvalsh(P).min() > 0
    assert abs(readout.forecast(np.float32([0.1, 0.2, 0.3, 0.4]), [1.0])[0] - 0.5) < 1e-6


# ---- scikit-learn's and river's manners ------------------------------------------------------------

def test_predict_is_the_sign_of_decision_function():
    x = wave(900)
    x[800] = 5
    detector = RNNAnomalyDetector(hidden_size=8, random_state=0).fit(x[:700])
    scores, decision = detector.score_samples(x[700:]), detector.decision_function(x[700:])
    np.testing.assert_array_equal(decision, scores - detector.offset_)
    np.testing.assert_array_equal(detector.predict(x[700:]), np.where(decision < 0, -1, 1))
    assert detector.predict(x[700:])[100] == -1 and scores.min() < -5 and scores.max() <= 0


def test_contamination_is_the_part_called_outliers():
    x = wave(1000)
    labels = RNNAnomalyDetector(hidden_size=8, contamination=0.1, random_state=0).fit_predict(x)
    assert np.mean(labels == -1) == pytest.approx(0.1, abs=0.01)


def test_pickled_cloned_copied(detector):
    base = pytest.importorskip("sklearn.base")
    x = wave(400)
    detector.fit(x[:300])
    expected = detector.score_samples(x[300:])
    for other in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):
        np.testing.assert_array_equal(other.score_samples(x[300:]), expected)
        watched(other, x[300:])
    np.testing.assert_array_equal(detector.score_samples(x[300:]), expected)         # the copies are their own
    twin = base.clone(detector)
    assert twin.get_params() == detector.get_params() and not hasattr(twin, "model_")
    assert repr(twin) == "RNNAnomalyDetector(hidden_size=8, random_state=0)"


@pytest.mark.parametrize("make", [lambda: 7, lambda: np.random.default_rng(7), lambda: np.random.RandomState(7)])
def test_random_states_as_scikit_learn_takes_them(make):
    x = wave(300)
    a, b, other = (RNNAnomalyDetector(hidden_size=4, random_state=state).fit(x[:200]).score_samples(x[200:])
                   for state in (make(), make(), 8))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, other)


def test_cells_by_name_in_any_case():
    x = wave(300)
    a, b = (RNNAnomalyDetector(cell, 4, random_state=0).fit(x[:200]).score_samples(x[200:])
            for cell in ("lstm", "LSTM"))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("rows, batch_size, expected", [(1000, 16, 40), (5000, 16, 40), (900, 4, 39), (9000, 4, 46)])
def test_updates_do_not_depend_on_the_length_of_the_series(monkeypatch, rows, batch_size, expected):
    """But for the rounding to whole passes: one over 9,000 rows is 23 minibatches of 4 pieces."""
    made = []
    step = fastrnn.optim.Adam.step
    monkeypatch.setattr(fastrnn.optim.Adam, "step", lambda *arguments: made.append(arguments) or step(*arguments))
    model = fastrnn.Sequential(fastrnn.GRU(1, 4, rng=0), fastrnn.Linear(4, 1, rng=1))
    train(model, wave(rows), 40, batch_size, 0.01, np.random.default_rng(0))
    assert len(made) == expected


def test_old_and_misspelt_names_of_parameters_are_errors():
    for name in ("epochs", "lr", "rate", "hidden", "seed"):
        with pytest.raises(TypeError, match=name):
            RNNAnomalyDetector(**{name: 1})


# check -> why it does not apply. Rows of X are consecutive in time.
EXCEPTIONS = {
    "check_outliers_train": "asks for outliers among independent draws of blobs; 'auto' means p < 1e-5, and none of "
                            "these 300 rows is that unlikely (contamination=0.1 passes)",
    "check_outliers_fit_predict": "the same",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimator RNNAnomalyDetector does not inherit:UserWarning")
@pytest.mark.parametrize("options, exceptions", [({}, EXCEPTIONS), ({"contamination": 0.1}, {}),
                                                 ({"updates": 1}, EXCEPTIONS)])
def test_check_estimator(options, exceptions):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(RNNAnomalyDetector(hidden_size=4, **options), expected_failed_checks=exceptions,
                                     on_skip=None)
    status = {}
    for result in results:
        status.setdefault(result["status"], set()).add(result["check_name"])
    assert status.get("xfail", set()) == set(exceptions) and len(status["passed"]) > 35
    assert status.keys() <= {"passed", "xfail", "skipped"}
    assert status.get("skipped", set()) <= {"check_array_api_input"}       # it asks for an environment variable


def test_rivers_order_from_nothing(detector):
    assert detector.score_one(1.0) == 0.0           # before anything was learnt
    assert detector.score_one({"a": 1.0}) == 0.0
    detector.learn_one(1.0)
    assert detector.n_features_in_ == 1 and detector.score_one(5.0) == 0.0


def test_nothing_else_is_imported():
    assert python("""
        import sys, numpy
        before = set(sys.modules)
        from fastrnn.anomaly import RNNAnomalyDetector
        detector = RNNAnomalyDetector(updates=1).fit(numpy.sin(numpy.arange(200))[:, None])
        detector.predict(numpy.ones((3, 1))), detector.score_one(0.0), repr(detector)
        loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {"numpy"}
        print(*sorted(name for name in loaded if "cython" not in name))
    """, prelude="").split() == ["fastrnn"]


# ---- Errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, error, match", [
    ({"cell": "mlp"}, ValueError, "cell"), ({"cell": 3}, (TypeError, ValueError), "cell"),
    ({"hidden_size": 0}, ValueError, "hidden_size"), ({"hidden_size": 2.5}, TypeError, "hidden_size"),
    ({"num_layers": -1}, ValueError, "num_layers"), ({"updates": -1}, ValueError, "updates"),
    ({"batch_size": 0}, ValueError, "batch_size"),
    ({"learning_rate": 0}, ValueError, "learning_rate"), ({"forgetting": 0}, ValueError, "forgetting"),
    ({"forgetting": 1.1}, ValueError, "forgetting"), ({"memory": 10}, ValueError, "memory"),
    ({"margin": -1}, ValueError, "margin"), ({"margin": math.nan}, ValueError, "margin"),
    ({"refractory": -1}, ValueError, "refractory"), ({"contamination": 0.6}, ValueError, "contamination"),
    ({"contamination": "much"}, (TypeError, ValueError), "contamination"),
    ({"random_state": "a"}, TypeError, "random_state"), ({"random_state": True}, TypeError, "random_state")])
def test_unsuitable_parameters(options, error, match):
    detector = RNNAnomalyDetector(**options)
    with pytest.raises(error, match=match):
        detector.fit(wave(100))
    assert not hasattr(detector, "model_")


@pytest.mark.parametrize("X, match", [
    (np.ones(5), "2D"), (np.ones((2, 3, 4)), "2D"), (np.ones((0, 2)), "0 sample"),
    (np.full((5, 1), np.inf), "infinity"),
    (np.full((5, 1), 1e200), "within"), (None, "None"), ([["a"]], "could not convert|numbers")])
def test_unsuitable_rows(detector, X, match):
    with pytest.raises((TypeError, ValueError), match=match):
        detector.fit(X)
    assert not hasattr(detector, "model_")


@pytest.mark.parametrize("x", [math.inf, -math.inf, 1e101, [1.0, 2.0], [[1.0]], "a", {"a": 1.0}, [], 1j])
def test_unsuitable_values(detector, x):
    detector.fit(wave(100))
    before = detector.score_one(0.5)
    for call in (detector.score_one, detector.learn_one, detector.explain_one):
        with pytest.raises((TypeError, ValueError), match="x"):
            call(x)
    assert detector.score_one(0.5) == before


def test_before_fit(detector):
    for call in (detector.score_samples, detector.decision_function, detector.predict, detector.explain):
        with pytest.raises(AttributeError, match="not fitted"):
            call(wave(10))
    with pytest.raises(ValueError, match="3 features"):
        detector.fit(wave(60, 2)).predict(wave(10, 3))


def test_values_of_any_size():
    """Tiny, huge and far from zero: scores are about relations, so scale and place hardly matter."""
    x = wave(600)
    x[500] = 4
    for scale, place in ((1e-90, 0), (1e90, 0), (1.0, 1e7)):
        scores = watched(RNNAnomalyDetector(hidden_size=8, random_state=0), scale * x + place)
        assert scores[500] > 0.9 and np.isfinite(scores).all()
