"""ONNX models as PyTorch's two exporters write them, folded and not, against ONNX Runtime's outputs."""

import itertools
import warnings

import numpy as np
import onnx
import pytest
import torch
from helpers import as_parts, assert_close
from mutations import COUNT, assert_refuses_or_loads, generator, mixed
from onnx import TensorProto, helper, numpy_helper
from onnx_nodes import run_in_onnxruntime
from torch import nn
from torch.nn.utils import parametrizations

from fastrnn import ModelFormatError, interop
from fastrnn.interop.onnx import layers, run_node

pytest.importorskip("onnxscript")       # PyTorch's newer exporter needs it


def dynamo_export(module, x, path, *, optimize, free=False, **options):
    """By the exporter that torch.export and onnxscript make; `free`: the size of the batch (axis 1) is not fixed."""
    shapes = {"dynamic_shapes": ({1: torch.export.Dim("N")},)} if free else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), path, dynamo=True, verbose=False, optimize=optimize, **shapes, **options)


def assert_as_onnxruntime(path, x, found):
    """A stack of layers, one after the other, gives the outputs of the model at other inputs too."""
    model = onnx.load(path)
    other = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    for value in (x.numpy(), other):
        theirs = list(run_in_onnxruntime(model, {model.graph.input[0].name: value}).values())
        y, states = value, []
        for layer in found.values():
            y, state = layer(y)
            states.append(as_parts(state))
        ours = {"output": y, **{f"state {k}": np.concatenate(parts) for k, parts in enumerate(zip(*states))}}
        assert_close(ours, dict(zip(ours, theirs, strict=True)), 1e-5)


# ---- The newer exporter ---------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("cls, options, optimize, free", [
    (nn.GRU, {}, True, False), (nn.GRU, {"num_layers": 2, "bidirectional": True}, False, True),
    (nn.GRU, {"bias": False}, False, False), (nn.LSTM, {}, False, False), (nn.LSTM, {"bias": False}, True, True),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True}, False, True),
])
def test_the_exporter_of_dynamo(cls, options, optimize, free, tmp_path):
    """Optimised or as traced: cuts of the gates are computed of shapes then, of a batch of any size too."""
    torch.manual_seed(0)
    x, path = torch.randn(5, 2, 3), tmp_path / "model.onnx"
    dynamo_export(cls(3, 4, **options), x, path, optimize=optimize, free=free)
    found = interop.layers(path)
    assert len(found) == options.get("num_layers", 1)
    assert_as_onnxruntime(path, x, found)


def test_the_exporter_of_dynamo_unrolls_plain_rnns(tmp_path):
    """Of nn.RNN it writes a product for each step: nothing is read, and the message says what is there."""
    dynamo_export(nn.RNN(3, 4), torch.randn(5, 2, 3), tmp_path / "model.onnx", optimize=True)
    with pytest.raises(ModelFormatError, match=r"no recurrent layer: its operators are .*5 x Tanh.*bias_ih_l0 \(4\)"):
        layers(tmp_path / "model.onnx")


def test_weights_beside_the_model_are_read_by_default(tmp_path):
    torch.manual_seed(0)
    module, x, path = nn.LSTM(4, 6), torch.randn(5, 2, 4), tmp_path / "default.onnx"
    dynamo_export(module, x, path, optimize=True)
    assert (tmp_path / "default.onnx.data").exists()
    assert_as_onnxruntime(path, x, interop.layers(path))
    with pytest.raises(ModelFormatError, match="external_data=False"):
        interop.layers(path, external_data=False)
    (tmp_path / "default.onnx.data").unlink()
    with pytest.raises(ModelFormatError, match=r"external data at 'default\.onnx\.data': No such file"):
        interop.layers(path)


@pytest.mark.parametrize("norm, optimize", [(parametrizations.weight_norm, False),
                                            (parametrizations.spectral_norm, True)])
def test_weights_that_parametrisations_compute(norm, optimize, tmp_path):
    """Norms of constants are computed: the layer has the weights that the model computes."""
    torch.manual_seed(0)
    module, x, path = nn.GRU(3, 4), torch.randn(5, 2, 3), tmp_path / "model.onnx"
    for name in ("weight_ih_l0", "weight_hh_l0"):
        norm(module, name)
    dynamo_export(module, x, path, optimize=optimize)
    assert_as_onnxruntime(path, x, layers(path))


