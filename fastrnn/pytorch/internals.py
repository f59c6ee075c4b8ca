"""What this package uses of torch that torch does not document: the names are here, and nowhere else.

Where a version of torch lacks one of these names, the kernels are not used and the modules run torch's own code: the
names say whether something must see torch's operations, and without them nobody knows.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    from torch import nn

_is_tracing: Any = torch.jit.is_tracing     # type: ignore[attr-defined]  # documented, but not in the module's __all__
_transforms_are_active: Any = getattr(torch._C, "_are_functorch_transforms_active", None)
_dispatch_modes: Any = getattr(torch._C, "_len_torch_dispatch_stack", None)
_operations: Any = getattr(torch, "_VF", None)
_is_legacy_batched: Any = getattr(getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", None)
_saved_tensors_hooks: Any = getattr(getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", None)
COMPLETE = (None not in (_transforms_are_active, _dispatch_modes, _is_legacy_batched)
            and hasattr(forward_ad, "_current_level"))


def eager() -> bool:
    """Whether calls are simply executed: nothing is traced, and no transform or mode must see torch's operations.

    The tests are for torch.compile, torch.jit.trace, functorch's transforms, dispatch modes, forward-mode derivatives,
    and autocast to other dtypes than bfloat16.
    """
    return COMPLETE and not (
        torch.compiler.is_compiling() or _is_tracing() or _transforms_are_active() or _dispatch_modes()
        or forward_ad._current_level >= 0
        or (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is not torch.bfloat16))


def compiling() -> bool:
    """Whether torch.compile is tracing a graph to run, not one to export.

    What ``is_exporting`` returns is looked at instead of asking it: torch 2.9 takes it for True in whatever it traces.
    """
    exporting = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_dynamo_compiling() and not (
        torch.compiler.is_exporting() if exporting is None else exporting)


def tracing() -> bool:
    """Whether torch.jit.trace is running."""
    return bool(_is_tracing())


def saved_tensors_hooked() -> bool:
    """Whether a hook, that of a checkpoint for one, takes the tensors that a node saves; True where nobody can tell."""
    return _saved_tensors_hooks is None or _saved_tensors_hooks(False) is not None


def batched(*gradients: torch.Tensor | None) -> bool:
    """Whether gradients are being computed for many vectors at once, by vmap or with is_grads_batched."""
    return bool(_transforms_are_active() or any(d is not None and _is_legacy_batched(d) for d in gradients))


def weight_names(layer: nn.RNNBase) -> list[list[str]] | None:
    """The names of the weights of each layer and direction of a torch.nn.RNN, LSTM or GRU."""
    return cast("list[list[str]] | None", getattr(layer, "_all_weights", None))


def parametrised_weights(layer: nn.RNNBase) -> dict[str, Any]:
    """The weights of a parametrised layer by name, computed as often as torch computes them; else an empty dict.

    How often matters to parametrisations that change with every use: the power iterations of spectral_norm, dropout.
    """
    modules: dict[str, Any] = layer._modules
    update: Any = getattr(layer, "_update_flat_weights", None)
    if "parametrizations" not in modules or update is None:
        return {}
    update()
    names: Any = layer._flat_weights_names
    weights: Any = layer._flat_weights
    return dict(zip(names, weights, strict=True))


def plain_call(layer: nn.RNNBase, x: torch.Tensor, h_0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What the forward of a torch.nn.RNN or GRU does with an input [T, N, I] and a state that fit, without its checks.

    None where they do not fit, for that forward to say so, and where a name is missing.
    """
    operation: Any = getattr(_operations, layer.mode.lower(), None)
    update: Any = getattr(layer, "_update_flat_weights", None)
    if operation is None or update is None or type(h_0) is not torch.Tensor or x.dim() != 3 or h_0.dim() != 3 \
            or "parametrizations" in layer._modules:
        return None
    own, weights = layer._parameters, cast("list[Any]", layer._flat_weights)
    names: Any = layer._flat_weights_names
    if any(own.get(name) is not weight for name, weight in zip(names, weights, strict=True)):
        update()        # which asks for attributes one by one, at a tenth of the cost of the step
        weights = cast("list[Any]", layer._flat_weights)
    rows = x.size(0 if layer.batch_first else 1)
    if (x.size(2) != layer.input_size or x.dtype is not weights[0].dtype or h_0.size(1) != rows
            or h_0.size(0) != layer.num_layers * (2 if layer.bidirectional else 1) or h_0.size(2) != layer.hidden_size):
        return None
    return cast("tuple[torch.Tensor, torch.Tensor]", operation(
        x, h_0, weights, layer.bias, layer.num_layers, layer.dropout, layer.training, layer.bidirectional,
        layer.batch_first))


def to_be_quantised(cls: type[nn.Module] | None) -> bool:
    """Whether torch.ao.quantization is just now noting which modules to quantise, those of this class among them."""
    frame = sys._getframe(1)
    for _ in range(8):
        wanted = frame.f_locals.get("qconfig_dict")
        if isinstance(wanted, dict) and "torch.ao.quantization" in frame.f_globals.get("__name__", ""):
            return cls in wanted
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def leave_uncompiled(function: Callable[..., Any]) -> None:
    """Makes torch.compile run a function, and what it calls, as they are.

    Otherwise it would trace the function and so take torch's code. ``torch.compiler.disable`` does the same, but it
    imports the compiler and wraps every call. Where the names are missing, torch's code it is.
    """
    frames: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)
    if all(hasattr(frames, name) for name in ("set_code_exec_strategy", "_FrameExecStrategy", "_FrameAction")):
        skip = frames._FrameAction.SKIP
        code = cast("FunctionType", function).__code__
        frames.set_code_exec_strategy(code, frames._FrameExecStrategy(skip, skip))
