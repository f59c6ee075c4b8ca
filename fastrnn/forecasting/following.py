"""Rows that follow the series of a fitted forecaster: which row belongs to which series and step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .calendar import shown
from .preparation import read_panel

if TYPE_CHECKING:
    from .forecaster import RNNForecaster
    from .series import Panel, Series

FARTHEST = 100_000          # steps that may lie between the end of a series and the first row that follows


def read_following(model: RNNForecaster, X: Any, y: Any = None, past: Any = None, times: Any = None,
                   static: Any = None) -> Panel:
    """Rows that follow the series of a fitted forecaster, as a Panel; times of one row are enough."""
    if X is None and y is None:
        raise TypeError("y: expected the rows that follow, got None")
    clock = next((series.clock for series in model.panel_.series), None)
    return read_panel(model, X, y, past, times, clock, static=static, like=model.panel_)


def following(panel: Panel, new: Panel) -> tuple[list[Series | None], list[Series]]:
    """Match new rows to the series that they follow.

    Parameters
    ----------
    panel : Panel
        The series that a forecaster was fitted with.
    new : Panel
        Rows of the same kind of table. Series of a frame are matched by their names, others by their place.

    Returns
    -------
    rows : list of Series or None
        For each series of the panel its new steps, the first of which follows its last one; None where there are none.
        Steps without a row have missing values.
    others : list of Series
        Those that the panel has not.

    Raises
    ------
    ValueError
        Another kind of table, or rows that do not follow the series; the message names the series and the time.
    """
    if new.kind != panel.kind:
        raise ValueError(f"X: expected {_KINDS[panel.kind]}, as in fit, got {_KINDS[new.kind]}")
    if panel.kind == "frame":
        places: dict[object, int] = {series.name: n for n, series in enumerate(panel.series)}
        found = [places.get(series.name) for series in new.series]
    else:
        if panel.kind != "list" and len(new.series) != len(panel.series):
            raise ValueError(f"X: expected {len(panel.series)} series, a column each, got {len(new.series)}")
        found = [n if n < len(panel.series) else None for n in range(len(new.series))]
    rows: list[Series | None] = [None] * len(panel.series)
    others = []
    for place, series in zip(found, new.series, strict=True):
        if place is None:
            others.append(series)
        elif len(series):
            rows[place] = _placed(panel.series[place], series)
    return rows, others


_KINDS = {"one": "one series [T]", "columns": "an array of series [T, N]", "list": "a list of series",
          "frame": "a frame"}


def _of_zone(zone: str | None) -> str:
    return "without a zone" if zone is None else f"in the zone {zone}"


def _placed(series: Series, new: Series) -> Series:
    """The new rows from the step after the series' last one on; ValueError where they do not follow it."""
    clock = series.clock
    if clock is None or new.clock is None:
        return new
    label = "" if series.name is None else f" of series {series.name!r}"
    if new.clock.zone != clock.zone:
        raise ValueError(f"times: expected times {_of_zone(clock.zone)}, as in fit, got times "
                         f"{_of_zone(new.clock.zone)}{label}")
    first = shown(clock.local([len(series)])[0])
    steps, on_clock = clock.steps(new.clock.at(np.arange(len(new))))
    if steps[0] < len(series):
        raise ValueError(f"times: expected rows that follow the series, from {first} on, got "
                         f"{shown(new.clock.local([0])[0])}{label}")
    skipped = int(steps[0]) - len(series)
    wrong = ~on_clock | (np.diff(steps, prepend=steps[0] - 1) != 1)
    if wrong.any():
        odd = int(np.argmax(wrong))
        raise ValueError(f"times: expected steps of the frequency {clock.name!r} that go on from {first}, got "
                         f"{shown(new.clock.local([odd])[0])}{label}")
    if skipped > FARTHEST:
        raise ValueError(f"times: expected rows that follow the series, from {first} on, got "
                         f"{shown(new.clock.local([0])[0])}{label}, {skipped} steps later")
    if not skipped:
        return new

    def later(values: Any) -> Any:
        return np.concatenate([np.full((skipped, *values.shape[1:]), np.nan), values])

    return replace(new, y=later(new.y), known=later(new.known), past=later(new.past),
                   clock=clock.moved(len(series)))
