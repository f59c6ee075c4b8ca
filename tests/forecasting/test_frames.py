"""Tables as people have them: indices, time zones, periods, missing cells."""

import datetime
import decimal
import pickle

import numpy as np
import pytest
from forecasters import COLUMNS, LIBRARIES, QUICK, fitted, table, wave
from helpers import refuses

from fastrnn.forecasting import RNNForecaster


def converted(frame, library):
    """A frame of pandas in another library."""
    if library == "pandas":
        return frame
    pyarrow = pytest.importorskip("pyarrow")
    arrow = pyarrow.Table.from_pandas(frame, preserve_index=False)
    return arrow if library == "pyarrow" else pytest.importorskip("polars").from_arrow(arrow)


# ---- Times in, times out ------------------------------------------------------------------------

@LIBRARIES
@pytest.mark.parametrize("zone, start", [("Europe/Berlin", "2024-10-20"), ("Europe/Berlin", "2024-03-24"),
                                         ("Australia/Adelaide", "2024-03-30"), ("UTC", "2023-12-25"),
                                         ("America/St_Johns", "2024-10-30"), ("Asia/Kolkata", "2024-01-01")])
def test_times_with_a_zone_keep_it(library, zone, start):
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range(start, periods=206, freq="h", tz=zone)
    frame = converted(pandas.DataFrame({"ds": index[:200], "y": wave(200)}), library)
    model = RNNForecaster(**COLUMNS).fit(frame)
    assert len(model.panel_.series[0]) == 200
    result = model.predict(6)
    assert type(result) is type(frame)
    if library == "pandas":
        assert result["ds"].dtype == frame["ds"].dtype and result["ds"].tolist() == index[200:].tolist()
    elif library == "polars":
        assert result.schema["ds"] == frame.schema["ds"] and result["ds"].to_list() == index[200:].tolist()
    else:
        assert result.schema.field("ds").type == frame.schema.field("ds").type
        assert result["ds"].to_pylist() == index[200:].to_pydatetime().tolist()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_units_of_times_stay(unit):
    pandas = pytest.importorskip("pandas")
    for zone in (None, "UTC"):
        ds = pandas.date_range("2024", periods=60, freq="h", tz=zone).as_unit(unit)
        model = RNNForecaster(**COLUMNS).fit(pandas.DataFrame({"ds": ds, "y": wave(60)}))
        assert model.predict()["ds"].dtype == ds.dtype


@LIBRARIES
@pytest.mark.parametrize("name", ["B", "MS", "ME", "QE", "QS", "BME", "SME", "SMS", "W-WED", "YE"])
def test_calendars_in_frames(library, name):
    pandas = pytest.importorskip("pandas")
    days = pandas.date_range("1990-01-30", periods=64, freq=name)
    frame = converted(pandas.DataFrame({"ds": days[:60], "y": wave(60)}), library)
    result = RNNForecaster(**COLUMNS).fit(frame).predict()
    assert np.asarray(result["ds"]).astype("datetime64[D]").tolist() == days[60:].date.tolist()


def test_a_holiday_is_a_missing_business_day():
    pandas = pytest.importorskip("pandas")
    days = pandas.date_range("2024-11-01", periods=80, freq="B")
    frame = pandas.DataFrame({"ds": days, "y": wave(80)})
    holidays = frame["ds"].isin(pandas.to_datetime(["2024-12-25", "2024-12-26", "2025-01-01"]))
    model = RNNForecaster(**COLUMNS).fit(frame[~holidays])
    y = model.panel_.series[0].y
    assert np.flatnonzero(np.isnan(y)).tolist() == np.flatnonzero(holidays).tolist() and len(y) == 80
    assert model.predict()["ds"].tolist() == pandas.date_range(days[-1], periods=5, freq="B")[1:].tolist()


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_dates_stay_dates(library):
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(n) for n in range(64)]
    result = RNNForecaster(**COLUMNS).fit(table(library, ds=days[:60], y=wave(60))).predict()
    column = result["ds"].to_list() if library == "polars" else result["ds"].to_pylist()
    assert column == days[60:]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["h", "D", "B", "W-SUN", "W-THU", "M", "Q-DEC", "Q-FEB", "Y-DEC", "Y-JUN", "15min"])
