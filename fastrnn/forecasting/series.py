"""Series as a forecaster takes them: arrays or frames in, ``Series`` inside, the caller's kind of table out.

Frames (pandas, polars, pyarrow) are read and made through narwhals, which is imported when a frame comes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.estimator import columns, numbers
from .._base.trees import storable
from .calendar import Clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._base.typing import Array, ArrayLike, Float64Array, IntArray

# ---- Series -------------------------------------------------------------------------------------

@storable
@dataclass
class Series:
    """One series of T steps."""

    y: Float64Array             # values [T], NaN where one is missing
    known: Float64Array         # columns known in advance [T, F], perhaps of later steps too
    past: Float64Array          # columns known up to now [T, P]
    clock: Clock | None = None
    name: object = None

    def __len__(self) -> int:
        return len(self.y)

    def known_to(self, T: int) -> Float64Array:
        """Known columns of T steps; where there are fewer the last row stands for the rest."""
        return self.known[np.minimum(np.arange(T), len(self.known) - 1)]

    def part(self, start: int, stop: int) -> Series:
        """Steps start ... stop-1; what is known of later ones stays known."""
        clock = None if self.clock is None else self.clock.moved(start)
        return replace(self, y=self.y[start:stop], known=self.known[start:], past=self.past[start:stop], clock=clock)

    def extended(self, y: Float64Array) -> Series:
        """The series with more steps at its end, whose past columns are missing."""
        past = np.full((len(y), self.past.shape[1]), np.nan)
        return replace(self, y=np.concatenate([self.y, y]), past=np.concatenate([self.past, past]))

    def knowing(self, known: Float64Array) -> Series:
        """The series with the known columns of the steps that follow it."""
        return replace(self, known=np.concatenate([self.known_to(len(self)), known]))


@storable
@dataclass
class Layout:
    """Which columns of a frame are what; None or empty where there are none."""

    target: tuple[str, ...] | None = None
    time: str | None = None
    series: str | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    backend: str | None = None          # the frame's library, known once one was read

    @property
    def targets(self) -> tuple[str, ...]:
        return self.target or ()


@storable
@dataclass
class Panel:
    """Series, and what kind of table they came in: "one" array [T], "columns" of an array [T, N], a "list" of arrays,
    or a "frame", of which ``layout`` holds the names of columns and the library."""

    series: list[Series]
    kind: str
    layout: Layout | None = None


def read(X: ArrayLike | None, y: ArrayLike | None, past: ArrayLike | None, times: ArrayLike | None,
         layout: Layout) -> Panel:
    """A Panel from the arguments of `fit`: a frame if `layout` names a target, else arrays."""
    if layout.target is not None:
        if not (y is None and past is None and times is None):
            raise ValueError("y, past, times: expected None beside a frame, whose columns the estimator names")
        return _from_frame(X, layout)
    if layout.time or layout.series or layout.known or layout.past:
        raise ValueError("target: expected the name of a column, as others are named; got None")
    return _from_arrays(X, y, past, times)


# ---- Arrays -------------------------------------------------------------------------------------

def _from_arrays(X: ArrayLike | None, y: ArrayLike | None, past: ArrayLike | None, times: ArrayLike | None) -> Panel:
    if y is None:
        X, y = None, X
    if y is None:
        raise TypeError("y: expected an array, got None")
    kind, values = _targets(y)
    lengths = [len(each) for each in values]
    known = shared_columns(X, "X", lengths, kind)
    past_columns = shared_columns(past, "past", lengths, kind)
    series = [Series(*parts) for parts in zip(values, known, past_columns, strict=True)]
    if times is not None and kind != "list":
        series = [_on_clock(each, times, "times") for each in series]
    elif times is not None:
        every: Any = times
        if len(every) != len(series):
            raise ValueError(f"times: expected {len(series)} of them, one a series, got {len(every)}")
        series = [_on_clock(each, every[n], f"times[{n}]") for n, each in enumerate(series)]
    return Panel(series, kind)


def _targets(y: Any) -> tuple[str, list[Float64Array]]:
    """The kind of table that y is, and its series."""
    if isinstance(y, (list, tuple)) and len(y) and np.ndim(y[0]) > 0:
        values = [numbers(each, f"y[{n}]") for n, each in enumerate(y)]
        for n, each in enumerate(values):
            if each.ndim != 1:
                raise ValueError(f"y[{n}]: expected one dimension, got shape {each.shape}")
        return "list", values
    if hasattr(y, "toarray") and hasattr(y, "nnz"):
        raise TypeError("y: sparse input is not supported; make it dense with .toarray()")
    array = numbers(y, "y")
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(f"y: expected one series [T], or one a column [T, N], got shape {array.shape}")
    return ("one", [array]) if array.ndim == 1 else ("columns", list(array.T.copy()))


def shared_columns(X: Any, name: str, lengths: Sequence[int], kind: str) -> list[Float64Array]:
    """Columns [T, F] of each series: of a list one array a series, else one array for all. None: no columns."""
    if X is None:
        return [np.empty((T, 0)) for T in lengths]
    if kind != "list":
        result = [columns(X, name)] * len(lengths)
    elif isinstance(X, (list, tuple)) and len(X) == len(lengths):
        result = [columns(each, f"{name}[{n}]") for n, each in enumerate(X)]
    else:
        raise ValueError(f"{name}: expected a list of {len(lengths)} arrays, one a series, as y is a list")
    for n, (each, T) in enumerate(zip(result, lengths, strict=True)):
        if len(each) != T:
            raise ValueError(f"{name}: expected {T} rows, as many as y has, got {len(each)}"
                             + (f" (series {n})" if kind == "list" else ""))
        if each.shape[1] != result[0].shape[1]:
            raise ValueError(f"{name}: expected {result[0].shape[1]} columns in every series, got {each.shape[1]}")
    return result


def _on_clock(series: Series, times: ArrayLike, name: str) -> Series:
    """The series with its clock; a time left out becomes a step whose values are all missing."""
    if np.shape(times) != (len(series),):
        raise ValueError(f"{name}: expected {len(series)}, one a row of y, got shape {np.shape(times)}")
    clock, at = Clock.of(times, name)
    if at[-1] >= max(1000, 100 * len(at)):
        raise ValueError(f"{name}: between first and last the shortest step fits {at[-1] + 1} times, there are only "
                         f"{len(at)} rows; resample first")

    def spread(values: Float64Array) -> Float64Array:
        full = np.full((at[-1] + 1, *values.shape[1:]), np.nan)
        full[at] = values
        return full

    return Series(spread(series.y), spread(series.known), spread(series.past), clock, series.name)


# ---- Frames -------------------------------------------------------------------------------------

def _narwhals() -> Any:
    try:
        import narwhals.stable.v2 as narwhals
    except ImportError as error:
        raise ImportError("frames need the package narwhals: pip install fastrnn[frames]") from error
    return narwhals


def _frame_columns(frame: Any, layout: Layout, names: Iterable[str]) -> dict[str, Array]:
    """The named columns of a frame as arrays, all of which must be there; times lose their zone and stay local."""
    nw, names = _narwhals(), list(names)
    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(f"X: expected a frame of pandas, polars or pyarrow with the columns {', '.join(names)}, got "
                        f"{type(frame).__name__}") from None
    for name in names:
        if name not in table.columns:
            raise ValueError(f"X: there is no column {name!r}, only {', '.join(map(str, table.columns))}")
    layout.backend = nw.get_native_namespace(table).__name__
    result = {}
    for name in names:
        column = table[name]
        if name == layout.time and column.dtype == nw.String:
            column = column.str.to_datetime()
        if isinstance(column.dtype, nw.Datetime) and column.dtype.time_zone:
            column = column.dt.replace_time_zone(None)
        result[name] = column.to_numpy()
    return result


def _groups(values: dict[str, Array], layout: Layout) -> list[tuple[object, IntArray]]:
    """(name, rows in the order of time) of each series of a long frame, in the order of their first rows."""
    row_count = len(next(iter(values.values())))
    order = np.argsort(values[layout.time], kind="stable") if layout.time else np.arange(row_count)
    if layout.series is None:
        return [(None, order)]
    labels: list[Any] = values[layout.series].tolist()
    if any(label is None or label != label for label in labels):
        raise ValueError(f"{layout.series}: expected the name of its series in every row, one is missing")
    rows: dict[object, list[int]] = {}
    for row in order.tolist():
        rows.setdefault(labels[row], []).append(row)
    return [(name, np.array(rows[name])) for name in dict.fromkeys(labels)]


def _from_frame(frame: Any, layout: Layout) -> Panel:
    names = [*layout.targets, *layout.known, *layout.past, *filter(None, [layout.time, layout.series])]
    if len(layout.targets) > 1 and layout.series:
        raise ValueError("target: expected one column where `series` names another that tells series apart, got "
                         f"{layout.target!r}")
    values, series = _frame_columns(frame, layout, names), []
    for name, rows in _groups(values, layout):
        known, past = _stacked(values, layout.known, rows), _stacked(values, layout.past, rows)
        for target in layout.targets:
            each = Series(numbers(values[target][rows], target), known, past,
                          name=target if len(layout.targets) > 1 else name)
            if layout.time:
                label = layout.time if name is None else f"{layout.time} of series {name!r}"
                each = _on_clock(each, values[layout.time][rows], label)
            series.append(each)
    return Panel(series, "frame", layout)


def _stacked(values: dict[str, Array], names: Sequence[str], rows: IntArray) -> Float64Array:
    """Columns of a frame side by side, [len(rows), len(names)]."""
    return np.stack([numbers(values[name][rows], name) for name in names], 1) if names else np.empty((len(rows), 0))


def known_rows(X: Any, panel: Panel) -> list[Float64Array]:
    """Columns known of the steps that follow each series, [h, F] each, from the X of `predict`."""
    count = len(panel.series)
    if panel.kind == "list":
        if not isinstance(X, (list, tuple)) or len(X) != count:
            raise ValueError(f"X: expected a list of {count} arrays, one a series, as y was a list")
        return [columns(each, f"X[{n}]") for n, each in enumerate(X)]
    if panel.layout is None:
        return [columns(X)] * count
    layout = panel.layout
    values = _frame_columns(X, replace(layout), [*layout.known, *filter(None, [layout.time, layout.series])])
    groups, result = dict(_groups(values, layout)), []
    for series in panel.series:
        rows = groups.get(series.name if layout.series else None)
        if rows is None:
            raise ValueError(f"X: there are no rows of series {series.name!r}")
        if layout.time and series.clock is not None:
            expected = series.clock.at(len(series) + np.arange(len(rows)))
            times = values[layout.time][rows].astype("datetime64[us]")
            if not np.array_equal(expected, times):
                odd = np.argmax(expected != times)
                raise ValueError(f"{layout.time}: expected the steps that follow the series, {expected[odd]}, got "
                                 f"{times[odd]}")
        result.append(np.stack([numbers(values[name][rows], name) for name in layout.known], 1))
    return result


def table(panel: Panel, forecasts: Float64Array, names: Sequence[str] | None = None) -> Any:
    """Forecasts [N, h] or [N, h, Q] as the kind of table that the panel came in; names: of the Q columns of a frame."""
    if panel.kind == "one":
        return forecasts[0]
    if panel.kind == "columns":
        return np.ascontiguousarray(np.swapaxes(forecasts, 0, 1))
    if panel.layout is None:
        return forecasts
    nw, layout, h = _narwhals(), panel.layout, forecasts.shape[1]
    stacked = forecasts[..., None] if names is None else forecasts
    suffixes = [""] if names is None else [f"_{name}" for name in names]
    data: dict[str, Any] = {}
    several = len(layout.targets) > 1
    if layout.series:
        data[layout.series] = [series.name for series in panel.series for _ in range(h)]
    if layout.time:
        ahead = [series.clock.at(len(series) + np.arange(h)) for series in panel.series if series.clock is not None]
        data[layout.time] = ahead[0] if several else np.concatenate(ahead)
    for n, target in enumerate(layout.targets):
        for q, suffix in enumerate(suffixes):
            data[target + suffix] = stacked[n, :, q] if several else stacked[..., q].ravel()
    data = {name: values if isinstance(values, list) else np.ascontiguousarray(values) for name, values in data.items()}
    return nw.from_dict(data, backend=layout.backend).to_native()


# ---- Names of columns ---------------------------------------------------------------------------

def check_names(value: str | Sequence[str] | None, name: str) -> tuple[str, ...]:
    """A tuple of column names, from None, one or several."""
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else tuple(value)
    for each in names:
        if not isinstance(each, str):
            raise TypeError(f"{name}: expected names of columns, got {type(each).__name__}")
    return names


def check_name(value: str | None, name: str) -> str | None:
    """A column name, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected the name of a column, got {type(value).__name__}")
    return value
