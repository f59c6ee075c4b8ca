"""The gradients of a piece of a minibatch: in this process alone, or together with other ranks.

``Run`` has one object of one of the two classes. Both keep the state that truncated back-propagation carries from piece
to piece: ``WholeGradients`` that of all rows, ``ShardedGradients`` that of the shards of its rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .. import losses
from .._base import validation as check
from ..nn.modules import recurrent
from .parallel import LocalSums

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array, IntArray, TrainingPrecision
    from ..losses import LossFunction
    from ..nn.base import Module
    from .parallel import Tree, World


class Piece(NamedTuple):
    """Steps of some rows of the data: a minibatch, or with truncated back-propagation as many steps as an update has.

    The arrays are [T, N, ...], or [N, T, ...] with ``batch_first``.
    """

    x: Array
    y: Array
    mask: Array | None
    lengths: IntArray | None        # [N], of these steps
    key: tuple[int, ...]            # the training's seed and the position: the masks of dropout follow from it


class Computed(NamedTuple):
    """What one update is made from."""

    weight: float                           # of the elements that count
    loss: float                             # their mean loss times the weight
    gradients: dict[str, Array] | None      # of the mean loss, by the parameters' names; None where nothing counts


class PieceGradients(Protocol):
    """What computes the gradients for ``Run``, and what it knows of other ranks."""

    rank: int
    ranks: int

    def compute(self, piece: Piece) -> Computed:
        """Compute the gradients of a piece, and carry the state at its end to the next one."""
        ...

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank."""
        ...

    def restart(self) -> None:
        """Forget the carried state: the next piece begins a minibatch."""
        ...

    def carried(self) -> Any:
        """The state that is carried, of all rows of the minibatch; every rank has to call this."""
        ...

    def carry(self, state: Any) -> None:
        """Go on with a state of all rows, such as that of a checkpoint."""
        ...


def loss_of(loss: LossFunction, output: Array, target: Array, mask: Array | None) -> tuple[float, Array]:
    """The value of a loss, checked, and its gradient with respect to the output."""
    result = loss(output, target, mask)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"loss: expected it to return (value, d_output), got {type(result).__name__}")
    return check.real(result[0], "loss's value"), result[1]


def _drops(model: Module) -> bool:
    return any(layer.dropout for layer in recurrent([model]))


class WholeGradients:
    """Computes the gradients of all rows of a minibatch at once."""

    rank, ranks = 0, 1

    def __init__(self, model: Module, loss: LossFunction, precision: TrainingPrecision | None) -> None:
        self._model, self._loss, self._precision, self._drops = model, loss, precision, _drops(model)
        self._state: Any = None

    def compute(self, piece: Piece) -> Computed:
        """Compute the gradients of a piece, and carry the state at its end to the next one."""
        rng = np.random.default_rng(piece.key) if self._drops else None
        output, self._state, cache = self._model.forward(piece.x, self._state, piece.lengths, rng=rng,
                                                         precision=self._precision)
        weight = losses.total_weight(piece.mask, output.shape)
        if not weight:
            return Computed(0.0, 0.0, None)
        value, d_output = loss_of(self._loss, output, piece.y, piece.mask)
        gradients = self._model.backward(cache, d_output, need_input=False).parameters
        return Computed(weight, weight * value, gradients)

    def exchange(self, value: Any) -> list[Any]:
        """The value alone: there are no other ranks."""
        return [value]

    def restart(self) -> None:
        """Forget the carried state: the next piece begins a minibatch."""
        self._state = None

    def carried(self) -> Any:
        """The state that is carried."""
        return self._state

    def carry(self, state: Any) -> None:
        """Go on with this state."""
        self._state = state


