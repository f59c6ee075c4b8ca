"""ONNX models: recurrent nodes as layers, wherever they and their weights stand; layers written as models."""

import warnings

import ml_dtypes
import numpy as np
import onnx
import onnx_nodes
import pytest
import torch
from helpers import as_parts, as_state, assert_close, assert_same_bits
from onnx import TensorProto, helper, numpy_helper
from onnx_nodes import run_in_onnxruntime

import fastrnn
from fastrnn import ModelFormatError
from fastrnn.interop.onnx import Backend, export, layers
from fastrnn.nn import files

OPSET = 14


def assert_same_layer(found, expected):
    assert files.configuration(found) == files.configuration(expected)
    assert_same_bits(dict(found.parameters), dict(expected.parameters))


# ---- A real model ---------------------------------------------------------------------------------

def test_silero_vad(data_dir):
    """To 1e-5, cell states (which grow to 15) of the largest; whole, streamed, and the weights to the bit."""
    folder = data_dir / "models" / "silero_vad"
    with np.load(folder / "golden.npz") as golden, np.load(folder / "weights_lstm.npz") as weights:
        golden, weights = dict(golden), dict(weights)
    found = layers(folder / "silero_vad_16k_sequence.onnx")
    assert {name: repr(layer) for name, layer in found.items()} == {"/recurrent/LSTM": "LSTM(128, 128)"}
    layer = found["/recurrent/LSTM"]
    assert_same_bits(dict(layer.parameters), {f"{name}_l0": weights[f"lstm_cell.{name}"]
                                              for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
    output, (h_n, c_n) = layer(golden["lstm_in"][:, None])
    wanted = {"output": golden["lstm_out"][:, None], "h_n": golden["hn"], "c_n": golden["cn"]}
    assert_close({"output": output, "h_n": h_n, "c_n": c_n}, wanted, 1e-5)
    assert_same_bits(layer.stream().run(golden["lstm_in"]), output[:, 0])


# ---- Models made here -----------------------------------------------------------------------------

def weights(op_type="LSTM", dtype=np.float32, D=1, I=3, H=2, rng=0):
    """W, R and B."""
    rng, G = np.random.default_rng(rng), onnx_nodes.GATES[op_type]
    return {name: rng.uniform(-1, 1, shape).astype(dtype)
            for name, shape in (("W", (D, G * H, I)), ("R", (D, G * H, H)), ("B", (D, 2 * G * H)))}


def read(model, folder):
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return layers(folder / "model.onnx")


@pytest.fixture
def save(tmp_path):
    """Writes a model of the parts of its graph; gives the path."""
    def write(nodes, initializers=(), inputs=("X",), outputs=("Y",), functions=(), opset=OPSET, **properties):
        infos = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
                 for names in (inputs, outputs)]
        tensors = [numpy_helper.from_array(value, name) if isinstance(value, np.ndarray) else value
                   for name, value in dict(initializers).items()]
        model = helper.make_model(helper.make_graph(nodes, "graph", *infos, tensors), functions=functions, ir_version=8,
                                  opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("local", 1)])
        helper.set_model_props(model, properties)
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path
    return write


def lstm(name="", W="W", R="R", B="B", X="X", Y="Y", **attributes):
    return helper.make_node("LSTM", [X, W, R, B], [Y], name, **attributes)


def wanted(arrays, **options):
    """The LSTM of W, R and B, gates i, o, f, c: by hand."""
    def rows(a):
        i, o, f, c = np.split(a, 4)
        return np.concatenate([i, f, c, o])

    D, _, H = arrays["R"].shape
    parameters = {}
    for d, end in zip(range(D), ("_l0", "_l0_reverse")):
        parameters |= {f"weight_ih{end}": rows(arrays["W"][d]), f"weight_hh{end}": rows(arrays["R"][d]),
                       f"bias_ih{end}": rows(arrays["B"][d, :4 * H]), f"bias_hh{end}": rows(arrays["B"][d, 4 * H:])}
    dtype = np.result_type(*parameters.values())
    return fastrnn.LSTM.from_parameters(parameters, arrays["W"].shape[2], H, bidirectional=D == 2,
                                        dtype=dtype if dtype.itemsize > 2 else np.float32, **options)


