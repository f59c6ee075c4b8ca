"""The contestants of precision.py: fastrnn and its peers, each in its narrow forms; methods as in adapters.py.

Each has its weights rounded once, before anything is timed, and takes and gives what its users hand it: float32 arrays,
but for torch models that were made bfloat16 as a whole, whose inputs are.
"""
import logging
import tempfile
import warnings
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
from adapters import Contestant, FastRNN, OnnxRuntime, OpenVINO, Peer, Torch, faster, most_threads, repeated


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
    """int8 weights, float arrays, as TensorFlow's dynamic-range quantisation writes them.

    A sequence is a hybrid UNIDIRECTIONAL_SEQUENCE_LSTM or _RNN. A step is that, or FULLY_CONNECTED of x and h and the
    equations after it, which the XNNPACK delegate takes over and runs up to three times as fast: whichever is faster.
    """

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
        builder.operator(44 if lstm else 35, inputs, [y], options, kind)
        return builder.model([x], [y])

    def running(self, model):
        """(interpreter, indices of its inputs, of its outputs)."""
        interpreter = self.interpreter.Interpreter(model_content=model, num_threads=most_threads())
        interpreter.allocate_tensors()
        return interpreter, *([details["index"] for details in several] for several in (
            interpreter.get_input_details(), interpreter.get_output_details()))

    def step(self, problem):
        ways = [partial(self.fused_step, problem)] if problem.cell != "gru" else []
        written_out = {"lstm": self.lstm_equations, "gru": self.gru_equations}.get(problem.cell)
        return faster(ways + [partial(self.written_out_step, problem, written_out)] * (written_out is not None))

    def gru_equations(self, problem):
        """x [1, I], h -> h': two products with the weights of all gates, then the equations."""
        builder, size = ModelBuilder(self.schema, self.flatbuffers), problem.H
        x, h = (builder.tensor((1, width)) for width in (problem.I, size))

        def sums(value, part):
            weights = builder.whole(problem.weights[f"weight_{part}_l0"], by_rows=True)
            bias = builder.constant(problem.weights[f"bias_{part}_l0"])
            whole = builder.result("FULLY_CONNECTED", [value, weights, bias], (1, 3 * size), "FullyConnected")
            return builder.results("SPLIT", [axis, whole], [(1, size)] * 3, "Split", numSplits=3)

        def combined(name, *pair):
            return builder.result(name, list(pair), (1, size), name.capitalize())

        axis = builder.constant(np.array(1, np.int32))
        of_x, of_h = sums(x, "ih"), sums(h, "hh")
        r, z = (builder.result("LOGISTIC", [combined("ADD", *pair)], (1, size)) for pair in zip(of_x[:2], of_h[:2]))
        n = builder.result("TANH", [combined("ADD", of_x[2], combined("MUL", r, of_h[2]))], (1, size))
        h_next = combined("ADD", n, combined("MUL", z, combined("SUB", h, n)))
        return builder.model([x, h], [h_next])

    def lstm_equations(self, problem):
        """x [1, I], h, c -> h', c': one product of [x, h] with all gates' weights, then the equations."""
        builder, size = ModelBuilder(self.schema, self.flatbuffers), problem.H
        x, h, c = (builder.tensor((1, width)) for width in (problem.I, size, size))
        weights = np.concatenate([problem.weights["weight_ih_l0"], problem.weights["weight_hh_l0"]], axis=1)
        bias = builder.constant(problem.weights["bias_ih_l0"] + problem.weights["bias_hh_l0"])
        joined = builder.result("CONCATENATION", [x, h], (1, weights.shape[1]), "Concatenation", axis=1)
        sums = builder.result("FULLY_CONNECTED", [joined, builder.whole(weights, by_rows=True), bias], (1, 4 * size),
                              "FullyConnected")
        axis = builder.constant(np.array(1, np.int32))
        i, f, g, o = builder.results("SPLIT", [axis, sums], [(1, size)] * 4, "Split", numSplits=4)
        i, f, o = (builder.result("LOGISTIC", [a], (1, size)) for a in (i, f, o))
        g = builder.result("TANH", [g], (1, size))
        kept, new = (builder.result("MUL", pair, (1, size), "Mul") for pair in ([f, c], [i, g]))
        c_next = builder.result("ADD", [kept, new], (1, size), "Add")
        bounded = builder.result("TANH", [c_next], (1, size))
        h_next = builder.result("MUL", [o, bounded], (1, size), "Mul")
        return builder.model([x, h, c], [h_next, c_next])

    def written_out_step(self, problem, equations):
        """A step by a model of x and states that gives the next states, which go back in."""
        interpreter, (x, *inputs), outputs = self.running(equations(problem))
        states = [np.zeros((1, problem.H), np.float32) for _ in inputs]

        def run(n):
            for _ in repeat(None, n):
                interpreter.set_tensor(x, problem.x[0])
                for index, state in zip(inputs, states):
                    interpreter.set_tensor(index, state)
                interpreter.invoke()
                states[:] = [interpreter.get_tensor(index) for index in outputs]

        return Contestant(run, lambda: [states[0]], "written out", interpreter)

    def fused_step(self, problem):
        interpreter, (x,), (y,) = self.running(self.model(problem, 1))
        value = problem.x[:1]

        def run(n):
            for _ in repeat(None, n):
                interpreter.set_tensor(x, value)
                interpreter.invoke()

        return Contestant(run, lambda: [interpreter.get_tensor(y)], "fused", interpreter)

    def sequence(self, problem):
        interpreter, (x,), (y,) = self.running(self.model(problem, problem.T))

        def run(n):
            for _ in repeat(None, n):
                interpreter.reset_all_variables()
                interpreter.set_tensor(x, problem.x)
                interpreter.invoke()

        return Contestant(run, lambda: [interpreter.get_tensor(y)], keep=interpreter)


