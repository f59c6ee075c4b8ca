"""Training without a framework: ``fit`` and the ``History`` it gives.

Reading order: ``fit`` (what can be asked for), ``Data`` (rows, buckets, minibatches), ``_Run`` (epochs, minibatches,
pieces of truncated back-propagation), ``History``, ``Progress``. Checkpoints are in ``checkpoints``.
"""

import math
import time
import warnings
from collections.abc import Mapping

import numpy as np

from . import _validation as check
from . import checkpoints, losses
from ._plots import new_figure
from .layers import Parametrised
from .modules import recurrent, sizes
from .optim import Optimizer, clip_grad_norm

__all__ = ["fit", "evaluate", "History"]

BUCKET = 16         # minibatches whose rows are sorted by length among themselves


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


# ---- Data -----------------------------------------------------------------------------------------

class Data:
    """Sequences, targets, lengths and masks: N rows, from which minibatches are taken."""

    def __init__(self, model, x, y, lengths, mask, name=""):
        self.batch_first = getattr(model, "batch_first", False)
        self.parts = {name + "x": x, name + "y": y} | ({} if mask is None else {name + "mask": mask})
        self.ragged = isinstance(x, (list, tuple))
        if self.ragged and lengths is not None:
            raise ValueError(f"{name}lengths: a list of sequences has its own")
        for part, value in self.parts.items():
            self.parts[part] = self._rows(value, part) if self.ragged else self._array(value, part)
        self._fit_to(model, name + "x")
        given = list(self.parts.values())
        if self.ragged:
            self.rows, extents = len(given[0]), [list(map(len, value)) for value in given]
        else:
            extents = [value.shape[:2] for value in given]
            self.steps, self.rows = extents[0][::-1] if self.batch_first else extents[0]
        for part, extent in zip(self.parts, extents):
            if extent != extents[0]:
                raise ValueError(f"{part}: expected the rows and steps of x, {extents[0]!r:.100}, got {extent!r:.100}")
        if not self.rows:
            raise ValueError(f"{name}x: expected at least one row, got none")
        if self.ragged:
            self.lengths = np.array(extents[0], np.int64)
        else:
            falling, order = check.row_lengths(lengths, self.steps, self.rows)
            self.lengths = None if lengths is None else falling[np.argsort(order, kind="stable")]

    def _array(self, value, name):
        a = check.numbers(value, name)
        if a.ndim < 2:
            raise ValueError(f"{name}: expected {'[N, T, ...]' if self.batch_first else '[T, N, ...]'}, got shape "
                             f"{a.shape}")
        return a

    @staticmethod
    def _rows(value, name):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name}: expected a list of arrays, as x is, got {type(value).__name__}")
        rows = [check.numbers(row, name) for row in value]
        if not rows:
            raise ValueError(f"{name}: expected at least one row, got none")
        if any(row.ndim < 1 or row.shape[1:] != rows[0].shape[1:] for row in rows):
            raise ValueError(f"{name}: expected arrays [T_n, ...], alike but for their length")
        return rows

    def _fit_to(self, model, name):
        """x is what the model reads, in its dtype: said before the training, not in the middle of it."""
        size, x = sizes(model)[0], self.parts[name]
        if self.axes(name) != (() if size is None else (size,)):
            wanted = "whole numbers without a last axis" if size is None else f"a last axis of {size}"
            raise ValueError(f"{name}: expected {wanted} beside rows and steps, got {self.axes(name)}")
        if size is not None:
            self.parts[name] = ([check.array(row, name, model.dtype) for row in x] if self.ragged else
                                check.array(x, name, model.dtype))

    def axes(self, name):
        """The shape of a part beyond rows and steps."""
        return self.parts[name][0].shape[1:] if self.ragged else self.parts[name].shape[2:]

    def batches(self, batch_size, rng):
        """Row numbers of each minibatch. With lengths, rows of like length stand together: shuffled rows are sorted
        within buckets of a few minibatches (without an rng: all of them), and the minibatches shuffled."""
        order = np.arange(self.rows) if rng is None else rng.permutation(self.rows)
        if self.lengths is not None:
            bucket = self.rows if rng is None else BUCKET * batch_size
            order = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")]
                                    for part in np.split(order, range(bucket, self.rows, bucket))])
        batches = np.split(order, range(batch_size, self.rows, batch_size))
        if self.lengths is not None and rng is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def take(self, rows):
        """x, y, lengths and mask of some rows, as long as the longest of them."""
        axis = 0 if self.batch_first else 1
        if self.ragged:
            parts = [self._padded([part[i] for i in rows]) for part in self.parts.values()]
        elif self.rows == len(rows) and np.array_equal(rows, np.arange(self.rows)):
            parts = list(self.parts.values())
        else:
            parts = [part.take(rows, axis) for part in self.parts.values()]
        x, y, mask = (*parts, None)[:3]
        if self.lengths is None:
            return x, y, None, mask
        lengths = self.lengths[rows]
        T = lengths.max()
        x, y, mask = (part if part is None else cut(part, 0, T, self.batch_first) for part in (x, y, mask))
        valid = np.arange(T)[:, None] < lengths
        valid = valid.T if self.batch_first else valid
        if mask is not None:
            valid = np.where(valid.reshape(valid.shape + (1,) * (mask.ndim - 2)), mask, mask.dtype.type(0))
        return x, y, lengths, valid

    def _padded(self, rows):
        out = np.zeros((len(rows), max(map(len, rows)), *rows[0].shape[1:]), np.result_type(*rows))
        for n, row in enumerate(rows):
            out[n, :len(row)] = row
        return out if self.batch_first else out.swapaxes(0, 1)


