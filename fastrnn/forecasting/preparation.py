"""What a forecaster is given, made ready: the arguments of ``fit`` as a ``Panel`` that can be forecast, and the checks
that it fits what was fitted."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from . import tables
from .encoding import LARGEST, LOGARITHMS, SMALLEST, first_observed
from .requests import asks_for_steps
from .resample import Resampling
from .series import Layout, check_name, check_names, read

if TYPE_CHECKING:
    from .._base.typing import ArrayLike, IntArray
    from .calendar import Clock
    from .forecaster import RNNForecaster
    from .options import Options
    from .series import Panel, Series


def read_panel(model: RNNForecaster, X: ArrayLike | None, y: ArrayLike | None, past: ArrayLike | None,
               times: ArrayLike | None, clock: Clock | None = None, static: ArrayLike | None = None,
               like: Panel | None = None) -> Panel:
    """The arguments of ``fit`` as a Panel; `like` is the one whose categories its columns have."""
    layout = Layout(
        check_names(model.target, "target") if model.target is not None else None,
        check_name(model.time, "time"), check_name(model.series, "series"), check_names(model.known, "known"),
        check_names(model.past, "past"), check_names(model.static, "static"),
        check_names(model.categorical, "categorical"), {} if like is None else dict(like.categories),
        Resampling.of(model.freq, model.resample), clock=clock)
    return read(X, y, past, times, layout, static)


def prepared(panel: Panel, options: Options) -> Panel:
    """The panel with its series cut to begin with a value; ValueError for one that cannot be forecast."""
    for n, series in enumerate(panel.series):
        name = f"y[{n}]" if len(panel.series) > 1 else "y"
        if series.name is not None:
            name = f"y of series {series.name!r}"
        first = first_observed(series.y)
        if len(series) - first < 2:
            raise ValueError(f"{name}: expected 2 samples or more from the first value on, got "
                             f"{len(series) - first} sample{'s' * (len(series) - first != 1)}")
        if np.nanmax(np.abs(series.y)) > LARGEST:
            raise ValueError(f"{name}: expected values up to {LARGEST:g} in size, got "
                             f"{np.nanmax(np.abs(series.y)):g}")
        if 0 < np.nanmax(series.y) - np.nanmin(series.y) < SMALLEST:
            raise ValueError(f"{name}: expected values that differ by {SMALLEST:g} or more, or are all the same; they "
                             f"differ by {np.nanmax(series.y) - np.nanmin(series.y):g}: give them in a smaller unit")
        above = LOGARITHMS[options.log].above if options.log in LOGARITHMS else -math.inf
        if np.nanmin(series.y) <= above:
            raise ValueError(f"{name}: log={options.log!r} needs values above {above:g}, got "
                             f"{np.nanmin(series.y):g}")
        if options.time_features and series.clock is None:
            raise ValueError("times: expected them, as time_features are asked for; got None")
        panel.series[n] = series.part(first, len(series))
    return panel


def like_fitted(model: RNNForecaster, panel: Panel) -> Panel:
    """The panel, if its series have the columns that a forecaster was fitted with."""
    model._check_features(panel.series[0].known.shape[1])
    count, expected = panel.series[0].past.shape[1], len(model.encoding_.past[0])
    if count != expected:
        raise ValueError(f"past: expected {expected} columns, got {count}")
    static, expected = panel.series[0].static, len(model.encoding_.static[0])
    if (0 if static is None else len(static)) != expected:
        raise ValueError(f"static: expected {expected} columns, got {0 if static is None else len(static)}")
    return panel


def places_by_name(fitted: Panel, panel: Panel) -> IntArray | None:
    """For each series of a frame the number of the fitted series of its name, -1 where there is none.

    None where series have no names, or are the fitted ones in the same order: they then stand for each other by their
    places.
    """
    if panel.kind != "frame" or panel.layout is None or not panel.layout.series:
        return None
    named = fitted.kind == "frame" and fitted.layout is not None and fitted.layout.series
    numbers = {each.name: n for n, each in enumerate(fitted.series)} if named else {}
    places: IntArray = np.array([numbers.get(each.name, -1) for each in panel.series], np.int64)
    return None if named and np.array_equal(places, np.arange(len(fitted.series))) else places


def steps_ahead(model: RNNForecaster, X: Any) -> tuple[list[Series], int]:
    """The series, with what the X of ``predict`` says of the steps to come, and how many steps it asks for."""
    if asks_for_steps(X):
        if model.n_features_in_:
            raise ValueError(f"X: expected the {model.n_features_in_} known columns of the steps to come, got {X}")
        return model.panel_.series, model.encoding_.horizon if X is None else check.size(int(X), "X")
    known = tables.known_rows(X, model.panel_)
    model._check_features(known[0].shape[1])
    if len({len(rows) for rows in known}) > 1:
        raise ValueError("X: expected as many rows for every series")
    count, horizon = len(known[0]), model.encoding_.horizon
    if 0 < count < horizon:
        warnings.warn(f"X: {count} row{'s' * (count > 1)} of known columns, fewer than horizon={horizon}: the last "
                      "of them stands for the steps after it", UserWarning, stacklevel=3)
    return [each.knowing(rows) for each, rows in zip(model.panel_.series, known, strict=True)], count


def series_number(panel: Panel, series: int | str) -> int:
    """The number of a series in a panel, from its number or its name."""
    names = [each.name for each in panel.series]
    if isinstance(series, (int, np.integer)) and not isinstance(series, bool) and series not in names:
        if not 0 <= series < len(names):
            raise ValueError(f"series: expected 0 to {len(names) - 1}, got {series}")
        return int(series)
    if series not in names:
        raise ValueError(f"series: expected a number or one of {', '.join(map(str, names))}, got {series!r}")
    return names.index(series)
