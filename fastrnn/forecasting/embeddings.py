"""Embeddings of categories: each becomes a vector of a few numbers, which is learnt.

A network is trained on windows of the series, in which a column of categories is its code alone. The code picks a row
of a table, and the network reads that row in its place; the table is trained with the network, by the gradient of the
loss with respect to what the network reads,

    dL/dE_c = sum over all steps, and steps to come, that are of category c, of dL/dx there.

The network is then left aside and the vectors stay: they are columns like any others, which every member of the blend
reads. They are learnt from the steps before those at which members are judged. A missing category, and one that was not
there in ``fit``, is NaN, which the encoding takes for the mean vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..nn import Embedding, Gradients
from ..nn.modules import Container
from .categories import ONE_HOT, Vectors, table_of
from .encoding import Encoding
from .fitting import drawn, fresh_network, optimise
from .origins import held_steps
from .windows import Prepared, training_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, ArrayLike, Float64Array, IntArray, Rng, TrainingPrecision
    from .network import ForecastNetwork
    from .options import Options
    from .series import Panel, Series

KINDS = "static", "past", "known"       # in the order of the encoding
SHARE = 2               # the vectors are learnt in so many times fewer updates than the network may have
FEWEST = 100            # updates, at least


@dataclass(frozen=True)
class Block:
    """Columns of the series that are the vectors of one column of categories."""

    kind: str           # which array of ``Series`` they are in
    start: int          # the first of them
    name: str
    table: Float64Array     # the vectors [C, W]

    @property
    def stop(self) -> int:
        """The column after the last."""
        return self.start + int(self.table.shape[1])

    def codes(self, values: Float64Array) -> IntArray:
        """The category of each row of vectors [T, W], -1 where it is missing: its first number tells it."""
        order = np.argsort(self.table[:, 0])
        places = np.searchsorted(self.table[order, 0], values[:, 0])
        return np.where(np.isnan(values[:, 0]), -1, order[np.minimum(places, len(order) - 1)])


def blocks_of(panel: Panel) -> list[Block]:
    """Where the vectors of columns with more than ONE_HOT categories are, in the order of the encoding."""
    result = []
    for kind in KINDS:
        start = 0
        for name in panel.columns.get(kind, ()):
            categories = panel.categories.get(name)
            width = 1
            if categories is not None:
                table = table_of(categories)
                width = table.shape[1]
                if len(table) > ONE_HOT:
                    result.append(Block(kind, start, name, table))
            start += width
    return result


def with_embeddings(panel: Panel, options: Options) -> Panel:
    """The panel with vectors that were learnt, where columns have more than ONE_HOT categories."""
    blocks = blocks_of(panel)
    if not blocks:
        return panel
    coded = [_coded(each, blocks) for each in panel.series]
    encoding = Encoding(options.horizon, options.window, options.log, options.scaling, options.difference,
                        options.seasons, options.time_features, coded)
    inputs = _inputs(encoding, blocks)
    ends = [len(each) - (held_steps(len(each), options.horizon) if options.blend is not False else 0)
            for each in coded]
    windows = training_windows(Prepared(coded, encoding), options.sequence, ends)
    if not windows:
        return panel
    network = EmbeddedNetwork(
        [_begun(block.table) for block in blocks],
        fresh_network(encoding, options, encoding.size + sum(
            len(columns) * (block.table.shape[1] - 1) for block, columns in zip(blocks, inputs, strict=True))), inputs)
    updates = max(FEWEST, options.updates // SHARE)
    optimise(network, drawn(windows, options, updates), options, updates, None)
    tables = [module.state_dict()["weight"][1:].astype(np.float64) for module in network.tables]
    categories = dict(panel.categories)
    for block, table in zip(blocks, tables, strict=True):
        categories[block.name] = Vectors(tuple(categories[block.name]), table)
    return with_vectors(panel, categories)


def with_vectors(panel: Panel, categories: dict[str, Any]) -> Panel:
    """The panel with the vectors that `categories` have, in place of its own."""
    blocks = blocks_of(panel)
    if not blocks:
        return panel
    tables = [table_of(categories[block.name]) for block in blocks]
    series = []
    for each in panel.series:
        arrays: dict[str, Any] = {}
        for block, table in zip(blocks, tables, strict=True):
            if block.kind not in arrays:
                arrays[block.kind] = np.array(_rows(each, block.kind))
            values = arrays[block.kind][:, block.start:block.stop]
            codes = block.codes(values)
            values[:] = np.where(codes[:, None] < 0, np.nan, table[codes])
        if "static" in arrays:
            arrays["static"] = arrays["static"][0]
        series.append(replace(each, **arrays))
    result = panel.with_series(series)
    result.categories = categories
    if result.layout is not None:       # by which the rows of steps to come are read
        result.layout = replace(result.layout, categories=categories)
    return result


def _rows(series: Series, kind: str) -> Float64Array:
    """The columns of a kind [T, columns]; of static ones a single row."""
    if kind == "static":
        return np.empty((1, 0)) if series.static is None else series.static[None]
    values: Float64Array = getattr(series, kind)
    return values


def _coded(series: Series, blocks: Sequence[Block]) -> Series:
    """The series with one column for each block: 1 for the first category, and so on; NaN where it is missing."""
    arrays: dict[str, Any] = {}
    for kind in KINDS:
        own = [block for block in blocks if block.kind == kind]
        if not own:
            continue
        values, parts, place = _rows(series, kind), [], 0
        for block in own:
            codes = block.codes(values[:, block.start:block.stop])[:, None]
            parts += [values[:, place:block.start], np.where(codes < 0, np.nan, codes + 1.0)]
            place = block.stop
        joined = np.concatenate([*parts, values[:, place:]], 1)
        arrays[kind] = joined[0] if kind == "static" else joined
    return replace(series, **arrays)


def _inputs(encoding: Encoding, blocks: Sequence[Block]) -> list[IntArray]:
    """Which of the network's inputs are codes, for each block; they are not standardised any more."""
    result, moved = [], dict.fromkeys(KINDS, 0)
    first = {"static": encoding.past_at - len(encoding.static[0]), "past": encoding.past_at, "known": encoding.known_at}
    for block in blocks:
        column = block.start - moved[block.kind]
        moved[block.kind] += block.table.shape[1] - 1
        mean, scale = getattr(encoding, block.kind)
        mean[column], scale[column] = 0.0, 1.0
        steps = 1 + encoding.horizon if block.kind == "known" else 1
        result.append(first[block.kind] + column + len(mean) * np.arange(steps))
    return result


