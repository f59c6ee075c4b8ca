# %% [markdown]
# # Saving and loading
#
# `layer.save` writes the weights and every option; `fastrnn.load` returns the same layer, equal to the bit. `.npz`
# needs NumPy alone, `.safetensors` the package of that name. The layer here is the LSTM of Resemblyzer, which turns
# speech into a vector that is characteristic of the speaker (PyPI Resemblyzer 0.1.4, Apache-2.0).

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import interop

data = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
folder = data / "models" / "resemblyzer"
if folder.is_dir():
    layer = interop.layers(folder / "weights.npz", batch_first=True)["lstm"]
    golden = np.load(folder / "golden.npz")
    mel, expected, weight, bias = golden["mel"], golden["embed"], *(
        np.load(folder / "weights.npz")[f"linear.{name}"] for name in ("weight", "bias"))
else:
    print(f"no {folder} (set FASTRNN_DATA): a layer with random weights instead")
    rng = np.random.default_rng(0)
    layer = fastrnn.LSTM(40, 64, num_layers=3, batch_first=True, rng=rng)
    mel = rng.random((8, 160, 40), np.float32)
    weight, bias = rng.standard_normal((64, 64), np.float32), rng.standard_normal(64, np.float32)
    expected = None
print(layer)

# %% [markdown]
# Both formats hold the same. An existing file is replaced atomically, after the new one has been written.

# %%
place = tempfile.TemporaryDirectory()
for ending in (".npz", ".safetensors"):
    path = Path(place.name) / f"speaker{ending}"
    layer.save(path)
    loaded = fastrnn.load(path)
    same = all(np.array_equal(loaded.parameters[name], a) for name, a in layer.parameters.items())
    print(f"{path.name}: {path.stat().st_size:,} bytes, loaded as {loaded}, equal to the bit: {same}")
    assert same and repr(loaded) == repr(layer)

# %% [markdown]
# The loaded layer in use: the final state of the last layer goes through a linear layer and a relu, and is scaled to
# length 1.


# %%
def embed(layer, mel):
    _, (h, _) = layer(mel)
    raw = np.maximum(h[-1] @ weight.T + bias, 0)
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


embedding = embed(loaded, mel)
print(f"{len(mel)} stretches of {mel.shape[1]} frames -> {embedding.shape}")
print("cosine similarity of each pair:")
print(np.round(embedding @ embedding.T, 2))
source = "the layer that was saved" if expected is None else "the package itself"
difference = np.abs(embedding - (embed(layer, mel) if expected is None else expected)).max()
print(f"largest difference from what {source} gives: {difference:.1e}")
assert difference <= 1e-5

# %% [markdown]
# A file that is broken or not a model raises one kind of error. Nothing in a file is ever run.

# %%
path.write_bytes(path.read_bytes()[:-1])
try:
    fastrnn.load(path)
except fastrnn.ModelFormatError as error:
    print("cut short:", str(error).replace(place.name, "..."))
else:
    raise AssertionError("a file cut short was loaded")
place.cleanup()
