"""``fit`` and ``evaluate``: epochs, minibatches, pieces of truncated back-propagation."""

import math
import time
import warnings
from collections.abc import Mapping

import numpy as np

from .. import losses
from .._base import validation as check
from .._base.progress import Progress
from ..nn.base import Parametrised
from ..nn.modules import recurrent
from ..optim import Optimizer, clip_grad_norm
from . import checkpoints
from .data import Data, cut
from .history import History


def fit(model, x, y, *, loss, optimizer, epochs, batch_size, lengths=None, mask=None, tbptt=None, clip_norm=math.inf,
        validation=None, patience=None, checkpoint=None, checkpoint_every=None, shuffle=True, rng=None, progress=True):
    """Trains a model on sequences.

    Parameters
    ----------
    model : layer or Sequential
        Its parameters are changed.
    x : array [T, N, I], or [N, T, I] of a batch_first model; or a list of N arrays [T_n, I]
        The model's input: N rows of T steps. Whole numbers, which an Embedding reads, have no last axis.
    y : array or list of arrays
        Targets, [T, N, ...] laid out as x: for every row and step what `loss` compares the output with.
    loss : function (output, target, mask) -> (value, d_output)
        ``losses.MSE()``, ...
    optimizer : fastrnn.optim.Optimizer
        Of this model.
    epochs : int
    batch_size : int
        Rows of a minibatch.
    lengths : ints [N], optional
        Valid steps of each row; later ones do not count. Rows of like length meet in a minibatch, which is as long as
        its longest row. A list has the lengths of its arrays.
    mask : array [T, N], as x is laid out, or a list of arrays, optional
        Which steps count in the loss (bools), or how much (numbers of at least 0).
    tbptt : int, optional
        Truncated back-propagation through time (Williams & Peng 1990): sequences are walked in pieces of so many steps,
        with an update after each; the state is carried from piece to piece, gradients are not.
    clip_norm : float
        Gradients are scaled down to this common norm. Where the norm is not finite the update is skipped, the
        weights stay, and a RuntimeWarning says so.
    validation : tuple (x, y), or mapping with "x", "y" and, where needed, "lengths" and "mask", optional
        Data whose loss is taken after every epoch. At the end the model has the weights of the best epoch.
    patience : int, optional
        Early stopping: no more epochs after so many without a better validation loss.
    checkpoint : str or path-like, optional
        A file that is written after every epoch, whole at any moment. Where it is there already, training goes on from
        it: it has model, optimizer, best weights, history, position, the seed of all that is random and the state that
        tbptt carries, so that a run killed and started again ends with the same bits as one never killed. Then the
        model's present parameters and `rng` do not matter; everything but `epochs` and `patience` must be as it was, or
        it is a ValueError. (A schedule, a function, cannot be compared.)
    checkpoint_every : int, optional
        Write it after so many updates, too.
    shuffle : bool
        False: the same minibatches in the same order every epoch.
    rng : numpy.random.Generator, int seed or None
        Of the order of rows and of dropout.
    progress : bool
        Show epochs: tqdm's bar where it is installed (``pip install fastrnn[demo]``), else about ten plain lines.

    Returns
    -------
    History

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name, or a checkpoint of another training.
    fastrnn.ModelFormatError
        A file in the checkpoint's place that is none, or broken.
    OSError
        The checkpoint cannot be read or written.

    Examples
    --------
    >>> import fastrnn
    >>> model = fastrnn.Sequential(fastrnn.GRU(1, 8, rng=0), fastrnn.Linear(8, 1, rng=1))
    >>> wave = np.sin(np.arange(200) / 5).astype(np.float32).reshape(-1, 1, 1)
    >>> history = fit(model, wave[:-1], wave[1:], loss=fastrnn.losses.MSE(), optimizer=fastrnn.optim.Adam(model, 0.01),
    ...               epochs=10, batch_size=1, tbptt=20, progress=False)
    >>> history["loss"][-1] < history["loss"][0] / 4
    True
    """
    run = _Run(model, x, y, loss, optimizer, epochs, batch_size, lengths, mask, tbptt, clip_norm, validation, patience,
               checkpoint, checkpoint_every, shuffle, rng)
    return run.go(check.flag(progress, "progress"))