def test_names(save):
    """Those of the nodes; unnamed ones are numbered, later ones of a name too."""
    a = weights()
    nodes = [lstm(), lstm("a"), lstm("a"), helper.make_node("GRU", ["X", "V", "S"], ["Z"]), lstm(), lstm("a_1"),
             lstm("LSTM_2"), lstm()]
    found = layers(save(nodes, a | {"V": a["W"][:, :6], "S": a["R"][:, :6]}))
    assert list(found) == ["LSTM_0", "a", "a_1", "GRU_0", "LSTM_1", "a_1_1", "LSTM_2", "LSTM_2_1"]
    assert_same_layer(found["a"], wanted(a))
    assert_same_layer(found["GRU_0"], fastrnn.GRU.from_parameters(
        {f"{name}_l0": array[0, [2, 3, 0, 1, 4, 5]] for name, array in (("weight_ih", a["W"]), ("weight_hh", a["R"]))},
        3, 2, bias=False, reset_after=False))


def test_nodes_that_share_everything_share_a_layer(save):
    nodes = [lstm("a"), lstm("b"), lstm("c", clip=1.0), lstm("d", B=""), lstm("e", clip=1.0)]
    found = layers(save(nodes, weights()))
    assert found["a"] is found["b"] and found["c"] is found["e"]
    assert len(set(map(id, found.values()))) == 3


def test_a_model_without_recurrent_nodes(save):
    path, skipped = save([helper.make_node("Relu", ["X"], ["Y"])]), {}
    with pytest.raises(ModelFormatError, match="no recurrent layer: its operators are Relu"):
        layers(path)
    assert layers(path, skipped) == {} and skipped == {"": "no recurrent layer: its operators are Relu"}
    path = save([helper.make_node("Relu", ["X"], ["Y"])], {"table": np.ones((3, 2), np.float32)})
    with pytest.raises(ModelFormatError, match=r"operators are Relu; its arrays are table \(3, 2\)\. .*from_arrays"):
        layers(path)


@pytest.mark.parametrize("attributes, options", [
    ({}, {}), ({"direction": "forward", "layout": 0, "input_forget": 0}, {}),
    ({"direction": "reverse"}, {"reverse": True}), ({"layout": 1}, {"batch_first": True}),
    ({"clip": 0.1}, {"clip": 0.1}), ({"input_forget": 1}, {"coupled_gates": True}),
    ({"activations": ["Sigmoid", "Tanh", "Tanh"]}, {}),
    ({"activations": ["HardSigmoid", "ScaledTanh", "Elu"], "activation_alpha": [0.25, 1.7], "activation_beta": [0.45]},
     {"activations": [("hard_sigmoid", 0.25, 0.45), ("scaled_tanh", 1.7, 1.0), ("elu", 1.0)]}),
])
def test_attributes(attributes, options, save):
    found, = layers(save([lstm(**attributes)], weights())).values()
    assert_same_layer(found, wanted(weights(), **options))


def test_attributes_of_others(save):
    a = weights("RNN")
    for attributes, options in (({"activations": ["Relu"]}, {"nonlinearity": "relu"}), ({}, {}),
                                ({"activations": ["Softsign"]}, {"activations": ["softsign"]})):
        node = helper.make_node("RNN", ["X", "W", "R", "B"], ["Y"], "rnn", **attributes)
        found = layers(save([node], a))["rnn"]
        assert_same_layer(found, fastrnn.RNN.from_parameters(
            {"weight_ih_l0": a["W"][0], "weight_hh_l0": a["R"][0], "bias_ih_l0": a["B"][0, :2],
             "bias_hh_l0": a["B"][0, 2:]}, 3, 2, **options))
    a = weights("GRU", D=2)
    for attributes, options in (({}, {"reset_after": False}), ({"linear_before_reset": 1}, {"reset_after": True})):
        node = helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], "gru", direction="bidirectional", **attributes)
        assert repr(layers(save([node], a))["gru"]) == repr(fastrnn.GRU(3, 2, bidirectional=True, **options))


def test_peepholes(save):
    a, P = weights(), np.arange(6, dtype=np.float32)[None]
    node = helper.make_node("LSTM", ["X", "W", "R", "", "", "", "", "P"], ["Y"])
    found, = layers(save([node], {"W": a["W"], "R": a["R"], "P": P})).values()
    assert found.peephole and not found.bias
    assert_same_bits(found.parameters["peephole_l0"], P[0, [0, 1, 4, 5, 2, 3]])         # i o f to i f o


