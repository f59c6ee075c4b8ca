"""The contestants of peers.py: one class a library, all with the same three methods.

`step(problem)`, `sequence(problem)` and `training(problem)` return a Contestant, whose `run(n)` does the work n times
(a loop inside, so that a context manager or a look-up is paid once and not at every step) and whose `output()` gives
the arrays that are compared. Whatever a library wants to have prepared (sessions, packed weights, converted inputs) is
prepared before, and every library gets its own array type: conversions from NumPy are not in the timed part.
"""
import os
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import repeat

import numpy as np

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# ONNX orders the gates i o f c and z r h; torch and fastrnn i f g o and r z n.
ONNX_ORDER = {"lstm": [0, 3, 1, 2], "gru": [1, 0, 2], "rnn": [0]}


@dataclass
class Problem:
    """Weights with torch's names and shapes, x [T, N, I] and d_output [T, N, H], the same for every contestant."""
    cell: str
    T: int
    N: int
    I: int
    H: int
    weights: dict = field(init=False, repr=False)

    def __post_init__(self):
        rng = np.random.default_rng(0)
        rows = GATES[self.cell] * self.H
        shapes = {"weight_ih_l0": (rows, self.I), "weight_hh_l0": (rows, self.H),
                  "bias_ih_l0": rows, "bias_hh_l0": rows}
        bound = self.H ** -0.5
        self.weights = {name: rng.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}
        self.x = rng.standard_normal((self.T, self.N, self.I), np.float32)
        # scaled so that gradients summed over T and N stay near 1 and one absolute bound serves all cases
        self.d_output = rng.standard_normal((self.T, self.N, self.H), np.float32) / np.float32((self.T * self.N) ** 0.5)

    @property
    def multiply_adds(self):
        """Multiply-adds of one row's step."""
        return GATES[self.cell] * self.H * (self.I + self.H)


@dataclass
class Contestant:
    run: object                  # run(n): the work, n times
    output: object               # output(): list of arrays to compare
    about: object = None         # fastrnn: its stream or layer; others: which way of calling them was the fastest
    keep: object = None          # memory that a runtime was given the address of, and does not keep alive itself


def difference(theirs, mine):
    """The largest absolute difference; of an array whose numbers pass 1 (gradients) relative to its maximum."""
    if len(theirs) != len(mine):
        raise ValueError(f"{len(theirs)} arrays to compare with {len(mine)}")
    return max(float(np.max(np.abs(t.reshape(m.shape) - m)) / max(1, np.max(np.abs(m)))) for t, m in zip(theirs, mine))


def sgemm(size=1024):
    """np.matmul in float32: the rate that a product of matrices reaches here. 2 size**3 operations."""
    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    c = np.empty_like(a)
    return Contestant(repeated(lambda: np.matmul(a, b, out=c))[0], lambda: [c])


def small_add(size):
    """np.add of two small arrays into a third: what any call of NumPy costs."""
    a, b, c = np.ones((3, size), np.float32)

    def run(n):
        for _ in repeat(None, n):
            np.add(a, b, out=c)

    return Contestant(run, lambda: [c])


def most_threads():
    """The threads that every contestant may use; peers.py sets them."""
    return int(os.environ.get("OMP_NUM_THREADS", 1))


def thread_counts():
    """The numbers of threads that a library may choose from: one, or all that it may use."""
    return sorted({1, most_threads()})


def faster(ways):
    """The quickest of some contestants that compute the same; made anew afterwards, so that its state is fresh."""
    def seconds(way):
        contestant = way()
        contestant.run(2)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            contestant.run(3)
            times.append(time.perf_counter() - start)
        return min(times)

    return min(ways, key=seconds)() if len(ways) > 1 else ways[0]()


def repeated(call):
    """run(n) of a function without arguments, and its last result."""
    last = []

    def run(n):
        for _ in repeat(None, n):
            last[:] = [call()]

    return run, lambda: last[0]