@pytest.mark.parametrize("optimize", [True])
def test_a_projection_that_the_exporter_breaks_is_refused(optimize, tmp_path):
    """PyTorch 2.13 writes hidden_size 3 and cut weights for hidden_size 128 and proj_size 3: no runtime computes it."""
    torch.manual_seed(0)
    path, skipped = tmp_path / "model.onnx", {}
    dynamo_export(nn.LSTM(64, 128, proj_size=3), torch.randn(5, 2, 64), path, optimize=optimize, external_data=False)
    with pytest.raises(ModelFormatError, match=r"initial_c of shape \(1, 2, 128\) does not fit hidden_size 3 "):
        layers(path)
    assert layers(path, skipped) == {}
    assert "the file contradicts itself" in "".join(skipped.values())


class Learned(nn.Module):
    """A GRU that starts at a parameter, repeated for every row, or at zeros."""

    def __init__(self, how, start):
        super().__init__()
        self.rnn, self.how = nn.GRU(3, 4), how
        self.start = nn.Parameter(torch.full((1, 1, 4), float(start)))

    def forward(self, x):
        rows = x.shape[1]
        start = {"expand": lambda: self.start.expand(1, rows, 4).contiguous(), "repeat": lambda: self.start.repeat(
            1, rows, 1), "add": lambda: self.start + torch.zeros(1, rows, 4), "scaled": lambda: self.start * torch.ones(
                1, rows, 4)}[self.how]()
        return self.rnn(x, start)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("how, exporter", [
    *itertools.product(["expand", "repeat", "add", "scaled"], ["older", "older as traced"]),
    ("expand", "dynamo as traced"), ("add", "dynamo")])
def test_initial_states_that_are_learned(exporter, how, start, tmp_path):
    """A parameter that is repeated for each row of a batch of any size: refused, unless it is zeros."""
    torch.manual_seed(0)
    module, x, path = Learned(how, start).eval(), torch.randn(5, 2, 3), tmp_path / "model.onnx"
    traced = exporter.endswith("traced")
    if exporter.startswith("dynamo"):
        dynamo_export(module, x, path, optimize=not traced, free=True)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {1: "N"}},
                              do_constant_folding=not traced)
    if start:
        with pytest.raises(ModelFormatError, match="initial_h: a constant that is not zero"):
            layers(path)
    else:
        assert_as_onnxruntime(path, x, layers(path))


# ---- Made by hand -----------------------------------------------------------------------------------

def weights(rng, G=4, I=3, H=2):
    return {name: rng.uniform(-1, 1, shape).astype(np.float32)
            for name, shape in (("W", (1, G * H, I)), ("R", (1, G * H, H)), ("B", (1, 2 * G * H)))}


@pytest.fixture
def save(tmp_path):
    """Writes a model of nodes and initializers with the input X, [5, 2, 3] if nothing else is said; gives its path."""
    def write(nodes, initializers, shape=(5, 2, 3), others=(), domain=""):
        tensors = [numpy_helper.from_array(a, name) for name, a in initializers.items()]
        inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape),
                  *(helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in others)]
        graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
                                  tensors)
        opsets = [helper.make_opsetid("", 21)] + [helper.make_opsetid(domain, 1)] * bool(domain)
        path = tmp_path / "model.onnx"
        onnx.save(helper.make_model(graph, ir_version=10, opset_imports=opsets), path)
        return path
    return write


def lstm(*more, **attributes):
    return helper.make_node("LSTM", ["X", "W", "R", "B", *more], ["Y"], "lstm", **attributes)


