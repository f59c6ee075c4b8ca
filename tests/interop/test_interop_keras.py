"""Keras files: those that Keras 3 writes against its outputs; those of Keras 1 and 2, laid out here as these wrote
them, against their equations in NumPy; and the chars2vec model against its package."""


import re

import numpy as np
import pytest
from child import python
from keras_files import ACTIVATIONS, CLASSES, MERGES, UNKNOWN, H, I, plain_cases
from keras_layouts import drawn, named, sequential, write_named, write_zip

import fastrnn
from fastrnn import ModelFormatError
from fastrnn.interop import keras

TOLERANCE = 1e-5
FORMATS = (".keras", ".h5")


def assert_within(got, want):
    assert got.shape == want.shape
    difference, bound = np.max(np.abs(got - want)), TOLERANCE * max(1, np.max(np.abs(want)))
    assert difference <= bound, f"largest difference {difference:.3e} (bound {bound:.3e})"


def through(x, *layers):
    """What layers give one after the other."""
    for layer in layers:
        assert layer.batch_first
        x = layer(x.astype(layer.dtype))[0]
    return x


@pytest.fixture(scope="module")
def outputs(keras_folder):
    def load(name):
        with np.load(keras_folder / f"{name}.npz") as arrays:
            return dict(arrays)
    return load


@pytest.fixture(scope="module", params=FORMATS)
def every(request, keras_folder):
    """The layers of the large model in a format with a configuration."""
    return keras.layers(keras_folder / f"all{request.param}")


@pytest.fixture(scope="module")
def want(outputs):
    return outputs("all")


# ---- What Keras 3 writes ------------------------------------------------------------------------------

@pytest.mark.parametrize("name", dict(plain_cases()))
def test_layers(every, want, name):
    layer = every[name]
    assert type(layer) is {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}[name.partition("_")[0]]
    output = through(want["x"], layer)
    assert layer.reverse == name.endswith("_backwards")
    assert layer.bias == (not name.endswith("_no_bias"))
    assert getattr(layer, "reset_after", None) in (None, "before" not in name)
    assert_within(output[:, ::-1] if layer.reverse else output, want[name])


def test_default_layers_have_default_activations(every):
    assert every["lstm"].activations is every["gru"].activations is every["rnn"].activations is None
    assert every["rnn_of_relu"].nonlinearity == "relu"
    assert repr(every["gru_dropout"]) == "GRU(5, 4, batch_first=True)"


@pytest.mark.parametrize("name", [*(f"both_{kind}" for kind in CLASSES), "both_before", "both_activations"])
def test_bidirectional(every, want, name):
    assert every[name].bidirectional
    assert_within(through(want["x"], every[name]), want[name])


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("merge", MERGES)
def test_other_merges_are_two_layers(every, want, kind, merge):
    name = f"{merge}_{kind}"
    assert name not in every
    first, second = (through(want["x"], every[f"{name}/{way}_layer"]) for way in ("forward", "backward"))
    assert_within({"sum": first + second, "mul": first * second, "ave": (first + second) / 2}[merge], want[name])


def test_directions_that_are_not_alike_are_two_layers(every, want):
    first, second = (through(want["x"], every[f"unlike/{way}_layer"]) for way in ("forward", "backward"))
    assert_within(np.concatenate([first, second], -1), want["unlike"])


def test_bidirectional_of_a_layer_that_goes_backwards(every, want):
    """Keras leaves the first as it is, in the order of computation, and turns the second."""
    first, second = (every[f"turned/{way}_layer"] for way in ("forward", "backward"))
    assert first.reverse and not second.reverse
    assert_within(np.concatenate([through(want["x"], first)[:, ::-1], through(want["x"], second)[:, ::-1]], -1),
                  want["turned"])


def test_cells(every, want):
    assert_within(through(want["x"], every["cell"]), want["cell"])
    assert every["cell_backwards"].reverse
    assert_within(through(want["x"], every["cell_backwards"])[:, ::-1], want["cell_backwards"])


