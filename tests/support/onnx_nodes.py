"""ONNX's recurrent operators for tests: nodes drawn at random, models of one node, and the operators' equations.

`expected` computes them as ONNX's documents write them down, in float64, one row and one step at a time: nothing of it
is shared with fastrnn, names, gate orders and layouts included.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}             # activations of one direction: f, g, h
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
# name -> (how many of alpha and beta it takes, function)
ACTIVATIONS = {
    "Relu": (0, lambda x: np.maximum(x, 0)),
    "Tanh": (0, np.tanh),
    "Sigmoid": (0, lambda x: 1 / (1 + np.exp(-x))),
    "Affine": (2, lambda x, alpha, beta: alpha * x + beta),
    "LeakyRelu": (1, lambda x, alpha: np.where(x >= 0, x, alpha * x)),
    "ThresholdedRelu": (1, lambda x, alpha: np.where(x > alpha, x, 0)),
    "ScaledTanh": (2, lambda x, alpha, beta: alpha * np.tanh(beta * x)),
    "HardSigmoid": (2, lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "Elu": (1, lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(x))),
    "Softsign": (0, lambda x: x / (1 + abs(x))),
    "Softplus": (0, lambda x: np.log1p(np.exp(x))),
}
DEFAULTS = {"LeakyRelu": (0.01,), "ThresholdedRelu": (1.0,), "HardSigmoid": (0.2, 0.5), "Elu": (1.0,),
            "Affine": (1.0, 0.0), "ScaledTanh": (1.0, 1.0)}


# ---- The operators ------------------------------------------------------------------------------

def functions(op_type, attributes, directions):
    """The activations of each direction, [directions][f, g, h]."""
    plain = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}[op_type]
    alphas, betas = (list(attributes.get(name, ())) for name in ("activation_alpha", "activation_beta"))
    found = []
    for name in attributes.get("activations", plain * directions):
        count, function = ACTIVATIONS[name]
        numbers = [values.pop(0) if values else default
                   for values, default in zip((alphas, betas)[:count], DEFAULTS.get(name, ()))]
        found.append(lambda x, function=function, numbers=numbers: function(x, *numbers))
    size = FUNCTIONS[op_type]
    return [found[d * size:(d + 1) * size] for d in range(directions)]


def expected(op_type, inputs, attributes):
    """Y, Y_h and of an LSTM Y_c by name, in float64; a row of length 0 keeps its initial state."""
    given = {name: np.asarray(a, float) for name, a in inputs.items()}
    layout, direction = attributes.get("layout", 0), attributes.get("direction", "forward")
    X, W, R = (given[name] for name in ("X", "W", "R"))
    X = X.swapaxes(0, 1) if layout else X
    (T, N, _), (D, _, H), G = X.shape, R.shape, GATES[op_type]
    B = given.get("B", np.zeros((D, 2 * G * H)))
    P = given.get("P", np.zeros((D, 3 * H)))
    lengths = inputs.get("sequence_lens", np.full(N, T))
    first = [given.get(name, np.zeros((N, D, H) if layout else (D, N, H))) for name in ("initial_h", "initial_c")]
    h_0, c_0 = (a.swapaxes(0, 1) if layout else a for a in first)
    clip = attributes.get("clip", np.inf)
    Y, Y_h, Y_c = np.zeros((T, D, N, H)), h_0.copy(), c_0.copy()
    for d, (f, *gh) in enumerate(functions(op_type, attributes, D)):
        for n in range(N):
            steps = range(lengths[n])
            for t in reversed(steps) if direction == "reverse" or d == 1 else steps:
                state = _step(op_type, X[t, n], Y_h[d, n], Y_c[d, n], np.split(W[d], G), np.split(R[d], G),
                              *np.split(B[d].reshape(2 * G, H), 2), np.split(P[d], 3), attributes, f, gh,
                              lambda a: np.clip(a, -clip, clip))
                Y[t, d, n] = Y_h[d, n] = state[0]
                Y_c[d, n] = state[1]
    found = {"Y": Y.transpose(2, 0, 1, 3) if layout else Y, "Y_h": Y_h.swapaxes(0, 1) if layout else Y_h}
    return found | ({"Y_c": Y_c.swapaxes(0, 1) if layout else Y_c} if op_type == "LSTM" else {})


def _step(op_type, x, h, c, W, R, Wb, Rb, P, attributes, f, gh, clip):
    """(h, c) after one step of one row. Equations of https://onnx.ai/onnx/operators/onnx__LSTM.html and its like."""
    def total(gate, peephole=0):
        return clip(W[gate] @ x + R[gate] @ h + Wb[gate] + Rb[gate] + peephole)

    if op_type == "RNN":
        return f(total(0)), c
    if op_type == "GRU":
        g, = gh
        z, r = f(total(0)), f(total(1))
        if attributes.get("linear_before_reset", 0):
            n = g(clip(W[2] @ x + r * (R[2] @ h + Rb[2]) + Wb[2]))
        else:
            n = g(clip(W[2] @ x + R[2] @ (r * h) + Rb[2] + Wb[2]))
        return (1 - z) * n + z * h, c
    g, outer = gh
    i = f(total(0, P[0] * c))
    forget = 1 - i if attributes.get("input_forget", 0) else f(total(2, P[2] * c))
    c = forget * c + i * g(total(3))
    return f(total(1, P[1] * c)) * outer(c), c


