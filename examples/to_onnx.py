# %% [markdown]
# # A layer as an ONNX model
#
# `export` writes a layer as a model that any ONNX runtime computes: one node for each layer of the stack, states as
# inputs and outputs, any number of steps and rows. It needs the package onnx (`pip install fastrnn[onnx]`).

# %%
import sys
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import interop

layer = fastrnn.GRU(6, 24, num_layers=2, bidirectional=True, batch_first=True, rng=0)
place = tempfile.TemporaryDirectory()
path = Path(place.name) / "gru.onnx"
try:
    interop.onnx.export(layer, path)
except ImportError as error:
    print(error)
    sys.exit()
print(f"{layer} as {path.name}: {path.stat().st_size:,} bytes")

# %% [markdown]
# ## It comes back as it was
#
# The file says what stack its nodes are, and weights are copied, never converted: the layer read from it is the same to
# the bit. What other tools see are plain GRU nodes.

# %%
back = interop.onnx.layers(path)["GRU"]
assert repr(back) == repr(layer)
assert all(np.array_equal(back.parameters[name], a) for name, a in layer.parameters.items())
print(f"read again: {back}")

# %% [markdown]
# ## It runs elsewhere
#
# In ONNX Runtime, if it is here, and by ONNX's own interface for backends, which fastrnn has too. Sequences of any
# length, in batches of any size; the state that comes out of one call goes into the next.

# %%
try:
    import onnxruntime
except ImportError:
    onnxruntime = None
    print("ONNX Runtime is not installed (pip install onnxruntime): fastrnn's own backend runs the file instead")

if onnxruntime:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(x, h_0):
        return session.run(["output", "h_n"], {"x": x, "h_0": h_0})
else:
    import onnx
    prepared = interop.onnx.Backend.prepare(onnx.load(path))

    def run(x, h_0):
        return prepared.run({"x": x, "h_0": h_0})

rng = np.random.default_rng(1)
for rows, steps in ((1, 1), (3, 20), (8, 100)):
    x = rng.standard_normal((rows, steps, 6)).astype(np.float32)
    h_0 = rng.standard_normal((4, rows, 24)).astype(np.float32)
    differences = [np.max(np.abs(a - b)) for a, b in zip(run(x, h_0), layer(x, h_0))]
    print(f"{rows} rows of {steps} steps: largest difference {max(differences):.1e}")
    assert max(differences) < 1e-5

# %% [markdown]
# ## What ONNX cannot say
#
# An LSTM with a projection, for one: then nothing is written.

# %%
try:
    interop.onnx.export(fastrnn.LSTM(6, 24, proj_size=8), path)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a projection was written")
