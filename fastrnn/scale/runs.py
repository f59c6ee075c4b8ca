"""The run over all partitions: what is done already, who does the rest, what is said on the way.

A run's folder has ``_manifest.json`` (of which model and with which arguments), the model's file, and a result file for
each partition. A run that was killed, wherever, goes on when it is called again: a partition with a result file is
done.
"""

from __future__ import annotations

import copy
import glob
import hashlib
import json
import os
import queue
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._base import validation as check
from .._base.estimator import Estimator
from .._base.progress import Progress
from .._base.reading import parse_json, read_bytes
from .._base.writing import replacing
from ..nn.files import load
from .reports import Failure, PartitionError, Report
from .sources import Piece, arrow, pieces
from .work import Columns, Task, finished, said, work

if TYPE_CHECKING:
    from .._base.typing import PathLike

VERSION = 1             # of the manifest
WAITING = 4             # tasks that wait for each worker, of files; frames are handed out two for each worker
FEW_WORKERS, MOST_WORKERS = 16, 1000    # that an executor is taken to have: where it does not say, and at most
PARTS = ("read", "compute", "write")


@dataclass(frozen=True)
class Setting:
    """How a run is carried out, which its results do not depend on: the executor, threads, progress."""

    executor: Any
    threads: int | None
    progress: bool

    def checked(self) -> Setting:
        """The setting, if it can be used."""
        if self.executor is not None and not callable(getattr(self.executor, "submit", None)):
            raise TypeError("executor: expected None, an executor as concurrent.futures has them, or a Dask client, "
                            f"got {type(self.executor).__name__}")
        threads = None if self.threads is None else check.size(self.threads, "threads")
        if threads is None and self.executor is not None:
            threads = 1
        return Setting(self.executor, threads, check.flag(self.progress, "progress"))


def estimator(model: Any, kind: type[Estimator], name: str = "model") -> Any:
    """An estimator, or the one in a file."""
    if isinstance(model, (str, os.PathLike)):
        model = load(model)
    if type(model) is not kind:
        raise TypeError(f"{name}: expected one of class {kind.__name__} or the path of its file, got "
                        f"{type(model).__name__}")
    return model


def run(compute: Callable[..., Any], model: Estimator, source: Any, out: PathLike, columns: Columns,
        options: dict[str, Any], setting: Setting) -> Report:
    """Compute every partition of a source, and write the results into a folder."""
    begin = time.perf_counter()
    arrow()
    setting = setting.checked()
    parts = pieces(source)
    folder = os.path.abspath(check.path(out, "out"))
    if isinstance(parts, list) and any(os.path.dirname(str(piece.path)) == folder for piece in parts):
        raise ValueError(f"out: expected another folder than that of the partitions, {folder}")
    task = _begun(compute, model, folder, columns, options, setting)
    report = Report(folder)
    _go(task, parts, setting, report)
    report.seconds = time.perf_counter() - begin
    if report.failures:
        warnings.warn(f"{len(report.failures)} series or partitions have no results, the first: {report.failures[0]}",
                      UserWarning, stacklevel=3)
    return report


# ---- The folder -----------------------------------------------------------------------------------

def _begun(compute: Callable[..., Any], model: Estimator, folder: str, columns: Columns, options: dict[str, Any],
           setting: Setting) -> Task:
    """The task, with its folder made ready or found to be of the same one."""
    data = model_bytes(model)
    model_hash = hashlib.sha256(data).hexdigest()
    arguments = {**options, "series": columns.series, "time": columns.time, "target": list(columns.target)}
    manifest = {"version": VERSION, "task": compute.__name__, "model": {"file": "_model.npz", "sha256": model_hash,
                "text": " ".join(repr(model).split())}, "arguments": arguments}
    text = json.dumps(manifest, indent=1)
    everything = json.dumps([manifest["task"], model_hash, arguments], sort_keys=True)
    identity = hashlib.sha256(everything.encode()).hexdigest()
    os.makedirs(folder, exist_ok=True)
    for path in glob.glob(os.path.join(glob.escape(folder), ".fastrnn-*.tmp")):     # of a run that was killed
        os.unlink(path)
    path = os.path.join(folder, "_manifest.json")
    if os.path.exists(path):
        _check_same(path, manifest)
    elif os.listdir(folder):
        raise ValueError(f"out: expected a new or empty folder, or one that a call with the same arguments has begun; "
                         f"{folder} has other files")
    else:
        with replacing(path) as file:
            file.write(text.encode())
    model_path = os.path.join(folder, "_model.npz")
    if not os.path.exists(model_path) or hashlib.sha256(read_bytes(model_path)).hexdigest() != model_hash:
        with replacing(model_path) as file:
            file.write(data)
    return Task(compute, model_path, model_hash, identity, folder, columns, options, setting.threads)