def evaluate(model, x, y, *, loss, batch_size=256, lengths=None, mask=None):
    """The loss of a model on data, by calling it (no dropout). Arguments as ``fit`` has them.

    Returns
    -------
    float
        The mean over all that counts, whatever the minibatches.

    >>> import fastrnn
    >>> model = fastrnn.Linear(1, 1, bias=False)
    >>> model.load_state_dict({"weight": np.array([[2.0]], np.float32)})
    >>> evaluate(model, np.ones((3, 2, 1), np.float32), np.ones((3, 2, 1)), loss=fastrnn.losses.MSE())
    1.0
    """
    _check_model_and_loss(model, loss)
    return _evaluate(model, Data(model, x, y, lengths, mask), loss, check.size(batch_size, "batch_size"))


def _check_model_and_loss(model, loss):
    if not isinstance(model, Parametrised):
        raise TypeError(f"model: expected a layer or a Sequential, got {type(model).__name__}")
    if not callable(loss):
        raise TypeError(f"loss: expected a function (output, target, mask), got {type(loss).__name__}")


def _of(loss, output, target, mask):
    found = loss(output, target, mask)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(f"loss: expected it to give (value, d_output), got {type(found).__name__}")
    return check.real(found[0], "loss's value"), found[1]


def _evaluate(model, data, loss, batch_size):
    total, count = 0.0, 0.0
    for rows in data.batches(batch_size, None):
        x, y, lengths, mask = data.take(rows)
        output = model(x, lengths=lengths)[0]
        weight = losses.total_weight(mask, output.shape)
        total += weight * _of(loss, output, y, mask)[0]
        count += weight
    return total / count if count else math.nan


# ---- Training -------------------------------------------------------------------------------------

