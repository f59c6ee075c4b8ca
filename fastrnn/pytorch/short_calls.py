"""Calls without gradients on few rows, of a layer or a cell, or of one step: their fixed cost is most of their time.

They go by the compiled part of a stream, whose state is set before every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..nn.parameters import GATES
from ..nn.streams import Caller
from . import calls, internals
from .autograd import TORCH_NAMES, array
from .weights import DTYPES, suits

if TYPE_CHECKING:
    from .modules import _Cell, _Layers

# Of one step there is no gain where comparing the weights takes longer than torch's step.
SHORT_ROWS, WEIGHTS_TO_COMPARE = 64, 200_000
MULTIPLY_ADDS = 2_000_000       # of a step of a cell: beyond, threads may share the work


# Where torch is faster. Beside its arithmetic a step of torch's costs from 20 us (RNN) to 80 us (GRU), forward and
# backward. A call of the kernels costs about 1 ns for each weight to bring the weights into their order and the
# gradients out of it. So one step pays for this many weights, of an RNN layer for fewer, and of an RNN's cell for none;
# and with this many rows the faster arithmetic pays for any number of weights. Without gradients there is only the
# comparison of weights, which a single row in a single step does not pay for.
_WEIGHTS_OF_A_STEP, _WEIGHTS_OF_AN_RNN, _ROWS_THAT_TRAIN, _ROWS_OF_A_STEP = 50_000, 20_000, 64, 4


def gains(kind: str, steps: int, rows: int, weights: int, trains: bool) -> bool:
    """Whether a call is faster here than by torch's GRU, RNN or cells (its nn.LSTM is never faster).

    `rows` are those of all steps together. The numbers were measured on one thread of a Zen 4 with torch 2.13.
    """
    if steps == 1 and kind.startswith("rnn"):
        return False
    if trains:
        return steps * _WEIGHTS_OF_A_STEP >= weights or (steps > 1 and rows >= _ROWS_THAT_TRAIN)
    return steps > 1 or rows >= _ROWS_OF_A_STEP


def step_gains(kind: str, weights: int) -> bool:
    """Whether one step of a layer that trains is faster here than by torch's GRU or RNN."""
    return weights <= (_WEIGHTS_OF_A_STEP if kind == "gru" else _WEIGHTS_OF_AN_RNN)


def one_step(layer: _Layers, x: torch.Tensor) -> bool:
    """Whether x is one step of a layer."""
    axes = x.dim()
    return axes in (2, 3) and x.size(1 if layer.batch_first and axes == 3 else 0) == 1


def better_by_torch(layer: _Layers, x: torch.Tensor) -> bool:
    """Whether a call with gradients is one step of a kind that torch's own code takes faster."""
    H, kind = layer.hidden_size, calls.KINDS.get(layer.mode, "lstm")
    if kind == "lstm" or step_gains(kind, GATES[kind] * H * (layer.input_size + H)):
        return False
    weight = layer._parameters.get("weight_hh_l0")
    return (weight is not None and (weight.requires_grad or kind != "gru") and one_step(layer, x)
            and "parametrizations" not in layer._modules and not torch.compiler.is_compiling())


def is_short(layer: _Layers, kind: str, x: torch.Tensor) -> bool:
    """Whether x has few rows or one step, and the layer walks forward with weights as they are."""
    axes, step = x.dim(), one_step(layer, x)
    if axes not in (2, 3) or x.shape[-1] != layer.input_size or layer.bidirectional \
            or "parametrizations" in layer._modules or (layer.dropout and layer.training):
        return False
    weights = GATES[kind] * layer.hidden_size * (layer.input_size + layer.hidden_size)
    if kind != "lstm" and step and weights > WEIGHTS_TO_COMPARE:
        return False
    rows = 1 if axes == 2 else x.shape[0 if layer.batch_first else 1]
    return rows == 1 or (not layer.batch_first and (0 < rows <= SHORT_ROWS or (step and rows > 0)))


def call(layer: _Layers, x: torch.Tensor, hx: Any) -> tuple[Any, Any] | None:
    """The output and the last state; None where the call is not for this way."""
    kind, names = calls.KINDS.get(layer.mode), internals.weight_names(layer)
    states = calls.states(hx, kind == "lstm")
    if kind is None or states is None or names is None or not suits((x, *states)) or not is_short(layer, kind, x):
        return None
    packs: Any = [layer._packed(kind, number, layer._direction(five, {}), DTYPES[x.dtype],
                                layer.input_size if number == 0 else layer.proj_size or layer.hidden_size,
                                layer.proj_size)
                  for number, five in enumerate(names)]
    if None in packs:
        return None
    rows = 1 if x.dim() == 2 else x.shape[0 if layer.batch_first else 1]
    cache: Any = layer.__dict__["_fastrnn"]
    short: Caller | None = cache.short
    if short is None or short.batch_size != rows or any(a is not b for a, b in zip(short.parameters, packs)):
        short = cache.short = Caller(packs, rows, layer.batch_first)
    arrays: Any = tuple(map(array, states))
    result = short._call(array(x), arrays if len(arrays) > 1 else arrays[0] if arrays else None, None)
    if result is None:
        return None
    output, last = result
    if isinstance(last, tuple):
        return torch.from_numpy(output), tuple(map(torch.from_numpy, last))
    return torch.from_numpy(output), torch.from_numpy(last)


def of_cell(cell: _Cell, x: torch.Tensor, hx: Any) -> Any:
    """The new state of a cell, or its pair of states; None where the call is not for this way."""
    kind: str = cell._kind
    states = calls.states(hx, kind == "lstm")
    if states is None or not suits((x, *states)) or "parametrizations" in cell._modules:
        return None
    rows = x.shape[0] if x.dim() == 2 else 1
    weights = GATES[kind] * cell.hidden_size * (cell.input_size + cell.hidden_size)
    if not 0 < rows <= SHORT_ROWS or weights > WEIGHTS_TO_COMPARE or rows * weights > MULTIPLY_ADDS:
        return None
    pack: Any = cell._packed(kind, 0, [*cell._tensors(TORCH_NAMES[:4]), None], DTYPES[x.dtype], cell.input_size)
    if pack is None:
        return None
    cache: Any = cell.__dict__["_fastrnn"]
    short: Caller | None = cache.short
    if short is None or short.batch_size != rows or short.parameters[0] is not pack:
        short = cache.short = Caller([pack], rows)
    arrays: Any = tuple(map(array, states))
    new = short._step_from(array(x), None if not arrays else arrays if len(arrays) > 1 else arrays[0])
    if isinstance(new, tuple):
        return tuple(map(torch.from_numpy, new))
    return None if new is None else torch.from_numpy(new)