def cut(a, start, stop, batch_first):
    """Steps start ... stop-1."""
    return a[:, start:stop] if batch_first else a[start:stop]


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
        with Progress(self.epochs, self.epoch, progress) as shown:
            while self.epoch < self.epochs and not self._stopped():
                self._train_epoch()
                self._end_epoch()
                self._save()
                shown(self.history.note())
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
        found["lr"] = self.optimizer.rate
        self._clock()
        found["seconds"] = sums["seconds"]
        self.history.add(found)
        if self.validation is not None and self.history.best_epoch == self.epoch:
            self.best = dict(self.model.parameters)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, dict.fromkeys(_SUMS, 0.0)


_SUMS = ("loss", "weight", "norms", "pieces", "skipped", "seconds")        # over an epoch


class History(Mapping):
    """What ``fit`` saw: a mapping of name to a list with a number for each epoch.

    Keys: "loss" (the mean over the epoch's minibatches, each before its update), "validation_loss" (where there were
    validation data), "gradient_norm" (the mean, before clipping), "skipped" (updates left out because that norm was not
    finite), "lr" (after the epoch), "seconds".

    Examples
    --------
    >>> history = History()
    >>> history.add({"loss": 2.0, "validation_loss": 3.0})
    >>> history.add({"loss": 1.0, "validation_loss": 4.0})
    >>> history["loss"], history.best_epoch
    ([2.0, 1.0], 0)
    """

    def __init__(self, values=()):
        self._values = {name: [float(value) for value in column] for name, column in dict(values).items()}

    def __getitem__(self, name):
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def __repr__(self):
        return f"<History of {self.epochs} epochs: {self.note()}>"

    @property
    def epochs(self):
        """How many there were."""
        return len(next(iter(self._values.values()), ()))

    def add(self, numbers):
        """Appends one epoch's: a mapping of names to numbers."""
        check.mapping(numbers, "numbers")
        for name, value in numbers.items():
            self._values.setdefault(name, []).append(float(value))

    @property
    def best_epoch(self):
        """The first epoch with the smallest validation loss, or training loss where that is all; None before one is
        finite."""
        values = np.array(self._values.get("validation_loss", self._values.get("loss", [])))
        return int(np.nanargmin(np.where(np.isfinite(values), values, np.inf))) if np.isfinite(values).any() else None

    def note(self):
        """The last epoch's losses in a few words."""
        return ", ".join(f"{name.replace('_', ' ')} {self._values[name][-1]:.4g}"
                         for name in ("loss", "validation_loss") if self._values.get(name))

    def plot(self, ax=None):
        """Draws the losses over the epochs.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            A new figure's if not given.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            matplotlib is missing: ``pip install fastrnn[plot]``.
        """
        if ax is None:
            ax = new_figure("History.plot", 6, 4).add_subplot()
        epochs = np.arange(1, self.epochs + 1)
        for name, label in (("loss", "training"), ("validation_loss", "validation")):
            if name in self._values:
                ax.plot(epochs, self._values[name], label=label)
        if "validation_loss" in self._values and self.best_epoch is not None:
            ax.axvline(self.best_epoch + 1, color="0.7", linewidth=1, label="best")
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.legend(frameon=False)
        return ax


class Progress:
    """Epochs done: tqdm's bar where it is installed, else about ten plain lines; nothing unless wanted."""

    def __init__(self, epochs, done=0, wanted=True):
        self.epochs, self.done, self.wanted, self.bar = epochs, done, wanted, None

    def __enter__(self):
        if self.wanted:
            try:
                from tqdm import tqdm
                self.bar = tqdm(total=self.epochs, initial=self.done, desc="training", unit="epoch", mininterval=0.2)
            except ImportError:
                pass
        return self

    def __call__(self, note):
        """One epoch more, with a few words on it."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif self.wanted and (self.done % max(1, self.epochs // 10) == 0 or self.done == self.epochs):
            print(f"epoch {self.done} of {self.epochs}: {note}", flush=True)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()
