"""Categories as numbers: a column of names becomes a few columns that a network can read.

Up to ONE_HOT categories have a column each, 1 where a row is of that category and 0 elsewhere. More than that share
WIDTH columns: each category is embedded as a vector of WIDTH numbers, which is drawn from a fixed seed to begin with,
and which ``embeddings`` then learns from the series. A category that was not there in ``fit``, or a missing one, is
NaN, which the encoding takes for the mean over all training rows; a warning names the unknown ones.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base.trees import storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._base.typing import Float64Array, IntArray
    from .series import Panel

ONE_HOT = 32
WIDTH = 16


@storable
@dataclass
class Vectors:
    """The categories of a column, and the vectors [categories, columns] that were learnt for them."""

    labels: tuple[Any, ...]
    table: Float64Array

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)


def table_of(categories: Vectors | Sequence[Any]) -> Float64Array:
    """The vector of each category [categories, columns]."""
    return categories.table if isinstance(categories, Vectors) else vectors(len(categories))


def vectors(count: int) -> Float64Array:
    """The vectors of `count` categories, [count, columns]."""
    if count <= ONE_HOT:
        return np.eye(count)
    drawn = np.random.default_rng(count).standard_normal((count, WIDTH))
    result: Float64Array = drawn / np.sqrt(np.sum(drawn * drawn, 1, keepdims=True))
    return result


def embedded(codes: IntArray, labels: Sequence[Any], known: Vectors | Sequence[Any] | None,
             name: str) -> tuple[Float64Array, Vectors | tuple[Any, ...]]:
    """The vectors of rows of categories [rows, columns], and the categories that these columns stand for.

    Parameters
    ----------
    codes : array of int, [rows]
        The number of each row's label, -1 where there is none.
    labels : sequence
        The label of each number.
    known : Vectors, sequence or None
        The categories that ``fit`` has seen; None while it sees them.
    name : str
        What messages call the column.
    """
    every = known if isinstance(known, Vectors) else tuple(labels if known is None else known)
    places = {label: place for place, label in enumerate(every)}
    own = np.array([places.get(label, -1) for label in labels] + [-1], np.int64)
    unknown = [label for label, place in zip(labels, own.tolist(), strict=False) if place < 0]
    if unknown:
        text = ", ".join(repr(label) for label in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        warnings.warn(f"{name}: the categories {text} were not there in fit; they are taken for missing", UserWarning,
                      stacklevel=5)
    table = table_of(every)
    table = np.concatenate([table, np.full((1, table.shape[1]), np.nan)])
    result: Float64Array = table[own[codes]]
    return result, every


def labels_of(panel: Panel) -> dict[str, list[Any]] | None:
    """The categories of each known and past column of a frame, None for a column of numbers; None where all are."""
    layout = panel.layout
    if layout is None or not any(name in panel.categories for name in (*layout.known, *layout.past)):
        return None
    return {"known": [panel.categories.get(name) for name in layout.known],
            "past": [panel.categories.get(name) for name in layout.past]}


def expanded(values: Any, labels: Sequence[Any], name: str) -> Any:
    """A row of columns, categories among them, as the numbers that stand for it."""
    if values is None:
        return None
    row = list(values)
    if len(row) != len(labels):
        raise ValueError(f"{name}: expected {len(labels)} values, got {len(row)}")
    parts: list[Any] = []
    for value, categories in zip(row, labels, strict=True):
        if categories is None:
            parts.append([np.nan if value is None else value])
        else:
            code = -1 if value is None or value != value else 0
            parts.append(embedded(np.array([code]), [value][:code + 1], categories, name)[0][0])
    return np.concatenate(parts)
