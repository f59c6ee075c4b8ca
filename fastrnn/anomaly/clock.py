"""Times of rows: from datetimes to sines and cosines of the time of day, of the week and of the year."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Float64Array

PERIODS = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.2425 * 86_400.0}      # in seconds
HARMONICS = 3


@storable
class Clock:
    """The time of the row that comes next: what was told, or as far from the last one as that was from its last.

    Parameters
    ----------
    features : sequence of {"day", "week", "year"}
        Periods whose sines and cosines are computed, three harmonics each.
    """

    def __init__(self, features: Sequence[str]) -> None:
        self.rates = [2 * math.pi * n / PERIODS[check.choice(name, "time_features", tuple(PERIODS))]
                      for name in features for n in range(1, HARMONICS + 1)]
        self.last = self.next = math.nan        # seconds since 1970 on the wall clock

    def features(self, second: float) -> list[float]:
        """Sines and cosines of a time; zeros where it is not known."""
        if second != second:
            return [0.0] * (2 * len(self.rates))
        return [wave(rate * second) for rate in self.rates for wave in (math.sin, math.cos)]

    def advance(self) -> None:
        """The row whose time was told has been learnt."""
        self.last, self.next = self.next, 2 * self.next - self.last


def seconds(times: Any, name: str = "times") -> Float64Array:
    """Times as seconds since 1970 of the wall clock: datetime64, datetimes, ISO 8601 text; a zone is left out."""
    if getattr(getattr(times, "dt", times), "tz", None) is not None:        # pandas: a column or an index with a zone
        times = getattr(times, "dt", times).tz_localize(None)
    array = np.asarray(times)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one time a row, got shape {array.shape}")
    if array.dtype.kind == "M":
        moments = array.astype("datetime64[us]")
    elif array.dtype.kind in "OU":
        moments = np.array([_moment(time, name) for time in array.tolist()], "datetime64[us]")
    else:
        raise TypeError(f"{name}: expected datetimes, got dtype {array.dtype}")
    if np.isnat(moments).any():
        raise ValueError(f"{name}: expected a time for every row, got NaT")
    result: Float64Array = moments.astype(np.int64) / 1e6
    return result


def _moment(time: Any, name: str) -> np.datetime64:
    """One time of the wall clock."""
    try:
        if isinstance(time, str):
            time = datetime.datetime.fromisoformat(time)
        if isinstance(time, datetime.datetime):
            time = time.replace(tzinfo=None)
        return np.datetime64(time, "us")
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected datetimes, got {time!r}") from None