class _Run:
    """One training: what is to be done, and how far it is."""

    def __init__(self, model, x, y, loss, optimizer, epochs, batch_size, lengths, mask, tbptt, clip_norm, validation,
                 patience, checkpoint, checkpoint_every, shuffle, rng):
        _check_model_and_loss(model, loss)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected one of fastrnn.optim, got {type(optimizer).__name__}")
        if optimizer.model is not model:
            raise ValueError("optimizer: it is of another model")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.epochs = check.size(epochs, "epochs", least=0)
        self.batch_size = check.size(batch_size, "batch_size")
        self.data = Data(model, x, y, lengths, mask)
        self.batch_first = self.data.batch_first
        self.tbptt = None if tbptt is None else check.size(tbptt, "tbptt")
        layers = recurrent([model])
        if tbptt is not None and any(layer.bidirectional or layer.reverse for layer in layers):
            raise ValueError("tbptt: a reversed direction starts at the sequence's end and carries no state forward")
        self.drops = any(layer.dropout for layer in layers)
        self.clip_norm = check.bound(clip_norm, "clip_norm")
        self.validation = None if validation is None else self._validation_data(validation)
        self.patience = None if patience is None else check.size(patience, "patience")
        if patience is not None and validation is None:
            raise ValueError("patience: it needs validation data")
        if checkpoint_every is not None and checkpoint is None:
            raise ValueError("checkpoint_every: it needs the path of a checkpoint")
        self.checkpoint = None if checkpoint is None else check.path(checkpoint, "checkpoint")
        self.every = None if checkpoint_every is None else check.size(checkpoint_every, "checkpoint_every")
        self.shuffle = check.flag(shuffle, "shuffle")
        # One number stands for all that is random: position and seed give every order and every dropout mask.
        self.seed = int(check.generator(rng).integers(2**63))
        self.epoch = self.batch = self.start = 0        # the next piece to train on: epoch, minibatch, step
        self.carried = None                             # the state before it, where start > 0
        self.sums = dict.fromkeys(_SUMS, 0.0)
        self.history = History()
        self.best = None                                # parameters of the epoch with the best validation loss
        self.since = time.perf_counter()                # the time from here on is not in sums["seconds"] yet
        if self.checkpoint is not None:
            self.description = checkpoints.description(self)

    def _validation_data(self, given):
        if isinstance(given, Mapping):
            if not {"x", "y"} <= given.keys() <= {"x", "y", "lengths", "mask"}:
                raise ValueError(f"validation: expected x, y and perhaps lengths and mask, got {', '.join(given)}")
        elif isinstance(given, (tuple, list)) and len(given) == 2:
            given = dict(zip(("x", "y"), given))
        else:
            raise TypeError("validation: expected a pair (x, y), or a mapping with x, y, lengths, mask")
        data = Data(self.model, given["x"], given["y"], given.get("lengths"), given.get("mask"), "validation ")
        if data.axes("validation y") != self.data.axes("y"):
            raise ValueError(f"validation y: expected {self.data.axes('y')} beside rows and steps, as y has, got "
                             f"{data.axes('validation y')}")
        return data

    def go(self, progress):
        if self.checkpoint is not None:
            checkpoints.resume(self.checkpoint, self)
        with Progress(self.epochs, "epoch", "training", done=self.epoch, shown=progress) as shown:
            while self.epoch < self.epochs and not self._stopped():
                self._train_epoch()
                self._end_epoch()
                self._save()
                shown.advance(self.history.note())
        if self.best is not None:
            self.model.load_state_dict(self.best)
        return self.history

    def _stopped(self):
        best = self.history.best_epoch
        return self.patience is not None and self.epoch - 1 - (-1 if best is None else best) >= self.patience

    def _save(self):
        if self.checkpoint is not None:
            self._clock()
            checkpoints.save(self.checkpoint, self)

    def _clock(self):
        now = time.perf_counter()
        self.sums["seconds"] += now - self.since
        self.since = now

    def _train_epoch(self):
        order = np.random.default_rng((self.seed, 0, self.epoch)) if self.shuffle else None
        batches = self.data.batches(self.batch_size, order)
        while self.batch < len(batches):
            self._train_batch(batches[self.batch])
            self.batch, self.start, self.carried = self.batch + 1, 0, None

    def _train_batch(self, rows):
        x, y, lengths, mask = self.data.take(rows)
        steps = x.shape[1 if self.batch_first else 0]
        piece = self.tbptt or max(1, steps)
        while self.start < steps:
            stop = min(steps, self.start + piece)
            part = [None if a is None else cut(a, self.start, stop, self.batch_first) for a in (x, y, mask)]
            self._train_piece(*part, None if lengths is None else np.clip(lengths - self.start, 0, stop - self.start))
            self.start = stop
            if self.every is not None and self.sums["pieces"] % self.every == 0:
                self._save()

    def _train_piece(self, x, y, mask, lengths):
        rng = np.random.default_rng((self.seed, 1, self.epoch, self.batch, self.start)) if self.drops else None
        output, self.carried, cache = self.model.forward(x, self.carried, lengths, rng=rng)
        weight = losses.total_weight(mask, output.shape)
        if not weight:
            return                      # nothing here counts: the state was all that was wanted
        self.sums["pieces"] += 1
        value, d_output = _of(self.loss, output, y, mask)
        gradients = self.model.backward(cache, d_output, need_input=False).parameters
        norm = clip_grad_norm(gradients, self.clip_norm)
        self.sums["weight"] += weight
        self.sums["loss"] += weight * value
        if math.isfinite(norm):
            self.optimizer.step(gradients)
            self.sums["norms"] += norm
        else:
            if not self.sums["skipped"]:
                warnings.warn(f"the gradient's norm is {norm} in epoch {self.epoch}, minibatch {self.batch}: update "
                              "skipped", RuntimeWarning, stacklevel=6)
            self.sums["skipped"] += 1

    def _end_epoch(self):
        sums, found = self.sums, {}
        found["loss"] = sums["loss"] / sums["weight"] if sums["weight"] else math.nan
        if self.validation is not None:
            found["validation_loss"] = _evaluate(self.model, self.validation, self.loss, max(self.batch_size, 64))
        updates = sums["pieces"] - sums["skipped"]
        found["gradient_norm"] = sums["norms"] / updates if updates else math.nan
        found["skipped"] = sums["skipped"]
        found["learning_rate"] = self.optimizer.current_learning_rate
        self._clock()
        found["seconds"] = sums["seconds"]
        self.history.add(found)
        if self.validation is not None and self.history.best_epoch == self.epoch:
            self.best = dict(self.model.parameters)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, dict.fromkeys(_SUMS, 0.0)


_SUMS = ("loss", "weight", "norms", "pieces", "skipped", "seconds")        # over an epoch
