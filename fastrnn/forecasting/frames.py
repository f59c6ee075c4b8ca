"""Columns of frames as arrays, and arrays as columns: pandas, polars and pyarrow, through narwhals.

Times become instants (datetime64[us], of universal time where they have a zone) beside a ``TimeKind``, which says what
they came as, so that results have the same.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.estimator import numbers
from .._base.trees import storable
from . import calendar
from .frequency import Frequency
from .zones import zone_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._base.typing import Float64Array, IntArray
    from .frequency import Times

_PERIODS = {"A": ("month", 12), "Y": ("month", 12), "Q": ("month", 3), "M": ("month", 1), "W": ("day", 7),
            "D": ("day", 1), "B": ("weekday", 1)}


@storable
@dataclass(frozen=True)
class TimeKind:
    """What times came as: "datetime" of a unit and perhaps a zone, "date", "period" of a frequency of pandas, or
    "timedelta", which is kept as if it were counted from 1970 on."""

    kind: str = "datetime"
    unit: str = "us"
    zone: str | None = None
    period: str | None = None
    freq: str | None = None             # the name of the frequency that an index of pandas has

    @property
    def frequency(self) -> Frequency | None:
        """The frequency that periods say, or an index; None for other times, whose frequency is found."""
        if self.period is None:
            with contextlib.suppress(ValueError):       # of a kind that is pandas' alone
                return None if self.freq is None else Frequency.named(self.freq)
            return None
        digits = self.period[:len(self.period) - len(self.period.lstrip("0123456789"))]
        name = self.period[len(digits):].partition("-")[0]
        if name not in _PERIODS:
            return Frequency.named(digits + name)
        unit, count = _PERIODS[name]
        return Frequency(unit, count * int(digits or 1), (1,) if unit == "month" else ())


_ISO = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}.*)?)?$")


def narwhals() -> Any:
    """The module narwhals; ImportError, which says how to get it, where it is missing."""
    try:
        import narwhals.stable.v2 as module
    except ImportError as error:
        raise ImportError("frames need the package narwhals: pip install fastrnn[frames]") from error
    return module


# ---- In -----------------------------------------------------------------------------------------

def opened(frame: Any, name: str = "X", wanted: Iterable[str] = ()) -> Any:
    """A frame as narwhals has it; TypeError for what is none, ValueError where a wanted column is not there."""
    wanted = list(wanted)
    names = list(getattr(frame, "column_names", getattr(frame, "columns", ())))     # pyarrow's `columns` are data
    if len(set(map(str, names))) < len(names):
        twice = next(each for n, each in enumerate(names) if str(each) in map(str, names[:n]))
        raise ValueError(f"{name}: expected names of columns that all differ, {twice!r} is there twice")
    try:
        table = narwhals().from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(f"{name}: expected a frame of pandas, polars or pyarrow with the columns {', '.join(wanted)}, "
                        f"got {type(frame).__name__}") from None
    for column in wanted:
        if column not in table.columns:
            raise ValueError(f"{name}: there is no column {column!r}, only {', '.join(map(str, table.columns))}")
    return table


def backend_of(table: Any) -> str:
    """The name of a frame's library."""
    return str(narwhals().get_native_namespace(table).__name__)


def number_column(table: Any, name: str) -> Float64Array:
    """A column of numbers as float64, NaN where one is missing (null, None, NaN, NA)."""
    nw, column = narwhals(), table[name]
    if column.dtype in (nw.Date, nw.Datetime, nw.Duration, nw.Time):
        raise TypeError(f"{name}: expected numbers, got times, dtype {column.dtype}")
    native = column.to_native()
    if hasattr(native, "dtype") and hasattr(native.dtype, "na_value") and hasattr(native, "to_numpy"):
        try:                                    # of pandas, which may be one with missing values (Int64, boolean)
            return numbers(native.to_numpy(dtype=np.float64, na_value=np.nan), name)
        except (TypeError, ValueError):
            pass                                # as objects, whose message is our own
    values = column.to_numpy()
    if values.dtype.kind == "O":
        missing = column.is_null().to_numpy().astype(bool)
        if missing.any():
            values = np.where(missing, None, values)
    try:
        return numbers(values, name)
    except (TypeError, ValueError):
        if column.dtype in (nw.String, nw.Categorical, nw.Enum, nw.Object):
            raise TypeError(f"{name}: expected numbers, got text or objects such as {_no_number(values)!r}; a known, "
                            f"past or static column of categories is named by categorical={name!r}, too") from None
        raise


