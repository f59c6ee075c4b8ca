# %% [markdown]
# # The recurrent layers of an ONNX model
#
# An ONNX file is read with NumPy alone: every RNN, GRU and LSTM node becomes a layer, under the node's name. The model
# here is silero-vad (PyPI silero-vad 6.2.3, MIT), which detects speech: a spectrum, convolutions, an LSTM, and a last
# convolution whose output is a probability.

# %%
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import interop

data = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
folder = data / "models" / "silero_vad"
place = tempfile.TemporaryDirectory()

# %% [markdown]
# The published model, with recorded inputs and outputs of its LSTM for 353 frames (32 ms of sound each). Where it is
# not there, a layer with random weights is written to a file first. On the command line: `fastrnn inspect
# model.onnx`.

# %%
if folder.is_dir():
    path = folder / "silero_vad_16k_sequence.onnx"
    golden = np.load(folder / "golden.npz")
    x, expected, state = golden["lstm_in"], golden["lstm_out"], (golden["hn"], golden["cn"])
else:
    print(f"no {folder} (set FASTRNN_DATA): a layer with random weights instead")
    layer, path = fastrnn.LSTM(128, 128, rng=0), Path(place.name) / "layer.onnx"
    try:
        interop.onnx.export(layer, path)
    except ImportError as error:
        print(error)
        sys.exit()
    x = np.random.default_rng(0).standard_normal((353, 128)).astype(np.float32)
    expected, state = layer(x)
    state = tuple(part[:, None] for part in state)

layers = interop.onnx.layers(path)
print(layers)
lstm, = layers.values()

# %% [markdown]
# As the package uses it: frame by frame, while the stream keeps the state. The numbers agree with those of ONNX Runtime
# to 1e-5 (for cell states relative to the largest).

# %%
stream, outputs = lstm.stream(), np.empty_like(expected)
for frame, out in zip(x, outputs):
    stream.step(frame, out)

results = {"output": outputs, "h_n": stream.state[0], "c_n": stream.state[1]}
for (name, a), target in zip(results.items(), (expected, *state)):
    difference, largest = np.max(np.abs(a - target)), np.max(np.abs(target))
    print(f"{name:6} {a.shape}: largest difference {difference:.1e} (values to {largest:.1f})")
    assert difference <= 1e-5 * max(1, largest)

# %% [markdown]
# A node's attributes are kept: activations with their alpha and beta, peepholes, clipping, coupled gates, directions.
# ONNX's operators can also be run one by one, with ONNX's names of inputs and outputs.

# %%
rng = np.random.default_rng(0)
shapes = {"X": (5, 2, 3), "W": (2, 16, 3), "R": (2, 16, 4), "P": (2, 12)}
inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()} | {"sequence_lens": [5, 2]}
outputs = interop.onnx.run_node("LSTM", inputs, {"direction": "bidirectional", "clip": 2.0, "input_forget": 1})
print({name: a.shape for name, a in outputs.items()})
assert not outputs["Y"][2:, :, 1].any()         # the second row has two steps
