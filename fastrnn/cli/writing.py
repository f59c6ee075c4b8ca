"""Tables that commands write: CSV, JSON, JSON lines and Parquet, to files or to standard output."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from .._base.writing import check_writable, replacing
from . import frames
from .dialects import TableError
from .times import iso_times

__all__ = ["prepare_output", "write"]


def prepare_output(path: str, option: str, endings: Sequence[str]) -> None:
    """Check that a file can be written under a name, make its folder, and leave no trace."""
    name = path.lower()
    if not name.endswith(tuple(endings)):
        *others, last = endings
        expected = f"{', '.join(others)} or {last}" if others else last
        raise TableError(f"{option}: expected a name that ends in {expected}, got {path!r}")
    if name.endswith(".parquet") and frames.frame_library() is None:
        raise ImportError(f"{option}: Parquet needs polars, or pandas with pyarrow: pip install polars (or "
                          "fastrnn[tables])")
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
        check_writable(path)                            # whether the folder lets one write is told by writing alone
        if os.path.isfile(path):
            with open(path, "r+b"):                     # a file that its owner protected is not replaced
                pass
    except OSError as error:
        raise TableError(f"{option}: {path} cannot be written: {error.strerror or error}") from None


def write(path: str, columns: Mapping[str, npt.ArrayLike], stdout: TextIO | None = None) -> None:
    """Write columns of equal length to a file, which is replaced as a whole or not at all; "-" is standard output.

    The ending says the format: .csv, .csv.gz, .json (an object of columns), .jsonl (an object a row), .parquet. NaN
    becomes an empty cell, or null; times become ISO 8601.
    """
    if path == "-":
        (stdout or sys.stdout).write(_csv(_listed(columns)))
        return
    name = path.lower()
    if name.endswith(".parquet"):
        data = _parquet(columns)
    elif name.endswith(".jsonl"):
        data = _json_lines(_listed(columns)).encode()
    elif name.endswith(".json"):
        data = (json.dumps(_listed(columns), indent=1, allow_nan=False) + "\n").encode()
    else:
        data = _csv(_listed(columns)).encode()
        data = gzip.compress(data, mtime=0) if name.endswith(".gz") else data
    with replacing(path) as file:
        file.write(data)


def _listed(columns: Mapping[str, npt.ArrayLike]) -> dict[str, list[Any]]:
    return {name: _cells(np.asarray(values)) for name, values in columns.items()}


def _csv(cells: Mapping[str, list[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(cells)
    writer.writerows(zip(*cells.values(), strict=True))
    return text.getvalue()


def _json_lines(cells: Mapping[str, list[Any]]) -> str:
    return "".join(json.dumps(dict(zip(cells, row, strict=True)), allow_nan=False) + "\n"
                   for row in zip(*cells.values(), strict=True))


def _parquet(columns: Mapping[str, npt.ArrayLike]) -> bytes:
    library: Any = frames.frame_library()
    file = io.BytesIO()
    frame = library.DataFrame({name: np.asarray(values) for name, values in columns.items()})
    if library.__name__ == "polars":
        frame.write_parquet(file)
    else:
        frame.to_parquet(file, index=False)
    return file.getvalue()


def _cells(values: npt.NDArray[Any]) -> list[Any]:
    """Python values for csv and json; a float32 gets the fewest digits that tell it from its neighbours."""
    if values.dtype.kind == "M":
        return iso_times(values)
    if values.dtype == np.float32:
        return [None if math.isnan(v) else float(str(v)) for v in values]
    if values.dtype.kind == "f":
        return [None if math.isnan(v) else v for v in values.tolist()]
    return list(values.tolist())
