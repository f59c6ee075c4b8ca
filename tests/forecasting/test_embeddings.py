"""Learnt embeddings of columns with many categories: gradients, what they are good for, files, updates, streams."""

import warnings

import numpy as np
import pytest
from helpers import central_differences

from fastrnn import GRU, Embedding, Linear
from fastrnn.forecasting import RNNForecaster
from fastrnn.forecasting.categories import ONE_HOT, WIDTH, Vectors, vectors
from fastrnn.forecasting.embeddings import EmbeddedNetwork
from fastrnn.forecasting.network import ForecastNetwork

KINDS = ONE_HOT + 3
NAMED = {"target": "y", "time": "ds", "series": "shop", "horizon": 3, "window": 12, "hidden_size": 4, "seasons": (),
         "log": False, "random_state": 0}


def frame(rows=60):
    """Sales that depend on the kind of each day's event, which is known in advance, and on nothing else."""
    pandas = pytest.importorskip("pandas")
    rng, most = np.random.default_rng(0), 70
    events = rng.permutation(np.arange(12 * most) % KINDS)
    days = np.datetime64("2024-01-01", "us") + np.arange(most) * np.timedelta64(1, "D")
    whole = pandas.DataFrame({"shop": np.repeat(np.arange(12), most), "ds": np.tile(days, 12),
                              "event": [f"event {n}" for n in events], "day": np.tile(np.arange(most) % 7.0, 12),
                              "y": 20 + effects()[events] + 0.1 * rng.standard_normal(12 * most)})
    return whole[whole["ds"] < days[rows]]


def effects():
    return 3 * np.random.default_rng(1).standard_normal(KINDS)


@pytest.fixture(scope="module")
def model():
    return RNNForecaster(**NAMED, known=("day", "event"), categorical="event", blend=["linear", "mean"],
                         updates=500).fit(frame())


def plan(model, names, rows=60):
    pandas = pytest.importorskip("pandas")
    days = np.datetime64("2024-01-01", "us") + (rows + np.arange(len(names))) * np.timedelta64(1, "D")
    parts = [pandas.DataFrame({"shop": n, "ds": days, "event": names, "day": 0.0}) for n in range(12)]
    return pandas.concat(parts)


# ---- Gradients ------------------------------------------------------------------------------------

def test_gradients_of_the_tables():
    rng = np.random.default_rng(0)
    tables = [Embedding(4, 2, dtype=np.float64, rng=0), Embedding(3, 3, dtype=np.float64, rng=1)]
    network = EmbeddedNetwork(
        tables, ForecastNetwork(GRU(2 + 2 + 2 * 3, 5, dtype=np.float64, rng=2), Linear(15, 2, dtype=np.float64, rng=3)),
        [np.array([1]), np.array([2, 4])])
    x = rng.standard_normal((6, 3, 5))
    x[..., 1], x[..., 2], x[..., 4] = (rng.integers(0, n, (6, 3)) for n in (4, 3, 3))
    weight, lengths = rng.standard_normal((6, 3, 2)), np.array([6, 4, 2])
    output, _, cache = network.forward(x, lengths=lengths)
    np.testing.assert_array_equal(output, network(x, lengths=lengths)[0])
    gradients = network.backward(cache, weight).parameters
    assert gradients.keys() == network.parameters.keys()
    for name, gradient in gradients.items():
        values = network.state_dict()

        def loss(values=values):
            network.load_state_dict(values)
            return float((network(x, lengths=lengths)[0] * weight).sum())

        numerical = central_differences(loss, values[name], 1e-6)
        network.load_state_dict(values)
        np.testing.assert_allclose(gradient, numerical, rtol=1e-6, atol=1e-7)


# ---- What is learnt -------------------------------------------------------------------------------

def test_vectors_are_learnt(model):
    learnt = model.panel_.categories["event"]
    assert isinstance(learnt, Vectors) and learnt.table.shape == (KINDS, WIDTH) and len(learnt) == KINDS
    assert np.abs(learnt.table - vectors(KINDS)).max() > 0.1
    own = np.array([effects()[int(label.split()[1])] for label in learnt])
    design = np.column_stack([np.ones(KINDS), learnt.table])
    fitted = design @ np.linalg.lstsq(design, own, rcond=None)[0]
    assert 1 - ((own - fitted) ** 2).sum() / ((own - own.mean()) ** 2).sum() > 0.95      # drawn ones explain a half


