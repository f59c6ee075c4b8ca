"""com.microsoft.DynamicQuantizeLSTM, which ONNX Runtime's ``quantize_dynamic`` makes of an LSTM: int8 layers of it.

With D directions, W is [D, I, 4*H] and R [D, H, 4*H] (an LSTM's, with its last two axes exchanged), int8 or uint8;
W_scale and R_scale, W_zero_point and R_zero_point are [D], or [D, 4*H] for each gate of each unit. B and P are an
LSTM's. The operator quantises X once for all steps and rows, and the state anew at every step for all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.reading import ModelFormatError
from ..nn import LSTM
from ..nn.parameters import layer_suffix
from .conventions import as_float, reorder
from .int8_weights import int8_layer, int8_weight, without_column_scales

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array

DOMAIN, OPERATOR = "com.microsoft", "DynamicQuantizeLSTM"
QUANTIZATION = ("W_scale", "W_zero_point", "R_scale", "R_zero_point")       # its inputs beside an LSTM's


def quantized_layer(weights: Mapping[str, Array | None], options: Mapping[str, Any]) -> LSTM:
    """The int8 layer of a node's W, R, B, P, scales and zero points, and of an LSTM's options."""
    options = dict(options)
    for name in ("W", "R", "W_scale", "R_scale"):
        a = weights.get(name)
        if a is None:
            raise ModelFormatError(f"{name}: it is missing")
        if name in ("W", "R") and a.ndim != 3:
            raise ModelFormatError(f"{name}: expected 3 dimensions, got shape {a.shape}")
    values = {name: a for name, a in weights.items() if a is not None}
    size = options.pop("hidden_size")
    H = values["R"].shape[1] if size is None else check.size(size, "hidden_size")
    I, D = values["W"].shape[1], 1 + options["bidirectional"]
    shapes = {"W": (D, I, 4 * H), "R": (D, H, 4 * H), "B": (D, 8 * H), "P": (D, 3 * H)}
    for name, shape in shapes.items():
        if name in values:
            check.shaped(values[name], name, shape)
    for name in QUANTIZATION:
        if name in values and values[name].shape not in ((D,), (D, 4 * H)):
            raise ModelFormatError(f"{name}: expected shape {(D,)} or {(D, 4 * H)}, got {values[name].shape}")
    parameters: dict[str, Array] = {}
    for d in range(D):
        suffix = layer_suffix(0, d)
        for name, weight in (("W", "weight_ih"), ("R", "weight_hh")):
            parameters |= int8_weight(*_torch_rows(values, name, d), weight + suffix)
        if "B" in values:
            for bias, part in zip(("bias_ih", "bias_hh"), np.split(as_float(values["B"][d]), 2)):
                parameters[bias + suffix] = reorder(part, "lstm", "onnx")
        if "P" in values:
            parameters["peephole" + suffix] = reorder(as_float(values["P"][d]), "peephole", "onnx")
    return int8_layer(LSTM, parameters, I, H, bias="B" in values, peephole="P" in values, **options)


def _torch_rows(values: Mapping[str, Array], name: str, direction: int) -> tuple[Array, Array, Array | None]:
    """The rows of a weight in torch's order of gates, their scales and their zero points."""
    def rows(key: str) -> Array | None:
        a = values.get(key)
        if a is None:
            return None
        part: Array = np.atleast_1d(a[direction])
        return part if part.size == 1 else reorder(part, "lstm", "onnx")

    scale = rows(name + "_scale")
    if scale is None:
        raise ModelFormatError(f"{name}_scale: it is missing")
    return reorder(values[name][direction].T, "lstm", "onnx"), scale, rows(name + "_zero_point")


def quantized_inputs(parameters: Mapping[str, Array], k: int, directions: int) -> dict[str, Array]:
    """W, R, their scales and their zero points of layer k of an int8 LSTM, as the operator has them."""
    result: dict[str, Array] = {}
    for name, weight in (("W", "weight_ih"), ("R", "weight_hh")):
        pairs = [without_column_scales(parameters, weight + layer_suffix(k, d)) for d in range(directions)]
        numbers, scales = ([reorder(a, "lstm", "torch", "onnx") for a in part] for part in zip(*pairs))
        result[name] = np.stack(numbers).swapaxes(1, 2)
        result[name + "_scale"] = np.stack(scales)
        result[name + "_zero_point"] = np.zeros(result[name + "_scale"].shape, np.int8)
    return result
