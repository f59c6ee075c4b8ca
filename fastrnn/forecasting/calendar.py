"""Times of regular series: a clock that begins with a time and goes on by steps of a frequency, in a time zone.

Instants are datetime64[us], of universal time where there is a zone. Elapsed time (hours, minutes) passes evenly over
changes of the clocks; days, weeks and months keep the time of day that the clocks of the zone show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._base.trees import storable
from .frequency import DAY, Frequency, Times, inferred
from .zones import SECOND, local_second, to_local, to_universal, zone_name

if TYPE_CHECKING:
    from .._base.typing import ArrayLike, Float64Array, IntArray

AHEAD = 512             # steps whose times a clock works out at once for `second`, where they are not evenly spaced
_READABLE = ((60.0, "1min"), (300.0, "5min"), (900.0, "15min"), (3600.0, "1h"), (86_400.0, "1D"), (604_800.0, "1W"))


@storable
@dataclass(frozen=True)
class Clock:
    """The times of a regular series: step k has the number first + k * count of a frequency.

    Examples
    --------
    >>> clock, places = Clock.of(["2024-01-31", "2024-02-29", "2024-04-30"])
    >>> places.tolist(), clock.at(np.arange(3, 5)).astype("datetime64[D]").astype(str).tolist()
    ([0, 1, 3], ['2024-04-30', '2024-05-31'])
    >>> clock.name
    'ME'
    """

    first: int                  # the number of step 0
    frequency: Frequency
    time_of_day: int = 0        # in microseconds, of days and months
    zone: str | None = None

    @classmethod
    def of(cls, times: ArrayLike, name: str = "times", frequency: Frequency | None = None,
           zone: str | None = None) -> tuple[Clock, IntArray]:
        """The clock of some times, and the step that each is at; a time left out leaves a gap.

        Parameters
        ----------
        times : array_like
            Rising times, of universal time where there is a zone.
        name : str
            What messages call the times.
        frequency : Frequency, optional
            Found from the times if not given.
        zone : str, optional
            The name of their zone.
        """
        instants = checked(times, name)
        check_rising(instants, name, zone)
        local = to_local(instants, zone)
        if frequency is None:
            frequency, odd = inferred(instants, local)
            if frequency is None:
                raise ValueError(_irregular(instants, local, odd, name))
        clock = cls._begun(instants[0], local[0], frequency, zone)
        numbers = clock.numbers(instants, local)
        steps = numbers - clock.first
        wrong = (clock._shown(numbers) != local) | ~np.broadcast_to(frequency.fits(numbers), len(local))
        wrong |= steps % frequency.count > 0
        if wrong.any():
            odd = int(np.argmax(wrong))
            raise ValueError(f"{name}: expected times of the frequency freq={frequency.name!r} that go on from "
                             f"{shown(local[0])}, got {shown(local[odd])}; resample={frequency.name!r} takes the mean "
                             "of each such step")
        return clock, steps // frequency.count

    @classmethod
    def _begun(cls, instant: Any, local: Any, frequency: Frequency, zone: str | None) -> Clock:
        """The clock whose step 0 is at an instant, which the clocks of the zone show as `local`."""
        if frequency.unit == "elapsed":
            return cls(int(instant.astype(np.int64)), frequency, 0, zone)
        local = np.asarray([local], "datetime64[us]")
        time_of_day = 0 if frequency.unit == "session" else int(local.astype(np.int64)[0] % DAY)
        return cls(int(frequency.numbers(local)[0]), frequency, time_of_day, zone)

    @property
    def name(self) -> str:
        """The frequency's name, such as "h" or "ME"."""
        return self.frequency.name

    @property
    def anchored(self) -> Frequency:
        """The frequency with the phase of this clock: quarters of their months, weeks of their weekday."""
        frequency = self.frequency
        modulus = 7 if frequency.unit == "day" else next(n for n in (12, 3, 1) if frequency.count % n == 0)
        if frequency.unit not in ("day", "month") or frequency.count % modulus or modulus == 1:
            return frequency
        return replace(frequency, phase=(modulus, self.first % modulus))

    def numbers(self, instants: Times, local: Times) -> IntArray:
        """The frequency's number of each time."""
        return self.frequency.numbers(instants if self.frequency.unit == "elapsed" else local)

    def instants(self, numbers: npt.ArrayLike) -> Any:
        """The time of each of the frequency's numbers, of universal time where there is a zone."""
        times = self.frequency.times(numbers)
        if self.frequency.unit == "elapsed":
            return times
        return to_universal(times + np.timedelta64(self.time_of_day, "us"), self.zone)

    def steps(self, instants: Times) -> tuple[IntArray, Any]:
        """The step that each time falls into, and whether the time is that of the step."""
        frequency, local = self.frequency, to_local(instants, self.zone)
        numbers = self.numbers(instants, local)
        binned = frequency.binned(numbers, self.first)
        return (binned - self.first) // frequency.count, (self._shown(binned) == local) & frequency.fits(numbers)

    def _shown(self, numbers: npt.ArrayLike) -> Any:
        return to_local(self.instants(numbers), self.zone)

    def at(self, k: npt.ArrayLike) -> Any:
        """The times of steps k as datetime64[us], of universal time where there is a zone."""
        return self.instants(self.first + np.asarray(k, np.int64) * self.frequency.count)

    def local(self, k: npt.ArrayLike) -> Any:
        """The times of steps k as the clocks of the zone show them, datetime64[us]."""
        return to_local(self.at(k), self.zone)

    def seconds(self, k: npt.ArrayLike) -> Float64Array:
        """What clocks show at steps k, as seconds since 1970."""
        seconds: Float64Array = self.local(k).astype(np.int64) / 1e6
        return seconds

    def second(self, k: int) -> float:
        """What ``seconds`` gives for one step, without an array."""
        unit = self.frequency.unit
        if unit == "elapsed":
            instant = self.first + k * self.frequency.count
            return instant / SECOND if self.zone is None else local_second(instant, self.zone)
        if unit == "day" and self.zone is None:
            return ((self.first + k * self.frequency.count) * DAY + self.time_of_day) / SECOND
        start, seconds = self.__dict__.get("_ahead", (0, ()))       # no field: derived, and neither compared nor stored
        if not start <= k < start + len(seconds):
            start, seconds = k, self.seconds(np.arange(k, k + AHEAD)).tolist()
            self.__dict__["_ahead"] = start, seconds
        result: float = seconds[k - start]
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).copy().items() if name != "_ahead"}

    def moved(self, k: int) -> Clock:
        """The clock that starts at step k of this one."""
        return replace(self, first=self.first + int(k) * self.frequency.count)