@pytest.mark.parametrize("more, initializers, match", [
    (["", "h"], {"h": np.ones((1, 2, 2), "f4")}, "initial_h: a constant that is not zero"),
    (["", "", "c"], {"c": np.ones((1, 2, 2), "f4")}, "initial_c: a constant that is not zero"),
    (["", "h"], {"h": np.full((1, 2, 2), np.nan, "f4")}, "initial_h: a constant that is not zero"),
    (["", "h"], {"h": np.zeros((1, 2, 3), "f4")}, r"initial_h of shape \(1, 2, 3\) .*: expected \(1, 2, 2\)"),
    (["", "h"], {"h": np.zeros((2, 2, 2), "f4")}, r"initial_h of shape \(2, 2, 2\) .*: expected \(1, 2, 2\)"),
    (["", "h"], {"h": np.zeros((1, 4, 2), "f4")}, r"initial_h of shape \(1, 4, 2\) .*: expected \(1, 2, 2\)"),
    (["", "h"], {"h": np.zeros(2, "f4")}, r"initial_h of shape \(2\) does not fit"),
    (["", "", "c"], {"c": np.zeros((1, 2, 9), "f4")}, r"initial_c of shape \(1, 2, 9\) does not fit"),
    (["n"], {"n": np.array([5, 3], "i4")}, "sequence_lens: the constant lengths 5, 3, where X has .5. steps"),
    (["n"], {"n": np.array([4, 4], "i4")}, "sequence_lens: the constant lengths 4, 4"),
])
def test_constants_that_a_layer_has_not(more, initializers, match, save):
    path = save([lstm(*more)], weights(np.random.default_rng(0)) | initializers)
    with pytest.raises(ModelFormatError, match=match):
        layers(path)
    skipped = {}
    assert layers(path, skipped) == {} and list(skipped) == ["lstm"]


@pytest.mark.parametrize("more, initializers, shape, others", [
    (["n", "h", "c"], {"n": np.array([5, 5], "i4"), "h": np.zeros((1, 2, 2), "f4"), "c": np.zeros((1, 2, 2), "f4")},
     (5, 2, 3), ()),
    (["", "h", "c"], {}, (None, None, 3), (("h", (1, None, 2)), ("c", (1, None, 2)))),
    (["", "h", "c"], {}, None, (("h", None), ("c", None))),
])
def test_states_and_lengths_that_fit(more, initializers, shape, others, save):
    """Zeros, all steps, or what comes with a call."""
    assert "lstm" in layers(save([lstm(*more)], weights(np.random.default_rng(0)) | initializers, shape, others))


def test_other_sizes_that_contradict(save):
    a = weights(np.random.default_rng(0))
    with pytest.raises(ModelFormatError, match=r"X: it has shape \(5, 2, 4\), but the weights are those of 3 inputs"):
        layers(save([lstm()], a, (5, 2, 4)))
    with pytest.raises(ModelFormatError, match=r"initial_h of shape \(1, any, 7\) .*: expected \(1, 2, 2\)"):
        layers(save([lstm("", "h")], a, others=[("h", (1, None, 7))]))
    nodes = [helper.make_node("Shape", ["X"], ["s"], start=1, end=2), helper.make_node("Expand", ["three", "s"], ["n"])]
    with pytest.raises(ModelFormatError, match=r"sequence_lens: the constant lengths 3, where X has .any. steps"):
        layers(save([*nodes, lstm("n")], a | {"three": np.array([3], "i4")}, (None, None, 3)))
    random = helper.make_node("RandomNormal", [], ["h"], shape=[1, 2, 2])
    with pytest.raises(ModelFormatError, match="initial_h: a constant that RandomNormal node '' computes"):
        layers(save([random, lstm("", "h")], a))


def quantized(a, axis, dtype=np.int8):
    """(integers, scale, zero point) of an array, a scale for each index of an axis, or one for all."""
    others = None if axis is None else tuple(k for k in range(a.ndim) if k != axis)
    scale = (np.abs(a).max(others, keepdims=axis is not None) / 127).astype("f4")
    zero = np.zeros(scale.shape, dtype) + dtype(128 if dtype == np.uint8 else 0)
    return np.clip(np.rint(a / scale) + zero, *np.iinfo(dtype).min * np.ones(1), np.iinfo(dtype).max).astype(
        dtype), scale.ravel() if axis is not None else scale, zero.ravel() if axis is not None else zero


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("axis, dtype", [(None, np.int8), (1, np.int8), (2, np.int8), (None, np.uint8), (1, np.uint8)])
def test_weights_that_are_dequantised(axis, dtype, domain, save):
    """DequantizeLinear of constants gives constants: the layer has the numbers that the model computes with."""
    a, nodes, initializers = weights(np.random.default_rng(0)), [], {}
    for name in ("W", "R"):
        initializers |= zip((f"{name}q", f"{name}s", f"{name}z"), quantized(a[name], axis, dtype))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", f"{name}s", f"{name}z"], [name], domain=domain,
                                      **{} if axis is None else {"axis": axis}))
    path = save([*nodes, lstm(hidden_size=2)], initializers | {"B": a["B"]}, domain=domain)
    x = np.random.default_rng(1).standard_normal((5, 2, 3)).astype("f4")
    found = layers(path)["lstm"](x)[0]
    theirs = run_in_onnxruntime(onnx.load(path), {"X": x})["Y"][:, 0]
    assert_close({"Y": found}, {"Y": theirs}, 1e-5)


