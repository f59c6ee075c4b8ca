"""ONNX models: weights computed of constants, operators that are none of ONNX's own, states that do not fit."""

import importlib.util
import warnings

import numpy as np
import onnx
import pytest
import torch
from helpers import assert_close
from onnx import TensorProto, helper, numpy_helper
from onnx_nodes import run_in_onnxruntime
from torch import nn

import fastrnn
from fastrnn import interop

I, H = 3, 4
needs_dynamo = pytest.mark.skipif(importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed")


@pytest.fixture
def save(tmp_path):
    """Writes a model of one LSTM "lstm" whose inputs are given by nodes and constants; gives the path."""
    def write(nodes=(), constants=(), inputs=("X", "W", "R", "B"), op_type="LSTM", domain="", **attributes):
        rng, G = np.random.default_rng(0), {"LSTM": 4, "GRU": 3, "RNN": 1}.get(op_type, 4)
        values = {name: rng.standard_normal((1, *shape)).astype(np.float32)
                  for name, shape in {"W": (G * H, I), "R": (G * H, H), "B": (2 * G * H,)}.items()} | dict(constants)
        made = {name for node in nodes for name in node.output}
        tensors = [numpy_helper.from_array(value, name) for name, value in values.items() if name not in made]
        node = helper.make_node(op_type, list(inputs), ["Y"], "lstm", domain=domain, **{"hidden_size": H, **attributes})
        graph = helper.make_graph([*nodes, node], "graph", [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, None, I])], [
            helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)], tensors)
        opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
        path = tmp_path / "model.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
        return path
    return write


ROWS = np.linspace(-1, 1, 4 * H * I, dtype=np.float32).reshape(1, 4 * H, I)
FOLDED = {
    "scaled": ([("Mul", ["V", "s"], "W", {})], {"V": ROWS, "s": np.float32(0.5)}),
    "divided and shifted": ([("Div", ["V", "s"], "U", {}), ("Sub", ["U", "t"], "W", {})],
                            {"V": ROWS, "s": np.float32(2), "t": np.ones((4 * H, 1), np.float32)}),
    "negated": ([("Neg", ["V"], "W", {})], {"V": ROWS}),
    "gathered": ([("Gather", ["V", "i"], "W", {"axis": 1})],
                 {"V": ROWS, "i": np.arange(4 * H)[::-1].astype(np.int64)}),
    "shaped by another": ([("Shape", ["Q"], "n", {}), ("Reshape", ["V", "n"], "W", {})],
                          {"V": ROWS.ravel(), "Q": ROWS}),
    "expanded": ([("Expand", ["V", "n"], "W", {})],
                 {"V": ROWS[:, :, :1], "n": np.array([1, 4 * H, I], np.int64)}),
    "a constant of a shape": ([("ConstantOfShape", ["n"], "W", {
        "value": numpy_helper.from_array(np.array([0.25], np.float32))})], {"n": np.array([1, 4 * H, I], np.int64)}),
    "dequantised": ([("DequantizeLinear", ["V", "s", "z"], "W", {})],
                    {"V": np.round(100 * ROWS).astype(np.int8), "s": np.float32(0.01), "z": np.int8(3)}),
    "dequantised by rows": ([("DequantizeLinear", ["V", "s"], "W", {"axis": 1})],
                            {"V": np.round(100 * ROWS).astype("i1"), "s": np.linspace(0.01, 0.02, 4 * H, dtype="f4")}),
    "sliced, concatenated": ([("Slice", ["V", "a", "b", "x"], "p", {}), ("Slice", ["V", "b", "c", "x"], "q", {}),
                              ("Concat", ["q", "p"], "W", {"axis": 1})],
                             {"V": ROWS, **{name: np.array([n]) for name, n in zip("abcx", (0, 8, 16, 1))}}),
    "flattened": ([("Flatten", ["V"], "f", {"axis": -1}), ("Reshape", ["f", "n"], "W", {})],
                  {"V": ROWS, "n": np.array([1, 4 * H, I])}),
    "integers divided": ([("Div", ["m", "d"], "n1", {}), ("Concat", ["o", "n1", "i"], "n", {"axis": 0}),
                          ("Reshape", ["V", "n"], "W", {})],
                         {"V": ROWS.ravel(), "m": np.array([4 * H * I]), "d": np.array([I]), "o": np.array([1]),
                          "i": np.array([I])}),
}


