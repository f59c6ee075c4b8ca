"""Calendars: frequencies named and found, time zones over clock changes, clocks of panels, resampling.

pandas' own ``date_range``, ``resample`` and time zones are the oracle where pandas has them.
"""

import datetime
import pickle
import zoneinfo

import numpy as np
import pytest

from fastrnn.forecasting import RNNForecaster
from fastrnn.forecasting.calendar import Clock, with_zone
from fastrnn.forecasting.frequency import Frequency
from fastrnn.forecasting.resample import FUNCTIONS, Resampling, bins
from fastrnn.forecasting.timeline import ahead, timeline
from fastrnn.forecasting.zones import local_second, to_local, to_universal, zone_name

STARTS = ["2023-12-28", "2024-01-31 06:30", "2020-02-29", "1999-12-31 23:59", "2024-02-10", "1960-05-05"]
NAMES = ["h", "15min", "3h", "10s", "250ms", "D", "2D", "7D", "B", "W-SUN", "W-WED", "MS", "ME", "2ME", "BME", "BMS",
         "bh", "QS", "QE", "QE-JAN", "QS-FEB", "BQE", "BQS", "YS", "YE", "YE-JUN", "BYE", "BYS", "SMS", "SME", "SME-10"]
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo",
         "Africa/Casablanca", "Pacific/Apia", "Australia/Adelaide", "UTC", "Europe/Dublin", "Asia/Kathmandu"]


def universal(index):
    """An index of pandas as datetime64[us] of universal time."""
    return (index if index.tz is None else index.tz_convert("UTC").tz_localize(None)).to_numpy().astype(
        "datetime64[us]")


# ---- Frequencies --------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_frequencies_go_on_as_pandas_has_them(name):
    pandas = pytest.importorskip("pandas")
    for start in STARTS:
        times = pandas.date_range(start, periods=80, freq=name).to_numpy().astype("datetime64[us]")
        for frequency in (Frequency.named(name), None):         # named, and found from 40 times
            clock, steps = Clock.of(times[:40], frequency=frequency)
            np.testing.assert_array_equal(steps, np.arange(40))
            np.testing.assert_array_equal(clock.at(np.arange(80)), times)
            np.testing.assert_array_equal(clock.moved(7).at(np.arange(9)), times[7:16])
            seconds = times.astype(np.int64) / 1e6
            assert [clock.second(k) for k in (3, 70, 0)] == seconds[[3, 70, 0]].tolist()
            assert clock.seconds(np.arange(80)).tolist() == seconds.tolist()
            assert pickle.loads(pickle.dumps(clock)) == clock


@pytest.mark.parametrize("name", ["D", "B", "MS", "ME", "BME", "QE", "SME", "W-MON", "h", "YS"])
def test_times_left_out_leave_gaps(name):
    pandas = pytest.importorskip("pandas")
    times = pandas.date_range("2021-03-04", periods=60, freq=name).to_numpy()
    kept = np.sort(np.random.default_rng(0).choice(60, 45, replace=False))
    clock, steps = Clock.of(times[kept])
    np.testing.assert_array_equal(steps, kept - kept[0])
    np.testing.assert_array_equal(clock.at(steps), times[kept])


def sessions(hours, days=12, weekdays=7, left_out=()):
    """The times of some hours of some days, as text."""
    every = [f"2024-03-{day:02d}T{hour}" for day in range(1, days + 1) if (day + 3) % 7 < weekdays for hour in hours]
    return [time for n, time in enumerate(every) if n not in left_out]