@pytest.mark.parametrize("op_type, domain, attributes, named", [
    ("AttnLSTM", "com.microsoft", {}, True), ("QLinearGRU", "com.example", {}, True), ("my_lstm", "custom", {}, True),
    ("CudnnRNNV3", "tf", {}, True), ("ATen", "org.pytorch.aten", {"operator": "gru"}, True),
    ("ATen", "org.pytorch.aten", {"operator": "add"}, False), ("congruent", "custom", {}, False),
    ("transformernn", "custom", {}, False), ("Conv", "", {}, False),
])
def test_operators_of_other_runtimes_are_named(op_type, domain, attributes, named, save):
    a = weights(np.random.default_rng(0))
    foreign = helper.make_node(op_type, ["X", "W"], ["Z"], "other", domain=domain, **attributes)
    skipped = {}
    assert list(layers(save([foreign, lstm()], a, domain=domain), skipped)) == ["lstm"]
    assert list(skipped) == (["other"] if named else [])


@pytest.mark.parametrize("within", [True, False])
def test_functions_with_recurrent_names(within, tmp_path):
    """Those with nodes of ONNX's own in their bodies give these; others are named."""
    a = weights(np.random.default_rng(0))
    node = lstm() if within else helper.make_node("MatMul", ["X", "W"], ["Y"])
    opset = helper.make_opsetid("", 17)
    body = helper.make_function("local", "aten_lstm", ["X", "W", "R", "B"], ["Y"], [node], [opset])
    call = helper.make_node("aten_lstm", ["X", "W", "R", "B"], ["Y"], "call", domain="local")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "XY"]
    graph = helper.make_graph([call], "g", infos[:1], infos[1:], [numpy_helper.from_array(v, k) for k, v in a.items()])
    onnx.save(helper.make_model(graph, functions=[body], ir_version=8, opset_imports=[
        helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]), tmp_path / "model.onnx")
    skipped = {}
    found = layers(tmp_path / "model.onnx", skipped)
    assert (list(found), list(skipped)) == ((["lstm"], []) if within else ([], ["call"]))


FOLDED = {
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b, "Div": lambda a, b: a / b,
}


@pytest.mark.parametrize("operator", FOLDED)
def test_arithmetic_of_weights(operator, save):
    a = weights(np.random.default_rng(0))
    b = np.random.default_rng(1).uniform(0.5, 1, (8, 1)).astype("f4")
    found = layers(save([helper.make_node(operator, ["V", "b"], ["W"]), lstm()],
                        {"V": a["W"], "b": b, "R": a["R"], "B": a["B"]}))["lstm"]
    expected = run_node("LSTM", {"X": np.ones((5, 2, 3), "f4"), **a, "W": FOLDED[operator](a["W"], b)})["Y"]
    assert_close({"Y": found(np.ones((5, 2, 3), "f4"))[0]}, {"Y": expected[:, 0]}, 1e-6)


def test_other_folded_operators(save):
    """Zeros, sizes, gathered and expanded arrays, products of matrices, reductions: each on its way to W, R or B."""
    make, a = helper.make_node, weights(np.random.default_rng(0))
    nodes = [make("Shape", ["R"], ["sizes"]), make("Gather", ["sizes", "one"], ["rows"]),
             make("Mul", ["rows", "two"], ["both"]), make("Concat", ["one", "both"], ["shape"], axis=0),
             make("ConstantOfShape", ["shape"], ["B"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])),
             make("MatMul", ["left", "right"], ["product"]), make("Expand", ["product", "w_shape"], ["wide"]),
             make("ReduceL2", ["V", "two_axis"], ["norm"]), make("Div", ["V", "norm"], ["unit"]),
             make("Add", ["unit", "wide"], ["W"]), make("Gather", ["S", "order"], ["R"], axis=1), lstm()]
    rng, order = np.random.default_rng(2), np.array([0, 2, 1, 3, 4, 5, 7, 6])
    left, right = (rng.uniform(-1, 1, shape).astype("f4") for shape in ((8, 2), (2, 3)))
    found = layers(save(nodes, {"one": np.array([1]), "two": np.array([2]), "two_axis": np.array([2]), "left": left,
                                "right": right, "w_shape": np.array([1, 8, 3]), "V": a["W"], "S": a["R"],
                                "order": order}))["lstm"]
    W = a["W"] / np.sqrt((a["W"] ** 2).sum(2, keepdims=True)) + left @ right
    expected = run_node("LSTM", {"X": np.ones((5, 2, 3), "f4"), "W": W, "R": a["R"][:, order],
                                 "B": np.full((1, 16), 0.5, "f4")})["Y"]
    assert_close({"Y": found(np.ones((5, 2, 3), "f4"))[0]}, {"Y": expected[:, 0]}, 1e-6)


