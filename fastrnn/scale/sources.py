"""Partitions: Parquet or CSV files, or frames of an iterator, each with all rows of some series.

A partition is read as a table of pyarrow. Only its name and its path travel to a worker, which reads the file itself;
a frame of an iterator travels as it is.
"""

from __future__ import annotations

import glob
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._base.reading import read_bytes
from ..forecasting.frames import narwhals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import PathLike

ENDINGS = (".parquet", ".csv", ".csv.gz")


def arrow() -> Any:
    """The module pyarrow; ImportError, which says how to get it, where it is missing."""
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("fastrnn.scale needs the package pyarrow: pip install fastrnn[scale]") from error
    return pyarrow


@dataclass(frozen=True)
class Piece:
    """One partition: a file, or a frame of an iterator.

    Attributes
    ----------
    name : str
        What its result is called: the file's name without its ending, or the number of the frame.
    path : str or None
        The file.
    table : pyarrow.Table or None
        The frame.
    size : int
        Bytes of the file, or of the frame.
    """

    name: str
    path: str | None
    table: Any
    size: int

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.path if self.path is not None else f"frame {self.name}"

    def read(self, text: Sequence[str]) -> tuple[Any, int]:
        """The table, and the CRC-32 of its contents; columns `text` of a CSV file are read as text."""
        if self.path is None:
            return self.table, checksum(self.table)
        data = read_bytes(self.path)
        return parsed(data, self.path, text), zlib.crc32(data)

    def contents(self) -> int:
        """The CRC-32 of its contents."""
        return checksum(self.table) if self.path is None else zlib.crc32(read_bytes(self.path))


def parsed(data: bytes, path: str, text: Sequence[str]) -> Any:
    """The table in the contents of a file."""
    pa = arrow()
    if path.lower().endswith(".parquet"):
        from pyarrow import parquet
        return parquet.read_table(pa.BufferReader(data), use_threads=False)
    from pyarrow import csv
    stream: Any = io.BytesIO(data)
    if path.lower().endswith(".gz"):
        stream = pa.CompressedInputStream(stream, "gzip")
    return csv.read_csv(stream, csv.ReadOptions(use_threads=False), convert_options=csv_columns(text))


def csv_columns(text: Sequence[str]) -> Any:
    """Options of pyarrow's reader of CSV files: names of series are text, "0012" too."""
    from pyarrow import csv
    return csv.ConvertOptions(column_types={name: arrow().string() for name in text}, strings_can_be_null=True,
                              null_values=["", "NA", "NaN", "nan", "null", "None"])


def checksum(table: Any) -> int:
    """The CRC-32 of a table: of its schema and of the values of all columns."""
    total = zlib.crc32(str(table.schema.remove_metadata()).encode())
    for batch in table.combine_chunks().to_batches():
        pa = arrow()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema.remove_metadata()) as writer:
            writer.write_batch(batch.replace_schema_metadata(None))
        total = zlib.crc32(sink.getvalue(), total)
    return total


def as_table(frame: Any, name: str) -> Any:
    """A frame of pandas, polars or pyarrow as a table of pyarrow."""
    pa = arrow()
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    try:
        return narwhals().from_native(frame, eager_only=True).to_arrow()
    except TypeError:
        raise TypeError(f"{name}: expected frames of pandas, polars or pyarrow, got {type(frame).__name__}") from None


def is_path(source: object) -> bool:
    """Whether a source is one path, a folder or a pattern."""
    return isinstance(source, (str, bytes, os.PathLike))


def file_paths(source: PathLike | Iterable[PathLike], name: str) -> list[str]:
    """The files of a source: one file, all files of a folder, those of a pattern with ``*``, or several of these."""
    if not is_path(source):
        result = [path for each in source for path in file_paths(each, name)]      # type: ignore[union-attr]
        if not result:
            raise ValueError(f"{name}: expected at least one file, got none")
        return result
    path = os.fsdecode(source)                  # type: ignore[arg-type]
    if os.path.isdir(path):
        result = sorted(entry.path for entry in os.scandir(path)
                        if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith("."))
        if not result:
            raise ValueError(f"{name}: the folder {path} has no file that ends in {', '.join(ENDINGS)}")
        return result
    if not os.path.exists(path) and glob.has_magic(path):
        result = sorted(glob.glob(path))
        if not result:
            raise ValueError(f"{name}: no file is called {path}")
        return result
    if not path.lower().endswith(ENDINGS):
        raise ValueError(f"{name}: expected a folder or a name that ends in {', '.join(ENDINGS)}, got {path}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{name}: there is no file {path}")
    return [path]


def pieces(source: Any, name: str = "source") -> Iterator[Piece] | list[Piece]:
    """The partitions of a source: a list of files, or an iterator over frames that are taken one by one."""
    if is_path(source) or (isinstance(source, (list, tuple)) and source and all(map(is_path, source))):
        paths = [os.path.abspath(path) for path in file_paths(source, name)]
        names = [_stem(path) for path in paths]
        for n, each in enumerate(names):
            if each in names[:n]:
                raise ValueError(f"{name}: expected files whose names differ, as results are called like them; "
                                 f"{paths[names.index(each)]} and {paths[n]} are both called {each}")
        return [Piece(stem, path, None, os.stat(path).st_size) for stem, path in zip(names, paths, strict=True)]
    if hasattr(source, "columns") or isinstance(source, (list, tuple, Iterator)) or hasattr(source, "__iter__"):
        return _frames([source] if hasattr(source, "columns") else source, name)
    raise TypeError(f"{name}: expected files or an iterator of frames, got {type(source).__name__}")


def _frames(source: Iterable[Any], name: str) -> Iterator[Piece]:
    for n, frame in enumerate(source):
        table = as_table(frame, name)
        yield Piece(f"{n:06d}", None, table, table.nbytes)


def _stem(path: str) -> str:
    name = os.path.basename(path)
    return next(name[:-len(ending)] for ending in ENDINGS[::-1] if name.lower().endswith(ending))
