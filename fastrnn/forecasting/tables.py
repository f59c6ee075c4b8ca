"""Tables beside a panel: the known columns of the steps to come, and forecasts as the kind of table that came in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.estimator import columns
from . import frames
from .calendar import Clock, check_rising, shown
from .resample import Bins
from .series import Layout, Panel, Series, read_table
from .timeline import ahead, some
from .zones import to_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Float64Array, IntArray
    from .frequency import Times

# ---- Known columns of the steps to come ---------------------------------------------------------

def known_rows(X: Any, panel: Panel) -> list[Float64Array]:
    """Columns known of the steps that follow each series, [h, F] each, from the X of `predict`."""
    count = len(panel.series)
    if panel.kind == "list":
        if not isinstance(X, (list, tuple)) or len(X) != count:
            raise ValueError(f"X: expected a list of {count} arrays, one a series, as y was a list")
        for each, series in zip(X, panel.series, strict=True):
            _check_index(each, series, panel)
        return [columns(each, f"X[{n}]") for n, each in enumerate(X)]
    if panel.kind != "frame":
        _check_index(X, panel.series[0], panel)
        return [columns(X)] * count
    return _known_of_frame(X, panel)


def rows_to_come(X: Any, panel: Panel, series: Series) -> Float64Array:
    """Columns known of the steps that follow one series of a panel [h, F], from an array or a frame."""
    if panel.kind == "frame" and hasattr(X, "columns"):
        return _known_of_frame(X, replace(panel, series=[series]))[0]
    return columns(X)


def _known_of_frame(X: Any, panel: Panel) -> list[Float64Array]:
    layout: Any = panel.layout
    table = read_table(X, layout, layout.known)
    if table.layout.times is not None:
        _check_zone(table.layout.times.zone, layout.times.zone, layout.time or "index of X")
    places = {label: n for n, label in enumerate(table.labels)}
    known, parts, steps = table.stacked(layout.known), [], []
    for series in panel.series:
        n = places.get(series.name if layout.series else None)
        if n is None:
            raise ValueError(f"X: there are no rows of series {series.name!r}")
        rows = slice(int(table.starts[n]), int(table.starts[n + 1]))
        if table.instants is None or series.clock is None:
            parts.append(known[rows])
            continue
        own, k = _steps_to_come(known[rows], table.instants[rows], series, table.times_of(n), layout)
        parts.append(own)
        steps.append(k)
    if steps:
        _check_complete(steps, panel)
    return parts


def _steps_to_come(known: Float64Array, instants: Times, series: Series, name: str,
                   layout: Layout) -> tuple[Float64Array, IntArray]:
    """The known columns of the rows after the end of a series, and how many steps after it each row is, from 0."""
    clock: Any = series.clock
    check_rising_times = layout.resampling.function is None
    if check_rising_times:
        check_rising(instants, name, clock.zone)
    k, on_clock = clock.steps(instants)
    if check_rising_times and not on_clock.all():
        odd = to_local(instants[~on_clock][:1], clock.zone)[0]
        raise ValueError(f"{name}: expected times of the frequency {clock.name!r}, as the series has it, got "
                         f"{shown(odd)}")
    k = k - len(series)
    rows = np.searchsorted(k, 0)
    known, k = known[rows:], k[rows:]
    firsts = np.flatnonzero(np.diff(k, prepend=-1))
    if len(firsts) < len(k):
        known, k = Bins(firsts, instants, firsts, len(k)).reduced(known, "mean"), k[firsts]
    return known, k


def _check_complete(steps: list[IntArray], panel: Panel) -> None:
    """Raise ValueError, which names series and times, unless each series has the rows of the same first steps."""
    layout: Any = panel.layout
    h = max((int(k[-1]) + 1 for k in steps if len(k)), default=0)
    lacks = [n for n, k in enumerate(steps) if len(k) < max(h, 1)]
    if not lacks:
        return
    words = []
    for n in lacks[:3]:
        series = panel.series[n]
        clock: Any = series.clock
        missing = np.setdiff1d(np.arange(max(h, 1)), steps[n])
        text = some(clock.at(len(series) + missing), clock.zone)
        words.append(text if series.name is None or not layout.series else f"series {series.name!r}: {text}")
    more = f", and {len(lacks) - 3} more series" if len(lacks) > 3 else ""
    raise ValueError(f"{layout.time or 'X'}: expected a row for each of the steps that follow, {h} of every series; "
                     f"missing are {'; '.join(words)}{more}")


def _check_zone(zone: str | None, own: str | None, name: str) -> None:
    """Raise ValueError where times have a zone and those of the series have none, or the other way round."""
    if (zone is None) != (own is None):
        words = ["without a zone" if each is None else f"in the zone {each}" for each in (own, zone)]
        raise ValueError(f"{name}: expected times {words[0]}, as in fit, got times {words[1]}")


def _check_index(X: Any, series: Series, panel: Panel) -> None:
    """Raise ValueError where X has an index of times that are not those which follow the series."""
    index = getattr(X, "index", None)
    if panel.layout is None or not panel.layout.indexed or series.clock is None or index is None or callable(index):
        return
    times = frames.index_times(index, "X")
    if times is None:
        return
    _check_zone(times[1].zone, series.clock.zone, "index of X")
    expected = series.clock.at(len(series) + np.arange(len(index)))
    if not np.array_equal(expected, times[0]):
        zone, odd = series.clock.zone, int(np.argmax(expected != times[0]))
        raise ValueError(f"X: expected the index to go on with {some(expected[odd:odd + 1], zone)}, as the series "
                         f"does, got {some(times[0][odd:odd + 1], zone)}")


# ---- Out ----------------------------------------------------------------------------------------

def table(panel: Panel, forecasts: Float64Array, names: Sequence[str] | None = None) -> Any:
    """Forecasts [N, h] or [N, h, Q] as the kind of table that the panel came in.

    `names` are those of the Q columns: a frame has a column ``y_name`` for each, ``y`` for the name "".
    """
    if panel.layout is not None and panel.kind != "frame" and (panel.layout.indexed or panel.layout.counted):
        return _indexed(panel, panel.layout, forecasts, names)
    if panel.kind == "one":
        return forecasts[0]
    if panel.kind == "columns":
        return np.ascontiguousarray(np.swapaxes(forecasts, 0, 1))
    if panel.layout is None or panel.kind == "list":
        return forecasts
    layout, h = panel.layout, forecasts.shape[1]
    several = len(layout.targets) > 1
    data: dict[Any, Any] = {}
    times: Any = None
    if layout.times is not None:
        series = panel.series[:1] if several else panel.series
        instants = ahead([_clock(each) for each in series], np.array([len(each) for each in series]), h).ravel()
        times = frames.times_out(instants, layout.times, str(layout.backend))
    if layout.series:
        data[layout.series] = _repeated([series.name for series in panel.series], h)
    if layout.time:
        data[layout.time] = times
    for n, target in enumerate(layout.targets):
        values = forecasts[n] if several else forecasts.reshape(-1, *forecasts.shape[2:])
        data |= _value_columns(target, values, names)
    result = frames.narwhals().from_dict(data, backend=layout.backend).to_native()
    return result.set_index(times.rename(layout.index_name)) if layout.indexed else result


def _clock(series: Series) -> Clock:
    if series.clock is None:
        raise ValueError("times: a series has none")
    return series.clock


def _repeated(labels: list[Any], h: int) -> Any:
    """Each label h times: an array where they are of one simple type, else a list."""
    kinds = {type(label) for label in labels}
    return np.repeat(np.array(labels), h) if kinds <= {int} else [label for label in labels for _ in range(h)]


def _value_columns(target: Any, values: Float64Array, names: Sequence[str] | None) -> dict[Any, Float64Array]:
    if names is None:
        return {target: np.ascontiguousarray(values)}
    prefix = "" if target is None else f"{target}_"
    return {prefix + name if name else target: np.ascontiguousarray(values[:, q]) for q, name in enumerate(names)}


def _indexed(panel: Panel, layout: Layout, forecasts: Float64Array, names: Sequence[str] | None) -> Any:
    """Forecasts as Series or frames of pandas whose index goes on from that of the series."""
    import pandas
    kind: Any = layout.times
    results = []
    for n, series in enumerate(panel.series):
        if layout.counted is not None:
            first, step = layout.counted
            start = first + step * (series.skipped + len(series))
            index = pandas.RangeIndex(start, start + step * forecasts.shape[1], step, name=layout.index_name)
        elif not n or panel.kind == "list":
            clock = _clock(series)
            instants = clock.at(len(series) + np.arange(forecasts.shape[1]))
            index = frames.pandas_index(instants, kind, layout.index_name, clock.anchored)
        name = layout.targets[n]
        results.append(pandas.Series(forecasts[n], index, name=name) if names is None else
                       pandas.DataFrame(_value_columns(name, forecasts[n], names), index))
    if panel.kind == "list":
        return results
    if panel.kind == "one":
        return results[0]
    joined = pandas.concat(results, axis=1)
    if names is None:
        joined.columns = list(layout.targets)
    return joined
