"""One recurrent layer as one node of PyTorch's autograd, on the tensors' own memory."""

from typing import NamedTuple

import numpy as np
import torch

from .. import _core
from .._base import validation as check
from ..nn.parameters import NAMES

TORCH_NAMES = NAMES[:5]         # torch has no peepholes


class Pass(NamedTuple):
    """One layer over one batch: all but the tensors. What the kernels see are views of the caller's arrays: sequences
    [T, N, width], or [rows, width] where a PackedSequence is ragged, and states [D, N, width]."""

    packs: list             # _core.Parameters of each direction
    batch: _core.Batch
    ragged: bool            # x and output are packed rows
    hidden: int | None      # width of a cell state; None unless LSTM
    rows: tuple             # the output's shape but for its last axis
    state_rows: tuple       # a state's shape but for its last axis
    x_swapped: bool         # x is [N, T, I]
    y_swapped: bool         # the output is [N, T, D*S]
    threads: int

    @property
    def state_size(self):
        return self.packs[0].weight_hh.shape[1]


def array(tensor):
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def inward(a, at, swapped):
    """The kernels' view of the caller's sequence; a copy where its last axis is strided."""
    if not at.ragged:
        a = a.swapaxes(0, 1) if swapped else a.reshape(at.batch.T, at.batch.N, a.shape[-1])
    return check.walkable(a)


def state_array(tensor, at, width):
    shape = len(at.packs), at.batch.N, width
    if tensor is None:
        return np.zeros(shape, at.packs[0].dtype)
    return check.contiguous(array(tensor).reshape(shape))


def state_arrays(h, c, at):
    return state_array(h, at, at.state_size), None if at.hidden is None else state_array(c, at, at.hidden)


def state_tensor(a, at):
    return torch.from_numpy(a.reshape(*at.state_rows, a.shape[-1]))


def forward_pass(at, x, h_0, c_0, keep):
    """The tensors output, h_n (and c_n), and what ``backward_pass`` needs where it is to be kept."""
    h, c = state_arrays(h_0, c_0, at)
    width = len(at.packs) * at.state_size
    shape = (*at.rows, width)
    # batch_first is a matter of strides, as in torch: a dropout after it draws its mask in the order of memory
    y = x.new_empty_strided(shape, (width, at.batch.N * width, 1)) if at.y_swapped else x.new_empty(shape)
    h_n, c_n, kept = _core.forward_layer(at.packs, at.batch, inward(array(x), at, at.x_swapped), h, c, None,
                                         inward(y.numpy(), at, at.y_swapped), None, keep, at.threads, borrow=True)
    return (y, *(state_tensor(a, at) for a in (h_n, c_n) if a is not None)), kept


def backward_pass(at, kept, x_shape, d_output, d_h, d_c, need_input, need_parameters):
    """dL/dx, dL/dh_0, dL/dc_0, then the parameters' in the order of TORCH_NAMES, None where not needed or not there."""
    width = len(at.packs) * at.state_size
    if d_output is None:
        shape = (at.batch.rows, width) if at.ragged else (at.batch.T, at.batch.N, width)
        dy = np.broadcast_to(np.zeros(width, at.packs[0].dtype), shape)
    else:
        dy = inward(array(d_output), at, at.y_swapped)
    dx, dh_0, dc_0, found = _core.backward_layer(kept, dy, *state_arrays(d_h, d_c, at), at.threads, need_input,
                                                 need_parameters)
    if dx is not None:
        dx = torch.from_numpy(dx.swapaxes(0, 1) if at.x_swapped else dx.reshape(x_shape))
    values = [direction.get(name) for direction in found for name in TORCH_NAMES]
    return (dx, *(None if a is None else state_tensor(a, at) for a in (dh_0, dc_0)),
            *(None if a is None else torch.from_numpy(a) for a in values))


class FastRNN(torch.autograd.Function):
    """A layer's output and final states from x, initial states (or None) and five weights a direction (or None)."""

    @staticmethod
    def forward(ctx, at, x, h_0, c_0, *weights):
        results, kept = forward_pass(at, x, h_0, c_0, True)
        # What the kernels kept hangs on a saved tensor, so that it goes when torch lets go of that: after backward, or
        # at once in a checkpoint, which calls forward again.
        token = x.new_empty(0)
        token.kept = kept
        ctx.save_for_backward(token, x, h_0, c_0, *weights)
        ctx.set_materialize_grads(False)
        ctx.at = at
        return results

    @staticmethod
    def backward(ctx, d_output, d_h, d_c=None):
        if torch._C._are_functorch_transforms_active() or any(
                d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in (d_output, d_h, d_c)):
            raise RuntimeError("fastrnn.pytorch: recurrent modules have no batched gradients here (is_grads_batched, "
                               "jacobian(vectorize=True), vmap): restore(model) gives torch's modules back")
        token, x, *inputs = ctx.saved_tensors
        kept = getattr(token, "kept", None)
        if kept is None:        # a hook on saved tensors gave back another tensor
            kept = forward_pass(ctx.at, x, *inputs[:2], True)[1]
        needed = ctx.needs_input_grad
        found = backward_pass(ctx.at, kept, x.shape, d_output, d_h, d_c, needed[1], any(needed[4:]))
        found = [value if need else None for value, need in zip(found, needed[1:], strict=True)]
        if torch.is_grad_enabled():     # create_graph: they may be differentiated again, or not
            found = Once.apply(len(found), *found, d_output, d_h, d_c, x, *inputs)[:len(found)]
        return None, *found


class Once(torch.autograd.Function):
    """The first `count` tensors, as functions of all of them that have no derivative."""

    @staticmethod
    def forward(ctx, count, *tensors):
        return tuple(None if t is None else t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError("fastrnn.pytorch: recurrent modules have no second derivative here (a gradient made with "
                           "create_graph=True was differentiated): restore(model) gives torch's modules back")
