"""The series of a table, for the commands that forecast: which columns are what, and the values of each series."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import tables
from .common import hint_at_times, matrix, numeric_columns
from .parser import Parser
from .times import TimeColumn, TimeStyle

__all__ = ["Roles", "TableSeries", "add_column_options", "fit_arguments", "read_series", "roles_of"]

_ISO = TimeStyle("%Y-%m-%dT%H:%M", "m")


def add_column_options(parser: Parser) -> None:
    """Add the options that say what the columns of the table are."""
    parser.add_argument("--target", nargs="+", metavar="COL",
                        help="columns to forecast (default: all that are numbers, but for those that only number the "
                             "rows)")
    parser.add_argument("--time", nargs="+", metavar="COL",
                        help="column of times, or two columns, of dates and of times of the day; rows are sorted by "
                             "it, and steps that the table lacks become missing values")
    parser.add_argument("--series", metavar="COL", help="column that says which series a row belongs to")
    parser.add_argument("--known", nargs="+", default=[], metavar="COL", help="input columns known in advance")
    parser.add_argument("--past", nargs="+", default=[], metavar="COL", help="input columns known up to the present")
    parser.add_argument("--static", nargs="+", default=[], metavar="COL",
                        help="input columns that do not change within a series, of numbers or of text (needs --series)")
    parser.add_argument("--time-features", nargs="+", choices=("day", "week", "year"), default=[],
                        help="the network also reads the time of day, week, year (needs --time)")


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are.

    Attributes
    ----------
    target : tuple of str
        The columns to forecast.
    time : tuple of str
        The column of times, or those of dates and of times of the day; empty if there are no times.
    series : str or None
        The column that tells series apart.
    known, past : tuple of str
        Input columns: those known in advance, those known up to the present.
    static : tuple of str
        Input columns that do not change within a series.
    """

    target: tuple[str, ...]
    time: tuple[str, ...] = ()
    series: str | None = None
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


def roles_of(args: argparse.Namespace, table: tables.Table) -> Roles:
    """The roles of columns that the options of ``add_column_options`` name."""
    time = tuple(args.time or ())
    if not time:
        hint_at_times(table)
    target = args.target or numeric_columns(table, (*time, args.series, *args.known, *args.past, *args.static),
                                            "--target")
    if args.series and len(target) > 1:
        raise tables.TableError(f"--target: {table.path} has {len(target)} columns of numbers, expected one where "
                                "--series says which series a row belongs to")
    return Roles(tuple(target), time, args.series, tuple(args.known), tuple(args.past), tuple(args.static))


@dataclass
class TableSeries:
    """One series: up to its last value, and what is known of the steps to forecast."""

    name: str
    y: npt.NDArray[np.float64]                      # values [T]
    known: npt.NDArray[np.float64]                  # columns known in advance [T, F]
    past: npt.NDArray[np.float64]                   # columns known up to the present [T, P]
    times: npt.NDArray[np.datetime64] | None        # [T]
    future: npt.NDArray[np.float64]                 # columns known in advance, of the steps to forecast [horizon, F]
    style: TimeStyle                                # how the table writes times
    static: list[Any]                               # columns that do not change, numbers or text [S]

    def first(self, rows: int | None) -> TableSeries:
        """The series up to a row."""
        times = None if self.times is None else self.times[:rows]
        return replace(self, y=self.y[:rows], known=self.known[:rows], past=self.past[:rows], times=times)


def read_series(table: tables.Table, roles: Roles, horizon: int, in_future: bool = True,
                resampled: bool = False) -> Iterator[TableSeries]:
    """The series of a table, one after the other, in the order of their first rows.

    Where there are columns known in advance, the table also has `horizon` rows after the last value of each series, if
    `in_future` says so. Times may be there twice only where series are `resampled`.
    """
    y, known, past = (matrix(table, names, option) for names, option in (
        (roles.target, "--target"), (roles.known, "--known"), (roles.past, "--past")))
    column: TimeColumn | None = table.time_column(roles.time, "--time") if roles.time else None
    for name, rows in table.groups(roles.series, "--series"):
        if column is not None:
            rows = table.in_order(column, rows, name, resampled)
        for number, target in enumerate(roles.target):
            label = target if name is None else name
            with_value = np.flatnonzero(~np.isnan(y[rows, number]))
            if not len(with_value):
                raise tables.TableError(f"{table.path}: series {label!r} has no value")
            T = int(with_value[-1]) + 1 if roles.known else len(rows)
            until_now, later = rows[:T], rows[T:T + horizon]
            if roles.known and in_future and len(later) < horizon:
                raise tables.TableError(f"{table.path}: series {label!r} has {len(later)} rows after its last value, "
                                        f"expected --horizon {horizon} of them with the --known columns")
            yield TableSeries(label, y[until_now, number], known[until_now], past[until_now],
                              None if column is None else column.values[until_now], known[later],
                              _ISO if column is None else column.style,
                              [_static(table, name, rows, label) for name in roles.static])


def _static(table: tables.Table, name: str, rows: npt.NDArray[np.intp], series: str) -> float | str:
    """What a column has in all rows of a series: a number, or text where the column is not of numbers."""
    cells = table.column(name, "--static")
    values = [str(cells[row]).strip() for row in rows.tolist()]
    for row, value in zip(rows.tolist(), values, strict=True):
        if value != values[0]:
            raise tables.TableError(f"{table.place(row, name)}: expected {values[0]!r}, as in the other rows of series "
                                    f"{series!r}, got {value!r:.80}")
    if name in table.numeric(exclude=[other for other in table.columns if other != name]):
        return float(table.numbers(name, "--static")[rows[0]])
    return values[0]


def fit_arguments(all_series: list[TableSeries]) -> dict[str, Any]:
    """The series as the arguments of ``RNNForecaster.fit``."""
    def parts(name: str) -> list[Any]:
        return [getattr(series, name) for series in all_series]

    first = all_series[0]
    return {"X": parts("known") if first.known.shape[1] else None, "y": parts("y"),
            "past": parts("past") if first.past.shape[1] else None,
            "times": None if first.times is None else parts("times"),
            "static": np.array(parts("static"), object) if first.static else None}