class Peer:
    """Base of the adapters. The constructor raises ImportError where the library is absent."""
    package = ""

    def version(self):
        return version(self.package)

    def step(self, problem):
        raise NotImplementedError

    def sequence(self, problem):
        raise NotImplementedError

    def training(self, problem):
        raise NotImplementedError


class FastRNN(Peer):
    package = "fastrnn"

    def __init__(self):
        import fastrnn
        self.module = fastrnn

    def version(self):
        return getattr(self.module, "__version__", None) or super().version()

    def layer(self, problem, **options):
        layer = getattr(self.module, OPERATORS[problem.cell])(problem.I, problem.H, **options)
        layer.load_state_dict(problem.weights if options.get("bias", True) else
                              {name: w for name, w in problem.weights.items() if "bias" not in name})
        return layer

    def step(self, problem, state=None, **options):
        """`state`, if given, is set anew at the beginning of every run."""
        s, x, out = self.layer(problem, **options).stream(), problem.x[0, 0], np.empty(problem.H, np.float32)

        def run(n):
            if state is not None:
                s.state = state
            for _ in repeat(None, n):
                s.step(x, out)

        return Contestant(run, lambda: [out], s)

    def read(self, stream):
        """Reads the packed weights of a stream of one layer and does nothing else."""
        return Contestant(stream.parameters[0].read, None)

    def sequence(self, problem, state=None, lengths=None, **options):
        layer, x = self.layer(problem, **options), problem.x
        out = np.empty((problem.T, problem.N, problem.H), np.float32)

        def run(n):
            for _ in repeat(None, n):
                layer(x, state, lengths=lengths, out=out)

        return Contestant(run, lambda: [out], layer)

    def training(self, problem):
        layer, x, d_output = self.layer(problem), problem.x, problem.d_output

        def call():
            output, _, cache = layer.forward(x)
            return output, layer.backward(cache, d_output)

        def arrays():
            output, grads = last()
            return [output, grads.input, *(grads.parameters[name] for name in problem.weights)]

        run, last = repeated(call)
        return Contestant(run, arrays, layer)


class Torch(Peer):
    """nn.LSTM, nn.GRU, nn.RNN, or for steps alone the Cell classes; oneDNN on or off."""
    package = "torch"

    def __init__(self, onednn=True, cell=False):
        import torch
        self.torch, self.onednn, self.cell = torch, onednn, cell
        # said at every mkldnn.flags() by a torch without Intel GPU support
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        torch.set_num_threads(most_threads())

    def module(self, problem):
        torch = self.torch
        make = getattr(torch.nn, OPERATORS[problem.cell] + ("Cell" if self.cell else ""))
        module = make(problem.I, problem.H)
        module.load_state_dict({name.removesuffix("_l0") if self.cell else name: torch.from_numpy(w)
                                for name, w in problem.weights.items()})
        return module

    def tensor(self, a):
        return self.torch.from_numpy(a)

    def array(self, tensor):
        return tensor.detach().numpy()

    def contexts(self, threads, inference=True):
        stack = ExitStack()
        if most_threads() > 1:
            self.torch.set_num_threads(threads)
        stack.enter_context(self.torch.backends.mkldnn.flags(enabled=self.onednn))
        if inference:
            stack.enter_context(self.torch.inference_mode())
        return stack

    def step(self, problem):
        return faster([partial(self.step_with, threads, problem) for threads in thread_counts()])

    def step_with(self, threads, problem):
        module, state = self.module(problem), None
        x = self.tensor(problem.x[0] if self.cell else problem.x[:1])
        lstm, cell, last = problem.cell == "lstm", self.cell, None

        def run(n):
            nonlocal state, last
            with self.contexts(threads):
                if cell:
                    for _ in repeat(None, n):
                        state = module(x, state)
                    last = state[0] if lstm else state
                else:
                    for _ in repeat(None, n):
                        last, state = module(x, state)

        return Contestant(run, lambda: [self.array(last)], threads)

    def sequence(self, problem):
        return faster([partial(self.sequence_with, threads, problem) for threads in thread_counts()])

    def sequence_with(self, threads, problem):
        module, x = self.module(problem), self.tensor(problem.x)
        loop, last = repeated(lambda: module(x))

        def run(n):
            with self.contexts(threads):
                loop(n)

        return Contestant(run, lambda: [self.array(last()[0])], threads)

    def training(self, problem):
        return faster([partial(self.training_with, threads, problem) for threads in thread_counts()])

    def training_with(self, threads, problem):
        torch, module = self.torch, self.module(problem)
        x, d_output = self.tensor(problem.x).requires_grad_(), self.tensor(problem.d_output)
        wanted = [x, *(getattr(module, name) for name in problem.weights)]

        def call():
            output, _ = module(x)
            return output, torch.autograd.grad(output, wanted, d_output)

        loop, last = repeated(call)

        def run(n):
            with self.contexts(threads, inference=False):
                loop(n)

        def arrays():
            output, grads = last()
            return [self.array(output), *map(self.array, grads)]

        return Contestant(run, arrays, threads)


