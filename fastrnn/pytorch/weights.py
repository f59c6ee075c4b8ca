"""The weights of torch's modules as the kernels take them, and which tensors the kernels can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn

from .. import _core
from .._base import validation as check
from .autograd import array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..nn.streams import Caller

    Tensors: TypeAlias = Sequence[torch.Tensor | None]

DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
PLAIN = (torch.Tensor, nn.Parameter)


class Weights:
    """The weights of one direction, as arrays on the tensors' memory and packed for the kernels.

    They are in the order of TORCH_NAMES; one that does not exist is None.
    """

    def __init__(self, tensors: Tensors, pack: _core.Parameters | None) -> None:
        self.tensors, self.pack = tensors, pack
        self.arrays: list[Any] = [None if t is None else check.contiguous(array(t)) for t in tensors]
        self.places = [None if t is None else t.data_ptr() for t in tensors]
        if any(t is not None and t.grad_fn is not None for t in tensors):
            self.tensors = ()       # they are computed anew for every call, and keeping them would keep their graph

    def are_of(self, tensors: Tensors) -> bool:
        """Whether the arrays show what these tensors contain now."""
        return _core.same_tensors(tensors, self.tensors, self.places)


class Cache(dict[tuple[Any, ...], Weights]):
    """The Weights of a module, and the compiled part of its short calls. A copy or a pickle starts with none."""

    short: Caller | None = None

    def __reduce__(self) -> tuple[type[Cache], tuple[()]]:
        return Cache, ()


def suits(tensors: Tensors) -> bool:
    """Whether all are plain tensors in memory, of one dtype that the kernels have. None is passed over."""
    return _core.plain_tensors(tensors, PLAIN, DTYPES, torch.strided)
