# %% [markdown]
# # A layer as an ONNX model
#
# `export` writes a layer as a model that any ONNX runtime can compute: one node for each layer of the stack, with the
# states as inputs and outputs, for any number of steps and rows. It needs the package onnx (`pip install
# fastrnn[onnx]`).

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
# ## Reading it again
#
# The file records which stack its nodes belong to, and weights are copied without conversion: the layer that is read
# from it is equal to the bit. Other tools see plain GRU nodes.

# %%
back = interop.onnx.layers(path)["GRU"]
assert repr(back) == repr(layer)
assert all(np.array_equal(back.parameters[name], a) for name, a in layer.parameters.items())
print(f"read again: {back}")

# %% [markdown]
# ## It runs elsewhere
#
# In ONNX Runtime if it is installed, else by fastrnn's own implementation of ONNX's interface for backends. Sequences
# and batches may have any size; the state that one call returns goes into the next.

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
# ## What ONNX cannot express
#
# An LSTM with a projection, for example: `export` raises a ValueError, and writes nothing.

# %%
try:
    interop.onnx.export(fastrnn.LSTM(6, 24, proj_size=8), path)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a projection was written")
