"""Weights that other tools hold in 8 bits, as the int8 weights of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .._base.reading import ModelFormatError
from ..nn.parameters import UNDRAWN
from ..nn.quantized import is_weight, quantise, scale_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array

    LayerT = TypeVar("LayerT")
else:
    LayerT = TypeVar("LayerT")

LARGEST = 127               # of a layer's int8 weights, in absolute value


def int8_weight(numbers: Array, scale: Array, zero: Array | None, name: str) -> dict[str, Array]:
    """Make a layer's int8 weight, and its scales, of W = scale (numbers - zero).

    Parameters
    ----------
    numbers : array
        The matrix [rows, columns], int8 or uint8.
    scale : array
        float32: one for the matrix, or one for each row.
    zero : array or None
        The zero point, of the numbers' type: one for the matrix, or one for each row. None stands for 0.
    name : str
        The parameter's.

    Returns
    -------
    dict of str to array
        The weight and its scales by name. They are W itself where all of numbers - zero lie in -127...127. Otherwise
        (uint8 with a zero point other than 128, or int8 weights of -128) no int8 numbers have the same steps, and W is
        rounded again as `quantized` rounds float weights: row i moves by half a step at most, max_j |W_ij / c_j| / 254
        times c_j, with the scales c of columns.

    Raises
    ------
    ModelFormatError
        The arrays do not fit one another, or a scale is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn.interop.int8_weights import int8_weight
    >>> made = int8_weight(np.uint8([[1, 128, 255]]), np.float32([0.5]), np.uint8([128]), "weight_ih_l0")
    >>> made["weight_ih_l0"].tolist(), made["row_scale_ih_l0"].tolist()
    ([[-127, 0, 127]], [0.5])
    """
    if numbers.dtype not in (np.int8, np.uint8) or numbers.ndim != 2:
        raise ModelFormatError(f"{name}: expected a matrix of int8 or uint8, got {numbers.dtype} {numbers.shape}")
    rows = numbers.shape[0]
    if scale.dtype != np.float32 or scale.size not in (1, rows) or not np.isfinite(scale).all():
        raise ModelFormatError(f"{name}: expected one finite float32 scale, or {rows}, got {scale.dtype} {scale.shape}")
    if zero is not None and (zero.dtype != numbers.dtype or zero.size not in (1, rows)):
        raise ModelFormatError(f"{name}: expected one zero point of {numbers.dtype}, or {rows}, got {zero.dtype} "
                               f"{zero.shape}")
    row = np.array(np.broadcast_to(scale.ravel(), rows))
    centred = numbers.astype(np.int16)
    if zero is not None:
        centred -= zero.ravel().astype(np.int16)[:, None]
    if np.abs(centred).max(initial=0) <= LARGEST:
        parts: tuple[Array, ...] = (centred.astype(np.int8), row, np.ones(numbers.shape[1], np.float32))
    else:
        parts = quantise(centred * row.astype(np.float64)[:, None], name)
    return dict(zip((name, *scale_names(name)), parts))


def without_column_scales(values: Mapping[str, Array], name: str) -> tuple[Array, Array]:
    """Give an int8 weight with scales of rows alone, for formats that have no others.

    Parameters
    ----------
    values : mapping of str to array
        The parameters of an int8 layer.
    name : str
        The weight's.

    Returns
    -------
    numbers, scale : array
        int8 [rows, columns] and float32 [rows]. The layer's own where its columns have no scales but 1; else its
        weights are rounded again, by half a step, max_j |W_ij| / 254, at most.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> from fastrnn.interop.int8_weights import without_column_scales
    >>> values = fastrnn.LSTM(2, 3, rng=0).quantized("int8").parameters
    >>> numbers, scale = without_column_scales(values, "weight_ih_l0")
    >>> numbers.shape, int(np.abs(numbers).max()), scale.shape
    ((12, 2), 127, (12,))
    """
    row, column = (values[key] for key in scale_names(name))
    numbers = values[name]
    if (column == 1).all():
        return numbers, row
    exact = numbers * row.astype(np.float64)[:, None] * column
    scale = (np.abs(exact).max(axis=1, initial=0) / LARGEST).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = np.where(scale[:, None] > 0, exact / scale[:, None], 0)
    return np.clip(np.rint(quotients), -LARGEST, LARGEST).astype(np.int8), scale


def int8_layer(cls: type[LayerT], parameters: Mapping[str, Array], input_size: int, hidden_size: int,
               **options: Any) -> LayerT:
    """Make a layer of int8 weights.

    Parameters
    ----------
    cls : type
        RNN, GRU or LSTM.
    parameters : mapping of str to array
        Its parameters: int8 weights, their scales, and others.
    input_size, hidden_size : int
        The layer's sizes.
    **options : object
        Options of the class.

    Returns
    -------
    RNN, GRU or LSTM
        The layer.

    Examples
    --------
    >>> import fastrnn
    >>> from fastrnn.interop.int8_weights import int8_layer
    >>> int8_layer(fastrnn.RNN, fastrnn.RNN(2, 3).quantized("int8").parameters, 2, 3)
    RNN(2, 3, precision=int8)
    """
    layer: Any = cls(input_size, hidden_size, **options, rng=UNDRAWN)  # type: ignore[call-arg]
    layer._expect_narrow("int8")
    layer.load_state_dict({name: value if is_weight(name) else value.astype(np.float32, copy=False)
                           for name, value in parameters.items()})
    result: LayerT = layer
    return result
