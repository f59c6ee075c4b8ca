"""DynamicQuantizeLSTM beside ONNX Runtime, which is where the operator comes from, and beside float32."""

import numpy as np
import onnx
import onnx_nodes
import pytest
from helpers import assert_close, assert_same_bits
from onnx import TensorProto, helper, numpy_helper
from onnx_nodes import run_in_onnxruntime

import fastrnn
from fastrnn import ModelFormatError
from fastrnn.interop.onnx import Backend, export, layers
from fastrnn.nn import files

quantization = pytest.importorskip("onnxruntime.quantization")
OPTIONS = {"plain": {}, "two directions, stacked": {"bidirectional": True, "num_layers": 2},
           "peepholes": {"peephole": True}, "coupled": {"coupled_gates": True},
           "no bias, reversed": {"bias": False, "reverse": True},
           "functions": {"activations": [("hard_sigmoid", 0.25, 0.5), "softsign", "tanh"], "clip": 2.0}}


def sequences(T=30, N=20, I=24, seed=1):
    """Rows of different sizes, as speakers of different loudness are."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((T, N, I)) * np.exp(rng.standard_normal((1, N, 1)))).astype(np.float32)


def states(layer, N, seed=None):
    shape = (layer.num_layers * (1 + layer.bidirectional), N, layer.hidden_size)
    if seed is None:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(-0.9, 0.9, shape).astype(np.float32) for _ in range(2))


def rms(a, b):
    return float(np.sqrt(np.square(a.astype(float) - b).mean()))


def dynamically_quantized(layer, folder, **options):
    """The path of the file that quantize_dynamic makes of a float32 layer."""
    export(layer, folder / "float.onnx")
    quantization.quantize_dynamic(folder / "float.onnx", folder / "narrow.onnx", **options)
    operators = {node.op_type for node in onnx.load(folder / "narrow.onnx").graph.node}
    assert "DynamicQuantizeLSTM" in operators and "LSTM" not in operators
    return folder / "narrow.onnx"


def assert_as_near(ours, theirs, exact):
    """The two int8 results differ by what both differ from float32; ours is the nearer one, and agreement is close."""
    assert rms(ours, exact) < rms(theirs, exact)
    assert rms(ours, theirs) < 1.1 * rms(theirs, exact) and np.abs(ours - theirs).max() < 0.1
    assert rms(ours, exact) < 0.005


# ---- What quantize_dynamic writes --------------------------------------------------------------------

@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_as_onnxruntime(options, per_channel, tmp_path):
    layer = fastrnn.LSTM(24, 64, rng=0, **options)
    path = dynamically_quantized(layer, tmp_path, per_channel=per_channel)
    found = layers(path)
    assert {name: files.configuration(one) for name, one in found.items()} == {
        "LSTM": files.configuration(layer) | {"precision": "int8"}}
    x, initial = sequences(), states(layer, 20, seed=2)
    theirs = run_in_onnxruntime(onnx.load(path), {"x": x, "h_0": initial[0], "c_0": initial[1]})
    output, (h_n, c_n) = found["LSTM"](x, initial)
    exact, (h, c) = layer(x, initial)
    assert_as_near(output, theirs["output"], exact)
    for ours, other, wanted in ((h_n, theirs["h_n"], h), (c_n, theirs["c_n"], c)):
        assert rms(ours, other) < 1.1 * rms(other, wanted) and rms(ours, wanted) < rms(other, wanted)


@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_are_those_of_the_file(per_channel, tmp_path):
    """W = scale (q - zero), by onnx's own reader, and to the bit: row scales times whole numbers."""
    layer = fastrnn.LSTM(5, 8, rng=0)
    path = dynamically_quantized(layer, tmp_path, per_channel=per_channel)
    arrays = {a.name: numpy_helper.to_array(a).astype(np.float32) for a in onnx.load(path).graph.initializer}
    values = layers(path)["LSTM"].parameters
    for name, part in (("W", "ih"), ("R", "hh")):
        scale = np.broadcast_to(arrays[f"{name}_l0_scale"][0], 32)
        rows = [rows for gate in "ifco" for rows in np.split(arrays[f"{name}_l0_quantized"][0].T * scale[:, None], 4)[
            "iofc".index(gate)]]
        found = values[f"weight_{part}_l0"] * values[f"row_scale_{part}_l0"][:, None]
        assert_same_bits(found, np.stack(rows))
        assert (values[f"column_scale_{part}_l0"] == 1).all()