def _no_number(values: Any) -> Any:
    """The first value that is no number."""
    for value in values.tolist():
        try:
            float(np.nan if value is None else value)
        except (TypeError, ValueError):
            return value
    return values[0]


def time_column(table: Any, name: str) -> tuple[Times, TimeKind]:
    """A column of times as instants, and what they came as."""
    nw, column = narwhals(), table[name]
    if column.is_null().any():
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(f"{name}: expected a time in every row, the one of row {row} is missing")
    dtype = column.dtype
    if dtype == nw.Datetime:
        kind = TimeKind("datetime", dtype.time_unit, None if dtype.time_zone is None else zone_name(dtype.time_zone))
        return column.dt.timestamp("us").to_numpy().astype(np.int64).astype("datetime64[us]"), kind
    if dtype == nw.Date:
        return column.to_numpy().astype("datetime64[us]"), TimeKind("date")
    if dtype == nw.Duration:
        spans = column.to_numpy().astype("timedelta64[us]").view("datetime64[us]")
        return spans, TimeKind("timedelta", dtype.time_unit)
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return _times(column.cast(nw.String).to_list(), name)
    native = column.to_native()
    if str(getattr(native, "dtype", "")).startswith("period"):
        return _periods(native.array)
    return _times(native.tolist() if dtype == nw.Object or dtype == nw.Unknown else column.to_numpy(), name)


def index_times(index: Any, name: str) -> tuple[Times, TimeKind] | None:
    """The times of an index of pandas, and what they are; None for an index of something else.

    It is a DatetimeIndex, a PeriodIndex, a TimedeltaIndex, or one of dates or of text in ISO 8601.
    """
    kind = type(index).__name__
    if kind == "PeriodIndex":
        return _periods(index.array)
    if kind == "TimedeltaIndex":
        spans = index.to_numpy().astype("timedelta64[us]").view("datetime64[us]")
        return calendar.checked(spans, name, least=0), TimeKind("timedelta", index.unit)
    if kind == "Index" and len(index) and index.inferred_type in ("date", "datetime", "string"):
        if index.inferred_type == "string" and not all(_ISO.match(text) for text in index):
            return None
        return _times(index.to_numpy(), name)
    if kind != "DatetimeIndex":
        return None
    zone = None if index.tz is None else zone_name(index.tz)
    instants = (index if index.tz is None else index.tz_convert("UTC").tz_localize(None)).to_numpy()
    return calendar.checked(instants, name, least=0), TimeKind("datetime", index.unit, zone, freq=index.freqstr)


def array_times(times: Any, name: str) -> tuple[Times, TimeKind]:
    """Times in any array_like as instants, and what they are."""
    if hasattr(times, "index") and hasattr(times, "array"):         # a Series of pandas
        times = times.array
    if type(times).__name__ in ("PeriodArray", "PeriodIndex"):
        return _periods(getattr(times, "array", times))
    if type(times).__module__.partition(".")[0] == "polars":
        table = narwhals().from_native(times, series_only=True).to_frame()
        return time_column(table, table.columns[0])
    return _times(times, name)


def _times(values: Any, name: str) -> tuple[Times, TimeKind]:
    try:
        instants, zone = calendar.with_zone(values)
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).partition(': ')[2] or error}") from None
    unit = getattr(getattr(values, "dtype", None), "unit", "us")
    dates = len(values) and type(values[0]) is date and all(type(each) is date for each in values)
    return calendar.checked(instants, name, least=0), TimeKind("date" if dates else "datetime", unit, zone)


