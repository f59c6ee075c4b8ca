"""TensorFlow Lite (LiteRT) models: fused recurrent operators as layers, without TensorFlow.

Read are UNIDIRECTIONAL_SEQUENCE_LSTM and UNIDIRECTIONAL_SEQUENCE_RNN, which the converter makes of Keras layers: float
ones, and hybrid ones, whose weights are int8 and whose inputs are float. What it leaves as a WHILE loop, and what
computes in integers alone, is named in ``skipped``. The schema is TensorFlow's
tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, cast

import numpy as np

from .._base.reading import ModelFormatError, read_bytes, refusing
from ..nn import LSTM, RNN
from .conventions import explained
from .formats.flatbuffers import Buffer, Table
from .int8_weights import int8_layer, int8_weight

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._base.typing import Array, PathLike
    from .conventions import Layer

__all__ = ["layers"]

MAGIC = b"TFL3"             # at byte 4
EXPANSION, ALLOWANCE = 8, 1 << 21       # what is made of a file may take so many times its size, and so many bytes more
LAYER = 1 << 12             # bytes taken by a layer beside its parameters
RANK = 8

# Numbers of the schema. BuiltinOperator:
DEQUANTIZE, LOGISTIC, RELU, TANH, CUSTOM, SEQUENCE_RNN, SEQUENCE_LSTM, WHILE = 6, 14, 19, 28, 32, 35, 44, 119
PRODUCTS = (9, 126)         # FULLY_CONNECTED, BATCH_MATMUL
FUSED = (0, 9)              # ADD and FULLY_CONNECTED, which may have an activation as their option 0
OTHERS = {16: "LSTM, which is one step", 24: "RNN, which is one step", 27: "SVDF", 46: "BIDIRECTIONAL_SEQUENCE_RNN",
          52: "BIDIRECTIONAL_SEQUENCE_LSTM"}
# TensorType; the first two are read.
TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8", 10: "float64",
         17: "int4"}
# ActivationFunctionType -> an activation of fastrnn
ACTIVATIONS: dict[int, tuple[str, float | None, float | None]] = {
    0: ("affine", 1.0, 0.0), 1: ("relu", None, None), 4: ("tanh", None, None)}
REFUSED_ACTIVATIONS = {2: "RELU_N1_TO_1", 3: "RELU6", 5: "SIGN_BIT"}
RECURRENT_NAME = re.compile(r"LSTM|GRU|RNN|(?<![a-z])(?:[Ll]stm|[Gg]ru|[Rr]nn)(?![a-z])|[Rr]ecurrent")


def layers(path: PathLike, skipped: dict[str, str] | None = None, *,
           ignore_cell_clip: bool = False) -> dict[str, Layer]:
    """Read the recurrent operators of a TensorFlow Lite model as layers.

    Parameters
    ----------
    path : str or path-like
        The file.
    skipped : dict, optional
        If given, it takes name -> reason of operators that make no layer: such as compute in integers, clip or
        normalise their cell states, or are loops. Without it the first of them is an error.
    ignore_cell_clip : bool, optional
        Whether an LSTM that holds its cell state c to a bound becomes a layer that does not. TensorFlow's converter
        writes the bound 10 for every Keras LSTM, which has none itself: the layer computes what the Keras model did,
        and what the file does as long as ``|c|`` stays below the bound. Where the file fixes a number of steps that
        is too small to reach the bound, the layer is read in any case.

    Returns
    -------
    dict of str to layer
        LSTM and RNN, by the names of the operators' outputs, in the order of the file. A layer's input is [N, T, I],
        or [T, N, I] where the operator is ``time_major``. An operator's state tensors are no part of a layer: they
        are the ``state`` of a call, and zeros in the first one.

    Raises
    ------
    ModelFormatError
        The file is broken, an operator makes no layer, or none is recurrent.
    OSError
        The file cannot be read.

    Notes
    -----
    Weights are float32, or numbers of 16 or 8 bits that the model dequantises. Those of a hybrid operator are int8 with
    a scale for each gate; the layer has precision int8 and the same numbers. Both quantise each row of each step of x
    and h by its largest absolute value, so that the layer agrees with LiteRT as a float layer does. Where the operator
    has ``asymmetric_quantize_inputs``, LiteRT rounds activations with a zero point instead, and sums over W_ij x_j
    differ by (s + t) / 2 sum_j |W_ij| at most, s = (max x - min x) / 255 and t = max_j |x_j| / 127 of the row.

    An LSTM without an input gate, i = 1 - f, becomes a
    layer with ``coupled_gates``, f = 1 - i, whose i has the weights of f with other signs. Peepholes are read, and a
    projection without bias and clip. Go-backwards and bidirectional Keras layers are forward layers here: the model
    reverses their inputs and outputs itself.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastrnn import interop
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.tflite")
    ...     with open(path, "wb") as file:
    ...         _ = file.write(b"\\x1c\\0\\0\\0TFL3" + bytes(64))
    ...     try:
    ...         interop.tflite.layers(path)
    ...     except interop.ModelFormatError as error:
    ...         print(str(error).partition("model.tflite: ")[2])
    a broken TFLite model: byte 28: a vtable of 0 bytes
    """
    result: dict[str, Layer] = {}
    missed: dict[str, str] = {}
    path = os.fsdecode(path)
    with refusing(path):
        model = Model(read_bytes(path))
        for index, graph in enumerate(model.graphs):
            for number, operator, code, custom in model.operators(graph):
                reason = model.foreign(code, custom, operator)
                if reason is None and code not in (SEQUENCE_RNN, SEQUENCE_LSTM):
                    continue
                name = model.name(graph, operator, f"operator_{index}_{number}", result.keys() | missed.keys())
                try:
                    if reason is not None:
                        raise ModelFormatError(reason)
                    read = Operator(model, graph, operator)
                    result[name] = read.rnn() if code == SEQUENCE_RNN else read.lstm(ignore_cell_clip)
                except (ValueError, TypeError) as error:
                    missed[name] = f"{name!r}: {error}"
                    if skipped is None:
                        raise ModelFormatError(f"{path}: {missed[name]}") from error
        return explained(result, path, missed, skipped, model.contents)


class Model:
    """The tables of a TensorFlow Lite model.

    Parameters
    ----------
    data : bytes
        The file.
    """

    def __init__(self, data: bytes) -> None:
        if data[4:8] != MAGIC:
            raise ModelFormatError("not a TensorFlow Lite model: it has no TFL3 at byte 4")
        self.data = data
        try:
            root = Buffer(data).root()
            self.codes, self.graphs, self.buffers = root.tables(1), root.tables(2), root.tables(4)
        except ModelFormatError as error:
            raise ModelFormatError(f"a broken TFLite model: {error}") from None
        self.room = EXPANSION * len(data) + ALLOWANCE
        self._code_of: dict[int, tuple[int, str]] = {}
        self._dequantised: dict[int, dict[int, int]] = {}
        if not len(self.graphs):
            raise ModelFormatError("a TensorFlow Lite model without a graph")

    def spend(self, size: int) -> None:
        """Count bytes that are about to be allocated."""
        if size > self.room:
            raise ModelFormatError(f"the model unfolds to more than {EXPANSION} times its size")
        self.room -= size

    def code(self, operator: Table) -> tuple[int, str]:
        """(BuiltinOperator, name of a custom operator) of an operator."""
        index = operator.integer(0, "I")
        if index not in self._code_of:
            table = self.codes[index]
            self._code_of[index] = max(table.integer(0, "b"), table.integer(3, "i")), table.text(1)
        return self._code_of[index]

    def operators(self, graph: Table) -> Iterator[tuple[int, Table, int, str]]:
        """Yield (number, operator, BuiltinOperator, name of a custom one) of each operator of a graph."""
        for number, operator in enumerate(graph.tables(3)):
            yield number, operator, *self.code(operator)

    def dequantised(self, graph: Table) -> dict[int, int]:
        """Tensor -> the tensor that a DEQUANTIZE operator of a graph makes it of."""
        if graph.at not in self._dequantised:
            found: dict[int, int] = {}
            for _, operator, code, _ in self.operators(graph):
                ends = [operator.array(field, "<i4") for field in (1, 2)] if code == DEQUANTIZE else []
                if ends and all(end.size == 1 for end in ends):
                    if int(ends[1][0]) not in found:
                        self.spend(1 << 7)
                    found[int(ends[1][0])] = int(ends[0][0])
            self._dequantised[graph.at] = found
        return self._dequantised[graph.at]

    def name(self, graph: Table, operator: Table, otherwise: str, taken: set[str]) -> str:
        """The name of an operator's first output, with a number behind if another operator has it."""
        outputs = operator.array(2, "<i4")
        self.spend(1 << 9)
        base = graph.tables(0)[int(outputs[0])].text(3)[:500] if outputs.size else ""
        base, count = base or otherwise, 1
        name = base
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        return name

    def foreign(self, code: int, custom: str, operator: Table) -> str | None:
        """Why an operator that is recurrent, but none that is read, makes no layer; None for all others."""
        if code in OTHERS:
            return f"the operator {OTHERS[code]}; only float UNIDIRECTIONAL_SEQUENCE_LSTM and _RNN are read"
        if code == CUSTOM and RECURRENT_NAME.search(custom):
            return f"the custom operator {custom!r}; only UNIDIRECTIONAL_SEQUENCE_LSTM and _RNN are read"
        options = operator.table(4) if code == WHILE else None
        if options is None:
            return None
        body = options.integer(1, "i")
        has_product = has_activation = False
        for _, inner, kind, _ in self.operators(self.graphs[body]):
            fused = inner.table(4) if kind in FUSED else None
            has_product |= kind in PRODUCTS
            has_activation |= kind in (LOGISTIC, RELU, TANH) or (fused is not None and fused.integer(0, "b") > 0)
        if not has_product or not has_activation:
            return None
        return ("a WHILE loop whose body looks like a recurrent step; the converter fuses Keras LSTMs with biases into "
                "one operator, which is read, and leaves GRUs, SimpleRNNs and LSTMs with masks as loops. Read the "
                "Keras model itself")

    def contents(self) -> str:
        """What a model without recurrent operators has, as a part of a message."""
        shown: list[str] = []
        for tensor in self.graphs[0].tables(0):
            if len(shown) < 12 and tensor.array(0, "<i4").size > 1 and tensor.integer(2, "I"):
                shown.append(f"{tensor.text(3)[:60]} {tuple(tensor.array(0, '<i4').tolist())}")
        return ("there is no UNIDIRECTIONAL_SEQUENCE_LSTM or _RNN among its operators; its first arrays are "
                f"{', '.join(shown) or 'none'}; interop.from_arrays makes a layer of a layer's weights")


