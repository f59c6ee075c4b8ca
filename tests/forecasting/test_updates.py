"""``update`` and ``partial_fit``: rows that follow, in every kind of table, and networks that go on training."""

import copy

import numpy as np
import pytest
from estimator_files import differences
from forecasters import SMALL, fitted, wave

from fastrnn.forecasting import RNNForecaster

Y = wave(120)
COLUMNS = np.random.default_rng(3).standard_normal((120, 2))
TIMES = np.datetime64("2024-01-31T05") + np.arange(120) * np.timedelta64(1, "h")


def lengthened(model, expected, updates=0):
    """Asserts that a forecaster forecasts and streams as one with its networks that was given all rows at once."""
    assert [len(each) for each in model.panel_.series] == [len(each) for each in expected.panel_.series]
    for each, other in zip(model.panel_.series, expected.panel_.series, strict=True):
        assert not differences(each, other)
    X = np.ones((4, model.n_features_in_)) if model.n_features_in_ else None
    if model.panel_.kind == "list" and X is not None:
        X = [X] * len(model.panel_.series)
    assert np.array_equal(model.predict(X), expected.predict(X))


# ---- Longer series --------------------------------------------------------------------------------

@pytest.mark.parametrize("about", ["one", "columns", "times", "X and past", "a list", "missing"])
def test_rows_that_follow_make_series_longer(about):
    y, X, past, times = Y, None, None, None
    if about == "columns":
        y = np.stack([Y, 2 * Y], 1)
    elif about == "times":
        times = TIMES
    elif about == "X and past":
        X, past = COLUMNS, COLUMNS[:, :1]
    elif about == "missing":
        y = np.where(np.arange(120) % 7 == 0, np.nan, Y)
    elif about == "a list":
        model = fitted([Y[:90], 2 * Y[:70]]).update([Y[90:], []], updates=0)
        model.update([[], 2 * Y[70:75], Y[:50]], updates=0)
        return lengthened(model, model.apply([Y, 2 * Y[:75], Y[:50]]))

    def part(start, stop):
        every = {"X": X, "y": y, "past": past, "times": times}
        return {name: None if values is None else values[start:stop] for name, values in every.items()}

    model = fitted(**{name: value for name, value in part(0, 90).items() if value is not None})
    networks = [network.state_dict() for network in model.models_]
    for start, stop in ((90, 91), (91, 100), (100, 120)):           # one row is enough
        assert model.update(**part(start, stop), updates=0) is model
    assert not differences(networks, [network.state_dict() for network in model.models_])
    lengthened(model, model.apply(X, y, past=past, times=times))
    stream, other = (each.stream(X=None if X is None else np.ones((4, 2))) for each in (model, model.apply(
        X, y, past=past, times=times)))
    assert np.array_equal(stream.forecast, other.forecast)


def test_arrays_without_times_follow_step_by_step():
    model = fitted(Y[:90], times=TIMES[:90], time_features="day").update(Y[90:], updates=0)
    lengthened(model, model.apply(Y, times=TIMES))


def test_steps_that_are_left_out_are_missing():
    model = fitted(Y[:90], times=TIMES[:90])
    there = np.r_[95:100, 103:120]
    model.update(Y[there], times=TIMES[there], updates=0)
    y = Y.copy()
    y[[*range(90, 95), 100, 101, 102]] = np.nan
    lengthened(model, model.apply(y, times=TIMES))


@pytest.mark.parametrize("freq", ["B", "MS", "ME", "QE", "W"])
def test_calendars(freq):
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2020-01-01", periods=120, freq=freq)
    model = fitted(Y[:90], times=times[:90])
    model.update(Y[90:91], times=times[90:91], updates=0).update(Y[95:], times=times[95:], updates=0)
    y = Y.copy()
    y[91:95] = np.nan
    lengthened(model, model.apply(y, times=times))


def frame(start, stop, shops="ab", zone=None):
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2024-10-25", periods=120, freq="h", tz=zone)[start:stop]
    sales, price = Y[start:stop], COLUMNS[start:stop, 0]
    return pandas.concat([pandas.DataFrame({"t": times, "shop": shop, "sales": ord(shop) * sales, "price": price})
                          for shop in shops], ignore_index=True)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_frames_by_time_and_name_of_series(zone):
    """The clock change is among the steps; rows come in any order, a series may have none, and a new one come."""
    pandas = pytest.importorskip("pandas")
    options = {**SMALL, "target": "sales", "time": "t", "series": "shop", "known": "price"}
    model = RNNForecaster(**options).fit(frame(0, 60, zone=zone))
    model.update(frame(60, 61, "b", zone), updates=0)
    model.update(pandas.concat([frame(61, 120, "bc", zone), frame(60, 90, "a", zone)]).sample(frac=1, random_state=0),
                 updates=0)
    whole = pandas.concat([frame(0, 90, "a", zone), frame(0, 120, "b", zone), frame(61, 120, "c", zone)])
    expected = model.apply(whole)
    for each, other in zip(model.panel_.series, expected.panel_.series, strict=True):
        assert not differences(each, other)
    ahead = pandas.concat([
        pandas.DataFrame({"t": pandas.date_range(last + pandas.Timedelta("1h"), periods=4, freq="h"), "shop": shop,
                          "price": 1.0}) for shop, last in whole.groupby("shop").t.max().items()])
    forecast = model.predict(ahead)
    assert forecast.equals(expected.predict(ahead)) and forecast.shop.unique().tolist() == ["a", "b", "c"]


