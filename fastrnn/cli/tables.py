"""Tables in files, for the command line: CSV by the standard library, Parquet where polars or pandas is installed.

A cell is read as a number or a time only when a command asks for it, so columns that no command uses may hold
anything. Every fault raises a ``TableError`` whose one line names the file, the line and the column.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base.reading import read_bytes, replacing

DELIMITERS = ",;\t"
LARGEST = 1e30          # numbers beyond it are refused: float32, which the models compute in, ends at 3.4e38
MISSING = frozenset(("", "na", "nan", "n/a", "null", "none"))       # cells that stand for a missing value, in any case


class TableError(ValueError):
    """A table that is broken, or that lacks what a command needs of it."""


class Table:
    """Columns by name, as a file has them.

    Attributes
    ----------
    path : str
    columns : dict of str to list or array
        Cells: text from CSV, values from Parquet.
    lines : list of int or None
        For each row of a CSV file the line of the file on which it ends.
    """

    def __init__(self, path: str, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
                 lines: list[int] | None = None) -> None:
        self.path, self.columns, self.lines = path, columns, lines

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, option: str) -> Sequence[Any] | npt.NDArray[Any]:
        """The cells of a column that the user named in `option`."""
        if name not in self.columns:
            raise TableError(f"{option}: {self.path} has no column {name!r}, only "
                             f"{', '.join(map(repr, self.columns))}")
        return self.columns[name]

    def numbers(self, name: str, option: str) -> npt.NDArray[np.float64]:
        """A column as numbers [rows]; missing values are NaN, and none is beyond 1e30, so that float32 can hold it."""
        cells = self.column(name, option)
        numbers = np.empty(len(cells))
        for row, cell in enumerate(cells):
            try:
                numbers[row] = math.nan if cell is None or str(cell).strip().lower() in MISSING else float(cell)
            except (TypeError, ValueError):
                raise TableError(f"{self._place(row, name)}: expected a number, got {str(cell)!r:.80}") from None
            if abs(numbers[row]) > LARGEST:
                raise TableError(f"{self._place(row, name)}: expected a number within {LARGEST:g}, got "
                                 f"{str(cell)!r:.80}")
        return numbers

    def numeric(self, exclude: Sequence[str] = ()) -> list[str]:
        """Names of the columns whose cells are all numbers or missing, and not all missing."""
        names = []
        for name in self.columns:
            if name not in exclude:
                try:
                    if not np.isnan(self.numbers(name, "")).all():
                        names.append(name)
                except TableError:
                    pass
        return names

    def times(self, name: str, option: str) -> npt.NDArray[np.datetime64]:
        """A column of ISO 8601 times or dates as datetime64[us] [rows]; times with an offset are converted to UTC."""
        cells = self.column(name, option)
        if isinstance(cells, np.ndarray) and cells.dtype.kind == "M":
            return cells.astype("datetime64[us]")
        import datetime
        times = np.empty(len(cells), "datetime64[us]")
        for row, cell in enumerate(cells):
            try:
                time = datetime.datetime.fromisoformat(str(cell).strip())
            except ValueError:
                raise TableError(f"{self._place(row, name)}: expected a time such as 2024-01-31 or 2024-01-31T13:00, "
                                 f"got {str(cell)!r:.80}") from None
            if time.tzinfo is not None:
                time = time.astimezone(datetime.UTC).replace(tzinfo=None)
            times[row] = time
        return times

    def _place(self, row: int, name: str) -> str:
        return f"{self.path}: {f'line {self.lines[row]}' if self.lines else f'row {row + 1}'}, column {name!r}"


# ---- Reading ------------------------------------------------------------------------------------

def read(path: str | os.PathLike[str]) -> Table:
    """Read the table in a file: .csv, .tsv, .txt (cells separated by commas, semicolons or tabs) or .parquet.

    CSV is UTF-8. Lines before the header that begin with # are skipped. The header names every column.

    Raises
    ------
    TableError
        The file's name has another ending; the file is empty; rows have unequal widths; a column's name is missing or
        occurs twice.
    OSError
        The file cannot be read.
    ImportError
        The file is Parquet, and neither polars nor pandas is installed.
    """
    path = os.fsdecode(path)
    ending = os.path.splitext(path)[1].lower()
    if ending in (".csv", ".tsv", ".txt"):
        return _read_csv(path)
    if ending in (".parquet", ".pq"):
        return _read_parquet(path)
    raise TableError(f"{path}: expected a name that ends in .csv, .tsv, .txt or .parquet")


def _read_csv(path: str) -> Table:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: this is no UTF-8 text (byte {error.start})") from None
    lines = text.splitlines()
    skipped = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), None)
    if skipped is None:
        raise TableError(f"{path}: the file is empty")
    delimiter = max(DELIMITERS, key=lines[skipped].count)
    reader = csv.reader(io.StringIO("\n".join(lines[skipped:]), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    ends = []
    try:
        for row in reader:
            if row:                                     # an empty line is no row
                rows.append(row)
                ends.append(skipped + reader.line_num)
            if row and len(row) != len(rows[0]):
                raise TableError(f"{path}: line {ends[-1]} has {len(row)} cells, the header has {len(rows[0])}")
    except csv.Error as error:
        raise TableError(f"{path}: line {skipped + reader.line_num}: {error}") from None
    header = [name.strip() for name in rows.pop(0)]
    _check_header(path, header)
    if not rows:
        raise TableError(f"{path}: there is a header and no rows")
    return Table(path, dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)), ends[1:])


def _check_header(path: str, header: list[str]) -> None:
    for number, name in enumerate(header, 1):
        if not name:
            raise TableError(f"{path}: column {number} of the header has no name")
        if header.index(name) != number - 1:
            raise TableError(f"{path}: the header has {name!r} twice")
    if all(_is_number(name) for name in header):
        raise TableError(f"{path}: the first line must name the columns, but it has numbers alone")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_parquet(path: str) -> Table:
    read_bytes(path, length=0)                          # raises the usual OSErrors, and refuses what is no regular file
    library = _parquet_library()
    if library is None:
        raise ImportError(f"{path}: Parquet needs polars, or pandas with pyarrow: pip install polars")
    try:
        frame = library.read_parquet(path)
    except (OSError, MemoryError, ImportError):
        raise
    except Exception as error:                          # each library raises exceptions of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(f"{path}: {library.__name__} cannot read this as Parquet: {reason}") from None
    columns = {str(name): frame[name].to_numpy() for name in frame.columns}
    if not columns or not len(frame):
        raise TableError(f"{path}: there are no rows")
    return Table(path, columns)


def _parquet_library() -> ModuleType | None:
    """The first package that is installed of those that read Parquet."""
    for name in ("polars", "pandas"):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return None


# ---- Writing ------------------------------------------------------------------------------------

def prepare_output(path: str, option: str, endings: Sequence[str]) -> None:
    """Check the ending of a file that will be written, and make its folder."""
    if os.path.splitext(path)[1].lower() not in endings:
        raise TableError(f"{option}: expected a name that ends in {' or '.join(endings)}, got {path!r}")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)


def write(path: str, columns: Mapping[str, npt.ArrayLike]) -> None:
    """Write columns of equal length to a .csv or .json file, which is replaced as a whole or not at all.

    NaN becomes an empty cell, or null; times become ISO 8601.
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


def _cells(values: npt.NDArray[Any]) -> list[Any]:
    """Python values for csv and json; a float32 gets the fewest digits that tell it from its neighbours."""
    if values.dtype.kind == "M":
        return iso_times(values)
    if values.dtype == np.float32:
        return [None if math.isnan(v) else float(str(v)) for v in values]
    if values.dtype.kind == "f":
        return [None if math.isnan(v) else v for v in values.tolist()]
    return list(values.tolist())


def iso_times(times: npt.NDArray[np.datetime64]) -> list[str]:
    """Times as ISO 8601, in the coarsest unit that loses nothing."""
    for unit in ("D", "m", "s", "ms"):
        if (times.astype(f"datetime64[{unit}]") == times).all():
            return list(np.datetime_as_string(times, unit).tolist())
    return list(np.datetime_as_string(times).tolist())
