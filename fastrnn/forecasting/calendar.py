"""Times of regular series: a start and a step, of fixed length or in months of the calendar."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._base.trees import storable

if TYPE_CHECKING:
    from typing import TypeAlias

    from .._base.typing import ArrayLike, Float64Array, IntArray

    Times: TypeAlias = npt.NDArray[np.datetime64]

_DAY = np.timedelta64(1, "D")


@storable
@dataclass(frozen=True)
class Clock:
    """The times of a regular series: start + k * step; a step is microseconds, or whole months of the calendar.

    Examples
    --------
    >>> clock, places = Clock.of(["2024-01-31", "2024-02-29", "2024-04-30"])
    >>> places.tolist(), clock.at(np.arange(3, 5)).astype("datetime64[D]").astype(str).tolist()
    ([0, 1, 3], ['2024-04-30', '2024-05-31'])
    """

    start: np.datetime64
    step: int
    months: bool = False
    month_end: bool = False

    @classmethod
    def of(cls, times: ArrayLike, name: str = "times") -> tuple[Clock, IntArray]:
        """The clock of some times, and the step that each is at; a time left out leaves a gap."""
        times = _checked(times, name)
        gaps = np.diff(times).astype(np.int64)
        if gaps.min() <= 0:
            raise ValueError(f"{name}: expected each to come after the one before, got {times[np.argmin(gaps) + 1]} "
                             f"after {times[np.argmin(gaps)]}")
        month_end = bool(np.all((times + _DAY).astype("datetime64[M]") > times.astype("datetime64[M]")))
        moved = times + _DAY if month_end else times
        months = moved.astype("datetime64[M]")
        same_day = gaps.min() >= 28 * 86_400_000_000 and len(np.unique(moved - months)) == 1    # of the month
        if same_day:
            gaps = np.diff(months).astype(np.int64)
        step = int(gaps.min())
        if np.any(gaps % step):
            odd = np.argmax(gaps % step > 0)
            raise ValueError(f"{name}: expected a regular step (times may be left out), got {times[odd]} and then "
                             f"{times[odd + 1]}, no multiple of the shortest step")
        places = np.concatenate([[0], np.cumsum(gaps // step)])
        return cls(times[0], step, same_day, same_day and month_end), places

    def at(self, k: npt.ArrayLike) -> Any:
        """The times of steps k, as datetime64[us]."""
        offset = np.asarray(k) * self.step
        if not self.months:
            return self.start + offset.astype("timedelta64[us]")
        start = self.start + _DAY * self.month_end
        month = start.astype("datetime64[M]")
        moved = (month + offset.astype("timedelta64[M]")).astype("datetime64[us]") + (start - month)
        return moved - _DAY * self.month_end

    def seconds(self, k: npt.ArrayLike) -> Float64Array:
        """The times of steps k, as seconds since 1970."""
        seconds: Float64Array = self.at(k).astype(np.int64) / 1e6
        return seconds

    def second(self, k: int) -> float:
        """The time of one step as seconds since 1970."""
        if self.months:
            return float(self.seconds(k))
        return (self._origin + k * self.step) / 1e6

    @functools.cached_property
    def _origin(self) -> int:
        return int(self.start.astype(np.int64))

    def moved(self, k: int) -> Clock:
        """The clock that starts at step k of this one."""
        return replace(self, start=self.at(np.int64(k)))


def _checked(times: ArrayLike, name: str) -> Times:
    """Two or more times as datetime64[us], none missing."""
    try:
        array = np.asarray(times)
        if array.dtype.kind in "biuf":
            raise TypeError(f"got numbers, dtype {array.dtype}")
        array = array.astype("datetime64[us]")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected dates or times, {error}") from None
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name}: expected two or more in one dimension, got shape {array.shape}")
    if np.isnat(array).any():
        raise ValueError(f"{name}: one of them is missing (NaT)")
    return array
