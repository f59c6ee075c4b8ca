"""Times as tables write them, and back: ISO 8601, other orders of day and month, 12-hour clocks, Unix times, periods.

``read`` gives a ``TimeColumn``: times, and how the file writes them, so that forecasts are dated in the same way (with
the same offset or Z).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["UNITS", "TimeColumn", "TimeFault", "TimeStyle", "iso_times", "read"]

Times = npt.NDArray[np.datetime64]

UNITS = {"s": 1_000_000, "ms": 1000, "us": 1, "ns": 0.001, "excel": 86_400_000_000}     # microseconds
EPOCHS = {"excel": np.datetime64("1899-12-30", "us")}
UNIX = np.datetime64("1970-01-01", "us")
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EXAMPLE = "a time such as 2024-01-31 or 2024-01-31T13:00"
PRECISIONS = ("D", "m", "s", "ms", "us")

_OFFSET = re.compile(r"\s?(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$", re.IGNORECASE)
_TIME = re.compile(r"""
    (?P<first>\d{1,4}) (?P<mark>[-/.]) (?P<second>\d{1,2}) (?P=mark) (?P<third>\d{4}|\d{1,2})
    (?: (?P<between> \s*[T,\s]\s* ) (?P<hour>\d{1,2}) : (?P<minute>\d\d)
        (?: : (?P<seconds>\d\d) (?: [.,] (?P<fraction>\d{1,9}) )? )? \s? (?P<half>[AP]\.?M\.?)? )?
    (?P<offset> \s? (?: Z | UTC | GMT | [+-]\d\d(?::?\d\d)? ) )?""", re.VERBOSE | re.IGNORECASE)
_PERIODS = {                                            # months and years, and how they are written
    "%Y": re.compile(r"(?P<year>[12]\d{3})"),
    "%Y-%m": re.compile(r"(?P<year>[12]\d{3})-(?P<month>\d\d)"),
    "%Y/%m": re.compile(r"(?P<year>[12]\d{3})/(?P<month>\d\d)"),
    "%Y%m": re.compile(r"(?P<year>(?:19|20)\d{2})(?P<month>0[1-9]|1[0-2])"),
    "%YQ%q": re.compile(r"(?P<year>[12]\d{3})Q(?P<quarter>[1-4])"),
    "%Y-Q%q": re.compile(r"(?P<year>[12]\d{3})-Q(?P<quarter>[1-4])"),
}
_COMPACT = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_WORDED = [date + time for time in ("", " %H:%M", " %H:%M:%S") for date in (
    "%d-%b-%Y", "%d %b %Y", "%d/%b/%Y", "%d %B %Y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y")] + [
    "%b %Y", "%B %Y", "%b-%Y", "%Y %b", "%Y-%b", "%Y %B", "%m/%Y", "%m.%Y", "%m-%Y"]    # names of months in English
_DATE_ORDERS = {"ymd": "%Y{0}%m{0}%d", "dmy": "%d{0}%m{0}%Y", "mdy": "%m{0}%d{0}%Y"}


class TimeFault(ValueError):
    """A cell that is no time; ``row`` says which one. Rows are counted from 0."""

    def __init__(self, row: int, fault: str) -> None:
        super().__init__(fault)
        self.row = row


@dataclass(frozen=True)
class TimeStyle:
    """How a column writes its times.

    Attributes
    ----------
    format : str
        As ``strftime`` has it, without a fraction of a second and without an offset; or a unit of ``UNITS``. %q is the
        quarter.
    precision : str
        The unit of the last figure that is written: "D", "m", "s", "ms", "us".
    offset : str
        What follows every time: an offset from UTC, Z, or nothing.
    shifted : bool
        Whether the times that are to be written are in UTC, and not in the time of the offset.
    """

    format: str
    precision: str = "D"
    offset: str = ""
    shifted: bool = False

    def texts(self, times: Times) -> list[str]:
        """Times as the column writes them."""
        if self.format in UNITS:
            return [_epoch_text(time, self.format) for time in times.astype("datetime64[us]")]
        shift = _shift(self.offset) if self.shifted else np.timedelta64(0, "us")
        local = (times.astype("datetime64[us]") + shift).tolist()
        return [self._text(time) + self.offset for time in local]

    def _text(self, time: datetime.datetime) -> str:
        text = time.strftime(self.format.replace("%q", str((time.month + 2) // 3)).replace("%Y", f"{time.year:04d}"))
        if self.precision == "D" and time.time() != datetime.time() and "%H" not in self.format + "%I":
            return time.isoformat(" ")          # finer than anything that the column has written
        if self.precision in ("ms", "us"):
            text += f".{time.microsecond:06d}"[:4 if self.precision == "ms" else 7]
        return text


def _epoch_text(time: np.datetime64, unit: str) -> str:
    value = int((time - EPOCHS.get(unit, UNIX)).astype(np.int64))
    if unit == "ns":
        return f"{value}000"
    whole, rest = divmod(value, int(UNITS[unit]))
    return str(whole) if not rest else f"{value / UNITS[unit]:.10g}" if unit == "excel" else repr(value / UNITS[unit])


def _shift(offset: str) -> np.timedelta64:
    """An offset such as +01:00 as a span of time."""
    match = re.search(r"([+-])(\d\d):?(\d\d)?$", offset)
    if match is None:
        return np.timedelta64(0, "us")
    minutes = 60 * int(match[2]) + int(match[3] or 0)
    return np.timedelta64(60_000_000 * (minutes if match[1] == "+" else -minutes), "us")


@dataclass(frozen=True)
class TimeColumn:
    """The times of a column, the cells they were read from, and how they are written.

    ``note`` says how they were read, where another reading was thinkable.
    """

    values: Times
    cells: list[str]
    style: TimeStyle
    note: str | None = None


# ---- Reading ------------------------------------------------------------------------------------

def read(cells: Sequence[Any] | npt.NDArray[Any], date_format: str | None = None) -> TimeColumn:
    """Read a column of times.

    Parameters
    ----------
    cells : sequence
        Texts, numbers, or the values of a frame.
    date_format : str, optional
        How they are written, as ``Dialect`` has it; told by the cells if not given.

    Raises
    ------
    TimeFault
        A cell is no time, or may be two different ones.
    """
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
        values = cells.astype("datetime64[us]")
        if np.isnat(values).any():
            raise TimeFault(int(np.argmax(np.isnat(values))), f"expected {EXAMPLE}, it is missing")
        return TimeColumn(values, iso_times(values), _iso_style(values))
    texts = [_text(cell) for cell in cells]
    if date_format in UNITS:
        return _read_epochs(texts, str(date_format))
    if date_format is not None:
        return _read_format(texts, date_format)
    iso = _read_iso(texts)
    if iso is not None:
        return iso
    if all(re.fullmatch(r"\d{9,19}(\.\d+)?", text) for text in texts):
        return _read_whole_numbers(texts)
    for style, pattern in _PERIODS.items():
        if all(map(pattern.fullmatch, texts)):
            return _read_periods(texts, style, pattern)
    for style in _WORDED:
        if _has_format(texts[0], style):
            column = _read_format(texts, style)
            return TimeColumn(column.values, texts, column.style, f"read as {style}")
    return _read_any_order(texts)


def _has_format(text: str, date_format: str) -> bool:
    try:
        datetime.datetime.strptime(text, date_format)
    except ValueError:
        return False
    return True


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))                   # frames have whole numbers as floats where one is missing
    return str(cell).strip()


def _iso_style(values: Times) -> TimeStyle:
    precision = next((unit for unit in PRECISIONS if (values.astype(f"datetime64[{unit}]") == values).all()), "us")
    return TimeStyle("%Y-%m-%d" + {"D": "", "m": "T%H:%M"}.get(precision, "T%H:%M:%S"), precision)


def _read_iso(texts: list[str]) -> TimeColumn | None:
    """A column of ISO 8601, by the standard library's own reading, which is quick; None if it is something else."""
    try:
        times = [datetime.datetime.fromisoformat(text) for text in texts]
    except ValueError:
        return None
    if all(re.fullmatch(r"\d{4}-W\d\d", text) for text in texts):      # weeks, by their Mondays
        return _column(times, texts, TimeStyle("%G-W%V"))
    longest = max(texts, key=len)
    match = _TIME.fullmatch(longest)
    if match is None or len(match["first"]) < 4:
        if not all(re.fullmatch(r"\d{8}", text) for text in texts):
            return None
        return _column(times, texts, TimeStyle("%Y%m%d"))
    return _column(times, texts, _style(match, "ymd", _offset(texts[-1])))


