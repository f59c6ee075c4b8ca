"""Times of rows: from datetimes to sines and cosines of the time of day, of the week and of the year."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._base import validation as check
from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Float64Array

PERIODS = {"day": 86_400.0, "week": 7 * 86_400.0, "year": 365.2425 * 86_400.0}      # in seconds
HARMONICS = 3
EPOCH = datetime.datetime(1970, 1, 1)


class Moments(NamedTuple):
    """Times of rows, in seconds since 1970."""

    shown: Float64Array         # on the wall clock [rows]
    instants: Float64Array      # of universal time where the times have a zone, else on the wall clock [rows]
    zoned: bool                 # whether the times have a zone


@storable
class Clock:
    """The time of the row that comes next: what was told, or as far from the last one as that was from its last.

    ``check`` refuses times that run backwards. Over the end of summer time the wall clock does, so of times with a zone
    the instants are compared.

    Parameters
    ----------
    features : sequence of {"day", "week", "year"}
        Periods whose sines and cosines are computed, three harmonics each.
    """

    zoned: bool | None = None       # whether the times have a zone; not known in files of before
    instant = learnt = math.nan     # of the row to come, and of the last row that was learnt

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
        self.learnt = self.instant
        self.last, self.next = self.next, 2 * self.next - self.last


    def check(self, instant: float, zoned: bool, name: str, follow: bool = True) -> None:
        """Refuse a time that is before the last row that was learnt (unless `follow` is False) or of another kind."""
        if self.zoned is not None and zoned != self.zoned:
            kinds = "without a zone", "with a zone"
            raise ValueError(f"{name}: expected times {kinds[self.zoned]}, as of the rows before, got times "
                             f"{kinds[zoned]}")
        if follow and instant < self.learnt:
            raise ValueError(f"{name}: expected no time before that of the last row, which is "
                             f"{_written(self.learnt)}, got {_written(instant)}"
                             + (", both in universal time" if zoned else ""))


def moments_of(times: Any, name: str = "times") -> Moments:
    """What datetime64, datetimes or ISO 8601 text say, one a row, none before the one above it."""
    zone = getattr(getattr(times, "dt", times), "tz", None)     # pandas: a column or an index with a zone
    if zone is not None:
        column = getattr(times, "dt", times)
        result = Moments(_seconds(column.tz_localize(None), name), _seconds(column.tz_convert(None), name), True)
    else:
        array = np.asarray(times)
        if array.dtype.kind in "OU" and array.ndim == 1:
            array = np.array([_datetime(time) for time in array.tolist()], object)
        shown = _seconds(array, name)
        offsets = _offsets(array, name) if array.dtype.kind == "O" else None
        result = Moments(shown, shown if offsets is None else shown - offsets, offsets is not None)
    if len(result.shown) < 2:
        return result
    back = np.flatnonzero(np.diff(result.instants) < 0)
    if len(back):
        row = int(back[0]) + 1
        raise ValueError(f"{name}: expected no time before that of the row above, got {_written(result.instants[row])} "
                         f"in row {row} after {_written(result.instants[row - 1])}"
                         + (", both in universal time" if result.zoned else ""))
    return result


def moment_of(time: Any, name: str) -> tuple[float, float, bool]:
    """What ``moments_of`` says of a single time, sooner: by the wall clock, as an instant, whether it has a zone."""
    moment = time.astype("datetime64[us]").item() if type(time) is np.datetime64 else _datetime(time)
    if isinstance(moment, datetime.datetime) and moment == moment:
        shift = moment.utcoffset()
        past = moment.replace(tzinfo=None) - EPOCH
        shown = ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) / 1e6
        return shown, shown if shift is None else shown - shift.total_seconds(), shift is not None
    moments = moments_of([time], name)
    return float(moments.shown[0]), float(moments.instants[0]), moments.zoned


def _written(second: float) -> str:
    """A time as text, whole seconds where it is one."""
    return str(np.datetime64(round(second * 1e6), "us")).removesuffix(".000000").replace("T", " ")


def _offsets(times: Any, name: str) -> Float64Array | None:
    """The offsets of datetimes from universal time, in seconds; None where they have no zone."""
    shifts = [time.utcoffset() if isinstance(time, datetime.datetime) else None for time in times.tolist()]
    without = shifts.count(None)
    if without == len(shifts):
        return None
    if without:
        raise ValueError(f"{name}: expected all times with a zone or all without one, "
                         f"got {times[shifts.index(None)]} without")
    return np.array([shift.total_seconds() for shift in shifts if shift is not None])


def _datetime(time: Any) -> Any:
    """A datetime of ISO 8601 text; what is none stays as it is, for `_moment` to refuse."""
    if isinstance(time, str):
        try:
            return datetime.datetime.fromisoformat(time)
        except ValueError:
            return time
    return time


def _seconds(times: Any, name: str) -> Float64Array:
    """Times as seconds since 1970 of the wall clock; a zone is left out."""
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
            raise ValueError("no ISO 8601 text")
        if isinstance(time, datetime.datetime):
            time = time.replace(tzinfo=None)
        return np.datetime64(time, "us")
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected datetimes, got {time!r}") from None
