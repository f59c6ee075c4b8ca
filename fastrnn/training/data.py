"""Training data: rows of sequences, buckets of like length, minibatches."""

import numpy as np

from .._base import validation as check
from ..nn.modules import sizes

BUCKET = 16         # minibatches whose rows are sorted by length among themselves


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
