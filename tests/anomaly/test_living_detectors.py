"""Detectors that live on: files, copies and further learning, in mid-stream."""

import copy
import pickle

import mutations
import numpy as np
import pytest
from estimator_files import differences, rewritten

import fastrnn
from fastrnn import ModelFormatError
from fastrnn._base import reading, trees
from fastrnn.anomaly import RNNAnomalyDetector

ENDINGS = (".npz", ".safetensors")


def rows(count=700, channels=2, seed=0):
    """Waves with noise, some values missing, spikes now and then, one of them at row 395."""
    rng = np.random.default_rng(seed)
    x = np.sin(np.arange(count)[:, None] / (4 + np.arange(channels))) + 0.1 * rng.standard_normal((count, channels))
    x[rng.random(x.shape) < 0.02] = np.nan
    for row, size in ((395, 6), (403, 7), (500, 6), (610, 12)):
        x[row:row + 1, 0] += size
    return x


def through_file(detector, folder, ending=".npz"):
    detector.save(folder / f"detector{ending}")
    return RNNAnomalyDetector.load(folder / f"detector{ending}")


WAYS = {"npz": through_file, "safetensors": lambda detector, folder: through_file(detector, folder, ".safetensors"),
        "pickle": lambda detector, folder: pickle.loads(pickle.dumps(detector)),
        "deepcopy": lambda detector, folder: copy.deepcopy(detector)}
OPTIONS = {"plain": {}, "refractory": {"refractory": 30}, "lstm, two layers": {"cell": "LSTM", "num_layers": 2},
           "no range": {"margin": None}, "trained": {"updates": 20, "cell": "rnn"}, "short memory": {"memory": 100},
           "a share": {"contamination": 0.05}, "no forgetting": {"forgetting": 1.0}}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("about", OPTIONS)
def test_it_goes_on_in_mid_stream(about, way, tmp_path):
    """Saved five rows after an alarm, with a score and its explanation looked at but not yet learnt."""
    x = rows()
    detector = RNNAnomalyDetector(**{"hidden_size": 8, "random_state": 0, **OPTIONS[about]}).fit(x[:400])
    detector.score_one(x[400])
    again = WAYS[way](detector, tmp_path)
    assert vars(again).keys() == vars(detector).keys()
    for name, value in vars(detector).items():
        assert not differences(value, getattr(again, name), name)
    assert np.array_equal(again.score_samples(x[400:]), detector.score_samples(x[400:]))
    scores = []
    for row in x[400:].tolist():
        scores.append([each.score_one(row) for each in (again, detector)])
        assert np.array_equal(again.explain_one(row), detector.explain_one(row))
        again.learn_one(row)
        detector.learn_one(row)
    scores = np.array(scores)
    assert np.array_equal(scores[:, 0], scores[:, 1]) and scores.max() > 0.8
    assert len(np.unique(scores)) > 5
    assert again.offset_ == detector.offset_ and np.array_equal(again.predict(x), detector.predict(x))


def test_names_of_channels(tmp_path):
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0)
    for a, b in rows(100).tolist():
        detector.learn_one({"load": a, "heat": b})
    again = through_file(detector, tmp_path)
    assert again.feature_names_in_.dtype == detector.feature_names_in_.dtype
    row = {"heat": 5.0}
    assert again.explain_one(row) == detector.explain_one(row) and list(again.explain_one(row)) == ["load", "heat"]