# ---- Where weights stand --------------------------------------------------------------------------

KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16,
         "bfloat16": TensorProto.BFLOAT16}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_tensors_of_every_type(dtype, raw, save):
    """In raw_data, or in the fields of their types, where 16 bits stand as integers."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    a = {name: array.astype(kind) for name, array in weights().items()}
    tensors = {name: helper.make_tensor(name, KINDS[dtype], array.shape, array.tobytes() if raw else array.ravel(), raw)
               for name, array in a.items()}
    found, = layers(save([lstm()], tensors)).values()
    converted = {name: array.astype(dtype if dtype in ("float32", "float64") else np.float32)
                 for name, array in a.items()}
    assert_same_layer(found, wanted(converted))


def test_constants(save):
    """By the nodes Constant, as a tensor or a list of floats."""
    a = weights()
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, "t"))
             for name, array in a.items() if name != "B"]
    nodes += [helper.make_node("Constant", [], ["b"], value_floats=a["B"].ravel().tolist()),
              helper.make_node("Unsqueeze", ["b", "axes"], ["B"]), lstm(),
              helper.make_node("Constant", [], ["axes"], value_ints=[0])]
    assert_same_layer(layers(save(nodes))["LSTM_0"], wanted(a))


@pytest.mark.parametrize("opset", [11, 13])
def test_weights_are_followed_through_what_moves_them(opset, save):
    """Keras' kernels (float64, [I, G*H], gates i, f, c, o, one for each direction) on their way to W, R and B."""
    a, nodes, initializers = weights(D=2), [], {}

    def node(operator, inputs, output, **attributes):
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(*numbers):
        initializers[f"numbers_{len(initializers)}"] = np.array(numbers)
        return f"numbers_{len(initializers) - 1}"

    def axis(operator, x, number, output):
        """Squeeze and Unsqueeze: axes are an attribute in older operator sets."""
        if opset < 13:
            return node(operator, [x], output, axes=[number])
        return node(operator, [x, constant(number)], output)

    for name, array in a.items():
        both = []
        for d in range(2):
            blocks = array[d].reshape(2 if name == "B" else 1, 4, 2, -1)        # [biases, gates, H, columns]
            kernel, end = blocks[:, [0, 2, 3, 1]].astype(float), f"{name}_{d}"
            initializers[f"kernel_{end}"] = kernel.reshape(len(kernel), 8, -1).transpose(2, 1, 0)
            x = node("Cast", [f"kernel_{end}"], f"cast_{end}", to=TensorProto.FLOAT)
            x = node("Transpose", [x], f"rows_{end}", perm=[2, 1, 0])
            x = node("Identity", [x], f"same_{end}")
            gates = [node("Slice", [x, constant(2 * k), constant(2 * k + 2), constant(1)], f"gate_{k}_{end}")
                     for k in (0, 3, 1, 2)]
            x = node("Concat", gates, f"moved_{end}", axis=1)
            x = node("Reshape", [x, constant(*array.shape[1:])], f"flat_{end}")
            both.append(axis("Unsqueeze", x, 0, f"one_{end}"))
        x = axis("Unsqueeze", node("Concat", both, f"joined_{name}", axis=0), -1, f"wide_{name}")
        axis("Squeeze", x, -1, name)
    found = layers(save([*nodes, lstm(direction="bidirectional")], initializers, opset=opset))
    assert_same_layer(found["LSTM_0"], wanted(a))


def test_initializers_that_are_inputs_too(save):
    """As in files up to IR version 3."""
    assert_same_layer(layers(save([lstm()], weights(), inputs=("X", "W", "R", "B")))["LSTM_0"], wanted(weights()))