def test_stacked_cells(every, want):
    assert every["stack"].num_layers == 3
    assert_within(through(want["x"], every["stack"]), want["stack"])
    assert_within(through(want["x"], every["mixed/low"], every["mixed/high"]), want["mixed"])
    both = [through(want["x"], every[f"both_stack/{way}_layer"]) for way in ("forward", "backward")]
    assert every["both_stack/forward_layer"].num_layers == 2
    assert_within(np.concatenate(both, -1), want["both_stack"])


@pytest.mark.parametrize("name", ["layer_as_activation", "elu_as_activation", "relu_as_activation", "double"])
def test_other_options(every, want, name):
    assert every[name].dtype == (np.float64 if name == "double" else np.float32)
    assert_within(through(want["x"], every[name]), want[name])


@pytest.mark.parametrize("name, path", [
    ("functional", ["functional/first", "functional/last"]), ("lambda", ["lambda/after"]),
    ("partly_frozen", ["partly_frozen/frozen", "partly_frozen/free"]),
    ("nested", ["nested/first", "nested/inner/second", "nested/inner/both"])])
def test_models_in_models(every, want, name, path):
    """partly_frozen: weights that are not trained stand last in .h5. A Lambda is passed over, and here adds 1."""
    assert_within(through(want["x"] + (name == "lambda"), *(every[key] for key in path)), want[name])


