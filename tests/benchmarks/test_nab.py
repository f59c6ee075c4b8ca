"""benchmarks/nab.py: the published scoring against a plain writing of it, the baseline against its published score."""

import math

import numpy as np
import pytest


@pytest.fixture(scope="module")
def nab(script):
    return script("nab")


def plain_score(lengths, windows, detected, weights):
    """NAB's normalised score, window by window and detection by detection, as the paper words it."""
    hit, false, miss = weights

    def sigma(y):
        return 2 / (1 + math.exp(5 * y)) - 1 if y <= 3 else -1.0
    raw, count = 0.0, 0
    for length, of_file, rows in zip(lengths, windows, detected, strict=True):
        rows = [row for row in rows if row >= min(int(0.15 * length), 750)]
        for first, last in of_file:
            width = last - first + 1
            inside = [row for row in rows if first <= row <= last]
            raw += max((hit * sigma(-(last - row + 1) / width) / sigma(-1) for row in inside), default=-miss)
            count += 1
        for row in rows:
            if not any(first <= row <= last for first, last in of_file):
                before = [(first, last) for first, last in of_file if last < row]
                first, last = before[-1] if before else (0, 0)
                raw += false * (sigma((row - last) / max(last - first, 1)) if before else -1.0)
    return 100 * (raw + miss * count) / ((hit + miss) * count)


@pytest.mark.parametrize("profile", ["standard", "reward_low_FP_rate", "reward_low_FN_rate"])
def test_every_threshold_against_the_plain_score(nab, profile):
    rng = np.random.default_rng(0)
    lengths, windows = (400, 6000, 90), [[(100, 140), (300, 320)], [(2000, 2200)], []]
    scores = [np.round(rng.random(length) ** 40, 2) for length in lengths]        # many equal ones
    scorer = nab.Scorer(lengths, windows)
    thresholds, raw = scorer._sums(scores, profile)
    assert len(thresholds) > 20 and np.all(np.diff(thresholds) < 0)
    for threshold, value in zip(thresholds, raw, strict=True):
        detected = [np.flatnonzero(s >= threshold) for s in scores]
        expected = plain_score(lengths, windows, detected, nab.PROFILES[profile])
        assert scorer.normalised(value, profile) == pytest.approx(expected, abs=1e-9)
    best = max(scorer.normalised(raw, profile))
    assert scorer.best(scores, profile)[0] == pytest.approx(max(best, 0.0))


def test_the_ends_of_the_scale(nab):
    lengths, windows = (1000, 500), [[(400, 500)], [(300, 320), (400, 440)]]
    scorer = nab.Scorer(lengths, windows)
    perfect, late, early = ([np.zeros(length) for length in lengths] for _ in range(3))
    for of_file, firsts, lasts in zip(windows, perfect, late, strict=True):
        for first, last in of_file:
            firsts[first], lasts[last] = 1.0, 1.0
    early[0][100] = early[1][50] = 1.0              # in the probation: 150 and 75 rows
    for profile in nab.PROFILES:
        assert scorer.best(perfect, profile) == (pytest.approx(100.0), 1.0)
        assert 40 < scorer.best(late, profile)[0] < 80
        assert scorer.best(early, profile) == (0.0, math.inf)
        assert scorer.best([np.zeros(length) for length in lengths], profile)[0] == 0.0


def test_a_threshold_chosen_elsewhere(nab):
    scorer = nab.Scorer([1000], [[(400, 500)]])
    scores = np.zeros(1000)
    scores[[400, 900]] = 0.5, 0.9
    assert scorer.at([scores], 0.95) == 0.0                                 # nothing detected
    assert scorer.at([scores], 0.9) == pytest.approx(100 * (-1.11 + 1) / 2, abs=0.01)
    assert scorer.at([scores], 0.6) == scorer.at([scores], 0.9)
    assert scorer.at([scores], 0.5) == pytest.approx(100 * (1 - 0.11 + 1) / 2, abs=0.01)