class ModelBuilder:
    """A TensorFlow Lite model in the making."""

    def __init__(self, schema, flatbuffers):
        self.schema, self.flatbuffers = schema, flatbuffers
        self.made, self.graph = schema.ModelT(), schema.SubGraphT()
        self.made.version, self.made.buffers, self.made.subgraphs = 3, [schema.BufferT()], [self.graph]
        self.made.operatorCodes, self.graph.tensors, self.graph.operators = [], [], []

    def tensor(self, shape, kind=0, variable=False, data=None, scales=None):
        """The index of a new tensor; kinds are 0 float32, 2 int32 and 9 int8."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.type = f"tensor {len(self.graph.tensors)}", list(shape), kind
        tensor.isVariable, tensor.buffer = variable, 0
        if data is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.made.buffers.append(buffer)
            tensor.buffer = len(self.made.buffers) - 1
        if scales is not None:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = list(map(float, scales))
            tensor.quantization.zeroPoint = [0] * len(scales)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, a):
        return self.tensor(a.shape, {"float32": 0, "int32": 2}[a.dtype.name], data=a)

    def whole(self, a, by_rows=False):
        """int8 weights with one scale, as the converter makes them for each gate, or with one for each row."""
        scales = np.abs(a).max(axis=1 if by_rows else None, keepdims=True) / np.float32(127)
        return self.tensor(a.shape, 9, data=np.rint(a / scales).astype(np.int8), scales=scales.ravel())

    def operator(self, code, inputs, outputs, options=None, kind="NONE"):
        known, operator = self.schema.OperatorCodeT(), self.schema.OperatorT()
        known.builtinCode = known.deprecatedBuiltinCode = code
        known.version = 1
        self.made.operatorCodes.append(known)
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.graph.operators), inputs, outputs
        operator.builtinOptions, operator.builtinOptionsType = options, getattr(self.schema.BuiltinOptions, kind)
        self.graph.operators.append(operator)

    def results(self, name, inputs, shapes, options=None, **settings):
        """The outputs of an operator by its name, whose options are of a class and have these settings."""
        made = None
        if options is not None:
            made = getattr(self.schema, f"{options}OptionsT")()
            for key, value in settings.items():
                setattr(made, key, value)
        outputs = [self.tensor(shape) for shape in shapes]
        self.operator(getattr(self.schema.BuiltinOperator, name), inputs, outputs, made,
                      "NONE" if options is None else f"{options}Options")
        return outputs

    def result(self, name, inputs, shape, options=None, **settings):
        return self.results(name, inputs, [shape], options, **settings)[0]

    def model(self, inputs, outputs):
        self.graph.inputs, self.graph.outputs = inputs, outputs
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
