"""What the forecaster takes: frames, times, bad input; and scikit-learn's manners."""

import pickle

import numpy as np
import pytest
from child import python
from forecasters import SMALL, fitted, wave
from helpers import refuses

from fastrnn._base.estimator import NotFittedError
from fastrnn.forecasting import RNNForecaster
from fastrnn.forecasting.calendar import Clock

# ---- Frames and times ---------------------------------------------------------------------------

def long_table():
    """Two series of 60 and 50 days in turn, with a known and a past column."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2024-01-01") + np.arange(60)
    rows = [("b", d, *rng.uniform(1, 2, 3)) for d in days] + [("a", d, *rng.uniform(1, 2, 3)) for d in days[:50]]
    order = rng.permutation(110)
    shop, day, sales, price, visits = (np.array(column)[order] for column in zip(*rows, strict=True))
    return {"shop": shop, "day": day.astype("datetime64[us]"), "sales": sales.astype(float),
            "price": price.astype(float), "visits": visits.astype(float)}


def as_frame(library, data):
    if library == "pyarrow":
        return pytest.importorskip("pyarrow").table(data)
    return pytest.importorskip(library).DataFrame(data)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_long_frame(library):
    data = long_table()
    columns = {"target": "sales", "time": "day", "series": "shop", "known": ["price"], "past": ["visits"]}
    options = {"seasons": 7, "time_features": ["week"], "quantiles": [0.1, 0.9]}
    model = RNNForecaster(**{**SMALL, **columns, **options}).fit(as_frame(library, data))
    names = list(dict.fromkeys(data["shop"]))

    def of(name, column):
        rows = data["shop"] == name
        return data[column][rows][np.argsort(data["day"][rows])]

    same = RNNForecaster(**{**SMALL, **options}).fit(
        [of(n, "price")[:, None] for n in names], [of(n, "sales") for n in names],
        past=[of(n, "visits")[:, None] for n in names], times=[of(n, "day") for n in names])
    ahead = {n: of(n, "day")[-1] + np.arange(1, 5) * np.timedelta64(1, "D") for n in names}
    future = {"shop": np.repeat(names, 4), "day": np.concatenate(list(ahead.values())), "price": np.linspace(1, 2, 8)}
    frame = model.predict(as_frame(library, future))
    assert type(frame) is type(as_frame(library, future))
    expected = same.predict([future["price"][:4, None], future["price"][4:, None]])
    np.testing.assert_array_equal(np.asarray(frame["sales"]), expected.ravel())
    np.testing.assert_array_equal(np.asarray(frame["day"]).astype("datetime64[us]"), future["day"])
    assert np.asarray(frame["shop"]).tolist() == future["shop"].tolist()
    wide = model.predict(as_frame(library, future), quantiles=True)
    np.testing.assert_array_equal(np.asarray(wide["sales_q0.9"]),
                                  same.predict([future["price"][:4, None], future["price"][4:, None]],
                                               quantiles=True)[..., 2].ravel())
    stream = model.stream(names[1], X=future["price"][4:, None])
    np.testing.assert_allclose(stream.forecast, expected[1], rtol=2e-5)
    pickle.loads(pickle.dumps(model)).predict(as_frame(library, future))

    with refuses(ValueError, "day"):
        model.predict(as_frame(library, future | {"day": future["day"] + np.timedelta64(1, "D")}))
    with refuses(ValueError, "X"):
        model.predict(as_frame(library, {name: values[:4] for name, values in future.items()}))


def test_a_wide_frame_has_a_series_in_each_target():
    polars = pytest.importorskip("polars")
    data = {"day": np.datetime64("2024-01-01") + np.arange(60), "a": wave(60), "b": wave(60, seed=1)}
    model = RNNForecaster(**SMALL, target=("a", "b"), time="day").fit(polars.DataFrame(data))
    forecast = model.predict()
    assert forecast.columns == ["day", "a", "b"] and forecast.height == 4
    expected = fitted(np.stack([data["a"], data["b"]], 1)).predict()
    np.testing.assert_array_equal(forecast.select("a", "b").to_numpy(), expected)


def test_text_and_zoned_times_in_a_frame():
    pandas = pytest.importorskip("pandas")
    y, when = wave(60), pandas.date_range("2024-03-01", periods=60, freq="h", tz="Europe/Berlin")
    text = pandas.DataFrame({"when": when.strftime("%Y-%m-%d %H:%M:%S"), "y": y})
    zoned = pandas.DataFrame({"when": when, "y": y})
    a, b = (RNNForecaster(**SMALL, target="y", time="when", time_features="day").fit(frame).predict()
            for frame in (text, zoned))
    np.testing.assert_array_equal(a["y"], b["y"])           # the features are of local time
    pandas.testing.assert_series_equal(a["when"], b["when"].dt.tz_localize(None))
    assert str(a["when"].iloc[0]) == "2024-03-03 12:00:00" and b["when"].dtype == zoned["when"].dtype


def test_frames_that_do_not_fit():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"y": wave(60), "x": wave(60), "shop": ["a"] * 59 + [None]})
    for error, name, columns, X in [
            (ValueError, "X", {"target": "z"}, frame), (TypeError, "X", {"target": "y"}, wave(60)),
            (ValueError, "target", {"time": "x"}, frame), (TypeError, "known", {"target": "y", "known": [3]}, frame),
            (TypeError, "time", {"target": "y", "time": 3}, frame),
            (TypeError, "x", {"target": "y", "time": "x"}, frame),
            (ValueError, "shop", {"target": "y", "series": "shop"}, frame)]:
        with refuses(error, name):
            RNNForecaster(**SMALL, **columns).fit(X)
    with refuses(ValueError, "y, past, times"):
        RNNForecaster(**SMALL, target="y").fit(frame, wave(60))


def test_series_may_be_named_by_anything():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"y": np.tile(wave(60), 2), "shop": ["a", 1] * 60})
    forecast = RNNForecaster(**SMALL, target="y", series="shop").fit(frame).predict()
    assert forecast["shop"].tolist() == ["a"] * 4 + [1] * 4


def test_without_narwhals_frames_name_the_extra_and_arrays_work():
    assert "fastrnn[frames]" in python("""
        import sys
        sys.modules["narwhals"] = sys.modules["narwhals.stable.v2"] = None
        import numpy as np
        from fastrnn.forecasting import RNNForecaster
        RNNForecaster(updates=2).fit(np.sin(np.arange(50))).predict()
        try:
            RNNForecaster(target="y").fit({"y": np.ones(5)})
        except ImportError as error:
            print(error)
    """, prelude="")


@pytest.mark.parametrize("start, step, T, expected", [
    ("2024-01-31", "M", 3, ["2024-01-31", "2024-02-29", "2024-03-31"]),
    ("2023-11-15T06:00", "M", 3, ["2023-11-15T06:00", "2023-12-15T06:00", "2024-01-15T06:00"]),
    ("2024-02-28", "D", 3, ["2024-02-28", "2024-02-29", "2024-03-01"])])
def test_clocks(start, step, T, expected):
    clock, at = Clock.of(expected)
    assert at.tolist() == list(range(T)) and (clock.frequency.unit == "month") == (step == "M")
    back = np.array(expected, "datetime64[us]")
    np.testing.assert_array_equal(clock.at(np.arange(T)), back)
    np.testing.assert_array_equal(clock.moved(1).at(np.arange(T - 1)), back[1:])
    assert clock.second(2) == clock.seconds(2) == back[2].astype(np.int64) / 1e6


def test_a_time_left_out_is_a_missing_value():
    times = np.datetime64("2024-01-01T00:00") + np.arange(100) * np.timedelta64(15, "m")
    y = wave(100)
    holed = y.copy()
    holed[[20, 21, 50]] = np.nan
    kept = ~np.isnan(holed)
    left_out = fitted(holed[kept], times=times[kept])
    np.testing.assert_array_equal(left_out.predict(), fitted(holed, times=times).predict())


# ---- Bad input ----------------------------------------------------------------------------------

@pytest.mark.parametrize("error, name, options", [
    (ValueError, "horizon", {"horizon": 0}), (TypeError, "window", {"window": 2.5}),
    (ValueError, "cell", {"cell": "mlp"}), (TypeError, "cell", {"cell": None}), (ValueError, "loss", {"loss": "mape"}),
    (TypeError, "log", {"log": None}), (ValueError, "log", {"log": "2"}), (ValueError, "scaling", {"scaling": "max"}),
    (ValueError, "seasons", {"seasons": 1}), (TypeError, "seasons", {"seasons": (24, "week")}),
    (ValueError, "difference", {"difference": -1}),
    (ValueError, "time_features", {"time_features": "hour"}), (ValueError, "times", {"time_features": "day"}),
    (ValueError, "quantiles", {"quantiles": (0.1, 1.0)}), (ValueError, "dropout", {"dropout": 0.5}),
    (ValueError, "learning_rate", {"learning_rate": 0}), (ValueError, "patience", {"patience": 0}),
    (ValueError, "ensemble", {"ensemble": 0}), (ValueError, "random_state", {"random_state": -1}),
    (TypeError, "random_state", {"random_state": "seed"}), (TypeError, "progress", {"progress": 1}),
    (ValueError, "sequence", {"sequence": 1})])
def test_unsuitable_parameters(error, name, options):
    with refuses(error, name):
        RNNForecaster(**{**SMALL, **options}).fit(wave(50))


@pytest.mark.parametrize("error, name, call", [
    (TypeError, "y", lambda m: m.fit(None)), (ValueError, "y", lambda m: m.fit(np.ones((2, 3, 4)))),
    (ValueError, "y", lambda m: m.fit([])), (ValueError, "y", lambda m: m.fit(np.full(50, np.nan))),
    (ValueError, "y", lambda m: m.fit([1.0])), (ValueError, "y", lambda m: m.fit(np.ones(50))),
    (ValueError, "y", lambda m: m.fit(np.full(50, np.inf))), (ValueError, "y", lambda m: m.fit(1j * wave(50))),
    (TypeError, "y", lambda m: m.fit(np.array(["a"] * 50))),
    (ValueError, r"y\[1", lambda m: m.fit([wave(50), wave(1)])),
    (ValueError, "X", lambda m: m.fit(np.ones((49, 2)), wave(50))),
    (ValueError, "X", lambda m: m.fit(np.ones(50), wave(50))),
    (ValueError, "past", lambda m: m.fit(wave(50), past=np.ones((51, 1)))),
    (ValueError, "X", lambda m: m.fit(np.ones((50, 1)), [wave(50)])),
    (ValueError, "times", lambda m: m.fit(wave(50), times=np.arange(49).astype("datetime64[D]"))),
    (TypeError, "times", lambda m: m.fit(wave(50), times=["soon"] * 50)),
    (ValueError, "times", lambda m: m.fit(wave(3), times=np.array([0, 0, 1]).astype("datetime64[D]"))),
    (ValueError, "times", lambda m: m.fit(wave(3), times=np.array([0, 2, 5]).astype("datetime64[D]"))),
    (ValueError, "times", lambda m: m.fit(wave(3), times=["2024-01-01", "NaT", "2024-01-03"])),
    (ValueError, "y", lambda m: m.fit(1e101 * wave(50))),
    (TypeError, "times", lambda m: m.fit(wave(50), times=np.arange(50))),
    (ValueError, "start", lambda m: m.backtest(wave(50), start=50)),
    (TypeError, "start", lambda m: m.backtest(wave(50), start=0.5)),
    (ValueError, "stride", lambda m: m.backtest(wave(50), start=40, stride=0))])
def test_unsuitable_data(error, name, call):
    with refuses(error, name):
        call(RNNForecaster(**SMALL))


def test_unsuitable_requests():
    y = wave(60)
    model, known = fitted(y), fitted(y, X=np.arange(120.0).reshape(60, 2))
    for error, name, call in [
            (ValueError, "X", lambda: model.predict(0)),
            (ValueError, "quantiles", lambda: model.predict(quantiles=True)),
            (ValueError, "X", lambda: known.predict()), (ValueError, "X", lambda: known.predict(3)),
            (ValueError, "X has 1 features", lambda: known.predict(np.ones((4, 1)))),
            (ValueError, "X", lambda: fitted(y, past=y[:, None]).predict(5)),
            (ValueError, "X", lambda: fitted(y, quantiles=(0.1,)).predict(5, quantiles=True)),
            (ValueError, "past", lambda: fitted(y, past=y[:, None]).apply(y)),
            (ValueError, "series", lambda: model.stream(1)), (ValueError, "series", lambda: model.stream("a")),
            (TypeError, "X", lambda: known.stream()),
            (ValueError, "X", lambda: known.stream(X=np.ones((3, 2)))),
            (ValueError, "known", lambda: known.stream(X=np.ones((4, 2))).step(1.0)),
            (ValueError, "logs: not a parameter", lambda: RNNForecaster().set_params(log=True, logs=1))]:
        with refuses(error, name):
            call()
    with pytest.raises(ValueError, match=r"^y: log=True needs values above 0, got -"):
        RNNForecaster(**{**SMALL, "log": True}).fit(y - 12)


def test_a_failed_fit_leaves_the_estimator_as_it_was():
    model = fitted(wave(60))
    before = model.predict()
    with refuses(ValueError, "y"):
        model.fit(np.ones(50))
    np.testing.assert_array_equal(model.predict(), before)


# ---- scikit-learn's manners ---------------------------------------------------------------------

def test_nothing_else_is_imported():
    assert python("""
        import sys, numpy
        before = set(sys.modules)
        from fastrnn.forecasting import RNNForecaster
        model = RNNForecaster(updates=2).fit(numpy.sin(numpy.arange(50)))
        model.predict(), model.stream().step(0.0), model.get_params(), repr(model)
        loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {"numpy"}
        print(*sorted(name for name in loaded if "cython" not in name))
    """, prelude="").split() == ["fastrnn"]


def test_without_sklearn_the_error_is_our_own():
    assert python("""
        from fastrnn._base.estimator import NotFittedError
        from fastrnn.forecasting import RNNForecaster
        try:
            RNNForecaster().predict()
        except NotFittedError as error:
            print(error)
    """, prelude="").startswith("this RNNForecaster is not fitted yet")
    assert issubclass(NotFittedError, ValueError) and issubclass(NotFittedError, AttributeError)


def test_pickled_and_cloned():
    base = pytest.importorskip("sklearn.base")
    model = fitted(wave(80), seasons=(5,), quantiles=(0.1,))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(), model.predict())
    twin = base.clone(model)
    assert twin.get_params() == model.get_params() and not hasattr(twin, "models_")
    assert repr(twin) == "RNNForecaster(horizon=4, window=12, hidden_size=8, log=False, difference=1, seasons=(5,), " \
                         "blend=False, nonnegative=False, quantiles=(0.1,), ensemble=1, updates=40, random_state=0)"


@pytest.mark.parametrize("make", [lambda: 7, lambda: np.int64(7), lambda: np.random.default_rng(7),
                                  lambda: np.random.RandomState(7)])
def test_random_states_as_scikit_learn_takes_them(make):
    a, b, other = (fitted(wave(60), updates=2, random_state=state).predict() for state in (make(), make(), 8))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, other)
    state = make()
    same = np.array_equal(*(fitted(wave(60), updates=2, random_state=state).predict() for _ in range(2)))
    assert same == isinstance(state, (int, np.integer))             # generators go on


def test_cells_by_name_in_any_case():
    a, b = (fitted(wave(60), updates=2, cell=cell).predict() for cell in ("lstm", "LSTM"))
    np.testing.assert_array_equal(a, b)


def test_old_and_misspelt_names_of_parameters_are_errors():
    for name in ("lr", "rate", "hidden", "seed", "epochs"):
        with pytest.raises(TypeError, match=name):
            RNNForecaster(**{name: 1})


# check -> why it does not apply. Rows of X are the steps that follow the series, in order.
EXCEPTIONS = {
    "check_methods_sample_order_invariance": "a row's forecast depends on its place: the rows are consecutive steps",
    "check_methods_subset_invariance": "predict(X[10:]) takes X[10] for the first step after the series",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimator RNNForecaster does not inherit:UserWarning")      # it does not import it
@pytest.mark.filterwarnings("ignore:y. [0-9]+ values are too few to train a network:UserWarning")   # some checks' data
def test_check_estimator():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(RNNForecaster(window=8, hidden_size=4, updates=4),
                                     expected_failed_checks=EXCEPTIONS, on_skip=None)
    status = {}
    for result in results:
        status.setdefault(result["status"], set()).add(result["check_name"])
    assert status["xfail"] == set(EXCEPTIONS) and len(status["passed"]) > 40
    assert status.keys() <= {"passed", "xfail", "skipped"}
    assert status.get("skipped", set()) <= {"check_array_api_input"}       # it asks for an environment variable


def test_search_over_folds_in_time():
    selection = pytest.importorskip("sklearn.model_selection")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 1))
    y = 3 * X[:, 0] + 0.1 * rng.standard_normal(200)
    model = RNNForecaster(horizon=20, window=12, hidden_size=8, difference=0, learning_rate=0.01, blend=False,
                          random_state=0)
    search = selection.GridSearchCV(model, {"updates": [1, 200]},
                                    cv=selection.TimeSeriesSplit(2, test_size=20)).fit(X, y)
    assert search.best_params_ == {"updates": 200} and search.best_score_ > 0.5


# ---- What does not go together -------------------------------------------------------------------

DAYS = np.datetime64("2024-01-01", "us") + np.arange(60) * np.timedelta64(1, "D")


def in_pandas(index):
    return pytest.importorskip("pandas").Series(wave(60), index=pytest.importorskip("pandas").DatetimeIndex(index))


def with_zone(zone):
    return pytest.importorskip("pandas").DatetimeIndex(DAYS).tz_localize(zone)


def sparse():
    return pytest.importorskip("scipy.sparse").csr_matrix(np.ones((60, 1)))


@pytest.mark.parametrize("make, error, name, words", [
    (lambda: fitted(wave(60), freq="D"), ValueError, "freq, resample", "they need times"),
    (lambda: fitted(in_pandas(DAYS), times=DAYS), ValueError, "times", "expected None, as y has an index of times"),
    (lambda: fitted([wave(60), wave(50)], times=[DAYS]), ValueError, "times", "expected 2 of them, one a series"),
    (lambda: fitted([wave(60), wave(60)], times=[with_zone("Europe/Berlin"), with_zone("Asia/Tokyo")]), ValueError,
     "times", "expected one time zone for all series"),
    (lambda: fitted(sparse()), TypeError, "y", "sparse input is not supported"),
    (lambda: fitted([wave(60), np.ones((60, 2))]), ValueError, r"y\[1", "expected one dimension, got shape"),
    (lambda: fitted([wave(60), wave(60)], X=[np.ones((60, 1)), np.ones((60, 2))]), ValueError, "X",
     "expected 1 columns in every series, got 2"),
    (lambda: fitted(wave(60), times=np.where(np.arange(60) == 7, np.datetime64("NaT"), DAYS)), ValueError, "times", ""),
    (lambda: fitted(wave(60), times=DAYS.reshape(60, 1)), ValueError, "times", "expected 60, one a row of y"),
], ids=range(9))
def test_arguments_that_do_not_go_together(make, error, name, words):
    with refuses(error, name, words):
        make()


def test_frames_that_do_not_go_together():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"day": DAYS, "shop": "a", "y": wave(60), "z": wave(60), "size": 1.0})
    for options, name, words in (
            ({"target": ("y", "z"), "series": "shop"}, "target", "expected one column where `series` names another"),
            ({"target": ("y", "z"), "static": ("size",)}, "static", "expected none where several targets are series"),
            ({"target": "y", "series": "shop", "rows": 0}, "X", "expected rows, the frame has none")):
        rows = options.pop("rows", 60)
        with refuses(ValueError, name, words):
            RNNForecaster(**SMALL, time="day", **options).fit(frame[:rows])


def test_a_row_without_a_time_is_named():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"day": [None if n == 5 else day for n, day in enumerate(DAYS.tolist())], "y": wave(60)})
    with refuses(ValueError, "day", "expected a time in every row, the one of row 5 is missing"):
        RNNForecaster(**SMALL, target="y", time="day").fit(frame)


@pytest.mark.parametrize("kind", ["series", "periods", "polars"])
def test_times_of_libraries_are_those_of_numpy(kind):
    library = pytest.importorskip("polars" if kind == "polars" else "pandas")
    times = library.Series(DAYS) if kind != "periods" else library.period_range("2024-01-01", periods=60, freq="D")
    model, same = fitted(wave(60), times=times), fitted(wave(60), times=DAYS)
    assert model.panel_.series[0].clock.name == same.panel_.series[0].clock.name
    np.testing.assert_array_equal(model.predict(), same.predict())
    if kind == "periods":
        missing = library.PeriodIndex([*times[:-1], library.NaT], freq="D")
        with refuses(ValueError, "times", "one of them is missing"):
            fitted(wave(60), times=missing)