# ---- Times as they come -------------------------------------------------------------------------

def checked(times: ArrayLike, name: str, least: int = 2) -> Times:
    """Times as datetime64[us], none missing and at least so many."""
    try:
        array = np.asarray(times)
        if array.dtype.kind in "biuf":
            raise TypeError(f"got numbers, dtype {array.dtype}; seconds since 1970 are times as .astype("
                            "'datetime64[s]'), years as text, and steps that are only counted need no times")
        result = array.astype("datetime64[us]")
    except (TypeError, ValueError) as error:
        text = next((each for each in np.asarray(times, object).ravel().tolist() if isinstance(each, str)), None)
        if text is not None:
            raise TypeError(f"{name}: expected dates or times, of text those in ISO 8601 such as '2024-01-31' or "
                            f"'2024-01-31T13:00', got {text!r}; pandas.to_datetime(..., format='%d.%m.%Y') reads "
                            "other formats") from None
        raise TypeError(f"{name}: expected dates or times, {error}") from None
    if result.ndim != 1 or len(result) < least:
        raise ValueError(f"{name}: expected {'two or more' if least == 2 else least} in one dimension, got shape "
                         f"{result.shape}")
    if np.isnat(result).any():
        raise ValueError(f"{name}: one of them is missing (NaT)")
    return result


