"""Tables in files, for the command line: CSV by the standard library, Parquet where polars or pandas is installed.

A cell is believed to be a number or a time only when it is asked for as one, so that columns nobody uses may hold
anything. Every fault is one line that names the file, the line and the column: ``TableError``.
"""

import csv
import io
import json
import math
import os

import numpy as np

from .._base.reading import read_bytes, replacing

DELIMITERS = ",;\t"
LARGEST = 1e30
MISSING = frozenset(("", "na", "nan", "n/a", "null", "none"))       # cells that hold no number, in any case


class TableError(ValueError):
    """A table that is broken, or has not what was asked of it."""


class Table:
    """Columns by name, as a file has them.

    Attributes
    ----------
    path : str
    columns : dict of str to list or array
        Cells: text from CSV, values from Parquet.
    lines : list of int or None
        The line of the file on which a row of CSV ends.
    """

    def __init__(self, path, columns, lines=None):
        self.path, self.columns, self.lines = path, columns, lines

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def column(self, name, option):
        if name not in self.columns:
            raise TableError(f"{option}: {self.path} has no column {name!r}, only "
                             f"{', '.join(map(repr, self.columns))}")
        return self.columns[name]

    def numbers(self, name, option):
        """A column as float64 [rows], NaN where the cell is empty or says so; none is past 1e30, so that float32 can
        hold it."""
        cells = self.column(name, option)
        found = np.empty(len(cells))
        for row, cell in enumerate(cells):
            try:
                found[row] = math.nan if cell is None or str(cell).strip().lower() in MISSING else float(cell)
            except (TypeError, ValueError):
                raise TableError(f"{self._place(row, name)}: expected a number, got {str(cell)!r:.80}") from None
            if abs(found[row]) > LARGEST:
                raise TableError(f"{self._place(row, name)}: expected a number within {LARGEST:g}, got "
                                 f"{str(cell)!r:.80}")
        return found

    def numeric(self, but=()):
        """Names of the columns, other than `but`, whose cells are all numbers or missing and not all missing."""
        found = []
        for name in self.columns:
            if name not in but:
                try:
                    if not np.isnan(self.numbers(name, "")).all():
                        found.append(name)
                except TableError:
                    pass
        return found

    def times(self, name, option):
        """A column of ISO 8601 times, or dates, as datetime64[us] [rows]; with an offset, turned to UTC."""
        cells = self.column(name, option)
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            return cells.astype("datetime64[us]")
        import datetime
        found = np.empty(len(cells), "datetime64[us]")
        for row, cell in enumerate(cells):
            try:
                time = datetime.datetime.fromisoformat(str(cell).strip())
            except ValueError:
                raise TableError(f"{self._place(row, name)}: expected a time such as 2024-01-31 or 2024-01-31T13:00, "
                                 f"got {str(cell)!r:.80}") from None
            if time.tzinfo is not None:
                time = time.astimezone(datetime.UTC).replace(tzinfo=None)
            found[row] = time
        return found

    def _place(self, row, name):
        return f"{self.path}: {f'line {self.lines[row]}' if self.lines else f'row {row + 1}'}, column {name!r}"


def read(path):
    """The table in a file: .csv, .tsv, .txt (comma, semicolon or tab between cells) or .parquet.

    CSV is UTF-8; lines before the header that begin with # are passed over; the header has a name for every column.

    Raises
    ------
    TableError
        Another ending; an empty file; rows of unequal width; a name that is there twice or missing.
    OSError
        The file cannot be read.
    ImportError
        Parquet, and neither polars nor pandas is installed.
    """
    path = os.fsdecode(path)
    ending = os.path.splitext(path)[1].lower()
    if ending in (".csv", ".tsv", ".txt"):
        return _read_csv(path)
    if ending in (".parquet", ".pq"):
        return _read_parquet(path)
    raise TableError(f"{path}: expected a name that ends in .csv, .tsv, .txt or .parquet")


def _read_csv(path):
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: no UTF-8 text (byte {error.start})") from None
    lines = text.splitlines()
    skipped = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if skipped is None:
        raise TableError(f"{path}: the file is empty")
    delimiter = max(DELIMITERS, key=lines[skipped].count)
    reader = csv.reader(io.StringIO("\n".join(lines[skipped:]), newline=""), delimiter=delimiter, strict=True)
    rows, ends = [], []
    try:
        for row in reader:
            if row:                                     # an empty line is none
                rows.append(row)
                ends.append(skipped + reader.line_num)
            if row and len(row) != len(rows[0]):
                raise TableError(f"{path}: line {ends[-1]} has {len(row)} cells, the header has {len(rows[0])}")
    except csv.Error as error:
        raise TableError(f"{path}: line {skipped + reader.line_num}: {error}") from None
    header = [name.strip() for name in rows.pop(0)]
    _check_header(path, header)
    if not rows:
        raise TableError(f"{path}: a header and no rows")
    return Table(path, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), ends[1:])


def _check_header(path, header):
    for number, name in enumerate(header, 1):
        if not name:
            raise TableError(f"{path}: column {number} of the header has no name")
        if header.index(name) != number - 1:
            raise TableError(f"{path}: the header has {name!r} twice")
    if all(_is_number(name) for name in header):
        raise TableError(f"{path}: the first line must name the columns, it has numbers alone")


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path):
    read_bytes(path, length=0)                          # the usual OSErrors, and regular files alone
    try:
        import polars as library
    except ImportError:
        try:
            import pandas as library
        except ImportError:
            raise ImportError(f"{path}: Parquet needs polars, or pandas with pyarrow: pip install polars") from None
    try:
        frame = library.read_parquet(path)
    except (OSError, MemoryError, ImportError):
        raise
    except Exception as error:                          # each library has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(f"{path}: no Parquet file that {library.__name__} reads: {reason}") from None
    columns = {str(name): frame[name].to_numpy() for name in frame.columns}
    if not columns or not len(frame):
        raise TableError(f"{path}: no rows")
    return Table(path, columns)


def check_out(path, option, endings):
    """The ending of a file to be written, before any work is done for it."""
    ending = os.path.splitext(path)[1].lower()
    if ending not in endings:
        raise TableError(f"{option}: expected a name that ends in {' or '.join(endings)}, got {path!r}")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return ending


def write(path, columns):
    """Writes columns of equal length to a .csv or .json file, all at once or not at all; NaN is an empty cell, or null.

    columns: dict of str to array; times become ISO 8601.
    """
    cells = {name: _cells(np.asarray(values)) for name, values in columns.items()}
    text = io.StringIO(newline="")
    if path.lower().endswith(".json"):
        json.dump(cells, text, indent=1, allow_nan=False)
        text.write("\n")
    else:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _cells(values):
    """Python values for csv and json; a float32 as short as it can be told by."""
    if values.dtype.kind == "M":
        return told(values)
    if values.dtype == np.float32:
        return [None if math.isnan(v) else float(str(v)) for v in values]
    if values.dtype.kind == "f":
        return [None if math.isnan(v) else v for v in values.tolist()]
    return values.tolist()


def told(times):
    """Times as ISO 8601, no finer than they need; a list of str."""
    for unit in ("D", "m", "s", "ms"):
        if (times.astype(f"datetime64[{unit}]") == times).all():
            return np.datetime_as_string(times, unit).tolist()
    return np.datetime_as_string(times).tolist()