def _offset(text: str) -> str:
    """The offset at the end of a time, as it is written."""
    match = _OFFSET.search(text) if ":" in text else None
    return match[0] if match else ""


def _column(times: list[datetime.datetime], texts: list[str], style: TimeStyle, note: str | None = None) -> TimeColumn:
    """A column of times that may have offsets from UTC.

    Where all offsets are the same, or all times are at the same time of the day, the values are the times as they are
    written; otherwise they are in UTC, and forecasts get the offset of the last.
    """
    if all(time.tzinfo is None for time in times):
        return TimeColumn(np.array(times, "datetime64[us]"), texts, style, note)
    offsets = {time.utcoffset() for time in times}
    if len(offsets) > 1 and len({time.time() for time in times}) > 1:
        note = f"in several offsets from UTC (without one: in UTC); forecasts get that of the last, {style.offset!r}"
        return TimeColumn(_utc(times), texts, replace(style, shifted=True), note)
    return TimeColumn(np.array([time.replace(tzinfo=None) for time in times], "datetime64[us]"), texts, style, note)


def _utc(times: list[datetime.datetime]) -> Times:
    """Times with an offset converted to UTC; the others as they are."""
    for row, time in enumerate(times):
        if time.tzinfo is not None:
            try:
                times[row] = time.astimezone(datetime.UTC).replace(tzinfo=None)
            except OverflowError:
                raise TimeFault(row, f"expected a year from 1 to 9999 in UTC, got {time}") from None
    return np.array(times, "datetime64[us]")


