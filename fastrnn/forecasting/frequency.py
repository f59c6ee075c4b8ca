"""Frequencies of regular times: elapsed time, days, business days, months, quarters, years, half-months, and hours of
business or trading.

A frequency numbers its times: ``numbers`` gives the number of each time, ``times`` the time of each number, and times
lie on the frequency where the second undoes the first. A step is `count` numbers. All of it is arithmetic with NumPy's
datetime64; names are those of pandas ("h", "D", "B", "MS", "ME", "QE-DEC", "BME", "SMS", "W-SUN", ...), with polars'
("1d", "1mo", "1q", "1y") and the older names of pandas ("M", "Q", "A", "H", "T", ...) understood, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._base.trees import storable

if TYPE_CHECKING:
    from .._base.typing import IntArray

Times: TypeAlias = npt.NDArray[np.datetime64]

DAY = 86_400_000_000                                    # in microseconds
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
BUSINESS = "1111100"                                    # Monday to Friday
_FIRST_DAY = np.datetime64("0001-01-01", "D")           # a Monday, which business days are counted from
_HOUR = 3600 * 10**6
_ELAPSED = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6}
_OLDER = {"H": "h", "T": "min", "m": "min", "S": "s", "L": "ms", "U": "us", "d": "D", "w": "W", "mo": "MS", "q": "QS",
          "y": "YS", "M": "ME", "BM": "BME", "SM": "SME", "Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "AS": "YS",
          "BA": "BYE", "BY": "BYE", "BAS": "BYS"}
_RULES = {"MS": (1, 1, False), "ME": (1, 31, False), "BMS": (1, 1, True), "BME": (1, 31, True),
          "QS": (3, 1, False), "QE": (3, 31, False), "BQS": (3, 1, True), "BQE": (3, 31, True),
          "YS": (12, 1, False), "YE": (12, 31, False), "BYS": (12, 1, True), "BYE": (12, 31, True)}
_NAME = re.compile(r"(\d*)\s*([A-Za-z]+)(?:-([A-Za-z0-9]+))?")
SESSIONS = 5            # days that have the same times of the day, at least, for hours of business or trading
SESSION_SHARE = 0.8     # of these times that must be there
_SESSION = re.compile(r"(\d*[A-Za-z]+) (\d\d:\d\d)-(\d\d:\d\d) (.+)")
_EXAMPLES = ("expected a frequency such as 'h', '15min', 'D', 'B', 'W-SUN', 'MS', 'ME', 'BME', 'QS', 'QE-DEC', 'SMS' "
             "or 'YE'")


@storable
@dataclass(frozen=True)
class Frequency:
    """How the times of a regular series follow each other.

    ``unit`` is "elapsed" (microseconds of elapsed time), "day" (of the calendar), "weekday" (days of the week that
    ``weekmask`` has, as numpy.busday_count takes it), "month", "half" (two days of every month) or "session": the same
    times of these days, whose first, distance and number are ``days``, in microseconds.

    Examples
    --------
    >>> import numpy as np
    >>> month_ends = Frequency.named("ME")
    >>> month_ends.times(np.array([648, 649])).astype("datetime64[D]").astype(str).tolist()
    ['2024-01-31', '2024-02-29']
    >>> str(Frequency.named("90min")), Frequency.named("1mo").name
    ('90min', 'MS')
    """

    unit: str
    count: int = 1                      # numbers in a step
    days: tuple[int, ...] = ()          # of the month; a month that has fewer days ends with its last; of a session
    business: bool = False              # the weekday (Monday to Friday) nearest to that day within the month
    weekmask: str = BUSINESS
    phase: tuple[int, int] | None = None    # (modulus, remainder) that every number has: quarters, weeks, years

    # ---- Names ----------------------------------------------------------------------------------

    @classmethod
    def named(cls, name: Any, argument: str = "freq") -> Frequency:
        """The frequency of a name, a timedelta, a numpy.timedelta64 or an offset of pandas; ValueError otherwise."""
        if isinstance(name, Frequency):
            return name
        if isinstance(name, (timedelta, np.timedelta64)):
            return cls._of_duration(name, argument)
        text = getattr(name, "freqstr", name)
        if not isinstance(text, str):
            raise TypeError(f"{argument}: {_EXAMPLES}, or a timedelta, got {type(name).__name__}")
        days = text.upper().replace(",", " ").split()
        if len(days) > 1 and all(day[:3] in WEEKDAYS for day in days):
            present = {day[:3] for day in days}
            return cls("weekday", weekmask="".join("1" if day in present else "0" for day in WEEKDAYS))
        session = _SESSION.fullmatch(text.strip())
        if session is not None:
            return cls._of_session(session[1], session[2], session[3], session[4], argument)
        parts = _NAME.fullmatch(text.strip())
        frequency = None if parts is None else cls._of_parts(int(parts[1] or 1), parts[2], (parts[3] or "").upper())
        if frequency is None or frequency.count < 1:
            raise ValueError(f"{argument}: {_EXAMPLES}, got {text!r}")
        return frequency

    @classmethod
    def _of_parts(cls, count: int, unit: str, anchor: str) -> Frequency | None:
        """A frequency from the parts of its name, None where they are none."""
        unit = _OLDER.get(unit, unit)
        if unit in _RULES:
            months, day, business = _RULES[unit]
            if anchor and (months == 1 or anchor not in MONTHS):
                return None
            phase = (months, MONTHS.index(anchor) % months) if anchor else None
            return cls("month", count * months, (day,), business, phase=phase)
        if unit == "W" and (not anchor or anchor in WEEKDAYS):
            phase = (7, (WEEKDAYS.index(anchor) + 4) % 7) if anchor else None   # day 0, 1970-01-01, is a Thursday
            return cls("day", 7 * count, phase=phase)
        if unit in ("SMS", "SME") and (not anchor or anchor.isdigit()):
            day = int(anchor or 15)
            if not 2 <= day <= 27:
                return None
            return cls("half", count, (1, day) if unit == "SMS" else (day, 31))
        if anchor:
            return None
        if unit in _ELAPSED:
            return cls("elapsed", count * _ELAPSED[unit])
        if unit in ("bh", "BH"):
            return cls("session", count, (9 * _HOUR, _HOUR, 8))
        return {"D": cls("day", count), "B": cls("weekday", count)}.get(unit)

    @classmethod
    def _of_session(cls, name: str, begin: str, end: str, days: str, argument: str) -> Frequency:
        """Hours of business: "h 09:00-16:00 B", the step, the first and the last time of a day, and the days."""
        step = cls.named(name, argument)
        whole = cls.named(days, argument)
        first, last = (int(at[:2]) * _HOUR + int(at[3:]) * _HOUR // 60 for at in (begin, end))
        if step.unit != "elapsed" or whole.unit not in ("day", "weekday") or whole.count > 1 or not (
                first < last < DAY) or (last - first) % step.count:
            raise ValueError(f"{argument}: expected hours such as 'h 09:00-16:00 B', of a step that leads from the "
                             f"first to the last, got '{name} {begin}-{end} {days}'")
        return cls("session", 1, (first, step.count, (last - first) // step.count + 1),
                   weekmask="1111111" if whole.unit == "day" else whole.weekmask)

    @classmethod
    def _of_duration(cls, duration: timedelta | np.timedelta64, argument: str) -> Frequency:
        step = np.timedelta64(duration)
        unit = np.datetime_data(step.dtype)[0]
        if unit in ("Y", "M"):
            months = int(step.astype("timedelta64[M]").astype(int))
            frequency = cls("month", months, (1,))
        else:
            frequency = cls("elapsed", int(step.astype("timedelta64[us]").astype(np.int64)))
            if frequency.count % DAY == 0:
                frequency = cls("day", frequency.count // DAY)
        if frequency.count < 1:
            raise ValueError(f"{argument}: expected a positive duration, got {duration}")
        return frequency

    @property
    def name(self) -> str:
        """The name in pandas' way, "15min" or "QE-DEC"; in words where there is none."""
        if self.unit == "elapsed":
            name, size = next((name, size) for name, size in reversed(_ELAPSED.items()) if self.count % size == 0)
            return _counted(self.count // size, name)
        if self.unit == "day":
            if self.phase is None:
                return _counted(self.count, "D")
            return _counted(self.count // 7, "W") + "-" + WEEKDAYS[(self.phase[1] + 3) % 7]
        if self.unit == "weekday":
            present = [day.capitalize() for day, bit in zip(WEEKDAYS, self.weekmask, strict=True) if bit == "1"]
            return _counted(self.count, "B") if self.weekmask == BUSINESS else " ".join(present)
        if self.unit == "session":
            first, step, size = self.days
            begin, end = (str(np.datetime64(at, "us"))[11:16] for at in (first, first + (size - 1) * step))
            days = "D" if self.weekmask == "1111111" else replace(self, unit="weekday", count=1, days=()).name
            return f"{replace(self, unit='elapsed', count=self.count * step, days=()).name} {begin}-{end} {days}"
        if self.unit == "half":
            return _counted(self.count, "SMS" if self.days[0] == 1 else "SME") + f"-{self.days[self.days[0] == 1]}"
        months = next(months for months in (12, 3, 1) if self.count % months == 0)
        named = [name for name, rule in _RULES.items() if rule == (months, self.days[0], self.business)]
        if not named:
            return f"{_counted(self.count, 'month')}, day {self.days[0]}"
        anchor = "" if self.phase is None else "-" + MONTHS[self._anchor]
        return _counted(self.count // months, named[0]) + anchor

    @property
    def _anchor(self) -> int:
        """The month, 0 for January, that quarters and years are named after."""
        modulus, remainder = self.phase or (1, 0)
        return remainder + (modulus * ((11 - remainder) // modulus) if self.days[0] == 31 else 0)

    def __str__(self) -> str:
        return self.name

    # ---- Numbers and times ----------------------------------------------------------------------

    def numbers(self, times: Times) -> IntArray:
        """The number of each time, datetime64[us]: of the last time of the frequency's unit at or before it.

        For days it is the day, for months the month; where a frequency names ends ("ME") the time that ends the unit.
        """
        if self.unit == "elapsed":
            return times.astype(np.int64)
        day = times.astype("datetime64[D]")
        if self.unit == "day":
            return day.astype(np.int64)
        if self.unit in ("weekday", "session"):     # a day that is not in the mask counts to the one before
            own = np.busday_count(_FIRST_DAY, day + 1, self.weekmask).astype(np.int64) - 1
            return own if self.unit == "weekday" else self._in_sessions(times, day, own)
        month = day.astype("datetime64[M]")
        if self.unit == "month":
            return month.astype(np.int64)
        day_of_month = (day - month).astype(np.int64) + 1
        second = day_of_month > self.days[0] if self.days[1] == 31 else day_of_month >= self.days[1]
        numbers: IntArray = 2 * month.astype(np.int64) + second
        return numbers

    def times(self, numbers: npt.ArrayLike) -> Times:
        """The time of each number as datetime64[us]; days begin at midnight."""
        n = np.asarray(numbers, np.int64)
        if self.unit == "elapsed":
            return n.astype("datetime64[us]")
        if self.unit == "day":
            return n.astype("datetime64[D]").astype("datetime64[us]")
        if self.unit == "weekday":
            return np.busday_offset(_FIRST_DAY, n, "forward", self.weekmask).astype("datetime64[us]")
        if self.unit == "session":
            first, step, size = self.days
            day = np.busday_offset(_FIRST_DAY, n // size, "forward", self.weekmask).astype("datetime64[us]")
            result: Times = day + (first + n % size * step).astype("timedelta64[us]")
            return result
        if self.unit == "month":
            return self._in_month(n.astype("datetime64[M]"), np.int64(self.days[0]))
        days = np.where(n % 2, self.days[1], self.days[0])
        return self._in_month((n // 2).astype("datetime64[M]"), days)

    def _in_sessions(self, times: Times, day: Any, number: IntArray) -> IntArray:
        """The numbers of times of a day, which lies in or after the session of this number."""
        first, step, size = self.days
        open_day = np.is_busday(day, self.weekmask)
        place = np.clip(((times - day).astype(np.int64) - first) // step, -1, size - 1)
        result: IntArray = number * size + np.where(open_day, place, size - 1)
        return result

    def _in_month(self, month: Times, day: Any) -> Times:
        first, following = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]")
        if self.business:
            result = (np.busday_offset(first, 0, "forward") if self.days[0] == 1 else
                      np.busday_offset(following, -1, "forward"))
        else:
            result = np.minimum(first + (day - 1), following - 1)
        return result.astype("datetime64[us]")

    def fits(self, numbers: IntArray) -> Any:
        """Whether each number is in phase: every third month for quarters, every seventh day for weeks."""
        return True if self.phase is None else numbers % self.phase[0] == self.phase[1]

    # ---- Resampling -----------------------------------------------------------------------------

    @property
    def names_ends(self) -> bool:
        """Whether a step is called by its last day: month ends, and weeks of a weekday ("W-SUN" ends on Sundays)."""
        return self.days[-1:] == (31,) or (self.unit == "day" and self.phase is not None)

    def binned(self, numbers: IntArray, origin: int) -> IntArray:
        """The number of the step that each number falls into; steps of several begin at the phase, or else such that
        one begins with `origin`."""
        if self.count == 1:
            return numbers
        if self.phase is not None:
            remainder = self.phase[1] + (self.count - self.phase[0]) * self.names_ends
        elif self.unit == "month":
            remainder = self.count - 1 if self.names_ends else 0
        else:
            remainder = origin % self.count
        moved = numbers - remainder
        steps = -(-moved // self.count) if self.names_ends else moved // self.count
        return steps * self.count + remainder

    @property
    def seconds(self) -> float:
        """The mean length of a step in seconds."""
        days = {"day": 1.0, "weekday": 7 / max(1, self.weekmask.count("1")), "month": 365.2425 / 12,
                "half": 365.2425 / 24, "session": 7 / max(1, self.weekmask.count("1")) / (self.days or (1,))[-1]}
        return self.count / 1e6 if self.unit == "elapsed" else self.count * days[self.unit] * 86_400


def _counted(count: int, name: str) -> str:
    return name if count == 1 else f"{count}{' ' * (name == 'month')}{name}{'s' * (name == 'month')}"


# ---- Inference ----------------------------------------------------------------------------------

def inferred(instants: Times, local: Times) -> tuple[Frequency | None, int]:
    """The frequency that rising times lie on, and None with the place of the first odd one where there is none.

    Times may be left out. Months come before days: 28 days from the first of February to the first of March are a
    month. `local` is what the clocks showed at the instants.
    """
    day = local.astype("datetime64[D]")
    if np.all(local - day == local[0] - day[0]):
        gaps = np.diff(day).astype(np.int64)
        frequency = (_months(day) if gaps.min() >= 28 else None) or _days(day, gaps)
        if frequency is not None:
            return frequency, 0
    gaps = np.diff(instants).astype(np.int64)
    step = int(gaps.min())
    sessions = _sessions(local, step)
    if sessions is not None:
        return sessions, 0
    odd = gaps % step > 0
    return (None, int(np.argmax(odd))) if odd.any() else (Frequency("elapsed", step), 0)


def _sessions(local: Times, step: int) -> Frequency | None:
    """The same times of the day, with a night of three steps or more, or of no whole number of steps, between days."""
    day = local.astype("datetime64[D]")
    clock = (local - day).astype(np.int64)
    first, last = int(clock.min()), int(clock.max())
    size = (last - first) // step + 1
    different = np.unique(day)
    night = DAY - (size - 1) * step
    if np.any((clock - first) % step) or size < 2 or len(different) < SESSIONS or (
            night < 3 * step and night % step == 0):
        return None
    if len(local) < SESSION_SHARE * size * len(different):
        return None
    weekday = (different.astype(np.int64) + 3) % 7
    present = np.bincount(weekday, minlength=7) > 0
    weekmask = "".join("01"[int(bit)] for bit in present)
    if weekday.max() < 5:
        weekmask = BUSINESS
    elif different[-1] - different[0] < np.timedelta64(27, "D"):
        weekmask = "1111111"
    return Frequency("session", 1, (first, step, size), weekmask=weekmask)


def _months(day: Times) -> Frequency | None:
    """Every so many months, on one day of the month or its first or last weekday."""
    month = day.astype("datetime64[M]")
    day_of_month = (day - month).astype(np.int64) + 1
    last = (month + 1).astype("datetime64[D]") - 1
    shared = 31 if np.all(day == last) else int(day_of_month.max())
    for frequency in (Frequency("month", 1, (shared,)), Frequency("month", 1, (31,), True),
                      Frequency("month", 1, (1,), True)):
        if np.array_equal(frequency.times(month.astype(np.int64)), day.astype("datetime64[us]")):
            return _stepped(frequency, month.astype(np.int64))
    return None


def _days(day: Times, gaps: IntArray) -> Frequency | None:
    """Days, business days, half-months, or the same few days of every week."""
    weekday = (day.astype(np.int64) + 3) % 7            # 0 for Monday
    weeks = (day.astype(np.int64) + 3) // 7
    step = int(gaps.min())
    business = Frequency("weekday")
    business_step = _stepped(business, business.numbers(day)) if weekday.max() < 5 else None
    if not np.any(gaps % step):
        grid = np.arange(day[0], day[-1], step)         # weekends are left out where two or more steps would be there
        weekends = int(((grid.astype(np.int64) + 3) % 7 > 4).sum())
        return business_step if business_step is not None and weekends > 1 else Frequency("day", step)
    half_months = _half_months(day)
    if half_months is not None:
        return half_months
    present = np.bincount(weekday, minlength=7) > 0
    frequency = Frequency("weekday", weekmask="".join("01"[int(bit)] for bit in present))
    if not present.all() and len(np.unique(weeks)) >= 4 and np.diff(frequency.numbers(day)).min() == 1:
        return frequency
    return business_step


def _half_months(day: Times) -> Frequency | None:
    month = day.astype("datetime64[M]")
    day_of_month = (day - month).astype(np.int64) + 1
    early = int(day_of_month.min())
    later = day_of_month[day_of_month > early]
    late = int(later.max()) if len(later) else 0
    for days in ((early, 31), (early, late)):
        frequency = Frequency("half", 1, days)
        numbers = frequency.numbers(day)
        if early < days[1] and np.array_equal(frequency.times(numbers), day.astype("datetime64[us]")):
            return _stepped(frequency, numbers)
    return None


def _stepped(frequency: Frequency, numbers: IntArray) -> Frequency | None:
    """The frequency with the smallest difference of its numbers for a step, None if another is no multiple of it."""
    gaps = np.diff(numbers)
    step = int(gaps.min())
    return None if step < 1 or np.any(gaps % step) else replace(frequency, count=step)
