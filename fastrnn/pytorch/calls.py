"""What a call of a layer or a cell does whichever it is: the arguments' meaning, and one layer with its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._base import dispatch
from .autograd import FastRNN, forward_pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, IntArray
    from .autograd import Pass
    from .weights import Tensors

# The kernels' names of what torch's modules call their mode.
KINDS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def trains(*tensors: torch.Tensor | None) -> bool:
    """Whether a gradient may be asked for."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def run(call: Pass, x: torch.Tensor, states: Sequence[torch.Tensor], weights: Tensors) -> tuple[torch.Tensor, ...]:
    """One layer, as a node of autograd where a gradient may be asked for. `weights` are five for each direction."""
    h_0, c_0 = (*states, None, None)[:2]
    if trains(x, h_0, c_0, *weights):
        results: tuple[torch.Tensor, ...] = FastRNN.apply(call, x, h_0, c_0, *weights)  # type: ignore[no-untyped-call]  # torch's
        return results
    return forward_pass(call, x, h_0, c_0, False)[0]


def states(hx: Any, lstm: bool) -> tuple[Any, ...] | None:
    """hx as a tuple of tensors, empty for None; None where it is something else."""
    if hx is None:
        return ()
    states = hx if lstm else (hx,)
    return tuple(states) if isinstance(states, (tuple, list)) and len(states) == 1 + lstm else None


def threads() -> int:
    """The number of threads that satisfies the settings of both libraries."""
    return min(dispatch.get_num_threads(), torch.get_num_threads())


def row_lengths(x: torch.Tensor, sizes: Array) -> IntArray | None:
    """The steps of each row, falling, from the batch_sizes of a PackedSequence; None where they do not fit its data."""
    if x.dim() != 2 or sizes.ndim != 1 or not sizes.size:
        return None
    ended = sizes.copy()        # the number of rows whose last step this is
    ended[:-1] -= sizes[1:]
    if ended.min() < 0 or sizes[-1] == 0 or sizes.sum() != len(x):
        return None
    return np.arange(len(sizes), 0, -1).repeat(ended[::-1])