def test_static_and_categorical_columns():
    """Text in a static column; of a list's further series it must be given, that of the others stays."""
    kinds = np.array([["shop", 1.0], ["market", 2.0]], object)
    model = RNNForecaster(**SMALL).fit([Y[:90], 2 * Y[:90]], static=kinds)
    model.update([Y[90:], []], updates=0)
    with pytest.raises(ValueError, match="static: expected 3 columns, got 0"):
        model.update([[], [], Y], updates=0)
    more = np.concatenate([kinds, np.array([["shop", 3.0]], object)])
    model.update([[], 2 * Y[90:], Y], static=more)
    assert [each.static.tolist() for each in model.panel_.series] == [[1, 0, 1], [0, 1, 2], [1, 0, 3]]
    assert model.predict().shape == (3, 4)


def test_a_series_with_an_index():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(Y, pandas.date_range("2024-01-01", periods=120, freq="D"), name="sales")
    model = fitted(series[:90]).update(series[90:91], updates=0).update(series[91:], updates=0)
    assert model.predict().equals(model.apply(series).predict())


def blended(**options):
    return RNNForecaster(**{"horizon": 4, "updates": 20, "hidden_size": 4, "ensemble": 1, "random_state": 0, **options})


def test_a_blend_goes_on_from_the_new_ends():
    y = np.stack([Y, 3 * Y], 1)
    model = blended().fit(y[:90])
    model.update(y[90:91], updates=0).update(y[91:], updates=0)
    lengthened(model, model.apply(y))
    assert np.array_equal(model.predict(interval=0.8), model.apply(y).predict(interval=0.8))
    lists = blended().fit([Y[:90], 3 * Y[:80]]).update([Y[90:], [], Y[:70]])
    assert lists.predict().shape == (3, 4) and np.isfinite(lists.predict()).all()
    assert lists.blend_.weights.shape[0] == 3 and np.allclose(lists.blend_.weights.sum(1), 1)


def test_glitches_among_new_rows_are_left_out():
    model = blended().fit(Y[:90])
    with pytest.warns(UserWarning, match="the value 1e[+]09 in row 95 is .* left out as missing"):
        model.update(np.where(np.arange(120) == 95, 1e9, Y)[90:], updates=0)
    assert np.isnan(model.panel_.series[0].y[95]) and model.choice_.left_out == ((0, 95),)


def test_negative_values_among_new_counts():
    counts = np.random.default_rng(0).poisson(0.3, 120).astype(float)
    model = blended(blend="naive").fit(counts[:90])
    assert model.choice_.nonnegative == (True,)
    assert model.update([-3.0], updates=0).choice_.nonnegative == (False,)


# ---- Training -------------------------------------------------------------------------------------

def mean_error(model, y, start, stop=None):
    """Mean absolute error of forecasts from each step on, by the networks as they are."""
    test = model.backtest(y, start=start, refit=False)
    return test.scores()["forecast"]["MAE"]


def test_what_has_changed_is_learnt():
    """After 300 steps the season is another: updates learn it, and leave what they should alone."""
    t = np.arange(700)
    y = 10 + np.sin(np.cumsum(np.where(t < 300, 0.5, 0.9))) + 0.05 * np.random.default_rng(0).standard_normal(700)
    model = RNNForecaster(horizon=6, window=24, hidden_size=16, updates=200, log=False, difference=1, seasons=(),
                          blend=False, random_state=0).fit(y[:300])
    still = model.apply(y[:600])
    for start in range(300, 600, 50):
        model.update(y[start:start + 50])
    assert mean_error(model, y, 600) < 0.7 * mean_error(still, y, 600)
    assert mean_error(model, y[:300], 200) < 3 * mean_error(still, y[:300], 200)


def test_one_row_after_another_does_no_harm():
    y = wave(330)
    model = RNNForecaster(horizon=6, window=24, hidden_size=8, updates=100, random_state=0).fit(y[:200])
    before = mean_error(model, y, 240)
    for row in range(200, 240):
        model.update(y[row:row + 1])
    assert len(model.panel_.series[0]) == 240 and mean_error(model, y, 240) < 1.1 * before


def test_updates_as_many_as_asked_for():
    model = fitted(Y[:90], batch_size=4, ensemble=2)
    epochs = [history.epochs for history in model.history_]
    model.update(Y[90:], updates=12)
    windows = len(set(range(0, 97, 6)))
    for history, before in zip(model.history_, epochs, strict=True):
        assert history.epochs > before and len(history["learning_rate"]) == history.epochs
        assert max(history["learning_rate"][before:]) <= 0.3 * model.learning_rate
    assert windows > 0 and "validation_loss" not in model.history_[0]


