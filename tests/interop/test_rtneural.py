"""RTNeural's JSON models: both dialects against the outputs that came with them, and broken files."""

import json
import re

import mutations
import numpy as np
import pytest
import torch
from helpers import assert_same_bits

import fastrnn
from fastrnn import interop
from fastrnn.interop import rtneural

ACTIVATIONS = {"": lambda x: x, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


# ---- Real models ------------------------------------------------------------------------------------

def run_keras(model, layers, x):
    """The whole net: dense layers in plain NumPy, recurrent ones by fastrnn."""
    for index, entry in enumerate(model["layers"]):
        if entry["type"] in ("dense", "time-distributed-dense"):
            kernel, bias = (np.array(w, np.float32) for w in entry["weights"])
            x = ACTIVATIONS[entry["activation"]](x @ kernel + bias)
        else:
            x = layers[f"layers.{index}"](x)[0]
    return x


def run_torch(model, layers, x):
    for layer in layers.values():
        x = layer(x)[0]
    return x @ np.array(model["dense.weight"], np.float32).T + np.array(model["dense.bias"], np.float32)


@pytest.mark.parametrize("name, held", [
    ("gru", {"layers.1": "GRU(8, 8)"}), ("gru_1d", {"layers.0": "GRU(1, 8)"}),
    ("lstm", {"layers.1": "LSTM(8, 8)"}), ("lstm_1d", {"layers.0": "LSTM(1, 8)"}),
    ("gru_torch", {"gru": "GRU(1, 8)", "gru2": "GRU(8, 8, num_layers=3)"}),
    ("lstm_torch", {"lstm": "LSTM(1, 8)", "lstm2": "LSTM(8, 8, num_layers=3)"}),
])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_models(name, held, dtype, data_dir):
    path = data_dir / "rtneural" / f"{name}.json"
    layers = interop.layers(path, dtype=dtype)
    suffix = ", dtype=float64)" * (dtype == np.float64)
    assert {key: repr(layer) for key, layer in layers.items()} == {
        key: (about[:-1] + suffix if suffix else about) for key, about in held.items()}
    x, y = (np.loadtxt(path.with_name(f"{name}_{which}_python.csv"), dtype, delimiter=",", ndmin=2).reshape(-1, 1)
            for which in "xy")
    model = json.loads(path.read_text())
    found = (run_keras if "layers" in model else run_torch)(model, layers, x)
    assert found.shape == y.shape and len(y) >= 100
    assert np.abs(found - y).max() <= 1e-5


# ---- Dialects, made here ----------------------------------------------------------------------------

def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def keras_model(kind="lstm", **entry):
    gates = {"gru": 3, "lstm": 4}[kind]
    weights = [numbers(2, gates * 3), numbers(3, gates * 3, seed=1),
               numbers(*((2, 9) if kind == "gru" else (12,)), seed=2)]
    dense = {"type": "dense", "activation": "relu", "shape": [None, None, 2], "weights": [[[1, 0], [0, 1]], [0, 0]]}
    recurrent = {"type": kind, "activation": "tanh", "shape": [None, None, 3], "weights": [w.tolist() for w in weights]}
    return {"in_shape": [None, None, 2], "layers": [dense, recurrent | entry]}


def write(path, model):
    path.write_text(json.dumps(model))
    return path


def torch_state(module, prefix=""):
    return {prefix + name: a.tolist() for name, a in module.state_dict().items()}


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_kerass_gates_and_biases(kind, tmp_path):
    """One step by Keras' equations, written out: order z, r, h and i, f, c, o; the GRU's second bias within r."""
    model = keras_model(kind)
    layer = interop.layers(write(tmp_path / "model.json", model), dtype=np.float64)["layers.1"]
    x, h, c = (numbers(size, seed=seed).astype(float) for size, seed in ((2, 3), (3, 4), (3, 5)))
    W, U, b = (np.array(w) for w in model["layers"][1]["weights"])
    s = ACTIVATIONS["sigmoid"]
    if kind == "gru":
        (xz, xr, xh), (hz, hr, hh) = np.split(x @ W + b[0], 3), np.split(h @ U + b[1], 3)
        z = s(xz + hz)
        expected = z * h + (1 - z) * np.tanh(xh + s(xr + hr) * hh)
        found = layer(x[None], h[None])[0][0]
    else:
        i, f, g, o = np.split(x @ W + h @ U + b, 4)
        expected = s(o) * np.tanh(s(f) * c + s(i) * np.tanh(g))
        found = layer(x[None], (h[None], c[None]))[0][0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_layer_without_bias(tmp_path):
    for kind in ("gru", "lstm"):
        model = keras_model(kind)
        del model["layers"][1]["weights"][2]
        assert "bias=False" in repr(interop.layers(write(tmp_path / "model.json", model))["layers.1"])


def test_torchs_dialect_and_amplifier_models(tmp_path):
    """A state_dict as it is, or under "state_dict" beside "model_data" (guitar amplifier models)."""
    torch.manual_seed(0)
    module = torch.nn.LSTM(1, 4, 2)
    arrays = torch_state(module, "rec.") | {"lin.weight": numbers(1, 4).tolist(), "lin.bias": [0.5]}
    about = {"model": "SimpleRNN", "unit_type": "LSTM", "hidden_size": 4, "num_layers": 2}
    for model in (arrays, {"model_data": about, "state_dict": arrays}):
        found = interop.layers(write(tmp_path / "model.json", model))
        assert repr(found) == "{'rec': LSTM(1, 4, num_layers=2)}"
        assert_same_bits(dict(found["rec"].parameters), {name: a.numpy() for name, a in module.state_dict().items()})


def test_torchs_dialect_does_not_tell_relu(tmp_path):
    module = torch.nn.RNN(2, 3, nonlinearity="relu")
    path = write(tmp_path / "model.json", torch_state(module, "rnn."))
    x = numbers(5, 2)
    layer = interop.layers(path, nonlinearity="relu", batch_first=True)["rnn"]
    with torch.no_grad():
        np.testing.assert_allclose(layer(x)[0], module(torch.from_numpy(x))[0], rtol=0, atol=1e-6)
    assert repr(interop.layers(path)["rnn"]) == "RNN(2, 3)"


def test_a_stored_activation_that_rtneural_ignores_must_be_told(tmp_path):
    for activation in ("", "tanh"):
        path = write(tmp_path / "model.json", keras_model(activation=activation))
        assert repr(interop.layers(path)) == "{'layers.1': LSTM(2, 3)}"
    path = write(tmp_path / "model.json", keras_model(activation="relu"))
    with pytest.raises(fastrnn.ModelFormatError, match=r"model\.json: layers\.1: activation 'relu'.*activations="):
        interop.layers(path)
    skipped = {}
    assert interop.layers(path, skipped) == {} and list(skipped) == ["layers.1"]
    assert repr(interop.layers(path, activations=["sigmoid", "tanh", "tanh"])) == "{'layers.1': LSTM(2, 3)}"
    found = interop.layers(path, activations=["sigmoid", "relu", "relu"])["layers.1"]
    assert [name for name, *_ in found.activations] == ["sigmoid", "relu", "relu"]


def test_options_that_there_are_not(tmp_path):
    path = write(tmp_path / "model.json", keras_model())
    with pytest.raises(TypeError, match="colour"):
        interop.layers(path, colour="blue")


@pytest.mark.parametrize("model, match", [
    ({"layers": []}, "its layers are none at all"), ({"layers": keras_model()["layers"][:1]}, "its layers are dense"),
    ({}, "not of RTNeural"), ({"a": 1, "b": "text"}, "not of RTNeural.* a, b"),
    ({"dense.weight": [[1.0]]}, r"dense\.weight \(1, 1\).*from_arrays"),
], ids=repr)
def test_a_model_without_recurrent_layers_says_what_it_has(model, match, tmp_path):
    path, skipped = write(tmp_path / "model.json", model), {}
    with pytest.raises(fastrnn.ModelFormatError, match=rf"model\.json: .*{match}"):
        interop.layers(path)
    if "not of" not in match:
        assert interop.layers(path, skipped) == {} and re.search(match, skipped[""])


# ---- Broken files -------------------------------------------------------------------------------------

W, U, B = (w for w in keras_model("gru")["layers"][1]["weights"])
STATE = {"weight_ih_l0": np.ones((9, 2)).tolist(), "weight_hh_l0": np.ones((9, 3)).tolist()}
BROKEN = {
    "layers null": {"layers": None}, "layers object": {"layers": {}}, "layers of numbers": {"layers": [1]},
    "no weights": keras_model(weights=None), "weights empty": keras_model(weights=[]),
    "weights object": keras_model(weights={"a": 1}), "one weight": keras_model("gru", weights=[W]),
    "four weights": keras_model("gru", weights=[W, U, B, B]), "weights numbers": keras_model(weights=[1, 2, 3]),
    "kernel flat": keras_model("gru", weights=[W[0], U, B]),
    "kernel ragged": keras_model("gru", weights=[[[1], [1, 2]], U, B]),
    "kernel of three axes": keras_model("gru", weights=[[W], U, B]),
    "kernel empty": keras_model("gru", weights=[[], U, B]),
    "kernel rows empty": keras_model("gru", weights=[[[], []], U, B]),
    "recurrent of other width": keras_model("gru", weights=[W, [row[:-3] for row in U], B]),
    "recurrent of other height": keras_model("gru", weights=[W, U[:-1], B]),
    "bias of one row": keras_model("gru", weights=[W, U, B[0]]),
    "bias of three rows": keras_model("gru", weights=[W, U, B + B[:1]]),
    "bias narrow": keras_model("gru", weights=[W, U, [row[:-1] for row in B]]),
    "gru weights in an lstm": keras_model("gru", type="lstm"),
    "lstm weights in a gru": keras_model("lstm", type="gru"),
    "text": keras_model("gru", weights=[W, U, [["a"] * 9] * 2]),
    "text that is a number": keras_model("gru", weights=[W, U, "1"]),
    "null": keras_model("gru", weights=[W, U, [[None] * 9] * 2]),
    "object": keras_model("gru", weights=[W, U, [[{}] * 9] * 2]),
    "past float32": keras_model("gru", weights=[W, U, [[1e39] * 9] * 2]),
    "past float64": keras_model("gru", weights=[W, U, [[10**400] * 9] * 2]),
    "activation list": keras_model(activation=[]), "activation unknown": keras_model(activation="hard_sigmoid"),
    "state null": {"state_dict": None}, "state list": {"state_dict": []},
    "matrix flat": STATE | {"weight_ih_l0": [1, 2, 3]}, "matrix ragged": STATE | {"weight_ih_l0": [[1, 2], [1]]},
    "matrix missing": {"weight_ih_l0": STATE["weight_ih_l0"]},
    "sizes of no cell": STATE | {"weight_hh_l0": np.ones((9, 4)).tolist()},
    "bias missing": STATE | {"bias_ih_l0": [1] * 9}, "number": STATE | {"bias_ih_l0": 3},
    "layer 10**9": STATE | {"bias_ih_l1000000000": [1]},
    "layer of 5000 digits": STATE | {"bias_ih_l" + "9" * 5000: [1]},
    "deep lists": STATE | {"bias_ih_l0": json.loads("[" * 500 + "]" * 500)},
}


@pytest.mark.parametrize("about", BROKEN)
def test_models_that_make_no_sense(about, tmp_path):
    mutations.assert_refuses(rtneural.layers, json.dumps(BROKEN[about]).encode(), tmp_path / "model.json")


GOOD = json.dumps(keras_model("gru")).encode()
TEXTS = {
    "empty": b"", "null": b"null", "list": b"[]", "number": b"3", "text": b'"layers"', "open": b"{", "two": b"{}{}",
    "comment": b"// no\n{}", "quotes": b"{'layers': []}", "comma": b'{"layers": [],}', "not UTF-8": b'{"\xff": 1}',
    "UTF-7 mark": b"+/v8{}", "null byte": b"{}\0", "name twice": b'{"layers": [], "layers": []}',
    "lists": b"[" * 10**6, "objects": b'{"layers":' * 10**5, "lists in a model": b'{"layers": ' + b"[" * 10**6,
    "lists, closed": b'{"layers": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
    "NaN": GOOD.replace(b"-0.", b"NaN, 0.", 1), "Infinity": GOOD.replace(b"-0.", b"Infinity, 0.", 1),
    "-Infinity": GOOD.replace(b"-0.", b"-Infinity, 0.", 1), "1e999": GOOD.replace(b"-0.", b"1e999, 0.", 1),
    "digits": GOOD.replace(b"-0.", b"9" * 10**5 + b", 0.", 1),
    "digits after the point": GOOD.replace(b"-0.", b"-0." + b"1" * 10**5 + b", 0.", 1),
}


@pytest.mark.parametrize("about", TEXTS)
def test_texts_that_are_no_json_model(about, tmp_path):
    assert TEXTS[about] != GOOD
    mutations.assert_refuses(rtneural.layers, TEXTS[about], tmp_path / "model.json", times=40)


def test_one_long_text_among_short_ones_takes_no_square_of_memory(tmp_path):
    """NumPy would make every element as long as the longest."""
    model = keras_model("gru", weights=[W, U, [["a" * 10**5] + ["b"] * 10**4] * 2])
    mutations.assert_refuses(rtneural.layers, json.dumps(model).encode(), tmp_path / "model.json", times=40)


@pytest.mark.parametrize("part", ["[]", "{}", "[0]"])
def test_lists_by_the_million_are_refused_before_they_are_made(part, tmp_path):
    """An empty list of 3 bytes in a file takes 70 in memory."""
    text = json.dumps(keras_model("gru", weights=[W, U, "PART"])).replace('"PART"', f"[{','.join([part] * 10**6)}]")
    mutations.assert_refuses(rtneural.layers, text.encode(), tmp_path / "model.json", times=10)


SMALL = {
    "keras": {"in_shape": [None, 1], "layers": [{"type": "gru", "activation": "tanh", "shape": [None, 1], "weights": [
        [[0.5, -1e-3, 2]], [[1, 0.25, -3.0]], [[0, 1, 2], [0.125, 2e1, -0.5]]]}]},
    "torch": {"state_dict": {"rnn.weight_ih_l0": [[0.5, 1e-3], [1, 2]], "rnn.weight_hh_l0": [[1, 2], [-3, 0]],
                             "rnn.bias_ih_l0": [1, -0.5], "rnn.bias_hh_l0": [0.25, 0]}},
}


@pytest.mark.parametrize("dialect", SMALL)
def test_cut_at_every_byte_and_mutated(dialect, tmp_path):
    path, rng, refused = tmp_path / "model.json", mutations.generator(0), 0
    assert len(rtneural.layers(write(path, SMALL[dialect]))) == 1
    data = path.read_bytes()
    for broken in mutations.truncations(data):
        mutations.assert_refuses(rtneural.layers, broken, path, times=40)
    for broken in mutations.mixed(data, rng, mutations.COUNT, header=len(data)):
        refused += mutations.assert_refuses_or_loads(rtneural.layers, broken, path, times=40) is not None
    assert refused > mutations.COUNT // 2
