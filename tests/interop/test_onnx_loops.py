"""Loops and Scans of ONNX models: tf2onnx's files, loops made by hand, and loops in which one thing was changed.

The rule: what comes back computes what ONNX Runtime computes of the model, or it is named.
"""

from pathlib import Path

import mutations
import numpy as np
import onnx
import pytest
from helpers import assert_close
from mutations import assert_refuses_or_loads
from onnx import TensorProto, helper, numpy_helper
from onnx_nodes import run_in_onnxruntime

from fastrnn import ModelFormatError, interop
from fastrnn.interop.onnx import layers

FILES = Path(__file__).parent / "files" / "tf2onnx.npz"
I, H = 3, 4


@pytest.fixture(scope="module")
def files():
    """Name -> (bytes, input, output in Keras) of what tf2onnx 1.17 made of layers of Keras 3.15."""
    with np.load(FILES) as archive:
        return {name: (archive[f"{name}.file"].tobytes(), archive[f"{name}.x"], archive[f"{name}.y"])
                for name in {name.rpartition(".")[0] for name in archive}}


@pytest.fixture
def save(tmp_path):
    def write(data):
        (tmp_path / "model.onnx").write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return tmp_path / "model.onnx"
    return write


# ---- What tf2onnx writes ----------------------------------------------------------------------------

@pytest.mark.parametrize("name, options", [
    ("gru", "GRU(3, 4)"), ("gru_static", "GRU(3, 4)"), ("gru_before", "GRU(3, 4, reset_after=False)"),
    ("gru_relu", "GRU(3, 4, activations=(('sigmoid', None, None), ('relu', None, None)))"), ("rnn", "RNN(3, 4)"),
    ("rnn_relu", "RNN(3, 4, nonlinearity=relu)"), ("rnn_relu_static", "RNN(3, 4, nonlinearity=relu)"),
    ("rnn_last", "RNN(3, 4)"), ("lstm", "LSTM(3, 4)"),
])
def test_layers_of_keras(name, options, files, save):
    data, x, y = files[name]
    layer, = interop.layers(save(data)).values()
    assert repr(layer) == options
    output = layer(x.swapaxes(0, 1))[0].swapaxes(0, 1)
    assert_close({"y": output if y.ndim == 3 else output[:, -1]}, {"y": y}, 1e-5)


@pytest.mark.parametrize("name", ["gru_mask", "rnn_mask", "lstm_mask", "lstm_mask_static"])
def test_masks_are_lengths_of_a_call(name, files, save):
    """Row 0 of the input ends after 4 of 6 steps; beyond, Keras repeats the last output, and a layer gives zeros."""
    data, x, y = files[name]
    layer, = layers(save(data)).values()
    lengths = np.array([4, 6])
    output = layer(x.swapaxes(0, 1), lengths=lengths)[0].swapaxes(0, 1)
    valid = np.arange(6) < lengths[:, None]
    assert_close({"y": output[valid]}, {"y": y[valid]}, 1e-5)


def test_both_directions(files, save):
    data, x, y = files["bi_gru_before"]
    forward, backward = layers(save(data)).values()
    steps = x.swapaxes(0, 1)
    output = np.concatenate([forward(steps)[0], backward(steps[::-1])[0][::-1]], -1).swapaxes(0, 1)
    assert_close({"y": output}, {"y": y}, 1e-5)
    data, x, y = files["bi_lstm"]
    layer, = layers(save(data)).values()
    assert_close({"y": layer(x.swapaxes(0, 1))[0].swapaxes(0, 1)}, {"y": y}, 1e-5)
    data, x, y = files["lstm_back"]             # the model turns the input itself
    layer, = layers(save(data)).values()
    assert_close({"y": layer(x[:, ::-1].swapaxes(0, 1))[0].swapaxes(0, 1)}, {"y": y}, 1e-5)


def test_a_stack(files, save):
    data, x, y = files["stack_rnn"]
    first, second = layers(save(data)).values()
    assert_close({"y": second(first(x.swapaxes(0, 1))[0])[0][-1]}, {"y": y}, 1e-5)


