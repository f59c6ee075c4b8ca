"""``scale.fit``: one forecaster of all partitions, the same for every executor, and the same after a kill."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from forecasters import SMALL
from helpers import refuses

from fastrnn import scale
from fastrnn.forecasting import RNNForecaster
from fastrnn.scale import fits

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

QUICK = SMALL | {"updates": 30, "batch_size": 8, "blend": ("network", "naive")}


def long_frame(count=60, T=70, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(T)
    y = [5 * (n % 7 + 1) + 3 * np.sin(t / 3 + n) + 0.2 * rng.standard_normal(T) for n in range(count)]
    return pa.table({"unique_id": np.repeat([f"s{n:03d}" for n in range(count)], T), "ds": np.tile(t, count),
                     "y": np.concatenate(y)})


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return scale.partition(long_frame().drop_columns(["ds"]), out=tmp_path_factory.mktemp("fit") / "parts",
                           partitions=15)


def weights(model):
    return [value.tobytes() for network in model.models_ for value in network.parameters.values()] + [
        model.blend_.weights.tobytes()]


@pytest.fixture(scope="module")
def fitted(parts):
    return scale.fit(RNNForecaster(**QUICK), parts, sample=20, progress=False)


def test_the_networks_learn_from_all_partitions_and_the_sample_is_kept(fitted, parts, tmp_path, monkeypatch):
    assert len(fitted.panel_.series) == 20 and len(fitted.models_) == 1
    assert len(set(map(tuple, fitted.blend_.weights.tolist()))) >= 1
    calls = []
    draw = fits.draw
    monkeypatch.setattr(fits, "draw", lambda *call: calls.append(call) or draw(*call))
    again = scale.fit(RNNForecaster(**QUICK), parts, sample=20, progress=False)
    assert weights(again) == weights(fitted)
    assert {call[1].path for call in calls} == set(parts)
    assert sum(call[2] for call in calls) >= 30 * 8
    report = scale.forecast(fitted, parts, tmp_path / "out", progress=False)
    assert report.series == 60 and not report.failures
    other = scale.fit(RNNForecaster(**QUICK | {"random_state": 1}), parts, sample=20, progress=False)
    assert weights(other) != weights(fitted)


@pytest.mark.slow
def test_what_is_not_in_memory_is_learnt(parts, tmp_path):
    """The network alone, of a sample of few series, forecasts series that it has not seen better than a naive one."""
    model = RNNForecaster(**SMALL | {"updates": 300, "learning_rate": 0.01})
    fitted = scale.fit(model, parts, sample=15, progress=False)
    fresh = long_frame(seed=5).drop_columns(["ds"])
    scores = fitted.backtest(fresh, start=-12, stride=4, refit=False).scores()
    assert scores["forecast"]["MAE"] < 0.5 * scores["naive"]["MAE"]


@pytest.mark.parametrize("kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_executor_does_not_matter(kind, fitted, parts):
    pool = (ThreadPoolExecutor(3) if kind == "threads" else
            ProcessPoolExecutor(2, multiprocessing.get_context("spawn")))
    with pool:
        other = scale.fit(RNNForecaster(**QUICK), parts, sample=20, executor=pool, progress=False)
    assert weights(other) == weights(fitted)


@pytest.mark.parametrize("stop", [pytest.param(0, marks=pytest.mark.slow), 5, pytest.param(13, marks=pytest.mark.slow)])
def test_a_fit_that_was_killed_goes_on_from_its_checkpoint(stop, fitted, parts, tmp_path, monkeypatch):
    loads = []
    load = fits.Rounds.load

    def stopping(data, number):
        if len(loads) == stop:
            raise KeyboardInterrupt
        loads.append(number)
        load(data, number)

    monkeypatch.setattr(fits.Rounds, "load", stopping)
    with pytest.raises(KeyboardInterrupt):
        scale.fit(RNNForecaster(**QUICK), parts, sample=20, checkpoint=tmp_path / "fit", progress=False)
    first = list(loads)
    monkeypatch.setattr(fits.Rounds, "load", lambda data, number: loads.append(number) or load(data, number))
    resumed = scale.fit(RNNForecaster(**QUICK), parts, sample=20, checkpoint=tmp_path / "fit", progress=False)
    assert weights(resumed) == weights(fitted)
    assert len(loads) == 12 + 7 and loads[:stop] == first           # no round was trained on twice
    count = len(loads)
    assert weights(scale.fit(RNNForecaster(**QUICK), parts, sample=20, checkpoint=tmp_path / "fit",
                             progress=False)) == weights(fitted)
    assert len(loads) == count
    with refuses(ValueError, "out", "results of another run", "RNNForecaster"):
        scale.fit(RNNForecaster(**QUICK | {"updates": 40}), parts, sample=20, checkpoint=tmp_path / "fit",
                  progress=False)


def test_a_poisoned_series_is_left_out_and_a_broken_partition_ends_the_fit(parts, tmp_path):
    table = parquet.read_table(parts[3])
    y = table["y"].to_numpy().copy()
    y[40] = np.inf
    bad = tmp_path / "bad.parquet"
    parquet.write_table(table.set_column(1, "y", pa.array(y)), bad)
    with pytest.warns(UserWarning, match=f"series {table['unique_id'][40]}: ValueError"):
        model = scale.fit(RNNForecaster(**QUICK), [parts[0], str(bad)], sample=9, progress=False)
    assert table["unique_id"][40].as_py() not in {each.name for each in model.panel_.series}
    bad.write_bytes(bad.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="no results"), pytest.raises(scale.PartitionError, match=r"bad\.parquet"):
        scale.fit(RNNForecaster(**QUICK), [parts[0], str(bad)], sample=9, progress=False)


def test_zeros_outside_of_the_sample_forbid_a_logarithm(tmp_path):
    rng = np.random.default_rng(0)
    growth = np.exp(np.cumsum(0.05 * rng.standard_normal((40, 80)), 1)) * 10 ** rng.uniform(0, 3, (40, 1))
    table = pa.table({"unique_id": np.repeat(np.arange(40), 80), "y": growth.ravel()})
    options = QUICK | {"log": "auto", "updates": 12, "blend": ("naive", "drift")}
    parts = scale.partition(table, out=tmp_path / "a", partitions=4)
    assert scale.fit(RNNForecaster(**options), parts, sample=4, progress=False).options_.log
    growth[13, 5] = 0
    table = pa.table({"unique_id": np.repeat(np.arange(40), 80), "y": growth.ravel()})
    parts = scale.partition(table, out=tmp_path / "b", partitions=4)
    fitted = scale.fit(RNNForecaster(**options), parts, sample=4, progress=False)
    assert 13 not in {each.name for each in fitted.panel_.series}
    assert not fitted.options_.log and fitted.log == "auto"


def test_unsuitable_arguments_are_named(parts, tmp_path):
    for error, name, words, call in (
            (ValueError, "model", "random_state", lambda: scale.fit(RNNForecaster(3), parts)),
            (TypeError, "source", "expected files", lambda: scale.fit(RNNForecaster(**QUICK), [long_frame()])),
            (ValueError, "sample", "expected", lambda: scale.fit(RNNForecaster(**QUICK), parts, sample=0)),
            (ValueError, "model", "no categorical columns",
             lambda: scale.fit(RNNForecaster(**QUICK, target="y", known="k", categorical="k"), parts))):
        with refuses(error, name, words):
            call()
    assert not Path(tmp_path / "fit").exists()