def test_default_updates_are_as_many_a_row_as_in_fit(monkeypatch):
    from fastrnn.forecasting import updating
    counts = []
    monkeypatch.setattr(updating, "_trained_on", lambda network, windows, options, updates: (
        counts.append(updates), (network, updating.training.History({name: [] for name in ("loss",)})))[1])
    fitted([Y[:90]], updates=180).update([Y[90:]]).update([Y[:4]]).update([Y[:1]]).update([Y[:0]])
    assert counts == [60, 6, 1]


def test_an_update_with_a_seed_gives_the_same_bits_and_copies_stay():
    first, second = fitted(Y[:90]), fitted(Y[:90])
    twin, forecast = first.apply(Y[:90]), first.predict()
    assert np.array_equal(first.update(Y[90:]).predict(), second.update(Y[90:]).predict())
    assert np.array_equal(twin.predict(), forecast) and not np.array_equal(first.predict(), forecast)


def test_updates_go_on_after_a_file(tmp_path):
    model = fitted(Y[:90], dropout=0.1, num_layers=2)
    model.save(tmp_path / "model.npz")
    again = RNNForecaster.load(tmp_path / "model.npz")
    for each in (model, again):
        each.update(Y[90:110]).update(Y[110:])
    assert np.array_equal(model.predict(), again.predict())


def test_quantiles_and_early_stopping():
    model = fitted(Y[:90], quantiles=(0.1, 0.9), patience=2).update(Y[90:])
    assert model.predict(quantiles=True).shape == (4, 3) and model.history_[0].epochs > 1


def test_partial_fit_fits_first_and_then_updates():
    model = RNNForecaster(**SMALL)
    assert model.partial_fit(Y[:90]) is model and np.array_equal(model.predict(), fitted(Y[:90]).predict())
    model.partial_fit(None, Y[90:])
    assert np.array_equal(model.predict(), fitted(Y[:90]).update(Y[90:]).predict())
    columns = RNNForecaster(**SMALL).partial_fit(COLUMNS[:90], Y[:90]).partial_fit(COLUMNS[90:], Y[90:])
    assert len(columns.panel_.series[0]) == 120 and columns.n_features_in_ == 2


# ---- What is refused ------------------------------------------------------------------------------

REFUSED = {
    "an overlap": (lambda: fitted(Y[:90], times=TIMES[:90]), {"y": Y[89:], "times": TIMES[89:]},
                   "expected rows that follow the series, from 2024-02-03T23:00 on, got 2024-02-03T22"),
    "another step": (lambda: fitted(Y[:90], times=TIMES[:90]), {"y": Y[90:100], "times": TIMES[89] + np.arange(
        1, 11) * np.timedelta64(30, "m")}, "times"),
    "far away": (lambda: fitted(Y[:90], times=TIMES[:90]), {"y": Y[90:92], "times": TIMES[90:92] + np.timedelta64(
        200_000, "h")}, "expected rows that follow the series.*steps later"),
    "a zone": (lambda: fitted(Y[:90], times=TIMES[:90]), {
        "y": Y[90:92], "times": ["2024-02-03T23:00Z", "2024-02-04T00:00Z"]}, "expected times without a zone"),
    "a list": (lambda: fitted(Y[:90]), {"y": [Y[90:]]}, "expected one series .* got a list of series"),
    "more columns": (lambda: fitted(np.stack([Y, Y], 1)[:90]), {"y": np.stack([Y] * 3, 1)[90:]},
                     "expected 2 series, a column each, got 3"),
    "no X": (lambda: fitted(Y[:90], X=COLUMNS[:90]), {"y": Y[90:]}, "X has 0 features"),
    "no past": (lambda: fitted(Y[:90], past=COLUMNS[:90]), {"y": Y[90:]}, "past: expected 2 columns, got 0"),
    "an infinity": (lambda: fitted(Y[:90]), {"y": [np.inf]}, "infinity"),
    "too low": (lambda: fitted(Y[:90], log=True), {"y": [0.0, 1.0]}, "log=True needs values above 0"),
    "negative": (lambda: fitted(Y[:90]), {"y": Y[90:], "updates": -1}, "updates: expected"),
    "nothing": (lambda: fitted(Y[:90]), {}, "y: expected the rows that follow, got None"),
    "not fitted": (lambda: RNNForecaster(), {"y": Y}, "not fitted"),
}


@pytest.mark.parametrize("about", REFUSED)
def test_what_is_refused_changes_nothing(about):
    make, arguments, message = REFUSED[about]
    model = make()
    before = copy.deepcopy(vars(model))
    with pytest.raises((ValueError, TypeError), match=message):
        model.update(**arguments)
    assert not differences(vars(model), before)
