"""Times of regular series: a start and a step, of fixed length or in months of the calendar."""

import functools
from dataclasses import dataclass, replace

import numpy as np

_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Clock:
    """The times of a regular series: start + k * step; a step is microseconds, or whole months of the calendar.

    >>> clock, at = Clock.of(["2024-01-31", "2024-02-29", "2024-04-30"])
    >>> at.tolist(), clock.at(np.arange(3, 5)).astype("datetime64[D]").astype(str).tolist()
    ([0, 1, 3], ['2024-04-30', '2024-05-31'])
    """

    start: np.datetime64
    step: int
    months: bool = False
    month_end: bool = False

    @classmethod
    def of(cls, times, name="times"):
        """The clock, and each time's place on it: a time left out leaves a gap."""
        try:
            times = np.asarray(times)
            if times.dtype.kind in "biuf":
                raise TypeError(f"got numbers, dtype {times.dtype}")
            times = times.astype("datetime64[us]")
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: expected dates or times, {error}") from None
        if times.ndim != 1 or len(times) < 2:
            raise ValueError(f"{name}: expected two or more in one dimension, got shape {times.shape}")
        if np.isnat(times).any():
            raise ValueError(f"{name}: one of them is missing (NaT)")
        gaps = np.diff(times).astype(np.int64)
        if gaps.min() <= 0:
            raise ValueError(f"{name}: expected each to come after the one before, got {times[np.argmin(gaps) + 1]} "
                             f"after {times[np.argmin(gaps)]}")
        month_end = bool(np.all((times + _DAY).astype("datetime64[M]") > times.astype("datetime64[M]")))
        moved = times + _DAY if month_end else times
        months = moved.astype("datetime64[M]")
        if gaps.min() >= 28 * 86_400_000_000 and len(np.unique(moved - months)) == 1:   # the same day of its month
            gaps, calendar = np.diff(months).astype(np.int64), True
        else:
            calendar = month_end = False
        step = int(gaps.min())
        if np.any(gaps % step):
            odd = np.argmax(gaps % step > 0)
            raise ValueError(f"{name}: expected a regular step (times may be left out), got {times[odd]} and then "
                             f"{times[odd + 1]}, no multiple of the shortest step")
        at = np.concatenate([[0], np.cumsum(gaps // step)])
        return cls(times[0], step, calendar, month_end), at

    def at(self, k):
        """The times of steps k, as datetime64[us]."""
        k = np.asarray(k) * self.step
        if not self.months:
            return self.start + k.astype("timedelta64[us]")
        start = self.start + _DAY * self.month_end
        month = start.astype("datetime64[M]")
        moved = (month + k.astype("timedelta64[M]")).astype("datetime64[us]") + (start - month)
        return moved - _DAY * self.month_end

    def seconds(self, k):
        """The times of steps k, as seconds since 1970."""
        return self.at(k).astype(np.int64) / 1e6

    def second(self, k):
        """The time of one step as seconds since 1970."""
        if self.months:
            return float(self.seconds(k))
        return (self._origin + k * self.step) / 1e6

    @functools.cached_property
    def _origin(self):
        return int(self.start.astype(np.int64))

    def moved(self, k):
        """The clock that starts at step k of this one."""
        return replace(self, start=self.at(np.int64(k)))