def test_among_quantised_dense_layers(tmp_path):
    """DynamicQuantizeLinear and MatMulInteger around the LSTM are passed over, as MatMul was."""
    layer, rng = fastrnn.LSTM(6, 16, rng=0), np.random.default_rng(0)
    export(layer, tmp_path / "lstm.onnx")
    model = onnx.load(tmp_path / "lstm.onnx")
    for name, shape, at in (("before", (6, 6), 0), ("after", (16, 3), len(model.graph.node))):
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype("f4"), name))
        node = helper.make_node("MatMul", *(([["u", name], ["x"]]) if name == "before" else [["output", name], ["v"]]),
                                name)
        model.graph.node.insert(at + (name == "after"), node)
    model.graph.input[0].name, model.graph.output[0].name = "u", "v"
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 3
    onnx.save(model, tmp_path / "dense.onnx")
    quantization.quantize_dynamic(tmp_path / "dense.onnx", tmp_path / "narrow.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "narrow.onnx").graph.node]
    assert operators.count("MatMulInteger") == 2 and "DynamicQuantizeLinear" in operators
    narrow = layers(tmp_path / "narrow.onnx")["LSTM"]
    arrays = {a.name: numpy_helper.to_array(a) for a in model.graph.initializer}
    u = rng.standard_normal((20, 3, 6)).astype("f4")
    theirs = run_in_onnxruntime(onnx.load(tmp_path / "narrow.onnx"), {"u": u, "h_0": states(layer, 3)[0],
                                                                     "c_0": states(layer, 3)[1]})["v"]
    assert np.abs(narrow(u @ arrays["before"])[0] @ arrays["after"] - theirs).max() < 0.1 * np.abs(theirs).max()


# ---- Nodes made here ---------------------------------------------------------------------------------

def quantized(a, per_channel, dtype, zero):
    """(numbers [D, K, 4*H], scales, zero points) of a weight [D, 4*H, K]; `zero` "fit" uses uint8's whole range."""
    axes = (2,) if per_channel else (1, 2)
    least, most = (np.minimum(a.min(axes, keepdims=True), 0), np.maximum(a.max(axes, keepdims=True), 0))
    if zero == "fit":
        scale = ((most - least) / 255).astype(np.float32)
        point = np.rint(-least / scale)
    else:
        scale = (np.maximum(-least, most) / 127).astype(np.float32)
        point = np.full(scale.shape, float(zero))
    info = np.iinfo(dtype)
    numbers = np.clip(np.rint(a / scale) + point, info.min, info.max).astype(dtype)
    shape = a.shape[:2] if per_channel else a.shape[:1]
    return np.ascontiguousarray(numbers.swapaxes(1, 2)), scale.reshape(shape), point.astype(dtype).reshape(shape)


def node_model(inputs, constants, **attributes):
    """A model of one DynamicQuantizeLSTM, `inputs` from outside and `constants` in the file."""
    names = (*onnx_nodes.INPUTS, "W_scale", "W_zero_point", "R_scale", "R_zero_point")
    given = [name if name in inputs or name in constants else "" for name in names]
    node = helper.make_node("DynamicQuantizeLSTM", given,
                            ["Y", "Y_h", "Y_c"], "node", domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node], "graph", [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
                          for name, a in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * (4 if name == "Y" else 3))
         for name in ("Y", "Y_h", "Y_c")],
        [numpy_helper.from_array(a, name) for name, a in constants.items()])
    return helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 14),
                                                                 helper.make_opsetid("com.microsoft", 1)])