def _begun(table: Float64Array) -> Embedding:
    """An Embedding that begins with fixed vectors, and before them zeros for a missing category."""
    result = Embedding(len(table) + 1, table.shape[1])
    result.load_state_dict({"weight": np.concatenate([np.zeros((1, table.shape[1])), table]).astype(np.float32)})
    return result


class EmbeddedNetwork(Container):
    """A ForecastNetwork that reads vectors in place of codes.

    Parameters
    ----------
    tables : sequence of Embedding
        One for each column of categories.
    network : ForecastNetwork
        It reads the other inputs and then all vectors.
    inputs : sequence of array of int
        For each table, which inputs are its codes.
    """

    def __init__(self, tables: Sequence[Embedding], network: ForecastNetwork, inputs: Sequence[IntArray]) -> None:
        super().__init__(*tables, network)
        self.tables, self.network, self.inputs = tuple(tables), network, tuple(inputs)

    def _split(self, x: Array) -> tuple[Array, list[IntArray]]:
        """The inputs that are no codes, and the codes of each table."""
        others = np.delete(x, np.concatenate(self.inputs), -1)
        return others, [x[..., columns].astype(np.int64) for columns in self.inputs]

    def __call__(self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None) -> tuple[Array, Any]:
        """Run the network over sequences of inputs with codes among them."""
        others, codes = self._split(np.asarray(x))
        vectors = [table(ids)[0] for table, ids in zip(self.tables, codes, strict=True)]
        return self.network(_joined(others, vectors), state, lengths=lengths, reset_mask=reset_mask)

    def forward(self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None,
                reset_mask: ArrayLike | None = None, rng: Rng = None, *,
                precision: TrainingPrecision | None = None) -> tuple[Array, Any, EmbeddedTrace]:
        """Run the network, and keep what ``backward`` needs."""
        others, codes = self._split(np.asarray(x))
        results = [table.forward(ids) for table, ids in zip(self.tables, codes, strict=True)]
        joined = _joined(others, [vectors for vectors, _, _ in results])
        output, state, cache = self.network.forward(joined, state, lengths, reset_mask, rng, precision=precision)
        return output, state, EmbeddedTrace(others.shape[-1], [each for _, _, each in results], cache)

    def backward(self, cache: EmbeddedTrace, d_output: ArrayLike, d_state: Any = None,
                 need_input: bool = True) -> Gradients[Any, Any]:
        """The gradients of all parameters; there is none of codes."""
        gradients = self.network.backward(cache.network, d_output, d_state, need_input=True)
        d_vectors, parameters = gradients.input[..., cache.others:], {}
        for n, (table, own, columns) in enumerate(zip(self.tables, cache.tables, self.inputs, strict=True)):
            width = len(columns) * table.embedding_dim
            part = d_vectors[..., :width].reshape(*d_vectors.shape[:-1], len(columns), table.embedding_dim)
            parameters[f"{n}.weight"] = table.backward(own, np.ascontiguousarray(part)).parameters["weight"]
            d_vectors = d_vectors[..., width:]
        parameters |= {f"{len(self.tables)}.{name}": value for name, value in gradients.parameters.items()}
        return Gradients(None, gradients.state, parameters)


class EmbeddedTrace(NamedTuple):
    """The cache of an EmbeddedNetwork: how many inputs are no codes, and the caches of its parts."""

    others: int
    tables: list[Any]
    network: Any


def _joined(others: Array, vectors: Sequence[Array]) -> Array:
    return np.concatenate([others, *(each.reshape(*each.shape[:-2], -1) for each in vectors)], -1)
