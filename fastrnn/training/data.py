"""Training data: rows of sequences, buckets of similar length, minibatches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from .._base import validation as check
from ..nn.modules import sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, ArrayLike, IntArray
    from ..nn.base import Module

# What `fit` takes for x, y and the mask: one array, or a list with an array for each row.
Rows: TypeAlias = "ArrayLike | Sequence[ArrayLike]"

BUCKET = 16         # the number of minibatches whose rows are sorted by length among themselves


class Data:
    """Sequences, targets, lengths and masks: N rows, from which minibatches are taken.

    ``parts`` has x, y and perhaps the mask by the names that messages use, each an array [T, N, ...] ([N, T, ...] with
    ``batch_first``) or, where x came as a list (``ragged``), a list of N arrays [T_n, ...].
    """

    def __init__(self, model: Module, x: Rows, y: Rows, lengths: ArrayLike | None, mask: Rows | None,
                 prefix: str = "") -> None:
        self.batch_first: bool = getattr(model, "batch_first", False)
        self.ragged = isinstance(x, (list, tuple))
        if self.ragged and lengths is not None:
            raise ValueError(f"{prefix}lengths: a list of sequences has its own")
        named = {prefix + "x": x, prefix + "y": y} | ({} if mask is None else {prefix + "mask": mask})
        self.parts: dict[str, Any] = {name: self._list_of_rows(value, name) if self.ragged else self._array(value, name)
                                      for name, value in named.items()}
        self._check_input(model, prefix + "x")
        values = list(self.parts.values())
        if self.ragged:
            extents: list[Any] = [list(map(len, value)) for value in values]
            self.rows, self.steps = len(values[0]), max(extents[0])
        else:
            extents = [value.shape[:2] for value in values]
            self.steps, self.rows = extents[0][::-1] if self.batch_first else extents[0]
        for name, extent in zip(self.parts, extents):
            if extent != extents[0]:
                raise ValueError(f"{name}: expected the rows and steps of x, {extents[0]!r:.100}, got {extent!r:.100}")
        if not self.rows:
            raise ValueError(f"{prefix}x: expected at least one row, got none")
        self.lengths = np.array(extents[0], np.int64) if self.ragged else self._row_lengths(lengths)

    def _array(self, value: Rows, name: str) -> Array:
        a = check.numbers(value, name)
        if a.ndim < 2:
            raise ValueError(f"{name}: expected {'[N, T, ...]' if self.batch_first else '[T, N, ...]'}, got shape "
                             f"{a.shape}")
        return a

    @staticmethod
    def _list_of_rows(value: Rows, name: str) -> list[Array]:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{name}: expected a list of arrays, as x is, got {type(value).__name__}")
        rows = [check.numbers(row, name) for row in value]
        if not rows:
            raise ValueError(f"{name}: expected at least one row, got none")
        if any(row.ndim < 1 or row.shape[1:] != rows[0].shape[1:] for row in rows):
            raise ValueError(f"{name}: expected arrays [T_n, ...] of the same shape but for their length")
        return rows

    def _row_lengths(self, lengths: ArrayLike | None) -> IntArray | None:
        if lengths is None:
            return None
        falling, order = cast("tuple[IntArray, IntArray]", check.row_lengths(lengths, self.steps, self.rows))
        return falling[np.argsort(order, kind="stable")]        # in the caller's order of rows again

    def _check_input(self, model: Module, name: str) -> None:
        """Checks before training, not in the middle of it, that the model can read x, and converts x to its dtype."""
        size, x = sizes(model)[0], self.parts[name]
        if self.axes(name) != (() if size is None else (size,)):
            expected = "whole numbers without a last axis" if size is None else f"a last axis of {size}"
            raise ValueError(f"{name}: expected {expected} beside rows and steps, got {self.axes(name)}")
        if size is not None:
            self.parts[name] = ([check.array(row, name, model.dtype) for row in x] if self.ragged else
                                check.array(x, name, model.dtype))

    def axes(self, name: str) -> tuple[int, ...]:
        """The shape of a part without the axes of rows and steps."""
        part = self.parts[name]
        return cast("tuple[int, ...]", part[0].shape[1:] if self.ragged else part.shape[2:])

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> list[IntArray]:
        """The row numbers of each minibatch; in the order of the rows without an rng.

        With lengths, rows of similar length share a minibatch: shuffled rows are sorted within buckets of a few
        minibatches (without an rng all rows are sorted), then the minibatches are shuffled.
        """
        order = np.arange(self.rows) if rng is None else rng.permutation(self.rows)
        if self.lengths is not None:
            bucket = self.rows if rng is None else BUCKET * batch_size
            order = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")]
                                    for part in np.split(order, range(bucket, self.rows, bucket))])
        batches = np.split(order, range(batch_size, self.rows, batch_size))
        if self.lengths is not None and rng is not None:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        return batches

    def take(self, rows: IntArray) -> tuple[Array, Array, IntArray | None, Array | None]:
        """x, y, lengths and mask of some rows, with as many steps as the longest of them has."""
        axis = 0 if self.batch_first else 1
        parts: list[Any]
        if self.ragged:
            parts = [self._padded([part[i] for i in rows]) for part in self.parts.values()]
        elif self.rows == len(rows) and np.array_equal(rows, np.arange(self.rows)):
            parts = list(self.parts.values())
        else:
            parts = [part.take(rows, axis) for part in self.parts.values()]
        x, y, mask = parts if len(parts) == 3 else (*parts, None)
        if self.lengths is None:
            return x, y, None, mask
        lengths = self.lengths[rows]
        T = lengths.max()
        x, y = cut(x, 0, T, self.batch_first), cut(y, 0, T, self.batch_first)
        valid: Array = np.arange(T)[:, None] < lengths
        valid = valid.T if self.batch_first else valid
        if mask is not None:
            mask = cut(mask, 0, T, self.batch_first)
            valid = np.where(valid.reshape(valid.shape + (1,) * (mask.ndim - 2)), mask, mask.dtype.type(0))
        return x, y, lengths, valid

    def _padded(self, rows: list[Array]) -> Array:
        out = np.zeros((len(rows), max(map(len, rows)), *rows[0].shape[1:]), np.result_type(*rows))
        for n, row in enumerate(rows):
            out[n, :len(row)] = row
        return out if self.batch_first else out.swapaxes(0, 1)


def cut(a: Array, start: int, stop: int, batch_first: bool) -> Array:
    """The steps start to stop-1 of an array with axes of rows and steps."""
    return a[:, start:stop] if batch_first else a[start:stop]