def test_periods_of_each_frequency(name):
    pandas = pytest.importorskip("pandas")
    index = pandas.period_range("2001-03-04", periods=64, freq=name, name="when")
    series = RNNForecaster(**QUICK, time_features="year").fit(pandas.Series(wave(60), index[:60], name="y")).predict()
    pandas.testing.assert_index_equal(series.index, index[60:])
    frame = RNNForecaster(**COLUMNS).fit(pandas.DataFrame({"ds": index[:60], "y": wave(60)})).predict()
    assert frame["ds"].dtype == index.dtype and frame["ds"].tolist() == index[60:].tolist()


# ---- Indices ------------------------------------------------------------------------------------

@pytest.mark.parametrize("zone", [None, "America/New_York"])
def test_a_series_goes_on_from_its_index(zone):
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-03-08", periods=104, freq="h", tz=zone, name="when")
    y = pandas.Series(wave(100), index[:100], name="load")
    features = {"time_features": ("day", "week")}
    model = RNNForecaster(**QUICK, **features).fit(y)
    forecast = model.predict()
    pandas.testing.assert_index_equal(forecast.index, index[100:])
    assert forecast.name == "load" and forecast.index.freq is not None
    local = index[:100].tz_localize(None)
    same = fitted(y.to_numpy(), updates=3, times=local if zone is None else index[:100], **features)
    np.testing.assert_array_equal(forecast.to_numpy(), same.predict())
    long = model.predict(30)
    assert long.index[-1] - index[99] == pandas.Timedelta("30h")
    shuffled = RNNForecaster(**QUICK, **features).fit(y.sample(frac=1, random_state=0)).predict()
    pandas.testing.assert_series_equal(shuffled, forecast)
    assert pickle.loads(pickle.dumps(model)).predict().index.equals(forecast.index)


def test_frames_and_lists_with_an_index():
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-01-31", periods=64, freq="ME")
    frame = pandas.DataFrame({"a": wave(60), "b": wave(60, seed=1)}, index[:60])
    forecast = RNNForecaster(**QUICK).fit(frame).predict()
    assert forecast.columns.tolist() == ["a", "b"] and forecast.index.equals(index[60:])
    np.testing.assert_array_equal(forecast.to_numpy(), fitted(frame.to_numpy(), updates=3).predict())
    pieces = RNNForecaster(**QUICK).fit([frame["a"], frame["b"].iloc[:50]]).predict()
    assert [piece.index[0] for piece in pieces] == [index[60], index[50]] and pieces[1].name == "b"
    named = RNNForecaster(**QUICK, target="b").fit(frame).predict()
    assert named.index.equals(index[60:]) and named.columns.tolist() == ["b"]
    quantiles = RNNForecaster(**QUICK, quantiles=(0.1, 0.9)).fit(frame["a"]).predict(quantiles=True)
    assert quantiles.columns.tolist() == ["a_q0.1", "a_q0.5", "a_q0.9"] and quantiles.index.equals(index[60:])


@pytest.mark.parametrize("index", ["dates", "text", "spans", "numbers", "counted"])
def test_every_index_goes_on(index):
    pandas = pytest.importorskip("pandas")
    every = {"dates": pandas.Index([day.date() for day in pandas.date_range("2024-02-20", periods=63)]),
             "text": pandas.Index(pandas.date_range("2024-02-20", periods=63).strftime("%Y-%m-%d")),
             "spans": pandas.timedelta_range("1h", periods=63, freq="30min"),
             "numbers": pandas.RangeIndex(10, 136, 2), "counted": pandas.Index(np.arange(1961, 2024))}[index]
    every = every.rename("when")
    expected = every[59:62].tolist() if index != "text" else pandas.to_datetime(every[59:62]).tolist()
    y = np.concatenate([[np.nan, np.nan], wave(57)])
    model = RNNForecaster(horizon=3, blend=["naive"]).fit(pandas.Series(y, every[:59], name="sold"))
    forecast = model.predict()
    assert forecast.index.tolist() == expected and forecast.index.name == "when" and forecast.name == "sold"
    frame = RNNForecaster(horizon=3, blend=["naive"]).fit(pandas.DataFrame({"a": y, "b": y}, every[:59])).predict()
    assert frame.index.tolist() == expected and list(frame.columns) == ["a", "b"]
    later = model.update(pandas.Series([1.0], every[59:60])).predict()
    assert later.index[0] == (pandas.Timestamp(every[60]) if index == "text" else every[60])


