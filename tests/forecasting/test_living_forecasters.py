"""Forecasters that live on: files, copies, snapshots of streams, further training."""

import copy
import pickle

import mutations
import numpy as np
import pytest
from estimator_files import differences, rewritten
from forecasters import SMALL, fitted, wave

import fastrnn
from fastrnn import ModelFormatError
from fastrnn._base import reading, trees
from fastrnn.forecasting import RNNForecaster

ENDINGS = (".npz", ".safetensors")


def through_file(model, tmp_path, ending=".npz"):
    model.save(tmp_path / f"model{ending}")
    return RNNForecaster.load(tmp_path / f"model{ending}")


def ways():
    """Ways to make a forecaster again, by name."""
    return {"file": lambda model, folder: through_file(model, folder),
            "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
            "deepcopy": lambda model, folder: copy.deepcopy(model)}


# ---- What comes back ------------------------------------------------------------------------------

Y = wave(90)
COLUMNS = np.random.default_rng(3).standard_normal((90, 2))
TIMES = np.datetime64("2024-01-31T05") + np.arange(90) * np.timedelta64(1, "h")
GAPS = np.where(np.arange(90) % 11 == 5, np.nan, Y)
COUNTS = np.where(np.random.default_rng(2).random(90) < 0.2, np.random.default_rng(1).poisson(3, 90) + 1.0, 0.0)
AUTO = {name: parameter for name, parameter in RNNForecaster().get_params().items() if parameter == "auto"
        and name not in ("updates", "hidden_size", "ensemble")}
OPTIONS = {
    "plain": {"y": Y},
    "lstm, several layers, dropout": {"y": Y, "cell": "LSTM", "num_layers": 2, "dropout": 0.1},
    "rnn, ensemble": {"y": Y, "cell": "rnn", "ensemble": 3},
    "quantiles, seasons": {"y": Y, "quantiles": (0.1, 0.9), "seasons": (12, 24), "difference": 12},
    "log, mean": {"y": Y, "log": True, "scaling": "mean"},
    "log1p, no scaling, level": {"y": Y, "log": "1p", "scaling": None, "difference": 0},
    "times": {"y": Y, "times": TIMES, "time_features": ("day", "week")},
    "columns and past": {"y": Y, "X": COLUMNS, "past": COLUMNS[:, :1]},
    "missing values": {"y": GAPS, "seasons": 12},
    "an array of columns": {"y": np.stack([Y, 2 * Y], 1), "X": COLUMNS},
    "static columns": {"y": [Y, Y[:60]], "static": np.array([["shop", 1.0], ["market", 2.0]], object)},
    "automatic choices": {"y": Y, **AUTO}, "a blend of a list": {"y": [Y, 3 * Y[:60], Y[20:50]], **AUTO, "seasons": 12},
    "a blend with quantiles": {"y": Y, **AUTO, "quantiles": (0.1, 0.9), "X": COLUMNS},
    "counts": {"y": COUNTS, **AUTO}, "a constant": {"y": np.full(60, 5.0), **AUTO},
    "base forecasts alone": {"y": Y, **AUTO, "blend": ["naive", "theta"]},
    "a glitch": {"y": np.where(np.arange(90) == 40, 1e9, Y), **AUTO}, "two values": {"y": Y[:2], **AUTO},
    "a list": {"y": [Y, Y[:60], Y[20:50]]},
    "patience": {"y": Y, "patience": 2},
    "a generator": {"y": Y, "random_state": np.random.default_rng(5)},
    "a random state": {"y": Y, "random_state": np.random.RandomState(5)},
    "numpy's numbers": {"y": Y, "horizon": np.int64(4), "learning_rate": np.float32(0.003),
                        "quantiles": np.array([0.2])},
}


def future(model, h=4):
    """The X of `predict` for the next h steps."""
    return np.linspace(0, 1, h * model.n_features_in_).reshape(h, -1) if model.n_features_in_ else None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")          # of short series, of values that are left out
@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("about", OPTIONS)
def test_everything_comes_back(about, way, tmp_path):
    model = fitted(**OPTIONS[about], updates=6)
    again = ways()[way](model, tmp_path)
    assert vars(again).keys() == vars(model).keys()
    for name, value in vars(model).items():
        assert not differences(value, getattr(again, name), name)
    X = future(model)
    assert np.array_equal(again.predict(X), model.predict(X))
    if about == "a list":
        assert np.array_equal(again.stream(2).forecast, model.stream(2).forecast)
    stream, twin = again.stream(X=X), model.stream(X=X)
    extra = {"known": [0.5, 1.0] if model.n_features_in_ else None, "past": [0.3] if "past" in OPTIONS[about] else None}
    for value in (*wave(40, seed=1).tolist(), None, 9.5):
        assert np.array_equal(stream.step(value, **extra), twin.step(value, **extra))


