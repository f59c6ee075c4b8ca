# %% [markdown]
# # The recurrent layers of an ONNX model
#
# An ONNX file is read with NumPy alone: every RNN, GRU and LSTM node becomes a layer, by its name. Here silero-vad
# (PyPI silero-vad 6.2.3, MIT), which hears whether somebody speaks: a spectrum, convolutions, an LSTM, and a last
# convolution that makes a probability of its output.

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
# The published model, and what went into its LSTM and came out of it for 353 frames (32 ms of sound each); or a layer
# with random weights, written to a file first. On the command line: `python -m fastrnn inspect model.onnx`.

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
# As a listener uses it: frame by frame, the state kept by the stream. Numbers of the file's own runtime to 1e-5 (of the
# largest, for cell states).

# %%
stream, heard = lstm.stream(), np.empty_like(expected)
for frame, out in zip(x, heard):
    stream.step(frame, out)

found = {"output": heard, "h_n": stream.state[0], "c_n": stream.state[1]}
for (name, a), wanted in zip(found.items(), (expected, *state)):
    difference, largest = np.max(np.abs(a - wanted)), np.max(np.abs(wanted))
    print(f"{name:6} {a.shape}: largest difference {difference:.1e} (values to {largest:.1f})")
    assert difference <= 1e-5 * max(1, largest)

# %% [markdown]
# What a node has beyond weights comes along: activations with their alpha and beta, peepholes, clipping, coupled gates,
# directions. ONNX's operators can also be run as they are, by ONNX's names.

# %%
rng = np.random.default_rng(0)
shapes = {"X": (5, 2, 3), "W": (2, 16, 3), "R": (2, 16, 4), "P": (2, 12)}
inputs = {name: rng.standard_normal(shape) for name, shape in shapes.items()} | {"sequence_lens": [5, 2]}
outputs = interop.onnx.run_node("LSTM", inputs, {"direction": "bidirectional", "clip": 2.0, "input_forget": 1})
print({name: a.shape for name, a in outputs.items()})
assert not outputs["Y"][2:, :, 1].any()         # the second row has two steps
