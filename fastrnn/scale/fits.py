"""``fit``: one forecaster of more series than memory holds.

What is chosen by the data (seasons, logarithm, the size of the network, the weights of the blend) is chosen by a sample
of the series, which the forecaster keeps. Its networks are trained on windows of all partitions: each training is cut
into rounds, a round has its share of the partitions in an order that the seed fixes (all of them, where they are few),
and windows of their series that the seed draws. Only the windows of one round, and of the next, are in memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from ..forecasting import RNNForecaster
from ..forecasting.fitting import FURTHER, fresh_network, loss_and_optimizer
from ..forecasting.preparation import read_panel
from ..forecasting.windows import WARM_UP, Prepared, WindowData, judged_windows
from ..training.data import Data
from ..training.run import Options as TrainingOptions
from ..training.run import Run
from .draws import Draw, Drawn, draw, samples
from .many import _columns
from .reports import PartitionError
from .runs import Setting, estimator, run
from .sources import arrow, pieces
from .tasks import of_columns
from .work import Columns, finished_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from .. import training
    from .._base.typing import Array, IntArray, PathLike
    from ..forecasting.encoding import Encoding
    from ..forecasting.network import ForecastNetwork
    from ..forecasting.options import Options
    from ..forecasting.series import Series
    from ..forecasting.windows import Windows
    from ..training.history import History
    from .sources import Piece

ROUNDS = 12             # of a training, at least: so often the origins are looked at
HELD = 64 << 20         # bytes of the windows of a round, about


def fit(model: RNNForecaster, source: PathLike | Iterable[PathLike], *, checkpoint: PathLike | None = None,
        sample: int = 200, executor: Executor | Any | None = None, series: str | None = None, time: str | None = None,
        target: str | None = None, threads: int | None = None, progress: bool = True) -> RNNForecaster:
    """Fit one forecaster to all series of a source, of which no more than a few partitions are in memory.

    What ``RNNForecaster.fit`` chooses by the data, the weights of the blend among it, is chosen by a sample of the
    series; the networks learn from windows of all partitions, drawn at random in an order that follows from the seed.
    The result does not depend on the executor, to the bit.

    Parameters
    ----------
    model : RNNForecaster
        The forecaster, which stays as it is; its `random_state` is an int. It has no `categorical` columns.
    source : str, path-like or sequence of these
        The partitions: Parquet or CSV files, a folder of them, or a pattern with ``*``, as ``partition`` makes them.
        They are read several times.
    checkpoint : str or path-like, optional
        A folder where the sample and the training are kept, which workers must see. A call that was killed goes on
        from it, and ends with the same bits; a folder of another fit is refused. It may be deleted afterwards.
    sample : int
        How many series are in the sample. The forecaster keeps them, and ``predict`` without arguments is of them.
    executor : concurrent.futures.Executor, Dask client or None
        Who reads partitions and encodes windows, as in ``forecast``; the networks are trained in this process.
    series, time, target : str, optional
        Columns of the partitions, as in ``forecast``.
    threads : int, optional
        How many threads a worker uses, as in ``forecast``.
    progress : bool
        Whether to show on stderr how far the fit is.

    Returns
    -------
    RNNForecaster
        The fitted forecaster, for ``forecast`` of all series.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name; a checkpoint of another fit.
    PartitionError
        A partition cannot be read.
    ImportError
        The package pyarrow is missing: ``pip install fastrnn[scale]``.
    RuntimeError
        The executor broke. With a checkpoint, what was done stays.
    OSError
        The checkpoint cannot be read or written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import pyarrow as pa
    >>> from fastrnn import scale
    >>> from fastrnn.forecasting import RNNForecaster
    >>> t, names = np.arange(100), [f"s{n}" for n in range(40)]
    >>> y = np.stack([n + np.sin(t / 4 + n) for n in range(40)])
    >>> table = pa.table({"unique_id": np.repeat(names, 100), "y": y.ravel()})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = scale.partition(table, out=os.path.join(folder, "parts"), partitions=4)
    ...     model = RNNForecaster(3, updates=60, seasons=25, random_state=0)
    ...     fitted = scale.fit(model, parts, sample=10, progress=False)
    >>> len(fitted.panel_.series), fitted.predict().column_names
    (10, ['unique_id', 'y'])
    """
    one = estimator(model, RNNForecaster)
    _check(one)
    columns = _columns(one, series, time, target)
    parts = pieces(source)
    if not isinstance(parts, list):
        raise TypeError("source: expected files, which are read several times, got frames; partition makes files of "
                        "them")
    setting = Setting(executor, threads, progress)
    size, seed = check.size(sample, "sample"), int(one.random_state)
    with _folder(checkpoint) as folder:
        options = {"sample": -(-size // len(parts)), "seed": seed}
        report = run(samples, _unfitted(one), [piece.path for piece in parts], os.path.join(folder, "sample"), columns,
                     options, setting)
        for each in report.failures:
            if each.whole:
                raise PartitionError(each.partition, each.series, each.error)
        table, records = _sample(parts, report.files, columns, size, seed)
        columns = columns.of(table.column_names)
        fitted = of_columns(_unfitted(one), columns)
        if fitted.log == "auto" and min(float(record["least"]) for record in records.values()) <= 0:
            fitted.log = False
        trainer = Trainer(fitted, columns, parts, [records.get(piece.name, {}) for piece in parts], folder, seed,
                          setting.checked())
        fitted._fit(read_panel(fitted, table, None, None, None), trainer,
                    sum(record["values"] for record in records.values()))
        fitted.log = one.log
    return fitted


def _check(model: RNNForecaster) -> None:
    if not isinstance(model.random_state, (int, np.integer)):
        raise ValueError("model: expected a random_state that is an int, which fixes the order of all windows")
    if model.categorical:
        raise ValueError("model: expected no categorical columns, whose categories a sample does not show")


def _unfitted(model: RNNForecaster) -> RNNForecaster:
    return RNNForecaster(**model.get_params(deep=False))


@contextlib.contextmanager
def _folder(checkpoint: PathLike | None) -> Any:
    """The folder of a checkpoint, or one for this call alone."""
    if checkpoint is None:
        with tempfile.TemporaryDirectory(prefix="fastrnn-") as folder:
            yield folder
    else:
        folder = os.path.abspath(check.path(checkpoint, "checkpoint"))
        os.makedirs(folder, exist_ok=True)
        yield folder


def _sample(parts: list[Piece], files: list[str], columns: Columns, size: int,
            seed: int) -> tuple[Any, dict[str, dict[str, Any]]]:
    """The rows of the sample, and what is known of each partition by its name."""
    from pyarrow import compute, parquet
    tables, records = [], {}
    for path in files:
        name = os.path.basename(path).removesuffix(".parquet")
        tables.append(parquet.read_table(path, use_threads=False).replace_schema_metadata(None))
        records[name] = finished_record(path)
    if not tables:
        raise ValueError("source: expected series of two values or more, there are none")
    table = arrow().concat_tables(tables).combine_chunks()
    names = compute.unique(table.column(columns.series)).to_pylist()
    if len(names) > size:
        rng = np.random.default_rng([seed, len(names)])
        some = {names[n] for n in rng.choice(len(names), size, replace=False).tolist()}
        mask = [name in some for name in table.column(columns.series).to_pylist()]
        table = table.filter(arrow().array(mask))
    return table, records


class Trainer:
    """Trains networks on windows of all partitions; see ``forecasting.fitting.Trainer``."""

    def __init__(self, model: RNNForecaster, columns: Columns, parts: list[Piece], records: list[dict[str, Any]],
                 folder: str, seed: int, setting: Setting) -> None:
        self.model, self.columns, self.parts = model, columns, parts
        self.counts = np.array([record.get("count", 0) for record in records])
        self.values = sum(record.get("values", 0) for record in records)
        self.without = [[name for name, _ in record.get("failures", ())] for record in records]
        self.folder, self.seed, self.setting = folder, seed, setting
        self.trainings = 0              # so far: each has a checkpoint, and draws windows of its own

    def train(self, series: list[Series], encoding: Encoding,
              options: Options) -> tuple[list[ForecastNetwork], list[training.History]]:
        """The networks of an ensemble, without a blend."""
        held = encoding.horizon if options.patience else 0
        what, validation = Draw(self.model, self.columns, encoding, options, held, True), None
        if held:
            ends = [len(each) - held for each in series]
            validation = judged_windows(Prepared(series, encoding), options.sequence, ends, [[end] for end in ends])
        networks = [fresh_network(encoding, options) for _ in range(options.ensemble)]
        return networks, [self._optimise(network, what, options.updates, validation) for network in networks]

    def judged(self, series: list[Series], encoding: Encoding, options: Options, ends: list[int],
               origins: list[list[int]]) -> tuple[ForecastNetwork, training.History, int] | None:
        """One network that has not seen the steps of the origins, with the weights that were best there."""
        held = max(len(each) - end for each, end in zip(series, ends, strict=True))
        validation = judged_windows(Prepared(series, encoding), options.sequence, ends, origins)
        network = fresh_network(encoding, options)
        history = self._optimise(network, Draw(self.model, self.columns, encoding, options, held), options.updates,
                                 validation or None)
        best = history.epochs if history.best_epoch is None else history.best_epoch + 1
        return network, history, max(1, round(options.updates * best / history.epochs))

    def finished(self, network: ForecastNetwork, series: list[Series], encoding: Encoding, options: Options,
                 updates: int) -> tuple[list[ForecastNetwork], list[training.History]]:
        """The ensemble: the judged network trained on with all steps, at a lower rate, and fresh ones beside it."""
        gentle = replace(options, learning_rate=options.learning_rate / FURTHER)
        what = Draw(self.model, self.columns, encoding, options, None)
        networks = [network]
        histories = [self._optimise(network, replace(what, options=gentle), max(1, updates // FURTHER), None)]
        for _ in range(options.ensemble - 1):
            networks.append(fresh_network(encoding, options))
            histories.append(self._optimise(networks[-1], what, updates, None))
        return networks, histories

    def _optimise(self, network: ForecastNetwork, what: Draw, updates: int, validation: Windows | None) -> History:
        """Train a network, from its checkpoint if there is one."""
        number, options = self.trainings, what.options
        self.trainings += 1
        size = 4 * options.sequence * (what.encoding.size + what.encoding.horizon)
        rounds = int(min(updates, max(ROUNDS, updates * options.batch_size * size // HELD)))
        batches = -(-updates // rounds)
        data = Rounds(self, what, rounds, batches * options.batch_size, [self.seed, number])
        loss, optimizer = loss_and_optimizer(network, options, rounds * batches)
        asked = TrainingOptions(
            model=network, loss=loss, optimizer=optimizer, epochs=rounds, batch_size=options.batch_size, tbptt=None,
            clip_norm=1.0, validates=validation is not None, patience=options.patience if validation else None,
            checkpoint=os.path.join(self.folder, f"training-{number}.npz"), checkpoint_every=None, shuffle=True,
            progress=self.setting.progress)
        held_out = None if validation is None else Judged(validation)
        return RoundRun(asked, data, held_out, options.generator).train()


# ---- The data of a training -----------------------------------------------------------------------

class Judged(WindowData):
    """The windows of the sample at whose origins a training is judged."""

    def __init__(self, windows: Windows) -> None:
        super().__init__(windows)
        self.parts = {"windows": windows.bounds}        # by which a checkpoint knows them


class Rounds(Data):
    """The windows of a training, of which one round is in memory: those of one epoch."""

    def __init__(self, trainer: Trainer, what: Draw, rounds: int, windows: int, seed: list[int]) -> None:
        self.trainer, self.what, self.rounds, self.windows, self.seed = trainer, what, rounds, windows, seed
        encoding = what.encoding
        self.batch_first, self.ragged, self.lengths = False, True, None
        self._axes = {"x": (encoding.size,), "y": (encoding.horizon,)}
        plan = json.dumps([[piece.name for piece in trainer.parts], trainer.counts.tolist(), rounds, windows, seed])
        self.parts = {"plan": np.frombuffer(plan.encode(), np.uint8)}       # by which a checkpoint knows them
        self.present = np.flatnonzero(trainer.counts)       # the partitions that have series
        every = trainer.values / max(1, what.options.sequence // WARM_UP)       # windows in all partitions, about
        passes = max(1.0, rounds * windows / max(1.0, every))
        self.share = min(len(self.present), math.ceil(len(self.present) * passes / rounds))     # partitions of a round
        self.drawn: Drawn | None = None
        self.loaded = -1                                    # the number of the round in memory
        self.futures: dict[int, list[Any]] = {}

    def axes(self, name: str) -> tuple[int, ...]:
        """The shape of a part without the axes of rows and steps."""
        return self._axes[name.rpartition(" ")[2]]

    def load(self, number: int) -> None:
        """Bring the windows of a round into memory, and have those of the next one drawn meanwhile."""
        if number == self.loaded:
            return
        executor = self.trainer.setting.executor
        if executor is None:
            results = [draw(self.what, *call) for call in self.calls(number)]
        else:
            for each in (number, number + 1):
                if each < self.rounds and each not in self.futures:
                    options = {"pure": False} if hasattr(executor, "scheduler_info") else {}
                    self.futures[each] = [executor.submit(draw, self.what, *call, **options)
                                          for call in self.calls(each)]
            results = [future.result() for future in self.futures.pop(number)]
        self.drawn, self.loaded = _joined([result for result in results if result is not None]), number
        self.places = np.arange(self.windows) % len(self.drawn.lengths)     # several times, where there are too few
        self.rows, self.lengths = self.windows, self.drawn.lengths[self.places]

    def calls(self, number: int) -> list[tuple[Piece, int, list[int], list[str]]]:
        """The partitions of a round, how many windows to draw of each, the seeds of these draws, and what to leave out.
        """
        count = len(self.present)
        passes, places = np.divmod(np.arange(number * self.share, (number + 1) * self.share), max(1, count))
        orders = {k: np.random.default_rng([*self.seed, 1, k]).permutation(self.present) for k in set(passes.tolist())}
        order = np.unique([orders[k][n] for k, n in zip(passes.tolist(), places.tolist(), strict=True)])
        shares = np.cumsum(self.trainer.counts[order]) / self.trainer.counts[order].sum()
        counts = np.diff(np.floor(shares * self.windows + 1e-9).astype(int), prepend=0)
        return [(self.trainer.parts[n], count, [*self.seed, 2, number, n], self.trainer.without[n])
                for n, count in zip(order.tolist(), counts.tolist(), strict=True) if count]

    def take(self, rows: IntArray) -> tuple[Array, Array, IntArray | None, Array | None]:
        """x, y, lengths and mask of some windows of the round, with as many steps as the longest of them has."""
        drawn: Any = self.drawn
        rows = self.places[rows]
        lengths = drawn.lengths[rows]
        T = int(lengths.max())
        x, y = drawn.x[rows, :T], drawn.y[rows, :T]
        return x.swapaxes(0, 1), y.swapaxes(0, 1), lengths, drawn.counts[rows, :T].T


class RoundRun(Run):
    """A training whose epochs are rounds."""

    data: Rounds

    def batches(self) -> list[IntArray]:
        """The window numbers of each minibatch of this round, which is brought into memory."""
        self.data.load(self.epoch)
        return super().batches()


def _joined(parts: list[Drawn]) -> Drawn:
    """Windows of several partitions, as long as the longest."""
    if not parts:
        raise ValueError("source: nothing to learn from: expected series of more samples than the window and the "
                         "horizon need, whose values vary")
    S = max(part.x.shape[1] for part in parts)

    def padded(values: Array) -> Array:
        return np.pad(values, ((0, 0), (0, S - values.shape[1]), *((0, 0),) * (values.ndim - 2)))

    return Drawn(np.concatenate([padded(part.x) for part in parts]), np.concatenate([padded(part.y) for part in parts]),
                 np.concatenate([part.lengths for part in parts]),
                 np.concatenate([padded(part.counts) for part in parts]))
