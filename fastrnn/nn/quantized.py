"""Models with narrow weights, for inference: how weights become narrow, and what a model of them can and cannot do."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from .._base import validation as check
from .._base.typing import Array, FloatDType, Parameters
from . import parameters
from .base import Module

if TYPE_CHECKING:
    Precision: TypeAlias = Literal["int8", "bfloat16", "float16"]
    ModelPrecision: TypeAlias = Literal["float32"] | Precision

PRECISIONS = ("int8", "bfloat16", "float16")
_STORED: dict[str, np.dtype[Any]] = {"int8": np.dtype(np.int8), "bfloat16": np.dtype(np.uint16),
                                     "float16": np.dtype(np.float16), "float32": np.dtype(np.float32)}
_LONGEST = (2**31 - 1) // 127**2      # products of int8 numbers that a sum of int32 holds


def model_precision(value: str) -> str:
    """The precision that an estimator's networks are asked to have: float32, or a narrow one."""
    return check.choice(value, "precision", ("float32", *PRECISIONS))


def is_weight(name: str) -> bool:
    """Whether the parameter of this name is a matrix of weights, which a narrow precision narrows."""
    return name.startswith("weight")


def scale_names(name: str) -> tuple[str, str]:
    """The names of the scales of the rows and of the columns of a matrix of int8 weights."""
    return name.replace("weight", "row_scale", 1), name.replace("weight", "column_scale", 1)


def scales_of(values: Parameters, name: str) -> tuple[Array, Array] | None:
    """The scales of the rows and of the columns of int8 weights; None of other weights, or where there are none."""
    row, column = scale_names(name)
    return (values[row], values[column]) if row in values else None


def quantise(weight: Array, name: str = "weight") -> tuple[Array, Array, Array]:
    """Int8 weights [rows, columns], the float32 scale of each row and that of each column, whose product the weight is.

    The scale of a column is the square root of its root mean square, the largest scale being 1: columns become more
    alike, and the numbers that they are multiplied with take half of their differences. A row's scale then is its
    largest absolute value / 127, and its weights are divided by it and rounded to nearest, ties to even. A row of zeros
    has scale 0.
    """
    pieces = _pieces(weight)
    if not all(map(_finite, pieces)):
        raise ValueError(f"{name}: expected finite weights, which alone have a scale")
    if weight.shape[1] > _LONGEST:
        raise ValueError(f"{name}: expected at most {_LONGEST} columns, whose products an int32 can sum, got "
                         f"{weight.shape[1]}")
    size = np.sqrt(_mean_squares(pieces))
    largest = size.max(initial=0)
    column = np.ones(len(size), np.float32)
    if largest > 0:                     # a column of zeros would have no scale
        column = np.sqrt(np.maximum(size / largest, 1e-6)).astype(np.float32)
    whole, rows = zip(*(_whole_numbers(piece, column) for piece in pieces), strict=True)
    return np.concatenate(whole), np.concatenate(rows), column


def _pieces(weight: Array) -> list[Array]:
    """The rows of a matrix in pieces, of which each takes some milliseconds: between two of them Ctrl-C is answered."""
    rows = max(1, 2**20 // max(1, weight.shape[1]))
    return [weight[start:start + rows] for start in range(0, max(1, len(weight)), rows)]


def _finite(piece: Array) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(piece.astype(np.float32)).all())


def _mean_squares(pieces: list[Array]) -> Array:
    """The mean square of each column. NumPy adds row by row, so that a sum that begins with the last one goes on."""
    total: Array = np.square(pieces[0].astype(np.float64)).sum(axis=0)
    for piece in pieces[1:]:
        total = np.concatenate((total[None], np.square(piece.astype(np.float64)))).sum(axis=0)
    result: Array = total / sum(map(len, pieces))
    return result


def _whole_numbers(piece: Array, column: Array) -> tuple[Array, Array]:
    """The int8 weights of some rows, and the scales of the rows."""
    exact = piece.astype(np.float64) / column
    row = (np.abs(exact).max(axis=1, initial=0) / 127).astype(np.float32)
    row[row < 2.0**-126] = 0            # a subnormal number, which kernels take for 0
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.where(row[:, None] > 0, exact / row[:, None], 0)
    return np.clip(np.rint(quotients), -127, 127).astype(np.int8), row


def narrow(values: Parameters, precision: str) -> Parameters:
    """A module's parameters with narrow weights; int8 weights are followed by their scales. The others as float32."""
    result: Parameters = {}
    for name, value in values.items():
        parts: tuple[Array, ...] = (value.astype(np.float32),)
        if is_weight(name):
            parts = (quantise(value, name) if precision == "int8" else
                     (parameters.to_bfloat16(value),) if precision == "bfloat16" else
                     (parameters.to_float16(value, name),))
        result.update(zip((name, *scale_names(name)), map(parameters.freeze, parts)))
    return result


