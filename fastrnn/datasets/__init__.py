"""Data that ships with fastrnn, for examples and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from .._base.typing import Float64Array

__all__ = ["WEATHER", "Weather", "load_weather"]

WEATHER = Path(__file__).with_name("greensboro_tmy3.csv")


class Weather(NamedTuple):
    """A typical meteorological year at Greensboro, North Carolina, by the hour.

    Attributes
    ----------
    times : array of datetime64[us], [8760]
        The end of each hour, in local standard time (UTC-5). The year is written as 2001; its months are from different
        real years, so the series jumps where one month ends and the next begins.
    temperature : array of float64, [8760]
        Temperature of the air at that time, in degrees Celsius.
    irradiance : array of float64, [8760]
        Global horizontal irradiance, the mean of that hour, in watts per square metre.

    Examples
    --------
    >>> from fastrnn.datasets import load_weather
    >>> weather = load_weather()
    >>> weather.temperature.shape
    (8760,)
    """

    times: npt.NDArray[np.datetime64]
    temperature: Float64Array
    irradiance: Float64Array


def load_weather() -> Weather:
    """Load a year of hourly weather: temperature and irradiance (8760 hours; NREL's TMY3, Greensboro).

    Returns
    -------
    Weather
        A named tuple of arrays: ``times``, ``temperature``, ``irradiance``.

    Notes
    -----
    ``fastrnn.datasets.WEATHER`` is the path of the file. Its source and terms are in ``fastrnn/datasets/README.md``.

    Examples
    --------
    >>> from fastrnn.datasets import load_weather
    >>> weather = load_weather()
    >>> str(weather.times[0]), float(weather.temperature.max())
    ('2001-01-01T01:00:00.000000', 35.6)
    """
    temperature, irradiance = np.loadtxt(WEATHER, delimiter=",", skiprows=2, usecols=(1, 2), unpack=True)
    hours = np.arange(1, len(temperature) + 1) * np.timedelta64(3_600_000_000, "us")    # pandas and polars take "us"
    return Weather(np.datetime64("2001-01-01T00", "us") + hours, temperature, irradiance)
