"""What the commands that read tables share: their parsers, what they check, what they print and draw."""

import contextlib

import numpy as np

from .._base.figures import new_figure
from . import tables
from .parser import Parser, shown

DATA = """
FILE is CSV (.csv, .tsv, .txt: a header, then rows; empty cells and NA are missing values) or Parquet."""
TABLES, PICTURES, MODELS = (".csv", ".json"), (".png", ".svg", ".pdf"), (".npz", ".safetensors")


def table_parser(command, usage, description, *examples):
    lines = ["example:", *(f"python -m fastrnn {line}" for line in examples)]
    parser = Parser(command, description, "\n  ".join(lines))
    parser.usage = f"%(prog)s {usage}"          # argparse would put FILE last, after options that take any number
    return parser


def check_outputs(args, **options):
    """Checks the names of files to be written, and makes their folders, before any work."""
    for option, endings in options.items():
        path = getattr(args, option)
        if path is not None:
            tables.check_out(path, f"--{option}", endings)
    if getattr(args, "plot", None):
        new_figure("--plot", 1, 1)


def wrote(what, path):
    print(f"{what}: {shown(path)}")


@contextlib.contextmanager
def of_table(path):
    """What a model or an estimator cannot make of a table's numbers is the table's fault."""
    try:
        yield
    except tables.TableError:
        raise
    except (TypeError, ValueError) as error:
        raise tables.TableError(f"{path}: {error}") from error


def matrix(table, names, option):
    """Columns as float64 [rows, columns]."""
    found = np.empty((len(table), len(names)))
    for name, values in zip(names, found.T, strict=True):
        values[:] = table.numbers(name, option)
        if np.isnan(values).all():
            raise tables.TableError(f"{table.path}: column {name!r} has no value")
    return found


def numeric_columns(table, but=()):
    """Names of a table's columns of numbers, where nobody named any."""
    names = table.numeric(but)
    if not names:
        raise tables.TableError(f"{table.path}: there is no column of numbers")
    return names




def dates_along(axes, when):
    """Short dates along the axis, where it has dates."""
    if when.dtype.kind == "M":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        locator = AutoDateLocator()
        axes.xaxis.set(major_locator=locator, major_formatter=ConciseDateFormatter(locator))
