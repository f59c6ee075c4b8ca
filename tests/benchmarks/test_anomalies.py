"""benchmarks/anomalies.py and its parts: the measures, the series it makes, the detectors, what is absent."""

import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def beside():
    """The scripts find each other when they are run; here their folder is put on the path."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def anomalies(script, beside):
    return script("anomalies")


@pytest.fixture(scope="module")
def sets(script, beside):
    return script("anomaly_sets")


@pytest.fixture(scope="module")
def peers(script, beside):
    return script("anomaly_peers")


@pytest.mark.parametrize("digits", [0, 1, 8])           # with few digits many scores are equal
def test_average_precision_is_scikit_learns(anomalies, digits):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(digits)
    for _ in range(20):
        labels = rng.random(200) < 0.1
        labels[0] = True
        scores = np.round(rng.standard_normal(200) + labels, digits)
        assert anomalies.average_precision(labels, scores) == pytest.approx(
            metrics.average_precision_score(labels, scores), abs=1e-12)


def test_average_precision_by_hand(anomalies):
    labels = np.array([1, 0, 1, 0], bool)
    assert anomalies.average_precision(labels, np.array([4.0, 3, 2, 1])) == pytest.approx((1 + 2 / 3) / 2)
    assert anomalies.average_precision(labels, np.zeros(4)) == 0.5


def test_a_stretch_counts_once_with_its_highest_score_and_five_rows_around_it(anomalies):
    labels, scores = np.zeros(60, bool), np.zeros(60)
    labels[20:30] = labels[33] = True                   # the second is within ten rows of the first: one stretch
    scores[38], scores[39], scores[10] = 3, 2, 1
    kept, values = anomalies.by_ranges(labels, scores)
    assert kept.sum() == 1 and len(kept) == 1 + 60 - (39 - 15)
    assert values[kept].tolist() == [3.0] and sorted(values[~kept])[-2:] == [1.0, 2.0]


def test_a_stretch_at_the_very_end_and_one_at_the_very_beginning(anomalies):
    labels, scores = np.zeros(40, bool), np.arange(40.0)
    labels[0] = labels[-1] = True
    kept, values = anomalies.by_ranges(labels, scores)
    assert values[kept].tolist() == [5.0, 39.0] and (~kept).sum() == 40 - 12


def test_precisions_leave_the_first_part_out(anomalies, sets):
    labels = np.zeros(400, bool)
    labels[[10, 300]] = True
    scores = np.zeros(400)
    scores[[20, 300]] = 9, 5                            # the higher score is in the first 60 rows
    assert anomalies.precisions(sets.Labelled("x", np.zeros((400, 1)), labels), scores) == (1.0, 1.0)


def test_equal_ones_share_a_rank_and_chance_has_none(anomalies):
    table = {"a": {"x": 0.5}, "b": {"x": 0.7}, "c": {"x": 0.5}, "d": {"x": 0.1}, "chance": {"x": 0.9}}
    assert anomalies.ranks(table) == {"a": {"x": 2}, "b": {"x": 1}, "c": {"x": 2}, "d": {"x": 4}}


def test_means_are_over_series_then_over_seeds(anomalies):
    figures = {"one": {"fastrnn 0": [(0.2, 0), (0.4, 0)], "fastrnn 1": [(0.6, 0), (0.8, 0)], "p": [(0.1, 0), (0.2, 0)]},
               "two": {"fastrnn 0": [(1.0, 0)], "fastrnn 1": [(0.0, 0)], "p": [(0.5, 0)]}}
    table, spread = anomalies.means(figures, [0, 1], 0)
    assert table["fastrnn"] == pytest.approx({"one": 0.5, "two": 0.5})
    assert table["p"] == pytest.approx({"one": 0.15, "two": 0.5})
    assert spread == pytest.approx((0.35, 0.65))


def test_the_series_with_nothing_unusual_are_what_they_are_called(anomalies):
    kinds = anomalies.usual_kinds(0, 5000)
    assert all(values.shape == (5000,) and np.isfinite(values).all() for values in kinds.values())
    assert abs(kinds["iid normal"].mean()) < 0.05 and kinds["iid normal"].std() == pytest.approx(1, abs=0.05)
    assert np.abs(kinds["Student's t, 3"]).max() > 8 and np.median(kinds["log-normal"]) == pytest.approx(1, abs=0.1)
    assert np.diff(kinds["random walk"]).std() == pytest.approx(1, abs=0.05)
    assert np.polyfit(np.arange(5000), kinds["trend"], 1)[0] == pytest.approx(0.01, abs=1e-4)
    assert np.polyfit(np.arange(5000), np.log(kinds["growth"]), 1)[0] == pytest.approx(1 / 300, abs=1e-5)
    assert kinds["Poisson, mean 5"].mean() == pytest.approx(5, abs=0.15)
    assert kinds["Poisson, mean 5"].var() == pytest.approx(5, abs=0.5)
    for season, kind in ((24, "daily"), (168, "daily and weekly")):
        noise = (kinds[kind][season:] - kinds[kind][:-season]) / np.sqrt(2)
        assert noise.std() == pytest.approx(1, abs=0.05)
    square = kinds["GARCH"] ** 2                        # the variance is 0.1 / (1 - 0.1 - 0.85); squares go together
    assert square.mean() == pytest.approx(2, abs=0.4) and np.corrcoef(square[1:], square[:-1])[0, 1] > 0.1


def test_each_trouble_is_as_it_is_called_and_leaves_the_rest(anomalies):
    before = anomalies.troubled(0)[0]
    for name, change in anomalies.troubles().items():
        after = before.copy()
        change(after)
        assert np.array_equal(after[:1000], before[:1000]) and np.array_equal(after[1500:], before[1500:])
        rows = np.flatnonzero(~(after == before))
        assert len(rows) == {"none": 0, "10 rows of -9999": 10, "10 rows of -1e12": 10, "500 rows stuck": 499,
                             "500 rows missing": 500}.get(name, 1)


def test_peers_judge_a_row_by_itself_and_the_past(peers):
    """What comes after row 400 changes no score before it."""
    x = np.random.default_rng(0).standard_normal((450, 2)).cumsum(0)
    y = x.copy()
    y[400:] += 100
    for function in (peers.differences, peers.windowed_gaussian, peers.ridge_regression, peers.left_matrix_profile):
        a, b = function(x), function(y)
        assert np.array_equal(a[:400], b[:400]) and b[400] > 1.5 * a[400]


def test_the_running_mean_and_deviation_are_of_the_rows_before(peers):
    x = np.random.default_rng(0).standard_normal((300, 2)) + 1e6
    mean, deviation = peers.running(x)
    for row in (1, 2, 50, 299):
        assert mean[row] == pytest.approx(x[:row].mean(0)) and deviation[row] == pytest.approx(x[:row].std(0), abs=1e-6)


def test_the_left_matrix_profile_is_what_its_definition_gives(peers):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(300).cumsum() + 1e3
    x[100:150] = x[100]                                 # constant stretches: nothing to scale
    scores, expected = peers.left_matrix_profile(x[:, None], 16, 64), np.zeros(300)

    def scaled(piece):
        return (piece - piece.mean()) / piece.std() if np.ptp(piece) > 0 else piece * 0

    for i in range(5, 285):
        expected[i + 15] = min(np.linalg.norm(scaled(x[i:i + 16]) - scaled(x[j:j + 16])) for j in range(i - 4))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    both = peers.left_matrix_profile(np.stack([x, x[::-1]], 1), 16, 64)
    assert np.array_equal(both, np.maximum(scores, peers.left_matrix_profile(x[::-1, None], 16, 64)))


def test_a_missing_value_is_the_last_one(peers):
    x = np.array([[np.nan, 1], [2, np.nan], [np.nan, np.nan], [3, 4]])
    assert peers.filled(x).tolist() == [[0, 1], [2, 1], [2, 1], [3, 4]]


def test_fastrnns_scores_and_threshold(peers):
    x = np.random.default_rng(0).standard_normal((400, 1))
    x[300] = 50
    scores, threshold = peers.fastrnn_scores(x)
    assert scores.shape == (400,) and scores[300] > threshold and not (scores[250:300] > threshold).any()


def test_fastrnns_scores_are_those_of_a_stream(peers):
    """score_samples walks as a stream does; what score_one says ranks the rows in the same way."""
    from fastrnn.anomaly import RNNAnomalyDetector

    x = np.random.default_rng(0).standard_normal((300, 2))
    x[200, 1] = 9
    scores, _ = peers.fastrnn_scores(x)
    detector, streamed = RNNAnomalyDetector(random_state=0), []
    for row in x.tolist():
        streamed.append(detector.score_one(row))
        detector.learn_one(row)
    order = np.argsort(scores, kind="stable")
    assert np.all(np.diff(np.array(streamed)[order]) >= -1e-12) and np.ptp(streamed) > 0.5


def test_annotators_agree_within_five_rows(sets):
    marks = {"a": [100, 200, 300], "b": [104, 206], "c": [103, 400], "d": []}
    assert sets.agreed(marks) == [100]
    assert sets.agreed({"a": [10, 12], "b": []}) == []              # the marks of one annotator are no agreement
    assert sets.agreed(marks, 1) == [100, 200, 206, 300, 400]


def test_labels_around_a_row_stay_within_the_series(sets):
    assert np.flatnonzero(sets.around([2, 19], 20)).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 14, 15, 16, 17, 18, 19]
    assert np.flatnonzero(sets.around([3], 20, 0, 2)).tolist() == [3, 4, 5]


def test_what_is_absent_is_left_out_by_name(sets, monkeypatch):
    monkeypatch.setenv("FASTRNN_ANOMALIES", "/nowhere")
    monkeypatch.setattr(sets.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("river.drift.datasets", "river.datasets.synth", "gutenTAG"):
        monkeypatch.setitem(sys.modules, name, None)            # importing it is an ImportError
    present, missing = sets.load()
    assert not present and set(missing) == {collection.name for collection in sets.COLLECTIONS}
    assert "aeon" in missing["UCR archive"] and "river" in missing["Turing change points"]


def test_files_are_found_in_the_folder_of_packages(sets, monkeypatch, tmp_path):
    monkeypatch.setenv("FASTRNN_ANOMALIES", str(tmp_path))
    monkeypatch.setattr(sets.importlib.util, "find_spec", lambda name: None)
    for package, name, value in (("sktime", "yahoo.csv", "data"), ("streamad", "uniDS.csv", "value")):
        folder = tmp_path / package / ("datasets/data/yahoo" if package == "sktime" else "util/data")
        folder.mkdir(parents=True)
        folder.joinpath(name).write_text(f"{value},label\n1.5,0\n,1\n2.5,0\n")
    (present, series), = sets.load("Yahoo")[0]
    assert present.name == "Yahoo S5" and [one.name for one in series] == ["yahoo", "uniDS"]
    for one in series:
        assert one.labels.tolist() == [False, True, False]
        np.testing.assert_array_equal(one.values, [[1.5], [np.nan], [2.5]])


def test_scores_are_kept_and_read_again(anomalies, tmp_path, monkeypatch):
    calls = []

    def peer(values):
        calls.append(len(values))
        return values[:, 0] * 2

    monkeypatch.setattr(anomalies.inspect, "getsource", lambda function: function.__name__)
    x = np.arange(4.0)[:, None]
    for _ in range(2):
        assert anomalies.cached(tmp_path, peer, x).tolist() == [0, 2, 4, 6]
    assert anomalies.cached(tmp_path, peer, x + 1).tolist() == [2, 4, 6, 8]
    assert anomalies.cached(None, peer, x).tolist() == [0, 2, 4, 6] and calls == [4, 4, 4]
