"""Tables with more than the series: known rows, static and categorical columns, other series and series by name."""

import pickle
import warnings

import numpy as np
import pytest
from forecasters import COLUMNS, LIBRARIES, QUICK, SMALL, fitted, table, wave
from helpers import refuses

from fastrnn.forecasting import RNNForecaster
from fastrnn.forecasting.categories import ONE_HOT, WIDTH, vectors
from fastrnn.forecasting.preparation import read_panel

# ---- Known rows, other series -------------------------------------------------------------------

@LIBRARIES
def test_missing_rows_of_a_plan_are_named(library):
    days = np.datetime64("2024-01-01", "us") + np.arange(66) * np.timedelta64(1, "D")
    past = {"ds": np.tile(days[:60], 2), "shop": np.repeat(["a", "b"], 60), "y": np.tile(wave(60), 2),
            "price": np.linspace(1, 2, 120)}
    model = RNNForecaster(**COLUMNS, series="shop", known="price").fit(table(library, **past))
    plan = {"ds": np.tile(days[60:], 2), "shop": np.repeat(["a", "b"], 6), "price": np.linspace(1, 2, 12)}
    expected = np.asarray(model.predict(table(library, **plan))["y"])
    order = np.random.default_rng(0).permutation(12)
    with_past = {name: np.r_[past[name][::7], values[order]] for name, values in plan.items()}
    np.testing.assert_array_equal(np.asarray(model.predict(table(library, **with_past))["y"]), expected)
    holed = {name: np.delete(values, [7, 9]) for name, values in plan.items()}
    with pytest.raises(ValueError, match=r"^ds: expected a row for each of the steps that follow, 6 of every series; "
                                         r"missing are series 'b': 2024-03-02, 2024-03-04$"):
        model.predict(table(library, **holed))
    with pytest.raises(ValueError, match=r"^X: there are no rows of series 'b'"):
        model.predict(table(library, **{name: values[:6] for name, values in plan.items()}))
    with pytest.raises(ValueError, match=r"apply\(X\)\.predict"):
        model.predict(table(library, **past))


def test_predict_takes_other_series_where_nothing_is_known_of_the_future():
    y, other = wave(60), wave(80, seed=1)
    model = fitted(y)
    np.testing.assert_array_equal(model.predict(other), model.apply(other).predict())
    np.testing.assert_array_equal(model.predict([y, other]), model.apply([y, other]).predict())
    assert model.predict(6).shape == model.predict(np.int64(6)).shape == model.predict(np.array(6)).shape == (6,)
    np.testing.assert_array_equal(model.predict(), model.predict(y))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ds": pandas.date_range("2024", periods=60), "y": y})
    model = RNNForecaster(**COLUMNS).fit(frame)
    later = frame.assign(ds=frame["ds"] + pandas.Timedelta("9D"))
    pandas.testing.assert_frame_equal(model.predict(later), model.apply(later).predict())
    with refuses(ValueError, "X"):
        model.predict(frame.drop(columns="y"))


def test_requests_that_mean_nothing():
    model = fitted(wave(60), updates=2)
    for X in (True, 2.5, "6"):
        with pytest.raises(TypeError, match=r"^X: expected a whole number of steps, known columns"):
            model.predict(X)
    with refuses(ValueError, "X"):
        model.predict(0)


def test_habits_of_other_libraries_are_told_what_to_do():
    pandas = pytest.importorskip("pandas")
    model = RNNForecaster(horizon=3, blend=["naive"]).fit(wave(60))
    for steps in ([1, 2, 3], np.arange(1, 4), range(1, 4)):
        with refuses(ValueError, "X", "predict(3) forecasts so many"):
            model.predict(steps)
    assert model.apply([1, 2, 3]).predict(2).tolist() == [3, 3]
    for times in (pandas.Timestamp("2024-01-01"), pandas.date_range("2024-01-01", periods=3)):
        with refuses(TypeError, "X", "whole number of steps"):
            model.predict(times)
    frame = pandas.DataFrame({"ds": pandas.date_range("2024-01-01", periods=60), "y": wave(60)})
    with refuses(TypeError, "y", "RNNForecaster(target='y')"):
        RNNForecaster().fit(frame, "y")
    same = [RNNForecaster(**COLUMNS).fit(*data) for data in ((frame,), (None, frame))]
    assert same[0].predict().equals(same[1].predict())
    assert RNNForecaster(seasons=None, horizon=3).fit(wave(60)).seasons_ == ()
    with refuses(TypeError, "blend", "NoneType"):
        RNNForecaster(blend=None).fit(wave(60))
    with refuses(ValueError, "resample", "one of mean, sum"):
        RNNForecaster(resample="avg").fit(frame.set_index("ds"))


