# %% [markdown]
# # A safetensors file
#
# The format does not say what a tensor is for. Recurrent layers are recognised by torch's parameter names
# (`weight_ih_l0`, ...) and by shapes. The model here is silero-vad, which detects speech (PyPI silero-vad 6.2.3, MIT):
# convolutions, then an LSTM that is called frame by frame.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy

import fastrnn
from fastrnn import interop

data = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
folder = data / "models" / "silero_vad"
place = tempfile.TemporaryDirectory()
made = Path(place.name) / "model.safetensors"


# %% [markdown]
# The published file: `layers` returns the recurrent layers by the prefixes of the names; other tensors are passed over.
# On the command line: `fastrnn inspect silero_vad_16k.safetensors`.

# %%
if folder.is_dir():
    path = folder / "silero_vad_16k.safetensors"
    print(f"{path.name} has {len(safetensors.numpy.load_file(path))} tensors; recurrent ones: {interop.layers(path)}")
else:
    print(f"no {folder} (set FASTRNN_DATA): a model with random weights instead")

# %% [markdown]
# The package's ONNX file has other weights than this one, and the recorded outputs are of those. They are written to a
# file here as torch would write them, together with a linear layer.

# %%
if folder.is_dir():
    weights, golden = np.load(folder / "weights_lstm.npz"), np.load(folder / "golden.npz")
    tensors = {name: weights[name] for name in weights if name.startswith("lstm_cell.")}
    x, expected = golden["lstm_in"], golden["lstm_out"]
else:
    rng = np.random.default_rng(0)
    tensors = {"lstm_cell." + name: a for name, a in fastrnn.LSTMCell(128, 128, rng=rng).state_dict().items()}
    x, expected = rng.standard_normal((353, 128), np.float32), None
safetensors.numpy.save_file(tensors | {"head.weight": np.ones((1, 128), np.float32)}, made)

layers = interop.layers(made)
lstm = layers["lstm_cell"]
print(layers)


# %% [markdown]
# As the package uses it: a stream keeps the state from frame to frame (32 ms of sound each). The numbers are compared
# with the package's, or where its file is not there with the equations.

# %%
def by_hand(x):
    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    W_ih, W_hh, b_ih, b_hh = (tensors[f"lstm_cell.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, c, outputs = np.zeros(128), np.zeros(128), []
    for x_t in x:
        i, f, g, o = np.split(W_ih @ x_t + b_ih + W_hh @ h + b_hh, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


stream, out = lstm.stream(), np.empty((len(x), 128), np.float32)
for frame, y in zip(x, out, strict=True):
    stream.step(frame, y)
difference = np.abs(out - (by_hand(x) if expected is None else expected)).max()
print(f"{len(x)} frames one by one; largest difference: {difference:.1e}; "
      f"equal to the bit to one call: {np.array_equal(out, lstm(x)[0])}")
assert difference <= 1e-5

# %% [markdown]
# Half precision (float16, bfloat16) becomes float32. The layer can then be written as a file of fastrnn's own, which
# holds all its options, or as ONNX (`fastrnn.interop.onnx.export`).

# %%
safetensors.numpy.save_file({name: a.astype(np.float16) for name, a in tensors.items()}, made)
half = interop.layers(made)["lstm_cell"]
error = np.abs(half(x)[0] - lstm(x)[0]).max()
print(f"from float16: {half.dtype}, outputs differ by {error:.1e}")
assert half.dtype == np.float32 and 0 < error < 0.05
half.save(made)
assert fastrnn.load(made)(x)[0].tobytes() == half(x)[0].tobytes()
place.cleanup()