@pytest.mark.parametrize("nodes", [
    [helper.make_node("Expand", ["point", "huge"], ["W"])],
    [helper.make_node("Expand", ["point", "huge"], ["U"]), helper.make_node("Add", ["U", "U"], ["W"])],
    [helper.make_node("ConstantOfShape", ["huge"], ["U"]), helper.make_node("Mul", ["U", "U"], ["W"])],
    [helper.make_node("ConstantOfShape", ["huge"], ["U"]), helper.make_node("ReduceSum", ["U"], ["W"])],
    [helper.make_node("MatMul", ["column", "row"], ["W"])],
    [helper.make_node("Gather", ["big", "indices"], ["W"])],
])
def test_folded_arrays_are_bounded(nodes, save):
    """Sizes that a few bytes ask for: refused before they are allocated, in no time."""
    a = weights(np.random.default_rng(0))
    path = save([*nodes, lstm()], {
        "V": a["W"], "R": a["R"], "B": a["B"], "huge": np.array([100_000, 8, 3000]),
        "column": np.ones((40_000, 1), "f4"), "row": np.ones((1, 40_000), "f4"), "point": np.ones((1, 1, 1), "f4"),
        "big": np.ones((1, 10_000), "f4"), "indices": np.zeros(10_000, "i8")})
    error = assert_refuses_or_loads(layers, path.read_bytes(), path, seconds=5)
    assert any(text in str(error) for text in ("unfolds to more than", "over and over", "expected shape",
                                               "expected 3 dimensions"))


def test_run_node_takes_none_for_what_is_absent():
    """Any input and attribute, also such as the operator has not."""
    rng = np.random.default_rng(0)
    for op_type, G in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        inputs = {"X": rng.standard_normal((2, 1, 3)).astype("f4"), **weights(rng, G)}
        wanted = run_node(op_type, inputs, {"hidden_size": 2})
        nothing = dict.fromkeys(("sequence_lens", "initial_h", "initial_c", "P"))
        attributes = dict.fromkeys(("direction", "layout", "clip", "activations", "activation_alpha", "activation_beta",
                                    "linear_before_reset", "input_forget"))
        found = run_node(op_type, inputs | nothing, {"hidden_size": 2} | attributes)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
        found = run_node(op_type, inputs | {"B": None}, {**attributes, "hidden_size": None})
        zeros = run_node(op_type, inputs | {"B": np.zeros_like(inputs["B"])})
        assert all(np.array_equal(found[name], zeros[name]) for name in zeros)
    with pytest.raises(TypeError, match="X: "):
        run_node("GRU", {"X": None})


# ---- Mutations ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Bytes of models with folded constants: as PyTorch traced it, and with weight norm."""
    folder, found = tmp_path_factory.mktemp("traced"), []
    for norm, free in ((False, True), (True, False)):
        torch.manual_seed(0)
        module = nn.GRU(1, 2)
        if norm:
            parametrizations.weight_norm(module, "weight_hh_l0")
        dynamo_export(module, torch.randn(2, 2, 1), folder / "m.onnx", optimize=False, free=free, external_data=False)
        found.append((folder / "m.onnx").read_bytes())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("which", range(2))
def test_mutations_of_folded_constants(which, traced, tmp_path):
    refused = 0
    for broken in mixed(traced[which], generator(which), COUNT // 4, header=8000):
        error = assert_refuses_or_loads(lambda name: layers(name, {}), broken, tmp_path / "model.onnx")
        refused += error is not None
    assert refused > COUNT // 80