@pytest.mark.parametrize("ending", ENDINGS)
def test_both_formats_and_both_loaders(ending, tmp_path):
    model = fitted(Y)
    model.save(tmp_path / f"model{ending}")
    for load in (RNNForecaster.load, fastrnn.load):
        again = load(tmp_path / f"model{ending}")
        assert type(again) is RNNForecaster and np.array_equal(again.predict(9), model.predict(9))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames(library, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("narwhals")
    frame = pandas.DataFrame({"t": np.tile(TIMES, 2), "shop": ["a"] * 90 + ["b"] * 90, "sales": np.r_[Y, 2 * Y],
                              "price": np.r_[COLUMNS[:, 0], COLUMNS[:, 1]], "kind": ["big"] * 90 + ["small"] * 90})
    ahead = pandas.DataFrame({"t": np.tile(TIMES[-1] + np.arange(1, 5) * np.timedelta64(1, "h"), 2),
                              "shop": ["a"] * 4 + ["b"] * 4, "price": np.arange(8.0)})
    if library == "polars":
        frame, ahead = (pytest.importorskip("polars").from_pandas(each) for each in (frame, ahead))
    elif library == "pyarrow":
        frame, ahead = (pytest.importorskip("pyarrow").Table.from_pandas(each) for each in (frame, ahead))
    model = RNNForecaster(**SMALL, target="sales", time="t", series="shop", known="price", static="kind",
                          categorical="kind").fit(frame)
    again = through_file(model, tmp_path)
    forecast, expected = again.predict(ahead), model.predict(ahead)
    assert type(forecast) is type(frame) and forecast.equals(expected)
    rows = np.zeros((4, 1))
    assert np.array_equal(again.stream("b", rows).forecast, model.stream("b", rows).forecast)


def test_one_that_was_not_fitted(tmp_path):
    again = through_file(RNNForecaster(horizon=5, seasons=[7, 30], time_features="day"), tmp_path)
    assert again.get_params() == RNNForecaster(horizon=5, seasons=[7, 30], time_features="day").get_params()
    with pytest.raises(ValueError, match="not fitted"):
        again.predict()


def test_joblib(tmp_path):
    joblib = pytest.importorskip("joblib")
    model = fitted(Y)
    joblib.dump(model, tmp_path / "model.joblib")
    assert np.array_equal(joblib.load(tmp_path / "model.joblib").predict(), model.predict())


def test_columns_that_series_share_are_in_the_file_once(tmp_path):
    shared = np.random.default_rng(0).standard_normal((90, 40))
    sizes = []
    for count in (1, 11):
        fitted(np.stack([Y] * count, 1), X=shared, updates=1).save(tmp_path / "model.npz")
        sizes.append((tmp_path / "model.npz").stat().st_size)
    assert sizes[1] - sizes[0] < 10 * (Y.nbytes + 1000) < shared.nbytes


# ---- What is refused ------------------------------------------------------------------------------

def test_what_a_file_cannot_hold_is_named(tmp_path):
    model = fitted(Y, updates=1)
    model.panel_.series[0].name = print
    with pytest.raises(TypeError, match=r"RNNForecaster\[1\]\['panel_'\]\.series\[0\]\.name: .*builtin_function"):
        model.save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())

    class Mine(RNNForecaster):
        pass

    with pytest.raises(TypeError, match="Mine: only fastrnn's own estimators"):
        Mine().save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"ends in .npz or .safetensors, got .*model.pkl"):
        RNNForecaster().save(tmp_path / "model.pkl")