def test_what_else_is_no_number_or_no_time():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ds": pandas.date_range("2024-01-01", periods=40), "y": wave(40)})
    with refuses(TypeError, "y", "'n/a'"):
        RNNForecaster(**COLUMNS).fit(frame.astype({"y": object}).replace({"y": {frame["y"][7]: "n/a"}}))
    with refuses(TypeError, "ds", "ISO 8601", "'01.01.2024'", "pandas.to_datetime"):
        RNNForecaster(**COLUMNS).fit(frame.assign(ds=frame["ds"].dt.strftime("%d.%m.%Y")))
    with refuses(ValueError, "ds", "series= names the column"):
        RNNForecaster(**COLUMNS).fit(pandas.concat([frame, frame]))
    with refuses(ValueError, "ds", "give one row for each time"):
        RNNForecaster(**COLUMNS).fit(pandas.concat([frame, frame[7:8]]))
    for value in ({1.0, 2.0}, {"a": 1}, (each for each in [1.0, 2.0])):
        with refuses(TypeError, "y", "expected an array of numbers"):
            RNNForecaster(horizon=3).fit(value)


def test_columns_that_cannot_be_meant():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ds": pandas.date_range("2024-01-01", periods=40), "y": wave(40), "x": np.arange(40) % 3})
    with refuses(ValueError, "X", "'y' is there twice"):
        RNNForecaster(**COLUMNS).fit(pandas.concat([frame, frame[["y"]]], axis=1))
    with refuses(ValueError, "target", "'y' is there twice"):
        RNNForecaster(**COLUMNS | {"target": ["y", "y"]}).fit(frame)
    with refuses(TypeError, "target", "got int"):
        RNNForecaster(**COLUMNS | {"target": 0}).fit(frame)
    with refuses(ValueError, "known", "other than the target", "'y'"):
        RNNForecaster(**COLUMNS, known=("x", "y")).fit(frame)


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_a_plan_with_a_zone_beside_series_without_one(zone):
    pandas = pytest.importorskip("pandas")
    other = "UTC" if zone is None else None
    index = pandas.date_range("2024-01-01", periods=44, tz=zone)
    frame = pandas.DataFrame({"ds": index, "y": wave(44), "x": np.arange(44) % 3})
    plan = frame[40:].assign(ds=pandas.date_range("2024-02-10", periods=4, tz=other))
    with refuses(ValueError, "ds", "as in fit"):
        RNNForecaster(**COLUMNS, known="x").fit(frame[:40]).predict(plan)
    with refuses(ValueError, "index of X", "as in fit"):
        RNNForecaster(**QUICK).fit(frame[["x"]][:40].set_axis(index[:40]), frame.set_index("ds")["y"][:40]).predict(
            plan.set_index("ds")[["x"]])


def test_masked_and_missing_values_of_arrays():
    pandas = pytest.importorskip("pandas")
    y = wave(60)
    expected = RNNForecaster(**QUICK).fit(np.where(np.arange(60) % 9 == 4, np.nan, y)).predict()
    masked = np.ma.masked_array(y, np.arange(60) % 9 == 4)
    objects = np.where(np.arange(60) % 9 == 4, pandas.NA, y.astype(object))
    for values in (masked, objects, pandas.Series(objects).tolist()):
        np.testing.assert_array_equal(RNNForecaster(**QUICK).fit(values).predict(), expected)