def drawn(D=2, I=9, H=12, N=6, T=11, per_channel=True, dtype=np.int8, zero=0, seed=0):
    """(inputs, constants, float W and R as the constants have them) of a node with every input."""
    rng = np.random.default_rng(seed)

    def uniform(*shape):
        return rng.uniform(-0.3, 0.5, shape).astype(np.float32)

    constants = {"B": uniform(D, 8 * H), "P": uniform(D, 3 * H)}
    plain = {}
    for name, size in (("W", I), ("R", H)):
        numbers, scale, point = quantized(uniform(D, 4 * H, size), per_channel, dtype, zero)
        constants |= {name: numbers, f"{name}_scale": scale, f"{name}_zero_point": point}
        centred = numbers.astype(float) - np.reshape(point.astype(float), (D, 1, -1))
        plain[name] = (centred * scale.reshape(D, 1, -1)).swapaxes(1, 2)
    inputs = {"X": (rng.standard_normal((T, N, I)) * np.exp(rng.standard_normal((1, N, 1)))).astype(np.float32),
              "sequence_lens": rng.integers(1, T + 1, N).astype(np.int32), "initial_h": uniform(D, N, H),
              "initial_c": uniform(D, N, H)}
    return inputs, constants, plain


def ours_and_theirs(inputs, constants, folder, run=True, **attributes):
    """(the layer that is read, its output [T, D, N, H], ONNX Runtime's)."""
    model = node_model(inputs, constants, **attributes)
    (folder / "node.onnx").write_bytes(model.SerializeToString())
    layer, = layers(folder / "node.onnx").values()
    output, _ = layer(inputs["X"], (inputs["initial_h"], inputs["initial_c"]), lengths=inputs["sequence_lens"])
    D = constants["B"].shape[0]
    theirs = run_in_onnxruntime(model, inputs)["Y"] if run else None
    return layer, output.reshape(*output.shape[:2], D, -1).swapaxes(1, 2), theirs


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype, zero", [(np.int8, 0), (np.uint8, 128), (np.uint8, "fit"), (np.int8, 9)])
def test_every_input_and_kind_of_weight(dtype, zero, per_channel, tmp_path):
    """Float64 by ONNX's equations, with the file's own weights, is what both are compared with."""
    inputs, constants, plain = drawn(per_channel=per_channel, dtype=dtype, zero=zero)
    run = not per_channel or zero in (0, 128)       # others it has for whole matrices alone
    layer, ours, theirs = ours_and_theirs(inputs, constants, tmp_path, run, hidden_size=12, direction="bidirectional")
    exact = onnx_nodes.expected("LSTM", inputs | plain | {name: constants[name] for name in "BP"},
                                {"direction": "bidirectional"})["Y"]
    assert repr(layer) == "LSTM(9, 12, bidirectional=True, peephole=True, precision=int8)"
    assert rms(ours, exact) < 0.005
    if run:
        assert rms(ours, exact) < rms(theirs, exact) < 0.02 and rms(ours, theirs) < 1.1 * rms(theirs, exact)


@pytest.mark.parametrize("dtype, zero", [(np.int8, 0), (np.uint8, 128)])
def test_one_step_stays_within_the_bound(dtype, zero, tmp_path):
    """The bound that the documents state, carried through the equations of an LSTM: |sigmoid'| <= 1/4, |tanh'| <= 1."""
    inputs, constants, plain = drawn(D=1, T=1, N=16, I=20, H=24, dtype=dtype, zero=zero)
    inputs["sequence_lens"][:] = 1
    constants.pop("P")
    _, ours, theirs = ours_and_theirs(inputs, constants, tmp_path, hidden_size=24)

    def difference(values, weight):             # of the sums, [N, 4*H]
        step = (max(values.max(), 0) - min(values.min(), 0)) / 255
        own = np.abs(values).max(axis=1) / 127
        return (step + own)[:, None] / 2 * np.abs(weight).sum(axis=1)

    sums = difference(inputs["X"][0], plain["W"][0]) + difference(inputs["initial_h"][0], plain["R"][0])
    i, o, f, c = np.split(sums, 4, axis=1)
    cell = np.abs(inputs["initial_c"][0]) * f / 4 + i / 4 + c
    bound = o / 4 + cell + 1e-5
    assert (np.abs(ours - theirs)[0, 0] <= bound).all()


