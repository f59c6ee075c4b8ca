"""Series as a forecaster takes them: arrays or frames in, ``Series`` inside, the caller's kind of table out.

Rows of a frame may come in any order: they are sorted by time within each series. ``frames`` reads and makes columns,
``timeline`` finds the clocks of a panel, ``resample`` makes steps of irregular times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.estimator import columns, numbers
from .._base.trees import storable
from . import frames
from .calendar import Clock
from .categories import embedded
from .frames import TimeKind
from .resample import Resampling, bins
from .timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import ArrayLike, Float64Array, IntArray
    from .frequency import Frequency, Times

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
    static: Float64Array | None = None      # columns that do not change with time [S], NaN where one is missing
    skipped: int = 0            # rows before the first step, which were cut off

    def __len__(self) -> int:
        return len(self.y)

    def known_to(self, T: int) -> Float64Array:
        """Known columns of T steps; where there are fewer the last row stands for the rest."""
        return self.known[np.minimum(np.arange(T), len(self.known) - 1)]

    def part(self, start: int, stop: int) -> Series:
        """Steps start ... stop-1; what is known of later ones stays known."""
        if start == 0 and stop == len(self):
            return self
        clock = None if self.clock is None else self.clock.moved(start)
        return replace(self, y=self.y[start:stop], known=self.known[start:], past=self.past[start:stop], clock=clock,
                       skipped=self.skipped + start)

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
    """Which columns of a frame are what, None or empty where there are none; and how times are taken."""

    target: tuple[str, ...] | None = None
    time: str | None = None
    series: str | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()       # which of those three are categories
    categories: dict[str, Any] = field(default_factory=dict)    # of each of these, in the order that fit has seen
    resampling: Resampling = field(default_factory=Resampling)
    backend: str | None = None          # the frame's library, known once one was read
    times: TimeKind | None = None       # what the times came as
    indexed: bool = False               # the times are the frame's index
    index_name: Any = None              # the name of that index
    counted: tuple[int, int] | None = None      # first number and step of an index of whole numbers, beside arrays
    clock: Clock | None = None          # of series that these rows follow: their frequency need not be found

    @property
    def targets(self) -> tuple[str, ...]:
        return self.target or ()


@storable
@dataclass
class Panel:
    """Series, and what kind of table they came in.

    ``kind`` is "one" array [T], "columns" of an array [T, N], a "list" of arrays, or a "frame". ``layout`` has the
    names of a frame's columns; beside the other kinds it is there where series came with an index of pandas, which
    forecasts then have, too: ``layout.target`` are the names of the columns, or of the one Series.
    """

    series: list[Series]
    kind: str
    layout: Layout | None = None
    categories: dict[str, Any] = field(default_factory=dict)    # of columns that are categories, as fit has seen them
    columns: dict[str, Sequence[str]] = field(default_factory=dict, init=False)     # names of "static", "past", "known"

    def with_series(self, series: list[Series], kind: str | None = None) -> Panel:
        """Other series with the same columns, perhaps in another kind of table."""
        other = Panel(series, kind or self.kind, self.layout, self.categories)
        other.columns = self.columns
        return other


def read(X: Any, y: Any, past: ArrayLike | None, times: Any, layout: Layout, static: Any = None) -> Panel:
    """A Panel from the arguments of `fit`: a frame if `layout` names a target, else arrays."""
    if layout.target is not None:
        if X is None and hasattr(y, "columns"):
            X, y = y, None
        if not (y is None and past is None and times is None and static is None):
            raise ValueError("y, past, times, static: expected None beside a frame, whose columns the estimator names")
        return _from_frame(X, layout)
    if layout.time or layout.series or layout.known or layout.past or layout.static or layout.categorical:
        raise ValueError("target: expected the name of a column, as others are named; got None")
    panel = _from_arrays(X, y, past, times, layout)
    if static is not None:
        rows, panel.columns["static"] = static_rows(static, len(panel.series), layout.categories)
        panel.categories = layout.categories
        panel.series = [replace(each, static=row) for each, row in zip(panel.series, rows, strict=True)]
    return panel


# ---- Rows of series, one after another ----------------------------------------------------------

@dataclass
class Rows:
    """The rows of N series, one series after another, and by time within each where there are times."""

    y: Float64Array                     # [rows]
    known: Float64Array                 # [rows, F]
    past: Float64Array                  # [rows, P]
    starts: IntArray                    # the first row of each series, and the number of rows [N + 1]
    instants: Times | None = None

    def series(self, names: Sequence[str], labels: Sequence[object], times: TimeKind | None, resampling: Resampling,
               clock: Clock | None = None) -> list[Series]:
        """Series on their clocks; a step without a row has missing values. `names` are what messages call the times."""
        if self.instants is None:
            if resampling.frequency is not None:
                raise ValueError("freq, resample: they need times: name their column with time=, or give times=")
            cuts = self.starts.tolist()
            return [Series(self.y[a:b], self.known[a:b], self.past[a:b], None, label)
                    for a, b, label in zip(cuts[:-1], cuts[1:], labels, strict=True)]
        zone = None if times is None else times.zone
        rows, instants, frequency = self, self.instants, resampling.frequency
        if resampling.function is not None and frequency is not None:
            rows, instants = self._resampled(instants, frequency, resampling.function, zone)
        elif frequency is None and times is not None:
            frequency = times.frequency
        line = timeline(instants, rows.starts, names, zone, frequency, clock)
        ends = np.cumsum(line.lengths)
        full = rows
        if ends[-1] > len(instants):
            at, T = line.steps + np.repeat(ends - line.lengths, np.diff(rows.starts)), int(ends[-1])
            full = Rows(_spread(rows.y, at, T, resampling.fill), _spread(rows.known, at, T, np.nan),
                        _spread(rows.past, at, T, np.nan), rows.starts)
        cuts = [0, *ends.tolist()]
        return [Series(full.y[a:b], full.known[a:b], full.past[a:b], clock, label)
                for a, b, clock, label in zip(cuts[:-1], cuts[1:], line.clocks, labels, strict=True)]

    def _resampled(self, instants: Times, frequency: Frequency, function: str,
                   zone: str | None) -> tuple[Rows, Times]:
        groups = bins(instants, self.starts, frequency, zone)
        return Rows(groups.reduced(self.y, function), groups.reduced(self.known, "mean"),
                    groups.reduced(self.past, "mean"), groups.starts), groups.instants


def _spread(values: Float64Array, at: IntArray, length: int, fill: float) -> Float64Array:
    full = np.full((length, *values.shape[1:]), fill)
    full[at] = values
    return full


# ---- Arrays -------------------------------------------------------------------------------------

def _from_arrays(X: Any, y: Any, past: ArrayLike | None, times: Any, layout: Layout) -> Panel:
    if y is None:
        X, y = None, X
    if y is None:
        raise TypeError("y: expected an array, got None")
    indexed = _index_of(y, layout)
    if indexed is not None and times is not None:
        raise ValueError("times: expected None, as y has an index of times")
    if isinstance(y, str):
        raise TypeError(f"y: expected an array, got the text {y!r}; the column of a frame is named in the estimator: "
                        f"RNNForecaster(target={y!r})")
    kind, values = _targets(y)
    lengths = [len(each) for each in values]
    if indexed is not None:
        _check_same_index(X, "X", indexed[0], kind)
        _check_same_index(past, "past", indexed[0], kind)
    known = shared_columns(X, "X", lengths, kind)
    past_columns = shared_columns(past, "past", lengths, kind)
    labels: list[Any] = list(y.columns) if kind == "columns" and hasattr(y, "columns") else [None] * len(values)
    resampling = layout.resampling
    if times is None and indexed is None:
        if resampling.frequency is not None:
            raise ValueError("freq, resample: they need times; give times=, or name a frame's column with time=")
        parts = zip(values, known, past_columns, labels, strict=True)
        return Panel([Series(own, ahead, before, name=label) for own, ahead, before, label in parts], kind,
                     _counted(y, layout))
    layout = replace(layout) if indexed is None else indexed[1]
    instants, layout.times = _times_of_arrays(times, lengths, kind) if indexed is None else (indexed[0], layout.times)
    names = [f"times[{n}]" for n in range(len(values))] if kind == "list" else ["times"] * len(values)
    if indexed is not None:
        names = [name.replace("times", "index of y") for name in names]
    every = np.concatenate(instants)
    rows = Rows(np.concatenate(values), np.concatenate(known), np.concatenate(past_columns),
                np.concatenate([[0], np.cumsum(lengths)]), every)
    if resampling.function is not None or layout.indexed:
        rows = _sorted(rows, every)
    return Panel(rows.series(names, labels, layout.times, resampling, layout.clock), kind,
                 layout if layout.indexed else None)


def _sorted(rows: Rows, instants: Times) -> Rows:
    """Rows by time within each series."""
    order = _order(np.repeat(np.arange(len(rows.starts) - 1), np.diff(rows.starts)), instants)
    return rows if order is None else Rows(rows.y[order], rows.known[order], rows.past[order], rows.starts,
                                           instants[order])


def _times_of_arrays(times: Any, lengths: list[int], kind: str) -> tuple[list[Times], TimeKind]:
    """The times of each series, and what they are: one array for all, or beside a list of series a list of them."""
    if kind != "list":
        every, names = [times], ["times"]
    else:
        every, names = list(times), [f"times[{n}]" for n in range(len(lengths))]
        if len(every) != len(lengths):
            raise ValueError(f"times: expected {len(lengths)} of them, one a series, got {len(every)}")
    instants, zones, first = [], set(), TimeKind()
    for each, name, T in zip(every, names, lengths, strict=False):
        if np.shape(each) != (T,):
            raise ValueError(f"{name}: expected {T}, one a row of y, got shape {np.shape(each)}")
        values, first = frames.array_times(each, name)
        instants.append(values)
        zones.add(first.zone)
    if len(zones) > 1:
        raise ValueError(f"times: expected one time zone for all series, got {', '.join(sorted(map(str, zones)))}")
    return (instants if kind == "list" else instants * len(lengths)), first


def _index_of(y: Any, layout: Layout) -> tuple[list[Times], Layout] | None:
    """The times in the index of y, a Series or DataFrame of pandas or a list of Series, and a layout that says so."""
    every = y if isinstance(y, (list, tuple)) and len(y) else [y]
    instants: list[Times] = []
    for n, each in enumerate(every):
        index = getattr(each, "index", None)
        if type(index).__name__ == "MultiIndex":
            raise TypeError("y: an index of several levels is not supported; make columns of them with reset_index() "
                            "and name these: RNNForecaster(target=..., time=..., series=...)")
        times = None if index is None or callable(index) else frames.index_times(index, f"index of y[{n}]")
        if times is None:
            return None
        instants.append(times[0])
        kind = times[1]
    names = tuple(every[0].columns) if hasattr(every[0], "columns") else tuple(each.name for each in every)
    if len(every) == 1 and hasattr(every[0], "columns"):
        instants = instants * len(names)
    return instants, replace(layout, target=names, times=kind, backend="pandas", indexed=True,
                             index_name=every[0].index.name)


def _counted(y: Any, layout: Layout) -> Layout | None:
    """A layout that says how the index of y goes on, a Series or DataFrame of pandas with evenly spaced whole numbers;
    None for anything else."""
    index = getattr(y, "index", None)
    if index is None or callable(index) or type(index).__name__ not in ("RangeIndex", "Index") or not len(index):
        return None
    numbers_of = index.to_numpy()
    if numbers_of.dtype.kind not in "iu":
        return None
    step = index.step if hasattr(index, "step") else int(numbers_of[min(1, len(index) - 1)]) - int(numbers_of[0]) or 1
    if step < 1 or np.any(np.diff(numbers_of.astype(np.int64)) != step):
        return None
    names = tuple(y.columns) if hasattr(y, "columns") else (y.name,)
    return replace(layout, target=names, backend="pandas", index_name=index.name, counted=(int(numbers_of[0]), step))


def _check_same_index(X: Any, name: str, instants: list[Times], kind: str) -> None:
    """Raise ValueError where columns beside y have an index of other times."""
    for each, own in zip(X if kind == "list" and isinstance(X, (list, tuple)) else [X], instants, strict=False):
        index = getattr(each, "index", None)
        times = None if index is None or callable(index) else frames.index_times(index, f"index of {name}")
        if times is not None and not np.array_equal(times[0], own):
            raise ValueError(f"{name}: expected the index of y, whose rows it stands beside; reindex it as y is")


def _targets(y: Any) -> tuple[str, list[Float64Array]]:
    """The kind of table that y is, and its series."""
    if isinstance(y, (list, tuple)) and len(y) and np.ndim(y[0]) > 0:
        return "list", _one_after_another(y)
    if hasattr(y, "toarray") and hasattr(y, "nnz"):
        raise TypeError("y: sparse input is not supported; make it dense with .toarray()")
    if hasattr(y, "columns") and hasattr(y, "shape"):
        y = _numeric_frame(y)
    array = numbers(y, "y")
    if array.ndim not in (1, 2) or array.shape[-1] == 0:
        raise ValueError(f"y: expected one series [T], or one a column [T, N], got shape {array.shape}")
    return ("one", [array]) if array.ndim == 1 else ("columns", list(array.T.copy()))


def _one_after_another(y: Sequence[Any]) -> list[Float64Array]:
    """The series of a list as parts of one array, which takes less memory than many."""
    ends = np.cumsum([len(each) if np.ndim(each) == 1 else 0 for each in y]).tolist()
    whole, result = np.empty(ends[-1]), []
    for n, (each, start, end) in enumerate(zip(y, [0, *ends[:-1]], ends, strict=True)):
        values = numbers(each, f"y[{n}]")
        if values.ndim != 1:
            raise ValueError(f"y[{n}]: expected one dimension, got shape {values.shape}")
        whole[start:end] = values
        result.append(whole[start:end])
    return result


def _numeric_frame(frame: Any) -> Any:
    """The columns of a frame side by side; TypeError, which names target= and time=, where one is not of numbers."""
    table = frames.opened(frame, "y")
    result = []
    for name in table.columns:
        try:
            result.append(frames.number_column(table, name))
        except (TypeError, ValueError):
            raise TypeError(
                f"target, time: the column {name!r} of the frame is not of numbers; name the column to forecast and "
                "the one of times: RNNForecaster(target=..., time=...), and with series= the one that tells series "
                f"apart. The columns are {', '.join(map(str, table.columns))}") from None
    return np.stack(result, 1) if result else np.empty((len(table), 0))


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


def static_rows(static: Any, count: int, categories: dict[str, Any]) -> tuple[list[Float64Array], list[str]]:
    """Static columns [N, S] of arrays or frames, a row a series, and their names; columns of text are categories, which
    are noted."""
    if hasattr(static, "columns"):
        table = frames.opened(static, "static")
        named = {str(name): table[name].to_numpy() for name in table.columns}
    else:
        array = np.asarray(static)
        if array.ndim != 2:
            raise ValueError(f"static: expected [N, S], a row a series, got shape {array.shape}")
        named = {f"static column {n}": np.array(array[:, n].tolist(), object if array.dtype.kind == "O" else None)
                 for n in range(array.shape[1])}
    parts = []
    for name, values in named.items():
        if len(values) != count:
            raise ValueError(f"static: expected {count} rows, one a series, got {len(values)}")
        text = values.dtype.kind in "UST" or (values.dtype.kind == "O" and any(isinstance(v, str) for v in values))
        if not text and name not in categories:
            parts.append(numbers(values, "static")[:, None])
            continue
        missing = [value is None or value != value for value in values.tolist()]
        labels = list(dict.fromkeys(v for v, lacks in zip(values.tolist(), missing, strict=True) if not lacks))
        codes = [-1 if lacks else labels.index(v) for v, lacks in zip(values.tolist(), missing, strict=True)]
        columns_of, categories[name] = embedded(np.array(codes, np.int64), labels, categories.get(name), name)
        parts.append(columns_of)
    return list(np.concatenate(parts, 1)), list(named)


# ---- Frames -------------------------------------------------------------------------------------

@dataclass
class Table:
    """The columns of a frame that a layout names, as arrays; the rows of each series stand together, by time."""

    numbers: dict[str, Float64Array]    # [rows]; of categories [rows, columns]
    starts: IntArray                    # the first row of each series, and the number of rows
    labels: list[Any]                   # the name of each series
    instants: Times | None
    layout: Layout                      # with the frame's library and what its times are

    def stacked(self, names: Sequence[str]) -> Float64Array:
        """Columns side by side."""
        return np.column_stack([self.numbers[name] for name in names]) if names else np.empty((self.starts[-1], 0))

    def static_rows(self) -> list[Float64Array | None]:
        """The static columns of each series [S]; ValueError, by name, where one changes within a series."""
        if not self.layout.static:
            return [None] * len(self.labels)
        values = self.stacked(self.layout.static)
        first = values[self.starts[:-1]]
        same = (values == np.repeat(first, np.diff(self.starts), 0)) | np.isnan(values)
        if not same.all():
            n = int(np.searchsorted(self.starts, np.argmin(same.all(1)), "right")) - 1
            raise ValueError(f"static: expected columns that are the same in all rows of a series, {self.times_of(n)} "
                             "has several values")
        return list(first)

    def times_of(self, n: int) -> str:
        """What messages call the times of series n."""
        time = self.layout.time or "index"
        return time if self.layout.series is None else f"{time} of series {self.labels[n]!r}"


def read_table(frame: Any, layout: Layout, wanted: Sequence[str]) -> Table:
    """Read a frame: all its columns that `wanted` names, those of times and of the series' names."""
    instants, index = None, getattr(frame, "index", None)
    from_index = layout.time is None or (getattr(index, "name", None) == layout.time
                                         and layout.time not in getattr(frame, "columns", ()))
    time = None if from_index else layout.time
    opened = frames.opened(frame, "X", [*wanted, *filter(None, [time, layout.series])])
    layout = replace(layout, backend=frames.backend_of(opened), time=time)
    if layout.time:
        instants, layout.times = frames.time_column(opened, layout.time)
    elif index is not None and not callable(index):
        times = frames.index_times(index, "index")
        if times is not None:
            instants, kind = times
            layout = replace(layout, times=kind, indexed=True, index_name=index.name)
    row_count = len(opened)
    codes, labels = (np.zeros(row_count, np.int64), [None]) if layout.series is None else \
        frames.label_column(opened, layout.series)
    order = _order(codes, instants)
    starts = np.searchsorted(codes if order is None else codes[order], np.arange(len(labels) + 1))
    values = {}
    for name in dict.fromkeys(wanted):
        if name not in layout.categorical:
            values[name] = frames.number_column(opened, name)
            continue
        category_codes, categories = frames.category_column(opened, name)
        values[name], layout.categories[name] = embedded(category_codes, categories, layout.categories.get(name), name)
    if order is not None:
        values = {name: column[order] for name, column in values.items()}
        instants = None if instants is None else instants[order]
    return Table(values, starts, labels, instants, layout)