def test_series_too_short_are_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ds": pandas.date_range("2024", periods=40), "y": wave(40), "shop": ["a"] * 39 + ["b"]})
    with pytest.raises(ValueError, match=r"^y of series 'b': expected 2 samples or more .* got 1 sample$"):
        RNNForecaster(**COLUMNS, series="shop").fit(frame)


def test_requests_that_could_mean_two_things_name_apply():
    y = wave(60)
    known = fitted(y, X=np.arange(60.0)[:, None])
    for X in (y, [1.0, 2.0]):
        with pytest.raises(ValueError, match=r"^X: .*apply\(X, y\)"):
            known.predict(X)
    several = fitted([y, y], X=[np.arange(60.0)[:, None]] * 2)
    with pytest.raises(ValueError, match=r"^X: expected a list of 2 arrays.*apply\(X, y\)"):
        several.predict(np.ones((4, 1)))


# ---- Static and categorical columns -------------------------------------------------------------

def shops(categories, rows=40):
    """A panel whose level and slope depend on the shop's kind."""
    rng, kinds = np.random.default_rng(0), [f"kind {n}" for n in range(categories)]
    days = np.datetime64("2024-01-01", "us") + np.arange(rows) * np.timedelta64(1, "D")
    parts = [(f"shop {n}", kinds[n % categories], 100.0 * (n % 3), n % categories) for n in range(2 * categories)]
    return {"shop": np.repeat([name for name, *_ in parts], rows), "ds": np.tile(days, len(parts)),
            "kind": np.repeat([kind for _, kind, *_ in parts], rows),
            "area": np.repeat([area for _, _, area, _ in parts], rows),
            "weather": np.array(["sun", "rain"])[rng.integers(0, 2, rows * len(parts))],
            "y": np.concatenate([10 + (place % 2 - 0.5) * np.arange(rows) + rng.standard_normal(rows) * 0.01
                                 for *_, place in parts])}


@LIBRARIES
def test_static_and_categorical_columns_of_frames(library):
    data, options = shops(3), COLUMNS | {"series": "shop", "static": ("kind", "area"), "known": "weather",
                                         "categorical": ("kind", "weather")}
    model = RNNForecaster(**options).fit(table(library, **data))
    rows = {name: values[::40] for name, values in data.items()}
    onehot = (rows["kind"][:, None] == np.array(["kind 0", "kind 1", "kind 2"])).astype(float)
    weather = (data["weather"][:, None] == np.array(list(dict.fromkeys(data["weather"])))).astype(float)
    same = RNNForecaster(**QUICK).fit(list(weather.reshape(6, 40, 2)), list(data["y"].reshape(6, 40)),
                                      static=np.c_[onehot, rows["area"]])
    plan = {"shop": np.repeat(rows["shop"], 4), "weather": np.tile(["sun", "sun", "rain", "rain"], 6),
            "ds": np.tile(data["ds"][39] + np.arange(1, 5) * np.timedelta64(1, "D"), 6)}
    ahead = (plan["weather"][:, None] == np.array(list(dict.fromkeys(data["weather"])))).astype(float)
    expected = same.predict(list(ahead.reshape(6, 4, 2)))
    np.testing.assert_array_equal(np.asarray(model.predict(table(library, **plan))["y"]), expected.ravel())
    again = model.apply(table(library, **data)).predict(table(library, **plan))
    np.testing.assert_array_equal(np.asarray(again["y"]), expected.ravel())
    new = plan | {"weather": np.array(["snow"] * 24)}
    with pytest.warns(UserWarning, match=r"^weather: the categories 'snow' were not there in fit"):
        forecast = model.predict(table(library, **new))
    assert np.isfinite(np.asarray(forecast["y"])).all()
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(np.asarray(restored.predict(table(library, **plan))["y"]), expected.ravel())


