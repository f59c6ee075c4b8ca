"""One recurrent layer as one node of PyTorch's autograd, on the tensors' own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .. import _core
from .._base import validation as check
from ..nn.parameters import NAMES
from . import internals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array, BoolArray, IntArray

TORCH_NAMES = NAMES[:5]         # the parameters of a direction; torch has no peepholes


class Pass(NamedTuple):
    """One layer over one batch: everything about the call but its tensors.

    The kernels see views of the caller's arrays: sequences [T, N, width], or [rows, width] where a PackedSequence has
    rows of different lengths, and states [D, N, width].
    """

    packs: list[_core.Parameters]       # one for each direction
    batch: _core.Batch
    ragged: bool                        # x and output are packed rows
    hidden: int | None                  # width of a cell state; None unless LSTM
    rows: tuple[int, ...]               # the output's shape without its last axis
    state_rows: tuple[int, ...]         # a state's shape without its last axis
    x_swapped: bool                     # x is [N, T, I]
    y_swapped: bool                     # the output is [N, T, D*S]
    threads: int
    reset: BoolArray | None = None      # [T, N]: where a row starts its step from a zero state
    # The rows of a PackedSequence stand by falling length, those of the states in the caller's order: which of the
    # caller's rows each row is, and the inverse.
    sorted_rows: IntArray | None = None
    unsorted_rows: IntArray | None = None

    @property
    def state_size(self) -> int:
        size: int = self.packs[0].weight_hh.shape[1]
        return size


def array(tensor: torch.Tensor) -> Array:
    """The tensor's memory as an array."""
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def kernel_view(a: Array, call: Pass, swapped: bool) -> Array:
    """The caller's sequence as the kernels take it; a copy only where its last axis is strided."""
    if not call.ragged:
        a = a.swapaxes(0, 1) if swapped else a.reshape(call.batch.T, call.batch.N, a.shape[-1])
    return check.walkable(a)


def state_array(tensor: torch.Tensor | None, call: Pass, width: int) -> Array:
    """A state as the kernels take it; zeros for None."""
    shape = len(call.packs), call.batch.N, width
    if tensor is None:
        return np.zeros(shape, call.packs[0].dtype)
    a = array(tensor).reshape(shape)
    return check.contiguous(a if call.sorted_rows is None else a.take(call.sorted_rows, 1))


def state_arrays(h: torch.Tensor | None, c: torch.Tensor | None, call: Pass) -> tuple[Array, Array | None]:
    return state_array(h, call, call.state_size), None if call.hidden is None else state_array(c, call, call.hidden)


def state_tensor(a: Array, call: Pass) -> torch.Tensor:
    """A state from the kernels as the caller's tensor."""
    if call.unsorted_rows is not None:
        a = a.take(call.unsorted_rows, 1)
    return torch.from_numpy(a.reshape(*call.state_rows, a.shape[-1]))


def forward_pass(call: Pass, x: torch.Tensor, h_0: torch.Tensor | None, c_0: torch.Tensor | None,
                 keep: bool) -> tuple[tuple[torch.Tensor, ...], list[_core.Saved] | None]:
    """The tensors output, h_n (and c_n), and with `keep` what ``backward_pass`` needs."""
    h, c = state_arrays(h_0, c_0, call)
    width = len(call.packs) * call.state_size
    shape = (*call.rows, width)
    # With batch_first the output's memory is laid out with time first, as torch's is: a dropout after it draws its mask
    # in the order of memory.
    y = x.new_empty_strided(shape, (width, call.batch.N * width, 1)) if call.y_swapped else x.new_empty(shape)
    h_n, c_n, kept = _core.forward_layer(call.packs, call.batch, kernel_view(array(x), call, call.x_swapped), h, c,
                                         call.reset, kernel_view(y.numpy(), call, call.y_swapped), None, keep,
                                         call.threads, borrow=True)
    return (y, *(state_tensor(a, call) for a in (h_n, c_n) if a is not None)), kept