def _periods(array: Any) -> tuple[Times, TimeKind]:
    if array.isna().any():
        raise ValueError("times: one of them is missing (NaT)")
    return np.asarray(array.to_timestamp(how="start"), "datetime64[us]"), TimeKind("period", period=array.freqstr)


def label_column(table: Any, name: str) -> tuple[IntArray, list[Any]]:
    """A column of names as codes, from 0 in the order of the first rows, and the name of each code."""
    missing = table[name].is_null()
    if missing.any():
        row = int(np.argmax(missing.to_numpy()))
        raise ValueError(f"{name}: expected a name in every row, the one of row {row} is missing")
    return _labels(table, name)


def category_column(table: Any, name: str) -> tuple[IntArray, list[Any]]:
    """A column of categories as codes, -1 where one is missing, and the category of each code."""
    observed = ~table[name].is_null().to_numpy().astype(bool)
    if observed.all():
        return _labels(table, name)
    codes = np.full(len(observed), -1, np.int64)
    codes[observed], labels = _labels(table.select(name).filter(observed.tolist()), name)
    return codes, labels


def _labels(table: Any, name: str) -> tuple[IntArray, list[Any]]:
    native, library = table[name].to_native(), backend_of(table)
    if library == "pandas":
        import pandas
        codes, labels = pandas.factorize(native)
        return np.asarray(codes, np.int64), labels.tolist()
    if library == "pyarrow":
        chunks: Any = native.combine_chunks() if hasattr(native, "combine_chunks") else native
        encoded = chunks if hasattr(chunks, "indices") else chunks.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return _by_first_row(codes, encoded.dictionary.to_pylist())
    import polars
    labels = native.unique(maintain_order=True)
    codes = native.replace_strict(labels, polars.Series(np.arange(len(labels))))
    return codes.to_numpy().astype(np.int64), labels.to_list()


def _by_first_row(codes: IntArray, labels: list[Any]) -> tuple[IntArray, list[Any]]:
    """Codes and labels renumbered in the order of first rows."""
    present, rows = np.unique(codes, return_index=True)
    order = present[np.argsort(rows)]
    renumbered = np.empty(len(labels), np.int64)
    renumbered[order] = np.arange(len(order))
    return renumbered[codes], [labels[code] for code in order.tolist()]


# ---- Out ----------------------------------------------------------------------------------------

def times_out(instants: Times, kind: TimeKind, backend: str) -> Any:
    """Instants as the column of a library that they came as."""
    if backend == "pandas":
        return pandas_index(instants, kind)
    nw = narwhals()
    column = nw.new_series("time", np.ascontiguousarray(instants), backend=backend)
    if kind.kind == "date":
        return column.cast(nw.Date)
    if kind.kind == "timedelta":
        spans = np.ascontiguousarray(instants).view("timedelta64[us]")
        return nw.new_series("time", spans, backend=backend).cast(nw.Duration(kind.unit))
    if kind.zone is None:
        return column.cast(nw.Datetime(kind.unit))
    zoned = column.dt.replace_time_zone("UTC").dt.convert_time_zone(kind.zone)
    return zoned.cast(nw.Datetime(kind.unit, kind.zone))


def pandas_index(instants: Times, kind: TimeKind, name: Any = None, frequency: Frequency | None = None) -> Any:
    """Instants as an index of pandas: a DatetimeIndex, with its frequency where pandas has it, or a PeriodIndex."""
    import pandas
    if kind.kind == "timedelta":
        return pandas.TimedeltaIndex(instants.view("timedelta64[us]"), name=name).as_unit(kind.unit)
    index = pandas.DatetimeIndex(instants, name=name)
    if kind.period is not None:
        return index.to_period(kind.period)
    if kind.kind == "date":
        return pandas.Index(index.date, name=name)
    index = index.as_unit(kind.unit)
    if kind.zone is not None:
        index = index.tz_localize("UTC").tz_convert(kind.zone)
    if frequency is not None:
        with contextlib.suppress(ValueError):           # a frequency that pandas has not
            index.freq = frequency.name
    return index