def test_weights_that_int8_cannot_hold_are_rounded_by_half_a_step(tmp_path):
    inputs, constants, plain = drawn(dtype=np.uint8, zero="fit")
    layer, _, _ = ours_and_theirs(inputs, constants, tmp_path, False, hidden_size=12, direction="bidirectional")
    for d, suffix in enumerate(("_l0", "_l0_reverse")):
        for name, part in (("W", "ih"), ("R", "hh")):
            row, column = (layer.parameters[f"{which}_scale_{part}{suffix}"].astype(float) for which in
                           ("row", "column"))
            i, o, f, c = np.split(plain[name][d], 4)
            found = layer.parameters[f"weight_{part}{suffix}"] * np.outer(row, column)
            assert (np.abs(found - np.concatenate([i, f, c, o])) <= 0.5001 * np.outer(row, column)).all()


def test_weights_of_minus_128_are_rounded(tmp_path):
    inputs, constants, plain = drawn(D=1)
    constants["W"][0, 0, 0] = -128
    plain["W"][0, 0, 0] = -128 * constants["W_scale"][0, 0]
    layer, ours, theirs = ours_and_theirs(inputs, constants, tmp_path, hidden_size=12)
    assert (layer.parameters["column_scale_hh_l0"] == 1).all()
    assert not (layer.parameters["column_scale_ih_l0"] == 1).all()
    assert np.abs(layer.parameters["weight_ih_l0"]).max() == 127
    exact = onnx_nodes.expected("LSTM", inputs | plain | {name: constants[name] for name in "BP"}, {})["Y"]
    assert rms(ours, exact) < rms(theirs, exact)


