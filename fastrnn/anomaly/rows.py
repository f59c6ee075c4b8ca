"""Reading rows: frames, arrays, dicts and lists as floats, one a channel, with the times of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._base.estimator import columns, numbers
from .clock import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from .._base.typing import ArrayLike, Float64Array
    from .state import State

    Row: TypeAlias = ArrayLike | dict[str, Any] | None

LARGEST = 1e100         # of the values' size: squares of larger ones would overflow


def checked_rows(X: ArrayLike) -> Float64Array:
    """X as float64 [rows, channels]."""
    rows = columns(X)
    if (np.abs(rows) >= LARGEST).any():
        raise ValueError(f"X: expected numbers within {LARGEST:g}, got {np.nanmax(np.abs(rows))}")
    return rows


def channel_names(X: object) -> list[str] | None:
    """Names of a frame's columns or a dict's keys, where all of them are text."""
    names: list[Any] = list(X if isinstance(X, dict) else getattr(X, "columns", ()))
    return names if names and all(isinstance(name, str) for name in names) else None


def row_moments(X: object, times: ArrayLike | None, rows: int) -> Float64Array | None:
    """The times of X's rows in seconds: those given, or a frame's index of datetimes; None where there are none."""
    if times is None:
        index = getattr(X, "index", None)
        if getattr(getattr(index, "dtype", None), "kind", "") != "M":
            return None
        times = cast("ArrayLike", index)
    result = seconds(times)
    if len(result) != rows:
        raise ValueError(f"times: expected {rows} of them, one a row, got {len(result)}")
    return result


def told_rows(state: State, rows: Float64Array, times: Float64Array | None) -> Iterator[list[float]]:
    """The rows one by one; the state is told the time of each before."""
    if (times is None) != (state.clock is None):
        raise ValueError("times: expected " + ("None, as the rows before had no times" if state.clock is None else
                                               "the time of every row, as the rows before had times; got None"))
    for number, row in enumerate(rows.tolist()):
        if times is not None:
            state.tell(float(times[number]))
        yield row


def checked_row(x: Row, count: int, names: Sequence[str]) -> list[float]:
    """x as a list of floats, one for each of `count` channels, NaN where a value is missing."""
    row: list[float]
    if isinstance(x, dict):
        if not set(x) <= set(names):
            raise ValueError(f"x: expected values of {', '.join(names) or 'channels without names'}, "
                             f"got {', '.join(map(str, x))}")
        row = numbers([x.get(name) for name in names], "x").tolist()
    else:
        values = numbers(np.nan if x is None else x, "x")
        if values.ndim > 1:
            raise ValueError(f"x: expected one row, a number a channel, got shape {values.shape}")
        row = np.atleast_1d(values).tolist()
    if len(row) != count:
        raise ValueError(f"x: expected {count} channels, got {len(row)}")
    for value in row:
        if not -LARGEST < value < LARGEST and value == value:
            raise ValueError(f"x: expected numbers within {LARGEST:g}, got {value}")
    return row
