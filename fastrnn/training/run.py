"""``fit`` and ``evaluate``: epochs, minibatches, pieces of truncated back-propagation.

Reading order: the two functions, ``Options`` (what a caller asks for, checked), ``Run`` (how far a training is, and
what it does next).
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import losses
from .._base import validation as check
from .._base.progress import Progress
from .._base.reading import read_bytes
from .._base.writing import check_writable
from ..nn.base import Module
from ..nn.modules import recurrent
from ..optim import Optimizer, clip_grad_norm
from . import checkpoints
from .data import Data, cut
from .gradients import Piece, ShardedGradients, WholeGradients, loss_of
from .history import History
from .parallel import Parallel, RankError, Tree

if TYPE_CHECKING:
    from .._base.typing import Array, ArrayLike, IntArray, PathLike, Rng, TrainingPrecision
    from ..losses import LossFunction
    from .data import Rows
    from .gradients import PieceGradients
    from .parallel import World


def fit(model: Module, x: Rows, y: Rows, *, loss: LossFunction, optimizer: Optimizer, epochs: int, batch_size: int,
        lengths: ArrayLike | None = None, mask: Rows | None = None, tbptt: int | None = None,
        clip_norm: float = math.inf, validation: tuple[Rows, Rows] | Mapping[str, Any] | None = None,
        patience: int | None = None, checkpoint: PathLike | None = None, checkpoint_every: int | None = None,
        shuffle: bool = True, precision: TrainingPrecision | None = None, parallel: Parallel | None = None,
        shards: int = 16, rng: Rng = None, progress: bool = True) -> History:
    """Train a model on sequences.

    Parameters
    ----------
    model : layer, Linear, Embedding or Sequential
        The model; its parameters are changed.
    x : array_like or list of array_like
        The inputs of N rows with T steps: [T, N, I], or [N, T, I] if the model is ``batch_first``, or a list of N
        arrays [T_n, I]. Whole numbers, which an Embedding reads, have no last axis.
    y : array_like or list of array_like
        The targets, [T, N, ...] laid out as x: for every row and step what `loss` compares the output with.
    loss : callable
        ``losses.MSE()`` or another loss, or a function (output, target, mask) that returns (value, d_output).
    optimizer : fastrnn.optim.Optimizer
        The optimizer of this model.
    epochs : int
        The number of passes over the data.
    batch_size : int
        The number of rows in a minibatch.
    lengths : array_like, optional
        The number of valid steps of each row, [N]; later steps do not count. Rows of similar length share a minibatch,
        which is as long as its longest row. With a list for x the lengths are those of its arrays.
    mask : array_like or list of array_like, optional
        Which steps count in the loss (bools), or how much (numbers of at least 0): [T, N] laid out as x.
    tbptt : int, optional
        Truncated back-propagation through time [1]_: sequences are processed in pieces of so many steps, with an update
        after each. The state is carried from piece to piece, gradients are not. If it is not given, a sequence is one
        piece.
    clip_norm : float
        Gradients are scaled down to this common norm. Where the norm is not finite, the update is skipped, the weights
        stay as they are, and a RuntimeWarning says so.
    validation : tuple or mapping, optional
        The pair (x, y), or a mapping with "x", "y" and, where needed, "lengths" and "mask". The loss on these data is
        taken after every epoch. At the end the model has the weights of the best epoch.
    patience : int, optional
        Early stopping: training ends after so many epochs without a better validation loss.
    checkpoint : str or path-like, optional
        A file that is written after every epoch and is complete at any moment. If it exists already, training goes on
        from it: it holds the model, the optimizer, the best weights, the history, the position, the seed of everything
        random and the state that `tbptt` carries. A run that was killed and started again therefore ends with the same
        bits as one that was never killed. The model's present parameters and `rng` do not matter then. All other
        arguments but `epochs` and `patience` must be as they were, or it is a ValueError. Only schedules, which are
        functions, cannot be compared.
    checkpoint_every : int, optional
        Write the checkpoint also after every so many updates.
    shuffle : bool
        False for the same minibatches in the same order in every epoch.
    precision : {"float32", "float64", "bfloat16"}, optional
        The precision of the products forward and backward; the model's dtype if not given. With "bfloat16", for models
        of float32, the factors of each product (weights, inputs, states, gradients of gates) are rounded to bfloat16,
        which takes little more than half of the time for wide layers where the CPU has instructions for it (``fastrnn
        info`` says so), and more time where it has none. Parameters, states, sums, gradients and the optimizer stay
        float32, and validation is in float32.
    parallel : fastrnn.scale.processes or fastrnn.scale.mpi, optional
        Train on several processes, which compute the gradients of each minibatch together. Weights, history and
        checkpoints have the same bits for any number of them, one included, and a training goes on from a checkpoint on
        another number. They are not those without `parallel`, where the sums have another order.
    shards : int
        With `parallel`: the number of parts that each minibatch is cut into, at most `batch_size`, and at least the
        number of processes that shall have work. The results depend on it, and not on the processes. A loss has to be a
        mean over what counts, as those of ``losses`` are.
    rng : numpy.random.Generator, int or None
        The random state of the order of rows and of dropout.
    progress : bool
        Show on stderr how far the training is: a bar where stderr is a terminal and tqdm is installed
        (``pip install fastrnn[demo]``), else about ten lines.

    Returns
    -------
    History
        The losses and other numbers of every epoch.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable, and the message names it; or the checkpoint is of another training.
    fastrnn.ModelFormatError
        The file in the checkpoint's place is broken, or is no checkpoint.
    OSError
        The checkpoint cannot be read or written.
    RuntimeError
        Another process of `parallel` failed or ended; the message says which, and why.

    References
    ----------
    .. [1] R. J. Williams and J. Peng, "An efficient gradient-based algorithm for on-line training of recurrent network
       trajectories", Neural Computation 2, 1990.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn import losses, optim, training
    >>> model = fastrnn.Sequential(fastrnn.GRU(1, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
    >>> wave = np.sin(np.arange(200) / 5).astype(np.float32).reshape(-1, 1, 1)
    >>> history = training.fit(model, wave[:-1], wave[1:], loss=losses.MSE(), optimizer=optim.Adam(model, 0.01),
    ...                        epochs=10, batch_size=1, tbptt=20, progress=False)
    >>> history["loss"][-1] < history["loss"][0] / 4
    True
    """
    options = Options(model=model, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size, tbptt=tbptt,
                      clip_norm=clip_norm, validates=validation is not None, patience=patience, checkpoint=checkpoint,
                      checkpoint_every=checkpoint_every, shuffle=shuffle, progress=progress, precision=precision,
                      parallel=parallel, shards=shards)
    data = Data(model, x, y, lengths, mask)
    held_out = None if validation is None else _validation_data(validation, model, data)
    run = Run(options, data, held_out, rng)
    if options.parallel is None:
        return run.train()
    size = sum(value.size for value in model.parameters.values())
    # More shards than rows would leave the ranks of the last shards without work.
    tree = Tree(min(options.shards, options.batch_size), options.parallel.size, size, model.dtype)
    return options.parallel._launch(partial(_train_rank, run, tree), tree)


def _train_rank(run: Run, tree: Tree, world: World) -> History:
    """Train as one rank of several."""
    options = run.options
    run.gradients = ShardedGradients(options.model, options.loss, options.precision, run.batch_first, tree, world)
    return run.train()


def fit_data(model: Module, data: Data, held_out: Data | None, *, loss: LossFunction, optimizer: Optimizer, epochs: int,
             batch_size: int, clip_norm: float = math.inf, patience: int | None = None, rng: Rng = None,
             progress: bool = True) -> History:
    """Train a model as ``fit`` does, on data of a kind of its own, which make their minibatches themselves."""
    options = Options(model=model, loss=loss, optimizer=optimizer, epochs=epochs, batch_size=batch_size, tbptt=None,
                      clip_norm=clip_norm, validates=held_out is not None, patience=patience, checkpoint=None,
                      checkpoint_every=None, shuffle=True, progress=progress)
    return Run(options, data, held_out, rng).train()


def evaluate(model: Module, x: Rows, y: Rows, *, loss: LossFunction, batch_size: int = 256,
             lengths: ArrayLike | None = None, mask: Rows | None = None) -> float:
    """Compute the loss of a model on data, without dropout.

    Parameters
    ----------
    model : layer, Linear, Embedding or Sequential
        The model, which is called and not changed.
    x : array_like or list of array_like
        The inputs, as ``fit`` takes them.
    y : array_like or list of array_like
        The targets, as ``fit`` takes them.
    loss : callable
        ``losses.MSE()`` or another loss, or a function (output, target, mask) that returns (value, d_output).
    batch_size : int
        The number of rows in a minibatch; it has no influence on the result but for rounding.
    lengths : array_like, optional
        The number of valid steps of each row, [N].
    mask : array_like or list of array_like, optional
        Which steps count in the loss (bools), or how much (numbers of at least 0): [T, N] laid out as x.

    Returns
    -------
    float
        The mean over everything that counts; NaN if nothing does.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import fastrnn
    >>> from fastrnn import losses, training
    >>> model = fastrnn.Linear(1, 1, bias=False)
    >>> model.load_state_dict({"weight": np.array([[2.0]], np.float32)})
    >>> training.evaluate(model, np.ones((3, 2, 1), np.float32), np.ones((3, 2, 1)), loss=losses.MSE())
    1.0
    """
    _check_model_and_loss(model, loss)
    data, batch_size = Data(model, x, y, lengths, mask), check.size(batch_size, "batch_size")
    return _mean(_losses(model, data, loss, data.batches(batch_size, None)))


def _check_model_and_loss(model: Any, loss: Any) -> None:
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a layer or a Sequential, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"loss: expected a function (output, target, mask), got {type(loss).__name__}")


def _validation_data(validation: Any, model: Module, data: Data) -> Data:
    """The validation data, which must have targets of the same kind as the training data."""
    if isinstance(validation, Mapping):
        if not {"x", "y"} <= validation.keys() <= {"x", "y", "lengths", "mask"}:
            raise ValueError(f"validation: expected x, y and perhaps lengths and mask, got {', '.join(validation)}")
        arguments = dict(validation)
    elif isinstance(validation, (tuple, list)) and len(validation) == 2:
        arguments = {"x": validation[0], "y": validation[1]}
    else:
        raise TypeError("validation: expected a pair (x, y), or a mapping with x, y, lengths, mask")
    held_out = Data(model, arguments["x"], arguments["y"], arguments.get("lengths"), arguments.get("mask"),
                    "validation ")
    if held_out.axes("validation y") != data.axes("y"):
        raise ValueError(f"validation y: expected {data.axes('y')} beside rows and steps, as y has, got "
                         f"{held_out.axes('validation y')}")
    return held_out


def _losses(model: Module, data: Data, loss: LossFunction, batches: list[IntArray]) -> list[tuple[float, float]]:
    """For each minibatch the weight of what counts, and its mean loss times the weight."""
    result = []
    for rows in batches:
        x, y, lengths, mask = data.take(rows)
        output = model(x, lengths=lengths)[0]
        weight = losses.total_weight(mask, output.shape)
        result.append((weight, weight * loss_of(loss, output, y, mask)[0]))
    return result


def _mean(weights_and_losses: Iterable[tuple[float, float]]) -> float:
    """The mean loss, of pairs of a weight and a loss times it; NaN where nothing counts."""
    total, count = 0.0, 0.0
    for weight, weighted in weights_and_losses:
        total += weighted
        count += weight
    return total / count if count else math.nan


# ---- Training -------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of ``fit`` other than the data, checked and converted when the object is made."""

    model: Module
    loss: LossFunction
    optimizer: Optimizer
    epochs: int
    batch_size: int
    tbptt: int | None
    clip_norm: float
    validates: bool                 # whether there are validation data
    patience: int | None
    checkpoint: PathLike | None     # a str once it is checked
    checkpoint_every: int | None
    shuffle: bool
    progress: bool
    precision: TrainingPrecision | None = None
    parallel: Parallel | None = None
    shards: int = 16

    def __post_init__(self) -> None:
        _check_model_and_loss(self.model, self.loss)
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"optimizer: expected one of fastrnn.optim, got {type(self.optimizer).__name__}")
        if self.optimizer.model is not self.model:
            raise ValueError("optimizer: it is of another model")
        if self.parallel is not None and not isinstance(self.parallel, Parallel):
            raise TypeError("parallel: expected fastrnn.scale.processes(...) or fastrnn.scale.mpi(...), got "
                            f"{type(self.parallel).__name__}")
        if self.patience is not None and not self.validates:
            raise ValueError("patience: it needs validation data")
        if self.checkpoint_every is not None and self.checkpoint is None:
            raise ValueError("checkpoint_every: it needs the path of a checkpoint")
        converted = {
            "epochs": check.size(self.epochs, "epochs", least=0),
            "batch_size": check.size(self.batch_size, "batch_size"),
            "clip_norm": check.bound(self.clip_norm, "clip_norm"),
            "shuffle": check.flag(self.shuffle, "shuffle"),
            "progress": check.flag(self.progress, "progress"),
            "shards": check.size(self.shards, "shards"),
            "precision": check.training_precision(self.precision, self.model.dtype),
            "checkpoint": None if self.checkpoint is None else check.path(self.checkpoint, "checkpoint"),
            **{name: check.size(value, name) for name in ("tbptt", "patience", "checkpoint_every")
               if (value := getattr(self, name)) is not None}}
        for name, value in converted.items():
            object.__setattr__(self, name, value)
        if self.tbptt is not None and any(layer.bidirectional or layer.reverse for layer in recurrent([self.model])):
            raise ValueError("tbptt: a reversed direction starts at the sequence's end and carries no state forward")


@dataclass
class Sums:
    """Sums over the epoch that has begun; the history gets its means from them. A checkpoint has them as floats."""

    loss: float = 0.0           # each loss times its weight
    weight: float = 0.0         # of the elements that counted
    norms: float = 0.0          # of the gradients, where finite
    pieces: float = 0.0         # trained on: one update each, unless it was skipped
    skipped: float = 0.0        # updates
    seconds: float = 0.0


class Run:
    """One training: what is to be done, and how far it is."""

    def __init__(self, options: Options, data: Data, validation: Data | None, rng: Rng) -> None:
        self.options, self.data, self.validation = options, data, validation
        self.model, self.optimizer = options.model, options.optimizer
        self.batch_first = data.batch_first
        # One number stands for everything random: every order and every dropout mask follows from it and the position.
        self.seed = int(check.generator(rng).integers(2**63))
        self.epoch = self.batch = self.start = 0        # the position: the next epoch, minibatch and step to train on
        self.sums = Sums()
        self.history = History()
        self.best: Mapping[str, Array] | None = None    # parameters of the epoch with the best validation loss
        self.clock = time.perf_counter()                # the time since then is not in sums.seconds yet
        self.checkpoint = None if options.checkpoint is None else str(options.checkpoint)
        self.description = {} if self.checkpoint is None else checkpoints.description(self)
        # It also has the state before the next step, where that is not the first of its minibatch.
        self.gradients: PieceGradients = WholeGradients(options.model, options.loss, options.precision)

    def train(self) -> History:
        """Trains to the end, from a checkpoint if there is one."""
        if self.checkpoint is not None:
            self._resume(self.checkpoint)
        epochs = self.options.epochs
        shown = self.options.progress and self._leads
        with Progress(epochs, "epoch", "training", done=self.epoch, shown=shown) as progress:
            try:
                while self.epoch < epochs and not self._stopped_early():
                    self._train_epoch()
                    self._end_epoch()
                    self._save()
                    progress.advance(self.history.note())
            except RankError:
                # Between two minibatches, all that a checkpoint needs is here. Within one, the last checkpoint stands:
                # the carried state of the other rank's rows is lost.
                if self.start == 0 and self._leads and self.checkpoint is not None:
                    self._count_time()
                    checkpoints.save(self.checkpoint, self, None)
                raise
        if self.best is not None:
            self.model.load_state_dict(self.best)
        return self.history

    def _stopped_early(self) -> bool:
        patience, best = self.options.patience, self.history.best_epoch
        return patience is not None and self.epoch - 1 - (-1 if best is None else best) >= patience

    @property
    def _leads(self) -> bool:
        """Whether this is the process that writes and reports: the only one, or rank 0."""
        return self.gradients.rank == 0

    def _resume(self, path: str) -> None:
        """Goes on from the checkpoint, if there is one. Of several ranks the first reads it, for all."""
        data = None
        if self._leads:
            check_writable(path)                # now, and not after the first epoch
            data = read_bytes(path) if os.path.exists(path) else None
        data = self.gradients.exchange(data)[0]
        if data is not None:
            checkpoints.resume(path, data, self)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        carried = self.gradients.carried()
        if self._leads:
            self._count_time()
            checkpoints.save(self.checkpoint, self, carried)

    def _count_time(self) -> None:
        now = time.perf_counter()
        self.sums.seconds += now - self.clock
        self.clock = now

    def batches(self) -> list[IntArray]:
        """The row numbers of each minibatch of this epoch."""
        order = np.random.default_rng((self.seed, 0, self.epoch)) if self.options.shuffle else None
        return self.data.batches(self.options.batch_size, order)

    def _train_epoch(self) -> None:
        batches = self.batches()
        while self.batch < len(batches):
            self._train_batch(batches[self.batch])
            self.batch, self.start = self.batch + 1, 0
            self.gradients.restart()

    def _train_batch(self, rows: IntArray) -> None:
        x, y, lengths, mask = self.data.take(rows)
        steps = x.shape[1 if self.batch_first else 0]
        size, every = self.options.tbptt or max(1, steps), self.options.checkpoint_every
        while self.start < steps:
            start, stop = self.start, min(steps, self.start + size)
            x_piece, y_piece = cut(x, start, stop, self.batch_first), cut(y, start, stop, self.batch_first)
            mask_piece = None if mask is None else cut(mask, start, stop, self.batch_first)
            lengths_piece = None if lengths is None else np.clip(lengths - start, 0, stop - start)
            self._train_piece(Piece(x_piece, y_piece, mask_piece, lengths_piece,
                                    (self.seed, 1, self.epoch, self.batch, start)))
            self.start = stop
            if every is not None and self.sums.pieces % every == 0:
                self._save()

    def _train_piece(self, piece: Piece) -> None:
        weight, loss, gradients = self.gradients.compute(piece)
        if gradients is None:
            return                      # nothing counts here: only the state was needed
        self.sums.pieces += 1
        norm = clip_grad_norm(gradients, self.options.clip_norm)
        self.sums.weight += weight
        self.sums.loss += loss
        if math.isfinite(norm):
            self.optimizer.step(gradients)
            self.sums.norms += norm
        else:
            if not self.sums.skipped and self._leads:
                # The levels up to the caller of fit; with `parallel` there are _launch and _train_rank between.
                warnings.warn(f"the gradient's norm is {norm} in epoch {self.epoch}, minibatch {self.batch}: update "
                              "skipped", RuntimeWarning, stacklevel=6 if self.options.parallel is None else 8)
            self.sums.skipped += 1

    def _end_epoch(self) -> None:
        sums, numbers = self.sums, {}
        numbers["loss"] = sums.loss / sums.weight if sums.weight else math.nan
        if self.validation is not None:
            numbers["validation_loss"] = self._validation_loss(self.validation)
        updates = sums.pieces - sums.skipped
        numbers["gradient_norm"] = sums.norms / updates if updates else math.nan
        numbers["skipped"] = sums.skipped
        numbers["learning_rate"] = self.optimizer.current_learning_rate
        self._count_time()
        numbers["seconds"] = sums.seconds
        self.history.add(numbers)
        if self.validation is not None and self.history.best_epoch == self.epoch:
            self.best = dict(self.model.parameters)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, Sums()

    def _validation_loss(self, data: Data) -> float:
        """The mean loss. The ranks share the minibatches, and add their losses in the minibatches' order."""
        batches = data.batches(max(self.options.batch_size, 64), None)
        rank, ranks = self.gradients.rank, self.gradients.ranks
        own = batches[rank * len(batches) // ranks:(rank + 1) * len(batches) // ranks]
        of_ranks = self.gradients.exchange(_losses(self.model, data, self.options.loss, own))
        return _mean(pair for of_rank in of_ranks for pair in of_rank)
