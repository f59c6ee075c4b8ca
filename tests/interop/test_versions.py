"""Files of the oldest and newest versions of the frameworks that could be installed: outputs are the frameworks' own.

files/versions.py makes them. Every file is read to within 1e-5 of what its framework computed, or named.
"""

from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close

from fastrnn import ModelFormatError, interop

FOLDER = Path(__file__).parent / "files" / "versions"
H = 4


def cases():
    """(archive, name) of every file."""
    for path in sorted(FOLDER.glob("*.npz")):
        with np.load(path) as archive:
            for name in sorted(name.removesuffix(".file") for name in archive if name.endswith(".file")):
                yield path.stem, name


CASES = list(cases())
KERAS = [case for case in CASES if "keras" in case[0]]
MERGES = {"bi_sum": np.add, "bi_mul": np.multiply, "bi_ave": lambda a, b: (a + b) / 2}


def contents(stem, name):
    with np.load(FOLDER / f"{stem}.npz") as archive:
        return archive[f"{name}.file"].tobytes(), archive[f"{name}.x"], archive[f"{name}.y"]


def computed(name, layers, x):
    """What the layers of a Keras model give: one on top of the other, or two directions that are merged."""
    kind = name.partition(".")[0]
    if kind in MERGES:
        # Of weights alone nothing tells how directions are merged: they are a bidirectional layer, as for "concat".
        parts = [layer(x)[0] for layer in layers] if len(layers) == 2 else np.split(layers[0](x)[0], 2, axis=-1)
        return MERGES[kind](*parts)
    for layer in layers:
        x, _ = layer(x)
    # Keras has the outputs of a layer that goes backwards in the order of its steps.
    return x[:, ::-1] if kind == "lstm_back" else x[:, -1] if kind == "lstm_last" else x


@pytest.mark.parametrize("stem, name", KERAS)
def test_keras(stem, name, tmp_path):
    data, x, y = contents(stem, name)
    path = tmp_path / ("m" + name[name.index("."):])
    path.write_bytes(data)
    if name.startswith("cells.weights") and stem.partition("-")[2].startswith(("1", "2.2", "2.3")):
        with pytest.raises(ModelFormatError, match="weights are of 2 cells, and their names do not tell"):
            interop.layers(path)
        return
    options = {}
    if stem == "tf.keras-1.15.0" and ".weights" in name:
        if "rnn" not in name:
            with pytest.raises(ModelFormatError, match=r"'2\.2\.4-tf' is that of .* give recurrent_activation"):
                interop.layers(path)
        options["recurrent_activation"] = "hard_sigmoid"
    layers = interop.layers(path, **options)
    order = ["lstm", "gru", "simple"]           # of the stack: files of weights alone have none
    stacked = sorted(layers, key=lambda each: next((i for i, kind in enumerate(order) if kind in each.lower()), 0))
    assert_close({"y": computed(name, [layers[each] for each in stacked], x)}, {"y": y}, 1e-5)


# What is named: (version, end of the name) -> what is said.
NAMED = {
    ("torch-1.0.0", ".traced.pt"): "TorchScript archive of PyTorch's first releases",
    # Both exporters write the operator with the projection's size for hidden_size, and a cell state of another one.
    ("torch-2.9.1", "lstm_proj.onnx"): "the file contradicts itself",
    ("torch-2.14.1", "lstm_proj.onnx"): "the file contradicts itself",
    # A relu RNN is written out step by step.
    ("torch-2.9.1", "rnn.onnx"): r"no recurrent layer: its operators are .*bias_ih_l0.*interop\.from_arrays",
    ("torch-2.14.1", "rnn.onnx"): r"no recurrent layer: its operators are .*bias_ih_l0.*interop\.from_arrays",
}


@pytest.mark.parametrize("stem, name", [case for case in CASES if case[0].startswith("torch")])
def test_torch(stem, name, tmp_path):
    data, x, y = contents(stem, name)
    kind, _, ending = name.partition(".")
    path = tmp_path / f"m.{ending}"
    path.write_bytes(data)
    for (version, end), match in NAMED.items():
        if stem == version and name.endswith(end):
            with pytest.raises(ModelFormatError, match=match):
                interop.layers(path)
            return
    options = {}
    if ending in ("pt", "legacy.pt", "ckpt"):           # of weights alone; all else tells its options itself
        options = {"batch_first": True} if kind == "lstm_stack" else {"nonlinearity": "relu"} if kind == "rnn" else {}
    layers = list(interop.layers(path, **options).values())
    assert len(layers) == (2 if name == "lstm_stack.onnx" else 1)
    if not layers[0].batch_first and kind == "lstm_stack":
        x, y = x.swapaxes(0, 1), y.swapaxes(0, 1)
    for layer in layers:
        x, _ = layer(x)
    assert_close({"y": x}, {"y": y}, 1e-5)


# ---- What converters make of Keras' layers --------------------------------------------------------------

# What is read whole of the models of each converter; the others hold loops that are named.
WHOLE = {
    "tf2onnx-1.14.0": {"lstm", "gru", "rnn", "lstm_last", "lstm_relu", "gru_before", "lstm_back", "bi_concat"},
    "tf2onnx-1.16.1": {"lstm", "gru", "rnn", "lstm_last", "lstm_relu", "gru_before", "lstm_back", "bi_concat", "stack"},
    "tflite-2.12.0": {"lstm", "lstm_last", "lstm_back", "bi_concat"},
    "tflite-2.21.0": set(),         # of Keras 3 the converter fuses nothing
}


@pytest.mark.parametrize("stem, name", [case for case in CASES if case[0].startswith(("tf2onnx", "tflite"))])
def test_converters(stem, name, tmp_path):
    data, x, y = contents(stem, name)
    path, skipped = tmp_path / "model", {}
    path.write_bytes(data)
    found = interop.layers(path, skipped)
    assert bool(skipped) == (name not in WHOLE[stem])
    if skipped:
        for reason in skipped.values():
            assert "a WHILE loop whose body looks like a" in reason or "a Loop whose body looks like a" in reason
        return
    layers, steps = list(found.values()), x.swapaxes(0, 1)

    def run(layer, steps):
        return layer(steps.swapaxes(0, 1))[0].swapaxes(0, 1) if layer.batch_first else layer(steps)[0]

    if name == "bi_concat" and len(layers) == 2:        # two forward operators: the model turns what is around one
        pairs = [np.concatenate([run(forward, steps), run(backward, steps[::-1])[::-1]], -1).swapaxes(0, 1)
                 for forward, backward in (layers, layers[::-1])]
        assert_close({"y": min(pairs, key=lambda pair: abs(pair - y).max())}, {"y": y}, 1e-5)
        return
    output = steps[::-1] if name == "lstm_back" else steps
    for layer in layers:
        output = run(layer, output)
    assert_close({"y": output[-1] if name == "lstm_last" else output.swapaxes(0, 1)}, {"y": y}, 1e-5)


# ---- safetensors and ONNX ---------------------------------------------------------------------------------

@pytest.mark.parametrize("stem, name", [case for case in CASES if case[0].startswith(("safetensors", "onnx"))])
def test_safetensors_and_onnx(stem, name, tmp_path):
    data, x, y = contents(stem, name)
    path = tmp_path / "model"
    path.write_bytes(data)
    layer, = interop.layers(path).values()
    assert_close({"y": layer(x)[0]}, {"y": y}, 1e-5)
