"""``clip_grad_norm``: gradients scaled down to a norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .. import _core
from .._base import dispatch
from .._base import validation as check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array


def clip_grad_norm(gradients: Mapping[str, Array], max_norm: float) -> float:
    """Scale gradients in place so that their common 2-norm is at most `max_norm`.

    Parameters
    ----------
    gradients : mapping of str to ndarray
        The gradients by name; their arrays are written to.
    max_norm : float
        The largest norm, above 0. With infinity the norm is measured and nothing is scaled.

    Returns
    -------
    float
        The norm before scaling. It is not finite where a gradient contains NaN or infinity; then nothing is scaled, so
        that the caller can see it and skip the update.

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it, and nothing is scaled.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.optim import clip_grad_norm
    >>> gradients = {"weight": np.array([3.0, 4.0])}
    >>> clip_grad_norm(gradients, 1.0), gradients["weight"].round(6).tolist()
    (5.0, [0.6, 0.8])
    """
    max_norm = check.bound(max_norm, "max_norm")
    check.mapping(gradients, "gradients")
    arrays = [check.contiguous(check.scalable(gradient, name)) for name, gradient in gradients.items()]
    squares = [_core.sum_of_squares(dispatch.table(a.dtype), a) for a in arrays]
    norm = math.sqrt(sum(squares))
    if math.isfinite(norm) and norm > max_norm:
        for gradient in gradients.values():
            gradient *= gradient.dtype.type(max_norm / norm)
    return norm
