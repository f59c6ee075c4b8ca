"""``scale.forecast``, ``score`` and ``backtest``: the same bytes by every engine, and nothing lost or done twice."""

import json
import mmap
import os
import subprocess
import sys
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scale_runs
from forecasters import SMALL
from helpers import refuses

from fastrnn import scale
from fastrnn.anomaly import RNNAnomalyDetector
from fastrnn.forecasting import RNNForecaster
from fastrnn.scale import tasks, work
from fastrnn.scale.runs import model_bytes

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
csv = pytest.importorskip("pyarrow.csv")

NAMES = [f"shop {n:02d}" for n in range(12)]


def long_frame(names=NAMES, T=60, seed=0):
    """Series of hours, each with its own level and phase."""
    rng, t = np.random.default_rng(seed), np.arange(T)
    y = [10 * (n + 1) + 3 * np.sin(t / 6 + n) + 0.3 * rng.standard_normal(T) for n in range(len(names))]
    times = np.datetime64("2024-01-01", "us") + t * np.timedelta64(1, "h")
    return pa.table({"unique_id": np.repeat(names, T), "ds": np.tile(times, len(names)), "y": np.concatenate(y)})


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.parquet"))}


def together(folder):
    return pa.concat_tables(map(parquet.read_table, sorted(Path(folder).glob("*.parquet"))))


@pytest.fixture(scope="module")
def table():
    return long_frame()


@pytest.fixture(scope="module")
def parts(table, tmp_path_factory):
    return scale.partition(table, out=tmp_path_factory.mktemp("scale") / "parts", partitions=4)


@pytest.fixture(scope="module")
def model(table):
    """Fitted to some of the series, with weights of their own."""
    one = RNNForecaster(**SMALL | {"updates": 5, "blend": ("network", "naive", "drift", "theta")}, target="y",
                        time="ds", series="unique_id", quantiles=(0.1, 0.9))
    return one.fit(table.slice(0, 5 * 60))


@pytest.fixture(scope="module")
def detector():
    return RNNAnomalyDetector(hidden_size=8, random_state=0)


@pytest.fixture(scope="module")
def expected(model, detector, parts, tmp_path_factory):
    """Results of this process, by task."""
    folder = tmp_path_factory.mktemp("expected")
    scale.forecast(model, parts, folder / "forecast", progress=False)
    scale.score(detector, parts, folder / "score", progress=False)
    scale.backtest(model, parts, folder / "backtest", start=-24, stride=6, progress=False)
    return {task: contents(folder / task) for task in ("forecast", "score", "backtest")}


# ---- What the results are ------------------------------------------------------------------------

def test_forecasts_are_those_of_the_model_for_each_series(model, table, parts, tmp_path):
    report = scale.forecast(model, parts, tmp_path / "out", interval=0.8, progress=False)
    result = together(tmp_path / "out")
    assert result.column_names == ["unique_id", "ds", "y_lower", "y", "y_upper"]
    assert result.schema.field("ds").type == table.schema.field("ds").type
    whole = model.apply(table).predict(interval=0.8)
    order = sorted(range(len(whole)), key=lambda row: (whole["unique_id"][row].as_py(), whole["ds"][row].as_py()))
    rows = sorted(range(len(result)), key=lambda row: (result["unique_id"][row].as_py(), result["ds"][row].as_py()))
    assert result.take(rows).to_pylist() == whole.take(order).to_pylist()
    assert (report.series, report.rows, report.partitions, report.resumed) == (12, 12 * 4, 4, 0)
    assert [os.path.basename(path) for path in report.files] == sorted(contents(tmp_path / "out"))
    assert "12 series, 48 rows" in repr(report) and report.peak_memory > 0


def test_scores_are_those_of_a_detector_for_each_series(detector, table, parts, tmp_path):
    report = scale.score(detector, parts, tmp_path / "out", progress=False)
    result = together(tmp_path / "out").to_pandas()
    for name in NAMES[::5]:
        rows = table.to_pandas().query("unique_id == @name")
        one, scores = RNNAnomalyDetector(hidden_size=8, random_state=0), []
        for value, time in zip(rows["y"].tolist(), rows["ds"].tolist(), strict=True):
            scores.append(one.score_one(value, time))
            one.learn_one(value, time)
        np.testing.assert_array_equal(result[result["unique_id"] == name]["score"], scores)
    assert report.rows == len(table)