def test_columns_of_a_frame_are_names_of_series():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"north": wave(60), "south": wave(60, seed=1)}, pandas.date_range("2024", periods=60))
    for each in (frame, frame.reset_index(drop=True)):
        model = RNNForecaster(horizon=3, blend=["naive"]).fit(each)
        assert model.stream("south").forecast[0] == frame["south"].iloc[-1]
        assert model.stream("south").step(pandas.NA)[0] == frame["south"].iloc[-1]
        assert model.backtest(each, start=-9, refit=False).names == ("north", "south")
        with refuses(ValueError, "y", "y of series 'south': expected 2 samples"):
            RNNForecaster(horizon=3).fit(each.assign(south=np.nan))


def test_an_index_that_tells_nothing_is_left_aside():
    pandas = pytest.importorskip("pandas")
    for index in (pandas.Index(list("abcdefghijkl") * 5), pandas.Index(np.r_[0:30, 40:70])):
        forecast = RNNForecaster(horizon=3, blend=["naive"]).fit(pandas.Series(wave(60), index)).predict()
        assert isinstance(forecast, np.ndarray)


@pytest.mark.parametrize("name", ["B", "BME", "SMS", "W-TUE", "QE-JAN"])
def test_the_frequency_that_an_index_has_is_taken(name):
    """Of two or three times none can be told from others."""
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-01-31", periods=8, freq=name)
    forecast = RNNForecaster(horizon=6, blend=["naive"]).fit(pandas.Series([1.0, 2.0], index[:2])).predict()
    assert forecast.index.tolist() == index[2:].tolist()


def test_time_spans_in_frames():
    pandas = pytest.importorskip("pandas")
    for library in ("pandas", "polars"):
        frame = converted(pandas.DataFrame({"ds": pandas.timedelta_range("0h", periods=60, freq="15min"),
                                            "y": wave(60)}), library)
        result = RNNForecaster(horizon=2, blend=["naive"], target="y", time="ds").fit(frame).predict()
        assert result["ds"].dtype == frame["ds"].dtype
        assert list(result["ds"]) == [datetime.timedelta(minutes=900), datetime.timedelta(minutes=915)]


def test_a_frame_whose_index_is_the_time():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ds": pandas.date_range("2024", periods=60, freq="MS"), "y": wave(60)}).set_index("ds")
    forecast = RNNForecaster(**COLUMNS).fit(frame).predict()
    assert forecast.index.name == "ds" and forecast.index[0] == pandas.Timestamp("2029-01-01")
    with pytest.raises(ValueError, match=r"^X: there is no column 'ds', only y"):
        RNNForecaster(**COLUMNS).fit(frame.rename_axis("when"))
    several = pandas.concat({"a": frame["y"], "b": frame["y"]})
    with pytest.raises(TypeError, match=r"^y: an index of several levels .*reset_index"):
        RNNForecaster(**QUICK).fit(several)


def test_known_columns_with_an_index():
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-01-01", periods=64, freq="D")
    plan = pandas.DataFrame({"price": np.linspace(1, 2, 64)}, index)
    y = pandas.Series(wave(60), index[:60])
    model = RNNForecaster(**QUICK).fit(plan[:60], y)
    assert model.predict(plan[60:]).index.equals(index[60:])
    with pytest.raises(ValueError, match=r"^X: expected the index to go on with 2024-03-01, .* got 2024-02-28"):
        model.predict(plan[58:62])
    with pytest.raises(ValueError, match=r"^X: expected the index of y"):
        RNNForecaster(**QUICK).fit(plan[1:61], y)


# ---- Cells --------------------------------------------------------------------------------------

def test_columns_as_they_come():
    pandas = pytest.importorskip("pandas")
    y = np.round(wave(60), 2)
    gaps = [None if n in (7, 30) else value for n, value in enumerate(y.tolist())]
    expected = fitted(np.array(gaps, float), updates=3).predict()
    columns = {
        "None": pandas.Series(gaps, dtype=object), "nullable": pandas.Series(gaps, dtype="Float64"),
        "Decimal": [None if value is None else decimal.Decimal(str(value)) for value in gaps],
        "arrow": pandas.Series(gaps, dtype="float64[pyarrow]") if pytest.importorskip("pyarrow") else None}
    for column in columns.values():
        frame = pandas.DataFrame({"y": column})
        np.testing.assert_array_equal(RNNForecaster(**QUICK, target="y").fit(frame).predict()["y"], expected)
    whole = pandas.Series([None if n == 5 else n % 7 for n in range(60)], dtype="Int64")
    RNNForecaster(**QUICK, target="y").fit(pandas.DataFrame({"y": whole})).predict()
    for library in ("polars", "pyarrow"):
        result = RNNForecaster(**QUICK, target="y").fit(table(library, y=gaps)).predict()
        np.testing.assert_array_equal(np.asarray(result["y"]), expected)


