"""What the commands that read tables share: their parsers, options, checks of the output files, messages, axes."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._base.figures import new_figure
from . import tables
from .parser import Parser, cell_name, natural, positive_int, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE_FORMATS = """
FILE is CSV (.csv, .tsv, .txt: a header, then rows; lines before the header that begin with # are skipped; empty cells
and NA are missing values) or Parquet."""
TABLES, PICTURES, MODELS = (".csv", ".json"), (".png", ".svg", ".pdf"), (".npz", ".safetensors")


def add_network_options(parser: Parser) -> None:
    """Add the options of a recurrent layer that have the same name, default and help in every command."""
    parser.add_argument("--cell", type=cell_name, default="gru", metavar="CELL",
                        help="rnn, gru or lstm, in any case (default: gru)")
    parser.add_argument("--hidden-size", type=positive_int, default=32, metavar="N",
                        help="size of the hidden state (default: 32)")
    parser.add_argument("--num-layers", type=positive_int, default=1, metavar="N",
                        help="how many recurrent layers are stacked (default: 1)")
    add_random_state(parser, "the initial weights and the order of training")


def add_random_state(parser: Parser, purpose: str) -> None:
    """Add ``--random-state``, the seed of what `purpose` names."""
    parser.add_argument("--random-state", type=natural, default=0, metavar="SEED",
                        help=f"seed of {purpose} (default: 0)")


def check_outputs(args: argparse.Namespace, **endings: Sequence[str]) -> None:
    """Check the names of the files to be written, and make their folders, before any work is done.

    Parameters
    ----------
    args : argparse.Namespace
        The command's arguments.
    **endings : sequence of str
        By the option's name, the endings that its file may have.
    """
    for option, allowed in endings.items():
        path = getattr(args, option)
        if path is not None:
            tables.prepare_output(path, f"--{option}", allowed)
    if getattr(args, "plot", None):
        new_figure("--plot", 1, 1)      # without matplotlib: say so now


def report_written(content: str, path: str) -> None:
    """Print which file holds what was written."""
    print(f"{content}: {printable(path)}")


@contextlib.contextmanager
def blame_table(path: str) -> Iterator[None]:
    """Turn the errors that a model or an estimator raises for a table's numbers into errors that name the table."""
    try:
        yield
    except tables.TableError:
        raise
    except (TypeError, ValueError) as error:
        raise tables.TableError(f"{path}: {error}") from error


def matrix(table: tables.Table, names: Sequence[str], option: str) -> npt.NDArray[np.float64]:
    """Columns of a table as an array [rows, columns]; each must have at least one value."""
    values = np.empty((len(table), len(names)))
    for name, column in zip(names, values.T, strict=True):
        column[:] = table.numbers(name, option)
        if np.isnan(column).all():
            raise tables.TableError(f"{table.path}: column {name!r} has no value")
    return values


def numeric_columns(table: tables.Table, exclude: Sequence[str] = ()) -> list[str]:
    """Names of a table's columns of numbers: what is read where the user names no columns."""
    names = table.numeric(exclude)
    if not names:
        raise tables.TableError(f"{table.path}: there is no column of numbers")
    return names


def label_dates(ax: Axes, positions: npt.NDArray[Any]) -> None:
    """Label the horizontal axis with short dates, if the positions along it are dates."""
    if positions.dtype.kind == "M":
        import matplotlib.dates
        dates: Any = matplotlib.dates       # has no annotations
        locator = dates.AutoDateLocator()
        ax.xaxis.set(major_locator=locator, major_formatter=dates.ConciseDateFormatter(locator))
