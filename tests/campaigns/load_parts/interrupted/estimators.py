"""Calls of forecasters and detectors, and those of many series."""

import numpy as np

from fastrnn import scale
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster

from .registry import add, same

# ---- Estimators -----------------------------------------------------------------------------------------

def series(count, steps):
    t, n = np.arange(steps)[:, None], np.arange(count)
    return 10 + n + np.sin(t / 4 + n) + 0.1 * np.random.default_rng(0).standard_normal((steps, count))


@add("forecaster.fit")
def forecaster_fit(folder):
    """An interrupted fit leaves the forecaster as it was."""
    old, new = series(3, 150), series(8, 400)
    model = RNNForecaster(6, random_state=0).fit(old)
    expected = model.predict()
    model.fit(new)
    finished = model.predict()
    model.fit(old)

    def call():
        model.fit(new)

    def check():
        assert same(model.predict(), expected) or same(model.predict(), finished), "it forecasts something else"
        model.fit(old)
    return call, check


@add("forecaster.predict")
def forecaster_predict(folder):
    model = RNNForecaster(24, updates=5, random_state=0, blend=False).fit(series(4000, 120))
    expected = model.predict()

    def check():
        assert same(model.predict(), expected)
    return model.predict, check


@add("forecaster.backtest")
def forecaster_backtest(folder):
    y = series(6, 400)
    model = RNNForecaster(6, random_state=0).fit(y[:300])
    expected = model.predict()

    def check():
        assert same(model.predict(), expected)
    return (lambda: model.backtest(None, y, start=300, stride=6)), check


def snapshot_or_none(stepped):
    """None where it says that it needs to be restored from one."""
    try:
        return stepped.snapshot()
    except RuntimeError as error:
        if "restore a snapshot" not in str(error):
            raise
        return None


@add("forecast stream")
def forecast_stream(folder):
    """Steps of a stream: it is as after one of them, or says that it needs a restore."""
    model = RNNForecaster(6, random_state=0).fit(series(1, 300)[:, 0])
    values = series(1, 2000)[:, 0]
    stream, taken = model.stream(), [0]
    stream.restore(stream.snapshot())           # from now on the snapshots of one state are equal
    fresh = stream.snapshot()

    def call():
        taken[0] = 0
        for value in values:
            stream.step(value)
            taken[0] += 1

    def check():
        again = model.stream()
        again.restore(fresh)
        for value in values[:taken[0]]:
            again.step(value)
        snapshot = snapshot_or_none(stream)
        if snapshot is not None:
            expected = {again.snapshot()}
            again.step(values[min(taken[0], len(values) - 1)])
            assert snapshot in expected | {again.snapshot()}, "the stream is torn, and does not say so"
        stream.restore(fresh)
    return call, check


@add("detector.fit")
def detector_fit(folder):
    old, new = series(2, 300), series(3, 4000)
    detector = RNNAnomalyDetector(random_state=0).fit(old)
    fitted = {2: detector.score_samples(old), 3: RNNAnomalyDetector(random_state=0).fit(new).score_samples(new)}

    def call():
        detector.fit(new)

    def check():
        count = detector.n_features_in_
        assert same(detector.score_samples(old if count == 2 else new), fitted[count]), "the detector is half fitted"
        detector.fit(old)
    return call, check


@add("detector.partial_fit")
def detector_partial_fit(folder):
    """The rows before the interruption are learnt, or the detector says that it needs a restore."""
    old, new = series(2, 300), series(2, 5000)
    detector = RNNAnomalyDetector(random_state=0).fit(old)
    detector.restore(detector.snapshot())       # from now on the snapshots of one state are equal
    before, again = detector.snapshot(), RNNAnomalyDetector(random_state=0).fit(old)

    def check():
        snapshot = snapshot_or_none(detector)
        if snapshot is not None:
            again.restore(before)
            again.partial_fit(new[:detector._state.count - len(old)])
            assert again.snapshot() == snapshot, "the detector is torn, and does not say so"
        detector.restore(before)
    return (lambda: detector.partial_fit(new)), check


@add("detector.learn_one")
def detector_learn(folder):
    """Rows one by one: the detector is as after one of them, or says that it needs a restore."""
    detector = RNNAnomalyDetector(random_state=0).fit(series(2, 100))
    detector.restore(detector.snapshot())
    rows, before, taken = series(2, 4000).tolist(), detector.snapshot(), [0]

    def call():
        taken[0] = 0
        for row in rows:
            detector.learn_one(row)
            taken[0] += 1

    def check():
        again = RNNAnomalyDetector(random_state=0).fit(series(2, 100))
        again.restore(before)
        for row in rows[:taken[0]]:
            again.learn_one(row)
        snapshot = snapshot_or_none(detector)
        if snapshot is not None:
            expected = {again.snapshot()}
            again.learn_one(rows[min(taken[0], len(rows) - 1)])
            assert snapshot in expected | {again.snapshot()}, "the detector is torn, and does not say so"
        detector.restore(before)
    return call, check


@add("detector.score_samples")
def detector_score(folder):
    detector, rows = RNNAnomalyDetector(random_state=0).fit(series(2, 300)), series(2, 6000)
    before = detector.snapshot()

    def check():
        assert detector.snapshot() == before
    return (lambda: detector.score_samples(rows)), check


# ---- Many series ----------------------------------------------------------------------------------------

def long_table(count, steps):
    import pyarrow as pa
    names = np.repeat([f"s{n:04d}" for n in range(count)], steps)
    return pa.table({"unique_id": names, "y": series(count, steps).T.ravel()})


@add("scale.forecast")
def scale_forecast(folder):
    """Called again it goes on, and ends with the same bytes."""
    import shutil
    scale.partition(long_table(600, 60), out=folder / "parts", partitions=20)
    model = RNNForecaster(6, window=12, hidden_size=8, updates=10, blend=["network", "naive", "theta"], seasons=(),
                          random_state=0, target="y", series="unique_id").fit(long_table(20, 60))
    out = folder / "out"

    def call():
        scale.forecast(model, folder / "parts", out, progress=False)

    def contents():
        call()
        files = {path.name: path.read_bytes() for path in sorted(out.glob("*.parquet"))}
        shutil.rmtree(out)
        return files

    expected = contents()

    def check():
        assert contents() == expected, "a run that goes on ends with other files"
    return call, check


@add("scale.partition")
def scale_partition(folder):
    import shutil
    table, out = long_table(3000, 200), folder / "parts"

    def call():
        shutil.rmtree(out, ignore_errors=True)
        scale.partition(table, out=out, partitions=20)

    def check():
        left = [path.name for path in folder.iterdir() if path.name != "parts"]
        assert not left, f"a draft is left: {left}"
        if out.exists():
            assert len(list(out.iterdir())) == 20, "a part of the partitions is there"
    return call, check