class ShardedGradients:
    """Computes the gradients of one rank's shards of a minibatch, and their sum with those of the other ranks.

    Shard s of S has the rows s, s + S, s + 2 S, ... The loss of a piece is a mean over what counts in it: with the
    weight w_s of what counts in shard s, the sum W of all w_s, and the shard's mean loss l_s, it is the sum of
    w_s / W * l_s. So are its gradients: each shard's are scaled by w_s / W before the tree adds them.
    """

    def __init__(self, model: Module, loss: LossFunction, precision: TrainingPrecision | None, batch_first: bool,
                 tree: Tree, world: World) -> None:
        self._model, self._loss, self._precision, self._drops = model, loss, precision, _drops(model)
        self._axis = 0 if batch_first else 1                    # of the rows
        self._tree, self._world, self._sums = tree, world, LocalSums(tree, world.rank)
        self._shards = tree.block(world.rank)                   # of this rank
        self._states: dict[int, Any] = {}                       # carried, by shard
        self.rank, self.ranks = world.rank, world.size

    def compute(self, piece: Piece) -> Computed:
        """Compute the gradients of a piece, and carry the states at its end to the next one."""
        rows = piece.x.shape[self._axis]
        results = [result for s in self._shards if (result := self._add_shard(piece, s, rows)) is not None]
        self._world.share(self._sums.take(), self._tree)
        weight = loss = 0.0
        for of_rank in self._world.exchange(results):
            for shard_weight, shard_loss in of_rank:
                weight += shard_weight
                loss += shard_loss
        if not weight:
            return Computed(0.0, 0.0, None)
        return Computed(weight, loss, self._by_name(self._world.total(rows)))

    def _add_shard(self, piece: Piece, s: int, rows: int) -> tuple[float, float] | None:
        """Add a shard's gradients to the sums of this rank; its weight, and the weight times its loss."""
        if s >= rows:
            self._sums.add(s, None)
            return None
        x, y, mask, lengths = (self._rows_of(a, s) for a in piece[:4])
        rng = np.random.default_rng((*piece.key, s)) if self._drops else None
        output, self._states[s], cache = self._model.forward(x, self._states.get(s), lengths, rng=rng,
                                                             precision=self._precision)
        shape = list(output.shape)
        shape[self._axis] = rows
        total, weight = losses.total_weight(piece.mask, tuple(shape)), losses.total_weight(mask, output.shape)
        if not total:
            return None             # nothing counts in the whole piece: there is no update
        if weight:
            value, d_output = loss_of(self._loss, output, y, mask)
            d_output = np.multiply(d_output, d_output.dtype.type(weight / total))
        else:
            value, d_output = 0.0, np.zeros_like(output)
        self._sums.add(s, self._model.backward(cache, d_output, need_input=False).parameters)
        return weight, weight * value

    def _rows_of(self, a: Any, s: int) -> Any:
        """The rows of a shard of an array; lengths have no axis of steps."""
        if a is None:
            return None
        step = self._tree.shards
        return a[s::step] if self._axis == 0 or a.ndim == 1 else a[:, s::step]

    def _by_name(self, flat: Array) -> dict[str, Array]:
        """The parts of a flat gradient, by the parameters' names."""
        result, start = {}, 0
        for name, parameter in self._model.parameters.items():
            result[name] = flat[start:start + parameter.size].reshape(parameter.shape)
            start += parameter.size
        return result

    def exchange(self, value: Any) -> list[Any]:
        """Give every rank the small objects of all ranks, by rank."""
        return self._world.exchange(value)

    def restart(self) -> None:
        """Forget the carried states: the next piece begins a minibatch."""
        self._states = {}

    def carried(self) -> Any:
        """The state that is carried, of all rows of the minibatch; every rank has to call this."""
        states = {s: state for of_rank in self._world.exchange(self._states) for s, state in of_rank.items()}
        return _merged(states, self._tree.shards) if states else None

    def carry(self, state: Any) -> None:
        """Go on with a state of all rows, such as that of a checkpoint."""
        self._states = {} if state is None else {s: _state_of(state, s, self._tree.shards) for s in self._shards}


def _state_of(state: Any, shard: int, shards: int) -> Any:
    """The rows of a shard of a state: arrays [L, N, H], or tuples of states."""
    if state is None or isinstance(state, np.ndarray):
        return None if state is None else state[:, shard::shards]
    return tuple(_state_of(part, shard, shards) for part in state)


def _merged(states: Mapping[int, Any], shards: int) -> Any:
    """The state of all rows, from those of the shards that have rows."""
    first = states[0]                   # a minibatch has a row, and it is the first shard's
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(_merged({s: state[i] for s, state in states.items()}, shards) for i in range(len(first)))
    result = np.empty((len(first), sum(state.shape[1] for state in states.values()), *first.shape[2:]), first.dtype)
    for s, state in states.items():
        result[:, s::shards] = state
    return result