def _style(match: re.Match[str], order: str, offset: str) -> TimeStyle:
    """The style of a time that was matched."""
    style, precision = _DATE_ORDERS[order].format(match["mark"]), "D"
    if match["hour"]:
        style += match["between"] + ("%I:%M" if match["half"] else "%H:%M")
        precision = "m"
    if match["seconds"]:
        style, precision = style + ":%S", "s"
    if match["fraction"]:
        precision = "ms" if len(match["fraction"]) <= 3 else "us"
    if match["half"]:
        style, precision = style + " %p", "s" if match["seconds"] else "m"
    return TimeStyle(style, precision, offset)


def _read_epochs(texts: list[str], unit: str) -> TimeColumn:
    values = np.empty(len(texts), "datetime64[us]")
    for row, text in enumerate(texts):
        whole, _, fraction = text.partition(".")
        if not re.fullmatch(r"-?\d{1,19}", whole) or (fraction and not fraction.isdecimal()):
            raise TimeFault(row, f"expected a number of --date-format {unit}, got {text!r:.80}")
        scale = UNITS[unit]
        count = int(whole) // 1000 if unit == "ns" else int(whole) * int(scale) + (
            round(float(f"0.{fraction}") * scale) if fraction else 0)
        if abs(count) > 7000 * 365 * UNITS["excel"]:            # no year before 1 or after 9999
            raise TimeFault(row, f"expected a time within 7000 years, got {text!r:.80}")
        values[row] = EPOCHS.get(unit, UNIX) + np.timedelta64(count, "us")
    return TimeColumn(values, texts, TimeStyle(unit, "us"))


def _read_whole_numbers(texts: list[str]) -> TimeColumn:
    """Whole numbers as dates without marks (2024013113), else as seconds, ms, us or ns since 1970, by their size."""
    for width, style in _COMPACT.items():
        if width > 8 and all(len(text) == width for text in texts):
            try:
                column = _read_format(texts, style)
            except TimeFault:
                break
            return TimeColumn(column.values, texts, column.style, f"read as {style}")
    largest = max(int(text.partition(".")[0]) for text in texts)
    unit = next((unit for unit, limit in (("s", 10**11), ("ms", 10**14), ("us", 10**17)) if largest < limit), "ns")
    column = _read_epochs(texts, unit)
    return TimeColumn(column.values, texts, column.style, f"read as {UNIT_NAMES[unit]} since 1970")


def _read_periods(texts: list[str], style: str, pattern: re.Pattern[str]) -> TimeColumn:
    values = np.empty(len(texts), "datetime64[us]")
    for row, text in enumerate(texts):
        match = pattern.fullmatch(text)
        parts = match.groupdict() if match else {}
        month = int(parts.get("month") or 3 * int(parts.get("quarter") or 1) - 2)
        if not 1 <= month <= 12:
            raise TimeFault(row, f"expected a month from 01 to 12, got {text!r}")
        values[row] = np.datetime64(f"{parts['year']}-{month:02d}", "us")
    return TimeColumn(values, texts, TimeStyle(style))