def undrawn(values: Parameters, precision: str) -> Parameters:
    """Placeholders of what `narrow` makes of such parameters; they take no memory."""
    result: Parameters = {}
    for name, value in values.items():
        result[name] = parameters.undrawn(value.shape, _STORED[precision if is_weight(name) else "float32"])
        if is_weight(name) and precision == "int8":
            for scale, size in zip(scale_names(name), value.shape):
                result[scale] = parameters.undrawn((size,), np.dtype(np.float32))
    return result


def product_precision(precision: str | None) -> str | None:
    """The precision of a model's products: None where they are those of its dtype, as those of float16 weights are."""
    return None if precision == "float16" else precision


def widened(value: Array, precision: str | None) -> Array:
    """The float32 numbers of bfloat16 or float16 weights; any other array as it is."""
    if precision == "bfloat16" and value.dtype == np.uint16:
        return parameters.from_bfloat16(value)
    return value.astype(np.float32) if precision == "float16" and value.dtype == np.float16 else value


class Quantizable(Module):
    """A module that can be had with narrow weights."""

    dtype: FloatDType
    _precision: str | None = None       # None: the dtype's

    @property
    def precision(self) -> str:
        """How weights are stored and multiplied: the dtype's name, or "int8", "bfloat16" or "float16"."""
        return self._precision or self.dtype.name

    def quantized(self, precision: Precision) -> Self:
        """Make a model of the same class with narrow weights, to call, stream and save, without gradients.

        It takes and gives float32 as before, has all options of this model, and keeps this model's biases, states and
        activations in float32. Streams, batches, chunks and threads agree to the bit as in float32, and a row does not
        depend on the others of its batch. No calibration is needed.

        With ``"int8"`` a weight is a whole number w_ij from -127 to 127 times the scale of its row i (one gate of one
        unit) and that of its column j. Each row of x and of h is quantised, too, anew at every step, with a scale t of
        its own ::

            W_ij = r_i w_ij c_j         c_j x_j = t q_j,  t = max_j |c_j x_j| / 127
            (W x)_i = r_i t (sum over j of w_ij q_j)

        The scales of columns even out what would else set the scales of rows: c_j^2 is proportional to the root mean
        square of the column. The sums are exact.

        With ``"bfloat16"``, numbers with the range of float32 and 8 bits of mantissa, weights are rounded, and so is
        each row of x and h where a product takes it; products are exact and summed in float32. Finite numbers stay
        finite: those beyond the largest, 3.39e38, become that.

        With ``"float16"`` weights are rounded to float16 and stored so; they are widened to float32 when they are
        packed, and the model computes what a float32 model of the rounded weights does, in the same time.

        Parameters
        ----------
        precision : {"int8", "bfloat16", "float16"}
            The precision of the weights.

        Returns
        -------
        model
            The new model; this one is not changed. Its ``parameters`` are the narrow weights and the other parameters:
            of int8 also the scales (``row_scale_ih_l0`` and ``column_scale_ih_l0`` for ``weight_ih_l0``); of bfloat16
            uint16, the upper halves of the bits of float32, because NumPy has no bfloat16. ``load_state_dict`` takes
            these, and of bfloat16 and float16 also float32, which it rounds.

        Raises
        ------
        TypeError
            The argument is no string.
        ValueError
            It is not one of the precisions, this model is quantized already, or a weight cannot be had so: with int8
            one that is not finite, with float16 a finite one beyond 65504.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> layer = fastrnn.GRU(3, 64, rng=0)
        >>> narrow = layer.quantized("int8")
        >>> narrow
        GRU(3, 64, precision=int8)
        >>> x = np.ones((20, 3), np.float32)
        >>> bool(np.abs(narrow(x)[0] - layer(x)[0]).max() < 0.01)
        True
        """
        check.choice(precision, "precision", PRECISIONS)
        if self._precision is not None:
            raise ValueError(f"precision: this model is {self._precision} already; quantize the one it was made of")
        return self._narrowed(precision)

    def _narrowed(self, precision: str) -> Self:
        twin = copy.copy(self)
        twin._narrow_to(precision, narrow(self._parameters, precision))
        return twin

    def _narrow_to(self, precision: str, values: Parameters) -> None:
        self._precision, self.dtype, self._parameters = precision, np.dtype(np.float32), values

    def _expect_narrow(self, precision: str) -> None:
        """Become a model of this precision whose parameters are loaded next."""
        self._narrow_to(check.choice(precision, "precision", PRECISIONS), undrawn(self._parameters, precision))

    def _needs_gradients(self) -> None:
        """Raise TypeError where gradients are asked of narrow weights."""
        if self._precision is not None:
            raise TypeError(f"a model of precision {self._precision} has no gradients: train the float32 model, then "
                            "quantize it")
