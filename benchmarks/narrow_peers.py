"""The contestants of precision.py: fastrnn and its peers, each in its narrow forms; methods as in adapters.py.

Each has its weights rounded once, before anything is timed, and takes and gives what its users hand it: float32 arrays,
but for torch models that were made bfloat16 as a whole, whose inputs are.
"""
import logging
import tempfile
import warnings
from itertools import repeat
from pathlib import Path

import numpy as np
from adapters import Contestant, FastRNN, OnnxRuntime, OpenVINO, Peer, Torch, most_threads, repeated


class NotOffered(RuntimeError):
    """The library has no such operator in this form."""


class NarrowFastRNN(FastRNN):
    """fastrnn's layers of a precision. Training is by forward(..., precision=...), of float32 parameters."""

    def __init__(self, precision):
        super().__init__()
        self.precision = precision
        if precision != "float32":      # an older fastrnn may not have it
            self.module.GRU(1, 1, rng=0).quantized(precision)

    def layer(self, problem, **options):
        layer = super().layer(problem, **options)
        return layer if self.precision == "float32" else layer.quantized(self.precision)

    def training(self, problem):
        if self.precision == "float32":
            return super().training(problem)
        layer, x, d_output = super().layer(problem), problem.x, problem.d_output
        try:
            layer.forward(x[:1], precision=self.precision)
        except (TypeError, ValueError) as error:
            raise NotOffered(str(error)) from error

        def call():
            output, _, cache = layer.forward(x, precision=self.precision)
            return output, layer.backward(cache, d_output)

        def arrays():
            output, gradients = last()
            return [output, gradients.input, *(gradients.parameters[name] for name in problem.weights)]

        run, last = repeated(call)
        return Contestant(run, arrays, layer)


class OnnxRuntimeInt8(OnnxRuntime):
    """DynamicQuantizeLSTM, as onnxruntime.quantization.quantize_dynamic makes it: a scale for each gate of a unit."""

    def model(self, problem, T, states):
        if problem.cell != "lstm":
            raise NotOffered("quantize_dynamic has LSTMs alone")
        from onnxruntime.quantization import quantize_dynamic
        logging.getLogger().setLevel(logging.ERROR)     # it advises optimisations of graphs, of which this is one node
        with tempfile.TemporaryDirectory() as folder:
            before, after = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
            before.write_bytes(super().model(problem, T, states))
            quantize_dynamic(before, after, per_channel=True)
            return after.read_bytes()


class OpenVINOBfloat16(OpenVINO):
    """INFERENCE_PRECISION_HINT bf16: what OpenVINO takes by itself where the CPU has it."""

    precision = "bf16"


class TorchBfloat16(Torch):
    """model.to(torch.bfloat16): weights, states and arrays are all bfloat16."""

    def module(self, problem):
        return super().module(problem).to(self.torch.bfloat16)

    def tensor(self, a):
        return super().tensor(a).to(self.torch.bfloat16)

    def array(self, tensor):
        return super().array(tensor.float())


class TorchAutocast(Torch):
    """torch.autocast("cpu", dtype=torch.bfloat16) around a float32 model."""

    def contexts(self, threads, inference=True):
        stack = super().contexts(threads, inference)
        stack.enter_context(self.torch.autocast("cpu", dtype=self.torch.bfloat16))
        return stack

    def array(self, tensor):
        return super().array(tensor.float())


class TorchInt8(Torch):
    """torch.ao.quantization.quantize_dynamic: int8 weights with a scale for each gate of each unit, where it has it."""

    def module(self, problem):
        if problem.cell == "rnn":
            raise NotOffered("quantize_dynamic has LSTMs and GRUs alone")
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor|.*torch.ao.quantization is deprecated")
        wrapped = self.torch.nn.ModuleList([super().module(problem)])
        quantised = self.torch.ao.quantization.quantize_dynamic(wrapped, {type(wrapped[0])}, dtype=self.torch.qint8)
        return quantised[0]

    def training(self, problem):
        raise NotOffered("int8 models do not train")