def test_a_fitted_detector_goes_on_from_what_it_has_learnt(table, tmp_path):
    rows = table.to_pandas().query("unique_id == 'shop 03'")
    fitted = RNNAnomalyDetector(hidden_size=8, random_state=0, contamination=0.1).fit(rows[["y"]][:30])
    report = scale.score(fitted, [table], tmp_path / "out", progress=False)
    result = parquet.read_table(report.files[0]).to_pandas().query("unique_id == 'shop 03'")
    digits = -fitted.score_samples(rows[["y"]])
    np.testing.assert_array_equal(result["outlier"], digits > -fitted.offset_)
    assert result["outlier"].any()
    with refuses(ValueError, "target", "1 columns"):
        raise scale_error(fitted, table, tmp_path / "other", target=["y", "y2"])


def scale_error(detector, table, out, target):
    """The error of a run in which every series fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = scale.score(detector, [table.append_column("y2", table["y"])], out, target=target, progress=False)
    return ValueError(report.failures[0].error.removeprefix("ValueError: "))


def test_a_backtest_has_the_errors_of_the_whole(model, table, parts, tmp_path):
    report = scale.backtest(model, parts, tmp_path / "out", start=-24, stride=6, progress=False)
    whole = model.backtest(table, start=-24, stride=6, refit=False)
    for name, row in whole.scores().items():
        assert report.scores()[name] == pytest.approx(row, rel=1e-12)
    result = together(tmp_path / "out").to_pandas()
    assert list(result)[:6] == ["unique_id", "ds", "cutoff", "step", "y", "forecast"]
    assert ((result["ds"] - result["cutoff"]).dt.total_seconds() == 3600 * result["step"]).all()
    truth = table.to_pandas().set_index(["unique_id", "ds"])["y"]
    np.testing.assert_array_equal(truth.loc[list(zip(result["unique_id"], result["ds"], strict=True))], result["y"])
    assert "MASE" in repr(report)
    with pytest.raises(ValueError, match="only a backtest"):
        scale.forecast(model, parts, tmp_path / "other", progress=False).scores()


def test_an_unfitted_forecaster_is_fitted_to_each_partition(table, parts, tmp_path):
    one = RNNForecaster(**SMALL | {"updates": 3, "blend": ["naive", "theta"]}, target="y", time="ds",
                        series="unique_id")
    report = scale.forecast(one, parts[:2], tmp_path / "a", progress=False)
    for path, part in zip(report.files, parts, strict=False):
        own = one.fit(parquet.read_table(part)).predict()
        np.testing.assert_array_equal(parquet.read_table(path)["y"], own["y"])
    again = RNNForecaster(**SMALL | {"updates": 3, "blend": ["naive", "theta"]})      # the usual names of columns
    tests = scale.backtest(again, parts[:2], tmp_path / "b", start=40, progress=False)
    assert set(tests.scores()) == {"forecast", "naive"}


def test_known_columns_of_the_steps_to_come_are_the_rows_without_a_value(table, tmp_path):
    t = np.tile(np.arange(60), 12)
    table = table.append_column("price", pa.array(np.cos(t / 3)))
    one = RNNForecaster(**SMALL | {"updates": 3}, target="y", time="ds", series="unique_id", known="price")
    fitted = one.fit(table.filter(pa.array(t < 56)))
    hidden = table.set_column(2, "y", pa.array(np.where(t < 56, table["y"], np.nan), from_pandas=True))
    report = scale.forecast(fitted, [hidden], tmp_path / "out", progress=False)
    expected = fitted.predict(table.filter(pa.array(t >= 56)).drop_columns(["y"]))
    assert parquet.read_table(report.files[0]).to_pylist() == expected.to_pylist()
    with pytest.warns(UserWarning, match="no results"):
        report = scale.forecast(fitted, [table], tmp_path / "other", progress=False)
    assert "what is known of the steps to come" in report.failures[0].error
    with refuses(ValueError, "steps", "rows for the steps to come"):
        scale.forecast(fitted, [hidden], tmp_path / "third", steps=3)


def test_csv_files_and_frames_serve_like_parquet(model, table, tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    assert pandas
    csv.write_csv(table, tmp_path / "all.csv")
    whole = model.apply(table).predict()
    for n, source in enumerate([tmp_path / "all.csv", [table.to_pandas()], iter([polars.from_arrow(table)]), table]):
        report = scale.forecast(str(_saved(model, tmp_path)), source, tmp_path / f"out {n}", progress=False)
        result = parquet.read_table(report.files[0])
        np.testing.assert_array_equal(result["y"], whole["y"])
        assert result["unique_id"].to_pylist() == whole["unique_id"].to_pylist()


def _saved(model, folder):
    path = folder / "model.npz"
    if not path.exists():
        model.save(path)
    return path


# ---- Engines ------------------------------------------------------------------------------------

@pytest.mark.slow
def test_threads_and_processes_give_the_same_bytes(model, parts, expected, tmp_path):
    import multiprocessing
    with ThreadPoolExecutor(3) as pool:
        scale.forecast(model, parts, tmp_path / "threads", executor=pool, progress=False)
    assert contents(tmp_path / "threads") == expected["forecast"]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        scale.forecast(model, parts, tmp_path / "processes", executor=pool, threads=2, progress=False)
    assert contents(tmp_path / "processes") == expected["forecast"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", [engine for engine in scale_runs.ENGINES if engine != "none"])
def test_every_engine_gives_the_same_bytes(engine, model, detector, parts, expected, tmp_path):
    reason = scale_runs.missing(engine)
    if reason:
        pytest.skip(reason)
    model.save(tmp_path / "forecaster.npz")
    detector.save(tmp_path / "detector.npz")
    jobs = [(task, tmp_path / ("detector.npz" if task == "score" else "forecaster.npz"), tmp_path / task)
            for task in expected]
    done = subprocess.run(scale_runs.command(engine, os.path.dirname(parts[0]), *jobs), capture_output=True, text=True,
                          timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["failures"] for line in done.stdout.splitlines()] == [[], [], []]
    assert {task: contents(tmp_path / task) for task in expected} == expected


# ---- Going on -----------------------------------------------------------------------------------

class Limited:
    """An executor that does the first few calls and then breaks, as if its worker had been killed."""

    _max_workers = 1

    def __init__(self, count):
        self.count = count

    def submit(self, function, *arguments):
        from concurrent.futures.process import BrokenProcessPool
        future = Future()
        if self.count == 0:
            future.set_exception(BrokenProcessPool("a worker was killed"))
        else:
            self.count -= 1
            future.set_result(function(*arguments))
        return future


def test_a_run_goes_on_where_it_was(model, parts, expected, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="call again with a new executor to go on"):
        scale.forecast(model, parts, tmp_path, executor=Limited(2), progress=False)
    first = contents(tmp_path)
    assert len(first) == 2
    (tmp_path / ".fastrnn-0123456789abcdef.tmp").write_bytes(b"half of a result")
    calls = []
    monkeypatch.setattr("fastrnn.scale.runs.work",
                        lambda task, piece: calls.append(piece.name) or work.work(task, piece))
    report = scale.forecast(model, parts, tmp_path, progress=False)
    assert len(calls) == 2 and report.resumed == 2 and report.series == 12
    assert contents(tmp_path) == expected["forecast"]
    assert sorted(os.listdir(tmp_path)) == sorted([*expected["forecast"], "_manifest.json", "_model.npz"])
    report = scale.forecast(model, parts, tmp_path, progress=False)
    assert len(calls) == 2 and report.resumed == 4 and report.rows == 48


def test_a_run_of_the_same_fit_goes_on(table, parts, tmp_path):
    """Whose history has other times of training."""
    for _ in range(2):
        model = RNNForecaster(**SMALL | {"updates": 3}, target="y", time="ds", series="unique_id").fit(table)
        report = scale.forecast(model, parts, tmp_path, progress=False)
    assert report.resumed == 4


def test_another_model_or_other_arguments_are_refused_by_name(model, parts, tmp_path):
    scale.forecast(model, parts[:1], tmp_path / "out", progress=False)
    other = model.apply(long_frame(T=50))
    with refuses(ValueError, "out", "results of another run", "model RNNForecaster(horizon=4", "with the hash"):
        scale.forecast(other, parts, tmp_path / "out", progress=False)
    with refuses(ValueError, "out", "steps None, here 3"):
        scale.forecast(model, parts, tmp_path / "out", steps=3, progress=False)
    with refuses(ValueError, "out", "task 'forecasts', here 'backtests'"):
        scale.backtest(model, parts, tmp_path / "out", start=-8, progress=False)
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "mine.txt").write_text("a file of somebody's")
    with refuses(ValueError, "out", "has other files"):
        scale.forecast(model, parts, tmp_path / "busy", progress=False)
    with refuses(ValueError, "out", "another folder than that of the partitions"):
        scale.forecast(model, parts, os.path.dirname(parts[0]), progress=False)


def test_a_partition_that_has_changed_is_done_again(model, table, tmp_path):
    path, out = tmp_path / "a.parquet", tmp_path / "out"
    parquet.write_table(table, path)
    scale.forecast(model, path, out, progress=False)
    before = contents(out)
    parquet.write_table(long_frame(seed=1), path)           # of the same size, almost surely
    assert scale.forecast(model, path, out, progress=False).resumed == 0
    assert contents(out) != before
    os.utime(path, ns=(2**62, 2**62))                       # only its time has changed
    assert scale.forecast(model, path, out, progress=False).resumed == 1
    frames = tmp_path / "frames"
    scale.forecast(model, [table], frames, progress=False)
    assert scale.forecast(model, [table], frames, progress=False).resumed == 1
    assert scale.forecast(model, [long_frame(seed=1)], frames, progress=False).resumed == 0


# ---- Failures -----------------------------------------------------------------------------------

def test_a_series_that_fails_is_named_and_the_others_are_as_ever(model, table, expected, parts, tmp_path):
    whole = {name: own["y"].to_pylist() for name in NAMES
             for own in [model.apply(table).predict().filter(pa.compute.field("unique_id") == name)]}
    y = table["y"].to_numpy().copy()
    y[7 * 60 + 30], y[2 * 60:2 * 60 + 59] = np.inf, np.nan         # not a number to learn from; only one value
    bad = table.set_column(2, "y", pa.array(y))
    with pytest.warns(UserWarning, match="2 series or partitions have no results"):
        report = scale.forecast(model, [bad], tmp_path, progress=False)
    assert {each.series for each in report.failures} == {"shop 07", "shop 02"}
    assert "infinity" in next(each.error for each in report.failures if each.series == "shop 07")
    result = parquet.read_table(report.files[0])
    assert report.series == 10 and "failed: frame 000000, series shop" in repr(report)
    for name in NAMES:
        own = result.filter(pa.compute.field("unique_id") == name)["y"].to_pylist()
        assert own == ([] if name in ("shop 07", "shop 02") else whole[name])
    with pytest.warns(UserWarning, match="have no results"):
        again = scale.forecast(model, [bad], tmp_path, progress=False)
    assert again.resumed == 1 and again.failures == report.failures


def test_a_partition_that_fails_is_named_and_tried_again(model, parts, expected, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for path in parts:
        (folder / os.path.basename(path)).write_bytes(Path(path).read_bytes())
    broken = folder / os.path.basename(parts[1])
    broken.write_bytes(broken.read_bytes()[:-9])
    for executor in (None, ThreadPoolExecutor(2)):
        with pytest.warns(UserWarning, match="1 series or partitions have no results"):
            report = scale.forecast(model, folder, tmp_path / "out", executor=executor, progress=False)
        assert [each.partition for each in report.failures] == [str(broken)]
        assert len(report.files) == 3
    executor.shutdown()
    broken.write_bytes(Path(parts[1]).read_bytes())
    report = scale.forecast(model, folder, tmp_path / "out", progress=False)
    assert report.resumed == 3 and contents(tmp_path / "out") == expected["forecast"]


def test_a_column_that_is_missing_fails_at_once_with_the_series(model, table, tmp_path, monkeypatch):
    calls = []
    compute = tasks.forecasts
    monkeypatch.setattr(tasks, "forecasts", lambda *arguments: calls.append(1) or compute(*arguments))
    with pytest.warns(UserWarning, match="no column 'y'"):
        report = scale.forecast(model, [table.drop_columns(["y"])], tmp_path, progress=False)
    assert not calls and report.files == []


def test_what_all_series_lack_is_said_once(model, tmp_path):
    many = long_frame([f"s{n:03d}" for n in range(200)], T=1)
    with pytest.warns(UserWarning, match="1 series or partitions"):
        report = scale.forecast(model, [many], tmp_path, progress=False)
    assert report.failures[0].series == "s000, s001, s002 and 197 more"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_loses_nothing(model, parts, expected, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    pages = -(-len(model_bytes(model)) // mmap.PAGESIZE) + 1 + 2         # for the model, the manifest and two results
    size = pages * mmap.PAGESIZE
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", out], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system")
    try:
        with pytest.warns(UserWarning, match="No space left"):
            report = scale.forecast(model, parts, out, progress=False)
        assert len(report.failures) == 2 and "OSError" in report.failures[0].error
        assert not list(out.glob(".fastrnn*"))
        subprocess.run(["mount", "-o", "remount,size=100m", out], check=True)
        report = scale.forecast(model, parts, out, progress=False)
        assert not report.failures and contents(out) == expected["forecast"]
    finally:
        subprocess.run(["umount", out], check=True)


# ---- Arguments ----------------------------------------------------------------------------------

def test_unsuitable_arguments_are_named(model, detector, parts, tmp_path):
    out = tmp_path / "out"
    unfitted = RNNForecaster(3)
    for error, name, words, call in (
            (TypeError, "model", "RNNForecaster or the path", lambda: scale.forecast(detector, parts, out)),
            (TypeError, "detector", "RNNAnomalyDetector", lambda: scale.score(model, parts, out)),
            (TypeError, "executor", "Dask client", lambda: scale.forecast(model, parts, out, executor=3)),
            (TypeError, "source", "expected files or an iterator of frames", lambda: scale.forecast(model, 3, out)),
            (ValueError, "model", "random_state that is an int", lambda: scale.forecast(unfitted, parts, out)),
            (ValueError, "detector", "random_state", lambda: scale.score(RNNAnomalyDetector(), parts, out)),
            (TypeError, "start", "expected an int", lambda: scale.backtest(model, parts, out, start=0.5)),
            (ValueError, "stride", "expected", lambda: scale.backtest(model, parts, out, start=-8, stride=0)),
            (ValueError, "steps", "expected", lambda: scale.forecast(model, parts, out, steps=0)),
            (ValueError, "threads", "expected", lambda: scale.forecast(model, parts, out, threads=0)),
            (ValueError, "source", "whose names differ", lambda: scale.forecast(model, [parts[0], parts[0]], out)),
            (ValueError, "quantiles, interval", "one of them",
             lambda: scale.forecast(model, parts, out, quantiles=True, interval=0.5))):
        with refuses(error, name, words):
            call()
    assert not out.exists()


def test_progress_has_a_rate_and_the_time_left(model, parts, tmp_path, capsys):
    scale.forecast(model, parts, tmp_path, progress=True)
    text = capsys.readouterr()
    assert "partition 4 of 4: " in text.err and "series a second, 0 s left" in text.err and not text.out
    frames = map(parquet.read_table, parts)
    report = scale.forecast(model, frames, tmp_path / "frames", progress=True)
    text = capsys.readouterr()
    assert "partition 4: " in text.err and "left" not in text.err and report.partitions == 4


def test_a_report_of_a_run_that_was_resumed_and_failed_in_part():
    failures = [scale.Failure("part-0", f"shop {n}", "ValueError: too short") for n in range(8)]
    lines = repr(scale.Report("out", ["a", "b"], 3, resumed=2, failures=failures)).split("\n  ")
    assert lines[1] == "2 partitions were there already"
    assert len([line for line in lines if line.startswith("failed: ")]) == 5 and lines[-1] == "and 3 more failures"


@pytest.mark.parametrize("change, words", [
    (lambda manifest: manifest | {"version": 99}, "version 99"),
    (lambda manifest: {"version": manifest["version"]}, "KeyError"),
    (lambda manifest: "text", "is no manifest of this version of fastrnn"),
])
def test_a_folder_with_another_manifest_is_refused(change, words, detector, table, tmp_path):
    scale.score(detector, [table], tmp_path / "out", progress=False)
    path, = (tmp_path / "out").glob("*.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with refuses(ValueError, "out", "is no manifest of this version of fastrnn", words):
        scale.score(detector, [table], tmp_path / "out", progress=False)


def test_rows_without_the_name_of_their_series_fail_their_partition(detector, table, tmp_path):
    names = pa.array([None, *table["unique_id"].to_pylist()[1:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = scale.score(detector, [table.set_column(0, "unique_id", names)], tmp_path / "out", progress=False)
    assert report.failures[0].whole
    assert "unique_id: expected the name of a series in every row, 1 are missing" in report.failures[0].error


def test_a_forecaster_of_several_columns_needs_one_of_the_partitions(table, tmp_path):
    several = RNNForecaster(**SMALL | {"updates": 1}, target=("y", "z"), time="ds")
    with refuses(ValueError, "target", "expected one column, as partitions are long tables"):
        scale.backtest(several, [table], tmp_path / "out", start=-8, progress=False)