def onnx_model(problem, T, states):
    """One LSTM, GRU or RNN node as bytes. Inputs X [T, N, I] and, if asked for, states; outputs Y, Y_h (and Y_c)."""
    from onnx import TensorProto, helper, numpy_helper
    G, N, I, H = GATES[problem.cell], problem.N, problem.I, problem.H
    order = ONNX_ORDER[problem.cell]
    w = {name: a.reshape(G, H, -1)[order].reshape(1, G * H, -1) for name, a in problem.weights.items()}
    arrays = {"W": w["weight_ih_l0"], "R": w["weight_hh_l0"],
              "B": np.concatenate([w["bias_ih_l0"], w["bias_hh_l0"]], axis=1).reshape(1, 2 * G * H)}
    names = ["h", "c"] if problem.cell == "lstm" else ["h"]
    inputs = ["X", "W", "R", "B"] + (["", *(f"initial_{name}" for name in names)] if states else [])
    attributes = {"linear_before_reset": 1} if problem.cell == "gru" else {}
    node = helper.make_node(OPERATORS[problem.cell], inputs, ["Y", *(f"Y_{name}" for name in names)],
                            hidden_size=H, **attributes)

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node], "recurrent",
        [value("X", T, N, I)] + [value(f"initial_{name}", 1, N, H) for name in names if states],
        [value("Y", T, 1, N, H)] + [value(f"Y_{name}", 1, N, H) for name in names],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()])
    # an old IR version and opset: every runtime of recent years reads them
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 14)]).SerializeToString()


