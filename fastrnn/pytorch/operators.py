"""One recurrent layer as an operator of torch's, so that torch.compile may have it inside a graph.

torch.compile takes no recurrent modules into its graphs unless ``torch._dynamo.config.allow_rnn`` is set; they run
between the graphs. Where it is set, as ``fullgraph=True`` needs it, a graph holds the operator ``fastrnn::layer``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from .. import _core
from .._base import dispatch
from .._core import Pass
from ..nn.parameters import GATES
from . import calls, internals
from .autograd import backward_pass, forward_pass
from .weights import DTYPES, Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

Tensor = torch.Tensor
_OPTIONS = "Tensor[] weights, Tensor? reset_mask, str kind, bool bias"


class _Kept(np.ndarray[Any, Any]):
    """The memory of a tensor that stands for what the derivatives need; that is freed with the last such tensor."""

    kept: Any


# By the address of its memory, so that it is found whichever tensors of this memory a compiled graph makes.
_KEPT: WeakValueDictionary[int, _Kept] = WeakValueDictionary()


def _call(x: Tensor, h_0: Tensor, weights: Sequence[Tensor], reset_mask: Tensor | None, kind: str, bias: bool) -> Pass:
    """What the kernels need to know of a call; x is [T, N, I]."""
    T, N, _ = x.shape
    D = h_0.shape[0]
    H: int = weights[0].shape[0] // GATES[kind]
    table, packs = dispatch.layer_table(DTYPES[x.dtype], H), []
    for d in range(D):
        own: list[Tensor | None] = list(weights[d * len(weights) // D:(d + 1) * len(weights) // D])
        if not bias:
            own[2:2] = None, None
        arrays: list[Any] = [None if a is None else a.copy() for a in Weights([*own, None][:5], None).arrays]
        packs.append(_core.Parameters(table, kind, *arrays))
    hidden = H if kind == "lstm" else None
    mask = None if reset_mask is None else reset_mask.numpy().copy()
    batch = _core.Batch(T, N, None, None)
    return Pass(packs, batch, False, hidden, (T, N), (D, N), False, False, calls.threads(), mask)


def _layer(x: Tensor, h_0: Tensor, c_0: Tensor | None, weights: Sequence[Tensor], reset_mask: Tensor | None, kind: str,
           bias: bool, keep: bool) -> tuple[Tensor, ...]:
    """The output, h_n, c_n (empty unless LSTM), and a tensor whose memory keeps what the derivatives need."""
    if keep:
        x = x.clone()           # compiled code may write to the memory of x before the derivatives are asked for
    call = _call(x, h_0, weights, reset_mask, kind, bias)
    results, kept = forward_pass(call, x, h_0, c_0, keep)
    memory = np.zeros(1, np.uint8).view(_Kept)
    if kept is not None:
        memory.kept = call, kept
        _KEPT[memory.ctypes.data] = memory
    return (*results, *(x.new_empty(0) for _ in range(3 - len(results))), torch.from_numpy(memory))


def _layer_shapes(x: Tensor, h_0: Tensor, c_0: Tensor | None, weights: Sequence[Tensor], reset_mask: Tensor | None,
                  kind: str, bias: bool, keep: bool) -> tuple[Tensor, ...]:
    D, N, S = h_0.shape
    return (x.new_empty(x.shape[0], N, D * S), x.new_empty(D, N, S),
            x.new_empty(0) if c_0 is None else x.new_empty(c_0.shape), x.new_empty(1, dtype=torch.uint8))


def _layer_gradients(d_output: Tensor | None, d_h: Tensor | None, d_c: Tensor | None, token: Tensor, x: Tensor,
                     h_0: Tensor, c_0: Tensor | None, weights: Sequence[Tensor], reset_mask: Tensor | None, kind: str,
                     bias: bool) -> list[Tensor]:
    """dL/dx, dL/dh_0, dL/dc_0 of an LSTM, then the gradients of the weights."""
    memory = _KEPT.get(token.data_ptr())
    if memory is not None:
        call, saved = memory.kept
    else:                       # something on the way gave back a copy: forward again
        call = _call(x, h_0, weights, reset_mask, kind, bias)
        saved = forward_pass(call, x, h_0, c_0, True)[1]
    gradients = backward_pass(call, saved, x.shape, d_output, d_h, d_c if c_0 is not None else None, True, True, True)
    result: list[Tensor] = []
    for gradient in gradients:
        if gradient is not None:        # one memory for two gradients is nothing that an operator may return
            shared = any(gradient.data_ptr() == other.data_ptr() for other in result)
            result.append(gradient.clone() if shared else gradient.contiguous())
    return result


def _gradient_shapes(d_output: Tensor | None, d_h: Tensor | None, d_c: Tensor | None, token: Tensor, x: Tensor,
                     h_0: Tensor, c_0: Tensor | None, weights: Sequence[Tensor], reset_mask: Tensor | None, kind: str,
                     bias: bool) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (x, h_0, *(() if c_0 is None else (c_0,)), *weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h_0, c_0, weights, reset_mask, ctx.kind, ctx.bias, _ = inputs
    ctx.save_for_backward(output[3], x, h_0, c_0, reset_mask, *weights)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, d_output: Tensor | None, d_h: Tensor | None, d_c: Tensor | None,
              d_token: Tensor | None) -> tuple[Any, ...]:
    token, x, h_0, c_0, reset_mask, *weights = ctx.saved_tensors
    dx, dh_0, *rest = _gradients(d_output, d_h, d_c, token, x, h_0, c_0, weights, reset_mask, ctx.kind, ctx.bias)
    dc_0 = rest.pop(0) if c_0 is not None else None
    return dx, dh_0, dc_0, rest, None, None, None, None


_operator: Any = torch.library.custom_op(
    "fastrnn::layer", _layer, mutates_args=(),
    schema=f"(Tensor x, Tensor h_0, Tensor? c_0, {_OPTIONS}, bool keep) -> (Tensor, Tensor, Tensor, Tensor)")
_operator.register_fake(_layer_shapes)
_gradients: Any = torch.library.custom_op(
    "fastrnn::layer_gradients", _layer_gradients, mutates_args=(),
    schema="(Tensor? d_output, Tensor? d_h, Tensor? d_c, Tensor token, Tensor x, Tensor h_0, Tensor? c_0, "
           f"{_OPTIONS}) -> Tensor[]")
_gradients.register_fake(_gradient_shapes)
_operator.register_autograd(_backward, setup_context=_save)


def in_a_graph(layer: nn.RNNBase, input: Any, hx: Any, reset_mask: Any) -> tuple[Any, Any] | None:
    """The layer's results by the operator, while torch.compile traces; None for what is torch's to compute."""
    lstm, D, names = layer.mode == "LSTM", 2 if layer.bidirectional else 1, internals.weight_names(layer)
    states = calls.states(hx, lstm)
    if states is None or names is None:
        return None
    first = getattr(layer, names[0][0])
    if (not isinstance(input, Tensor) or input.dim() != 3 or input.dtype not in DTYPES
            or input.device.type != "cpu" or input.shape[-1] != layer.input_size or torch.is_autocast_enabled("cpu")
            or any(t.dtype != input.dtype or t.device.type != "cpu" for t in (first, *states))
            or not (reset_mask is None or isinstance(reset_mask, Tensor))):
        return None
    x = input.transpose(0, 1) if layer.batch_first else input
    T, N = x.shape[0], x.shape[1]
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][:1 + lstm]
    if T == 0 or N == 0 or any(s.shape != (layer.num_layers * D, N, width) for s, width in zip(states, widths)):
        return None
    if reset_mask is not None and (reset_mask.dtype != torch.bool or reset_mask.shape != (T, N)):
        return None
    if not states:
        states = tuple(x.new_zeros(layer.num_layers * D, N, width) for width in widths)
    finals = []
    for k in range(layer.num_layers):
        own = [s[k * D:(k + 1) * D] for s in states]
        weights = [getattr(layer, name) for of_direction in names[k * D:(k + 1) * D] for name in of_direction]
        x, h_n, c_n, _ = torch.ops.fastrnn.layer(x, own[0], own[1] if lstm else None, weights, reset_mask,
                                                 calls.KINDS[layer.mode], layer.bias, calls.trains(x, *own, *weights))
        finals.append((h_n, c_n)[:1 + lstm])
        if layer.dropout and layer.training and k < layer.num_layers - 1:
            x = torch.dropout(x, layer.dropout, True)
    last = [torch.cat(parts) for parts in zip(*finals)]
    return x.transpose(0, 1) if layer.batch_first else x, tuple(last) if lstm else last[0]
