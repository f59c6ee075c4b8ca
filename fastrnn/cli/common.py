"""What the commands that read tables share: their parsers, options, checks of the output files, messages, axes."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from .._base.figures import new_figure
from ..nn.quantized import PRECISIONS
from . import tables, times
from .parser import (
    Parser,
    cell_name,
    character,
    encoding_name,
    natural,
    positive_int,
    printable,
)
from .tables import Dialect

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE_FORMATS = """
FILE is text (.csv, .tsv, .txt: a header, then rows; lines before the header that begin with # are skipped; empty cells,
NA and the like are missing values; compressed by .gz, .bz2, .xz or .zip, or not), Parquet, Feather, a workbook (.xlsx),
or - for standard input. The word "weather" stands for the year of hourly weather that ships with fastrnn."""
TABLES, PICTURES = (".csv", ".csv.gz", ".json", ".jsonl", ".parquet"), (".png", ".svg", ".pdf")
MODELS = (".npz", ".safetensors")
STDOUT = "-"

IDENTIFIERS = frozenset(("index", "idx", "row", "rownum", "row number", "no", "no.", "nr", "nr.", "nummer", "number",
                         "record", "seq", "counter", "key", "pk", "unnamed: 0", "level 0", "zeile", "lfd nr"))
TIMES = frozenset(("time", "timestamp", "ts", "t", "epoch", "unix", "unixtime", "unix time", "date", "datetime",
                   "datum", "zeit", "ds", "year", "jahr"))
UNIX_TIMES = tuple((6.3e8 * scale, 4.1e9 * scale) for scale in (1, 1e3, 1e6, 1e9))      # 1990 to 2100 in s, ms, us, ns


# ---- Options --------------------------------------------------------------------------------------

def add_network_options(parser: Parser, purpose: str = "the initial weights and the order of training") -> None:
    """Add the options of a recurrent layer that have the same name, default and help in every command."""
    parser.add_argument("--cell", type=cell_name, default="gru", metavar="CELL",
                        help="rnn, gru or lstm, in any case (default: gru)")
    parser.add_argument("--hidden-size", type=positive_int, default=32, metavar="N",
                        help="size of the hidden state (default: 32)")
    parser.add_argument("--num-layers", type=positive_int, default=1, metavar="N",
                        help="how many recurrent layers are stacked (default: 1)")
    add_random_state(parser, purpose)


def add_random_state(parser: Parser, purpose: str) -> None:
    """Add ``--random-state``, the seed of what `purpose` names."""
    parser.add_argument("--random-state", type=natural, default=0, metavar="SEED",
                        help=f"seed of {purpose} (default: 0)")


def add_precision(parser: argparse._ActionsContainer, default: str = "float32") -> None:
    """Add ``--precision``, that of the recurrent layers' weights where they are used."""
    parser.add_argument("--precision", choices=("float32", *PRECISIONS),
                        help="precision of the recurrent layers' weights in forecasts; training is float32 (default: "
                             f"{default})")


def add_reading_options(parser: Parser) -> None:
    """Add the options that say how a table is written, where the table itself does not tell."""
    group = parser.add_argument_group("how the table is written (told by the table itself where it can be)")
    group.add_argument("--delimiter", type=character, metavar="CHAR",
                       help="what stands between cells: a character, or comma, semicolon, tab, pipe, space")
    group.add_argument("--decimal", type=character, choices=(".", ","), metavar="CHAR",
                       help="decimal mark of numbers: . or , (also: point, comma)")
    group.add_argument("--thousands", type=character, metavar="CHAR",
                       help="what groups the digits of numbers: a character, or point, comma, space, apostrophe")
    group.add_argument("--date-format", metavar="FORMAT",
                       help="how times are written, such as %%d/%%m/%%Y %%H:%%M; or s, ms, us, ns (since 1970), or "
                            "excel (days of a workbook)")
    group.add_argument("--encoding", type=encoding_name, metavar="NAME",
                       help="encoding of the text, such as cp1252 or utf-16 (default: UTF-8)")
    group.add_argument("--missing", nargs="+", default=[], metavar="TEXT",
                       help="cells that stand for a missing value beside empty ones, NA and the like: -9999, ...")
    group.add_argument("--no-header", action="store_true",
                       help="the first row has values, not names; columns are named column1, column2, ...")
    group.add_argument("--skip", type=natural, metavar="LINES",
                       help="lines before the header that do not belong to the table")
    group.add_argument("--sheet", metavar="NAME", help="sheet of a workbook, by name or number (default: the first)")


