# %% [markdown]
# # An RTNeural model
#
# RTNeural (BSD-3) runs small networks in audio plugins. Its models are JSON files, exported from Keras or from torch.
# fastrnn reads their recurrent layers and steps them sample by sample. Each dense layer around them is a line of NumPy.

# %%
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from fastrnn import interop

data = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
folder = data / "rtneural"
place = tempfile.TemporaryDirectory()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {"": lambda x: x, "tanh": np.tanh, "sigmoid": sigmoid, "relu": lambda x: np.maximum(x, 0)}


# %% [markdown]
# The published model with its makers' outputs from Keras; where it is not there, one like it with random weights:
# dense, GRU, dense, dense.

# %%
def by_hand(model, x):
    """The same network by Keras' equations: gates z, r, h; the reset gate multiplies the second bias too."""
    for entry in model["layers"]:
        arrays = [np.array(w) for w in entry["weights"]]
        if entry["type"] != "gru":
            x = ACTIVATIONS[entry["activation"]](x @ arrays[0] + arrays[1])
            continue
        (W, U, b), outputs, h = arrays, [], np.zeros(len(arrays[1]))
        for x_t in x:
            (xz, xr, xh), (hz, hr, hh) = np.split(x_t @ W + b[0], 3), np.split(h @ U + b[1], 3)
            z = sigmoid(xz + hz)
            h = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + hr) * hh)
            outputs.append(h)
        x = np.array(outputs)
    return x


if folder.is_dir():
    path = folder / "gru.json"
    x, expected = (np.loadtxt(folder / f"gru_{which}_python.csv").reshape(-1, 1) for which in "xy")
else:
    print(f"no {folder} (set FASTRNN_DATA): a model with random weights instead")
    rng = np.random.default_rng(0)
    sizes = {"time-distributed-dense": [(1, 8), (8,)], "gru": [(8, 24), (8, 24), (2, 24)], "dense": [(8, 1), (1,)]}
    model = {"in_shape": [None, None, 1], "layers": [
        {"type": kind, "activation": "" if kind == "dense" else "tanh", "shape": [None, None, shapes[1][0]],
         "weights": [rng.uniform(-0.5, 0.5, shape).tolist() for shape in shapes]} for kind, shapes in sizes.items()]}
    path = Path(place.name) / "gru.json"
    path.write_text(json.dumps(model))
    x = 10 * np.sin(np.arange(100) * np.pi / 10).reshape(-1, 1)
    expected = by_hand(model, x)
model = json.loads(path.read_text())
for index, entry in enumerate(model["layers"]):
    print(f"layers.{index}: {entry['type']} {entry['shape'][-1]} {entry['activation']}")

# %% [markdown]
# Layers are named by their place in the file. JSON does not say whether weights are float32 or float64, so `dtype`
# does. A torch state_dict as JSON is read by its names (`{"gru": GRU(1, 8), ...}`), also within a guitar amplifier's
# model.

# %%
layers = interop.layers(path)
print(layers)
assert list(layers) == [f"layers.{index}" for index, entry in enumerate(model["layers"]) if entry["type"] == "gru"]

# %% [markdown]
# The network, one sample at a time as in a plugin: the stream carries the state.

# %%
streams = {name: layer.stream() for name, layer in layers.items()}
dense = {index: [np.array(w, np.float32) for w in entry["weights"]]
         for index, entry in enumerate(model["layers"]) if "dense" in entry["type"]}


def process(sample):
    y = np.array([sample], np.float32)
    for index, entry in enumerate(model["layers"]):
        if index in dense:
            kernel, bias = dense[index]
            y = ACTIVATIONS[entry["activation"]](y @ kernel + bias)
        else:
            y = streams[f"layers.{index}"].step(y)
    return y[0]


output = np.array([process(sample) for sample in x[:, 0]])
difference = np.abs(output - expected[:, 0]).max()
for t in range(0, len(x), 15):
    print(f"sample {t:3}: in {x[t, 0]:8.4f}  out {output[t]:9.6f}  expected {expected[t, 0]:9.6f}")
print(f"largest difference over {len(x)} samples: {difference:.1e}")
assert difference <= 1e-5
assert np.abs(by_hand(model, x) - expected).max() <= 1e-5
place.cleanup()