@pytest.mark.parametrize("times, name, following", [
    (sessions(["09", "10", "11", "12"], weekdays=5), "h 09:00-12:00 B", "2024-03-13T09"),
    (sessions(["09", "10", "11", "12"], weekdays=5, left_out=(3, 9, 20)), "h 09:00-12:00 B", "2024-03-13T09"),
    (sessions(["09:30", "10:00", "10:30"]), "30min 09:30-10:30 D", "2024-03-13T09:30"),
    (sessions(["08", "18"]), "10h 08:00-18:00 D", "2024-03-13T08"),
    (sessions(["08", "10", "12"], days=31, weekdays=6), "2h 08:00-12:00 Mon Tue Wed Thu Fri Sat", "2024-04-01T08"),
    (sessions(["06", "14", "22"]), "8h", "2024-03-13T06"),                                  # around the clock
    (sessions(["00", "06", "12"]), "6h", "2024-03-12T18"),                                  # a night of two steps
    (sessions(["09", "10", "11"], days=4), "h", "2024-03-04T12"),                           # too few days to tell
    (sessions(["09", "10", "11"], left_out=[n for n in range(36) if n // 3 % 2 == (n % 3 == 2)]), "h",
     "2024-03-12T11")])                                                                     # half are left out
def test_hours_of_business(times, name, following):
    clock, steps = Clock.of(times)
    assert clock.name == name and len(set(steps.tolist())) == len(times)
    np.testing.assert_array_equal(clock.at(steps), np.array(times, "datetime64[us]"))
    assert clock.at(steps[-1:] + 1)[0] == np.datetime64(following)
    assert pickle.loads(pickle.dumps(clock)) == clock and Frequency.named(name) == clock.frequency


def test_hours_of_business_that_make_no_sense():
    for name in ("h 16:00-09:00 B", "2h 09:00-16:00 B", "D 09:00-16:00 B", "h 09:00-16:00 MS", "h 09:00-25:00 B"):
        with pytest.raises(ValueError, match=r"^freq: expected hours such as 'h 09:00-16:00 B'"):
            Frequency.named(name)


def test_hours_of_business_over_a_change_of_the_clocks():
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2024-03-01", "2024-03-29", freq="30min", tz="America/New_York")
    index = index[(index.day_of_week < 5) & (index.hour >= 10) & (index.hour < 13)]
    series = pandas.Series(np.sin(np.arange(len(index)) * 2 * np.pi / 6), index)
    model = RNNForecaster(horizon=12, blend=["naive"]).fit(series[:-12])
    assert model.predict().index.tolist() == index[-12:].tolist()
    assert model.seasons_ == (6,) and len(model.panel_.series[0]) == len(index) - 12
    late = RNNForecaster(horizon=3, blend=["naive"], freq="30min").fit(series[:-12]).predict()
    assert late.index[0] == index[-13] + pandas.Timedelta("30min")      # what freq= says goes


@pytest.mark.parametrize("times, name", [
    (["2024-01-31", "2024-02-29"], "ME"), (["2023-01-30", "2023-02-28", "2023-03-30"], "month, day 30"),
    (["2024-01-15", "2024-02-15"], "month, day 15"), (["2024-01-31", "2024-02-29", "2024-03-29"], "BME"),
    (["2024-02-01", "2024-03-01"], "MS"), (["2023-02-01", "2023-03-01"], "MS"), (["2024-01-01", "2024-01-29"], "28D"),
    (["2023-12-31", "2024-12-31"], "YE"), (["2024-02-29", "2028-02-29"], "4YE"),
    (["2024-01-05", "2024-01-08", "2024-01-09"], "B"), (["2024-01-04", "2024-01-05"], "D"),
    (["2024-01-05", "2024-01-06", "2024-01-08"], "D"), (["2024-01-01", "2024-01-15", "2024-02-01"], "SMS-15"),
    ([f"2024-01-{day:02d}" for day in (1, 3, 5, 8, 10, 12, 15, 17, 19, 22, 24, 26)], "Mon Wed Fri"),
    ([f"2024-01-{day:02d}" for day in (1, 3, 5, 9, 11, 15, 17)], "2B"),
    ([f"2024-01-{day:02d}" for day in (1, 3, 5, 9, 15, 17)], "2B"),         # one left out
    ([f"2024-01-{day:02d}" for day in (1, 4, 9, 12, 17)], "3B"),
    ([f"2024-01-{day:02d}" for day in (1, 3, 5, 7, 9)], "2D"), ([f"2024-01-{day:02d}" for day in (1, 3, 5)], "2D"),
    (["2024-01-01T00:00", "2024-01-01T12:00", "2024-01-02T00:00"], "12h"),
    (["2024-01-01T00:00:00.5", "2024-01-01T00:00:01"], "500ms"), (["2024-01-01", "2024-01-08"], "7D")])
def test_frequencies_that_are_found(times, name):
    clock, steps = Clock.of(times)
    assert clock.name == name and steps.tolist() == sorted(set(steps.tolist()))
    np.testing.assert_array_equal(clock.at(steps), np.array(times, "datetime64[us]"))


def test_names_of_frequencies():
    for name in [*NAMES, "month, day 15"][:-1]:
        frequency = Frequency.named(name)
        assert Frequency.named(frequency.name) == frequency
    for older, name in {"M": "ME", "Q": "QE", "A": "YE", "H": "h", "T": "min", "1d": "D", "1mo": "MS", "1q": "QS",
                        "1y": "YS", "1w": "W", "15m": "15min", "BM": "BME", "AS": "YS"}.items():
        assert Frequency.named(older) == Frequency.named(name)
    assert Frequency.named(datetime.timedelta(hours=6)) == Frequency.named("6h") == Frequency.named(
        np.timedelta64(360, "m"))
    assert Frequency.named(np.timedelta64(2, "D")).name == "2D" and Frequency.named(np.timedelta64(1, "M")).name == "MS"
    assert Frequency.named("Sun Mon Tue Wed Thu").weekmask == "1111001"
    for wrong in ("fortnight", "", "0h", "-1h", "QE-FOO", "h-MON", "SMS-40"):
        with pytest.raises(ValueError, match=r"^freq: expected a frequency such as 'h'"):
            Frequency.named(wrong)
    with pytest.raises(TypeError, match=r"^freq"):
        Frequency.named(3)
    with pytest.raises(ValueError, match=r"^freq: expected a positive"):
        Frequency.named(datetime.timedelta(0))


def test_a_named_frequency_refuses_times_that_are_not_on_it():
    days = np.array(["2024-01-01", "2024-01-02", "2024-01-06"], "datetime64[D]")        # the last is a Saturday
    with pytest.raises(ValueError, match=r"^times: .*freq='B'.*got 2024-01-06; resample='B'"):
        Clock.of(days, frequency=Frequency.named("B"))
    with pytest.raises(ValueError, match="freq='QE-DEC'"):
        Clock.of(["2024-01-31", "2024-04-30"], frequency=Frequency.named("QE-DEC"))
    Clock.of(["2024-03-31", "2024-06-30"], frequency=Frequency.named("QE-DEC"))
    Clock.of(["2024-01-31", "2024-04-30"], frequency=Frequency.named("QE"))             # of any month


def test_irregular_times_show_what_makes_them_regular():
    times = np.datetime64("2024-01-01T00:00") + np.array([0, 50, 130, 170, 250]) * np.timedelta64(1, "m")
    with pytest.raises(ValueError, match=r"^times: expected a regular step.*got 2024-01-01 and then "
                                         r"2024-01-01T00:50.*resample='1h' .*the mean"):
        Clock.of(times)
    with pytest.raises(ValueError, match=r"^when: the time 2024-01-01T07:00 is there twice"):
        Clock.of(["2024-01-01T06:00", "2024-01-01T07:00", "2024-01-01T07:00"], "when")


# ---- Time zones ---------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
def test_zones_agree_with_pandas_and_with_datetime(zone):
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range("2009-12-25", "2030-01-05", freq="97min", tz=zone)
    instants, shown = universal(index), index.tz_localize(None).to_numpy()
    np.testing.assert_array_equal(to_local(instants, zone), shown)
    rules = zoneinfo.ZoneInfo(zone)
    wall = np.arange("2010-12-25", "2013-01-05", np.timedelta64(30, "m"), dtype="datetime64[m]")    # some do not exist
    expected = [time.replace(tzinfo=rules).astimezone(datetime.UTC).replace(tzinfo=None)
                for time in wall.tolist()]
    np.testing.assert_array_equal(to_universal(wall, zone), np.array(expected, "datetime64[us]"))
    for k in range(0, len(instants), 5003):
        assert local_second(int(instants[k].astype(np.int64)), zone) == shown[k].astype("datetime64[us]").astype(
            np.int64) / 1e6


@pytest.mark.parametrize("change", ["2024-03-28", "2024-10-24", "2024-04-04", "2024-10-03", "2024-12-30"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata",
                                  "Pacific/Apia"])
@pytest.mark.parametrize("name", ["h", "30min", "D", "B", "W-SUN", "MS"])
def test_clocks_over_the_changes_of_zones(zone, change, name):
    """Hours are elapsed time; days keep their time of day."""
    pandas = pytest.importorskip("pandas")
    index = pandas.date_range(f"{change} 12:00", periods=400, freq=name, tz=zone)
    instants = universal(index)
    for frequency in (None, Frequency.named(name)):
        clock, steps = Clock.of(instants[:200], zone=zone, frequency=frequency)
        np.testing.assert_array_equal(steps, np.arange(200))
        np.testing.assert_array_equal(clock.at(np.arange(400)), instants)
        wall = index.tz_localize(None).to_numpy()
        np.testing.assert_array_equal(clock.local(np.arange(400)), wall)
        seconds = wall.astype("datetime64[us]").astype(np.int64) / 1e6
        assert [clock.second(k) for k in range(0, 400, 7)] == seconds[::7].tolist()


def test_hours_of_a_change_are_distinct_instants():
    """2 o'clock comes twice on the 27th of October: 25 hours, one apart."""
    day = np.arange("2024-10-26T22:00", "2024-10-27T23:00", np.timedelta64(1, "h"), dtype="datetime64[us]")
    clock, steps = Clock.of(day, zone="Europe/Berlin")
    assert steps.tolist() == list(range(25)) and clock.name == "h"
    hours = (clock.local(np.arange(25)) - np.datetime64("2024-10-27")).astype("timedelta64[h]").astype(int)
    assert hours.tolist() == [0, 1, 2, *range(2, 24)]


def test_a_time_of_day_that_a_change_skips_moves_on():
    clock, _ = Clock.of(to_universal(np.array(["2024-03-29T02:30", "2024-03-30T02:30"], "datetime64[us]"),
                                     "Europe/Berlin"), zone="Europe/Berlin")
    assert clock.local(np.arange(4)).astype("datetime64[m]").astype(str).tolist() == [
        "2024-03-29T02:30", "2024-03-30T02:30", "2024-03-31T03:30", "2024-04-01T02:30"]
    again, steps = Clock.of(clock.at(np.arange(4)), zone="Europe/Berlin", frequency=Frequency.named("D"))
    assert again == clock and steps.tolist() == [0, 1, 2, 3]


def test_times_that_know_their_zone():
    berlin = zoneinfo.ZoneInfo("Europe/Berlin")
    fold = [datetime.datetime(2024, 10, 27, 2, tzinfo=berlin, fold=fold) for fold in (0, 1)]
    instants, zone = with_zone(fold)
    assert zone == "Europe/Berlin" and np.diff(instants)[0] == np.timedelta64(1, "h")
    instants, zone = with_zone(["2024-10-27T02:00+02:00", "2024-10-27T02:00+01:00"])
    assert zone == "UTC" and np.diff(instants)[0] == np.timedelta64(1, "h")
    assert with_zone(["2024-01-01T05:30+05:30", "2024-01-01T06:30+05:30"])[1] == "+05:30"
    assert with_zone(["2024-01-01T05:30Z"])[1] == "UTC" and with_zone(["2024-01-01"])[1] is None
    with pytest.raises(ValueError, match="some have a time zone"):
        with_zone(["2024-01-01T05:30Z", "2024-01-01T05:30"])
    assert to_local(np.array(["2024-01-01T00:00"], "datetime64[us]"), "+05:30")[0] == np.datetime64("2024-01-01T05:30")
    assert zone_name(datetime.timezone(datetime.timedelta(hours=-3))) == "-03:00"
    with pytest.raises(ValueError, match="there is none of the name 'Mars/Base'"):
        to_local(np.array(["2024-01-01"], "datetime64[us]"), "Mars/Base")


# ---- Panels -------------------------------------------------------------------------------------

def stacked(*series):
    return np.concatenate(series).astype("datetime64[us]"), np.cumsum([0, *map(len, series)])


def test_a_panel_has_one_frequency_and_names_the_series_that_differs():
    hours, days = (np.datetime64("2024-01-01", "m") + np.arange(50) * np.timedelta64(n, "h") for n in (1, 24))
    names = ["t of 'a'", "t of 'b'"]
    with pytest.raises(ValueError, match=r"^t of 'b': expected one frequency .* 24 times that, where t of 'a' has h"):
        timeline(*stacked(hours, days), names)
    line = timeline(*stacked(hours, days), names, frequency=Frequency.named("h"))
    assert line.lengths.tolist() == [50, 49 * 24 + 1]
    with pytest.raises(ValueError, match=r"^t of 'b': expected one frequency .* of D, where t of 'a' has B"):
        timeline(*stacked(np.arange("2024-01-01", "2024-03-01", dtype="datetime64[D]")[
            np.is_busday(np.arange("2024-01-01", "2024-03-01", dtype="datetime64[D]"))],
            np.arange("2024-01-01", "2024-02-01", dtype="datetime64[D]")), names)
    with pytest.raises(ValueError, match=r"^t of 'b': the time 2024-01-02 is there twice"):
        timeline(*stacked(hours, np.array(["2024-01-01", "2024-01-02", "2024-01-02"], "datetime64[D]")), names)


def test_series_of_a_panel_begin_where_they_like(monkeypatch):
    pandas = pytest.importorskip("pandas")
    monkeypatch.setattr("fastrnn.forecasting.timeline.ROWS", 64)            # several blocks
    rng = np.random.default_rng(0)
    series = [pandas.date_range(np.datetime64("2024-02-20") + int(rng.integers(90)), periods=int(rng.integers(2, 60)),
                                freq="D", tz="Europe/Rome") for _ in range(40)]
    instants, starts = stacked(*map(universal, series))
    line = timeline(instants, starts, [f"times[{n}]" for n in range(40)], "Europe/Rome")
    assert line.lengths.tolist() == list(map(len, series))
    following = ahead(line.clocks, line.lengths, 30)
    for n, each in enumerate(series):
        assert line.clocks[n] == Clock.of(universal(each), zone="Europe/Rome")[0]
        np.testing.assert_array_equal(following[n], universal(pandas.date_range(each[-1], periods=31, freq="D")[1:]))


def test_a_series_of_one_row_takes_the_frequency_of_the_others():
    days = np.arange("2024-01-01", "2024-01-20", dtype="datetime64[D]")
    line = timeline(*stacked(days, days[3:4]), ["a", "b"])
    assert line.clocks[1].at(1) == days[4] and line.lengths.tolist() == [19, 1]


# ---- Resampling ---------------------------------------------------------------------------------

@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", ["h", "6h", "D", "W-SUN", "MS", "ME", "QE", "YE", "QS"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "Asia/Kolkata"])
def test_resampled_values_are_those_of_pandas(name, function, zone):
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.uniform(0, 300 * 86_400, 4000))
    index = (pandas.Timestamp("2024-02-03 05:00") + pandas.to_timedelta(seconds.round(3), unit="s")).tz_localize(
        zone, ambiguous=False, nonexistent="shift_forward").as_unit("us").sort_values()
    values = np.where(rng.random(4000) < 0.2, np.nan, rng.standard_normal(4000))
    expected = getattr(pandas.Series(values, index).resample(name), function)()
    groups = bins(universal(index), np.array([0, 4000]), Frequency.named(name), zone)
    result = pandas.Series(groups.reduced(values, function), groups.instants)
    expected.index = universal(expected.index)
    rows = expected.index.isin(result.index)                # steps without rows are the timeline's to add
    assert result.index.isin(expected.index).all() and (expected[~rows].isna() | (expected[~rows] == 0)).all()
    if function == "sum":                                   # a step of missing values alone is missing
        result = result.fillna(0.0)
    np.testing.assert_allclose(result.to_numpy(), expected[rows].to_numpy(float), rtol=1e-9, atol=1e-12)


def test_what_resample_says():
    hours = Frequency.named("h")
    assert Resampling.of("h", None) == Resampling(hours, None)
    assert Resampling.of(None, "1h") == Resampling(hours, "mean") == Resampling.of("h", "mean")
    assert Resampling.of(None, ("1h", "sum")) == Resampling(hours, "sum") == Resampling.of("h", "sum")
    for name, arguments in {"freq": (None, "sum"), "resample": (None, ("1h", "sums"))}.items():
        with pytest.raises(ValueError, match=f"^{name}"):
            Resampling.of(*arguments)
    with pytest.raises(ValueError, match=r"^freq: expected the step of resample='1h'"):
        Resampling.of("D", "1h")
