"""Rows that follow the series of a fitted forecaster: which row belongs to which series and step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .series import Panel, Series

FARTHEST = 100_000          # steps that may lie between the end of a series and the first row that follows


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


def _placed(series: Series, new: Series) -> Series:
    """The new rows from the step after the series' last one on; ValueError where they do not follow it."""
    if series.clock is None or new.clock is None:
        return new
    ahead = series.clock.at(len(series) + np.arange(len(new)))
    times, label = new.clock.at(np.arange(len(new))), "" if series.name is None else f" of series {series.name!r}"
    if times[0] < ahead[0]:
        raise ValueError(f"times: expected rows that follow the series, from {ahead[0]} on, got {times[0]}{label}")
    skipped = 0
    if times[0] > ahead[0]:
        ahead = series.clock.at(len(series) + np.arange(FARTHEST + len(new)))
        skipped = int(np.searchsorted(ahead, times[0]))
        ahead = ahead[skipped:skipped + len(new)]
        if len(ahead) < len(new):
            raise ValueError(f"times: expected rows that follow the series, got {times[0]}{label}, more than "
                             f"{FARTHEST} steps after its end")
    if not np.array_equal(ahead, times):
        odd = int(np.argmax(ahead != times))
        raise ValueError(f"times: expected the steps that follow the series, {ahead[odd]}, got {times[odd]}{label}")
    if not skipped:
        return new

    def later(values: Any) -> Any:
        return np.concatenate([np.full((skipped, *values.shape[1:]), np.nan), values])

    return replace(new, y=later(new.y), known=later(new.known), past=later(new.past),
                   clock=series.clock.moved(len(series)))
