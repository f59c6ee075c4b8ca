"""What a recurrent node of an ONNX model asks for beside its weights, and nodes that are recurrent under other names.

A layer starts at zeros and walks all steps. A node may say otherwise with constants of the model: then it is refused.
"""

from __future__ import annotations

import collections
import re
from typing import TYPE_CHECKING

import numpy as np

from .._base.reading import ModelFormatError
from .onnx_operators import NotConstant

if TYPE_CHECKING:
    from .conventions import Layer
    from .formats.protobuf import Node
    from .onnx_graph import Model, Scope

SHOWN = 12                  # operators or arrays that a message lists
# Names such as aten_lstm, my_gru_cell, CudnnRNNV3, QLinearGRU; not transformernn, congruent.
RECURRENT_NAME = re.compile(r"LSTM|GRU|RNN|(?<![a-z])(?:[Ll]stm|[Gg]ru|[Rr]nn)(?![a-z])|[Rr]ecurrent")
BEFORE = "read the model as it was before it was quantised, and call layer.quantized('int8')"
ADVICE = {
    "AttnLSTM": "which may compute anything: an LSTM with an attention mechanism within, which no layer has",
}


def foreign(scope: Scope, node: Node, is_function: bool) -> str | None:
    """Why a node that is none of ONNX's own recurrent operators, but recurrent by its name, makes no layer; or None."""
    name = node.op_type
    if name == "ATen" and node.domain:      # how PyTorch's older exporter writes what it has no ONNX operator for
        name = str(scope.attributes(node).get("operator", ""))
    if not RECURRENT_NAME.search(name):
        return None
    if is_function:
        return f"a function of the model ({node.domain}.{node.op_type}) with no RNN, GRU or LSTM node in its body"
    if node.domain == "com.microsoft" and name in ADVICE:
        return f"an operator of {node.domain}, {ADVICE[name]}"
    if "Quant" in name or "QL" in name:
        return f"an operator of {node.domain or 'ONNX'}, with quantised weights: {BEFORE}"
    return (f"an operator of {node.domain or 'ONNX'}, which may compute anything; only ONNX's own RNN, GRU and LSTM, "
            "and com.microsoft's DynamicQuantizeLSTM, are read")


def check_call(scope: Scope, node: Node, layer: Layer) -> None:
    """Refuse a node whose other inputs ask for what its layer does not do by itself.

    Constant states must be zeros of the layer's sizes, and constant lengths all the steps of X. States and lengths
    that depend on the model's inputs are the state and the lengths of a call; their sizes are checked as far as the
    model tells them.
    """
    inputs = dict(enumerate(node.inputs))
    x = scope.shapes.shape(inputs[0]) if inputs.get(0) else None
    if x is not None and (len(x) != 3 or (x[2] != layer.input_size and not np.isnan(x[2]))):
        raise ModelFormatError(f"X: it has shape {_shown(x)}, but the weights are those of {layer.input_size} inputs")
    if inputs.get(4):
        _check_lengths(scope, inputs[4], x, layer.batch_first)
    for number, name in ((5, "initial_h"), (6, "initial_c")):
        if inputs.get(number):
            _check_state(scope, inputs[number], name, x, layer)


def _check_state(scope: Scope, name: str, what: str, x: tuple[float, ...] | None, layer: Layer) -> None:
    rows = float("nan") if x is None else x[0 if layer.batch_first else 1]
    expected = (1.0 + layer.bidirectional, rows, float(layer.hidden_size))
    if layer.batch_first:
        expected = (rows, expected[0], expected[2])
    shape = scope.shapes.shape(name)
    if shape is not None and (len(shape) != 3 or any(
            a != b and not np.isnan(a) and not np.isnan(b) for a, b in zip(shape, expected, strict=True))):
        raise ModelFormatError(f"{what} of shape {_shown(shape)} does not fit hidden_size {layer.hidden_size} and the "
                               f"direction: expected {_shown(expected)}; the file contradicts itself")
    try:
        constants = scope.shapes.contents(name)
    except NotConstant as error:
        raise ModelFormatError(f"{what}: {error}; a layer starts at zeros, or at the state of a call") from error
    if constants is not None and constants.any():
        raise ModelFormatError(f"{what}: a constant that is not zero; a layer starts at zeros, or at the state of a "
                               "call, so it would compute other numbers")


def _check_lengths(scope: Scope, name: str, x: tuple[float, ...] | None, batch_first: bool) -> None:
    lengths = scope.shapes.contents(name)
    if lengths is None:
        return
    steps = float("nan") if x is None else x[1 if batch_first else 0]
    if not np.all(lengths == steps):
        shown = ", ".join(map(str, np.ravel(lengths)[:SHOWN]))
        raise ModelFormatError(f"sequence_lens: the constant lengths {shown}, where X has {_shown((steps,))} steps; a "
                               "layer walks all steps, or the lengths of a call")


def _shown(shape: tuple[float, ...]) -> str:
    return "(" + ", ".join("any" if np.isnan(size) else str(int(size)) for size in shape) + ")"


def contents_of(model: Model) -> str:
    """What a model without recurrent nodes has, as a part of a message."""
    counts = collections.Counter(node.op_type for node in model.main.nodes())
    operators = [f"{count} x {name[:50]}" if count > 1 else name[:50] for name, count in counts.most_common(SHOWN)]
    arrays = [f"{name[:50]} {_shown(tuple(map(float, shape)))}" for name, shape in model.main.initializers(SHOWN)]
    loops = " and ".join(name for name in ("Loop", "Scan") if name in counts)
    text = f"its operators are {', '.join(operators) or 'none at all'}" + ", ..." * (len(counts) > SHOWN)
    if loops:
        text += f". Its {loops} may be a recurrent layer that was written out step by step, which is not told"
    if arrays:
        text += (f"; its arrays are {', '.join(arrays)}. Where some of them are a layer's weights, onnx.numpy_helper."
                 "to_array gives them, and interop.from_arrays makes a layer of them")
    return text
