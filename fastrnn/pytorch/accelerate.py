"""``accelerate`` and ``restore``: torch's recurrent modules in a model become fastrnn's, and back, in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from .modules import ORIGINALS, SWAPS, Fast, turn
from .resets import process_sequence
from .weights import DTYPES, PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Report:
    """What ``accelerate`` or ``restore`` did; printing it shows a line for each module.

    Parameters
    ----------
    swapped : dict of str to str
        The modules that were swapped: their names in the model ("" for the model itself) and their reprs.
    left : dict of str to str
        The recurrent modules that were left as they are: their names and the reasons.

    Examples
    --------
    >>> import torch
    >>> from fastrnn.pytorch import accelerate
    >>> print(accelerate(torch.nn.Sequential(torch.nn.GRU(2, 3), torch.nn.GRU(2, 3, dtype=torch.float16))))
    1 swapped, 1 left
      0: GRU(2, 3)
      1: left, weight_ih_l0 is torch.float16
    """

    swapped: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = self.swapped | {name: f"left, {reason}" for name, reason in self.left.items()}
        return "\n".join([f"{len(self.swapped)} swapped, {len(self.left)} left",
                          *(f"  {name or '(the model)'}: {text}" for name, text in lines.items())])


def _why_not(module: nn.Module) -> str | None:
    """Why a recurrent module is not swapped; "" where it may be, None where it is not recurrent."""
    cls, names = parametrize.type_before_parametrizations(module), {cls.__name__ for cls in SWAPS}
    if isinstance(module, Fast):
        return "fastrnn's already"
    if isinstance(module, torch.jit.ScriptModule):
        return "compiled by TorchScript" if getattr(module, "original_name", "") in names else None
    if cls.__module__.startswith("torch.ao.nn.quant") and cls.__name__ in names:
        return "quantised"
    if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return None
    if cls not in SWAPS or "forward" in vars(module):
        return "it may have a forward of its own"
    for name, value in module.named_parameters():
        if type(value) not in PLAIN:
            return f"{name} is of the class {type(value).__name__}"
        if not value.is_cpu:
            return f"{name} is on {value.device}"
        if value.dtype not in DTYPES:
            return f"{name} is {value.dtype}"
    return ""


def _why_not_back(module: nn.Module) -> str | None:
    """The same for ``restore``, which looks at nothing but fastrnn's modules."""
    if not isinstance(module, Fast):
        return None
    cls = parametrize.type_before_parametrizations(module)
    return "" if cls in ORIGINALS else f"{cls.__name__} is a subclass of fastrnn's"


def _swap(model: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]],
          why_not: Callable[[nn.Module], str | None]) -> Report:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    swapped: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, module in list(model.named_modules()):
        reason = why_not(module)
        if reason:
            left[name] = reason
        elif reason == "":
            turn(module, classes[parametrize.type_before_parametrizations(module)])
            swapped[name] = repr(module)
    return Report(swapped, left)


def accelerate(model: nn.Module) -> Report:
    """Turn every recurrent module of a model into fastrnn's class of the same name, in place.

    The modules stay the objects they are, with their parameters, hooks and places in the model, so that optimizers and
    references to them stay valid. Swapping again changes nothing; ``restore`` undoes it.

    Parameters
    ----------
    model : torch.nn.Module
        A recurrent module, or a model with recurrent modules anywhere in it.

    Returns
    -------
    Report
        Which modules were swapped, and which were left and why. Left are subclasses and modules that may compute
        something else, parameters elsewhere than on the CPU or in another dtype than float32 and float64, and
        quantised and scripted modules.

    Raises
    ------
    TypeError
        `model` is not a module.

    Examples
    --------
    >>> from torch import nn
    >>> from fastrnn.pytorch import accelerate
    >>> model = nn.ModuleDict({"encoder": nn.LSTM(8, 16, bidirectional=True), "head": nn.Linear(32, 1)})
    >>> print(accelerate(model))
    1 swapped, 0 left
      encoder: LSTM(8, 16, bidirectional=True)
    """
    return _swap(model, SWAPS, _why_not)


def restore(model: nn.Module) -> Report:
    """Turn fastrnn's modules in a model into torch's own, in place.

    This undoes what ``accelerate`` and ``whole_sequences`` did. Modules that were made as fastrnn's are turned too, so
    that a model can be saved, quantised or scripted without fastrnn.

    Parameters
    ----------
    model : torch.nn.Module
        A recurrent module, or a model with recurrent modules anywhere in it.

    Returns
    -------
    Report
        Which modules were turned, and which were left and why.

    Raises
    ------
    TypeError
        `model` is not a module.

    Examples
    --------
    >>> from torch import nn
    >>> from fastrnn.pytorch import accelerate, restore
    >>> model = nn.GRU(2, 3)
    >>> accelerate(model).swapped
    {'': 'GRU(2, 3)'}
    >>> restore(model).swapped, type(model) is nn.GRU
    ({'': 'GRU(2, 3)'}, True)
    """
    report = _swap(model, ORIGINALS, _why_not_back)
    for module in model.modules():
        if vars(module).get("_process_sequence") is process_sequence:
            del vars(module)["_process_sequence"]
    return report
