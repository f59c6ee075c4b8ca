"""Tables in files, for the command line: text by the standard library, Parquet, Feather and workbooks by others.

A cell is read as a number or a time only when a command asks for it, so columns that no command uses may hold
anything. Every fault raises a ``TableError`` whose one line names the file, the line and the column. How text is cut
into cells is in ``dialects``, what cells mean in ``numerals`` and ``times``, frames and workbooks are in ``frames``,
and tables are written by ``writing``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..datasets import WEATHER
from . import dialects, frames, numerals, times
from .dialects import Dialect, TableError
from .numerals import is_missing
from .parser import closest, note
from .times import UNITS as TIME_UNITS
from .times import TimeColumn, iso_times
from .writing import prepare_output, write

__all__ = ["LARGEST", "TIME_UNITS", "AmbiguityError", "Dialect", "Numbers", "Table", "TableError", "iso_times",
           "prepare_output", "read", "write"]

Numbers = npt.NDArray[np.float64]
LARGEST = 1e30          # numbers beyond it are refused: float32, which the models compute in, ends at 3.4e38
LOOKED_AT = 1000        # cells by which a column that has other cells, too, is taken for one of numbers
SHOWN = 20              # names of columns that an error message lists
TEXTS, PACKED = (".csv", ".tsv", ".txt", ".dat", ".tab"), (".gz", ".bz2", ".xz", ".zip")
FRAMES = (".parquet", ".pq", ".feather", ".arrow", ".xlsx", ".xlsm")


class AmbiguityError(TableError):
    """Numbers that can be read in two ways."""


class Table:
    """Columns by name, as a file has them.

    Attributes
    ----------
    path : str
    columns : dict of str to list or array
        Cells: text from CSV, values from frames and workbooks.
    lines : list of int or None
        For each row of a CSV file the line of the file on which it ends; the row of the sheet in a workbook.
    dialect : Dialect
        How numbers and times are written.
    """

    def __init__(self, path: str, columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
                 lines: list[int] | None = None, dialect: Dialect | None = None, line: str = "line") -> None:
        self.path, self.columns, self.lines, self.line = path, columns, lines, line
        self.dialect = dialect or Dialect()
        self._missing = frozenset(text.strip().lower() for text in self.dialect.missing)
        self._sentinels = {numerals.number(text) for text in self.dialect.missing if _is_number(text)}
        self._noted: set[str] = set()
        self._marks: dict[str, str | None] = {}
        self._has_comma: bool | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str, option: str) -> Sequence[Any] | npt.NDArray[Any]:
        """The cells of a column that the user named in `option`."""
        if name not in self.columns:
            names = list(map(repr, self.columns))
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            suggestion = closest(name, self.columns)
            raise TableError(f"{option}: {self.path} has no column {name!r}, only {', '.join(names[:SHOWN])}{more}"
                             + (f"; did you mean {suggestion!r}?" if suggestion else ""))
        return self.columns[name]

    def note(self, text: str) -> None:
        """Say on stderr, once, how something in the table was understood."""
        if text not in self._noted:
            self._noted.add(text)
            note(f"{self.path}: {text}")

    def place(self, row: int, name: str | None = None) -> str:
        """Where a row is, and a cell of it, for messages."""
        return f"{self.path}: {self.where(row)}" + (f", column {name!r}" if name is not None else "")

    def where(self, row: int) -> str:
        """The line of a row in the file, or its number."""
        return f"{self.line} {self.lines[row]}" if self.lines else f"row {row + 1}"

    # ---- Numbers ----------------------------------------------------------------------------------

    def numbers(self, name: str, option: str) -> npt.NDArray[np.float64]:
        """A column as numbers [rows]; missing values are NaN, and none is beyond 1e30, so that float32 can hold it."""
        cells = self.column(name, option)
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
            values = cells.astype(np.float64)
        else:
            values = self._parsed(name, cells)
        for sentinel in self._sentinels:
            values[values == sentinel] = math.nan
        beyond = np.abs(values) > LARGEST
        if beyond.any():
            row = int(np.argmax(beyond))
            raise TableError(f"{self.place(row, name)}: expected a number within {LARGEST:g}, got "
                             f"{str(cells[row])!r:.80}")
        return values

    def _parsed(self, name: str, cells: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        values = self._plain(cells)
        if values is not None:
            return values
        unit = numerals.shared_unit(self._texts(name))
        decimal = self._decimal(name, unit)
        plain = decimal == "." and self.dialect.thousands is None
        values = np.empty(len(cells))
        for row, cell in enumerate(cells):
            try:
                if plain and unit is None and cell.__class__ is str and "_" not in cell:
                    try:
                        values[row] = float(cell)               # nearly all cells of nearly all tables
                        continue
                    except ValueError:
                        pass
                if is_missing(cell, self._missing):
                    values[row] = math.nan
                    continue
                if unit is not None and isinstance(cell, str):
                    cell = cell.strip().strip(unit)
                values[row] = numerals.number(cell, decimal, self.dialect.thousands)
            except (TypeError, ValueError):
                raise TableError(f"{self.place(row, name)}: expected a number, got {str(cell)!r:.80}"
                                 + self._advice(str(cell), decimal)) from None
        if unit is not None:
            self.note(f"the {unit} of every value in column {name!r} is left out")
        return values

    def _plain(self, cells: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.float64] | None:
        """The numbers of a column that is as Python writes it, which is quick; None of any other column."""
        if self.dialect.decimal not in (None, ".") or self.dialect.thousands or not isinstance(cells, list):
            return None
        try:
            values = np.array(list(map(float, cells)))
        except (TypeError, ValueError):
            return None
        if "_" in "".join(map(str, cells)) or (self.dialect.decimal is None and self._any_comma()):
            return None
        return values

    def _any_comma(self) -> bool:
        """Whether any cell of the table has a comma, which may be a decimal mark."""
        if self._has_comma is None:
            self._has_comma = any(isinstance(cell, str) and "," in cell for cells in self.columns.values()
                                  if isinstance(cells, list) for cell in cells)
        return self._has_comma

    def _advice(self, text: str, decimal: str) -> str:
        """What a user may do about a cell that is no number."""
        if _is_number(text, numerals.OTHER_MARK[decimal]):
            return f", and others of the column have a decimal {'comma' if decimal == ',' else 'point'}"
        if len(text) <= 12:
            return f" (--missing {text!r} takes it for a missing value)"
        return ""

    def _texts(self, name: str) -> list[str]:
        """The cells of a column that are text and not missing."""
        cells = self.columns[name]
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiubM":
            return []
        return [cell for cell in cells if isinstance(cell, str) and not is_missing(cell, self._missing)]

    def _decimal(self, name: str, unit: str | None) -> str:
        """The decimal mark of a column: the user's, or the one that its cells or those of other columns tell."""
        if self.dialect.decimal is not None:
            return self.dialect.decimal
        texts = self._texts(name)
        if unit is not None:
            texts = [text.strip().strip(unit) for text in texts]
        if not any("," in text for text in texts):
            if self._decimal_of_others(only_commas=True) != ",":
                return "."
            if numerals.evidence(texts).doubtful is None:
                return "."
            self.note("numbers are read with a decimal comma")
            return ","                              # 1.234 in a table of decimal commas
        found = numerals.evidence(texts)
        mark: str | None = found.last
        if found.doubtful is not None:
            mark = self._decimal_of_others()
        if mark is None:
            row = list(self.columns[name]).index(found.doubtful)
            number = found.doubtful
            raise AmbiguityError(f"{self.place(row, name)}: {number!r} may be {numerals.number(number, '.'):g} or "
                                 f"{numerals.number(number, ','):g}: --decimal . or --decimal , says which")
        if found.marks:
            self.note("numbers are read with a decimal comma" if mark == "," else
                      "commas in numbers are read as separators of thousands")
        return mark

    def _decimal_of_others(self, only_commas: bool = False) -> str | None:
        """The decimal mark that the columns tell whose numbers can be read in one way only; None if they differ."""
        marks = set()
        for name in self.columns:
            if name not in self._marks:
                texts = self._texts(name)
                if only_commas and not any("," in text for text in texts):
                    continue
                found = numerals.evidence(texts)
                self._marks[name] = found.marks if len(found.marks) == 1 else None
            marks.add(self._marks[name])
        marks.discard(None)
        return marks.pop() if len(marks) == 1 else None

    def numeric(self, exclude: Sequence[str | None] = ()) -> list[str]:
        """Names of the columns whose cells are all numbers or missing, and not all missing.

        A column that has a few cells of something else is left out, and that is said.
        """
        names = []
        for name in self.columns:
            if name not in exclude:
                try:
                    if not np.isnan(self.numbers(name, "")).all():
                        names.append(name)
                except AmbiguityError:
                    raise
                except TableError as error:
                    texts = self._texts(name)[:LOOKED_AT]
                    if sum(map(_is_number, texts)) > len(texts) / 2:
                        self.note(f"column {name!r} is left out: {str(error).removeprefix(f'{self.path}: ')}")
        return names

    # ---- Times ------------------------------------------------------------------------------------

    def times(self, name: str, option: str) -> npt.NDArray[np.datetime64]:
        """A column of times or dates as datetime64[us] [rows]; those with different offsets are converted to UTC."""
        return self.time_column((name,), option).values

    def time_column(self, names: Sequence[str], option: str) -> TimeColumn:
        """A column of times, or one of dates and one of times of the day, which are joined."""
        cells = self.column(names[0], option)
        if len(names) > 1:
            cells = [f"{str(date).strip().removesuffix(' 00:00:00')} {str(time).strip()}"
                     for date, time in zip(cells, self.column(names[1], option), strict=True)]
        try:
            result = times.read(cells, self.dialect.date_format)
        except times.TimeFault as fault:
            raise TableError(f"{self.place(fault.row, ' '.join(names))}: {fault}") from None
        if result.note:
            self.note(f"times in column {' '.join(names)!r} are {result.note}")
        return result

    def groups(self, name: str | None, option: str) -> list[tuple[str | None, npt.NDArray[np.intp]]]:
        """The names of the series that a column tells apart, in the order of their first rows, and the rows of each.

        Without such a column all rows are one series, whose name is None.
        """
        if name is None:
            return [(None, np.arange(len(self)))]
        rows: dict[str, list[int]] = {}
        for row, cell in enumerate(self.column(name, option)):
            if is_missing(cell, self._missing):
                raise TableError(f"{self.place(row, name)}: expected the name of a series, it is missing")
            rows.setdefault(str(cell).strip(), []).append(row)
        return [(series, np.array(own)) for series, own in rows.items()]

    def series_column(self, cells: Iterable[Any]) -> str | None:
        """A column of text that tells rows of the same time apart, if there is one: it may name series."""
        texts = list(map(str, cells))
        if len(set(texts)) == len(texts):
            return None
        for name, values in self.columns.items():
            names = list(map(str, values))
            if 1 < len(set(names)) <= len(names) / 2 and not any(map(_is_number, names)):
                if len(set(zip(names, texts, strict=True))) == len(texts):
                    return name
        return None

    def in_order(self, column: TimeColumn, rows: npt.NDArray[np.intp], series: str | None = None,
                 twice: bool = False) -> npt.NDArray[np.intp]:
        """Some rows in the order of their times, which must all differ if they may not be there twice."""
        values = column.values[rows]
        steps = np.diff(values).astype(np.int64)
        if (steps > -twice).all():
            return rows
        order = np.argsort(values, kind="stable")
        rows, values = rows[order], values[order]
        same = np.flatnonzero(np.diff(values).astype(np.int64) == 0)
        of_series = "" if series is None else f" of series {series!r}"
        if len(same) and not twice:
            first, second = rows[same[0]], rows[same[0] + 1]
            others = f", and {len(same) - 1} more such pairs" if len(same) > 1 else ""
            like = None if series is not None else self.series_column(column.cells)
            hint = "" if like is None else f"--series {like!r} tells series apart, "
            raise TableError(f"{self.path}: {self.where(int(first))} and {self.where(int(second))}{of_series} have the "
                             f"same time, {column.cells[second]}{others} ({hint}--resample makes one row of each step)")
        self.note("rows are sorted by time")
        return rows