@pytest.mark.parametrize("kind", FOLDED)
def test_weights_computed_of_constants(kind, save):
    nodes, constants = FOLDED[kind]
    path = save([helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in nodes],
                constants)
    x = np.random.default_rng(1).standard_normal((5, 2, I)).astype(np.float32)
    expected = run_in_onnxruntime(onnx.load(path), {"X": x})["Y"]
    assert_close({"Y": interop.layers(path)["lstm"](x)[0]}, {"Y": expected[:, 0]}, 1e-5)


@pytest.mark.parametrize("node, constants, match", [
    (("Expand", ["V", "n"]), {"V": ROWS, "n": np.array([1 << 30, 1, 1, 1])}, "unfolds to more than"),
    (("ConstantOfShape", ["n"]), {"n": np.array([1 << 39])}, "unfolds to more than"),
    (("ConstantOfShape", ["n"]), {"n": np.array([-1])}, "is no shape"),
    (("Expand", ["V", "V"]), {"V": ROWS}, "is no shape"),
    (("Mul", ["V", "s"]), {"V": ROWS, "s": np.ones((1, 5, 7), np.float32)}, "Mul node"),
    (("Mul", ["V", "s"]), {"V": np.ones((1 << 12, 1), np.float32), "s": np.ones((1, 1 << 12), np.float32)}, "unfolds"),
    (("Gather", ["V", "i"]), {"V": ROWS, "i": np.array([99])}, "Gather node"),
    (("Gather", ["V", "i"]), {"V": np.ones((1, 1 << 12), np.float32), "i": np.zeros(1 << 12, np.int64)}, "unfolds"),
    (("Mul", ["V"]), {"V": ROWS}, "Mul node"), (("Gather", ["V"]), {"V": ROWS}, "Gather node"),
    (("DequantizeLinear", ["V", "s"]), {"V": ROWS.astype("i1"), "s": np.ones(5, np.float32)}, "DequantizeLinear node"),
    (("Div", ["m", "n"]), {"m": np.array([6, 4]), "n": np.array([2, 0])}, "Div node .*a division by 0"),
    (("Gather", ["V", "i"]), {"V": ROWS, "i": np.array([0.0])}, "Gather node .*indices of float64"),
    (("Slice", ["V"]), {"V": ROWS}, "Slice node .*starts and ends are missing"),
    (("Reshape", ["V", "n"]), {"V": ROWS, "n": np.arange(99)}, "Reshape node .*shape: 99 integers"),
])
def test_computations_that_do_not_fit_are_refused(node, constants, match, save):
    path = save([helper.make_node(*node, ["W"])], constants)
    with pytest.raises(fastrnn.ModelFormatError, match=match):
        interop.layers(path)


@pytest.mark.parametrize("op_type, domain, match", [
    ("QLinearLSTM", "com.microsoft", "com.microsoft, with quantised weights"),
    ("AttnLSTM", "com.microsoft", "com.microsoft, which may compute anything"), ("LSTM", "mine", "mine, which may"),
    ("my_gru", "mine", "mine, which may"), ("LayerNormGRUCell", "mine", "mine, which may"),
])
def test_recurrent_operators_of_other_domains_are_named(op_type, domain, match, save):
    path, skipped = save(op_type=op_type, domain=domain), {}
    with pytest.raises(fastrnn.ModelFormatError, match=rf"model\.onnx: {op_type} node 'lstm': an operator of {match}"):
        interop.layers(path)
    assert interop.layers(path, skipped) == {} and list(skipped) == ["lstm"]


