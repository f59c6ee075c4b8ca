"""Reading rows: frames, arrays, dicts and lists as floats, one a channel, with the times of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._base.estimator import columns, numbers
from .clock import moments_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    from .._base.typing import ArrayLike, Float64Array
    from .clock import Moments
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


def row_moments(X: object, times: ArrayLike | None, rows: int) -> Moments | None:
    """The times of X's rows: those given, or a frame's index of datetimes; None where there are none."""
    if times is None:
        index = getattr(X, "index", None)
        if getattr(getattr(index, "dtype", None), "kind", "") != "M":
            return None
        times = cast("ArrayLike", index)
    result = moments_of(times)
    if len(result.shown) != rows:
        raise ValueError(f"times: expected {rows} of them, one a row, got {len(result.shown)}")
    return result


def told_rows(state: State, rows: Float64Array, times: Moments | None, follow: bool = True) -> Iterator[list[float]]:
    """The rows one by one; the state is told the time of each before.

    `follow`: they come after the rows that were learnt, and no time may be before the last one's.
    """
    if (times is None) != (state.clock is None):
        raise ValueError("times: expected " + ("None, as the rows before had no times" if state.clock is None else
                                               "the time of every row, as the rows before had times; got None"))
    if times is None:
        yield from rows.tolist()
        return
    if state.clock is not None:
        state.clock.check(float(times.instants[0]), times.zoned, "times", follow)
    for row, shown, instant in zip(rows.tolist(), times.shown.tolist(), times.instants.tolist(), strict=True):
        state.tell(shown, instant, times.zoned)
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
