"""ONNX: recurrent nodes of a model as layers; the operators RNN, LSTM and GRU, run; layers written as models.

Reading and ``run_node`` need NumPy alone; ``export`` and ``Backend`` need the package onnx (``pip install
fastrnn[onnx]``). The operators are those of operator sets 7 to 22 (https://onnx.ai/onnx/operators), and of
com.microsoft DynamicQuantizeLSTM, whose layers are int8 (``onnx_quantized``).

ONNX's order of gates is i, o, f, c (g here) for an LSTM, i, o, f for its peepholes, z, r, h (n here) for a GRU. With D
directions and G gates, W is [D, G*H, I], R [D, G*H, H], P [D, 3*H], B [D, 2*G*H] the input's biases, then the state's.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import validation as check
from .._base.named_arrays import parse_configuration
from .._base.pieces import as_stored, copied, stacked, write_in_pieces
from .._base.reading import ModelFormatError, read_bytes, refusing
from .._base.writing import replacing
from ..nn import GRU, LSTM, RNN
from ..nn.files import build, configuration
from ..nn.parameters import ACTIVATIONS, PLAIN, blocks, layer_suffix
from .conventions import GATE_ORDERS, as_float, explained, reorder
from .formats.protobuf import GRAPH, INITIALIZER, RAW, decimal, field_start
from .onnx_graph import Model
from .onnx_loops import LOOP, loop_layer
from .onnx_nodes import check_call, contents_of
from .onnx_quantized import DOMAIN, OPERATOR, QUANTIZATION, quantized_inputs, quantized_layer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._base.typing import Array, ArrayLike, PathLike
    from .conventions import Layer
    from .onnx_backend import Backend

__all__ = ["Backend", "export", "layers", "run_node"]

OPERATORS = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")       # an LSTM's; others have the first 6
WEIGHTS = ("W", "R", "B", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")
ATTRIBUTES = {"hidden_size", "direction", "layout", "clip", "activations", "activation_alpha", "activation_beta"}
OWN_ATTRIBUTES = {"RNN": set(), "GRU": {"linear_before_reset"}, "LSTM": {"input_forget"}}
DIRECTIONS = ("forward", "reverse", "bidirectional")
FLAT_NAMES = {name.replace("_", ""): name for name in ACTIVATIONS}      # "leakyrelu": "leaky_relu"
TENSORS = {np.dtype(np.float32): 1, np.dtype(np.float64): 11}           # TensorProto.DataType
NODE, LAYER = 1 << 9, 1 << 12           # bytes taken by what is kept of a node, and by a layer beside its parameters


# ---- Reading --------------------------------------------------------------------------------------

def layers(path: PathLike, skipped: dict[str, str] | None = None, *,
           external_data: bool = True) -> dict[str, Layer]:
    """Read the recurrent nodes of an ONNX model as layers.

    Parameters
    ----------
    path : str or path-like
        The file.
    skipped : dict, optional
        If given, it takes name -> reason of nodes that make no layer, such as one whose weights are computed by the
        model. Without it the first of them is an error.
    external_data : bool, optional
        Whether weights may be read from other files, as PyTorch's exporter writes them: those the model names, in its
        own folder or below it, and nowhere else.

    Returns
    -------
    dict of str to layer
        Every RNN, GRU and LSTM node, those within If, Loop, Scan and functions included, in the order of the graph. By
        the node's name; without one it is ``LSTM_0``, ``LSTM_1``, ... . Each is a layer of its own, in one direction
        (perhaps ``reverse``) or two; nodes that share all weights and attributes share a layer. A model that `export`
        wrote gives its layer back as it was, stack and options, under the name of its class.

        A layer's input is [T, N, I] as the node's, [N, T, I] where its ``layout`` is 1. Its output is [T, N, D*H] where
        ONNX has [T, D, N, H]. Weights of 16 bits become float32. What the model computes of its inputs for a node's
        ``initial_h``, ``initial_c`` and ``sequence_lens`` is the ``state`` [D, N, H] and the ``lengths`` of a call. No
        layer has a constant initial state: a node with one that is not zero makes no layer.

        A DynamicQuantizeLSTM, as ``onnxruntime.quantization.quantize_dynamic`` writes it, is an LSTM of precision int8;
        Notes say how near the two are.

        A Loop or Scan whose body is the step of an RNN, GRU or LSTM (tf2onnx writes them for GRUs, relu and masks) is a
        layer whose input is the array that the loop walks along, [T, N, I]. It is one only if it is shown, at random
        inputs and states in float64, to give all that the loop gives. A mask is the ``lengths`` of a call, whose
        output is zero where a row has ended; the loop repeats the last output there.

    Raises
    ------
    ModelFormatError
        The file is broken, a node makes no layer, or there is no recurrent node; it is named, with the reason.
    OSError
        The file cannot be read.

    Notes
    -----
    Weights are found in initializers and Constant nodes, also behind operators that exporters leave between them and
    the node: such as move numbers (Transpose, Slice, Concat, ...), and such as compute sizes, weight normalisation or
    dequantised weights (Shape, Mul, ReduceL2, DequantizeLinear, ...). alpha, beta and clip are float32 in the file, and
    are taken for the shortest decimals that they stand for.

    The weights of a DynamicQuantizeLSTM are the layer's to the bit where they are whole numbers from -127 to 127 from
    their zero point, as all that quantize_dynamic writes for LSTMs are. uint8 weights with a zero point other than 128,
    and int8 weights of -128, are rounded again, by half a step of the layer's scales at most
    (``layer.quantized("int8")`` says what these are). Activations are quantised in both, but not alike: in ONNX Runtime
    x with one scale for all steps and rows and h with one for all rows of a step, in the layer each row of each step
    with its own. A sum over W_ij x_j therefore differs by (s + t) / 2 sum_j |W_ij| at most, with s =
    (max x - min x) / 255 over all of x and 0, and t = max_j |x_j| / 127 of the row, and likewise for h.

    Examples
    --------
    >>> import os, tempfile
    >>> import fastrnn
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "gru.onnx")
    ...     interop.onnx.export(fastrnn.GRU(2, 3, num_layers=2, bidirectional=True), path)
    ...     interop.onnx.layers(path)
    {'GRU': GRU(2, 3, num_layers=2, bidirectional=True)}
    """
    path, found, made, taken, missed = os.fsdecode(path), {}, {}, {}, {}
    with refusing(path):
        model = Model(read_bytes(path), path, external_data)
        for scope, node, reason in model.main.recurrent():
            model.spend(NODE + len(node.name), "recurrent nodes")
            name = _unused(node.name or f"{node.op_type}_{_count(taken, (node.op_type,))}", taken)
            try:
                if reason == LOOP:
                    found[name] = loop_layer(scope, node)
                    continue
                if reason is not None:
                    raise ModelFormatError(reason)
                layer = node_layer(scope, node, made)
                check_call(scope, node, layer)
                found[name] = layer
            except (ValueError, TypeError) as error:
                missed[name] = f"{node.op_type} node {name!r}: {error}"
                if skipped is None:
                    raise ModelFormatError(f"{path}: {missed[name]}") from error
        if model.fastrnn is not None:
            found = _restacked(found, parse_configuration(model.fastrnn), model)
        return explained(found, path, missed, skipped, lambda: contents_of(model))


def _count(counts, key):
    """How often this was asked before."""
    counts[key] = counts.get(key, -1) + 1
    return counts[key]


def _unused(name, counts):
    """The name, or it with a number behind if a node before has it."""
    while again := _count(counts, name):
        name = f"{name}_{again}"
    return name


def node_layer(scope, node, made):
    """The layer of a node, or the one made before of the same arrays and options."""
    quantized = node.op_type == OPERATOR
    expected = INPUTS + QUANTIZATION * quantized
    if len(node.inputs) > len(expected):
        raise ModelFormatError(f"{len(node.inputs)} inputs, expected at most {len(expected)}")
    names, weights = dict(zip(expected, node.inputs)), {}
    for key in WEIGHTS + QUANTIZATION * quantized:
        try:
            weights[key] = scope.value(names.get(key, ""))
        except ModelFormatError as error:
            raise type(error)(f"{key}: {error}") from error
    options = _options("LSTM" if quantized else node.op_type, scope.attributes(node))
    key = (node.op_type, *map(id, weights.values()), repr(options))
    if key not in made:
        scope.model.spend(LAYER + sum(a.size * max(4, a.itemsize) for a in weights.values() if a is not None), "layers")
        layer = quantized_layer(weights, options) if quantized else _layer(node.op_type, weights, options)
        made[key] = layer, weights      # the arrays as well: their ids stay theirs
    return made[key][0]


# ---- An operator and its layer ----------------------------------------------------------------------

def _options(op_type, attributes):
    """A layer's options (and hidden_size, None where it is not given) from an operator's attributes."""
    for name in attributes:
        if name not in ATTRIBUTES | OWN_ATTRIBUTES[op_type]:
            raise ValueError(f"{name}: {op_type} has no such attribute")

    def flag(name):
        value = attributes.get(name, 0)
        if np.ndim(value) or value not in (0, 1):
            raise ValueError(f"{name}: expected 0 or 1, got {value!r:.200}")
        return bool(value)

    direction = check.choice(attributes.get("direction", "forward"), "direction", DIRECTIONS)
    found = {"hidden_size": attributes.get("hidden_size"), "batch_first": flag("layout"),
             "bidirectional": direction == "bidirectional", "reverse": direction == "reverse",
             "clip": attributes.get("clip")}
    if op_type == "GRU":
        found["reset_after"] = flag("linear_before_reset")
    if op_type == "LSTM":
        found["coupled_gates"] = flag("input_forget")
    found["activations"] = _activations(op_type, attributes, 1 + found["bidirectional"])
    return found


def _activations(op_type, attributes, directions):
    """f, g, h of each direction as (name, alpha, beta), or None.

    The values of activation_alpha are consumed in order by the functions that take an alpha, likewise those of
    activation_beta; when they are used up, defaults follow.
    """
    names = attributes.get("activations")
    if names is None or not len(names):
        return None
    count = directions * {"RNN": 1, "GRU": 2, "LSTM": 3}[op_type]
    if len(names) != count:
        raise ValueError(f"activations: expected {count}, got {len(names)}")

    def numbers(key):
        for x in attributes.get(key, ()):
            yield decimal(x) if isinstance(x, np.float32) else check.number(x, key)

    given, found = (numbers("activation_alpha"), numbers("activation_beta")), []
    for name in names:
        known = FLAT_NAMES.get(str(name).lower())
        if known is None:
            raise ValueError(f"activations: {name!r} is none of ONNX's")
        found.append((known, *(None if default is None else next(values, default)
                               for values, default in zip(given, ACTIVATIONS[known]))))
    return tuple(found)


def _layer(op_type, weights, options):
    """The layer of an operator with the weights W, R and perhaps B and P."""
    cell, options = op_type.lower(), dict(options)
    for name in ("W", "R"):
        if weights.get(name) is None:
            raise ValueError(f"{name}: it is missing")
        if weights[name].ndim != 3:
            raise ValueError(f"{name}: expected 3 dimensions, got shape {weights[name].shape}")
    if weights.get("P") is not None and op_type != "LSTM":
        raise ValueError(f"P: {op_type} has no peepholes")
    size = options.pop("hidden_size")
    H = weights["R"].shape[2] if size is None else check.size(size, "hidden_size")
    I, D = weights["W"].shape[2], 1 + options["bidirectional"]
    rows = len(GATE_ORDERS["onnx"][cell]) * H
    shapes = {"W": (D, rows, I), "R": (D, rows, H), "B": (D, 2 * rows), "P": (D, 3 * H)}
    values = {name: check.shaped(as_float(a), name, shapes[name]) for name, a in weights.items() if a is not None}
    parameters = {}
    for d in range(D):
        found = {"weight_ih": reorder(values["W"][d], cell, "onnx"), "weight_hh": reorder(values["R"][d], cell, "onnx")}
        if "B" in values:
            found |= {"bias_ih": reorder(values["B"][d, :rows], cell, "onnx"),
                      "bias_hh": reorder(values["B"][d, rows:], cell, "onnx")}
        if "P" in values:
            found["peephole"] = reorder(values["P"][d], "peephole", "onnx")
        parameters |= {name + layer_suffix(0, d): value for name, value in found.items()}
    if "P" in values:
        options["peephole"] = True
    return OPERATORS[op_type].from_parameters(parameters, I, H, bias="B" in values,
                                              dtype=np.result_type(*values.values()), **options)


def run_node(op_type: str, inputs: Mapping[str, ArrayLike | None],
             attributes: Mapping[str, Any] | None = None) -> dict[str, Array]:
    """Compute an operator RNN, LSTM or GRU of ONNX.

    Parameters
    ----------
    op_type : {"RNN", "LSTM", "GRU"}
        The operator.
    inputs : mapping of str to array
        X, W, R, and where they are given (None is the same as absent) B, sequence_lens, initial_h, and for an LSTM
        initial_c and P. float32 or float64 as X is; sequence_lens of ints, each from 0 to the steps of X.
    attributes : mapping of str to object, optional
        ONNX's: ``{"hidden_size": 3, "direction": "reverse", "activations": ["Sigmoid", "Tanh", "Relu"], "clip": 2.0,
        "layout": 1, ...}``. None is the same as absent.

    Returns
    -------
    dict of str to array
        Y [T, D, N, H], Y_h [D, N, H], and of an LSTM Y_c [D, N, H]; with ``layout=1`` Y [N, T, D, H] and states
        [N, D, H], as X and the initial states are then.

    Raises
    ------
    TypeError
        An input or attribute of a wrong type, by name.
    ValueError
        An input or attribute that does not fit, by name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import interop
    >>> ones = {"X": np.ones((3, 1, 1)), "W": np.ones((1, 1, 1)), "R": np.ones((1, 1, 1))}
    >>> interop.onnx.run_node("RNN", ones, {"activations": ["Relu"]})["Y"].ravel()
    array([1., 2., 3.])
    """
    names, inputs = _input_names(op_type), {name: a for name, a in inputs.items() if a is not None}
    for name in inputs:
        if name not in names:
            raise ValueError(f"inputs: {op_type} has {', '.join(names)}, got {name!r}")
    X = check.as_array(inputs.get("X"), "X")
    dtype = X.dtype.newbyteorder("=")
    if dtype not in check.DTYPES:
        raise TypeError(f"X: expected float32 or float64, got {X.dtype}")
    weights = {name: check.array(inputs[name], name, dtype) for name in WEIGHTS if name in inputs}
    attributes = {name: value for name, value in (attributes or {}).items() if value is not None}
    layer = _layer(op_type, weights, _options(op_type, attributes))
    return run_layer(layer, X, *map(inputs.get, ("sequence_lens", "initial_h", "initial_c")))


def _input_names(op_type):
    return INPUTS if check.choice(op_type, "op_type", tuple(OPERATORS)) == "LSTM" else INPUTS[:6]


def run_layer(layer, X, sequence_lens=None, initial_h=None, initial_c=None):
    """Y, Y_h and of an LSTM Y_c, by name, computed by the layer of an operator; batch_first is its layout."""
    D, H, batched = 1 + layer.bidirectional, layer.hidden_size, layer.batch_first
    X = check.array(X, "X", layer.dtype)
    if X.ndim != 3 or X.shape[2] != layer.input_size:
        expected = "[N, T, I]" if batched else "[T, N, I]"
        raise ValueError(f"X: expected {expected} with I = {layer.input_size}, got shape {X.shape}")
    T, N = (X.shape[1], X.shape[0]) if batched else X.shape[:2]
    if sequence_lens is not None:
        sequence_lens = check.shaped(check.as_array(sequence_lens, "sequence_lens"), "sequence_lens", (N,))
        if sequence_lens.dtype.kind not in "iu":
            raise TypeError(f"sequence_lens: expected ints, got {sequence_lens.dtype}")
        if N and not (0 <= sequence_lens.min() and sequence_lens.max() <= T):
            raise ValueError(f"sequence_lens: expected 0 to {T}, the steps of X, got {sequence_lens.tolist()!s:.200}")

    def state(value, name):
        if value is None:
            return np.zeros((D, N, H), layer.dtype)
        value = check.shaped(check.array(value, name, layer.dtype), name, (N, D, H) if batched else (D, N, H))
        return value.swapaxes(0, 1) if batched else value

    h, is_lstm = state(initial_h, "initial_h"), isinstance(layer, LSTM)
    output, last = layer(X, (h, state(initial_c, "initial_c")) if is_lstm else h, lengths=sequence_lens)
    output = output.reshape(*output.shape[:2], D, H)
    last = [a.swapaxes(0, 1) if batched else a for a in (last if is_lstm else (last,))]
    return {"Y": output if batched else output.swapaxes(1, 2), **dict(zip(("Y_h", "Y_c"), last))}


# ---- Writing --------------------------------------------------------------------------------------

def export(layer: Layer, path: PathLike) -> None:
    """Write a layer as an ONNX model, which any runtime computes.

    The model has one node for each layer of the stack: of an LSTM of precision int8 a DynamicQuantizeLSTM, which is
    ONNX Runtime's own, of other layers an RNN, GRU or LSTM.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        The layer.
    path : str or path-like
        The file to write. One that is there already is replaced at once, when all is written.

    Raises
    ------
    TypeError
        The layer is none of these.
    ValueError
        ONNX cannot express the layer: it has a projection, or ``update="mirror"`` and gates that are not sigmoids, or
        narrow weights and is no LSTM of int8. Nothing is written.
    ImportError
        The package onnx is missing: ``pip install fastrnn[onnx]``.

    Notes
    -----
    Operator set 14. Inputs are ``x``, shaped as the layer's, ``h_0`` and for an LSTM ``c_0``, [L*D, N, H] each; outputs
    ``output``, ``h_n`` and ``c_n``. T and N are free; lengths and masks are not expressed. A mirrored GRU,
    h' = z n + (1 - z) h, is written with the weights and biases of z negated, for sigmoid(-a) = 1 - sigmoid(a). alpha,
    beta and clip are float32 in ONNX. The metadata "fastrnn" hold the layer's configuration, for `layers`.

    The operator of an int8 LSTM has scales of rows (gates of units) alone. Where the layer has scales of columns, its
    weights are rounded again, by half a step of their row at most, max_j |W_ij| / 254; one that was read from such a
    file has none, and is written to the bit. ONNX Runtime quantises activations otherwise than the layer, as the notes
    of `layers` say.

    ONNX Runtime (1.32) has float32 alone for these operators; `Backend` computes float64 too.

    Examples
    --------
    >>> import os, tempfile
    >>> import onnx
    >>> import fastrnn
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "lstm.onnx")
    ...     interop.onnx.export(fastrnn.LSTM(2, 3), path)
    ...     graph = onnx.load(path).graph
    >>> [value.name for value in graph.input], [value.name for value in graph.output]
    (['x', 'h_0', 'c_0'], ['output', 'h_n', 'c_n'])
    """
    if type(layer) not in OPERATORS.values():
        raise TypeError(f"layer: expected an RNN, GRU or LSTM, got {type(layer).__name__}")
    if layer.precision != layer.dtype.name and not _is_int8_lstm(layer):
        raise ValueError("layer: ONNX Runtime has an operator for LSTMs of int8 weights and for no other narrow layer, "
                         f"got {type(layer).__name__} of precision {layer.precision}")
    if layer.proj_size:
        raise ValueError(f"layer: ONNX's LSTM has no projection, got proj_size={layer.proj_size}")
    try:
        import onnx
    except ImportError as error:
        raise ImportError("writing ONNX models needs the package onnx: pip install fastrnn[onnx]") from error
    parts = _model(onnx, layer)
    with replacing(path) as file:
        for part in parts:
            write_in_pieces(file, part)


def _is_int8_lstm(layer):
    return isinstance(layer, LSTM) and layer.precision == "int8"


def _model(onnx, layer):
    """The onnx.ModelProto of a layer, serialised: bytes and arrays, one behind the other."""
    helper, op_type = onnx.helper, type(layer).__name__
    L, D, H, dtype = layer.num_layers, 1 + layer.bidirectional, layer.hidden_size, TENSORS[layer.dtype]
    states = ("h", "c") if op_type == "LSTM" else ("h",)
    parameters, attributes, nodes, constants = _mirrored(layer.parameters, layer), _attributes(layer), [], {}
    quantized, operator_sets = _is_int8_lstm(layer), [helper.make_opsetid("", 14)]
    if quantized:
        attributes["domain"] = DOMAIN
        operator_sets.append(helper.make_opsetid(DOMAIN, 1))

    def constant(name, a):
        constants[name] = a
        return name

    def node(operator, inputs, outputs, **attributes):
        nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def each(name):
        return [f"{name}_l{k}" for k in range(L)] if L > 1 else [name]

    y = node("Transpose", ["x"], ["x_steps"], perm=[1, 0, 2]) if layer.batch_first else "x"
    for s in states if L > 1 else ():
        node("Split", [f"{s}_0"], each(f"{s}_0"), axis=0)
    for k in range(L):
        weights = _weights(op_type, parameters, k, D)
        if quantized:
            weights |= quantized_inputs(parameters, k, D)
        given = {name: constant(f"{name}_l{k}", a) for name, a in weights.items()}
        given |= {"X": y} | {f"initial_{s}": each(f"{s}_0")[k] for s in states}
        names = [given.get(name, "") for name in _input_names(op_type) + QUANTIZATION * quantized]
        outputs = [f"Y_l{k}", *(each(f"{s}_n")[k] for s in states)]
        y = node(OPERATOR if quantized else op_type, names, outputs, name=f"{op_type}_{k}", **attributes)
        # [T, D, N, H] to [T, N, D, H] to [T, N, D*H]
        y = node("Transpose", [y], [f"Y_rows_l{k}"], perm=[0, 2, 1, 3])
        y = node("Reshape", [y, constant(f"shape_l{k}", np.array([0, 0, D * H]))], [f"y_l{k}"])
    node("Transpose", [y], ["output"], perm=[1, 0, 2] if layer.batch_first else [0, 1, 2])
    for s in states if L > 1 else ():
        node("Concat", each(f"{s}_n"), [f"{s}_n"], axis=0)

    def values(sequence, width, ending):
        shapes = {sequence: ["N", "T", width] if layer.batch_first else ["T", "N", width]}
        shapes |= {s + ending: [L * D, "N", H] for s in states}
        return [helper.make_tensor_value_info(name, dtype, shape) for name, shape in shapes.items()]

    # A message is its fields, one behind the other, so what protobuf serialises can be joined. The arrays are left out
    # of that: it would copy all of them at once, several times.
    graph = [helper.make_graph(nodes, op_type, [], []).SerializeToString(),
             *(part for name, a in constants.items() for part in _initializer(onnx, name, a)),
             onnx.GraphProto(input=values("x", layer.input_size, "_0"),
                             output=values("output", D * H, "_n")).SerializeToString()]
    metadata = onnx.StringStringEntryProto(key="fastrnn", value=json.dumps(configuration(layer)))
    return [onnx.ModelProto(ir_version=7, producer_name="fastrnn").SerializeToString(),
            field_start(GRAPH, sum(memoryview(part).nbytes for part in graph)), *graph,
            onnx.ModelProto(opset_import=operator_sets, metadata_props=[metadata]).SerializeToString()]


def _initializer(onnx, name, a):
    """A constant of a graph, serialised: the TensorProto without its numbers, and these."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(a.dtype), dims=a.shape)
    head = tensor.SerializeToString() + field_start(RAW, a.nbytes)
    return field_start(INITIALIZER, len(head) + a.nbytes) + head, as_stored(a)


