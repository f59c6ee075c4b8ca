"""Series as a forecaster takes them: arrays or frames in, ``Series`` inside, the caller's kind of table out.

Frames (pandas, polars, pyarrow) are read and made through narwhals, which is imported when one comes.
"""

from dataclasses import dataclass, replace

import numpy as np

from .._base.estimator import columns, numbers
from .calendar import Clock

# ---- Series -------------------------------------------------------------------------------------

@dataclass
class Series:
    """One series: y [T], NaN where missing; columns known [T, F] (of later steps too) and past [T, P]; perhaps a clock,
    a name."""

    y: np.ndarray
    known: np.ndarray
    past: np.ndarray
    clock: Clock | None = None
    name: object = None

    def __len__(self):
        return len(self.y)

    def known_to(self, T):
        """Known columns of T steps; where there are fewer the last row stands for the rest."""
        return self.known[np.minimum(np.arange(T), len(self.known) - 1)]

    def part(self, start, stop):
        """Steps start ... stop-1; what is known of later ones stays known."""
        clock = None if self.clock is None else self.clock.moved(start)
        return replace(self, y=self.y[start:stop], known=self.known[start:], past=self.past[start:stop], clock=clock)

    def extended(self, y):
        """With more steps at its end, of which past columns are missing."""
        past = np.full((len(y), self.past.shape[1]), np.nan)
        return replace(self, y=np.concatenate([self.y, y]), past=np.concatenate([self.past, past]))

    def knowing(self, known):
        """With the known columns of the steps that follow."""
        return replace(self, known=np.concatenate([self.known_to(len(self)), known]))


@dataclass
class Panel:
    """Series, and what kind of table they came in: "one" array [T], "columns" of an array [T, N], a "list" of arrays,
    or a frame, of which ``layout`` holds the names of columns and the library."""

    series: list
    kind: str
    layout: "Layout | None" = None


@dataclass
class Layout:
    """Which columns of a frame are what; names are None or empty where there are none."""

    target: object = None
    time: str | None = None
    series: str | None = None
    known: tuple = ()
    past: tuple = ()
    backend: object = None

    @property
    def targets(self):
        return [self.target] if isinstance(self.target, str) else list(self.target)


def read(X, y, past, times, layout):
    """A Panel from what `fit` was given: a frame if `layout` names a target, else arrays."""
    if layout.target is not None:
        if not (y is None and past is None and times is None):
            raise ValueError("y, past, times: expected None beside a frame, whose columns the estimator names")
        return _from_frame(X, layout)
    if layout.time or layout.series or layout.known or layout.past:
        raise ValueError("target: expected the name of a column, as others are named; got None")
    return _from_arrays(X, y, past, times)


def _from_arrays(X, y, past, times):
    if y is None:
        X, y = None, X
    if y is None:
        raise TypeError("y: expected an array, got None")
    if isinstance(y, (list, tuple)) and len(y) and np.ndim(y[0]) > 0:
        kind, values = "list", [numbers(one, f"y[{n}]") for n, one in enumerate(y)]
        for n, one in enumerate(values):
            if one.ndim != 1:
                raise ValueError(f"y[{n}]: expected one dimension, got shape {one.shape}")
    else:
        if hasattr(y, "toarray") and hasattr(y, "nnz"):
            raise TypeError("y: sparse input is not supported; make it dense with .toarray()")
        y = numbers(y, "y")
        if y.ndim not in (1, 2) or y.shape[-1] == 0:
            raise ValueError(f"y: expected one series [T], or one a column [T, N], got shape {y.shape}")
        kind, values = ("one", [y]) if y.ndim == 1 else ("columns", list(y.T.copy()))
    lengths = [len(one) for one in values]
    known = shared_columns(X, "X", lengths, kind)
    past = shared_columns(past, "past", lengths, kind)
    series = [Series(*parts) for parts in zip(values, known, past, strict=True)]
    if times is not None:
        several = kind == "list"
        if several and len(times) != len(series):
            raise ValueError(f"times: expected {len(series)} of them, one a series, got {len(times)}")
        series = [_on_clock(one, times[n] if several else times, f"times[{n}]" if several else "times")
                  for n, one in enumerate(series)]
    return Panel(series, kind)


def shared_columns(X, name, lengths, kind):
    """Columns [T, F] of each series: of a list one array a series, else one array for all. None: no columns."""
    if X is None:
        return [np.empty((T, 0)) for T in lengths]
    if kind != "list":
        found = [columns(X, name)] * len(lengths)
    elif isinstance(X, (list, tuple)) and len(X) == len(lengths):
        found = [columns(one, f"{name}[{n}]") for n, one in enumerate(X)]
    else:
        raise ValueError(f"{name}: expected a list of {len(lengths)} arrays, one a series, as y is a list")
    for n, (one, T) in enumerate(zip(found, lengths, strict=True)):
        if len(one) != T:
            raise ValueError(f"{name}: expected {T} rows, as many as y has, got {len(one)}"
                             + (f" (series {n})" if kind == "list" else ""))
        if one.shape[1] != found[0].shape[1]:
            raise ValueError(f"{name}: expected {found[0].shape[1]} columns in every series, got {one.shape[1]}")
    return found


def _on_clock(series, times, name):
    """The series with its clock; a time left out becomes a step whose values are all missing."""
    if np.shape(times) != (len(series),):
        raise ValueError(f"{name}: expected {len(series)}, one a row of y, got shape {np.shape(times)}")
    clock, at = Clock.of(times, name)
    if at[-1] >= max(1000, 100 * len(at)):
        raise ValueError(f"{name}: between first and last the shortest step fits {at[-1] + 1} times, there are only "
                         f"{len(at)} rows; resample first")

    def spread(values):
        full = np.full((at[-1] + 1, *values.shape[1:]), np.nan)
        full[at] = values
        return full

    return Series(spread(series.y), spread(series.known), spread(series.past), clock, series.name)


