"""One recurrent layer as one node of PyTorch's autograd, on the tensors' own memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .. import _core
from .._core import Pass
from ..nn.parameters import NAMES
from . import internals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.typing import Array

TORCH_NAMES = NAMES[:5]         # the parameters of a direction; torch has no peepholes
_SMALL = 128                    # numbers of a step's output, for which so little is kept that it may wait to be freed


def array(tensor: torch.Tensor) -> Array:
    """The tensor's memory as an array."""
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def state_tensor(a: Array, call: Pass) -> torch.Tensor:
    """A state from the kernels as the caller's tensor."""
    return torch.from_numpy(a if len(call.state_rows) == 2 else a.reshape(*call.state_rows, a.shape[-1]))


def forward_pass(call: Pass, x: torch.Tensor, h_0: torch.Tensor | None, c_0: torch.Tensor | None,
                 keep: bool) -> tuple[tuple[torch.Tensor, ...], list[_core.Saved] | None]:
    """The tensors output, h_n (and c_n), and with `keep` what ``backward_pass`` needs."""
    shape = (*call.rows, call.width)
    # With batch_first the output's memory is laid out with time first, as torch's is: a dropout after it draws its mask
    # in the order of memory.
    y = x.new_empty_strided(shape, (call.width, call.batch.N * call.width, 1)) if call.y_swapped else x.new_empty(shape)
    of_x, h, c = call.arrays(x, h_0, c_0, False)
    h_n, c_n, kept = _core.forward_layer(call.packs, call.batch, of_x, h, c, call.reset,
                                         call.arrays(y, None, None, True)[0], None, keep, call.threads, borrow=True)
    new_h = state_tensor(h_n, call)
    return (y, new_h) if c_n is None else (y, new_h, state_tensor(c_n, call)), kept


def backward_pass(call: Pass, kept: list[_core.Saved], x_shape: torch.Size, d_output: torch.Tensor | None,
                  d_h: torch.Tensor | None, d_c: torch.Tensor | None, need_input: bool, need_states: bool,
                  need_parameters: bool) -> tuple[torch.Tensor | None, ...]:
    """dL/dx, dL/dh_0, dL/dc_0, then the gradients of the parameters in the order of TORCH_NAMES for each direction.

    A gradient that is not needed, or whose parameter does not exist, is None.
    """
    dy, dh, dc = call.arrays(d_output, d_h, d_c, True)
    dx, dh_0, dc_0, parameters = _core.backward_layer(kept, dy, dh, dc, call.threads, need_input, need_parameters,
                                                      need_states)
    d_input = None
    if dx is not None:
        d_input = torch.from_numpy(dx.swapaxes(0, 1) if call.x_swapped else dx.reshape(x_shape))
    gradients = [direction.get(name) for direction in parameters for name in TORCH_NAMES]
    d_states = [None if a is None else state_tensor(a, call) for a in (dh_0, dc_0)]
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
        # after backward, or at once in a checkpoint, which calls forward again. Of one small step, where such a tensor
        # would cost as much as the kernels, and whose tensors no checkpoint replaces, it is freed with the node.
        token: Any = None
        if call.batch.T > 1 or call.batch.N * call.width > _SMALL or internals.saved_tensors_hooked():
            token = torch.empty(0)
            token.kept = kept
        else:
            ctx.kept = kept
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
        kept: Any = ctx.kept if token is None else getattr(token, "kept", None)
        if kept is None:        # a hook on saved tensors gave back another tensor
            h_0, c_0 = inputs[:2]
            kept = forward_pass(ctx.call, x, h_0, c_0, True)[1]
        needed: Sequence[bool] = ctx.needs_input_grad
        gradients = backward_pass(ctx.call, kept, x.shape, d_output, d_h, d_c, needed[1], needed[2] or needed[3],
                                  any(needed[4:]))
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
