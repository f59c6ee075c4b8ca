"""run_node: the operators RNN, GRU and LSTM against ONNX Runtime, onnx's own evaluator, and their equations."""

import re

import numpy as np
import onnx_nodes
import pytest
from helpers import assert_close, assert_same_bits
from onnx.reference import ReferenceEvaluator
from onnx_nodes import ACTIVATIONS, DEFAULTS, GATES, drawn, expected, model, run_in_onnxruntime

from fastrnn.interop import onnx

OPERATORS = list(GATES)


def no_steps(inputs):
    """Which rows of the batch have length 0."""
    return inputs.get("sequence_lens", np.ones(1)) == 0


# ---- Against others -----------------------------------------------------------------------------

@pytest.mark.parametrize("op_type", OPERATORS)
def test_agrees_with_onnxruntime(op_type):
    """50 nodes of each operator, every attribute and optional input there or not. Layout 1 it does not have."""
    rng = np.random.default_rng(GATES[op_type])
    for _, inputs, attributes, wanted in drawn(rng, 50, op_type=op_type, defaults=True):
        found = onnx.run_node(op_type, inputs, attributes)
        theirs = run_in_onnxruntime(model(op_type, inputs, attributes), inputs)
        for name in ("Y_h", "Y_c"):         # of a row without steps it gives zeros
            if name in theirs and no_steps(inputs).any():
                rows = no_steps(inputs)
                assert not theirs[name][:, rows].any()
                theirs[name][:, rows] = wanted[name][:, rows]
        assert_close(found, theirs, 1e-5, title=f"{op_type} {attributes}")
        assert_close(found, wanted, 1e-5, title=f"{op_type} {attributes}")


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("op_type", OPERATORS)
def test_agrees_with_the_equations(op_type, dtype, tolerance, layout):
    rng = np.random.default_rng([GATES[op_type], layout, np.dtype(dtype).itemsize])
    for _, inputs, attributes, wanted in drawn(rng, 25, op_type=op_type, dtype=dtype, layout=layout):
        found = onnx.run_node(op_type, inputs, attributes)
        assert {a.dtype for a in found.values()} == {np.dtype(dtype)}
        assert_close(found, wanted, tolerance, title=f"{op_type} {attributes}")


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("opset", [14, 22])
@pytest.mark.parametrize("op_type", OPERATORS)
def test_agrees_with_the_evaluator_of_onnx(op_type, opset, layout):
    """Which looks neither at sequence_lens nor at activations, clip and input_forget."""
    rng = np.random.default_rng([GATES[op_type], opset, layout])
    for _, inputs, attributes, _ in drawn(rng, 10, op_type=op_type, dtype=np.float64, layout=layout):
        inputs.pop("sequence_lens", None)
        attributes = {name: value for name, value in attributes.items()
                      if name in ("hidden_size", "direction", "layout", "linear_before_reset")}
        found = onnx.run_node(op_type, inputs, attributes)
        theirs = ReferenceEvaluator(model(op_type, inputs, attributes, opset=opset)).run(None, inputs)
        assert_close(found, dict(zip(found, theirs, strict=True)), 1e-12, title=f"{op_type} {attributes}")


# ---- What the operators say ---------------------------------------------------------------------

def ones(op_type, dtype=np.float32, D=1, T=3, N=2, I=2, H=2, **others):
    G = GATES[op_type]
    return {"X": np.ones((T, N, I), dtype), "W": np.ones((D, G * H, I), dtype), "R": np.ones((D, G * H, H), dtype),
            **others}


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op_type", OPERATORS)
def test_a_row_without_steps_keeps_its_state(op_type, direction, layout):
    rng, D = np.random.default_rng(0), 1 + (direction == "bidirectional")
    inputs = ones(op_type, D=D, sequence_lens=np.array([0, 2]))
    for name in ("initial_h", "initial_c")[:1 + (op_type == "LSTM")]:
        inputs[name] = rng.standard_normal((2, D, 2) if layout else (D, 2, 2)).astype(np.float32)
    if layout:
        inputs["X"] = np.ones((2, 3, 2), np.float32)
    found = onnx.run_node(op_type, inputs, {"direction": direction, "layout": layout})
    row, rows = (slice(0, 1), slice(1, 2)) if layout else ((slice(None), 0), (slice(None), 1))
    for name in ("h", "c")[:1 + (op_type == "LSTM")]:
        assert_same_bits(found[f"Y_{name}"][row], inputs[f"initial_{name}"][row])
        assert not np.array_equal(found[f"Y_{name}"][rows], inputs[f"initial_{name}"][rows])
    Y = found["Y"].transpose(1, 2, 0, 3) if layout else found["Y"]          # [T, D, N, H]
    assert not Y[:, :, 0].any() and not Y[2].any() and Y[:2, :, 1].all()


