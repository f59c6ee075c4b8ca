"""TensorFlow Lite models of one recurrent operator, written by LiteRT's own schema, and run by its interpreter."""

import warnings
from typing import NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

LSTM, RNN, DEQUANTIZE, CUSTOM = 44, 35, 6, 32
TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}
NONE, RELU, RELU_N1_TO_1, RELU6, TANH, SIGN_BIT = range(6)


class Whole(NamedTuple):
    """int8 numbers of a tensor with their scales and zero points: values are scale (numbers - zero)."""

    numbers: np.ndarray
    scales: tuple = ()
    zeros: tuple = (0,)

    @property
    def shape(self):
        return self.numbers.shape

    @property
    def values(self):
        return ((self.numbers.astype(float) - self.zeros[0]) * self.scales[0]).astype(np.float32)


def whole(a):
    """int8 numbers of an array as TensorFlow's converter makes them: symmetric, one scale."""
    scale = np.float32(np.abs(a).max() / 127)
    return Whole(np.rint(a / scale).astype(np.int8), (float(scale),))


class Builder:
    """A model in the making: tensors and operators of one graph."""

    def __init__(self):
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.operatorCodes = 3, []
        self.model.buffers, self.model.subgraphs = [schema.BufferT()], [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, a=None, shape=None, dtype="float32", name="", variable=False):
        """The index of a new tensor: a constant, or one of a shape."""
        tensor = schema.TensorT()
        tensor.name, tensor.isVariable, tensor.buffer = name or f"tensor {len(self.graph.tensors)}", variable, 0
        if a is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(a.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer, shape, dtype = len(self.model.buffers) - 1, a.shape, a.dtype.name
        tensor.shape, tensor.type = list(shape), TYPES[dtype]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def weights(self, a, half=False):
        """The index of a constant; with `half` of one that is dequantised from float16. -1 for None."""
        if isinstance(a, Whole):
            source = self.tensor(a.numbers)
            quantization = schema.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = list(map(float, a.scales)), list(a.zeros)
            self.graph.tensors[source].quantization = quantization
            if half:
                target = self.tensor(None, a.shape)
                self.operator(DEQUANTIZE, [source], [target])
                return target
            return source
        if a is None or not half:
            return -1 if a is None else self.tensor(a)
        source, target = self.tensor(a.astype(np.float16)), self.tensor(None, a.shape)
        self.operator(DEQUANTIZE, [source], [target])
        return target

    def operator(self, code, inputs, outputs, options=None, kind=0, custom=None):
        operator, known = schema.OperatorT(), schema.OperatorCodeT()
        known.builtinCode, known.deprecatedBuiltinCode, known.version, known.customCode = code, code, 1, custom
        self.model.operatorCodes.append(known)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        self.graph.operators.append(operator)

    def data(self, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def lstm(arrays, shape, *, activation=TANH, cell_clip=0.0, proj_clip=0.0, time_major=False, half=False, state=None,
         diagonal=False, asymmetric=False, name="lstm"):
    """Bytes of a model of one UNIDIRECTIONAL_SEQUENCE_LSTM: arrays by the numbers of its inputs, X of a shape."""
    made = Builder()
    x = made.tensor(None, shape, name="x")
    H, S = arrays[2].shape[0], arrays[6].shape[1]
    rows = shape[1] if time_major else shape[0]
    inputs = [x, *(made.weights(arrays.get(number), half) for number in range(1, 18))]
    inputs += [made.tensor(state, (rows, S), variable=state is None), made.tensor(None, (rows, H), variable=True)]
    inputs += [made.weights(arrays.get(number)) for number in range(20, 24)]
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction, options.cellClip, options.projClip = activation, cell_clip, proj_clip
    options.timeMajor, options.diagonalRecurrentTensors = time_major, diagonal
    options.asymmetricQuantizeInputs = asymmetric
    y = made.tensor(None, (*shape[:2], S), name=name)
    made.operator(LSTM, inputs, [y], options, schema.BuiltinOptions.UnidirectionalSequenceLSTMOptions)
    return made.data([x], [y])


def rnn(W, R, b, shape, *, activation=TANH, time_major=False, half=False, asymmetric=False):
    """Bytes of a model of one UNIDIRECTIONAL_SEQUENCE_RNN."""
    made = Builder()
    x, (H, _) = made.tensor(None, shape, name="x"), W.shape
    rows = shape[1] if time_major else shape[0]
    inputs = [x, *(made.weights(a, half) for a in (W, R, b)), made.tensor(None, (rows, H), variable=True)]
    options = schema.SequenceRNNOptionsT()
    options.fusedActivationFunction, options.timeMajor = activation, time_major
    options.asymmetricQuantizeInputs = asymmetric
    y = made.tensor(None, (*shape[:2], H), name="rnn")
    made.operator(RNN, inputs, [y], options, schema.BuiltinOptions.SequenceRNNOptions)
    return made.data([x], [y])


def run(data, x):
    """The first output of a model, by LiteRT's interpreter without delegates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ai_edge_litert.interpreter import OpResolverType
        interpreter = Interpreter(model_content=data, num_threads=1, experimental_op_resolver_type=OpResolverType.
                                  BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()