@pytest.mark.parametrize("name", ["stacked_cells", "lstm_hard"])
def test_loops_that_are_none_of_these_layers_are_named(name, files, save):
    """Two LSTM cells in one loop; a hard sigmoid of clipped sums."""
    path, skipped = save(files[name][0]), {}
    with pytest.raises(ModelFormatError, match="a Loop whose body looks like a recurrent step"):
        layers(path)
    assert layers(path, skipped) == {} and len(skipped) == 1


# ---- One thing changed --------------------------------------------------------------------------------

CHANGES = {"Add": ("Sub", "Mul"), "Sub": ("Add",), "Mul": ("Add",), "Sigmoid": ("Tanh", "HardSigmoid"),
           "Tanh": ("Sigmoid", "Softsign", "Relu"), "Relu": ("Tanh", "Identity", "LeakyRelu"), "Less": ("Greater",),
           "And": ("Or",), "Not": ("Identity",), "Identity": ("Neg",), "Gather": ()}


def changed(model):
    """Yields (what, model): one operator of the loop's body another, or one constant of it another."""
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Loop":
            continue
        for place, inner in enumerate(node.attribute[0].g.node):
            for other in CHANGES.get(inner.op_type, ()):
                copy = onnx.ModelProto.FromString(model.SerializeToString())
                copy.graph.node[number].attribute[0].g.node[place].op_type = other
                yield f"{inner.op_type} {place} -> {other}", copy
            if len(inner.input) == 2 and inner.op_type in ("Sub", "Add"):
                copy = onnx.ModelProto.FromString(model.SerializeToString())
                target = copy.graph.node[number].attribute[0].g.node[place].input
                target[0], target[1] = inner.input[1], inner.input[0]
                yield f"{inner.op_type} {place} turned", copy
        for place, tensor in enumerate(node.attribute[0].g.initializer):
            copy = onnx.ModelProto.FromString(model.SerializeToString())
            a = numpy_helper.to_array(tensor)
            body = copy.graph.node[number].attribute[0].g
            body.initializer[place].CopyFrom(numpy_helper.from_array((a + 1).astype(a.dtype), tensor.name))
            yield f"{tensor.name} + 1", copy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "gru_before", "gru_relu", "rnn", "rnn_relu", "lstm_mask"])
def test_loops_in_which_one_thing_was_changed(name, files, save):
    """Read with the numbers that ONNX Runtime computes of them, or named: with three lengths of three batches."""
    data, rng = files[name][0], np.random.default_rng(0)
    read = named = 0
    for what, model in changed(onnx.ModelProto.FromString(data)):
        skipped = {}
        try:
            found = layers(save(model), skipped)
        except ModelFormatError as error:
            found, skipped = {}, {"": str(error)}
        assert found or skipped, what
        if not found:
            named += 1
            continue
        read += 1
        layer, = found.values()
        for shape in ((2, 6, I), (1, 4, I), (3, 9, I)):
            x = 2 * rng.standard_normal(shape).astype(np.float32)
            theirs, = run_in_onnxruntime(model, {"x": x}).values()
            ours = layer(x.swapaxes(0, 1))[0].swapaxes(0, 1)
            bound = 1e-5 * max(1, np.abs(theirs).max())
            assert np.abs(ours - theirs).max() <= bound, f"{what}: {layer}"
    assert read >= 2 and named >= 5


# ---- Made by hand -------------------------------------------------------------------------------------