def _read_format(texts: list[str], date_format: str) -> TimeColumn:
    """A column of times in a format of ``strptime``."""
    times = []
    for row, text in enumerate(texts):
        try:
            times.append(datetime.datetime.strptime(text, date_format))
        except ValueError:
            raise TimeFault(row, f"expected a time in the format {date_format}, got {text!r:.80}") from None
    style, offset = date_format, ""
    if style.endswith("%z") and (match := _OFFSET.search(texts[-1])):
        style, offset = style.removesuffix("%z").rstrip(), match[0]
    return _column(times, texts, TimeStyle(style, "s", offset))


def _read_any_order(texts: list[str]) -> TimeColumn:
    """Dates in figures, in whatever order, with or without a time of day."""
    matches = []
    for row, text in enumerate(texts):
        match = _TIME.fullmatch(text)
        if match is None:
            raise TimeFault(row, f"expected {EXAMPLE}, got {text!r:.80}; --date-format says how times are written")
        matches.append(match)
    order = _order(matches, texts)
    times = []
    for row, match in enumerate(matches):
        try:
            times.append(_time(match, order))
        except (ValueError, OverflowError):
            raise TimeFault(row, f"there is no such time as {texts[row]!r}"
                            + ("" if order == "ymd" else f", read as {_DATE_ORDERS[order].format(match['mark'])}")
                            ) from None
    longest = max(range(len(texts)), key=lambda row: len(texts[row]))
    style = _style(matches[longest], order, _offset(texts[-1]))
    return _column(times, texts, style, None if order == "ymd" else f"read as {style.format}")


def _order(matches: list[re.Match[str]], texts: list[str]) -> str:
    """The order of year, month and day in a column: the one in which every date exists."""
    for row, match in enumerate(matches):
        if (len(match["first"]) == 4) == (len(match["third"]) == 4):
            raise TimeFault(row, f"{texts[row]!r} has no year of four figures: --date-format says which part is the "
                                 "year, as in %d.%m.%y")
    if all(len(match["first"]) == 4 for match in matches):
        return "ymd"
    for row, match in enumerate(matches):
        if len(match["first"]) > 2:
            raise TimeFault(row, f"{texts[row]!r} begins with another part of the date than {texts[0]!r}")
    day_first = next((row for row, match in enumerate(matches) if int(match["first"]) > 12), None)
    month_first = next((row for row, match in enumerate(matches) if int(match["second"]) > 12), None)
    if day_first is not None and month_first is not None:
        raise TimeFault(max(day_first, month_first), f"{texts[day_first]!r} has the day first, {texts[month_first]!r} "
                                                     "the month")
    if day_first is None and month_first is None and matches[0]["mark"] != ".":       # points: day first everywhere
        mark = matches[0]["mark"]
        formats = [_DATE_ORDERS[order].format(mark) for order in ("dmy", "mdy")]
        raise TimeFault(0, f"{texts[0]!r} may have the day or the month first: --date-format {' or '.join(formats)} "
                           "says which (with the time of day, if there is one)")
    return "dmy" if month_first is None else "mdy"


_PARTS: dict[str, Callable[[re.Match[str]], tuple[str, str, str]]] = {
    "ymd": lambda match: (match["first"], match["second"], match["third"]),
    "dmy": lambda match: (match["third"], match["second"], match["first"]),
    "mdy": lambda match: (match["third"], match["first"], match["second"]),
}


def _time(match: re.Match[str], order: str) -> datetime.datetime:
    """The time that was matched; ValueError if there is no such time."""
    year, month, day = map(int, _PARTS[order](match))
    hour, minute = int(match["hour"] or 0), int(match["minute"] or 0)
    if match["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + 12 * (match["half"][0] in "pP")
    next_day = hour == 24 and minute == 0 and not int(match["seconds"] or 0)        # 24:00 ends a day
    time = datetime.datetime(year, month, day, 0 if next_day else hour, minute, int(match["seconds"] or 0),
                             int((match["fraction"] or "0")[:6].ljust(6, "0")))
    if match["offset"]:
        seconds = int(_shift(match["offset"]) / np.timedelta64(1, "s"))
        time = time.replace(tzinfo=datetime.timezone(datetime.timedelta(seconds=seconds)))
    return time + datetime.timedelta(days=next_day)


# ---- Writing ------------------------------------------------------------------------------------

def iso_times(times: Times) -> list[str]:
    """Times as ISO 8601, in the coarsest unit that loses nothing."""
    for unit in ("D", "m", "s", "ms"):
        if (times.astype(f"datetime64[{unit}]") == times).all():
            return list(np.datetime_as_string(times, unit).tolist())
    return list(np.datetime_as_string(times).tolist())