class LiteRT(Peer):
    """A hybrid UNIDIRECTIONAL_SEQUENCE_LSTM or _RNN, as TensorFlow's dynamic-range quantisation writes it: int8
    weights, float arrays."""

    package = "ai-edge-litert"

    def __init__(self):
        import flatbuffers
        from ai_edge_litert import interpreter
        from ai_edge_litert import schema_py_generated as schema
        self.flatbuffers, self.interpreter, self.schema = flatbuffers, interpreter, schema

    def model(self, problem, T):
        """The bytes of a model of one operator, whose states are variables that it keeps."""
        if problem.cell == "gru":
            raise NotOffered("there is no fused GRU")
        builder = ModelBuilder(self.schema, self.flatbuffers)
        lstm, rows, size = problem.cell == "lstm", problem.N, problem.H
        x = builder.tensor((T, rows, problem.I))
        gates = 4 if lstm else 1
        order = [0, 1, 2, 3]            # i, f, c, o: those of torch
        weights = [[builder.whole(part) for part in np.split(problem.weights[name], gates)]
                   for name in ("weight_ih_l0", "weight_hh_l0")]
        bias = np.split(problem.weights["bias_ih_l0"] + problem.weights["bias_hh_l0"], gates)
        biases = [builder.constant(part) for part in bias]
        state = [builder.tensor((rows, size), variable=True) for _ in range(1 + lstm)]
        if lstm:
            inputs = [x, *(weights[0][k] for k in order), *(weights[1][k] for k in order), -1, -1, -1,
                      *(biases[k] for k in order), -1, -1, *state, -1, -1, -1, -1]
            options, kind = self.schema.UnidirectionalSequenceLSTMOptionsT(), "UnidirectionalSequenceLSTMOptions"
        else:
            inputs, options, kind = [x, weights[0][0], weights[1][0], biases[0], *state], (
                self.schema.SequenceRNNOptionsT()), "SequenceRNNOptions"
        options.fusedActivationFunction, options.timeMajor = self.schema.ActivationFunctionType.TANH, True
        y = builder.tensor((T, rows, size))
        return builder.model(44 if lstm else 35, inputs, y, options, getattr(self.schema.BuiltinOptions, kind))

    def running(self, problem, T):
        interpreter = self.interpreter.Interpreter(model_content=self.model(problem, T), num_threads=most_threads())
        interpreter.allocate_tensors()
        return interpreter, interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def step(self, problem):
        interpreter, x, y = self.running(problem, 1)
        value = problem.x[:1]

        def run(n):
            for _ in repeat(None, n):
                interpreter.set_tensor(x, value)
                interpreter.invoke()

        return Contestant(run, lambda: [interpreter.get_tensor(y)], keep=interpreter)

    def sequence(self, problem):
        interpreter, x, y = self.running(problem, problem.T)

        def run(n):
            for _ in repeat(None, n):
                interpreter.reset_all_variables()
                interpreter.set_tensor(x, problem.x)
                interpreter.invoke()

        return Contestant(run, lambda: [interpreter.get_tensor(y)], keep=interpreter)


class ModelBuilder:
    """A TensorFlow Lite model of one operator in the making."""

    def __init__(self, schema, flatbuffers):
        self.schema, self.flatbuffers = schema, flatbuffers
        self.made, self.graph = schema.ModelT(), schema.SubGraphT()
        self.made.version, self.made.buffers, self.made.subgraphs = 3, [schema.BufferT()], [self.graph]
        self.graph.tensors = []

    def tensor(self, shape, kind=0, variable=False, data=None, scale=None):
        """The index of a new tensor; kinds are 0 float32 and 9 int8."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type = f"tensor {len(self.graph.tensors)}", list(shape), kind
        tensor.isVariable, tensor.buffer = variable, 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.made.buffers.append(buffer)
            tensor.buffer = len(self.made.buffers) - 1
        if scale is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [float(scale)], [0]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, a):
        return self.tensor(a.shape, data=a)

    def whole(self, a):
        """int8 weights with one scale, as the converter makes them for each gate."""
        scale = np.float32(np.abs(a).max() / 127)
        return self.tensor(a.shape, 9, data=np.rint(a / scale).astype(np.int8), scale=scale)

    def model(self, code, inputs, output, options, kind):
        known, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        known.builtinCode = known.deprecatedBuiltinCode = code
        known.version = 1
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, inputs, [output]
        operator.builtinOptions, operator.builtinOptionsType = options, kind
        self.made.operatorCodes, self.graph.operators = [known], [operator]
        self.graph.inputs, self.graph.outputs = [inputs[0]], [output]
        builder = self.flatbuffers.Builder(1024)
        builder.Finish(self.made.Pack(builder), b"TFL3")
        return bytes(builder.Output())


# name -> constructor, in the order of the turns
OURS = {f"fastrnn {name}": lambda name=name: NarrowFastRNN(name) for name in ("float32", "int8", "bfloat16")}
PEERS = {
    "onnxruntime int8": OnnxRuntimeInt8,
    "litert int8": LiteRT,
    "torch int8": TorchInt8,
    "openvino bfloat16": OpenVINOBfloat16,
    "torch bfloat16": TorchBfloat16,
    "torch autocast": TorchAutocast,
}