@pytest.mark.parametrize("shape", [(1, 2, 2 * H), (1, 2, H - 1), (2, H), (2, 2, H)])
@pytest.mark.parametrize("key", ["initial_h", "initial_c"])
def test_constant_states_that_contradict_the_weights_are_refused(key, shape, save):
    states = ["h", ""] if key == "initial_h" else ["", "h"]
    path = save(constants={"h": np.zeros(shape, np.float32)}, inputs=["X", "W", "R", "B", "", *states])
    if shape == (2, 2, H):          # [N, D, H] of layout 1 would be read with any N
        path = save(constants={"h": np.zeros((3, 2, H), np.float32)}, inputs=["X", "W", "R", "B", "", *states])
    with pytest.raises(fastrnn.ModelFormatError, match=f"{key} .* does not fit hidden_size"):
        interop.layers(path)
    good = save(constants={"h": np.zeros((1, 2, H), np.float32)}, inputs=["X", "W", "R", "B", "", *states])
    assert repr(interop.layers(good)) == "{'lstm': LSTM(3, 4)}"


def test_loops_without_recurrent_operators_are_named(tmp_path):
    body = helper.make_graph([helper.make_node("Identity", ["h"], ["h_next"]), helper.make_node("Relu", ["x"], ["y"])],
                             "body", [helper.make_tensor_value_info(name, 1, [H]) for name in ("h", "x")],
                             [helper.make_tensor_value_info(name, 1, [H]) for name in ("h_next", "y")])
    scan = helper.make_node("Scan", ["h_0", "X"], ["h_n", "Y"], body=body, num_scan_inputs=1)
    graph = helper.make_graph([scan], "graph", [helper.make_tensor_value_info("X", 1, [None, H]),
                                                helper.make_tensor_value_info("h_0", 1, [H])],
                              [helper.make_tensor_value_info("Y", 1, None)])
    (tmp_path / "model.onnx").write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    with pytest.raises(fastrnn.ModelFormatError, match=r"its operators are Scan.* may be a recurrent layer"):
        interop.layers(tmp_path / "model.onnx")


def test_attributes_that_are_none_are_as_absent():
    inputs = {"X": np.ones((2, 1, I)), "W": np.ones((1, 3 * H, I)), "R": np.ones((1, 3 * H, H))}
    plain = {"hidden_size": H, "activations": ["Relu", "HardSigmoid"]}
    expected = interop.onnx.run_node("GRU", inputs, plain)
    for name in sorted(interop.onnx.ATTRIBUTES | {"linear_before_reset"}):
        if name not in plain:
            found = interop.onnx.run_node("GRU", inputs, plain | {name: None})
            np.testing.assert_array_equal(found["Y"], expected["Y"])


@needs_dynamo
@pytest.mark.filterwarnings("ignore")
def test_torchs_exporter_as_it_is_by_default(tmp_path):
    """Its weights lie in a file beside the model."""
    torch.manual_seed(0)
    net, x = nn.LSTM(I, H).eval(), torch.randn(5, 2, I)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), tmp_path / "model.onnx", verbose=False, dynamo=True)
    (layer,) = interop.layers(tmp_path / "model.onnx").values()
    with torch.no_grad():
        assert_close({"Y": layer(x.numpy())[0]}, {"Y": net(x)[0].numpy()}, 1e-5)


@needs_dynamo
@pytest.mark.filterwarnings("ignore")
def test_a_projection_that_torchs_exporter_breaks_is_refused(tmp_path):
    """hidden_size is the projection's in its file, initial_c is as wide as the cell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(nn.LSTM(64, 128, proj_size=3).eval(), (torch.randn(5, 2, 64),), tmp_path / "model.onnx",
                          dynamo=True, external_data=False, verbose=False)
    with pytest.raises(fastrnn.ModelFormatError, match="LSTM node"):
        interop.layers(tmp_path / "model.onnx")