@LIBRARIES
def test_times_as_text(library):
    days = [f"2024-{1 + n // 28:02d}-{1 + n % 28:02d}T05:00:00Z" for n in range(27)]
    result = RNNForecaster(**COLUMNS).fit(table(library, ds=days, y=wave(27))).predict()
    first = result["ds"].tolist()[0] if library == "pandas" else result["ds"].to_pylist()[0] \
        if library == "pyarrow" else result["ds"][0]
    assert str(first) == "2024-01-28 05:00:00+00:00"
    with pytest.raises(TypeError, match=r"^ds: expected dates or times"):
        RNNForecaster(**COLUMNS).fit(table(library, ds=["soon"] * 20, y=wave(20)))


@LIBRARIES
def test_rows_in_any_order_and_rows_that_are_there_twice(library):
    hours = np.datetime64("2024-01-01T00", "us") + np.arange(60) * np.timedelta64(1, "h")
    order = np.random.default_rng(0).permutation(120)
    data = {"shop": np.repeat(["b", "a"], 60)[order], "ds": np.tile(hours, 2)[order],
            "y": np.r_[wave(60), wave(60, seed=1)][order]}
    options = COLUMNS | {"series": "shop"}
    forecast = RNNForecaster(**options).fit(table(library, **data)).predict()
    names = np.asarray(forecast["shop"]).tolist()
    expected = fitted([wave(60), wave(60, seed=1)], updates=3).predict()
    first = 0 if names[0] == "b" else 1
    if first == 0:
        np.testing.assert_array_equal(np.asarray(forecast["y"]), expected.ravel())
    twice = {name: np.r_[values, values[[11]]] for name, values in data.items()}
    shown = str(data["ds"][11])[:13]
    with pytest.raises(ValueError, match=rf"^ds of series '{data['shop'][11]}': the time {shown}.* is there twice"):
        RNNForecaster(**options).fit(table(library, **twice))
    RNNForecaster(**options, freq="h", resample="mean").fit(table(library, **twice))


def test_irregular_rows_are_resampled_when_asked():
    pandas = pytest.importorskip("pandas")
    seconds = np.sort(np.random.default_rng(0).uniform(0, 500_000, 2000))
    frame = pandas.DataFrame({"ds": pandas.Timestamp("2024-05-01") + pandas.to_timedelta(seconds, unit="s"),
                              "y": wave(2000)})
    with pytest.raises(ValueError, match=r"^ds: expected a regular step.*resample='5min'"):
        RNNForecaster(**COLUMNS).fit(frame)
    hourly = frame.set_index("ds")["y"].resample("h")
    for resample, expected in {"1h": hourly.mean(), ("1h", "sum"): hourly.sum()}.items():
        model = RNNForecaster(**COLUMNS, resample=resample).fit(frame)
        np.testing.assert_allclose(model.panel_.series[0].y, expected.to_numpy(), rtol=1e-12)
        assert model.predict()["ds"].iloc[0] == expected.index[-1] + pandas.Timedelta("1h")
    with refuses(ValueError, "freq, resample"):
        RNNForecaster(**QUICK, resample="1h").fit(wave(60))


def test_a_sum_over_hours_without_rows_is_zero():
    hours = np.datetime64("2024-01-01T00:10") + np.array([0, 0, 1, 5, 6, 7, 8]) * np.timedelta64(1, "h")
    model = fitted(np.ones(7) + np.arange(7), updates=2, horizon=1, window=3, times=hours, resample=("1h", "sum"))
    assert model.panel_.series[0].y.tolist() == [3, 3, 0, 0, 0, 4, 5, 6, 7][:len(model.panel_.series[0])]


def test_a_frame_without_names_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"ds": pandas.date_range("2024", periods=60), "y": wave(60)})
    for X in (frame, frame.assign(ds=frame["ds"].astype(str))):
        with pytest.raises(TypeError, match=r"^target, time: the column 'ds' .*RNNForecaster\(target=\.\.\., time="):
            RNNForecaster(**QUICK).fit(X)
