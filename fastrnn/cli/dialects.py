"""Text of a table: from the bytes of a file or of standard input to a header and rows of cells.

In the order of the work: ``contents`` (standard input, pipes, compression), ``decoded`` (the encoding), ``split`` (the
delimiter, the header, the rows). What a cell means as a number or a time is the matter of ``cells``.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .._base.reading import read_bytes

__all__ = ["Dialect", "Rows", "TableError", "below_header", "contents", "decoded", "is_pipe", "split"]

DELIMITERS = ("\t", ";", "|", ",")     # of two that would do, the first: commas also stand in numbers and names
LOOKED_AT = 50          # lines by which the delimiter is told
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
         b"\xfe\xff": "utf-16"}             # the byte order marks that a text may begin with
TOTALS = frozenset(("total", "totals", "grand total", "sum", "average", "mean", "summe", "gesamt", "gesamtsumme",
                    "mittelwert", "durchschnitt", "total général", "somme", "moyenne", "totale", "suma"))


class TableError(ValueError):
    """A table that is broken, or that lacks what a command needs of it."""


@dataclass(frozen=True)
class Dialect:
    """How a table is written. What is None is told by the file itself.

    Attributes
    ----------
    delimiter : str or None
        What stands between two cells; " " is any number of spaces.
    decimal, thousands : str or None
        The decimal mark, and what groups the digits before it.
    encoding : str or None
        The encoding of the text.
    missing : tuple of str
        Cells that stand for a missing value beside the usual ones.
    date_format : str or None
        How times are written, as ``strptime`` has it, or a unit: "s", "ms", "us", "ns" since 1970, "excel".
    header : bool
        Whether the first row names the columns.
    skip : int
        Lines before the header that do not belong to the table.
    sheet : str or None
        The sheet of a workbook; the first one if not given.
    """

    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    missing: tuple[str, ...] = ()
    date_format: str | None = None
    header: bool = True
    skip: int = 0
    sheet: str | None = None


@dataclass
class Rows:
    """Rows of cells below their header, and for each row the line of the file on which it ends."""

    header: list[str]
    rows: list[list[Any]]
    lines: list[int]


# ---- Bytes --------------------------------------------------------------------------------------

def contents(path: str) -> bytes:
    """The bytes of a file, of a pipe, or of standard input where the path is "-"; unpacked if they are compressed."""
    if path == "-":
        if sys.stdin is None:
            raise TableError("-: there is no standard input")
        data = sys.stdin.buffer.read()
    elif is_pipe(path):
        with open(path, "rb") as file:
            data = file.read()
    else:
        data = read_bytes(path)
    try:
        return _unpacked(data, path)
    except TableError:
        raise
    except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError,
            NotImplementedError) as error:
        raise TableError(f"{path}: this compressed file cannot be unpacked: {error}") from None


def is_pipe(path: str) -> bool:
    """Whether a path is that of a pipe, as the shell's <(command) is."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _unpacked(data: bytes, path: str) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    if data[:3] == b"BZh":
        return bz2.decompress(data)
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.decompress(data)
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            if "[Content_Types].xml" in names:              # a workbook is an archive itself
                return data
            if len(names) != 1:
                raise TableError(f"{path}: expected an archive of one file, it has {len(names)}: unpack it first")
            return archive.read(names[0])
    return data


# ---- Text ---------------------------------------------------------------------------------------

def decoded(data: bytes, path: str, encoding: str | None) -> str:
    """The text of a file: in the encoding given, or that of its byte order mark, or UTF-8."""
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    if encoding is None and marked is None and b"\0" in data[:1000]:
        raise TableError(f"{path}: this is no UTF-8 text, it has zero bytes: if it is UTF-16, --encoding utf-16-le or "
                         "utf-16-be reads it")
    name = encoding or marked or "utf-8"
    try:
        return data.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if name != "utf-8":
            raise TableError(f"{path}: line {line}: this is no text in the encoding {name} (byte {error.start})"
                             ) from None
        raise TableError(f"{path}: line {line}: this is no UTF-8 text (byte {error.start}); --encoding names another, "
                         "such as cp1252, which Excel writes in western Europe") from None
    except UnicodeError as error:
        raise TableError(f"{path}: this is no text in the encoding {name}: {error}") from None


# ---- Rows ---------------------------------------------------------------------------------------

def split(text: str, path: str, dialect: Dialect) -> Rows:
    """The header and the rows of a text.

    Empty lines are passed over, and so are lines before the header that begin with #.
    """
    lines = re.split("\r\n|\n|\r", text)
    first, delimiter = dialect.skip, dialect.delimiter
    while first < len(lines) and (not lines[first].strip() or lines[first].startswith("#")):
        first += 1
    if first < len(lines) and (hint := re.fullmatch(r'"?sep=(.)"?', lines[first].strip(" "))):     # Excel's own line
        delimiter, first = delimiter or hint[1], first + 1
    if first >= len(lines):
        raise TableError(f"{path}: the file is empty")
    delimiter = delimiter or _told_delimiter(lines[first:])
    rows, ends = [], []
    for row, line in _parsed(lines[first:], delimiter, path, first):
        if row:                                         # an empty line is no row
            rows.append(row)
            ends.append(line)
    if not rows:
        raise TableError(f"{path}: the file is empty")
    comment = next((line for line in reversed(lines[dialect.skip:first]) if line.strip()), "")
    if dialect.header and comment.startswith("#") and _is_data(rows[0]):            # "# time, load"
        names = next(csv.reader([comment.lstrip("# ")], delimiter=delimiter, skipinitialspace=True), [])
        if len(names) == len(rows[0]) and not _is_data(names):
            rows.insert(0, names)
            ends.insert(0, first)
    return below_header(rows, ends, path, dialect)