def test_forecasts_follow_categories(model):
    names = ["event 3", "event 11", "event 30"]
    forecast = model.predict(plan(model, names))["y"].to_numpy().reshape(12, 3)
    expected = 20 + effects()[[3, 11, 30]]
    assert np.abs(forecast - expected).mean() < 1.5          # 3.4 where vectors are only drawn


def test_unknown_categories_are_the_mean(model):
    with pytest.warns(UserWarning, match="'event 99' were not there in fit"):
        unknown = model.predict(plan(model, ["event 99"] * 3))["y"].to_numpy()
    none = model.predict(plan(model, [None] * 3))["y"].to_numpy()
    np.testing.assert_array_equal(unknown, none)
    assert np.abs(none - 20 - effects().mean()).max() < 1.5


# ---- Living models --------------------------------------------------------------------------------

def test_files_hold_the_vectors(model, tmp_path):
    model.save(tmp_path / "model.npz")
    again = RNNForecaster.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.panel_.categories["event"].table, model.panel_.categories["event"].table)
    days = plan(model, ["event 3", "event 11", "event 30"])
    np.testing.assert_array_equal(again.predict(days)["y"], model.predict(days)["y"])


def test_updates_and_streams_read_learnt_vectors(model, tmp_path):
    model.save(tmp_path / "model.npz")
    other = RNNForecaster.load(tmp_path / "model.npz")
    data = frame(rows=63)
    new = data[data["ds"] >= "2024-03-01"]
    other.update(new, updates=0)
    names = ["event 3", "event 11", "event 30"]
    grown = other.predict(plan(other, names, 63))
    np.testing.assert_allclose(grown["y"], model.apply(data).predict(plan(model, names, 63))["y"], rtol=1e-6)
    first = data[data["shop"] == 0].iloc[60:]
    stream = model.stream(0, first)
    forecast = stream.step(first["y"].iloc[0], known=[0.0, "event 11"])
    later = plan(model, [*first["event"].iloc[1:], "event 11"], 61).query("shop == 0")
    expected = model.apply(data[data["ds"] < "2024-03-02"].query("shop == 0")).predict(later)["y"]
    np.testing.assert_allclose(forecast, expected, atol=0.5)
    assert abs(forecast[-1] - 20 - effects()[11]) < 1


def test_backtests_read_learnt_vectors():
    options = NAMED | {"known": "event", "categorical": "event", "blend": ["linear", "mean"], "updates": 500}
    test = RNNForecaster(**options).backtest(frame(), start=-9, stride=3)
    assert test.scores()["forecast"]["MAE"] < 0.3 * test.scores()["naive"]["MAE"]


def test_static_arrays_and_columns_beside_each_other():
    rng = np.random.default_rng(0)
    kinds = np.array([f"kind {n % KINDS}" for n in range(2 * KINDS)])
    series = [float(n % 5) + rng.standard_normal(40).cumsum() for n in range(2 * KINDS)]
    static = np.array([[n, kind, "ab"[n % 2]] for n, kind in enumerate(kinds)], object)
    model = RNNForecaster(horizon=3, window=8, hidden_size=3, updates=20, random_state=0).fit(series, static=static)
    learnt = model.panel_.categories["static column 1"]
    each = model.panel_.series[KINDS + 4].static
    assert each.shape == (1 + WIDTH + 2,) and each[0] == KINDS + 4
    np.testing.assert_array_equal(each[1:-2], learnt.table[4])
    np.testing.assert_array_equal(each[-2:], np.eye(2)[(KINDS + 4) % 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = model.apply(series, static=static)
    np.testing.assert_array_equal(other.predict(), model.predict())


def test_few_categories_are_not_learnt():
    static = np.array([[f"kind {n % 3}"] for n in range(6)])
    series = [np.random.default_rng(n).standard_normal(30) for n in range(6)]
    model = RNNForecaster(horizon=2, window=8, hidden_size=3, updates=5, random_state=0).fit(series, static=static)
    assert model.panel_.categories == {"static column 0": ("kind 0", "kind 1", "kind 2")}