def test_a_choice_is_judged_on_the_other_half(nab):
    """Two detectors, each perfect on other files: the one that is better here is the worse one there."""
    series = {str(i): (np.zeros(200), [(100, 120)]) for i in range(8)}
    hit = np.zeros(200)
    hit[100] = 1.0
    even, none = ([hit if i % 2 == part else np.zeros(200) for i in range(8)] for part in (0, 2))
    chosen, first = nab.held_out(series, {"none": none, "even": even}, draws=10)
    assert not first.any() and set(np.round(chosen)) <= {0.0, 25.0, 50.0, 75.0, 100.0} and 20 < chosen.mean() < 80
    odd = [hit if i % 2 else np.zeros(200) for i in range(8)]
    chosen, first = nab.held_out(series, {"even": even, "odd": odd}, draws=10)
    assert chosen.max() <= 50.0 and not np.array_equal(chosen, first)


def test_rewards_by_hand(nab):
    reward, window = nab.rewards(40, [(10, 19)])
    assert reward[10] == 1.0 and window[9:11].tolist() == [-1, 0] and np.all(reward[:10] == -1)
    assert reward[19] == pytest.approx((2 / (1 + math.exp(-0.5)) - 1) / (2 / (1 + math.exp(-5)) - 1))
    assert reward[20] == pytest.approx(2 / (1 + math.exp(5 / 9)) - 1)
    assert np.all(np.diff(reward[10:20]) < 0) and np.all(np.diff(reward[20:]) <= 0)


@pytest.fixture(scope="module")
def series(nab, data_dir):
    return nab.load(data_dir / "nab")


def test_all_of_the_data(series):
    assert len(series) == 58 and sum(len(values) for values, _ in series.values()) == 365_558
    assert sum(len(windows) for _, windows in series.values()) == 116
    assert all(0 <= first < last < len(values) for values, windows in series.values() for first, last in windows)


def test_rules_and_constants_that_are_varied_are_the_detectors(nab):
    """A constant of another name would be varied without effect."""
    assert set(nab.RULES) == set(nab.likelihood.RULES) - {"joint"}             # which takes several channels
    for name in filter(str.isupper, nab.VARIED):
        assert any(hasattr(module, name) for module in nab.MODULES), name
    detector = nab.RNNAnomalyDetector()
    assert all(hasattr(detector, name) for name in (*nab.PARAMETERS, *filter(str.islower, nab.VARIED)))


@pytest.mark.slow
def test_the_baseline_has_its_published_scores(nab, series):
    """What NAB's own code says of its windowed Gaussian (results/, in its repository), digit by digit."""
    scorer = nab.Scorer([len(values) for values, _ in series.values()], [windows for _, windows in series.values()])
    scores = [nab.windowed_gaussian(values) for values, _ in series.values()]
    published = {"standard": 39.649523496, "reward_low_FP_rate": 20.867985825, "reward_low_FN_rate": 47.410027158}
    for profile, score in published.items():
        assert scorer.best(scores, profile) == (pytest.approx(score, abs=1e-8), 1.0)
        assert nab.PUBLISHED["windowed Gaussian"][list(published).index(profile)] == round(score, 1)
    detected = np.concatenate([of_file[kept] for of_file, kept in zip(scores, scorer.kept, strict=True)]) >= 1
    assert [np.sum(detected & (scorer.window >= 0)), np.sum(detected & (scorer.window < 0))] == [521, 409]


@pytest.mark.slow
def test_the_detectors_score(nab, series):
    """All files, strictly online: the bar is 55, beside 40 of the windowed Gaussian and 58 of KNN-CAD."""
    scorer = nab.Scorer([len(values) for values, _ in series.values()], [windows for _, windows in series.values()])
    score, _ = scorer.best([nab.online(values) for values, _ in series.values()])
    assert score > 60
