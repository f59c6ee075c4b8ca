"""States that start anew within a sequence: the mask as the kernels take it, and the same in torch's own operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from .._base import validation as check
from . import internals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from .._base.typing import BoolArray


def array(reset_mask: Any, T: int, N: int, batched: bool, order: torch.Tensor | None = None) -> BoolArray | None:
    """The mask as an array [T, N] of its own, its rows in the given order; None where no state starts anew."""
    if reset_mask is None:
        return None
    value = reset_mask.detach().cpu().numpy() if isinstance(reset_mask, torch.Tensor) else reset_mask
    mask = check.mask(value, T, N, not batched)
    if mask is None or not mask.any():
        return None
    return np.array(mask if order is None else mask[:, order.numpy()], order="C")


def _tensor(reset_mask: Any, x: torch.Tensor, batched: bool) -> torch.Tensor:
    """The mask as a tensor [T, N] beside x, which is [T, N, I]."""
    mask: torch.Tensor = torch.as_tensor(reset_mask, device=x.device)
    if mask.dtype is not torch.bool:
        raise TypeError(f"reset_mask: expected bools, got dtype {str(mask.dtype).removeprefix('torch.')}")
    shape = tuple(x.shape[:2]) if batched else (x.shape[0],)
    if tuple(mask.shape) != shape:
        raise ValueError(f"reset_mask: expected shape {shape}, got {tuple(mask.shape)}")
    return mask if batched else mask[:, None]


def by_torch(layer: nn.RNNBase, input: Any, hx: Any, reset_mask: Any) -> tuple[Any, Any]:
    """Call torch.nn.RNN, LSTM or GRU with a mask, on any device, in any dtype and under any transform.

    torch's operators run over the steps between one reset and the next.
    """
    names = internals.weight_names(layer)
    if isinstance(input, PackedSequence) or names is None:
        raise NotImplementedError("fastrnn.pytorch: reset_mask with a PackedSequence needs float32 or float64 tensors "
                                  "on the CPU outside of tracing and transforms, and no autocast but to bfloat16")
    batched, lstm = input.dim() == 3, layer.mode == "LSTM"
    states: Sequence[torch.Tensor] = hx if lstm else (hx,)
    if not batched:
        input = input.unsqueeze(0 if layer.batch_first else 1)
    if hx is None:
        states = _initial(layer, input)
    elif not batched:
        states = [s.unsqueeze(1) for s in states]
    layer.check_forward_args(input, tuple(states) if lstm else states[0], None)  # type: ignore[arg-type]  # LSTM: pairs
    x = input.transpose(0, 1) if layer.batch_first else input
    mask = _tensor(reset_mask, x, batched)
    finals, D = [], 2 if layer.bidirectional else 1
    for k in range(layer.num_layers):
        outputs = []
        for i in range(k * D, k * D + D):
            weights = [getattr(layer, name) for name in names[i]]
            y, *final = _one_direction(layer, x, [s[i:i + 1] for s in states], mask, weights, backwards=i % 2 * D == 2)
            outputs.append(y)
            finals.append(final)
        x = torch.cat(outputs, -1) if D == 2 else outputs[0]
        if layer.dropout and layer.training and k < layer.num_layers - 1:
            x = torch.dropout(x, layer.dropout, True)
    last = [torch.cat(parts) for parts in zip(*finals, strict=True)]
    if not batched:
        x, last = x.squeeze(1), [s.squeeze(1) for s in last]
    elif layer.batch_first:
        x = x.transpose(0, 1)
    return x, tuple(last) if lstm else last[0]


def _initial(layer: nn.RNNBase, input: torch.Tensor) -> list[torch.Tensor]:
    """States of zeros as torch's modules make them, [L*D, N, width]."""
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][:2 if layer.mode == "LSTM" else 1]
    first, rows = layer.num_layers * (2 if layer.bidirectional else 1), input.shape[0 if layer.batch_first else 1]
    return [torch.zeros(first, rows, width, dtype=input.dtype, device=input.device) for width in widths]


def _segments(mask: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Runs of steps at whose first the mask may be set. While torch traces, values are unknown: each step is a run."""
    T = mask.shape[0]
    unknown = torch.compiler.is_compiling() or internals.tracing() or mask.is_meta
    starts = range(T) if unknown else [0, *(t for t, any_row in enumerate(mask.any(1).tolist()) if any_row and t)]
    return zip(starts, [*starts[1:], T], strict=True)


def _one_direction(layer: nn.RNNBase, x: torch.Tensor, states: Sequence[torch.Tensor], mask: torch.Tensor,
                   weights: list[torch.Tensor], backwards: bool) -> list[torch.Tensor]:
    """The output of one direction of one layer, then its final states; states are [1, N, width]."""
    run: Any = getattr(torch, layer.mode.lower())
    if backwards:
        x, mask = x.flip(0), mask.flip(0)
    outputs = []
    for start, stop in _segments(mask):
        states = [s.masked_fill(mask[start, :, None], 0) for s in states]
        y, *states = run(x[start:stop], states if len(states) == 2 else states[0], weights, layer.bias, 1, 0.0,
                         layer.training, False, False)
        outputs.append(y)
    output = torch.cat(outputs)
    return [output.flip(0) if backwards else output, *states]


def process_sequence(features: torch.Tensor, lstm_states: tuple[torch.Tensor, torch.Tensor],
                     episode_starts: torch.Tensor, lstm: nn.LSTM) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Run whole sequences in place of a call for each step: what recurrent policies of sb3-contrib call.

    `features` are [N*T, I], a sequence after the other, `episode_starts` [N*T] of 0 and 1; the output is [N*T, H].
    """
    rows = lstm_states[0].shape[1]
    x = features.reshape(rows, -1, lstm.input_size).swapaxes(0, 1)
    mask = episode_starts.reshape(rows, -1).swapaxes(0, 1) != 0
    if hasattr(lstm, "_fast"):
        output, states = lstm(x, lstm_states, reset_mask=mask)
    else:                       # left as it is by accelerate: on another device, for one
        output, states = by_torch(lstm, x, lstm_states, mask)
    return output.transpose(0, 1).flatten(0, 1), states