@pytest.mark.parametrize("nodes, inputs, reason", [
    ([], ("X", "W"), "W: 'W' is not a constant: it is an input of the graph"),
    ([], ("X",), "W: 'W' is not a constant: nothing in the graph gives it"),
    ([helper.make_node("Conv", ["B", "B"], ["W"], "product")], ("X",),
     "W: 'W' is not a constant: Conv node 'product' computes it"),
    ([helper.make_node("Identity", ["V"], ["W"]), helper.make_node("Softplus", ["X"], ["V"])], ("X",),
     "W: 'V' is not a constant: Softplus node '' computes it"),
    ([helper.make_node("Transpose", ["X"], ["W"])], ("X",), "W: 'X' is not a constant: it is an input of the graph"),
    ([helper.make_node("Foo", ["B"], ["W"], "f", domain="other")], ("X",),
     "W: 'W' is not a constant: Foo node 'f' computes it"),
    ([helper.make_node("Transpose", ["B"], ["W"], "t", perm=[0, 2])], ("X",), "W: Transpose node 't': "),
    ([helper.make_node("Reshape", ["B", "R"], ["W"], "r")], ("X",), "W: Reshape node 'r': "),
    ([helper.make_node("Concat", ["B", "R"], ["W"], "c")], ("X",), "W: Concat node 'c': "),
    ([helper.make_node("Cast", ["B"], ["W"], "c", to=TensorProto.STRING)], ("X",), "W: Cast node 'c': "),
    ([helper.make_node("Constant", [], ["W"], "c", value_string="x")], ("X",), "W: Constant node 'c': "),
    ([helper.make_node("Constant", [], ["W"], value_ints=[1])], ("X",), "W: expected 3 dimensions, got shape"),
])
def test_weights_that_are_no_constants_are_reported(nodes, inputs, reason, save):
    a = weights()
    path = save([*nodes, lstm("bad"), lstm("good", W="W2")], {"W2": a["W"], "R": a["R"], "B": a["B"]}, inputs)
    with pytest.raises(ModelFormatError) as raised:
        layers(path)
    assert str(path) in str(raised.value) and f"LSTM node 'bad': {reason}" in str(raised.value).replace('"', "'")
    skipped = {}
    assert_same_layer(layers(path, skipped)["good"], wanted(a))
    assert list(skipped) == ["bad"] and reason in skipped["bad"]


@pytest.mark.parametrize("attributes, message", [
    ({"hidden_size": 3}, r"W: expected shape \(1, 12, 3\), got \(1, 8, 3\)"),
    ({"direction": "sideways"}, "direction: expected one of 'forward'"),
    ({"direction": "bidirectional"}, r"W: expected shape \(2, 8, 3\)"), ({"layout": 3}, "layout: expected 0 or 1"),
    ({"clip": -1.0}, "clip: "), ({"clip": float("nan")}, "clip: "), ({"gamma": 1}, "gamma: LSTM has no such attribute"),
    ({"activations": ["Tanh"]}, "activations: expected 3, got 1"), ({"hidden_size": "2"}, "hidden_size: "),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": [float("inf")]}, "activation_alpha|elu"),
])
def test_nodes_that_make_no_layer_are_reported(attributes, message, save):
    with pytest.raises(ModelFormatError, match=f"LSTM node 'a': .*(?:{message})"):
        layers(save([lstm("a", **attributes)], weights()))


def test_weights_that_are_no_floats(save):
    with pytest.raises(ModelFormatError, match="LSTM node 'a': expected floating-point weights, got int32"):
        layers(save([lstm("a")], weights() | {"W": np.ones((1, 8, 3), np.int32)}))
    with pytest.raises(ModelFormatError, match="LSTM node 'a': W: a tensor of type 8 "):
        layers(save([lstm("a")], weights() | {"W": np.array([b"x"], object)}))


# ---- Where nodes stand ----------------------------------------------------------------------------

def subgraph(name, nodes, initializers=(), inputs=()):
    tensors = [numpy_helper.from_array(array, key) for key, array in dict(initializers).items()]
    infos = [helper.make_tensor_value_info(key, TensorProto.FLOAT, None) for key in (*inputs, "out")]
    return helper.make_graph(nodes, name, infos[:-1], infos[-1:], tensors)