def test_wrapped_layers(every, want):
    n, t, i = want["x"].shape
    output = through(want["x"].reshape(n * 2, t // 2, i), every["distributed/within"])
    assert_within(output.reshape(want["distributed"].shape), want["distributed"])


def test_both_formats_hold_the_same(keras_folder):
    zipped, legacy = (keras.layers(keras_folder / f"all{ending}") for ending in FORMATS)
    assert list(zipped) == list(legacy)
    for name, layer in zipped.items():
        assert repr(layer) == repr(legacy[name])
        for key, value in layer.parameters.items():
            assert np.array_equal(value, legacy[name].parameters[key])


def test_weights_alone(keras_folder, want):
    """What they do not tell is Keras' default; a direction cannot be told, nor how two are merged."""
    zipped, alone = keras.layers(keras_folder / "all.keras"), keras.layers(keras_folder / "all.weights.h5")
    for name in ("lstm", "gru", "rnn", "lstm_no_bias", "gru_before", "both_lstm", "both_gru", "both_rnn", "double",
                 "cell", "nested/first", "nested/inner/second", "nested/inner/both", "distributed/within"):
        assert repr(alone[name]) == repr(zipped[name])
        for key, value in zipped[name].parameters.items():
            assert np.array_equal(alone[name].parameters[key], value)
        if name in want:
            assert_within(through(want["x"], alone[name]), want[name])
    assert repr(alone["lstm_by_hard_sigmoid"]) == repr(alone["lstm_backwards"]) == repr(alone["lstm"])
    assert repr(alone["sum_lstm"]) == repr(alone["both_lstm"])
    for key, value in zipped["gru_backwards"].parameters.items():
        assert np.array_equal(alone["gru_backwards"].parameters[key], value)
    assert {f"stack/{name}" for name in ("lstm_cell", "lstm_cell_1", "lstm_cell_2")} <= set(alone)
    assert alone["both_stack/backward_layer/gru_cell_1"].reverse


@pytest.mark.parametrize("option, kind", [("activation", kind) for kind in CLASSES] + [
    ("recurrent_activation", "lstm"), ("recurrent_activation", "gru")])
@pytest.mark.parametrize("value", ACTIVATIONS)
def test_options_for_weights_alone(keras_folder, want, option, kind, value):
    layer = keras.layers(keras_folder / "all.weights.h5", **{option: value})[
        f"{kind}_{'of' if option == 'activation' else 'by'}_{value}"]
    assert_within(through(want["x"], layer), want[f"{kind}_{'of' if option == 'activation' else 'by'}_{value}"])


def test_reset_after_of_weights_alone(keras_folder):
    """The bias tells it; without one, the option, else the default."""
    path = keras_folder / "all.weights.h5"
    assert not keras.layers(path, reset_after=True)["gru_before"].reset_after
    assert keras.layers(path, reset_after=False)["gru"].reset_after
    assert keras.layers(path)["gru_before_no_bias"].reset_after
    assert not keras.layers(path, reset_after=False)["gru_before_no_bias"].reset_after


def test_classes_of_ones_own(keras_folder, outputs):
    """Their configuration does not name their layers: inferred, by names and attributes."""
    want = outputs("own")
    for ending in (".keras", ".weights.h5"):
        found = keras.layers(keras_folder / f"own{ending}")
        assert len(found) == 2
        encoder = found.pop("encoder_name")
        assert_within(through(want["x"], encoder), want["encoder"])
        assert_within(through(want["x"], encoder, *found.values()), want["heads"])


def test_bfloat16(keras_folder, outputs):
    """Weights of 16 bits come as float32, exactly."""
    layer, arrays = keras.layers(keras_folder / "half.weights.h5")["half"], outputs("half")
    assert layer.dtype == np.float32
    assert np.array_equal(layer.parameters["weight_ih_l0"], arrays["arr_0"].T)
    assert np.array_equal(layer.parameters["weight_hh_l0"], arrays["arr_1"].T)
    assert np.array_equal(layer.parameters["bias_ih_l0"], arrays["arr_2"])
    assert np.all(arrays["arr_2"][:4]) and len({value for a in arrays.values() for value in a.ravel()}) > 40


# ---- What cannot be represented -----------------------------------------------------------------------

@pytest.mark.parametrize("ending", FORMATS)
def test_what_cannot_be_represented_is_skipped_with_its_reason(keras_folder, outputs, ending):
    skipped, want = {}, outputs("refused")
    found = keras.layers(keras_folder / f"refused{ending}", skipped)
    assert list(found) == ["good"]
    assert_within(through(want["x"], found["good"]), want["good"])
    expected = {f"lstm_of_{name}": f"activation {name.replace('swish', 'silu')!r} is none" for name in UNKNOWN} | {
        "gru_by_gelu": "activation 'gelu' is none", "both_of_gelu": "activation 'gelu' is none",
        "own_cell": "class 'OwnCell' is none", "own_function": "activation 'own' is none",
        "limited": "activation 'ReLU' with max_value 2.0,", "convolutional/conv": "class 'ConvLSTM1D' is convolutional"}
    assert {name: reason[:len(expected[name])] for name, reason in skipped.items()} == expected


@pytest.mark.parametrize("ending", FORMATS)
def test_otherwise_the_first_is_an_error(keras_folder, ending):
    skipped = {}
    keras.layers(keras_folder / f"refused{ending}", skipped)
    with pytest.raises(ModelFormatError) as caught:
        keras.layers(keras_folder / f"refused{ending}")
    name, reason = next(iter(skipped.items()))
    assert str(caught.value) == f"{keras_folder / f'refused{ending}'}: layer {name!r}: {reason}"


def derived(tmp_path, **options):
    """A file of a Sequential of one layer of a class of one's own, as Keras writes it, and its arrays."""
    rng = np.random.default_rng(0)
    arrays = {"kernel": rng.standard_normal((3, 16), np.float32), "bias": rng.standard_normal(16, np.float32),
              "recurrent_kernel": rng.standard_normal((4, 16), np.float32)}
    config = {"units": 4, "activation": "tanh", "recurrent_activation": "sigmoid", "unit_forget_bias": True,
              "recurrent_initializer": {}, "use_bias": True, **options}
    write_named(tmp_path / "model.h5", {"mine": {f"mine/lstm_cell/{name}:0": a for name, a in arrays.items()}},
                config=sequential(("mine", "Custom>Mine", config)))
    return tmp_path / "model.h5", arrays


def test_a_class_of_ones_own_has_the_options_that_are_stored(tmp_path):
    path, _ = derived(tmp_path)
    assert repr(keras.layers(path)) == "{'mine': LSTM(3, 4, batch_first=True)}"
    path, _ = derived(tmp_path, activation="relu", go_backwards=True)
    layer = keras.layers(path)["mine"]
    assert layer.reverse and [name for name, *_ in layer.activations] == ["sigmoid", "relu", "relu"]


def test_a_class_of_ones_own_with_other_options_is_refused(tmp_path):
    path, _ = derived(tmp_path, zoneout=0.1, levels=2)
    skipped = {}
    assert keras.layers(path, skipped) == {} and list(skipped) == ["mine"]
    assert re.search(r"class 'Custom>Mine' has options .*levels, zoneout", skipped["mine"])
    for options, match in (({"activation": "mine"}, "activation 'mine'"), ({"units": 5}, "5 units, but weights of 4"),
                           ({"use_bias": False}, "use_bias is False, but there is a bias")):
        path, _ = derived(tmp_path, **options)
        with pytest.raises(ModelFormatError, match=match):
            keras.layers(path)


@pytest.mark.parametrize("options, error", [
    ({"activation": "gelu"}, ValueError), ({"recurrent_activation": ("hard_sigmoid", 1, 2, 3)}, ValueError),
    ({"activation": 3}, TypeError), ({"recurrent_activation": ("sigmoid", 1.0)}, ValueError)])
def test_unsuitable_options(keras_folder, options, error):
    with pytest.raises(error, match=next(iter(options))) as caught:
        keras.layers(keras_folder / "tiny.weights.h5", **options)
    assert not isinstance(caught.value, ModelFormatError)


def test_no_recurrent_layer(tmp_path):
    write_named(tmp_path / "model.h5", {"dense": {"dense/kernel:0": np.ones((2, 3)), "dense/bias:0": np.ones(3)}})
    with pytest.raises(ModelFormatError, match=r"dense/bias:0 \(3,\), .*dense/kernel:0 \(2, 3\).*from_arrays"):
        keras.layers(tmp_path / "model.h5")
    skipped = {}
    assert keras.layers(tmp_path / "model.h5", skipped) == {} and "dense/kernel:0" in skipped[""]


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        keras.layers(tmp_path / "nothing.keras")


def test_any_format_and_no_other_package(keras_folder):
    out = python(f"""
        from fastrnn import interop
        for ending in (".keras", ".h5", ".weights.h5"):
            print(sorted(interop.layers({str(keras_folder)!r} + "/tiny" + ending).items()))
        assert not {{"h5py", "keras", "torch", "tensorflow"}} & set(sys.modules)
    """).splitlines()
    assert len(out) == 3 and len(set(out)) == 1
    assert out[0] == "[('a', LSTM(5, 2, batch_first=True)), ('b', GRU(2, 2, batch_first=True, bidirectional=True))]"


# ---- Keras 1 and 2, laid out as they wrote ------------------------------------------------------------

def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def keras_layer(kind, x, kernel, recurrent, bias, gate=sigmoid, activation=np.tanh):
    """Keras' equations: gates i, f, c, o and z, r, h; a bias [2, 3H] means reset_after."""
    h = c = np.zeros((len(x), len(recurrent)))
    outputs = []
    for x_t in np.swapaxes(x, 0, 1).astype(float):
        if kind == "lstm":
            i, f, g, o = np.split(x_t @ kernel + h @ recurrent + bias, 4, axis=1)
            c = gate(f) * c + gate(i) * activation(g)
            h = gate(o) * activation(c)
        elif kind == "rnn":
            h = activation(x_t @ kernel + h @ recurrent + bias)
        else:
            first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
            xz, xr, xh = np.split(x_t @ kernel + first, 3, axis=1)
            hz, hr, hh = np.split(h @ recurrent + second, 3, axis=1)
            z, r = gate(xz + hz), gate(xr + hr)
            if bias.ndim == 1:
                hh = (r * h) @ recurrent[:, 2 * len(recurrent):]
            h = z * h + (1 - z) * activation(xh + (r * hh if bias.ndim == 2 else hh))
        outputs.append(h)
    return np.stack(outputs, 1)


STYLES = {"2.0": "{layer}/{part}:0", "tensorflow 2": "{layer}/{kind}_cell_7/{part}:0", "theano": "{layer}/{part}",
          "3": "sequential/{layer}/{kind}_cell/{part}"}


@pytest.fixture
def x():
    return np.random.default_rng(3).standard_normal((3, 6, I)).astype(np.float32)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("with_config", [False, True])
def test_keras_2(x, tmp_path, style, as_text, with_config):
    """Whole models and weights alone; names as fixed strings and as variable ones; lists that were split."""
    rng, layers, entries, expected = np.random.default_rng(4), {}, [], {}
    for name, kind, reset_after in (("lstm_1", "lstm", False), ("gru_1", "gru", False), ("gru_2", "gru", True),
                                    ("simple_rnn_1", "rnn", False)):
        arrays = drawn(kind, rng, reset_after=reset_after)
        layers[name] = named(name, arrays, STYLES[style], kind=kind.replace("rnn", "simple_rnn"))
        entries.append((name, CLASSES[kind], {"units": H, "recurrent_activation": "hard_sigmoid"}))
        expected[name] = keras_layer(kind, x, *arrays, gate=hard_sigmoid)
    for split in (1, 2):
        write_named(tmp_path / "model.h5", {"input_1": {}, **layers}, as_text=as_text, split=split,
                    config=sequential(*entries) if with_config else None,
                    group="model_weights" if with_config else None)
        found = keras.layers(tmp_path / "model.h5")
        assert list(found) == list(expected)
        for name, layer in found.items():
            assert_within(through(x, layer), expected[name])


def test_the_version_tells_the_default_of_weights_alone(x, tmp_path):
    arrays = drawn("lstm", np.random.default_rng(5))
    for version, gate in ((None, hard_sigmoid), ("1.2.2", hard_sigmoid), ("2.2.4", hard_sigmoid),
                          ("2.1.6-tf", hard_sigmoid), ("2.3.0-tf", sigmoid), ("2.3.1", sigmoid),
                          ("2.15.0", sigmoid), ("3.5.0", sigmoid)):
        write_named(tmp_path / "weights.h5", {"lstm": named("lstm", arrays)}, version=version, group=None)
        assert_within(through(x, keras.layers(tmp_path / "weights.h5")["lstm"]),
                      keras_layer("lstm", x, *arrays, gate=gate))
    layer = keras.layers(tmp_path / "weights.h5", recurrent_activation=("hard_sigmoid", 0.2, 0.5))["lstm"]
    assert_within(through(x, layer), keras_layer("lstm", x, *arrays, gate=hard_sigmoid))


def test_weights_alone_of_tensorflow_1_or_2(x, tmp_path):
    """Both have the version "2.2.4-tf": what their defaults leave open has to be told, and is named until then."""
    rng, path = np.random.default_rng(5), tmp_path / "weights.h5"
    for kind, arrays in (("lstm", drawn("lstm", rng)), ("gru", drawn("gru", rng)), ("gru", drawn("gru", rng)[:2])):
        write_named(path, {kind: dict(zip(("kernel:0", "recurrent_kernel:0", "bias:0"), arrays))},
                    version="2.2.4-tf", group=None)
        with pytest.raises(ModelFormatError, match=r"TensorFlow 1\.13 to 1\.15, .* give recurrent_activation"):
            keras.layers(path)
        skipped, options = {}, {"recurrent_activation": "hard_sigmoid"}
        assert keras.layers(path, skipped) == {} and list(skipped) == [kind]
        if len(arrays) == 2:
            with pytest.raises(ModelFormatError, match="where it is True: give reset_after"):
                keras.layers(path, **options)
            options["reset_after"] = False
        bias = arrays[2] if len(arrays) == 3 else np.zeros(arrays[0].shape[1], "f4")
        assert_within(through(x, keras.layers(path, **options)[kind]),
                      keras_layer(kind, x, *arrays[:2], bias, gate=hard_sigmoid))
    write_named(path, {"rnn": named("rnn", drawn("rnn", rng))}, version="2.2.4-tf", group=None)
    assert list(keras.layers(path)) == ["rnn"]


@pytest.mark.parametrize("version, slope", [("1.2.2", 0.2), ("2.2.4", 0.2), ("2.15.0", 0.2), ("3.0.0", 1 / 6)])
def test_hard_sigmoid_is_that_of_the_version(x, tmp_path, version, slope):
    arrays = drawn("lstm", np.random.default_rng(6))
    write_named(tmp_path / "model.h5", {"l": named("l", arrays)}, version=version,
                config=sequential(("l", "LSTM", {"units": H, "recurrent_activation": "hard_sigmoid"})))
    assert_within(through(x, keras.layers(tmp_path / "model.h5")["l"]), keras_layer(
        "lstm", x, *arrays, gate=lambda value: np.clip(slope * value + 0.5, 0, 1)))


@pytest.mark.parametrize("suffix", ["", ":0"])
@pytest.mark.parametrize("joined", [False, True])
def test_keras_1(x, tmp_path, suffix, joined):
    """A matrix for each gate (LSTM in the order i, c, f, o), or all in one (consume_less="gpu")."""
    rng, layers, entries, expected = np.random.default_rng(7), {}, [], {}
    for name, kind, order, written_order in (("lstm_1", "lstm", "ifco", "icfo"), ("gru_1", "gru", "zrh", "zrh"),
                                             ("simplernn_1", "rnn", "h", "h")):
        arrays = drawn(kind, rng)
        letters = dict(zip("WUb", arrays, strict=True))
        if joined or kind == "rnn":
            layers[name] = {f"{name}_{letter}{suffix}": a for letter, a in letters.items()}
        else:
            layers[name] = {f"{name}_{letter}_{gate}{suffix}": np.split(a, len(order), axis=-1)[order.index(gate)]
                            for gate in written_order for letter, a in letters.items()}
        entries.append((name, CLASSES[kind], {"output_dim": H, "inner_activation": "hard_sigmoid"}))
        expected[name] = keras_layer(kind, x, *arrays, gate=hard_sigmoid)
    for config in (None, sequential(*entries)):
        write_named(tmp_path / "model.h5", layers, version=None, config=config)
        found = keras.layers(tmp_path / "model.h5")
        assert list(found) == list(expected)
        for name, layer in found.items():
            assert_within(through(x, layer), expected[name])


def cudnn(a, gates):
    """Keras' kernel of these gates as CuDNNLSTM and CuDNNGRU keep it: each as cuDNN reads it, row by row."""
    return np.concatenate([gate.T.reshape(gate.shape) for gate in np.split(a, gates, axis=1)], axis=1)


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("cls", ["CuDNN", ""])
def test_cudnn(x, tmp_path, with_config, cls):
    """Keras 2 lets such weights into LSTM and GRU, too: the bias tells."""
    rng, layers, entries, expected = np.random.default_rng(8), {}, [], {}
    for name, kind in (("a", "lstm"), ("b", "gru")):
        kernel, recurrent, _ = drawn(kind, rng)
        bias = rng.uniform(-0.8, 0.8, (2, kernel.shape[1])).astype(np.float32)
        layers[name] = named(name, [*(cudnn(a, keras.GATES[kind]) for a in (kernel, recurrent)), bias.ravel()])
        entries.append((name, cls + CLASSES[kind], {"units": H}))
        expected[name] = keras_layer(kind, x, kernel, recurrent, bias.sum(0) if kind == "lstm" else bias)
    write_named(tmp_path / "model.h5", layers, config=sequential(*entries) if with_config else None,
                group="model_weights" if with_config else None)
    found = keras.layers(tmp_path / "model.h5")
    assert list(found) == ["a", "b"]
    for name, layer in found.items():
        assert layer.activations is None
        assert_within(through(x, layer), expected[name])


@pytest.mark.parametrize("style", ["{layer}/{way}_lstm_1/{part}:0", "{layer}/{way}_lstm_1/lstm_cell_3/{part}:0",
                                   "{way}_lstm_1/{part}:0", "sequential/{layer}/{way}_lstm_1/lstm_cell/{part}"])
@pytest.mark.parametrize("with_config", [False, True])
def test_keras_2_bidirectional(x, tmp_path, style, with_config):
    rng = np.random.default_rng(9)
    ways = {way: drawn("lstm", rng) for way in ("forward", "backward")}
    weights = [named("bidirectional_1", arrays, style, way=way) for way, arrays in ways.items()]
    inner = {"class_name": "LSTM", "config": {"name": "lstm_1", "units": H, "recurrent_activation": "sigmoid"}}
    config = sequential(("bidirectional_1", "Bidirectional", {"merge_mode": "concat", "layer": inner}))
    write_named(tmp_path / "model.h5", {"bidirectional_1": weights[0] | weights[1]}, version="2.3.1",
                config=config if with_config else None)
    found = keras.layers(tmp_path / "model.h5")
    assert list(found) == ["bidirectional_1"]
    expected = [keras_layer("lstm", x, *ways["forward"]), keras_layer("lstm", x[:, ::-1], *ways["backward"])[:, ::-1]]
    assert_within(through(x, found["bidirectional_1"]), np.concatenate(expected, -1))


def test_keras_2_bidirectional_of_a_layer_that_goes_backwards(x, tmp_path):
    """Its file has no second configuration: the second direction is the first one turned, so that it walks forward."""
    rng = np.random.default_rng(12)
    ways = {way: drawn("lstm", rng) for way in ("forward", "backward")}
    weights = [named("bidirectional_1", arrays, "{layer}/{way}_lstm_1/{part}:0", way=way)
               for way, arrays in ways.items()]
    inner = {"class_name": "LSTM", "config": {"name": "lstm_1", "units": H, "recurrent_activation": "sigmoid",
                                              "go_backwards": True}}
    write_named(tmp_path / "model.h5", {"bidirectional_1": weights[0] | weights[1]}, version="2.3.1",
                config=sequential(("bidirectional_1", "Bidirectional", {"merge_mode": "concat", "layer": inner})))
    first, second = keras.layers(tmp_path / "model.h5").values()
    assert first.reverse and not second.reverse
    assert_within(through(x, first)[:, ::-1], keras_layer("lstm", x[:, ::-1], *ways["forward"]))
    assert_within(through(x, second), keras_layer("lstm", x, *ways["backward"]))


@pytest.mark.parametrize("flat", [False, True])
def test_models_in_models_before_keras_3(x, tmp_path, flat):
    """Keras 2 has one group of weights for a model, Keras 1 one for each of its layers."""
    rng = np.random.default_rng(10)
    arrays = {name: drawn("lstm", rng, columns) for name, columns in (("lstm_1", I), ("lstm_2", H))}
    weights = {name: named(name, a) for name, a in arrays.items()}
    inner = sequential(*((name, "LSTM", {"units": H, "recurrent_activation": "sigmoid"}) for name in arrays),
                       as_list=flat)
    if not flat:
        inner["config"]["name"] = "encoder"
    write_named(tmp_path / "model.h5", weights if flat else {"encoder": weights["lstm_2"] | weights["lstm_1"]},
                config={"class_name": "Sequential", "config": [inner]})
    found = keras.layers(tmp_path / "model.h5")
    assert list(found) == [f"{'sequential' if flat else 'encoder'}/{name}" for name in arrays]
    assert_within(through(x, *found.values()), keras_layer("lstm", keras_layer("lstm", x, *arrays["lstm_1"]),
                                                           *arrays["lstm_2"]))


def test_time_major(x, tmp_path):
    arrays = drawn("rnn", np.random.default_rng(11))
    write_named(tmp_path / "model.h5", {"rnn": named("rnn", arrays)},
                config=sequential(("rnn", "SimpleRNN", {"units": H, "time_major": True}), as_list=False))
    layer = keras.layers(tmp_path / "model.h5")["rnn"]
    assert not layer.batch_first
    assert_within(layer(x.swapaxes(0, 1))[0].swapaxes(0, 1), keras_layer("rnn", x, *arrays))


@pytest.mark.parametrize("container, separator", [("layers", "/"), ("_layer_checkpoint_dependencies", "/"),
                                                  ("_layer_checkpoint_dependencies", "\\")])
def test_the_first_keras_files(x, tmp_path, container, separator):
    """Keras 2.12 named the list otherwise, counted each layer twice, and on Windows wrote backslashes."""
    rng = np.random.default_rng(12)
    arrays = [drawn("lstm", rng, columns) for columns in (I, H, H)]
    step = 2 if container != "layers" else 1
    places = [separator.join([container, "lstm" if not i else f"lstm_{i * step}", "cell"]) for i in range(3)]
    entries = [(f"lstm_{i + 4}", "LSTM", {"units": H, "recurrent_activation": "sigmoid"}) for i in range(3)]
    write_zip(tmp_path / "model.keras", sequential(*entries, as_list=False), dict(zip(places, arrays, strict=True)),
              "2.12.0")
    found, expected = keras.layers(tmp_path / "model.keras"), x
    assert list(found) == ["lstm_4", "lstm_5", "lstm_6"]
    for own in arrays:
        expected = keras_layer("lstm", expected, *own)
    assert_within(through(x, *found.values()), expected)


def test_no_activation_is_linear(x, tmp_path):
    arrays = drawn("rnn", np.random.default_rng(17))
    write_named(tmp_path / "model.h5", {"a": named("a", arrays)}, config=sequential(
        ("a", "SimpleRNN", {"units": H, "activation": None})))
    assert_within(through(x, keras.layers(tmp_path / "model.h5")["a"]),
                  keras_layer("rnn", x, *arrays, activation=lambda value: value))


def test_nan_in_a_configuration(tmp_path):
    """Keras writes what JSON does not have."""
    config = sequential(("mask", "Masking", {"mask_value": np.nan}), ("a", "SimpleRNN", {"units": H}), as_list=False)
    write_zip(tmp_path / "model.keras", config, {"layers/simple_rnn/cell": drawn("rnn", np.random.default_rng(15))})
    assert list(keras.layers(tmp_path / "model.keras")) == ["a"]


# ---- A real file of Keras 2 -----------------------------------------------------------------------------

@pytest.mark.parametrize("option, golden", [({}, "hard_sigmoid_keras2"),
                                            ({"recurrent_activation": "sigmoid"}, "sigmoid_tf2_keras3")])
def test_chars2vec(data_dir, option, golden):
    """Weights alone, of Keras 2.2.0: its default is the hard sigmoid; later Kerases run it with sigmoid."""
    folder = data_dir / "models" / "chars2vec"
    found = keras.layers(folder / "eng_50_weights.h5", **option)
    assert list(found) == ["lstm_1", "lstm_2"]
    with np.load(folder / "golden_eng50.npz") as arrays:
        output = through(arrays["x"], *found.values())[:, -1]
        difference = np.max(np.abs(output - arrays[golden]))
    assert difference <= TOLERANCE, f"largest difference {difference:.3e}"