@pytest.mark.parametrize("change, message", [
    ({"W_scale": None}, "W_scale: it is missing"), ({"W": None}, "W: it is missing"),
    ({"W": np.zeros((1, 9, 48), np.float32)}, "weight_ih_l0: expected a matrix of int8 or uint8, got float32"),
    ({"W": np.zeros((1, 48, 9), np.int8)}, r"W: expected shape \(1, 48, 48\)|W: expected shape"),
    ({"W": np.zeros((9, 48), np.int8)}, "W: expected 3 dimensions"),
    ({"R_scale": np.ones((1, 7), np.float32)}, r"R_scale: expected shape \(1,\) or \(1, 48\), got \(1, 7\)"),
    ({"R_scale": np.full((1, 48), np.nan, np.float32)}, "weight_hh_l0: expected one finite float32 scale"),
    ({"R_scale": np.ones((1, 48), np.float64)}, "weight_hh_l0: expected one finite float32 scale"),
    ({"R_zero_point": np.zeros((1, 48), np.uint8)}, "weight_hh_l0: expected one zero point of int8"),
    ({"B": np.zeros((1, 48), np.float32)}, "B: expected shape"), ({"P": np.zeros((1, 48), np.float32)}, "P: expected"),
    ({"initial_c": np.ones((1, 6, 12), np.float32)}, "initial_c: a constant that is not zero"),
])
def test_broken_nodes(change, message, tmp_path):
    inputs, constants, _ = drawn(D=1)
    for name, value in change.items():
        inputs.pop(name, None)
        constants[name] = value
    model = node_model(inputs, {name: a for name, a in constants.items() if a is not None}, hidden_size=12)
    (tmp_path / "node.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match=f"DynamicQuantizeLSTM node 'node': (?:{message})"):
        layers(tmp_path / "node.onnx")


def test_missing_zero_points_are_zero(tmp_path):
    inputs, constants, _ = drawn(D=1)
    full = node_model(inputs, constants, hidden_size=12)
    for name in ("W_zero_point", "R_zero_point"):
        constants.pop(name)
    less = node_model(inputs, constants, hidden_size=12)
    read = []
    for model in (full, less):
        (tmp_path / "node.onnx").write_bytes(model.SerializeToString())
        read.append(dict(layers(tmp_path / "node.onnx")["node"].parameters))
    assert_same_bits(*read)


# ---- Writing -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [*OPTIONS.values(), {"batch_first": True}], ids=[*OPTIONS, "batch first"])
def test_exported_layers_run_in_onnxruntime(options, tmp_path):
    layer = fastrnn.LSTM(24, 64, rng=0, **options)
    narrow = layer.quantized("int8")
    export(narrow, tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node].count("DynamicQuantizeLSTM") == layer.num_layers
    x, initial = sequences(), states(layer, 20, seed=2)
    x = np.ascontiguousarray(x.swapaxes(0, 1)) if layer.batch_first else x
    theirs = run_in_onnxruntime(model, {"x": x, "h_0": initial[0], "c_0": initial[1]})
    assert_as_near(narrow(x, initial)[0], theirs["output"], layer(x, initial)[0])
    again = layers(tmp_path / "layer.onnx")["LSTM"]
    assert files.configuration(again) == files.configuration(narrow)
    assert_as_near(again(x, initial)[0], theirs["output"], layer(x, initial)[0])
    export(again, tmp_path / "again.onnx")          # without scales of columns nothing is rounded
    assert_same_bits(dict(layers(tmp_path / "again.onnx")["LSTM"].parameters), dict(again.parameters))
    if not layer.batch_first and layer.num_layers == 1:
        computed = Backend.prepare(model).run({"x": x, "h_0": initial[0], "c_0": initial[1]})
        assert_same_bits(computed.output, again(x, initial)[0])


def test_exported_weights_differ_by_half_a_step():
    from fastrnn.interop.int8_weights import without_column_scales
    values = dict(fastrnn.LSTM(9, 7, rng=0).quantized("int8").parameters)
    exact = values["weight_ih_l0"] * np.outer(values["row_scale_ih_l0"].astype(float), values["column_scale_ih_l0"])
    numbers, scale = without_column_scales(values, "weight_ih_l0")
    assert (np.abs(numbers * scale[:, None].astype(float) - exact) <= np.abs(exact).max(axis=1)[:, None] / 253.9).all()
    assert (np.abs(numbers).max(axis=1) == 127).all()


@pytest.mark.parametrize("layer, name", [(fastrnn.GRU(2, 3, rng=0), "GRU"), (fastrnn.RNN(2, 3, rng=0), "RNN")])
def test_other_narrow_layers_have_no_operator(layer, name, tmp_path):
    with pytest.raises(ValueError, match=f"LSTMs of int8 weights and for no other .*got {name} of precision int8"):
        export(layer.quantized("int8"), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_the_backend_needs_constant_weights():
    inputs, constants, _ = drawn(D=1)
    with pytest.raises(NotImplementedError, match="its weights must be constants"):
        Backend.prepare(node_model(inputs | {"W": constants.pop("W")}, constants, hidden_size=12)).run(
            inputs | {"W": drawn(D=1)[1]["W"]})


def test_a_function_of_that_name_is_looked_into(tmp_path):
    """A model's own function is what the model says, whatever its name."""
    inputs, constants, _ = drawn(D=1)
    model = node_model(inputs, constants, hidden_size=12)
    body = helper.make_function("com.microsoft", "DynamicQuantizeLSTM", ["X"], ["Y"],
                                [helper.make_node("Identity", ["X"], ["Y"])], [helper.make_opsetid("", 14)])
    model.functions.append(body)
    (tmp_path / "node.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="a function of the model"):
        layers(tmp_path / "node.onnx")


def test_padding_does_not_count():
    """Rows of one batch do not depend on each other: what ONNX Runtime's scale of a whole batch cannot promise."""
    layer = fastrnn.LSTM(24, 64, rng=0).quantized("int8")
    x = sequences()
    assert_close({"row": layer(x)[0][:, :1]}, {"row": layer(x[:, :1])[0]}, 0)