def test_nodes_within_if_loop_and_scan(save):
    """Weights of their own, of the graph around, and of the one around that."""
    a, b = weights(), weights(rng=1)
    inner = subgraph("inner", [lstm("deep", B="B1", Y="out")], {"W": b["W"]})
    body = subgraph("body", [helper.make_node("Loop", ["", "", "X"], ["out"], body=inner)], {"B1": b["B"]}, ["X"])
    nodes = [helper.make_node("If", ["condition"], ["Y"], else_branch=subgraph("else", [lstm("no", Y="out")]),
                              then_branch=subgraph("then", [lstm("yes", Y="out", W="W1")], {"W1": b["W"]})),
             helper.make_node("Scan", ["X"], ["Z"], body=body, num_scan_inputs=1)]
    found = layers(save(nodes, a))
    assert list(found) == ["no", "yes", "deep"]
    assert_same_layer(found["no"], wanted(a))
    assert_same_layer(found["yes"], wanted(a | {"W": b["W"]}))
    assert_same_layer(found["deep"], wanted(a | {"W": b["W"], "B": b["B"]}))


def test_a_subgraphs_input_hides_a_constant(save):
    body = subgraph("body", [lstm("a", Y="out")], inputs=["W"])
    with pytest.raises(ModelFormatError, match="'a': W: 'W' is not a constant: it is an input of the graph"):
        layers(save([helper.make_node("Loop", ["", "", "X"], ["Y"], body=body)], weights()))


def function(name, nodes, inputs=(), attributes=(), defaults=()):
    return helper.make_function("local", name, list(inputs), ["out"], nodes, [helper.make_opsetid("", OPSET)],
                                list(attributes), list(defaults))


def referring(node, **attributes):
    """The node with attributes that it takes from those of the function around."""
    for name, (reference, kind) in attributes.items():
        node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=reference, type=kind))
    return node


def test_nodes_within_functions(save):
    """Called twice, with weights of the call or their own, attributes of the call or by default; and one in another."""
    a, b = weights(), weights(rng=1)
    body = referring(lstm("rnn", W="w", R="r", B="b", Y="out"), clip=("bound", onnx.AttributeProto.FLOAT),
                     direction=("way", onnx.AttributeProto.STRING))
    constant = helper.make_node("Constant", [], ["b"], value=numpy_helper.from_array(b["B"], ""))
    inner = function("inner", [constant, body], ["X", "w", "r"], ["bound"], [helper.make_attribute("way", "reverse")])
    call = referring(helper.make_node("inner", ["X", "w", "R2"], ["out"], domain="local", way="forward"),
                     bound=("limit", onnx.AttributeProto.FLOAT))
    swapped = helper.make_node("Constant", [], ["R2"], value=numpy_helper.from_array(b["R"], ""))
    outer = function("outer", [swapped, call], ["X", "w"], ["limit"])
    nodes = [helper.make_node("inner", ["X", "W", "R"], ["u"], "first", domain="local"),
             helper.make_node("inner", ["X", "W1", "R"], ["v"], "second", domain="local", bound=2.0),
             helper.make_node("outer", ["X", "W1"], ["Y"], "third", domain="local", limit=3.0)]
    found = layers(save(nodes, {"W": a["W"], "R": a["R"], "W1": b["W"]}, functions=[inner, outer]))
    assert list(found) == ["rnn", "rnn_1", "rnn_2"]
    assert_same_layer(found["rnn"], wanted(a | {"B": b["B"]}, reverse=True))
    assert_same_layer(found["rnn_1"], wanted({"W": b["W"], "R": a["R"], "B": b["B"]}, reverse=True, clip=2.0))
    assert_same_layer(found["rnn_2"], wanted(b, clip=3.0))


def test_functions_see_no_graph_around_and_no_input_that_is_not_given(save):
    for inputs, message in ((["X"], "W: 'W' is not a constant: nothing in the graph gives it"),
                            (["X", "W", "R", "B"], "W: it is missing")):
        inner = function("inner", [lstm("a", Y="out")], inputs)
        with pytest.raises(ModelFormatError, match=f"LSTM node 'a': {message}"):
            layers(save([helper.make_node("inner", ["X"], ["Y"], domain="local")], weights(), functions=[inner]))


def test_onnx_takes_these_models_for_whole(save):
    inner = function("inner", [lstm("a", Y="out")], ["X", "W", "R", "B"])
    path = save([helper.make_node("inner", ["X", "W", "R", "B"], ["Y"], domain="local")], weights(), functions=[inner])
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    assert_same_layer(layers(path)["a"], wanted(weights()))


# ---- Models that PyTorch wrote ----------------------------------------------------------------------