def below_header(rows: list[list[Any]], ends: list[int], path: str, dialect: Dialect) -> Rows:
    """The rows below their header, if all are as wide as it is and every column has a name of its own."""
    while len(rows) > 1 and all(map(_is_blank, rows[-1])):      # spreadsheets write such rows at the end
        rows, ends = rows[:-1], ends[:-1]
    header = [str(name).strip() for name in rows[0]] if dialect.header else _numbered(len(rows[0]))
    if dialect.header:
        rows, ends = rows[1:], ends[1:]
    width = len(header)
    for number, (row, line) in enumerate(zip(rows, ends, strict=True)):
        if len(row) != width:
            rows[number] = row = _without_empty_end(row, width)
        if len(row) != width:
            advice = f" (--skip {line - 1} passes over what is before it)" if not number and len(row) > width else ""
            raise TableError(f"{path}: line {line} has {len(row)} cells, the header has {width}{advice}")
    result = Rows(header, rows, ends)
    _check_header(path, result)
    if not rows:
        raise TableError(f"{path}: there is a header and no rows")
    _refuse_totals(path, result)
    return result


def _is_blank(cell: Any) -> bool:
    return not str(cell).strip()


def _parsed(lines: Sequence[str], delimiter: str, path: str, skipped: int) -> Iterator[tuple[list[str], int]]:
    """Rows and the lines on which they end."""
    reader = csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=delimiter, strict=True,
                        skipinitialspace=delimiter == " ")
    try:
        for row in reader:
            yield row, skipped + reader.line_num
    except csv.Error as error:
        raise TableError(f"{path}: line {skipped + reader.line_num}: {error}") from None


def _told_delimiter(lines: Sequence[str]) -> str:
    """The delimiter that cuts the first lines into the most cells, equally many in each.

    Where none does, it is the most frequent one of the header, and the rows of other widths will be named as errors.
    """
    head = [line for line in lines if line.strip()][:LOOKED_AT]
    widths = {delimiter: _common_width(head, delimiter) for delimiter in (*DELIMITERS, " ")}
    spaces = widths.pop(" ")
    if max(widths.values()) > 1:
        return max(widths, key=lambda delimiter: widths[delimiter])
    most = max(DELIMITERS, key=head[0].count)
    if head[0].count(most):
        return most
    if spaces > 1:
        return " "
    below = {delimiter: _common_width(head[1:], delimiter) for delimiter in DELIMITERS if len(head) > 1}
    if max(below.values(), default=0) > 1:
        delimiter = max(below, key=lambda delimiter: below[delimiter])
        if not _is_data(next(csv.reader([head[1]], delimiter=delimiter))):
            return delimiter            # a title, the header below it: the rows will be named as wider than the title
    return next((each for each in DELIMITERS if not any(each in line for line in head)), ",")  # one column: "1,5" stays


def _common_width(lines: Sequence[str], delimiter: str) -> int:
    """How many cells the delimiter cuts every line into; 0 if not equally many."""
    try:
        rows = [row for row, _ in _parsed(lines, delimiter, "", 0)]
    except TableError:
        if len(lines) < LOOKED_AT:
            return 0
        return _common_width(lines[:len(lines) // 2], delimiter)        # a quoted cell may go on after the last line
    widths = {len(_without_empty_end(row, len(rows[0]))) for row in rows}
    return widths.pop() if len(widths) == 1 else 0


def _without_empty_end(row: list[Any], width: int) -> list[Any]:
    """The row without the empty cells after its first `width` ones."""
    return row[:width] if all(map(_is_blank, row[width:])) else row


def _numbered(count: int) -> list[str]:
    return [f"column{number}" for number in range(1, count + 1)]


def _check_header(path: str, rows: Rows) -> None:
    header = rows.header
    if _is_data(header):
        kind = "numbers" if any(map(_is_number, header)) else "times"
        raise TableError(f"{path}: the first line must name the columns, but it has {kind} alone; with --no-header "
                         f"they are {', '.join(_numbered(min(len(header), 2)))}, ...")
    for column in reversed(range(len(header))):         # columns that a spreadsheet has written to the right
        if not header[column] and all(_is_blank(row[column]) for row in rows.rows) and len(header) > 1:
            del header[column]
            for row in rows.rows:
                del row[column]
    if not header[0] and "index" not in header:         # as pandas and R write the index of a frame
        header[0] = "index"
    for number, name in enumerate(header, 1):
        if not name:
            raise TableError(f"{path}: column {number} of the header has no name")
        if header.index(name) != number - 1:
            raise TableError(f"{path}: the header has {name!r} twice, in columns {header.index(name) + 1} and {number}")


def _is_data(row: Sequence[str]) -> bool:
    """Whether a row is no header, as it has nothing but numbers, dates and empty cells."""
    cells = [cell.strip() for cell in row if cell.strip()]
    return bool(cells) and all(_is_number(cell) or _is_date(cell) for cell in cells)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _is_date(text: str) -> bool:
    return re.match(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b", text) is not None


def _refuse_totals(path: str, rows: Rows) -> None:
    """Refuse a last row that sums up the others, which spreadsheets like to have, and which is no row of the series."""
    for column, cell in enumerate(rows.rows[-1]):
        word = _word(cell)
        if word in TOTALS and not any(_word(row[column]) == word for row in rows.rows[:-1]):
            raise TableError(f"{path}: line {rows.lines[-1]} looks like a row of totals ({str(cell)!r}): remove it")


def _word(cell: Any) -> str:
    return str(cell).strip().strip(":").lower()