def _order(codes: IntArray, instants: Times | None) -> IntArray | None:
    """The rows by series and by time; None where they are in that order already."""
    rising = codes[1:] >= codes[:-1]
    if instants is not None:
        rising &= (instants[1:] >= instants[:-1]) | (codes[1:] > codes[:-1])
    if rising.all():
        return None
    return np.argsort(codes, kind="stable") if instants is None else np.lexsort((instants, codes))


def _from_frame(frame: Any, layout: Layout) -> Panel:
    if len(layout.targets) > 1 and layout.series:
        raise ValueError("target: expected one column where `series` names another that tells series apart, got "
                         f"{layout.target!r}")
    if len(layout.targets) > 1 and layout.static:
        raise ValueError("static: expected none where several targets are series, which share all columns, got "
                         f"{layout.static!r}")
    for argument in ("known", "static"):
        for name in getattr(layout, argument):
            if name in layout.targets:
                raise ValueError(f"{argument}: expected columns other than the target, whose values to come are not "
                                 f"known, got {name!r}")
    for name in layout.categorical:
        if name not in (*layout.known, *layout.past, *layout.static):
            raise ValueError(f"categorical: expected names of known, past or static columns, got {name!r}")
    table = read_table(frame, layout, [*layout.targets, *layout.known, *layout.past, *layout.static])
    if not table.starts[-1]:
        raise ValueError("X: expected rows, the frame has none")
    names = [table.times_of(n) for n in range(len(table.labels))]
    known, past, static = table.stacked(layout.known), table.stacked(layout.past), table.static_rows()
    series: list[Series] = []
    for target in layout.targets:
        labels = [target] if len(layout.targets) > 1 else table.labels
        rows = Rows(table.numbers[target], known, past, table.starts, table.instants)
        series += rows.series(names, labels, table.layout.times, layout.resampling, layout.clock)
    if layout.static:
        series = [replace(each, static=row) for each, row in zip(series, static, strict=True)]
    panel = Panel(series, "frame", table.layout, table.layout.categories)
    panel.columns = {"static": layout.static, "past": layout.past, "known": layout.known}
    return panel


# ---- Names of columns ---------------------------------------------------------------------------

def check_names(value: str | Sequence[str] | None, name: str) -> tuple[str, ...]:
    """A tuple of column names, from None, one or several."""
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    for n, each in enumerate(names):
        if not isinstance(each, str):
            raise TypeError(f"{name}: expected names of columns, which are text, got {type(each).__name__}")
        if each in names[:n]:
            raise ValueError(f"{name}: expected names that all differ, {each!r} is there twice")
    return names


def check_name(value: str | None, name: str) -> str | None:
    """A column name, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected the name of a column, got {type(value).__name__}")
    return value