def test_static_columns_are_read():
    """The slope of a shop depends on its kind alone: a network that knows the kind errs less at the start."""
    data = shops(2, rows=6)
    y = list(data["y"].reshape(4, 6))
    static = [["even"], ["odd"]] * 2
    plain, knowing = (RNNForecaster(horizon=1, window=2, scaling=None, hidden_size=8, updates=400, log=False,
                                    difference=1, blend=False, random_state=0).fit(y, static=value)
                      for value in (None, static))
    assert knowing.history_[0]["loss"][-1] < 0.7 * plain.history_[0]["loss"][-1]
    stream, other = knowing.stream(0), knowing.apply(y, static=static[::-1]).stream(0)
    assert stream.step(7.0)[0] != other.step(7.0)[0]
    np.testing.assert_allclose(stream.forecast, knowing.apply([np.r_[y[0], 7.0]], static=[["even"]]).predict()[0],
                               rtol=1e-4)


def test_static_rows_of_arrays():
    y = [wave(50, seed=n) for n in range(4)]
    model = RNNForecaster(**QUICK).fit(y, static=[["a", 1], ["b", 2], ["a", 3], [None, 4]])
    assert model.panel_.categories == {"static column 0": ("a", "b")}
    assert [each.static[2] for each in model.panel_.series] == [1, 2, 3, 4]
    assert np.isnan(model.panel_.series[3].static).tolist() == [True, True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.apply(y[:2], static=[["b", 1], [None, 2]]).predict()
    with pytest.warns(UserWarning, match="the categories 'c' were not there in fit"):
        model.apply(y[:1], static=[["c", 1]])
    for error, name, call in [
            (ValueError, "static", lambda: model.apply(y)), (ValueError, "static", lambda: model.predict(y)),
            (ValueError, "static", lambda: RNNForecaster(**QUICK).fit(y, static=np.ones((3, 1)))),
            (ValueError, "static", lambda: RNNForecaster(**QUICK).fit(y, static=np.ones(4)))]:
        with refuses(error, name):
            call()


def test_columns_that_do_not_fit_their_part():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(shops(2)).assign(other=np.arange(160.0))
    options = COLUMNS | {"series": "shop"}
    with pytest.raises(ValueError, match=r"^static: expected columns that are the same .* ds of series 'shop 0'"):
        RNNForecaster(**options, static="other").fit(frame)
    with refuses(ValueError, "categorical"):
        RNNForecaster(**options, categorical="kind").fit(frame)
    with refuses(TypeError, "kind"):
        RNNForecaster(**options, static="kind").fit(frame)


def test_streams_take_categories():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(shops(2))
    model = RNNForecaster(**COLUMNS, series="shop", static="kind", known=("weather", "area"), past="weather",
                          categorical=("kind", "weather")).fit(frame)
    days = frame["ds"].iloc[39] + pandas.to_timedelta(np.arange(1, 6), unit="D")
    plan = pandas.DataFrame({"shop": "shop 1", "ds": days, "area": 1.0,
                             "weather": ["sun", "rain", "sun", "rain", "rain"]})
    stream = model.stream("shop 1", plan[:4])
    forecast = stream.step(12.0, known=["rain", 1.0], past=["sun"])
    more = pandas.DataFrame({"shop": ["shop 1"], "ds": days[:1], "y": [12.0], "weather": ["sun"], "area": 1.0,
                             "kind": ["kind 1"]})
    grown = pandas.concat([frame[frame["shop"] == "shop 1"].drop(columns="weather").assign(
        weather=frame["weather"][frame["shop"] == "shop 1"]), more])
    expected = model.apply(grown).predict(plan[1:])
    np.testing.assert_allclose(forecast, expected["y"], rtol=2e-5)
    with refuses(ValueError, "known"):
        stream.step(12.0, known=["rain"], past=["sun"])
    with pytest.warns(UserWarning, match="'hail' were not there in fit"):
        stream.step(12.0, known=["hail", None], past=[None])


def test_many_categories_are_embedded():
    assert vectors(ONE_HOT).shape == (ONE_HOT, ONE_HOT) and vectors(ONE_HOT + 1).shape == (ONE_HOT + 1, WIDTH)
    np.testing.assert_allclose((vectors(500) ** 2).sum(1), 1)
    assert len(np.unique(vectors(500).round(6), axis=0)) == 500
    pandas = pytest.importorskip("pandas")
    data = shops(40)
    model = RNNForecaster(**COLUMNS, series="shop", static="kind", categorical="kind").fit(pandas.DataFrame(data))
    assert len(model.panel_.series[0].static) == WIDTH and np.isfinite(model.predict()["y"]).all()


# ---- Scale --------------------------------------------------------------------------------------

@LIBRARIES
def test_many_series_are_read_without_work_for_each_row(library):
    """As many as 3,000 series of 40 rows, shuffled: the same series as one by one."""
    rng = np.random.default_rng(0)
    hours = np.datetime64("2024-01-01T00", "us") + np.arange(40) * np.timedelta64(1, "h")
    y = rng.standard_normal((3000, 40))
    order = rng.permutation(120_000)
    frame = table(library, id=np.repeat(np.arange(3000), 40)[order], ds=np.tile(hours, 3000)[order],
                  y=y.ravel()[order])
    panel = read_panel(RNNForecaster(**COLUMNS, series="id"), frame, None, None, None)
    assert len(panel.series) == 3000
    for series in panel.series[::97]:
        np.testing.assert_array_equal(series.y, y[series.name])
        assert series.clock.at(0) == hours[0]


# ---- Fitted series by their names ---------------------------------------------------------------

def named_frame(values):
    pandas = pytest.importorskip("pandas")
    return pandas.concat([pandas.DataFrame({"id": name, "y": y}) for name, y in values.items()], ignore_index=True)


@pytest.mark.parametrize("blend", [("network", "naive", "seasonal naive"), ("theta", "naive", "decay", "linear")])
def test_series_of_a_frame_keep_their_own_weights_in_any_order_and_company(blend):
    rng = np.random.default_rng(0)
    panel = {f"s{n}": wave(120) * (n + 1) + n * rng.standard_normal(120).cumsum() for n in range(4)}
    model = RNNForecaster(**SMALL | {"updates": 5, "seasons": 12, "blend": blend, "target": "y", "series": "id"})
    model.fit(named_frame(panel))
    expected = dict(zip(panel, model.predict()["y"].to_numpy().reshape(4, -1), strict=True))
    bounds = dict(zip(panel, model.predict(interval=0.8)["y_lower"].to_numpy().reshape(4, -1), strict=True))
    if "theta" in blend:
        assert len({tuple(row) for row in model.blend_.weights.tolist()}) > 1
    for names in (["s3", "s2", "s1", "s0"], ["s2"], ["s1", "new", "s3"], ["s0", "new", "s1", "s2", "s3"]):
        table = named_frame({name: panel.get(name, 5 + wave(90)) for name in names})
        other = model.apply(table)
        for column, known in (("y", expected), ("y_lower", bounds)):
            forecasts = (other.predict() if column == "y" else other.predict(interval=0.8))[column].to_numpy()
            for name, forecast in zip(names, forecasts.reshape(len(names), -1), strict=True):
                if name != "new":
                    np.testing.assert_array_equal(forecast, known[name])
        if "new" in names and len(set(map(tuple, model.blend_.weights.tolist()))) > 1:
            np.testing.assert_array_equal(other.blend_.weights[names.index("new")], model.blend_.weights.mean(0))


def test_a_backtest_of_a_frame_takes_series_by_their_names():
    rng = np.random.default_rng(1)
    panel = {f"s{n}": wave(150) * (n + 1) + n * rng.standard_normal(150).cumsum() for n in range(3)}
    parameters = SMALL | {"updates": 5, "seasons": 12, "blend": ("theta", "naive", "seasonal naive")}
    model = RNNForecaster(**parameters, target="y", series="id")
    model.fit(named_frame({name: y[:120] for name, y in panel.items()}))
    test = model.backtest(named_frame(panel), start=120, stride=10, refit=False)
    turned = model.backtest(named_frame(dict(reversed(panel.items()))), start=120, stride=10, refit=False)
    for n in range(3):
        np.testing.assert_array_equal(test.forecasts[test.series == n], turned.forecasts[turned.series == 2 - n])


def test_columns_of_pyarrow_with_the_same_values_are_not_the_same_column():
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"y": wave(60), "same": wave(60)})
    assert len(RNNForecaster(**SMALL | {"updates": 2}, target="y", known="same").fit(table).panel_.series) == 1
