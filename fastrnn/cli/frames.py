"""Tables that a library reads: Parquet and Feather by polars or pandas, workbooks by openpyxl."""

from __future__ import annotations

import datetime
import importlib
import io
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dialects
from .dialects import Dialect, Rows, TableError
from .parser import note

__all__ = ["LIBRARIES", "columns", "frame_library", "is_workbook", "workbook"]

LIBRARIES = ("polars", "pandas")
FORMATS = {b"PAR1": ("Parquet", "read_parquet"), b"ARRO": ("Feather", "read_ipc"), b"FEA1": ("Feather", "read_ipc")}


# ---- Frames -------------------------------------------------------------------------------------

def columns(data: bytes, path: str, ending: str) -> dict[str, npt.NDArray[Any] | list[Any]] | None:
    """The columns of a Parquet or Feather file; None if the data is of another format."""
    name, reader = FORMATS.get(data[:4], (None, ""))
    if name is None:
        if ending in (".parquet", ".pq", ".feather", ".arrow"):
            raise TableError(f"{path}: this is no {'Parquet' if ending.startswith('.p') else 'Feather'} file")
        return None
    library = frame_library()
    if library is None:
        raise ImportError(f"{path}: {name} needs polars, or pandas with pyarrow: pip install polars (or "
                          "fastrnn[tables])")
    if library.__name__ == "pandas" and reader == "read_ipc":
        reader = "read_feather"
    try:
        frame = getattr(library, reader)(io.BytesIO(data))
    except (OSError, MemoryError, ImportError) as error:
        if isinstance(error, OSError) and error.errno is None:          # pyarrow's, about the contents
            raise TableError(f"{path}: {library.__name__} cannot read this as {name}: {_first_line(error)}") from None
        raise
    except Exception as error:                          # each library raises exceptions of its own
        raise TableError(f"{path}: {library.__name__} cannot read this as {name}: {_first_line(error)}") from None
    if library.__name__ == "pandas" and (frame.index.name is not None or frame.index.dtype.kind == "M"):
        frame = frame.reset_index()
    result = {"index" if name == "__index_level_0__" else str(name): _cells(frame[name]) for name in frame.columns}
    if not result or not len(frame):
        raise TableError(f"{path}: there are no rows")
    return result


def frame_library() -> ModuleType | None:
    """The first package that is installed of those that read and write Parquet."""
    for name in LIBRARIES:
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    return None


def _cells(column: Any) -> npt.NDArray[Any] | list[Any]:
    """A column of a frame as an array; times with a zone as text with their offsets, so that these are kept."""
    if getattr(column.dtype, "time_zone", None) or getattr(column.dtype, "tz", None):
        return [None if time is None else time.isoformat() for time in column.to_list()]
    return np.asarray(column.to_numpy())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---- Workbooks ----------------------------------------------------------------------------------

def is_workbook(data: bytes) -> bool:
    """Whether data that was unpacked already is still an archive, as .xlsx is."""
    return data[:4] == b"PK\x03\x04"


def workbook(data: bytes, path: str, dialect: Dialect) -> Rows:
    """The rows of a sheet, from the first row on that has anything in it."""
    try:
        import openpyxl
    except ImportError:
        raise ImportError(f"{path}: workbooks need openpyxl: pip install openpyxl (or fastrnn[tables])") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")             # about styles and the like
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheet = _sheet(book, path, dialect.sheet)
            sheet.reset_dimensions()                    # what the file says of its size is often wrong
            cells = [[_value(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    except (MemoryError, TableError):
        raise
    except Exception as error:                          # of zipfile, of XML, of its own
        raise TableError(f"{path}: openpyxl cannot read this: {_first_line(error)}") from None
    width = max(map(len, cells), default=0)
    numbered = [(number, row + [""] * (width - len(row))) for number, row in enumerate(cells, 1)
                if number > dialect.skip]
    numbered = [(number, row) for number, row in numbered if any(cell != "" for cell in row)]
    if not numbered:
        raise TableError(f"{path}: the sheet is empty")
    return dialects.below_header([row for _, row in numbered], [number for number, _ in numbered], path, dialect)


def _sheet(book: Any, path: str, name: str | None) -> Any:
    """The sheet by its name or number, or the first one."""
    names = [sheet.title for sheet in book.worksheets]
    if name is None:
        if len(names) > 1:
            note(f"{path}: the sheet {names[0]!r} is read, the first of {len(names)}; --sheet names another")
        return book.worksheets[0]
    if name in names:
        return book.worksheets[names.index(name)]
    if name.isdecimal() and 1 <= int(name) <= len(names):
        return book.worksheets[int(name) - 1]
    raise TableError(f"--sheet: {path} has no sheet {name!r}, only {', '.join(map(repr, names))}")


def _value(cell: Any) -> Any:
    """A cell as a table has it: text or a number."""
    if cell is None:
        return ""
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(" ")
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    return cell if isinstance(cell, (str, int, float)) else str(cell)