def with_zone(times: Any) -> tuple[Any, str | None]:
    """Times without their zone, as universal time where they had one, and its name.

    Python's datetimes that know their zone have one, and an index or array of pandas with one; text does where each
    ends in "Z" or an offset. Offsets that differ become "UTC".
    """
    zone = getattr(getattr(times, "dtype", None), "tz", None)
    if zone is not None:                # of pandas
        return np.asarray(times, "datetime64[us]"), zone_name(zone)
    if isinstance(times, np.ndarray) and times.dtype.kind == "M":
        return times, None
    values = np.asarray(times)
    if values.dtype.kind == "O" and values.size and any(getattr(each, "tzinfo", None) for each in values.flat):
        return _zoned_datetimes(values.tolist())
    if values.dtype.kind in "UTO" and values.size and isinstance(values.flat[0], str):
        return parsed(values.tolist())
    return values if values.dtype.kind != "O" else times, None


def parsed(texts: list[Any]) -> tuple[Any, str | None]:
    """Times from text in ISO 8601, without their zone, and its name; texts that repeat are read once."""
    from datetime import datetime
    different: dict[Any, Any] = dict.fromkeys(texts)
    for text in different:
        try:
            different[text] = datetime.fromisoformat(text.strip())
        except (ValueError, AttributeError):
            return np.array(texts), None        # NumPy's own reading, and its message
    if any(value.tzinfo for value in different.values()):
        return _zoned_datetimes([different[text] for text in texts])
    return np.array([different[text] for text in texts], "datetime64[us]"), None


def _zoned_datetimes(values: list[Any]) -> tuple[Any, str | None]:
    if not all(getattr(value, "tzinfo", None) for value in values):
        raise ValueError("times: some have a time zone or an offset and some do not")
    names = {zone_name(zone) for zone in {value.tzinfo for value in values}}
    universal = [value.astimezone(UTC).replace(tzinfo=None) for value in values]
    return np.array(universal, "datetime64[us]"), names.pop() if len(names) == 1 else "UTC"


# ---- Messages -----------------------------------------------------------------------------------

def shown(time: Any) -> str:
    """A time as messages have it: without what is zero at its end."""
    text = str(np.datetime64(time, "us"))
    for end in (".000000", ":00", "T00:00"):
        text = text.removesuffix(end)
    return text


def check_rising(instants: Times, name: str, zone: str | None = None) -> None:
    """Raise ValueError, which shows the times, unless each comes after the one before."""
    gaps = np.diff(instants).astype(np.int64)
    if not len(gaps) or gaps.min() > 0:
        return
    before, after = (shown(time) for time in to_local(instants[[np.argmin(gaps), np.argmin(gaps) + 1]], zone))
    if before == after:
        local = to_local(instants, zone)
        hint = ("when clocks are put back an hour occurs twice, which only a time zone tells apart"
                if zone is None and np.any(local != local.astype("datetime64[D]")) else "give one row for each time")
        if " of series " not in name and np.sum(gaps <= 0) > len(gaps) / 4:
            hint = "where rows are of several series, series= names the column that tells them apart"
        raise ValueError(f"{name}: the time {after} is there twice; {hint}, or resample= with resample='mean' or "
                         "another function makes one row of them")
    raise ValueError(f"{name}: expected each to come after the one before, got {after} after {before}")


def _hint(instants: Times) -> str:
    """What helps with irregular times: a parameter, with a step that suits these."""
    gap = float(np.median(np.diff(instants).astype(np.int64))) / 1e6
    step = next((name for seconds, name in _READABLE if gap <= 2 * seconds), "MS")
    return f"resample={step!r} makes regular steps of them, each the mean of its values"


def _irregular(instants: Times, local: Times, odd: int, name: str) -> str:
    return (f"{name}: expected a regular step (times may be left out), got {shown(local[odd])} and then "
            f"{shown(local[odd + 1])}, no multiple of the shortest step; {_hint(instants)}, and freq= names the step "
            "where the times are regular with many left out")