def test_an_older_file_is_replaced_only_when_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    fitted(Y, updates=1).save(path)
    before = path.read_bytes()

    def failing(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", failing)
    with pytest.raises(OSError, match="disk full"):
        fitted(2 * Y, updates=1).save(path)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["model.npz"]


def test_files_of_something_else(tmp_path):
    path = tmp_path / "other.npz"
    fastrnn.GRU(2, 3, rng=0).save(path)
    with pytest.raises(ModelFormatError, match=r"other.npz: expected a file that RNNForecaster.save wrote.*'GRU'"):
        RNNForecaster.load(path)
    fastrnn.anomaly.RNNAnomalyDetector().save(path)
    with pytest.raises(ModelFormatError, match="it holds 'RNNAnomalyDetector'"):
        RNNForecaster.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ModelFormatError, match="not written by fastrnn"):
        RNNForecaster.load(path)
    fitted(Y, updates=1).save(path)
    with pytest.raises(ModelFormatError, match="RNNForecaster"):
        fastrnn.interop.layers(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_of_a_later_version_is_refused_by_name(ending, tmp_path):
    path = tmp_path / f"model{ending}"
    fitted(Y, updates=1).save(path)
    rewritten(path, lambda metadata: metadata.update(state_version=RNNForecaster._state_version + 1))
    for load in (RNNForecaster.load, fastrnn.load):
        with pytest.raises(ModelFormatError, match=rf"model{ending}: a later fastrnn wrote it: RNNForecaster has"):
            load(path)
    rewritten(path, lambda metadata: metadata.update(version=2))
    for load in (RNNForecaster.load, fastrnn.load):
        with pytest.raises(ModelFormatError, match="a later fastrnn wrote it: it has version 2, and version 1"):
            load(path)


@pytest.mark.parametrize("version", [None, 0, -1, True, 1.0, "1", [1]])
def test_versions_that_are_none(version, tmp_path):
    path = tmp_path / "model.npz"
    fitted(Y, updates=1).save(path)
    rewritten(path, lambda metadata: metadata.update(state_version=version))
    with pytest.raises(ModelFormatError, match="state_version: expected a number"):
        RNNForecaster.load(path)


def test_a_file_of_an_earlier_version_goes_through_the_class(tmp_path, monkeypatch):
    """Pretend that `window` was called `span` in version 1, and that `panel_` was not kept under this name."""
    model = fitted(Y, updates=1)
    path = tmp_path / "model.npz"
    model.save(path)

    def rename(metadata):
        parameters, attributes = metadata["state"]["tuple"]
        parameters["dict"]["span"] = parameters["dict"].pop("window")
        attributes["dict"]["series_"] = attributes["dict"].pop("panel_")

    present = RNNForecaster._state_version

    def older(cls, version, parameters, attributes):
        assert version == present
        return {"window": parameters.pop("span"), **parameters}, {"panel_": attributes.pop("series_"), **attributes}

    rewritten(path, rename)
    with pytest.raises(ModelFormatError, match="span: not a parameter"):
        RNNForecaster.load(path)
    monkeypatch.setattr(RNNForecaster, "_state_version", present + 1)
    monkeypatch.setattr(RNNForecaster, "_older", classmethod(older))
    assert np.array_equal(RNNForecaster.load(path).predict(), model.predict())


# ---- Hostile files --------------------------------------------------------------------------------

def small_file(tmp_path, ending):
    path = tmp_path / f"good{ending}"
    fitted(Y[:30], hidden_size=2, updates=1, horizon=2, window=4, quantiles=(0.1, 0.9), seasons=3).save(path)
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_mutations(ending, tmp_path):
    data, rng, refused = small_file(tmp_path, ending), np.random.default_rng(0), 0
    fastrnn.load(tmp_path / f"good{ending}")
    count = mutations.COUNT // 2
    for broken in mutations.mixed(data, rng, count, header=2048):
        refused += mutations.assert_refuses_or_loads(fastrnn.load, broken, tmp_path / f"model{ending}",
                                                     times=3 * reading.EXPANSION) is not None
    assert refused > count // 2


@pytest.mark.slow
def test_mutated_configurations(tmp_path):
    """The JSON alone is changed, within valid JSON: the archive's checksums do not help."""
    import json
    small_file(tmp_path, ".npz")
    from fastrnn._base import named_arrays
    arrays, metadata = named_arrays.read(tmp_path / "good.npz")
    text, rng, refused = json.dumps(metadata), np.random.default_rng(0), 0
    replacements = ["0", "-1", "1", "1e300", "123456789012", "null", "true", '"x"', "[]", "{}", '{"same": 1}']
    import re
    places = [match.span() for match in re.finditer(r'-?\d[\d.e-]*|null|true|false|"[^"]*"(?!:)|\[\]', text)]
    count = mutations.COUNT // 4
    for _ in range(count):
        start, stop = places[rng.integers(len(places))]
        changed = text[:start] + replacements[rng.integers(len(replacements))] + text[stop:]
        with open(tmp_path / "draft.npz", "wb") as file:
            np.savez(file, **arrays, fastrnn=np.frombuffer(changed.encode(), np.uint8))
        refused += mutations.assert_refuses_or_loads(
            fastrnn.load, (tmp_path / "draft.npz").read_bytes(), tmp_path / "model.npz",
            times=3 * reading.EXPANSION) is not None
    assert refused > count // 4


# ---- Snapshots of streams -------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("about", OPTIONS)
def test_a_snapshot_brings_a_stream_back(about):
    model = fitted(**OPTIONS[about], updates=6)
    X = future(model)
    extra = {"known": [0.5, 1.0] if model.n_features_in_ else None, "past": [0.3] if "past" in OPTIONS[about] else None}
    stream, other = (model.stream(X=X, interval=0.8) for _ in range(2))
    values = [*wave(60, seed=1).tolist(), None, 9.5]
    for value in values[:25]:
        stream.step(value, **extra)
    snapshot, forecast, shown = stream.snapshot(), stream.forecast, repr(stream)
    interval = np.array(stream.forecast_interval)
    forecasts = [stream.step(value, **extra) for value in values[25:]]
    for each in (stream, other):
        each.restore(snapshot)
        assert each.snapshot() == snapshot
        assert repr(each) == shown and np.array_equal(each.forecast, forecast)
        assert np.array_equal(each.forecast_interval, interval)
        assert np.array_equal(np.array([each.step(value, **extra) for value in values[25:]]), np.array(forecasts))
    assert stream.snapshot() == other.snapshot()


def test_snapshots_leave_the_weights_out():
    """And streams that are restored have those of the forecaster, not their own."""
    stream = fitted(Y, hidden_size=64, updates=1).stream()
    weights = [value for network in stream._streams for value in network._model.parameters.values()]
    assert len(stream.snapshot()) < sum(value.nbytes for value in weights) / 5
    stream.restore(stream.snapshot())
    after = [value for network in stream._streams for value in network._model.parameters.values()]
    assert all(np.shares_memory(a, b) for a, b in zip(weights, after, strict=True))


def test_snapshots_that_are_refused():
    stream, other = fitted(Y).stream(), fitted(2 * wave(90, seed=2)).stream()
    snapshot, state = stream.snapshot(), stream.snapshot()
    later = bytearray(snapshot)
    later[8] = 2
    detector = fastrnn.anomaly.RNNAnomalyDetector(hidden_size=4).fit(np.ones((9, 1)))
    for broken, error, message in ((other.snapshot(), ValueError, "of another model"), (b"", ValueError, "cut short"),
                                   ("text", TypeError, "expected bytes"), (snapshot[:-1], ValueError, "damaged"),
                                   (snapshot[:100] + b"?" + snapshot[101:], ValueError, "damaged"),
                                   (bytes(later), ValueError, "a later fastrnn made it: it has version 2"),
                                   (detector.snapshot(), ValueError, "expected one of ForecastStream")):
        with pytest.raises(error, match=message):
            stream.restore(broken)
        assert stream.snapshot() == state


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("about", OPTIONS)
def test_forged_snapshots(about):
    """Each attribute of another kind, the checksum right: the snapshot is refused, or the stream goes on."""
    model = fitted(**OPTIONS[about], updates=1)
    stream = model.stream(X=future(model), interval=0.8)
    extra = {"known": [0.5, 1.0] if model.n_features_in_ else None, "past": [0.3] if "past" in OPTIONS[about] else None}
    before, state, refused = stream.snapshot(), stream._state(), []
    for name in state:
        for other in (None, 7, "text", [0.5], np.ones(3)):
            try:
                stream.restore(trees.packed({**state, name: other}, "ForecastStream", stream._weights()))
            except ModelFormatError:
                refused.append(name)
            else:
                for value in (0.5, None):
                    assert stream.step(value, **extra).shape == (model.horizon,), (name, other)
            stream.restore(before)
    assert {"_z", "_ring", "_encoding", "_streams", "_read", "_count", "_at", "_guard"} <= set(refused)


@pytest.mark.slow
def test_mutated_snapshots():
    """With the checksum made right again: nothing but a ValueError, or a stream."""
    import struct
    import zlib
    stream = fitted(Y[:30], hidden_size=2, updates=1, horizon=2, window=4).stream()
    snapshot, rng, refused = stream.snapshot(), np.random.default_rng(0), 0
    count = mutations.COUNT // 4
    for broken in mutations.mixed(snapshot[:-4], rng, count, header=600):
        data = broken + struct.pack("<I", zlib.crc32(broken))
        with mutations.bounded(64 * len(data) + (1 << 22)):
            try:
                stream.restore(data)
            except ModelFormatError:
                refused += 1
        stream.restore(snapshot)
    assert refused > count // 2