def torch_export(module, inputs, path, **options):
    """By the exporter that traces; its notices about what is traced, and that it is the older one, do not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), inputs, path, dynamo=False, input_names=["x"], **options)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True},
                                     {"num_layers": 3, "nonlinearity": "relu"}])
@pytest.mark.parametrize("cls", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
def test_models_of_pytorch(cls, options, folded, tmp_path):
    """A node for each layer, weights to the bit, also where the exporter leaves their reordering to nodes."""
    if cls is not torch.nn.RNN:
        options = {name: value for name, value in options.items() if name != "nonlinearity"}
    torch.manual_seed(0)
    module, x = cls(3, 4, **options), torch.randn(5, 2, 3)
    torch_export(module, (x,), tmp_path / "model.onnx", do_constant_folding=folded, opset_version=17)
    operators = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert ("Slice" in operators) != folded or cls is torch.nn.RNN
    found = layers(tmp_path / "model.onnx")
    assert len(found) == module.num_layers and all(name.endswith(("RNN", "GRU", "LSTM", "_1", "_2")) for name in found)
    parameters = {name.replace("_l0", f"_l{k}"): a for k, layer in enumerate(found.values())
                  for name, a in layer.parameters.items()}
    assert_same_bits(parameters, {name: value.numpy() for name, value in module.state_dict().items()})
    y = x.numpy().swapaxes(0, 1) if module.batch_first else x.numpy()
    last = []
    for layer in found.values():
        y, state = layer(y)
        last.append(as_parts(state))
    with torch.no_grad():
        output, state = module(x)
    wanted = {"output": output.numpy().swapaxes(0, 1) if module.batch_first else output.numpy()}
    wanted |= {f"{k}": part.numpy() for k, part in enumerate(as_parts(state))}
    assert_close({"output": y, **{f"{k}": np.concatenate(parts) for k, parts in enumerate(zip(*last))}}, wanted, 1e-5)


class Packed(torch.nn.Module):
    """A net around a recurrent layer that gets sequences of several lengths."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 3)
        self.encoder = torch.nn.GRU(3, 4, bidirectional=True)
        self.head = torch.nn.Linear(8, 2)

    def forward(self, x, lengths):
        packed = torch.nn.utils.rnn.pack_padded_sequence(self.embedding(x), lengths, enforce_sorted=False)
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(self.encoder(packed)[0])
        return self.head(output)


def test_a_net_of_pytorch_with_lengths(tmp_path):
    torch.manual_seed(0)
    module, x, lengths = Packed(), torch.randint(9, (5, 3)), torch.tensor([5, 2, 4])
    torch_export(module, (x, lengths), tmp_path / "model.onnx", opset_version=17)
    found = layers(tmp_path / "model.onnx")
    assert list(found) == ["/encoder/GRU"]
    assert_same_bits({f"encoder.{name}": a for name, a in found["/encoder/GRU"].parameters.items()},
                     {name: value.numpy() for name, value in module.state_dict().items() if "encoder" in name})


# ---- Layers written as models -----------------------------------------------------------------------

LAYERS = [
    (fastrnn.RNN, {}), (fastrnn.RNN, {"nonlinearity": "relu", "bias": False, "num_layers": 2}),
    (fastrnn.RNN, {"activations": ["softsign"], "clip": 0.4, "reverse": True, "batch_first": True}),
    (fastrnn.RNN, {"bidirectional": True, "activations": ["softplus", ("leaky_relu", 0.2)]}),
    (fastrnn.GRU, {}), (fastrnn.GRU, {"reset_after": False, "num_layers": 3, "bidirectional": True, "dropout": 0.5}),
    (fastrnn.GRU, {"update": "mirror", "bidirectional": True}),
    (fastrnn.GRU, {"update": "mirror", "reset_after": False, "activations": ["sigmoid", ("elu", 0.3)], "clip": 0.7}),
    (fastrnn.GRU, {"activations": [("hard_sigmoid", 0.25, 0.4), ("scaled_tanh", 1.2, 0.7)], "bidirectional": True}),
    (fastrnn.LSTM, {}), (fastrnn.LSTM, {"num_layers": 3, "batch_first": True, "bias": False}),
    (fastrnn.LSTM, {"bidirectional": True, "peephole": True, "num_layers": 2, "batch_first": True}),
    (fastrnn.LSTM, {"coupled_gates": True, "clip": 0.3, "reverse": True, "peephole": True}),
    (fastrnn.LSTM, {"bidirectional": True, "activations": [
        "hard_sigmoid", ("affine", 0.4, 0.1), ("thresholded_relu", 0.1), "sigmoid", "relu", "tanh"]}),
]
PARAMETERS = [pytest.param(cls, options, id=f"{cls.__name__}-{'-'.join(options)}") for cls, options in LAYERS]