def backward_pass(call: Pass, kept: list[_core.Saved], x_shape: torch.Size, d_output: torch.Tensor | None,
                  d_h: torch.Tensor | None, d_c: torch.Tensor | None, need_input: bool, need_states: bool,
                  need_parameters: bool) -> tuple[torch.Tensor | None, ...]:
    """dL/dx, dL/dh_0, dL/dc_0, then the gradients of the parameters in the order of TORCH_NAMES for each direction.

    A gradient that is not needed, or whose parameter does not exist, is None.
    """
    width = len(call.packs) * call.state_size
    if d_output is None:
        shape = (call.batch.rows, width) if call.ragged else (call.batch.T, call.batch.N, width)
        dy = np.broadcast_to(np.zeros(width, call.packs[0].dtype), shape)
    else:
        dy = kernel_view(array(d_output), call, call.y_swapped)
    dh, dc = state_arrays(d_h, d_c, call)
    dx, dh_0, dc_0, parameters = _core.backward_layer(kept, dy, dh, dc, call.threads, need_input, need_parameters)
    d_input = None
    if dx is not None:
        d_input = torch.from_numpy(dx.swapaxes(0, 1) if call.x_swapped else dx.reshape(x_shape))
    gradients = [direction.get(name) for direction in parameters for name in TORCH_NAMES]
    d_states = [None if a is None or not need_states else state_tensor(a, call) for a in (dh_0, dc_0)]
    return (d_input, *d_states, *[None if a is None else torch.from_numpy(a) for a in gradients])


class FastRNN(torch.autograd.Function):
    """A layer's output and final states as a function of x, the initial states and five weights for each direction.

    States and weights that do not exist are None.
    """

    @staticmethod
    def forward(ctx: Any, call: Pass, x: torch.Tensor, h_0: torch.Tensor | None,
                c_0: torch.Tensor | None, *weights: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        results, kept = forward_pass(call, x, h_0, c_0, True)
        # What the kernels kept is an attribute of a saved tensor, so that it is freed when torch frees that tensor:
        # after backward, or at once in a checkpoint, which calls forward again.
        token: Any = torch.empty(0)
        token.kept = kept
        # Saved tensors may not be changed in place before backward, and torch says so if they are. The derivatives do
        # not depend on the biases, which may be changed, as in torch.
        ctx.biases = (*weights[2:4], *weights[7:9])
        ctx.save_for_backward(token, x, h_0, c_0, *weights[:2], *weights[4:7], *weights[9:])
        ctx.set_materialize_grads(False)
        ctx.call = call
        return results

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        d_output, d_h, d_c = (*grad_outputs, None)[:3]      # only an LSTM has a cell state
        if internals.batched(d_output, d_h, d_c):
            raise RuntimeError("fastrnn.pytorch: recurrent modules have no batched gradients here (is_grads_batched, "
                               "jacobian(vectorize=True), vmap): restore(model) gives torch's modules back")
        token, x, *inputs = ctx.saved_tensors
        kept: Any = getattr(token, "kept", None)
        if kept is None:        # a hook on saved tensors gave back another tensor
            h_0, c_0 = inputs[:2]
            kept = forward_pass(ctx.call, x, h_0, c_0, True)[1]
        needed: Sequence[bool] = ctx.needs_input_grad
        gradients = backward_pass(ctx.call, kept, x.shape, d_output, d_h, d_c, needed[1], needed[2] or needed[3],
                                  any(needed[4:]))
        gradients = tuple([d if need else None for d, need in zip(gradients, needed[1:], strict=True)])
        if torch.is_grad_enabled():     # with create_graph, and the gradients may be differentiated again
            count = len(gradients)
            once: Any = Once.apply
            gradients = once(count, *gradients, d_output, d_h, d_c, x, *inputs, *ctx.biases)[:count]
        return None, *gradients


# FastRNN.apply without what torch does in Python before its compiled part: only functorch's transforms need that, and
# the modules run torch's own code where one is active.
apply: Any = super(torch.autograd.Function, FastRNN).apply


class Once(torch.autograd.Function):
    """The first `count` tensors, as functions of all the tensors, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, count: int,
                *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> None:
        raise RuntimeError("fastrnn.pytorch: recurrent modules have no second derivative here (a gradient made with "
                           "create_graph=True was differentiated): restore(model) gives torch's modules back")
