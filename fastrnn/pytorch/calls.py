"""What a call of a layer or a cell does whichever it is: the arguments' meaning, and one layer with its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .. import _core
from .._base import dispatch
from .autograd import apply, forward_pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.nn.utils.rnn import PackedSequence

    from .._core import Pass
    from .weights import Tensors

# The kernels' names of what torch's modules call their mode.
KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def trains(*tensors: torch.Tensor | None) -> bool:
    """Whether a gradient may be asked for. In Python, because torch.compile traces it."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def run(call: Pass, x: torch.Tensor, states: Sequence[torch.Tensor], weights: Tensors,
        trains: bool) -> tuple[torch.Tensor, ...]:
    """One layer, as a node of autograd where a gradient may be asked for. `weights` are five for each direction."""
    h_0, c_0 = (*states, None, None)[:2]
    if trains:
        results: tuple[torch.Tensor, ...] = apply(call, x, h_0, c_0, *weights)
        return results
    return forward_pass(call, x, h_0, c_0, False)[0]


def states(hx: Any, lstm: bool) -> tuple[Any, ...] | None:
    """hx as a tuple of tensors, empty for None; None where it is something else."""
    if hx is None:
        return ()
    states = hx if lstm else (hx,)
    return tuple(states) if isinstance(states, (tuple, list)) and len(states) == 1 + lstm else None


def packed_batch(input: PackedSequence) -> _core.Batch | None:
    """How the rows of a PackedSequence are ordered, and those of its states; None where its tensors do not fit."""
    batch = _core.packed_batch(input.batch_sizes.numpy(), input.data.shape[0]) if input.data.dim() == 2 else None
    return batch if batch is None or order_states(batch, input) else None


def order_states(batch: _core.Batch, input: PackedSequence) -> bool:
    """Have the states in the caller's order, which the rows, by falling length, are not; whether that is possible."""
    order, inverse = input.sorted_indices, input.unsorted_indices
    if order is None or inverse is None:
        return order is inverse
    return batch.order_states(order.numpy(), inverse.numpy())


def threads() -> int:
    """The number of threads that satisfies the settings of both libraries."""
    return min(dispatch.get_num_threads(), torch.get_num_threads())
