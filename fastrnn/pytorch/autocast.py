"""Recurrent modules under ``torch.autocast("cpu", dtype=torch.bfloat16)``.

The factors of every product are rounded to bfloat16, as in training with ``precision="bfloat16"``; parameters, states,
sums and gradients are float32. Results have the dtypes that torch's own have under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

PRECISION = "training in bfloat16"          # of the kernels
_WIDENED = torch.float32, torch.bfloat16    # the dtypes that inputs and states may have


def active() -> bool:
    """Whether torch.autocast runs operations on the CPU in bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16


class Cast(NamedTuple):
    """The input and the states in float32, and the dtypes of the output and of each last state."""

    x: torch.Tensor
    states: tuple[torch.Tensor, ...]
    dtypes: tuple[torch.dtype, torch.dtype]

    def results(self, output: torch.Tensor, finals: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The output and the last states in the dtypes that torch gives them."""
        return output.to(self.dtypes[0]), [t.to(dtype) for t, dtype in zip(finals, self.dtypes)]


def of(mode: str, x: Any, states: tuple[Any, ...] | None, by_steps: bool, projected: bool) -> Cast | None:
    """What autocast makes of a call; None where it is not active, or the tensors are not for it.

    torch has one operation for an LSTM over padded rows, whose results are bfloat16. All else it computes step by step
    (`by_steps`): the linear maps give bfloat16, and what is computed with a state has the state's dtype.
    """
    if not active() or states is None or any(getattr(t, "dtype", None) not in _WIDENED for t in (x, *states)):
        return None
    kind, state = mode.lower(), states[0].dtype if states else x.dtype
    if kind == "lstm":
        cell = states[1].dtype if states else x.dtype
        dtypes = (torch.bfloat16 if projected else cell, cell) if by_steps else (torch.bfloat16, torch.bfloat16)
    else:
        dtypes = (state if kind == "gru" else torch.bfloat16,) * 2
    return Cast(x.float(), tuple([t.float() for t in states]), dtypes)