class Operator:
    """One recurrent operator of a graph, and its arrays.

    Parameters
    ----------
    model : Model
        The file.
    graph : Table
        The SubGraph that the operator is in.
    operator : Table
        The Operator.
    """

    def __init__(self, model: Model, graph: Table, operator: Table) -> None:
        self.model, self.graph, self.tensors = model, graph, graph.tables(0)
        self.inputs, self.options = operator.array(1, "<i4"), operator.table(4)

    def tensor(self, number: int) -> Table | None:
        """The Tensor of an input, or None where it is left out."""
        index = int(self.inputs[number]) if number < self.inputs.size else -1
        return None if index < 0 else self.tensors[index]

    def weights(self, number: int, what: str, shape: tuple[int, ...] | None = None) -> Array | None:
        """The array of an input with weights, as float32 or int8; None where the input is left out."""
        tensor = self.tensor(number)
        if tensor is None:
            return None
        index = int(self.inputs[number])
        a = self._whole_numbers(tensor, what) if _kind(tensor) == "int8" else self._constant(tensor, index, what)
        if shape is not None and a.shape != shape:
            raise ModelFormatError(f"{what}: expected shape {shape}, got {a.shape}")
        return a

    def scale(self, number: int, what: str) -> np.float32:
        """The scale of an input with int8 weights."""
        scale, _ = self._quantization(cast("Table", self.tensor(number)), what)
        return scale

    def vector(self, number: int, what: str, shape: tuple[int, ...]) -> Array | None:
        """The float32 array of an input whose numbers are used one by one, int8 ones times their scale."""
        a = self.weights(number, what, shape)
        return a if a is None or a.dtype != np.int8 else a * self.scale(number, what)

    def _quantization(self, tensor: Table, what: str) -> tuple[np.float32, int]:
        """The scale and the zero point of a tensor of whole numbers."""
        parameters = tensor.table(4)
        scales = np.empty(0) if parameters is None else parameters.array(2, "<f4")
        zeros = np.empty(0) if parameters is None else parameters.array(3, "<i8")
        if scales.size != 1 or zeros.size > 1 or not np.isfinite(scales).all():
            raise ModelFormatError(f"{what}: weights that are quantised with {scales.size} scales and {zeros.size} "
                                   "zero points; expected one finite scale for each gate")
        return np.float32(scales[0]), int(zeros[0]) if zeros.size else 0

    def _whole_numbers(self, tensor: Table, what: str) -> Array:
        """The int8 weights of a hybrid operator."""
        a = self._numbers(tensor, "i1", what)
        if a is None:
            raise ModelFormatError(f"{what}: the weights are no constants of the model")
        if self._quantization(tensor, what)[1] != 0 or (a == -128).any():
            raise ModelFormatError(f"{what}: int8 weights with a zero point, or of -128: TensorFlow Lite's own are "
                                   "-127 to 127 around 0")
        return a

    def _constant(self, tensor: Table, index: int, what: str, dequantised: bool = False) -> Array:
        kind = _kind(tensor)
        if dequantised and kind == "int8":
            a = self._numbers(tensor, "i1", what)
            if a is None:
                raise ModelFormatError(f"{what}: the weights are no constants of the model")
            scale, zero = self._quantization(tensor, what)
            self.model.spend(8 * a.size)
            return (a.astype(np.float32) - np.float32(zero)) * scale
        if not kind.startswith("float"):
            raise ModelFormatError(f"{what}: weights that are quantised to {kind}: no "
                                   "layer computes the same numbers. Read the model as it was before it was quantised, "
                                   "and call layer.quantized('int8')")
        if kind == "float64":
            raise ModelFormatError(f"{what}: weights of float64")
        a = self._numbers(tensor, "<f4" if kind == "float32" else "<f2", what)
        if a is None:
            source = self.model.dequantised(self.graph).get(index) if kind == "float32" else None
            if source is None or _kind(self.tensors[source]) == "float32":
                raise ModelFormatError(f"{what}: the weights are no constants of the model")
            return self._constant(self.tensors[source], source, what, dequantised=True)
        if kind == "float16":
            self.model.spend(4 * a.size)
        return a.astype(np.float32, copy=False)

    def _numbers(self, tensor: Table, dtype: str, what: str) -> Array | None:
        """The numbers that the file has for a tensor, a view of it; None if it has none."""
        if tensor.table(6) is not None:
            raise ModelFormatError(f"{what}: sparse weights")
        number = tensor.integer(2, "I")
        if not number:
            return None
        buffer = self.model.buffers[number]
        start, length = buffer.span(0, 1)
        if not length:
            start, length = buffer.integer(1, "Q"), buffer.integer(2, "Q")     # behind the tables, in large files
            if start <= 1 or not length:
                return None
            if start + length > len(self.model.data):
                raise ModelFormatError(f"{what}: {length} bytes from byte {start} of a file of {len(self.model.data)}")
        shape = tuple(tensor.array(0, "<i4").tolist())
        count = math.prod(shape)
        if len(shape) > RANK or min(shape, default=1) < 0 or count * np.dtype(dtype).itemsize != length:
            raise ModelFormatError(f"{what}: {dtype} {shape} in {length} bytes")
        return np.frombuffer(self.model.data, dtype, count, start).reshape(shape)

    def _check_input(self, size: int) -> None:
        x = self.tensor(0)
        if x is None:
            raise ModelFormatError("it has no input")
        kind = _kind(x)
        if kind != "float32":
            raise ModelFormatError(f"a quantised operator: its input is {kind}, and it computes in integers. Read the "
                                   "model as it was before it was quantised, and call layer.quantized('int8')")
        shape = x.array(0, "<i4")
        if shape.size and (shape.size != 3 or shape[2] not in (size, -1)):
            raise ModelFormatError(f"its input has shape {tuple(shape.tolist())}, but the weights are those of {size} "
                                   "inputs")

    def _check_state(self, number: int, what: str, size: int) -> None:
        """A state is a variable, or comes with the inputs of the graph; as a constant it must be zero."""
        tensor = self.tensor(number)
        if tensor is None:
            raise ModelFormatError(f"{what}: it is missing")
        shape = tensor.array(0, "<i4")
        if shape.size and (shape.size != 2 or shape[1] not in (size, -1)):
            raise ModelFormatError(f"{what}: it has shape {tuple(shape.tolist())}, expected {size} columns")
        if _kind(tensor) != "float32":
            raise ModelFormatError(f"{what}: a quantised state")
        a = self._numbers(tensor, "<f4", what)
        if a is not None and a.any():
            raise ModelFormatError(f"{what}: it starts at numbers that are not zero; a layer starts at zeros, or at "
                                   "the state of a call")

    def _activation(self, number: int) -> tuple[str, float | None, float | None]:
        if number not in ACTIVATIONS:
            raise ModelFormatError(f"the activation {REFUSED_ACTIVATIONS.get(number, number)}, which no layer has")
        return ACTIVATIONS[number]

    def _matrix(self, number: int, what: str) -> Array:
        a = self.weights(number, what)
        if a is None or a.ndim != 2:
            raise ModelFormatError(f"{what}: expected a matrix, got " + ("none" if a is None else f"shape {a.shape}"))
        return a

    def rnn(self) -> RNN:
        """The layer of a UNIDIRECTIONAL_SEQUENCE_RNN: h' = f(W x + R h + b)."""
        options = self.options
        W = self._matrix_after_input(1)
        H, I = W.shape
        R, b = self.weights(2, "recurrent weights", (H, H)), self.weights(3, "bias", (H,))
        if R is None or b is None:
            raise ModelFormatError("its recurrent weights or bias are missing")
        self._check_input(I)
        self._check_state(4, "state", H)
        activation = self._activation(options.integer(1, "b") if options is not None else 0)
        self.model.spend(LAYER + 8 * (W.size + R.size + b.size))
        parameters = {"weight_ih_l0": W, "weight_hh_l0": R, "bias_ih_l0": b, "bias_hh_l0": np.zeros(H, np.float32)}
        time_major = options is not None and options.integer(0, "?")
        if _is_hybrid(parameters):
            for number, name in ((1, "weight_ih_l0"), (2, "weight_hh_l0")):
                parameters |= int8_weight(parameters[name], np.atleast_1d(self.scale(number, name)), None, name)
            return int8_layer(RNN, parameters, I, H, batch_first=not time_major, activations=[activation])
        return RNN.from_parameters(parameters, I, H, batch_first=not time_major, activations=[activation])

    def _matrix_after_input(self, number: int) -> Array:
        """The first matrix, after a look at the type of the input: it says best that an operator is quantised."""
        x = self.tensor(0)
        if x is not None and _kind(x) != "float32":
            self._check_input(0)
        return self._matrix(number, "input weights")

    def lstm(self, ignore_cell_clip: bool) -> LSTM:
        """The layer of a UNIDIRECTIONAL_SEQUENCE_LSTM."""
        options = self.options
        W = self._matrix_after_input(2)
        H, I = W.shape
        if any(self.tensor(number) is not None for number in range(20, 24)):
            raise ModelFormatError("an LSTM with layer normalisation, which no layer has")
        if options is not None and options.integer(5, "?"):
            raise ModelFormatError("an LSTM whose recurrent weights are diagonal")
        projection = self.weights(16, "projection")
        S = H if projection is None else projection.shape[0]
        if self.tensor(17) is not None or (projection is not None and projection.shape != (S, H)):
            raise ModelFormatError("an LSTM whose projection has a bias, or weights of another shape")
        if projection is not None and S >= H:
            raise ModelFormatError(f"a projection of {H} to {S} numbers, which no layer has")
        coupled = self.tensor(1) is None
        parameters = self._gates(I, H, S, coupled)
        if projection is not None:
            parameters["weight_hr_l0"] = projection
        self._check_input(I)
        self._check_state(18, "output state", S)
        self._check_state(19, "cell state", H)
        activation = self._activation(options.integer(0, "b") if options is not None else 0)
        self._check_clips(options, projection is not None, activation[0] == "tanh", ignore_cell_clip)
        self.model.spend(LAYER + 8 * sum(a.size for a in parameters.values()))
        time_major = options is not None and options.integer(3, "?")
        activations = [("sigmoid", None, None), activation, activation]
        proj_size, peephole = 0 if projection is None else S, "peephole_l0" in parameters
        if _is_hybrid(parameters):
            return int8_layer(LSTM, parameters | self._scaled(parameters, H, coupled), I, H, activations=activations,
                              batch_first=not time_major, proj_size=proj_size, coupled_gates=coupled, peephole=peephole)
        return LSTM.from_parameters(parameters, I, H, batch_first=not time_major, proj_size=proj_size,
                                    activations=activations, coupled_gates=coupled, peephole=peephole)

    def _scaled(self, parameters: dict[str, Array], H: int, coupled: bool) -> dict[str, Array]:
        """The int8 weights of an LSTM with their scales."""
        result: dict[str, Array] = {}
        for first, name in ((1, "weight_ih_l0"), (5, "weight_hh_l0")):
            numbers = [first + gate for gate in range(4)]
            if coupled:
                numbers[:2] = numbers[1], numbers[1]        # its f, which has no effect, are zeros of any scale
            scales = np.repeat([self.scale(number, name) for number in numbers], H)
            result |= int8_weight(parameters[name], scales, None, name)
        if "weight_hr_l0" in parameters:
            scale = np.atleast_1d(self.scale(16, "projection"))
            result |= int8_weight(parameters["weight_hr_l0"], scale, None, "weight_hr_l0")
        return result

    def _gates(self, I: int, H: int, S: int, coupled: bool) -> dict[str, Array]:
        """The parameters with their gates in the order i, f, g, o.

        Without an input gate TFLite has i = 1 - f, f = sigmoid(a): a layer's coupled gates are f = 1 - i, so that
        i = sigmoid(-a) there, and its weights of f have no effect.
        """
        def joined(first: int, what: str, shape: tuple[int, ...], gates: str = "ifgo") -> Array:
            parts: list[Array] = []
            for number, gate in enumerate(gates):
                reader = self.weights if len(shape) == 2 else self.vector
                a = reader(first + number, f"{what} of gate {gate}", shape)
                if (a is None) != (coupled and gate == "i"):
                    raise ModelFormatError(f"{what} of gate {gate}: they are " + ("missing" if a is None else "given, "
                                           "but others of the input gate are not"))
                if a is not None and parts and a.dtype != parts[-1].dtype:
                    raise ModelFormatError(f"{what} of gate {gate}: {a.dtype}, others {parts[-1].dtype}")
                if a is not None:
                    parts.append(a)
            if coupled:
                parts[:1] = -parts[0], np.zeros_like(parts[0])
            return np.concatenate(parts)

        self.model.spend(4 * (4 * H * (I + S + 2) + 3 * H))
        parameters = {"weight_ih_l0": joined(1, "input weights", (H, I)),
                      "weight_hh_l0": joined(5, "recurrent weights", (H, S)),
                      "bias_ih_l0": joined(12, "bias", (H,)), "bias_hh_l0": np.zeros(4 * H, np.float32)}
        if any(self.tensor(number) is not None for number in (9, 10, 11)):
            parameters["peephole_l0"] = joined(9, "peepholes", (H,), "ifo")
        return parameters

    def _check_clips(self, options: Table | None, projected: bool, bounded: bool, ignore_cell_clip: bool) -> None:
        """Refuse bounds of the cell state and the projection, unless they are never reached."""
        if options is None:
            return
        clip, projection_clip = options.number(1, "f"), options.number(2, "f")
        if projected and projection_clip:
            raise ModelFormatError(f"an LSTM whose projection is held to -{projection_clip:g}...{projection_clip:g}")
        x = cast("Table", self.tensor(0)).array(0, "<i4")
        steps = int(x[0 if options.integer(3, "?") else 1]) if x.size == 3 else -1
        # |c'| <= f |c| + i |g| <= |c| + 1, from zeros
        if not clip or ignore_cell_clip or (bounded and 0 <= steps <= clip):
            return
        raise ModelFormatError(
            f"its cell state is held to -{clip:g}...{clip:g}, which no layer does (TensorFlow's converter writes 10 "
            "for every Keras LSTM): with ignore_cell_clip=True it is read without, and agrees while |c| stays below")


def _kind(tensor: Table) -> str:
    """The name of a tensor's type."""
    return TYPES.get(tensor.integer(1, "b"), "of another type")


def _is_hybrid(parameters: dict[str, Array]) -> bool:
    """Whether the weights are int8: all of them, or none."""
    kinds = {value.dtype.name for name, value in parameters.items() if name.startswith("weight")}
    if len(kinds) > 1:
        raise ModelFormatError(f"weights of {' and '.join(sorted(kinds))} in one operator")
    return kinds == {"int8"}
