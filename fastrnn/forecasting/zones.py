"""Time zones: from universal time to the time on the clocks of a zone, and back, for whole arrays.

The rules come from ``zoneinfo`` of the standard library, which is asked once for the changes of a zone; arrays are then
converted with NumPy. A fixed offset is written as "+02:00".
"""

from __future__ import annotations

import bisect
import functools
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .._base.typing import IntArray

SECOND = 1_000_000                      # in microseconds, the unit of all times inside
_PROBE = 7 * 86_400                     # seconds between two looks for a change of a zone's offset
_EARLIEST, _LATEST = 1, 9998            # years that Python's datetime can express, with room for an offset
_FIXED = re.compile(r"(?:UTC|GMT)?([+-])(\d{2}):?(\d{2})")


def zone_name(zone: tzinfo | str) -> str:
    """The name of a zone as this module takes it: "Europe/Berlin", "UTC" or a fixed offset such as "+02:00"."""
    name = str(getattr(zone, "key", None) or getattr(zone, "zone", None) or zone)
    fixed = _FIXED.fullmatch(name)
    if fixed:
        return "".join((fixed[1], fixed[2], ":", fixed[3]))
    if "zoneinfo/" in name:             # of dateutil: tzfile('/usr/share/zoneinfo/Europe/Berlin')
        name = name.split("zoneinfo/")[-1].strip("')\"")
    return "UTC" if name in ("tzutc()", "Z", "utc") else name


@functools.lru_cache(maxsize=64)
def zone_rules(name: str) -> tzinfo:
    """The rules of a zone by its name; ValueError for a name that is none."""
    fixed = _FIXED.fullmatch(name)
    if fixed:
        offset = timedelta(hours=int(fixed[2]), minutes=int(fixed[3]))
        return timezone(-offset if fixed[1] == "-" else offset)
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"time zone: there is none of the name {name!r} on this machine; where it lacks the database "
                         "of zones, pip install tzdata has it") from None


@functools.lru_cache(maxsize=256)
def _changes(name: str, first: int, last: int) -> tuple[IntArray, IntArray]:
    """The changes of a zone in the years first ... last: their instants [n], and the offsets [n + 1] before, between
    and after them, all in microseconds."""
    rules = zone_rules(name)

    def offset(second: int) -> int:
        instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
        return round((instant.astimezone(rules).utcoffset() or timedelta()).total_seconds())

    begin, end = (int(np.datetime64(f"{year:04d}-01-01", "s").astype(np.int64)) for year in (first, last + 1))
    instants: list[int] = []
    offsets = [offset(begin)]
    if isinstance(rules, timezone):
        end = begin
    for right in [*range(begin + _PROBE, end, _PROBE), end]:
        if offset(right) == offsets[-1]:
            continue
        left = right - _PROBE
        while right - left > 1:         # the change lies in (left, right]
            middle = (left + right) // 2
            left, right = (middle, right) if offset(middle) == offsets[-1] else (left, middle)
        instants.append(right)
        offsets.append(offset(right))
    return np.array(instants, np.int64) * SECOND, np.array(offsets, np.int64) * SECOND


def _changes_of(name: str, times: IntArray) -> tuple[IntArray, IntArray]:
    """The changes of a zone in the decades that some times lie in."""
    years = np.array([times.min(), times.max()]).astype("datetime64[us]").astype("datetime64[Y]").astype(int) + 1970
    first, last = (int(year) for year in np.clip(years, _EARLIEST + 10, _LATEST - 20))
    return _changes(name, first // 10 * 10 - 1, last // 10 * 10 + 10)


def to_local(times: Any, zone: str | None) -> Any:
    """What the clocks of a zone show at instants: datetime64[us] of universal time to datetime64[us] without a zone."""
    instants = np.asarray(times, "datetime64[us]").astype(np.int64)
    if zone is None or not instants.size:
        return instants.astype("datetime64[us]")
    changes, offsets = _changes_of(zone, instants)
    return (instants + offsets[np.searchsorted(changes, instants, "right")]).astype("datetime64[us]")


def to_universal(times: Any, zone: str | None) -> Any:
    """The instants at which the clocks of a zone show some times, as datetime64[us] of universal time.

    Of a time that occurs twice, when clocks are put back, it is the first instant; a time that is skipped, when they
    are put forward, is moved on by what is skipped. So does Python's ``datetime`` with fold=0.
    """
    shown = np.asarray(times, "datetime64[us]").astype(np.int64)
    if zone is None or not shown.size:
        return shown.astype("datetime64[us]")
    changes, offsets = _changes_of(zone, shown)
    ends = changes + np.maximum(offsets[:-1], offsets[1:])      # until then clocks show the time of before a change
    return (shown - offsets[np.searchsorted(ends, shown, "right")]).astype("datetime64[us]")


def local_second(instant: int, zone: str) -> float:
    """What ``to_local`` gives for one instant in microseconds, in seconds."""
    year = 1970 + instant // 31_556_952_000_000
    changes, offsets = _lists(zone, year // 10 * 10 - 1)
    return (instant + offsets[bisect.bisect_right(changes, instant)]) / SECOND


@functools.lru_cache(maxsize=256)
def _lists(name: str, first: int) -> tuple[list[int], list[int]]:
    changes, offsets = _changes(name, first, first + 12)
    return changes.tolist(), offsets.tolist()