# ---- Frames -------------------------------------------------------------------------------------

def _narwhals():
    try:
        import narwhals.stable.v2 as narwhals
    except ImportError as error:
        raise ImportError("frames need the package narwhals: pip install fastrnn[frames]") from error
    return narwhals


def _columns_of(frame, layout, names):
    """Name -> array of a frame's columns, all there; dates are told local, without a zone."""
    nw = _narwhals()
    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(f"X: expected a frame of pandas, polars or pyarrow with the columns {', '.join(names)}, got "
                        f"{type(frame).__name__}") from None
    for name in names:
        if name not in table.columns:
            raise ValueError(f"X: there is no column {name!r}, only {', '.join(map(str, table.columns))}")
    layout.backend = nw.get_native_namespace(table).__name__
    found = {}
    for name in names:
        column = table[name]
        if name == layout.time and column.dtype == nw.String:
            column = column.str.to_datetime()
        if isinstance(column.dtype, nw.Datetime) and column.dtype.time_zone:
            column = column.dt.replace_time_zone(None)
        found[name] = column.to_numpy()
    return found


def _groups(values, layout):
    """(name, rows in the order of time) of each series of a long frame, in the order of first rows."""
    rows = len(next(iter(values.values())))
    order = np.argsort(values[layout.time], kind="stable") if layout.time else np.arange(rows)
    if layout.series is None:
        return [(None, order)]
    labels, found = values[layout.series].tolist(), {}
    if any(label is None or label != label for label in labels):
        raise ValueError(f"{layout.series}: expected the name of its series in every row, one is missing")
    for row in order.tolist():
        found.setdefault(labels[row], []).append(row)
    return [(name, np.array(found[name])) for name in dict.fromkeys(labels)]


def _from_frame(frame, layout):
    names = [*layout.targets, *layout.known, *layout.past, *filter(None, [layout.time, layout.series])]
    if len(layout.targets) > 1 and layout.series:
        raise ValueError("target: expected one column where `series` names another that tells series apart, got "
                         f"{layout.target!r}")
    values, panel = _columns_of(frame, layout, names), []
    for name, rows in _groups(values, layout):
        known, past = (np.stack([numbers(values[c][rows], c) for c in of], 1) if of else np.empty((len(rows), 0))
                       for of in (layout.known, layout.past))
        for target in layout.targets:
            one = Series(numbers(values[target][rows], target), known, past,
                         name=target if len(layout.targets) > 1 else name)
            label = layout.time if name is None else f"{layout.time} of series {name!r}"
            panel.append(_on_clock(one, values[layout.time][rows], label) if layout.time else one)
    return Panel(panel, "frame", layout)


def known_rows(X, panel):
    """Columns known of the steps that follow each series, [h, F] each, from what `predict` was given."""
    N = len(panel.series)
    if panel.kind == "list":
        if not isinstance(X, (list, tuple)) or len(X) != N:
            raise ValueError(f"X: expected a list of {N} arrays, one a series, as y was a list")
        return [columns(one, f"X[{n}]") for n, one in enumerate(X)]
    if panel.kind != "frame":
        return [columns(X)] * N
    layout = panel.layout
    values = _columns_of(X, replace(layout), [*layout.known, *filter(None, [layout.time, layout.series])])
    groups, found = dict(_groups(values, layout)), []
    for series in panel.series:
        rows = groups.get(series.name if layout.series else None)
        if rows is None:
            raise ValueError(f"X: there are no rows of series {series.name!r}")
        if layout.time:
            expected = series.clock.at(len(series) + np.arange(len(rows)))
            given = values[layout.time][rows].astype("datetime64[us]")
            if not np.array_equal(expected, given):
                odd = np.argmax(expected != given)
                raise ValueError(f"{layout.time}: expected the steps that follow the series, {expected[odd]}, got "
                                 f"{given[odd]}")
        found.append(np.stack([numbers(values[c][rows], c) for c in layout.known], 1))
    return found


def table(panel, forecasts, names=None):
    """Forecasts [N, h] or [N, h, Q] as the kind of table that the panel came in; names: of the Q columns of a frame."""
    if panel.kind == "one":
        return forecasts[0]
    if panel.kind == "columns":
        return np.ascontiguousarray(np.swapaxes(forecasts, 0, 1))
    if panel.kind == "list":
        return forecasts
    nw, layout, h = _narwhals(), panel.layout, forecasts.shape[1]
    stacked = forecasts[..., None] if names is None else forecasts
    suffixes = [""] if names is None else [f"_{name}" for name in names]
    data = {}
    several = len(layout.targets) > 1
    if layout.series:
        data[layout.series] = [series.name for series in panel.series for _ in range(h)]
    if layout.time:
        ahead = [series.clock.at(len(series) + np.arange(h)) for series in panel.series]
        data[layout.time] = ahead[0] if several else np.concatenate(ahead)
    for n, target in enumerate(layout.targets):
        for q, suffix in enumerate(suffixes):
            data[target + suffix] = stacked[n, :, q] if several else stacked[..., q].ravel()
    data = {name: values if isinstance(values, list) else np.ascontiguousarray(values) for name, values in data.items()}
    return nw.from_dict(data, backend=layout.backend).to_native()


def check_names(value, name):
    """A tuple of column names, from None, one or several."""
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else tuple(value)
    for one in names:
        if not isinstance(one, str):
            raise TypeError(f"{name}: expected names of columns, got {type(one).__name__}")
    return names


def check_name(value, name):
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected the name of a column, got {type(value).__name__}")
    return value