class OnnxRuntime(Peer):
    package = "onnxruntime"

    def __init__(self):
        import onnx  # noqa: F401 makes the models
        import onnxruntime
        self.ort = onnxruntime

    def model(self, problem, T, states):
        return onnx_model(problem, T, states)

    def session(self, problem, T, states, threads):
        options = self.ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return self.ort.InferenceSession(self.model(problem, T, states), options, providers=["CPUExecutionProvider"])

    def step(self, problem):
        return faster([way for threads in thread_counts() for way in self.step_ways(threads, problem)])

    def step_ways(self, threads, problem):
        session = self.session(problem, 1, True, threads)
        names = [i.name for i in session.get_inputs()][1:]
        outputs = [o.name for o in session.get_outputs()]
        zeros = np.zeros((1, problem.N, problem.H), np.float32)

        def plain():
            feed = {"X": problem.x[:1], **{name: zeros for name in names}}
            last = None

            def run(n):
                nonlocal last
                for _ in repeat(None, n):
                    last = session.run(None, feed)
                    for name, value in zip(names, last[1:]):
                        feed[name] = value

            return Contestant(run, lambda: [last[0]], f"plain run, {threads} threads")

        def bound():
            # two sets of states, each the input of one binding and the output of the other: nothing is copied
            value = self.ort.OrtValue.ortvalue_from_numpy
            x, y = value(problem.x[:1]), value(zeros.reshape(1, 1, problem.N, problem.H).copy())
            sides = [[value(zeros.copy()) for _ in names] for _ in range(2)]
            bindings = []
            for old, new in (sides, sides[::-1]):
                binding = session.io_binding()
                binding.bind_ortvalue_input("X", x)
                binding.bind_ortvalue_output("Y", y)
                for i, name in enumerate(names):
                    binding.bind_ortvalue_input(name, old[i])
                    binding.bind_ortvalue_output(outputs[1 + i], new[i])
                bindings.append(binding)
            turn = 0

            def run(n):
                nonlocal turn
                for _ in repeat(None, n):
                    session.run_with_iobinding(bindings[turn])
                    turn = 1 - turn

            return Contestant(run, lambda: [y.numpy()], f"io binding, {threads} threads", (x, sides))

        return [plain, bound]

    def sequence(self, problem):
        return faster([way for threads in thread_counts() for way in self.sequence_ways(threads, problem)])

    def sequence_ways(self, threads, problem):
        session = self.session(problem, problem.T, False, threads)

        def plain():
            feed = {"X": problem.x}
            run, last = repeated(lambda: session.run(None, feed))
            return Contestant(run, lambda: [last()[0]], f"plain run, {threads} threads")

        def bound():
            value = self.ort.OrtValue.ortvalue_from_numpy
            x, outputs = value(problem.x), [value(np.zeros(o.shape, np.float32)) for o in session.get_outputs()]
            binding = session.io_binding()
            binding.bind_ortvalue_input("X", x)
            for o, target in zip(session.get_outputs(), outputs):
                binding.bind_ortvalue_output(o.name, target)
            run, _ = repeated(lambda: session.run_with_iobinding(binding))
            return Contestant(run, lambda: [outputs[0].numpy()], f"io binding, {threads} threads", (x, outputs))

        return [plain, bound]


class OpenVINO(Peer):
    package = "openvino"
    precision = "f32"

    def __init__(self):
        import onnx  # noqa: F401 makes the models
        import openvino
        self.ov, self.core = openvino, openvino.Core()

    def request(self, problem, T, states, threads):
        # f32: where the CPU has bfloat16 OpenVINO takes it by default, which is another computation
        model = self.core.read_model(onnx_model(problem, T, states), b"")
        return self.core.compile_model(model, "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads),
            "INFERENCE_PRECISION_HINT": self.precision,
        }).create_infer_request()

    def step(self, problem):
        return faster([partial(self.step_with, threads, problem) for threads in thread_counts()])

    def step_with(self, threads, problem):
        request = self.request(problem, 1, True, threads)
        # inputs and outputs share memory with NumPy; the states are fed back by one small copy each
        x, states = problem.x[:1], []
        request.set_input_tensor(0, self.ov.Tensor(x, shared_memory=True))
        for i in range(1, len(request.model_inputs)):
            state = np.zeros((1, problem.N, problem.H), np.float32)
            request.set_input_tensor(i, self.ov.Tensor(state, shared_memory=True))
            states.append((state, request.get_output_tensor(i).data))
        y = request.get_output_tensor(0).data

        def run(n):
            for _ in repeat(None, n):
                request.infer(share_outputs=True)
                for state, new in states:
                    state[...] = new

        return Contestant(run, lambda: [y], threads, x)

    def sequence(self, problem):
        return faster([partial(self.sequence_with, threads, problem) for threads in thread_counts()])

    def sequence_with(self, threads, problem):
        request = self.request(problem, problem.T, False, threads)
        request.set_input_tensor(0, self.ov.Tensor(problem.x, shared_memory=True))
        run, _ = repeated(lambda: request.infer(share_outputs=True))
        return Contestant(run, lambda: [request.get_output_tensor(0).data], threads, problem)