def test_alpha_and_beta_go_to_the_functions_that_take_them_in_order():
    names = ["LeakyRelu", "Tanh", "Affine", "HardSigmoid", "Elu", "ScaledTanh"]
    attributes = {"direction": "bidirectional", "activations": names, "activation_alpha": [0.1, 0.2, 0.3, 0.4],
                  "activation_beta": [0.5, 0.6]}
    inputs = onnx_nodes.draw(np.random.default_rng(0), "LSTM", np.float64)[1]
    inputs |= {name: np.random.default_rng(1).uniform(-1, 1, (2, *inputs[name].shape[1:])) for name in ("W", "R")}
    inputs = {name: inputs[name] for name in ("X", "W", "R")}
    given = [("leaky_relu", 0.1, None), ("tanh", None, None), ("affine", 0.2, 0.5), ("hard_sigmoid", 0.3, 0.6),
             ("elu", 0.4, None), ("scaled_tanh", 1.0, 1.0)]
    assert onnx._activations("LSTM", attributes, 2) == tuple(given)
    assert_close(onnx.run_node("LSTM", inputs, attributes), expected("LSTM", inputs, attributes), 1e-12)


@pytest.mark.parametrize("spelling", [str, str.lower, str.upper])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_any_spelling_and_their_defaults(name, spelling):
    inputs = {"X": np.linspace(-3, 3, 13)[:, None, None], "W": np.ones((1, 1, 1)), "R": np.zeros((1, 1, 1))}
    found = onnx.run_node("RNN", inputs, {"activations": [spelling(name)]})["Y"]
    wanted = ACTIVATIONS[name][1](inputs["X"], *DEFAULTS.get(name, ()))
    assert_close({"Y": found[:, 0]}, {"Y": wanted}, 1e-14)


@pytest.mark.parametrize("op_type", OPERATORS)
def test_what_is_not_given_is_zero(op_type):
    """B, P and the states; None is as good as nothing."""
    rng = np.random.default_rng(0)
    op_type, inputs, attributes = onnx_nodes.draw(rng, op_type)
    inputs = {name: inputs[name] for name in ("X", "W", "R")}
    N, (D, rows, H) = inputs["X"].shape[1], inputs["R"].shape
    zeros = {"B": np.zeros((D, 2 * rows)), "initial_h": np.zeros((D, N, H))}
    if op_type == "LSTM":
        zeros |= {"initial_c": np.zeros((D, N, H)), "P": np.zeros((D, 3 * H))}
    zeros = {name: a.astype(np.float32) for name, a in zeros.items()}
    found = onnx.run_node(op_type, inputs, attributes)
    assert_same_bits(onnx.run_node(op_type, inputs | dict.fromkeys([*zeros, "sequence_lens"]), attributes), found)
    assert_same_bits(onnx.run_node(op_type, inputs | zeros, attributes), found)


def test_arrays_of_any_layout_and_byte_order():
    rng = np.random.default_rng(0)
    _, inputs, attributes = onnx_nodes.draw(rng, "LSTM")
    found = onnx.run_node("LSTM", inputs, attributes)
    odd = {name: np.asfortranarray(a.astype(a.dtype.newbyteorder(">"))) for name, a in inputs.items()}
    assert_same_bits(onnx.run_node("LSTM", odd, attributes), found)


@pytest.mark.parametrize("op_type", OPERATORS)
def test_no_steps_and_no_rows(op_type):
    for shape in ((0, 2, 2), (3, 0, 2)):
        inputs = ones(op_type) | {"X": np.ones(shape, np.float32)}
        found = onnx.run_node(op_type, inputs)
        assert found["Y"].shape == (shape[0], 1, shape[1], 2) and found["Y_h"].shape == (1, shape[1], 2)
        assert not found["Y_h"].any()


# ---- What is refused ------------------------------------------------------------------------------