def info(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def step_of(kind, rng, x="x", h="h", c="c"):
    """(nodes, initializers, outputs) of a step with products of the joined x and h, as TensorFlow's cells have it."""
    make, G = helper.make_node, {"LSTM": 4, "RNN": 1}[kind]
    constants = {"K": rng.uniform(-1, 1, (I + H, G * H)).astype("f4"), "bias": rng.uniform(-1, 1, G * H).astype("f4")}
    nodes = [make("Concat", [x, h], ["xh"], axis=1), make("MatMul", ["xh", "K"], ["p"]),
             make("Add", ["p", "bias"], ["a"])]
    if kind == "RNN":
        return [*nodes, make("Tanh", ["a"], ["h2"])], constants, ["h2"]
    nodes += [make("Split", ["a"], ["ai", "ag", "af", "ao"], axis=1), make("Sigmoid", ["ai"], ["i"]),
              make("Tanh", ["ag"], ["g"]), make("Add", ["af", "one"], ["af1"]), make("Sigmoid", ["af1"], ["f"]),
              make("Sigmoid", ["ao"], ["o"]), make("Mul", ["f", c], ["fc"]), make("Mul", ["i", "g"], ["ig"]),
              make("Add", ["fc", "ig"], ["c2"]), make("Tanh", ["c2"], ["t"]), make("Mul", ["o", "t"], ["h2"])]
    return nodes, constants | {"one": np.float32(1)}, ["h2", "c2"]


def scan_model(kind="LSTM", x_shape=(None, 2, I), start=0.0, backwards=(0, 0), more=(), collected="h2", opset=17):
    rng = np.random.default_rng(0)
    nodes, constants, after = step_of(kind, rng)
    states = ["h", "c"][:len(after)]
    tensors = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    body = helper.make_graph([*nodes, helper.make_node("Identity", [collected], ["y"]), *more], "body",
                             [*(info(name, (2, H)) for name in states), info("x", (2, I))],
                             [*(info(name, (2, H)) for name in after), info("y", (2, H))], tensors)
    starts = [numpy_helper.from_array(np.full((2, H), start, "f4"), name + "0") for name in states]
    scan = helper.make_node("Scan", [name + "0" for name in states] + ["X"], [name + "n" for name in states] + ["Y"],
                            "scan", body=body, num_scan_inputs=1, scan_input_directions=[backwards[0]],
                            scan_output_directions=[backwards[1]])
    graph = helper.make_graph([scan], "g", [info("X", x_shape)],
                              [info("Y", (None, 2, H)), *(info(name + "n", (2, H)) for name in states)], starts)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize("backwards", [(0, 0), (1, 1)])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_scans(kind, backwards, save):
    """One matrix for x and h, gates in TensorFlow's order i, g, f, o, a forget bias apart; forwards and backwards."""
    model = scan_model(kind, backwards=backwards)
    layer = layers(save(model))["scan"]
    assert type(layer).__name__ == kind and layer.reverse == bool(backwards[0])
    for steps in (1, 5, 8):
        x = np.random.default_rng(steps).standard_normal((steps, 2, I)).astype("f4")
        theirs = run_in_onnxruntime(model, {"X": x})
        output, last = layer(x)
        last = last if kind == "LSTM" else (last,)
        assert_close({"Y": output, **{name: a[0] for name, a in zip(("hn", "cn"), last)}}, theirs, 1e-5)


@pytest.mark.parametrize("options, match", [
    ({"backwards": (1, 0)}, "no RNN, GRU or LSTM is shown"), ({"backwards": (0, 1)}, "no RNN, GRU or LSTM is shown"),
    ({"start": 0.5}, "it starts at a constant state that is not zero"),
    ({"collected": "c2"}, "no RNN, GRU or LSTM is shown"), ({"collected": "t"}, "no RNN, GRU or LSTM is shown"),
])
def test_scans_that_do_other_things(options, match, save):
    with pytest.raises(ModelFormatError, match=f"a Scan whose body looks like a recurrent step, but {match}"):
        layers(save(scan_model(**options)))


def loop_model(count, x_shape):
    """A Loop of an RNN's step over X, of as many steps as `count` says: a name, or a number."""
    rng, make = np.random.default_rng(0), helper.make_node
    nodes, constants, _ = step_of("RNN", rng)
    body = helper.make_graph([make("Gather", ["X", "k"], ["x"]), *nodes, make("Identity", ["h2"], ["y"]),
                              make("Identity", ["going"], ["still"])], "body",
                             [info("k", (), TensorProto.INT64), info("going", (), TensorProto.BOOL), info("h", (2, H))],
                             [info("still", (), TensorProto.BOOL), info("h2", (2, H)), info("y", (2, H))],
                             [numpy_helper.from_array(a, name) for name, a in constants.items()])
    nodes = [make("Shape", ["X"], ["shape"]), make("Gather", ["shape", "zero"], ["T"]),
             make("Loop", [count, "true", "h0"], ["hn", "Y"], "loop", body=body)]
    constants = {"zero": np.array(0), "five": np.array(5), "true": np.array(True), "h0": np.zeros((2, H), "f4")}
    graph = helper.make_graph(nodes, "g", [info("X", x_shape)], [info("Y", (None, 2, H)), info("hn", (2, H))],
                              [numpy_helper.from_array(a, name) for name, a in constants.items()])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_loops_of_all_steps_and_of_fewer(save):
    """A loop of five steps along an input of any number is no layer; along one of five it is."""
    for count, shape, read in (("T", (None, 2, I), True), ("five", (5, 2, I), True), ("five", (None, 2, I), False),
                               ("five", (9, 2, I), False)):
        path, skipped = save(loop_model(count, shape)), {}
        found = layers(path, skipped)
        assert bool(found) == read and bool(skipped) != read, (count, shape)
        if read:
            x = np.random.default_rng(0).standard_normal((5, 2, I)).astype("f4")
            theirs = run_in_onnxruntime(onnx.load(path), {"X": x})
            output, last = found["loop"](x)
            assert_close({"Y": output, "hn": last[0]}, theirs, 1e-5)


def test_loops_that_repeat_no_step_are_not_taken_for_one(save):
    """A product and an activation of every step alone, without a state: there is no recurrent layer in it."""
    make = helper.make_node
    nodes = [make("MatMul", ["x", "W"], ["p"]), make("Tanh", ["p"], ["y"]), make("Identity", ["h"], ["h2"])]
    body = helper.make_graph(nodes, "body", [info("h", (2, H)), info("x", (2, I))],
                             [info("h2", (2, H)), info("y", (2, H))],
                             [numpy_helper.from_array(np.ones((I, H), "f4"), "W")])
    scan = make("Scan", ["h0", "X"], ["hn", "Y"], body=body, num_scan_inputs=1)
    graph = helper.make_graph([scan], "g", [info("X", (None, 2, I))], [info("Y", (None, 2, H))],
                              [numpy_helper.from_array(np.zeros((2, H), "f4"), "h0")])
    skipped = {}
    path = save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    assert layers(path, skipped) == {} and "Its Scan may be a recurrent layer" in skipped[""]


# ---- Broken files ---------------------------------------------------------------------------------------

BROKEN = ("gru", "rnn_relu", "lstm_mask", "scan")


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_mutations(name, files, tmp_path):
    """No code is run, no loop is without end: budgets on nodes, numbers and steps."""
    data = scan_model().SerializeToString() if name == "scan" else files[name][0]
    refused = 0
    rng = mutations.generator(BROKEN.index(name))
    for broken in mutations.mixed(data, rng, mutations.COUNT // 10, header=len(data)):
        error = assert_refuses_or_loads(lambda path: layers(path, {}), broken, tmp_path / "model.onnx", seconds=10)
        refused += error is not None
    assert refused > mutations.COUNT // 100


def test_loops_without_end(save):
    """Of 2**60 steps, or as many as their bodies ask for."""
    model = loop_model("five", (None, 2, I))
    for number in (2**60, 10**5):
        for tensor in model.graph.initializer:
            if tensor.name == "five":
                tensor.CopyFrom(numpy_helper.from_array(np.array(number), "five"))
        path = save(model)
        error = assert_refuses_or_loads(lambda name: layers(name), path.read_bytes(), path, seconds=10)
        assert "a Loop whose body looks like a recurrent step" in str(error)
