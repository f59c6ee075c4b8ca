# %% [markdown]
# # A Keras model, without Keras
#
# chars2vec (Apache-2.0) turns a word into a vector that is close to those of its misspellings. It has two LSTMs over
# the letters, trained and saved with Keras 2.2. Its file is read without Keras, TensorFlow or h5py.

# %%
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from fastrnn.interop import keras

data = Path(os.environ.get("FASTRNN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
folder = data / "models" / "chars2vec"
place = tempfile.TemporaryDirectory()

LETTERS = "!\"#$%&'()*+,-./0123456789:;<=>?@_abcdefghijklmnopqrstuvwxyz"


def one_hot(words):
    """[N, T, 59]; shorter words are filled up with zeros in front."""
    x = np.zeros((len(words), max(map(len, words)), len(LETTERS)), np.float32)
    for row, word in zip(x, words, strict=True):
        for step, letter in zip(row[len(row) - len(word):], word, strict=True):
            step[LETTERS.index(letter)] = 1
    return x


# %% [markdown]
# The published file with vectors that Keras computed; where it is not there, a file like it with random weights, and
# the vectors by the equations in NumPy.

# %%
def by_hand(weights, x):
    """Keras 2's LSTM: gates i, f, c, o; hard_sigmoid(x) = clip(0.2 x + 0.5, 0, 1)."""
    for kernel, recurrent, bias in weights:
        h = c = np.zeros((len(x), len(recurrent)))
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
            i, f, o = (np.clip(0.2 * gate + 0.5, 0, 1) for gate in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, axis=1)
    return x


expected_sigmoid = None
if folder.is_dir():
    path = folder / "eng_50_weights.h5"
    with np.load(folder / "golden_eng50.npz") as golden:
        x, expected, expected_sigmoid = (golden[name] for name in ("x", "hard_sigmoid_keras2", "sigmoid_tf2_keras3"))
    words = ["".join(LETTERS[step.argmax()] for step in row if step.any()) for row in x]
    assert np.array_equal(one_hot(words), x)
else:
    print(f"no {folder} (set FASTRNN_DATA): a file with random weights instead")
    try:
        import h5py
    except ImportError:
        print("which takes h5py to write: pip install h5py")
        sys.exit(0)
    words = ["natural", "naturally", "nature", "language", "methodology"]
    x, rng = one_hot(words), np.random.default_rng(0)
    weights = [[rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((size, 200), (50, 200), (200,))]
               for size in (len(LETTERS), 50)]
    expected = by_hand(weights, x)[:, -1]
    path = Path(place.name) / "weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"lstm_1", b"lstm_2"]
        file.attrs["keras_version"] = b"2.2.0"
        for name, arrays in zip(("lstm_1", "lstm_2"), weights, strict=True):
            names = [f"{name}/{part}:0" for part in ("kernel", "recurrent_kernel", "bias")]
            file.create_group(name).attrs["weight_names"] = [part.encode() for part in names]
            for part, array in zip(names, arrays, strict=True):
                file[name][part] = array
print("words:", ", ".join(words))

# %% [markdown]
# What the file holds; `fastrnn inspect FILE` prints the same. It was written by `model.save_weights`, so it has weights
# alone. Activations are not in it, and are taken to be the default of the Keras that wrote it, the hard sigmoid. The
# file of a whole model (`model.save`, .keras or .h5) has all options.

# %%
layers = keras.layers(path)
for name, layer in layers.items():
    print(name, layer)

# %% [markdown]
# From words to vectors: each layer returns the outputs of all steps, and a word's vector is the last one.

# %%
def vectors(layers, x):
    for layer in layers.values():
        x, _ = layer(x)
    return x[:, -1]


found = vectors(layers, x)
difference = np.abs(found - expected).max()
print(f"largest difference from Keras' own vectors: {difference:.1e}")
assert difference <= 1e-5

# %% [markdown]
# From 2.3 on, Keras runs the same file with the true sigmoid unless it is told otherwise, and so gets other vectors.
# `recurrent_activation` chooses.

# %%
later = vectors(keras.layers(path, recurrent_activation="sigmoid"), x)
print(f"sigmoid instead of hard_sigmoid moves the vectors by up to {np.abs(later - found).max():.2f}")
if expected_sigmoid is not None:
    difference = np.abs(later - expected_sigmoid).max()
    print(f"largest difference from Keras' vectors with sigmoid: {difference:.1e}")
    assert difference <= 1e-5

# %% [markdown]
# Letter by letter, as a word is typed: streams keep the state, and give the same bits.

# %%
streams = [layer.stream() for layer in layers.values()]
for step in one_hot(words[:1])[0]:
    y = step
    for stream in streams:
        y = stream.step(y)
    print(LETTERS[step.argmax()], np.round(y[:4], 3))
whole = vectors(layers, one_hot(words[:1]))[0]
assert np.array_equal(y, whole)

# %% [markdown]
# The known word that is nearest to a typed one.

# %%
for typed in ("naturaly", "langauge", "methodolgy"):
    either = vectors(layers, one_hot([typed, *words]))
    distances = np.linalg.norm(either[1:] - either[0], axis=1)
    print(f"{typed} -> {words[distances.argmin()]} (distances {distances.min():.2f} to {distances.max():.2f})")
place.cleanup()
