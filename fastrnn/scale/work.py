"""What a worker does with one partition: read it, compute, write the result file.

A result file is complete or not there: it is written under another name, brought to the disk and then renamed. What it
is the result of stands in its own metadata, so that a later call sees what is done without a list of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._base import dispatch
from .._base.reading import parse_json
from .._base.writing import replacing
from ..nn.files import load
from .reports import PartitionError
from .sources import arrow

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .sources import Piece

MODELS = 2              # that a worker keeps
HOPELESS = 50           # series that fail, before any has a result: the partition then fails as a whole
NAMED = 3               # series that the error of a whole partition names

_models: dict[str, Any] = {}            # the models that this process has loaded, by the hash of their files


@dataclass(frozen=True)
class Columns:
    """The names of the columns of partitions."""

    series: str
    time: str | None            # None: there are no times
    target: tuple[str, ...]
    either: bool = False        # whether `time` may be missing

    def of(self, names: list[str]) -> Columns:
        """The columns of a table with these names of columns; ValueError, by name, where one is missing."""
        time_column = None if self.either and self.time not in names else self.time
        for name in (self.series, time_column, *self.target):
            if name is not None and name not in names:
                raise ValueError(f"there is no column {name!r}, only {', '.join(names)}")
        return Columns(self.series, time_column, self.target)


@dataclass(frozen=True)
class Task:
    """What is done with every partition; it travels to the workers.

    Attributes
    ----------
    compute : function
        compute(model, table, columns, options) gives a table of pyarrow and what is to be kept beside it, as JSON.
    model : str
        The path of the model's file.
    model_hash : str
        The SHA-256 of this file.
    identity : str
        A hash of the model and all arguments.
    out : str
        The folder of the results.
    columns : Columns
        Of the partitions.
    options : dict
        The arguments of the run.
    threads : int or None
        How many threads a worker uses; None: as its process does by itself.
    """

    compute: Callable[[Any, Any, Columns, dict[str, Any]], tuple[Any, dict[str, Any]]]
    model: str
    model_hash: str
    identity: str
    out: str
    columns: Columns
    options: dict[str, Any]
    threads: int | None

    def path(self, piece: Piece) -> str:
        """The result file of a partition."""
        return os.path.join(self.out, piece.name + ".parquet")


def work(task: Task, piece: Piece) -> dict[str, Any]:
    """Do one partition: the record that its result file has, and what it cost."""
    names: list[str] = []
    clock = [time.perf_counter()]
    try:
        model = _model(task.model, task.model_hash)
        table, contents = piece.read([task.columns.series])
        columns = task.columns.of(table.column_names)
        names = _names(table, columns.series)
        clock.append(time.perf_counter())
        record: dict[str, Any] = {"identity": task.identity, "contents": contents, "size": piece.size, "series": 0,
                                  "rows": 0, "failures": []}
        if names:
            with _threads(task.threads):
                result, failures, extra = _isolated(task, model, table, columns, names)
            record |= {"series": len(names) - len(failures), "rows": len(result), "failures": failures, **extra}
        clock.append(time.perf_counter())
        if names:
            _write(task.path(piece), result, record)
        clock.append(time.perf_counter())
    except Exception as error:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise PartitionError(piece.label, ", ".join(names[:NAMED]) + more, said(error)) from error
    return {"record": record, "seconds": [b - a for a, b in itertools.pairwise(clock)],
            "memory": peak_memory()}


def finished_record(path: str) -> dict[str, Any]:
    """The record in a result file."""
    from pyarrow import parquet
    return dict(parse_json(parquet.read_metadata(path).metadata[b"fastrnn"]))


def finished(task: Task, piece: Piece) -> dict[str, Any] | None:
    """The record in the result file of a partition; None where there is none of this task and this partition."""
    from pyarrow import ArrowException
    path = task.path(piece)
    try:
        record = finished_record(path)
        written = os.stat(path).st_mtime_ns
    except (OSError, ArrowException, KeyError, TypeError, ValueError):
        return None
    if record.get("identity") != task.identity or record.get("size") != piece.size:
        return None
    if piece.path is None or os.stat(piece.path).st_mtime_ns > written:     # it may have changed since
        if piece.contents() != record.get("contents"):
            return None
    return record


def said(error: BaseException) -> str:
    """An error as text of one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _model(path: str, model_hash: str) -> Any:
    """The model of a file, which this process reads once."""
    if model_hash not in _models:
        while len(_models) >= MODELS:
            _models.pop(next(iter(_models)))
        _models[model_hash] = load(path)
    return _models[model_hash]


def _threads(count: int | None) -> AbstractContextManager[None]:
    return contextlib.nullcontext() if count is None else dispatch.threads(count)


def _names(table: Any, series: str) -> list[str]:
    """The names of the series in the order of their first rows, as text; ValueError where a row has none."""
    column = table.column(series)
    if column.null_count:
        raise ValueError(f"{series}: expected the name of a series in every row, {column.null_count} are missing")
    return [str(name) for name in _distinct(column)]


def _distinct(column: Any) -> list[Any]:
    import pyarrow.compute as pc
    return list(pc.unique(column.cast(column.type.value_type) if hasattr(column.type, "value_type") else column)
                .to_pylist())


# ---- Series that fail -----------------------------------------------------------------------------

def _isolated(task: Task, model: Any, table: Any, columns: Columns,
              names: list[str]) -> tuple[Any, list[list[str]], dict[str, Any]]:
    """The result of a table, the series that fail with their errors, and what is kept beside it.

    Where the table as a whole fails, halves of its series are tried, down to single ones; then those that do not fail
    are computed together.
    """
    try:
        result, extra = task.compute(model, table, columns, task.options)
        return result, [], extra
    except Exception as error:
        if len(names) == 1:
            raise
        first = error
    failures: dict[Any, str] = {}
    succeeded = [0]

    def look(some: list[Any]) -> None:
        try:
            task.compute(model, _rows_of(table, columns.series, some), columns, task.options)
            succeeded[0] += len(some)
        except Exception as error:
            if len(some) == 1:
                failures[some[0]] = said(error)
                if len(failures) > HOPELESS and not succeeded[0]:
                    raise first from None
                return
            look(some[:len(some) // 2])
            look(some[len(some) // 2:])

    every = _distinct(table.column(columns.series))
    look(every[:len(every) // 2])
    look(every[len(every) // 2:])
    rest = [name for name in every if name not in failures]
    if not rest:
        raise first
    result, extra = task.compute(model, _rows_of(table, columns.series, rest), columns, task.options)
    return result, [[str(name), error] for name, error in failures.items()], extra


def _rows_of(table: Any, series: str, names: list[Any]) -> Any:
    import pyarrow.compute as pc
    column = table.column(series)
    kind = column.type.value_type if hasattr(column.type, "value_type") else column.type
    return table.filter(pc.is_in(column.cast(kind), arrow().array(names, kind)))


# ---- Results --------------------------------------------------------------------------------------

def _write(path: str, table: Any, record: dict[str, Any]) -> None:
    from pyarrow import parquet
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    with replacing(path) as file:
        parquet.write_table(table.replace_schema_metadata({"fastrnn": text}), file)


def peak_memory() -> int:
    """The most memory that this process has used, in bytes; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
