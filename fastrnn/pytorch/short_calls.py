"""Calls of a layer without gradients on few rows, or of one step: their fixed cost is most of their time.

They go by the compiled part of a stream, whose state is set before every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..nn.parameters import GATES
from ..nn.streams import Caller
from . import calls, internals
from .autograd import array
from .weights import DTYPES, suits

if TYPE_CHECKING:
    from .modules import _Layers

# Of one step there is no gain where comparing the weights takes longer than torch's step.
SHORT_ROWS, WEIGHTS_TO_COMPARE = 64, 200_000
NO_STEPS = "RNN_TANH", "RNN_RELU"       # modes of which one step that trains is faster by torch


def one_step(layer: _Layers, x: torch.Tensor) -> bool:
    """Whether x is one step of a layer."""
    return x.dim() in (2, 3) and x.shape[1 if layer.batch_first and x.dim() == 3 else 0] == 1


def better_by_torch(layer: _Layers, x: torch.Tensor) -> bool:
    """Whether a call with gradients is one step of a kind that torch's own code takes faster."""
    return layer.mode in NO_STEPS and one_step(layer, x) and not torch.compiler.is_compiling()


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