# ---- Nodes drawn at random ----------------------------------------------------------------------

def draw(rng, op_type=None, dtype=np.float32, layout=0, defaults=False):
    """(op_type, inputs, attributes) of a node, every attribute and optional input there or not.

    defaults: alpha and beta may be left out as well, of the functions for which ONNX Runtime has ONNX's defaults.
    """
    op_type = op_type or str(rng.choice(list(GATES)))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    T, N, I, H, D, G = (*rng.integers(1, 9, 2), *rng.integers(1, 20, 2), 1 + (direction == "bidirectional"),
                        GATES[op_type])

    def uniform(*shape, scale=1.0):
        return rng.uniform(-scale, scale, shape).astype(dtype)

    state = (N, D, H) if layout else (D, N, H)
    inputs = {"X": uniform(*((N, T, I) if layout else (T, N, I)), scale=2),
              "W": uniform(D, G * H, I, scale=(3 / I) ** 0.5), "R": uniform(D, G * H, H, scale=(1.5 / H) ** 0.5)}
    optional = {"B": uniform(D, 2 * G * H), "sequence_lens": rng.integers(0, T + 1, N).astype(np.int32),
                "initial_h": uniform(*state)}
    if op_type == "LSTM":
        optional |= {"initial_c": uniform(*state), "P": uniform(D, 3 * H)}
    inputs |= {name: a for name, a in optional.items() if rng.integers(2)}

    attributes = {"hidden_size": int(H), "direction": direction}
    if rng.integers(2):
        names = [str(name) for name in rng.choice(list(ACTIVATIONS), D * FUNCTIONS[op_type])]
        counts = [ACTIVATIONS[name][0] for name in names]
        attributes |= {"activations": names}
        if not (defaults and set(names).isdisjoint({"Affine", "ThresholdedRelu", "ScaledTanh"}) and rng.integers(2)):
            for name, count in (("activation_alpha", sum(c > 0 for c in counts)), ("activation_beta", counts.count(2))):
                if count:
                    attributes[name] = [float(x) for x in rng.uniform(0.1, 0.9, count).astype(np.float32)]
    if rng.integers(2):
        attributes["clip"] = float(np.float32(rng.uniform(0.2, 3)))
    own = {"GRU": "linear_before_reset", "LSTM": "input_forget"}.get(op_type)
    if own and rng.integers(2):
        attributes[own] = int(rng.integers(2))
    return op_type, inputs, attributes | ({"layout": layout} if layout else {})


def drawn(rng, count, **options):
    """Yields (op_type, inputs, attributes, expected) of `count` nodes whose outputs float32 can tell.

    With any activation for any gate some nets grow without end, or stand at the edge of a threshold: a node is left out
    whose outputs pass 100, or move by 1e-5 of the largest where the inputs move by about 1e-6 of themselves.
    """
    for _ in range(count):
        while True:
            op_type, inputs, attributes = draw(rng, **options)
            moved = {name: a if a.dtype.kind == "i" else a * (1 + 1e-6 * rng.standard_normal(a.shape))
                     for name, a in inputs.items()}
            with np.errstate(all="ignore"):
                wanted, other = expected(op_type, inputs, attributes), expected(op_type, moved, attributes)
            sizes = [np.max(np.abs(a), initial=0) for a in wanted.values()]
            if all(size <= 100 and np.max(np.abs(other[name] - a), initial=0) <= 1e-5 * max(1, size)
                   for (name, a), size in zip(wanted.items(), sizes)):
                break
        yield op_type, inputs, attributes, wanted


def model(op_type, inputs, attributes, constant=(), opset=14):
    """An onnx.ModelProto of one node; inputs named in `constant` are initializers."""
    names = [name if name in inputs else "" for name in INPUTS[:8 if op_type == "LSTM" else 6]]
    outputs = ["Y", "Y_h", "Y_c"][:3 if op_type == "LSTM" else 2]
    node = helper.make_node(op_type, names, outputs, "node", **attributes)
    kinds = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in inputs.items()}
    graph = helper.make_graph(
        [node], "graph",
        [helper.make_tensor_value_info(name, kinds[name], a.shape) for name, a in inputs.items()
         if name not in constant],
        [helper.make_tensor_value_info(name, kinds["X"], [None] * (4 if name == "Y" else 3)) for name in outputs],
        [numpy_helper.from_array(inputs[name], name) for name in constant if name in inputs])
    found = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", opset)])
    onnx.checker.check_model(found)
    return found


def run_in_onnxruntime(model, inputs):
    """Name -> output of a model, by ONNX Runtime in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: a for name, a in inputs.items() if name in known}), strict=True))
