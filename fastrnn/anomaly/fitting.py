"""Training of the detector's network by back-propagation, before the read-out takes over."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from .. import losses, optim, training
from .statistics import OUTLYING as CLIP

if TYPE_CHECKING:
    from .._base.typing import Float64Array
    from ..nn import Sequential

SEQUENCE = 100          # rows of the pieces that are trained on: gradients go back over no more


def train(model: Sequential, rows: Float64Array, updates: int, batch_size: int, learning_rate: float,
          rng: np.random.Generator, times: Float64Array | None = None) -> None:
    """Train a network to forecast, from every row, the change to the next; rows are scaled by channel.

    Parameters
    ----------
    model : Sequential
        A recurrent layer and a Linear; its parameters are changed.
    rows : array of float64, [rows, channels]
        NaN where a value is missing.
    updates : int
        Updates by the optimizer; the nearest whole number of passes over all pieces is made, one at least.
    batch_size : int
        Pieces of a minibatch.
    learning_rate : float
        Of Adam.
    rng : numpy.random.Generator
        For the order of the pieces.
    times : array of float64, [rows, features], or None
        What the network reads of each row's time, beside the row before.
    """
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)         # a channel that is missing throughout
        mean, deviation = np.nanmean(rows, 0), np.nanstd(rows, 0)
    z = np.clip((rows - mean) / np.where(deviation > 0, deviation, 1), -CLIP, CLIP)
    observed = ~np.isnan(z)
    last = np.maximum.accumulate(np.where(observed, np.arange(len(z))[:, None], 0), 0)
    filled = np.nan_to_num(np.take_along_axis(z, last, 0)).astype(np.float32)   # the last value where one is missing
    x, change, counts = filled[:-1], np.diff(filled, axis=0), observed[1:].all(1)
    if times is not None:
        x = np.hstack([x, times[1:].astype(np.float32)])
    cuts = range(SEQUENCE, len(x), SEQUENCE)
    pieces = np.split(x, cuts)
    batches = -(-len(pieces) // batch_size)
    training.fit(model, pieces, np.split(change, cuts), mask=np.split(counts, cuts), loss=losses.Huber(),
                 optimizer=optim.Adam(model, learning_rate), epochs=max(1, round(updates / batches)),
                 batch_size=batch_size, clip_norm=1.0, rng=rng, progress=False)