@pytest.mark.parametrize("op_type, inputs, attributes, error, message", [
    ("GRUU", {}, {}, ValueError, "op_type: expected one of 'RNN', 'GRU', 'LSTM', got 'GRUU'"),
    (None, {}, {}, TypeError, "op_type: .* got NoneType"),
    ("LSTM", {"Z": np.ones(1)}, {}, ValueError, "inputs: LSTM has X, W, .*, P, got 'Z'"),
    ("GRU", {"initial_c": np.ones(1)}, {}, ValueError, "inputs: GRU has .*, initial_h, got 'initial_c'"),
    ("LSTM", {"X": None}, {}, TypeError, "X: expected float32 or float64, got object"),
    ("LSTM", {"X": np.ones((3, 2, 2), int)}, {}, TypeError, "X: expected float32 or float64, got int64"),
    ("LSTM", {"X": np.ones((3, 2, 2), np.float16)}, {}, TypeError, "X: expected float32 or float64, got float16"),
    ("LSTM", {"X": np.ones((3, 2), np.float32)}, {}, ValueError, r"X: expected \[T, N, I\] with I = 2, got .*\(3, 2\)"),
    ("LSTM", {"X": np.ones((3, 2, 1), np.float32)}, {"layout": 1}, ValueError, r"X: expected \[N, T, I\] with I = 2"),
    ("LSTM", {"W": None}, {}, ValueError, "W: it is missing"),
    ("LSTM", {"W": np.ones((8, 2), np.float32)}, {}, ValueError, r"W: expected 3 dimensions, got shape \(8, 2\)"),
    ("LSTM", {"W": np.ones((1, 8, 2))}, {}, ValueError, "W: float64 would lose precision"),
    ("LSTM", {"W": np.ones((1, 8, 0), np.float32), "X": np.ones((3, 2, 0), np.float32)}, {}, ValueError, "input_size"),
    ("LSTM", {"R": np.ones((2, 8, 2), np.float32)}, {}, ValueError, r"R: expected shape \(1, 8, 2\), got \(2, 8, 2\)"),
    ("LSTM", {"R": np.ones((1, 8, 0), np.float32)}, {}, ValueError, "expected at least 1, got 0|W: expected shape"),
    ("LSTM", {}, {"hidden_size": 3}, ValueError, r"W: expected shape \(1, 12, 2\), got \(1, 8, 2\)"),
    ("LSTM", {}, {"hidden_size": 2.0}, TypeError, "hidden_size: expected an int, got float"),
    ("LSTM", {}, {"direction": "bidirectional"}, ValueError, r"W: expected shape \(2, 8, 2\)"),
    ("LSTM", {}, {"direction": "backward"}, ValueError, "direction: expected one of 'forward', 'reverse', 'bidir"),
    ("LSTM", {}, {"direction": 1}, TypeError, "direction: .* got int"),
    ("LSTM", {"B": np.ones((1, 8), np.float32)}, {}, ValueError, r"B: expected shape \(1, 16\), got \(1, 8\)"),
    ("LSTM", {"P": np.ones((1, 8), np.float32)}, {}, ValueError, r"P: expected shape \(1, 6\), got \(1, 8\)"),
    ("GRU", {"P": np.ones((1, 6), np.float32)}, {}, ValueError, "inputs: GRU has .*, got 'P'"),
    ("LSTM", {"initial_h": np.ones((2, 1, 2), np.float32)}, {}, ValueError, r"initial_h: expected shape \(1, 2, 2\)"),
    ("LSTM", {"initial_c": np.ones((1, 2, 2), np.float32)}, {"layout": 1}, ValueError, r"initial_c: .* \(3, 1, 2\)"),
    ("LSTM", {"initial_h": np.ones((1, 2, 2), "U1")}, {}, TypeError, "initial_h: expected an array of real numbers"),
    ("LSTM", {"sequence_lens": [1]}, {}, ValueError, r"sequence_lens: expected shape \(2,\), got \(1,\)"),
    ("LSTM", {"sequence_lens": [1, 4]}, {}, ValueError, r"sequence_lens: expected 0 to 3, .* got \[1, 4\]"),
    ("LSTM", {"sequence_lens": [-1, 1]}, {}, ValueError, "sequence_lens: expected 0 to 3"),
    ("LSTM", {"sequence_lens": [1.0, 1.0]}, {}, TypeError, "sequence_lens: expected ints, got float64"),
    ("LSTM", {}, {"layout": 2}, ValueError, "layout: expected 0 or 1, got 2"),
    ("LSTM", {}, {"input_forget": -1}, ValueError, "input_forget: expected 0 or 1, got -1"),
    ("LSTM", {}, {"linear_before_reset": 0}, ValueError, "linear_before_reset: LSTM has no such attribute"),
    ("GRU", {}, {"output_sequence": 1}, ValueError, "output_sequence: GRU has no such attribute"),
    ("LSTM", {}, {"clip": 0.0}, ValueError, "clip: expected a number above 0"),
    ("LSTM", {}, {"clip": "1"}, TypeError, "clip: "),
    ("LSTM", {}, {"activations": ["Tanh"]}, ValueError, "activations: expected 3, got 1"),
    ("LSTM", {}, {"activations": ["Tanh", "Tanh", "Gelu"]}, ValueError, "activations: 'Gelu' is none of ONNX's"),
    ("LSTM", {}, {"activations": ["Tanh", "Elu", "Tanh"], "activation_alpha": [None]}, TypeError,
     "activation_alpha: .* got NoneType"),
])
def test_refuses(op_type, inputs, attributes, error, message):
    given = (ones(op_type) if op_type in GATES else {}) | inputs
    with pytest.raises(error, match=message) as raised:
        onnx.run_node(op_type, given, attributes)
    assert raised.type is error and re.match(r"\w+: ", str(raised.value))