def model_bytes(model: Estimator) -> bytes:
    """The file of a model as bytes, without the history of its training, which the results do not depend on."""
    model = copy.copy(model)
    if "history_" in vars(model):
        model.history_ = []             # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "_model.npz")
        model.save(path)
        return read_bytes(path)


def _check_same(path: str, manifest: dict[str, Any]) -> None:
    """Raise ValueError, which says what differs, unless the manifest in a folder is of the same run."""
    try:
        before = parse_json(read_bytes(path))
        if before["version"] != VERSION:
            raise ValueError(f"version {before['version']}")
        ours = {"task": manifest["task"], "model": manifest["model"]["sha256"], **manifest["arguments"]}
        theirs = {"task": before["task"], "model": before["model"]["sha256"], **before["arguments"]}
        model = before["model"]["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"out: {path} is no manifest of this version of fastrnn: {said(error)}") from None
    differences = [f"{name} {theirs.get(name)!r:.80}, here {ours.get(name)!r:.80}"
                   for name in dict.fromkeys([*ours, *theirs])
                   if name != "model" and _plain(theirs.get(name)) != _plain(ours.get(name))]
    if ours["model"] != theirs["model"]:
        differences.insert(0, f"model {model:.120} with the hash {theirs['model'][:12]}, here "
                              f"{manifest['model']['text']:.120} with the hash {ours['model'][:12]}")
    if differences:
        raise ValueError(f"out: {os.path.dirname(path)} has results of another run: {'; '.join(differences)}")


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


# ---- The loop -------------------------------------------------------------------------------------

class Tally:
    """Collects what partitions came to, in their order, and shows how far the run is."""

    def __init__(self, report: Report, progress: Progress, total_size: int | None) -> None:
        self.report, self.progress, self.total_size = report, progress, total_size
        self.records: dict[int, tuple[Piece, dict[str, Any] | None, Failure | None]] = {}
        self.begin, self.size_done, self.size_resumed = time.perf_counter(), 0, 0

    def resumed(self, number: int, piece: Piece, record: dict[str, Any]) -> None:
        """A partition that an earlier call had finished."""
        self.report.resumed += 1
        self.size_resumed += piece.size
        self._note(number, piece, record, None)

    def done(self, number: int, piece: Piece, outcome: dict[str, Any]) -> None:
        """A partition that a worker has finished."""
        report, record = self.report, outcome["record"]
        report.new_series += record["series"]
        report.peak_memory = max(report.peak_memory, outcome["memory"])
        for name, seconds in zip(PARTS, outcome["seconds"], strict=True):
            report.worker_seconds[name] = report.worker_seconds.get(name, 0.0) + seconds
        self.size_done += piece.size
        self._note(number, piece, record, None)

    def failed(self, number: int, piece: Piece, error: BaseException) -> None:
        """A partition that failed as a whole."""
        self.size_done += piece.size
        failure = (Failure(error.partition, error.series, error.error, True) if isinstance(error, PartitionError) else
                   Failure(piece.label, "", said(error), True))
        self._note(number, piece, None, failure)

    def _note(self, number: int, piece: Piece, record: dict[str, Any] | None, failure: Failure | None) -> None:
        # A frame is not kept: only its name is needed from here on.
        self.records[number] = (Piece(piece.name, piece.path, None, piece.size), record, failure)
        self.progress.advance(self.pace())

    def pace(self) -> str:
        """The rate and the time that is left, in words."""
        seconds = time.perf_counter() - self.begin
        if not self.report.new_series or not seconds:
            return ""
        text = f"{self.report.new_series / seconds:.0f} series a second"
        if self.total_size and self.size_done:
            left = (self.total_size - self.size_resumed - self.size_done) * seconds / self.size_done
            text += f", {_duration(left)} left"
        return text

    def close(self, task: Task) -> None:
        """Fill in the report."""
        report = self.report
        report.partitions = len(self.records)
        for number in sorted(self.records):
            piece, record, failure = self.records[number]
            if failure is not None:
                report.failures.append(failure)
            if record is not None and record["series"]:
                report.files.append(task.path(piece))
                report.series += record["series"]
                report.rows += record["rows"]
                report.failures += [Failure(piece.label, *each) for each in record["failures"]]
                if "errors" in record:
                    report.errors.append(record["errors"])


def _duration(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 100:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _go(task: Task, parts: list[Piece] | Iterator[Piece], setting: Setting, report: Report) -> None:
    """Do all partitions, here or on the executor's workers."""
    known = isinstance(parts, list)
    total = len(parts) if isinstance(parts, list) else None
    size = sum(piece.size for piece in parts) if isinstance(parts, list) else None
    with Progress(total, "partition", task.compute.__name__, shown=setting.progress) as progress:
        tally = Tally(report, progress, size)
        todo = _unfinished(task, parts, tally)
        try:
            if setting.executor is None:
                for number, piece in todo:
                    try:
                        tally.done(number, piece, work(task, piece))
                    except PartitionError as error:
                        tally.failed(number, piece, error)
            else:
                _submit(task, todo, setting.executor, tally, known)
        finally:
            tally.close(task)


def _unfinished(task: Task, parts: list[Piece] | Iterator[Piece], tally: Tally) -> Iterator[tuple[int, Piece]]:
    """The partitions that are not done yet, with their numbers."""
    for number, piece in enumerate(parts):
        record = finished(task, piece)
        if record is None:
            yield number, piece
        else:
            tally.resumed(number, piece, record)


def _submit(task: Task, todo: Iterator[tuple[int, Piece]], executor: Any, tally: Tally, known: bool) -> None:
    """Hand partitions to an executor, a few for each worker at a time, and collect what comes back."""
    limit = _workers(executor) * (WAITING if known else 2)
    # Dask takes a call with the same arguments for the same one: a partition that is done again must not be.
    options = {"pure": False} if hasattr(executor, "scheduler_info") else {}
    finished_futures: queue.SimpleQueue[Any] = queue.SimpleQueue()
    waiting: dict[Any, tuple[int, Piece]] = {}
    try:
        exhausted = False
        while waiting or not exhausted:
            while not exhausted and len(waiting) < limit:
                following = next(todo, None)
                if following is None:
                    exhausted = True
                    break
                future = executor.submit(work, task, following[1], **options)
                waiting[future] = following
                future.add_done_callback(finished_futures.put)
            if waiting:
                future = finished_futures.get()
                number, piece = waiting.pop(future)
                _collect(future, number, piece, tally)
    except BrokenExecutor as error:
        raise RuntimeError(f"executor: a worker has died, and with it the executor ({said(error)}); what is finished "
                           f"stays in {task.out}: call again with a new executor to go on") from error
    finally:
        for future in waiting:
            future.cancel()


def _collect(future: Any, number: int, piece: Piece, tally: Tally) -> None:
    try:
        outcome = future.result()
    except BrokenExecutor:
        raise
    except Exception as error:
        tally.failed(number, piece, error)
    else:
        tally.done(number, piece, outcome)


def _workers(executor: Any) -> int:
    """How many workers an executor has, as far as it says."""
    count: Any = getattr(executor, "_max_workers", None)
    if not isinstance(count, int):
        count = getattr(executor, "num_workers", None)              # of mpi4py
    nthreads = getattr(executor, "nthreads", None)
    if not isinstance(count, int) and callable(nthreads):           # of a Dask client
        count = sum(nthreads().values())
    return max(1, min(count, MOST_WORKERS)) if isinstance(count, int) else FEW_WORKERS