def _is_number(text: str, decimal: str = ".") -> bool:
    try:
        numerals.number(text, decimal)
    except ValueError:
        return False
    return True


# ---- Reading ------------------------------------------------------------------------------------

def read(path: str | os.PathLike[str], dialect: Dialect | None = None) -> Table:
    """Read the table in a file, or of standard input ("-").

    Text (.csv, .tsv, .txt, .dat) has a header that names every column; it may be compressed (.gz, .bz2, .xz, .zip).
    Lines before the header that begin with # are skipped. Parquet, Feather and workbooks (.xlsx) are told by their
    contents. The path "weather", where there is no such file, is the table that ships with fastrnn.

    Raises
    ------
    TableError
        The file's name has another ending; the file is empty; rows have unequal widths; a column's name is missing or
        occurs twice.
    OSError
        The file cannot be read.
    ImportError
        The package that reads such a file is not installed.
    """
    path, dialect = os.fsdecode(path), dialect or Dialect()
    source = str(WEATHER) if path == "weather" and not os.path.exists(path) else path
    ending = _ending(source)
    if ending == ".xls":
        raise TableError(f"{path}: this is an old workbook: save it as .xlsx or .csv")
    if source != "-" and not dialects.is_pipe(source) and ending not in TEXTS + FRAMES:
        raise TableError(f"{path}: expected a name that ends in {', '.join(TEXTS)}, .parquet, .feather or .xlsx (with "
                         f"{', '.join(PACKED)} behind it or not), or - for standard input")
    data = dialects.contents(source)
    columns = frames.columns(data, path, ending)
    if columns is not None:
        return Table(path, columns, dialect=dialect)
    if frames.is_workbook(data) or ending in (".xlsx", ".xlsm"):
        rows, line = frames.workbook(data, path, dialect), "row"
    else:
        text = dialects.decoded(data, path, dialect.encoding)
        rows, line = dialects.split(text, path, dialect), "line"
    columns = dict(zip(rows.header, map(list, zip(*rows.rows, strict=True)), strict=True))
    return Table(path, columns, rows.lines, dialect, line)


def _ending(path: str) -> str:
    """The ending of a file's name that says what it holds: .csv of data.csv.gz, and of data.gz."""
    stem, ending = os.path.splitext(path)
    if ending.lower() in PACKED:
        return os.path.splitext(stem)[1].lower() or ".csv"
    return ending.lower()
