"""Calls with gradients, of one layer in one direction: what most of them are, without what only others need.

Of a call of few rows the steps on the way to the kernels are most of the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.utils.rnn import PackedSequence

from .. import _core
from .._core import Pass
from ..nn.parameters import GATES
from . import calls, internals
from .autograd import apply
from .short_calls import gains, step_gains
from .weights import DTYPES, suits

if TYPE_CHECKING:
    from .modules import _Layers


def call(layer: _Layers, input: Any, hx: Any) -> tuple[Any, Any] | None:
    """The output and the last state, with gradients enabled; None where the call is not for this way."""
    kind, names, packed = calls.KINDS.get(layer.mode), internals.weight_names(layer), type(input) is PackedSequence
    states = calls.states(hx, kind == "lstm")
    if kind is None or names is None or states is None or len(names) > 1 or layer.proj_size \
            or "parametrizations" in layer._modules:
        return None
    x, I, H = input[0] if packed else input, layer.input_size, layer.hidden_size
    if not suits((x, *states)) or x.shape[-1:] != (I,):
        return None
    if packed:
        batch = calls.packed_batch(input)
    else:
        batch = _core.Batch(x.shape[0], x.shape[1], None, None) if x.dim() == 3 and not layer.batch_first else None
    weights = layer._direction(names[0], {})
    if batch is None or not batch.rows or not _core.any_requires_grad((x, *states, *weights)):
        return None
    for s in states:
        if s.shape != (1, batch.N, H):
            return None
    if kind != "lstm":
        size = GATES[kind] * H * (I + H)
        if not (step_gains(kind, size) if batch.T == 1 else gains(kind, batch.T, batch.rows, size, True)):
            return None
    pack = layer._packed(kind, 0, weights, DTYPES[x.dtype], I)
    if pack is None:
        return None
    x, _ = layer._kept_input(x, False, weights, True)
    of_call = Pass([pack], batch, batch.lengths is not None, H if kind == "lstm" else None, tuple(x.shape[:-1]),
                   (1, batch.N), False, False, calls.threads())
    y, *last = apply(of_call, x, *states, *(None,) * (2 - len(states)), *weights)
    return (input._replace(data=y) if packed else y), tuple(last) if kind == "lstm" else last[0]