class Jax(Peer):
    """jax.jit of lax.scan; the input's share of all steps is one product before the scan, as one writes it by hand.

    In inference the weights are constants of the compiled function, which XLA lays out as it likes: two to seven times
    as fast in steps as weights that are arguments. Unrolling the scan gained nothing.
    """
    package = "jax"

    def __init__(self):
        import jax
        self.jax = jax
        jax.config.update("jax_cpu_enable_async_dispatch", False)      # a hand-over to a second thread costs more here

    def cell_function(self, cell):
        """(weights, state, x_t @ W_ih.T + b) -> state, for state h [N, H] or (h, c)."""
        jnp, sigmoid, split = self.jax.numpy, self.jax.nn.sigmoid, self.jax.numpy.split

        def lstm(w, state, a):
            h, c = state
            i, f, g, o = split(a + h @ w["weight_hh_l0"].T + w["bias_hh_l0"], 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            return sigmoid(o) * jnp.tanh(c), c

        def gru(w, state, a):
            (h,) = state
            (ar, az, an), (r, z, n) = split(a, 3, axis=-1), split(h @ w["weight_hh_l0"].T + w["bias_hh_l0"], 3, axis=-1)
            n, z = jnp.tanh(an + sigmoid(ar + r) * n), sigmoid(az + z)
            return ((1 - z) * n + z * h,)

        def rnn(w, state, a):
            return (jnp.tanh(a + state[0] @ w["weight_hh_l0"].T + w["bias_hh_l0"]),)

        return {"lstm": lstm, "gru": gru, "rnn": rnn}[cell]

    def zeros(self, problem):
        return (self.jax.numpy.zeros((problem.N, problem.H)),) * (2 if problem.cell == "lstm" else 1)

    def forward(self, problem):
        """(weights, x) -> output [T, N, H]."""
        cell, zeros, lax = self.cell_function(problem.cell), self.zeros(problem), self.jax.lax

        def advance(w, state, a):
            state = cell(w, state, a)
            return state, state[0]

        def forward(w, x):
            a = x @ w["weight_ih_l0"].T + w["bias_ih_l0"]
            return lax.scan(lambda state, a: advance(w, state, a), zeros, a)[1]

        return forward

    def step(self, problem):
        cell, w = self.cell_function(problem.cell), {k: self.jax.numpy.asarray(v) for k, v in problem.weights.items()}
        advance = self.jax.jit(lambda x, state: cell(w, state, x @ w["weight_ih_l0"].T + w["bias_ih_l0"]))
        x, state = self.jax.numpy.asarray(problem.x[0]), self.zeros(problem)

        def run(n):
            nonlocal state
            for _ in repeat(None, n):
                state = advance(x, state)
                state[0].block_until_ready()

        return Contestant(run, lambda: [np.asarray(state[0])])

    def sequence(self, problem):
        forward, w = self.forward(problem), {k: self.jax.numpy.asarray(v) for k, v in problem.weights.items()}
        call, x = self.jax.jit(lambda x: forward(w, x)), self.jax.numpy.asarray(problem.x)
        run, last = repeated(lambda: call(x).block_until_ready())
        return Contestant(run, lambda: [np.asarray(last())])

    def training(self, problem):
        jax, forward = self.jax, self.forward(problem)

        @jax.jit
        def call(w, x, d_output):
            output, backward = jax.vjp(forward, w, x)
            return output, backward(d_output)

        w = {k: jax.numpy.asarray(v) for k, v in problem.weights.items()}
        x, d_output = jax.numpy.asarray(problem.x), jax.numpy.asarray(problem.d_output)
        run, last = repeated(lambda: jax.block_until_ready(call(w, x, d_output)))

        def arrays():
            output, (d_w, d_x) = last()
            return [np.asarray(a) for a in (output, d_x, *(d_w[name] for name in problem.weights))]

        return Contestant(run, arrays)


# name -> (head of its column, constructor), in the order of the turns
PEERS = {
    "torch": ("torch", Torch),
    "torch without oneDNN": ("torch-", lambda: Torch(onednn=False)),
    "torch cell": ("cell", lambda: Torch(cell=True)),
    "torch cell without oneDNN": ("cell-", lambda: Torch(onednn=False, cell=True)),
    "onnxruntime": ("onnxrt", OnnxRuntime),
    "openvino": ("openvino", OpenVINO),
    "jax": ("jax", Jax),
}