def dialect(args: argparse.Namespace, otherwise: Dialect | None = None) -> Dialect:
    """What the options of ``add_reading_options`` say, and of what they do not say what `otherwise` does."""
    said = {"delimiter": args.delimiter, "decimal": args.decimal, "thousands": args.thousands,
            "encoding": args.encoding, "missing": tuple(args.missing) or None, "date_format": args.date_format,
            "header": False if args.no_header else None, "skip": args.skip, "sheet": args.sheet}
    return replace(otherwise or Dialect(), **{name: value for name, value in said.items() if value is not None})


def read_table(args: argparse.Namespace, path: str) -> tables.Table:
    """Read a table as the options of ``add_reading_options`` say."""
    return tables.read(path, dialect(args))


def resample_parameter(args: argparse.Namespace) -> str | tuple[str, str] | None:
    """``--resample`` as the forecaster's parameter has it: a step, or a step and a function."""
    if args.resample is None:
        return None
    step, *function = map(str, args.resample)
    return (step, function[0]) if function else step


def check_resample(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse ``--resample`` without times, or with more than a step and a function."""
    if args.resample and not args.time:
        parser.error("argument --resample: needs --time")
    if args.resample and len(args.resample) > 2:
        parser.error(f"argument --resample: expected a step and a function, got {' '.join(args.resample)}")


def check_reading(parser: Parser, args: argparse.Namespace) -> None:
    """Refuse reading options that contradict each other, or a format that no time can have."""
    if len(getattr(args, "time", None) or ()) > 2:
        parser.error(f"argument --time: expected one column or two, of dates and of times of the day, got "
                     f"{' '.join(args.time)}")
    if args.thousands is not None and args.thousands == (args.decimal or "."):
        parser.error(f"argument --thousands: {args.thousands!r} is the decimal mark; --decimal names another")
    if args.delimiter is not None and args.delimiter == args.decimal:
        parser.error(f"argument --decimal: {args.decimal!r} is the delimiter; quoted cells are no reason for both")
    if args.date_format is not None and args.date_format not in tables.TIME_UNITS and "%" not in args.date_format:
        parser.error("argument --date-format: expected a format such as %d.%m.%Y, or one of "
                     f"{', '.join(tables.TIME_UNITS)}, got {args.date_format!r}")


# ---- Files that are written -----------------------------------------------------------------------

def check_outputs(args: argparse.Namespace, **endings: Sequence[str]) -> None:
    """Check the names of the files to be written, and make their folders, before any work is done.

    Parameters
    ----------
    args : argparse.Namespace
        The command's arguments.
    **endings : sequence of str
        By the option's name, the endings that its file may have. Standard output ("-") will do for tables.
    """
    paths: dict[str, str] = {}
    for option, allowed in endings.items():
        path = getattr(args, option)
        if path is None or (path == STDOUT and allowed is TABLES):
            continue
        flag = f"--{option.replace('_', '-')}"
        tables.prepare_output(path, flag, allowed)
        real = os.path.realpath(path)
        if real in paths:
            raise tables.TableError(f"{flag}: {path} is also what {paths[real]} writes")
        source = getattr(args, "file", None)
        if source is not None and source != STDOUT and os.path.realpath(source) == real:
            raise tables.TableError(f"{flag}: {path} is the table that is read")
        paths[real] = flag
    if getattr(args, "plot", None):
        new_figure("--plot", 1, 1)      # without matplotlib: say so now


def report_written(content: str, path: str) -> None:
    """Print which file holds what was written."""
    if path != STDOUT:
        print(f"{content}: {printable(path)}")


@contextlib.contextmanager
def clean_stdout(path: str | None) -> Iterator[TextIO]:
    """Print to stderr what a command has to say, where its table goes to standard output, which this gives."""
    stdout = sys.stdout
    if path != STDOUT:
        yield stdout
    else:
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout


_OPTIONS = {"times": "--time", "y": "--target", "past": "--past", "X": "--known"}


@contextlib.contextmanager
def blame_table(path: str, series: Sequence[str] = ()) -> Iterator[None]:
    """Turn the errors that a model or an estimator raises for a table's numbers into errors that name the table.

    Where a message names the arguments of series, such as times[2], it is made to name the option and the series. So
    are warnings.
    """
    show = warnings.showwarning
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *place, **more: show(
                f"{path}: {_named(str(message), series)}", *place, **more)
            yield
    except tables.TableError:
        raise
    except (TypeError, ValueError) as error:
        message = _named(str(error), series)
        hint = " (--resample does it)" if "resample=" in message else ""
        raise tables.TableError(f"{path}: {message}{hint}") from error


def _named(message: str, series: Sequence[str]) -> str:
    """A message with options and names of series in place of arguments."""
    def name(match: re.Match[str]) -> str:
        number = int(match[2] or 0)
        return f"{_OPTIONS[match[1]]}, series {series[number]!r}" if number < len(series) else match[0]

    return re.sub(r"\b(times|y|past|X)(?:\[(\d+)\]|(?=: ))", name, message)


# ---- Columns --------------------------------------------------------------------------------------

def matrix(table: tables.Table, names: Sequence[str], option: str) -> npt.NDArray[np.float64]:
    """Columns of a table as an array [rows, columns]; each must have at least one value."""
    values = np.empty((len(table), len(names)))
    for name, column in zip(names, values.T, strict=True):
        column[:] = table.numbers(name, option)
        if np.isnan(column).all():
            raise tables.TableError(f"{table.path}: column {name!r} has no value")
    return values


def numeric_columns(table: tables.Table, exclude: Sequence[str | None] = (), option: str = "--columns") -> list[str]:
    """Names of a table's columns of numbers: what is read where the user names no columns.

    Columns that only tell rows apart (numbers of rows, identifiers, Unix times) are left out, and that is said.
    """
    names = []
    numeric = table.numeric(exclude)
    for name in numeric:
        reason = _why_no_value(name, table.numbers(name, ""))
        if reason is None:
            names.append(name)
        else:
            table.note(f"column {name!r} is left out, as {reason}; {option} names columns to read")
    if not names:
        raise tables.TableError(f"{table.path}: there is no column of numbers"
                                + (f" but {', '.join(map(repr, numeric))}; {option} names it" if numeric else ""))
    return names


def _why_no_value(name: str, values: npt.NDArray[np.float64]) -> str | None:
    """Why a column of numbers only tells rows apart; None if it has values."""
    plain = name.lower().replace("_", " ").replace("-", " ").strip()
    if plain == "id" or plain.endswith(" id"):
        return "its name is that of an identifier"
    steps = np.diff(values)
    if np.isnan(values).any() or len(values) < 5:
        return None
    if (steps > 0).all() and np.ptp(steps) <= 1e-6 * steps[0]:
        return f"it rises by {steps[0]:.6g} in every row"
    if (values != np.rint(values)).any():
        return None
    rising = bool((steps >= 0).all())
    if (rising or plain in TIMES) and any(low <= values.min() and values.max() <= high for low, high in UNIX_TIMES):
        return "it looks like times since 1970"
    if rising and plain in IDENTIFIERS | TIMES:
        return "its name is that of an identifier or a time, and it never falls"
    return None


def hint_at_times(table: tables.Table) -> None:
    """Say that a column holds times, where the user names none."""
    for name, cells in table.columns.items():
        ends = [cells[0], cells[-1]]
        if not all(isinstance(cell, str) and len(cell) >= 8 and not cell.strip().isdecimal() for cell in ends):
            if not (isinstance(cells, np.ndarray) and cells.dtype.kind == "M"):
                continue
        with contextlib.suppress(ValueError):
            times.read(ends, table.dialect.date_format)
            table.note(f"column {name!r} holds times; --time {name!r} dates the rows by it")
            series = table.series_column(cells)
            if series is not None:
                table.note(f"column {series!r} may tell series apart; --series {series!r} makes one of each")
            return


def label_dates(ax: Axes, positions: npt.NDArray[Any]) -> None:
    """Label the horizontal axis with short dates, if the positions along it are dates."""
    if positions.dtype.kind == "M":
        import matplotlib.dates
        dates: Any = matplotlib.dates       # has no annotations
        locator = dates.AutoDateLocator()
        ax.xaxis.set(major_locator=locator, major_formatter=dates.ConciseDateFormatter(locator))