def _weights(op_type, parameters, k, directions):
    """W, R, B and P of layer k, as far as it has them."""
    def gathered(name):
        cell = "peephole" if name == "peephole" else op_type.lower()
        return stacked([reorder(parameters[name + layer_suffix(k, d)], cell, "torch", "onnx")
                        for d in range(directions)])

    found = {"W": gathered("weight_ih"), "R": gathered("weight_hh")}
    if f"bias_ih_l{k}" in parameters:
        found["B"] = np.concatenate([gathered("bias_ih"), gathered("bias_hh")], axis=1)
    if f"peephole_l{k}" in parameters:
        found["P"] = gathered("peephole")
    return found


def _attributes(layer):
    """The attributes of each of a layer's nodes."""
    found = {"hidden_size": layer.hidden_size, "direction": DIRECTIONS[2 if layer.bidirectional else layer.reverse]}
    activations = layer.activations
    if activations is None and getattr(layer, "nonlinearity", "tanh") == "relu":
        activations = (("relu", None, None),)
    if activations is not None:
        count = (1 + layer.bidirectional) * len(PLAIN[layer._kind])
        names, alphas, betas = zip(*activations * (count // len(activations)))
        found["activations"] = ["".join(map(str.capitalize, name.split("_"))) for name in names]
        for name, values in (("activation_alpha", alphas), ("activation_beta", betas)):
            values = [_float32(value, name) for value in values if value is not None]
            found |= {name: values} if values else {}
    if layer.clip is not None:
        found["clip"] = _float32(layer.clip, "clip")
    if isinstance(layer, GRU):
        found["linear_before_reset"] = int(layer.reset_after)
    if isinstance(layer, LSTM) and layer.coupled_gates:
        found["input_forget"] = 1
    return found


def _float32(value, name):
    with np.errstate(over="ignore", under="ignore"):
        found = decimal(value)
    if math.isinf(found) or bool(found) != bool(value):
        raise ValueError(f"{name}: {value} is beyond float32, which ONNX has for it")
    return found


def _mirrored(parameters, layer):
    """The parameters of the GRU with the other update, h' = (1 - z) n + z h for h' = z n + (1 - z) h, and back again.

    z becomes 1 - z where its sum changes sign, if sigmoids are the gates. Others are as they were.
    """
    if layer.update == "torch":
        return parameters
    if any(name != "sigmoid" for name, _, _ in (layer.activations or ())[::2]):
        raise ValueError(f"layer: with update='mirror' ONNX can express sigmoid gates alone, got {layer!r}")
    result = {name: copied(a) for name, a in parameters.items()}
    for a in result.values():
        for block in blocks(np.split(a, 3)[1]):     # r, z, n
            block *= -1
    return result


def _restacked(found, config, model):
    """The layer that `export` wrote, where the nodes' layers are those of its configuration; else these as they are."""
    names = [f"{config.get('class')}_{k}" for k in range(len(found))]
    if [name.removesuffix("_quant") for name in found] != names or config.get("num_layers") != len(found):
        return found
    parameters = {name.replace("_l0", f"_l{k}"): a for k, layer in enumerate(found.values())
                  for name, a in layer.parameters.items()}
    model.spend(2 * sum(a.nbytes for a in parameters.values()), "layers")
    precisions = {layer._precision for layer in found.values()}     # quantize_dynamic may have narrowed some or all
    if len(precisions) > 1:
        return found
    config = {name: value for name, value in config.items() if name != "precision"}
    if precisions != {None}:
        config["precision"] = precisions.pop()
    stack = build(config, parameters, model.path)
    if any(_attributes(layer) != _attributes(stack) for layer in found.values()):
        return found
    stack.load_state_dict(_mirrored(parameters, stack))
    return {type(stack).__name__: stack}


def __getattr__(name: str) -> Any:
    if name == "Backend":       # it derives from one of onnx's classes, so it is made when it is asked for
        from .onnx_backend import Backend
        return Backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