def test_a_frame_whose_columns_have_changed_places_is_refused():
    """As scikit-learn does; rows as dicts are taken by name."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows(200), columns=["load", "heat"])
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(frame[:150])
    swapped = frame[150:][["heat", "load"]]
    for method in (detector.partial_fit, detector.score_samples, detector.predict, detector.explain):
        with pytest.raises(ValueError, match=r"The feature names should match .*expected load, heat, got heat, load"):
            method(swapped)
    assert detector.score_samples(frame[150:]).tolist() == detector.score_samples(frame[150:].to_numpy()).tolist()


def test_one_that_has_seen_nothing(tmp_path):
    again = through_file(RNNAnomalyDetector(hidden_size=4, memory=200, random_state=3), tmp_path)
    first = RNNAnomalyDetector(hidden_size=4, memory=200, random_state=3)
    for row in rows(120).tolist():
        assert again.score_one(row) == first.score_one(row)
        again.learn_one(row)
        first.learn_one(row)


@pytest.mark.parametrize("ending", ENDINGS)
def test_both_loaders(ending, tmp_path):
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(rows(200))
    detector.save(tmp_path / f"detector{ending}")
    assert type(fastrnn.load(tmp_path / f"detector{ending}")) is RNNAnomalyDetector


def test_a_copy_leaves_the_first_alone(tmp_path):
    x = rows()
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:300])
    before = detector.score_samples(x[300:])
    for way in WAYS.values():
        way(detector, tmp_path).partial_fit(10 * x[300:])
    assert np.array_equal(detector.score_samples(x[300:]), before)


# ---- Further learning -----------------------------------------------------------------------------

def test_partial_fit_goes_on_where_fit_ended(tmp_path):
    x = rows()
    whole = RNNAnomalyDetector(hidden_size=4, refractory=9, random_state=0).fit(x[:600])
    pieces = RNNAnomalyDetector(hidden_size=4, refractory=9, random_state=0).fit(x[:300])
    pieces.partial_fit(x[300:450])
    pieces = through_file(pieces, tmp_path).partial_fit(x[450:600])
    assert np.array_equal(pieces.score_samples(x[600:]), whole.score_samples(x[600:]))


def test_partial_fit_of_a_new_one_is_fit():
    x = rows(300)
    first = RNNAnomalyDetector(hidden_size=4, random_state=0).partial_fit(x[:200])
    second = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(x[:200])
    assert np.array_equal(first.score_samples(x[200:]), second.score_samples(x[200:]))


# ---- What is refused ------------------------------------------------------------------------------

def test_files_of_something_else(tmp_path):
    path = tmp_path / "other.npz"
    fastrnn.forecasting.RNNForecaster().save(path)
    with pytest.raises(ModelFormatError, match=r"other.npz: expected .* RNNAnomalyDetector.save wrote, it holds"):
        RNNAnomalyDetector.load(path)


def test_a_file_of_a_later_version_is_refused_by_name(tmp_path):
    path = tmp_path / "detector.npz"
    RNNAnomalyDetector().save(path)
    rewritten(path, lambda metadata: metadata.update(state_version=RNNAnomalyDetector._state_version + 1))
    with pytest.raises(ModelFormatError, match="a later fastrnn wrote it: RNNAnomalyDetector has version"):
        RNNAnomalyDetector.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_mutations(ending, tmp_path):
    RNNAnomalyDetector(hidden_size=2, refractory=5, random_state=0).fit(rows(80)).save(tmp_path / f"good{ending}")
    fastrnn.load(tmp_path / f"good{ending}")
    data, rng, refused = (tmp_path / f"good{ending}").read_bytes(), np.random.default_rng(0), 0
    count = mutations.COUNT // 2
    for broken in mutations.mixed(data, rng, count, header=2048):
        refused += mutations.assert_refuses_or_loads(fastrnn.load, broken, tmp_path / f"detector{ending}",
                                                     times=3 * reading.EXPANSION) is not None
    assert refused > count // 2


# ---- Snapshots ------------------------------------------------------------------------------------

@pytest.mark.parametrize("about", OPTIONS)
def test_a_snapshot_brings_a_detector_back(about):
    x = rows()
    options = {"hidden_size": 8, "random_state": 0, **OPTIONS[about]}
    detector, other = (RNNAnomalyDetector(**options).fit(x[:400]) for _ in range(2))
    detector.score_one(x[400])
    snapshot = detector.snapshot()
    scores = []
    for row in x[400:].tolist():
        scores.append(detector.score_one(row))
        detector.learn_one(row)
    other.partial_fit(x[500:550])
    for each in (detector, other):
        each.restore(snapshot)
        assert each.snapshot() == snapshot
        again = []
        for row in x[400:].tolist():
            again.append(each.score_one(row))
            each.learn_one(row)
        assert again == scores
    assert b'"weight_hh_l0":{"shared"' in snapshot and b'"weight_hh_l0":{"array"' not in snapshot


def test_snapshots_that_are_refused():
    x = rows()
    detector, other = (RNNAnomalyDetector(hidden_size=4, random_state=seed).fit(x[:100]) for seed in (0, 1))
    state = detector.snapshot()
    for broken, message in ((other.snapshot(), "of another model"), (state[:-1], "damaged"), (b"FRNN", "cut short"),
                            (fastrnn.forecasting.RNNForecaster(updates=1).fit(x[:90, 0]).stream().snapshot(),
                             "expected one of RNNAnomalyDetector")):
        with pytest.raises(ModelFormatError, match=message):
            detector.restore(broken)
        assert detector.snapshot() == state
    with pytest.raises(ValueError, match="not fitted"):
        RNNAnomalyDetector().snapshot()


@pytest.mark.parametrize("change", [
    {"model_": None}, {"model_": 1.5}, {"_state": None}, {"_adapt": ...}, {"model_": ...}, {"_state": ...},
    {"n_features_in_": ...}, {"offset_": "text"}, {"n_features_in_": 3},
    {"feature_names_in_": np.array(["a"], object)}])
def test_snapshots_whose_checksum_is_right_and_whose_content_is_not(change, tmp_path):
    """An attribute that is another, or that is missing (...): the detector stays as it was."""
    detector = RNNAnomalyDetector(hidden_size=4, random_state=0).fit(rows()[:100])
    before, path = detector.snapshot(), tmp_path / "detector.npz"
    attributes = {**detector._fitted_attributes(), **change}
    attributes = {name: value for name, value in attributes.items() if value is not ...}
    with pytest.raises(ModelFormatError, match="snapshot"):
        detector.restore(trees.packed(attributes, "RNNAnomalyDetector", list(detector.model_.parameters.values())))
    assert detector.snapshot() == before
    for name in detector._fitted_attributes().keys() - attributes.keys():
        delattr(detector, name)
    vars(detector).update(attributes)
    detector.save(path)
    with pytest.raises(ModelFormatError, match=r"detector\.npz"):
        fastrnn.load(path)


@pytest.mark.parametrize("way", ["snapshot", "file"])
def test_a_state_that_would_be_written_over_a_weight(way, tmp_path):
    """Weights are read-only, and what is restored or loaded shares them: nothing that changes may be one of them."""
    detector = RNNAnomalyDetector(hidden_size=4, cell="rnn", random_state=0).fit(rows()[:100])
    before, path = detector.snapshot(), tmp_path / "detector.npz"
    forged = copy.deepcopy(detector)
    forged._state.h = forged.model_.parameters["bias_ih_l0"]
    if way == "file":
        forged.save(path)
        with pytest.raises(ModelFormatError, match=r"detector\.npz"):
            fastrnn.load(path)
        return
    with pytest.raises(ModelFormatError, match="snapshot"):
        detector.restore(trees.packed(forged._fitted_attributes(), "RNNAnomalyDetector",
                                      list(forged.model_.parameters.values())))
    assert detector.snapshot() == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_does_not_grow_when_it_is_loaded_and_saved(ending, tmp_path):
    """The network of the detector and that of its stream have the same arrays, in memory and in the file."""
    path = tmp_path / f"detector{ending}"
    RNNAnomalyDetector(hidden_size=16, random_state=0).fit(rows()[:100]).save(path)
    data, again = path.read_bytes(), fastrnn.load(path)
    for name, value in again.model_.parameters.items():
        assert again._state.stream._model.parameters[name] is value
    again.save(path)
    assert path.read_bytes() == data