def run(layer, x, state):
    output, last = layer(x, as_state(state))
    return {"output": output, **dict(zip(("h_n", "c_n"), as_parts(last)))}


def inputs(layer, shape, rng):
    """(x, state) for a layer of 3 inputs."""
    x = rng.standard_normal((*shape, 3)).astype(layer.dtype)
    rows = shape[0] if layer.batch_first else shape[1]
    size = (layer.num_layers * (1 + layer.bidirectional), rows, layer.hidden_size)
    return x, tuple(rng.standard_normal(size).astype(layer.dtype) for _ in range(1 + isinstance(layer, fastrnn.LSTM)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cls, options", PARAMETERS)
def test_export(cls, options, dtype, tmp_path):
    """onnx's checker takes it, ONNX Runtime (float32) and the Backend run it, and it comes back as it was."""
    rng, path = np.random.default_rng(0), tmp_path / "layer.onnx"
    layer = cls(3, 5, dtype=dtype, rng=1, **options)
    export(layer, path)
    model = onnx.load(path)
    assert path.read_bytes() == model.SerializeToString()           # as protobuf itself writes it
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count(cls.__name__) == layer.num_layers
    for shape in ((6, 4), (1, 2), (3, 1)):              # T and N are free
        x, state = inputs(layer, shape, rng)
        given, wanted = {"x": x, **dict(zip(("h_0", "c_0"), state))}, run(layer, x, state)
        assert_close(Backend.run_model(model, given)._asdict(), wanted, 1e-6)
        if dtype == np.float32:
            assert_close(run_in_onnxruntime(model, given), wanted, 1e-5)
    found = layers(path)
    assert list(found) == [cls.__name__]
    assert_same_layer(found[cls.__name__], layer)


def test_what_an_export_looks_like(tmp_path):
    export(fastrnn.LSTM(3, 5, 2, batch_first=True), tmp_path / "layer.onnx")
    graph = onnx.load(tmp_path / "layer.onnx").graph
    shapes = {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
              for value in (*graph.input, *graph.output)}
    assert shapes == {"x": ["N", "T", 3], "h_0": [2, "N", 5], "c_0": [2, "N", 5],
                      "output": ["N", "T", 5], "h_n": [2, "N", 5], "c_n": [2, "N", 5]}


def test_exports_of_special_numbers_come_back(tmp_path):
    """Negated and back, reordered and back: infinities, NaN and both zeros."""
    for layer in (fastrnn.GRU(2, 3, update="mirror", rng=0), fastrnn.LSTM(2, 3, rng=0)):
        with layer.updating() as parameters:
            for a in parameters.values():
                a.flat[::2] = np.resize([np.inf, -np.inf, 0.0, -0.0, np.nan], a.flat[::2].shape)
        export(layer, tmp_path / "layer.onnx")
        assert_same_layer(layers(tmp_path / "layer.onnx")[type(layer).__name__], layer)


def test_alpha_beta_and_clip_are_float32_in_the_nodes_and_whole_in_the_metadata(tmp_path):
    layer = fastrnn.RNN(2, 3, activations=[("affine", 1 / 3, 1e-3)], clip=1 / 7, dtype=np.float64, rng=0)
    export(layer, tmp_path / "layer.onnx")
    assert_same_layer(layers(tmp_path / "layer.onnx")["RNN"], layer)
    model = onnx.load(tmp_path / "layer.onnx")
    del model.metadata_props[:]
    found = read(model, tmp_path)["RNN_0"]
    assert found.activations == (("affine", 0.33333334, 0.001),) and found.clip == 0.14285715


def test_an_export_without_its_metadata_gives_its_nodes(tmp_path):
    layer = fastrnn.GRU(2, 3, 2, update="mirror", batch_first=True, rng=0)
    export(layer, tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    del model.metadata_props[:]
    found = read(model, tmp_path)
    assert {name: repr(one) for name, one in found.items()} == {"GRU_0": "GRU(2, 3)", "GRU_1": "GRU(3, 3)"}
    x = np.random.default_rng(0).standard_normal((4, 6, 2)).astype(np.float32)
    y = found["GRU_1"](found["GRU_0"](x.swapaxes(0, 1))[0])[0]
    assert_close({"y": y.swapaxes(0, 1)}, {"y": layer(x)[0]}, 1e-6)


@pytest.mark.parametrize("change", ["name", "attribute", "one more", "one less"])
def test_an_export_that_was_changed_gives_its_nodes(change, tmp_path):
    export(fastrnn.RNN(2, 2, 2, rng=0), tmp_path / "layer.onnx")
    model = onnx.load(tmp_path / "layer.onnx")
    nodes = [node for node in model.graph.node if node.op_type == "RNN"]
    if change == "name":
        nodes[0].name = "other"
    elif change == "attribute":
        nodes[1].attribute.append(helper.make_attribute("clip", 1.0))
    elif change == "one more":
        model.graph.node.append(nodes[1])
    else:
        model.graph.node.remove(nodes[1])
    found = read(model, tmp_path)
    assert "RNN" not in found and len(found) == {"one more": 3, "one less": 1}.get(change, 2)


def test_metadata_that_lie(save, tmp_path):
    export(fastrnn.RNN(2, 2, rng=0), tmp_path / "layer.onnx")
    text = onnx.load(tmp_path / "layer.onnx").metadata_props[0].value
    for old, new, message in (('"dtype": "float32"', '"dtype": "float16"', "dtype: expected float32 or float64"),
                              ('"input_size": 2', '"input_size": 3', "weight_ih_l0: expected shape"),
                              ('"version": 1', '"version": 2', "version 1"), ("{", "", "JSONDecodeError"),
                              ('"hidden_size": 2', '"hidden_size": 1e9', "hidden_size: expected an int")):
        assert text.count(old) == 1
        model = onnx.load(tmp_path / "layer.onnx")
        model.metadata_props[0].value = text.replace(old, new, 1)
        with pytest.raises(ModelFormatError, match=message):
            read(model, tmp_path)
    for text, message in (("[]", "version 1"), ('{"version": 1, "version": 1}', "twice"), ("[" * 10**5, "Recursion")):
        with pytest.raises(ModelFormatError, match=message):
            layers(save([lstm("LSTM_0")], weights(), fastrnn=text))
    for text in ('{"version": 1}', '{"version": 1, "class": "RNN", "num_layers": 1}'):
        assert list(layers(save([lstm("LSTM_0")], weights(), fastrnn=text))) == ["LSTM_0"]


@pytest.mark.parametrize("layer, error, message", [
    (fastrnn.LSTM(2, 3, proj_size=1), ValueError, "layer: ONNX's LSTM has no projection, got proj_size=1"),
    (fastrnn.GRU(2, 3, update="mirror", activations=["hard_sigmoid", "tanh"]), ValueError, "layer: .*update='mirror'"),
    (fastrnn.GRU(2, 3, update="mirror", bidirectional=True, activations=["sigmoid", "tanh", "relu", "tanh"]),
     ValueError, "layer: .*update='mirror'"),
    (fastrnn.LSTM(2, 3, clip=1e-50), ValueError, "clip: 1e-50 is beyond float32"),
    (fastrnn.RNN(2, 3, activations=[("elu", 1e39)]), ValueError, "activation_alpha: 1e[+]39 is beyond float32"),
    (fastrnn.LSTMCell(2, 3), TypeError, "layer: expected an RNN, GRU or LSTM, got LSTMCell"),
    (None, TypeError, "layer: expected an RNN, GRU or LSTM, got NoneType"),
])
def test_what_onnx_cannot_express(layer, error, message, tmp_path):
    (tmp_path / "layer.onnx").write_bytes(b"before")
    with pytest.raises(error, match=message):
        export(layer, tmp_path / "layer.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["layer.onnx"]
    assert (tmp_path / "layer.onnx").read_bytes() == b"before"
