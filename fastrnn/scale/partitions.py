"""``partition``: a table of any size cut into files that hold whole series, in bounded memory.

Rows are read in blocks and put into as many buckets as there will be files, by a hash of their series' name. A bucket
is a file of blocks in Arrow's stream format, which is appended to. At last every bucket is read by itself, sorted by
series, and written as Parquet.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.writing import replacing
from .sources import arrow, as_table, csv_columns, file_paths, is_path

if TYPE_CHECKING:
    from .._base.typing import IntArray, PathLike

ROWS = 500_000          # of a partition, roughly, where the number of partitions is not given
BLOCK = 1 << 17         # rows that are read at once
HELD = 64 << 20         # bytes of rows that are held before buckets are written


def partition(files: PathLike | Iterable[Any], *, by: str = "unique_id", out: PathLike,
              partitions: int | None = None) -> list[str]:
    """Cut a long table into Parquet files that hold whole series.

    The table may be larger than memory: about 200 MB are held at a time, and one partition. Rows of a series may be
    anywhere in it. A file holds its series in the order of their names, and the rows of each in the order of the table.
    The same table gives the same files, to the byte.

    Parameters
    ----------
    files : str, path-like, sequence of these, or iterable of frames
        Parquet or CSV files (``.csv``, ``.csv.gz``), a folder of them, or a pattern such as ``"sales-*.csv"``; or
        frames of pandas, polars or pyarrow, which are taken one after another.
    by : str
        The column that says which series a row belongs to.
    out : str or path-like
        The folder of the new files, ``part-00000.parquet`` and so on. It must not be there yet: it appears when all is
        written, and a call that is interrupted leaves nothing under this name.
    partitions : int, optional
        How many files to make. By default so many that one has about 500,000 rows. Frames have no size that is known
        before, so it must be given beside them.

    Returns
    -------
    list of str
        The paths of the files, in order. A file has no rows where no series fell into it.

    Raises
    ------
    FileExistsError
        The folder `out` is there already.
    TypeError, ValueError
        An unsuitable argument, by name; columns that differ between files; a row whose series has no name.
    ImportError
        The package pyarrow is missing: ``pip install fastrnn[scale]``.
    OSError
        A file cannot be read or written.

    Examples
    --------
    >>> import os, tempfile
    >>> import pyarrow as pa
    >>> from fastrnn import scale
    >>> table = pa.table({"unique_id": ["a", "b", "c"] * 4, "ds": [n // 3 for n in range(12)], "y": range(12)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = scale.partition([table], out=os.path.join(folder, "parts"), partitions=2)
    ...     [os.path.basename(path) for path in paths]
    ['part-00000.parquet', 'part-00001.parquet']
    """
    pa, folder = arrow(), os.path.abspath(os.fsdecode(out))
    if not isinstance(by, str):
        raise TypeError(f"by: expected the name of a column, got {type(by).__name__}")
    if os.path.exists(folder):
        raise FileExistsError(f"out: there is a folder {folder} already")
    is_files = is_path(files) or (isinstance(files, (list, tuple)) and len(files) > 0 and all(map(is_path, files)))
    paths = file_paths(files, "files") if is_files else []
    if partitions is not None:
        count = check.size(partitions, "partitions")
    elif is_files:
        count = max(1, -(-sum(map(_row_count, paths)) // ROWS))
    else:
        raise ValueError("partitions: expected the number of files to make, as the size of frames is not known before")
    draft = f"{folder}.{os.urandom(4).hex()}.tmp"
    os.makedirs(draft)
    try:
        _spill(pa, _blocks(paths, by) if is_files else _frame_blocks(files, by), by, draft, count)
        names = [_finish(pa, draft, n, by) for n in range(count)]
        os.rename(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return [os.path.join(folder, name) for name in names]


# ---- Reading ------------------------------------------------------------------------------------

def _row_count(path: str) -> int:
    """The rows of a file; of a CSV file its lines."""
    if path.lower().endswith(".parquet"):
        from pyarrow import parquet
        return int(parquet.ParquetFile(path).metadata.num_rows)
    count = 0
    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
    return count


def _blocks(paths: list[str], by: str) -> Iterator[Any]:
    """The record batches of files."""
    pa = arrow()
    for path in paths:
        if path.lower().endswith(".parquet"):
            from pyarrow import parquet
            for batch in parquet.ParquetFile(path).iter_batches(BLOCK):
                yield _checked(batch, by, path)
        else:
            from pyarrow import csv
            with pa.input_stream(path, compression="detect") as stream:
                for batch in csv.open_csv(stream, convert_options=csv_columns([by])):
                    yield _checked(batch, by, path)


def _frame_blocks(frames: Any, by: str) -> Iterator[Any]:
    if hasattr(frames, "columns"):
        frames = [frames]
    if not isinstance(frames, Iterable):
        raise TypeError(f"files: expected files or frames, got {type(frames).__name__}")
    for n, frame in enumerate(frames):
        for batch in as_table(frame, "files").to_batches(BLOCK):
            yield _checked(batch, by, f"frame {n}")


def _checked(batch: Any, by: str, where: str) -> Any:
    """The batch without metadata, if it has names of series in every row."""
    if by not in batch.schema.names:
        raise ValueError(f"by: {where} has no column {by!r}, only {', '.join(batch.schema.names)}")
    if batch.column(by).null_count:
        raise ValueError(f"by: {where} has rows without a name of their series in column {by!r}")
    return batch.replace_schema_metadata(None)


# ---- Buckets ------------------------------------------------------------------------------------

def _spill(pa: Any, batches: Iterator[Any], by: str, folder: str, count: int) -> None:
    """Put all rows into their buckets."""
    held: dict[int, list[Any]] = {}
    size, schema = 0, None
    for batch in batches:
        schema = schema or batch.schema
        batch = _alike(pa, batch, schema)
        buckets = _buckets(batch.column(by), count)
        order = np.argsort(buckets, kind="stable")
        sorted_rows = batch.take(pa.array(order))
        present, starts = np.unique(buckets[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        for bucket, start, stop in zip(present.tolist(), starts.tolist(), stops, strict=True):
            held.setdefault(bucket, []).append(sorted_rows.slice(start, stop - start))
        size += sorted_rows.nbytes
        if size > HELD:
            _append(pa, held, folder)
            held, size = {}, 0
    if schema is None:
        raise ValueError("files: expected rows, there are none")
    for bucket in range(count):
        held.setdefault(bucket, [pa.RecordBatch.from_pylist([], schema)])
    _append(pa, held, folder)


def _append(pa: Any, held: dict[int, list[Any]], folder: str) -> None:
    for bucket, batches in held.items():
        table = pa.Table.from_batches(batches).combine_chunks()
        with open(os.path.join(folder, f"{bucket}.rows"), "ab") as file:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)


def _alike(pa: Any, batch: Any, schema: Any) -> Any:
    """The batch with the columns and types of the first one."""
    if batch.schema.equals(schema):
        return batch
    if set(batch.schema.names) != set(schema.names):
        raise ValueError(f"files: expected the columns {', '.join(schema.names)} everywhere, as in the first block, "
                         f"got {', '.join(batch.schema.names)}")
    try:
        columns = [batch.column(field.name).cast(field.type) for field in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)
    except pa.ArrowInvalid as error:
        raise ValueError(f"files: a block has values that do not fit the types of the first one: {error}") from None


def _buckets(names: Any, count: int) -> IntArray:
    """The bucket of each row, by the CRC-32 of the text of its series' name."""
    encoded = names if hasattr(names, "indices") else names.dictionary_encode()
    hashes = np.array([zlib.crc32(str(name).encode()) % count for name in encoded.dictionary.to_pylist()], np.int64)
    result: IntArray = hashes[encoded.indices.to_numpy(zero_copy_only=False)]
    return result


def _finish(pa: Any, folder: str, bucket: int, by: str) -> str:
    """Write the file of one bucket, and return its name."""
    from pyarrow import parquet
    path, name, tables = os.path.join(folder, f"{bucket}.rows"), f"part-{bucket:05d}.parquet", []
    with open(path, "rb") as file:
        while file.peek(1):
            tables.append(pa.ipc.open_stream(file).read_all())
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    encoded = table.column(by).combine_chunks()
    encoded = encoded if hasattr(encoded, "indices") else encoded.dictionary_encode()
    encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
    labels = encoded.dictionary.to_pylist()
    ranks = np.empty(len(labels), np.int64)
    ranks[sorted(range(len(labels)), key=labels.__getitem__)] = np.arange(len(labels))
    codes = ranks[encoded.indices.to_numpy(zero_copy_only=False)] if len(table) else np.empty(0, np.int64)
    if np.any(np.diff(codes) < 0):
        table = table.take(pa.array(np.argsort(codes, kind="stable")))
    with replacing(os.path.join(folder, name)) as file:
        parquet.write_table(table, file)
    os.unlink(path)
    return name
