"""Names for the types that signatures share.

Results are ``Array``, which leaves the element type open: a model computes in float32 or float64, whichever it was made
with, and a caller who annotates `NDArray[np.float32]` should not need a cast. Arguments that are converted are
``numpy.typing.ArrayLike``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Activation", "Array", "ArrayLike", "BoolArray", "CellName", "DTypeLike", "Float64Array", "FloatArray",
           "FloatDType", "IntArray", "LSTMState", "LSTMStateLike", "Parameters", "ParametersLike", "PathLike",
           "RandomState", "Rng", "TrainingPrecision"]

ArrayLike: TypeAlias = npt.ArrayLike
DTypeLike: TypeAlias = npt.DTypeLike

# Arrays that are returned or kept.
Array: TypeAlias = npt.NDArray[Any]                     # of the model's dtype
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]   # float32 or float64, not further known
Float64Array: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

# The state of an LSTM is the pair (h, c); that of a GRU or an RNN is h alone.
LSTMState: TypeAlias = tuple[Array, Array]
LSTMStateLike: TypeAlias = tuple[ArrayLike, ArrayLike]

# Parameters by name, as results and as arguments.
Parameters: TypeAlias = dict[str, Array]
ParametersLike: TypeAlias = "Mapping[str, ArrayLike]"

# Options. Those of numpy.random are strings, for NumPy imports that module only when it is used.
FloatDType: TypeAlias = "np.dtype[np.float32] | np.dtype[np.float64]"   # of a model
Activation: TypeAlias = "str | Sequence[str | float | None]"   # a name, or (name, alpha), or (name, alpha, beta)
Rng: TypeAlias = "np.random.Generator | int | None"     # of a layer's initialisation and dropout
RandomState: TypeAlias = "np.random.Generator | np.random.RandomState | int | None"     # of estimators
PathLike: TypeAlias = str | os.PathLike[str]
TrainingPrecision: TypeAlias = Literal["float32", "float64", "bfloat16"]      # of the products of forward and backward
CellName: TypeAlias = Literal["rnn", "lstm", "gru", "RNN", "LSTM", "GRU"]
