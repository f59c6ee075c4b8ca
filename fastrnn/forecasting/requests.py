"""What the X of ``predict`` asks for: a number of steps, known columns of the steps to come, or other series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import frames

if TYPE_CHECKING:
    from .series import Panel


def asks_for_steps(X: Any) -> bool:
    """Whether X is None or a whole number."""
    return X is None or (isinstance(X, (int, np.integer)) and not isinstance(X, bool)) or (
        isinstance(X, np.ndarray) and X.ndim == 0 and X.dtype.kind in "iu")


def asks_for_other_series(X: Any, panel: Panel, known_columns: int) -> bool:
    """Whether X has series to forecast, as ``apply`` takes them, and not known columns of the steps to come.

    Without known columns, whatever is no number is series. With known columns X has their values; ValueError, which
    names ``apply``, where it seems to have series instead.
    """
    if asks_for_steps(X):
        return False
    dtype = getattr(X, "dtype", None)
    if isinstance(X, (str, bytes)) or np.isscalar(X) or hasattr(X, "isoformat") or getattr(dtype, "kind", "") == "M":
        raise TypeError("X: expected a whole number of steps, known columns of the steps to come, or series, got "
                        f"{'times' if dtype is not None and not np.isscalar(X) else type(X).__name__}")
    if not known_columns:
        _refuse_steps_ahead(X)
        return True
    layout = panel.layout
    if panel.kind == "frame" and layout is not None:
        names = list(map(str, getattr(X, "column_names", getattr(X, "columns", ()))))
        if all(target in names for target in layout.targets) and _begins_before_the_end(X, panel):
            raise ValueError(f"X: it has the column {layout.targets[0]!r} to forecast and rows up to the end of the "
                             "series; predict takes the known columns of the steps that follow. To forecast other "
                             "series, or longer ones: apply(X).predict(rows that follow)")
    elif panel.kind == "list" and not isinstance(X, (list, tuple)):
        raise ValueError(f"X: expected a list of {len(panel.series)} arrays, the known columns of the steps that "
                         "follow each series, as y was a list. To forecast other series: apply(X, y).predict(known "
                         "columns)")
    elif panel.kind != "list" and np.asarray(X).ndim == 1:
        raise ValueError(f"X: expected the {known_columns} known columns of the steps that follow, [h, "
                         f"{known_columns}], got one dimension. Reshape your data, for one column with "
                         ".reshape(-1, 1); to forecast another series: apply(X, y).predict(known columns)")
    return False


def _refuse_steps_ahead(X: Any) -> None:
    """Raise ValueError for 1, 2, ... h, which is how other libraries name the steps ahead, and hardly a series."""
    if (isinstance(X, np.ndarray) and X.ndim != 1) or not isinstance(X, (list, tuple, range, np.ndarray)):
        return
    if len(X) and all(isinstance(each, (int, np.integer)) and each == n for n, each in enumerate(X, 1)):
        raise ValueError(f"X: {len(X)} whole numbers from 1 on look like the steps to forecast: predict({len(X)}) "
                         "forecasts so many. To forecast a series of these values: apply(X).predict()")


def _begins_before_the_end(X: Any, panel: Panel) -> bool:
    """Whether a frame with targets has rows at or before the end of the panel's series, so that it is no plan."""
    layout: Any = panel.layout
    clocks = [(each.clock, len(each)) for each in panel.series if each.clock is not None]
    if not clocks:
        return True
    try:
        if layout.time:
            instants = frames.time_column(frames.opened(X, "X", [layout.time]), layout.time)[0]
        else:
            instants = frames.index_times(X.index, "X")[0]          # type: ignore[index]
    except (TypeError, ValueError, AttributeError):
        return True
    return bool(len(instants) and instants.min() <= min(clock.at(length - 1) for clock, length in clocks))
