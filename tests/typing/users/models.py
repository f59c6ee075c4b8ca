"""Models of other frameworks, as a user reads them."""

from pathlib import Path

import numpy as np

import fastrnn
from fastrnn import interop


def encoder(path: Path) -> fastrnn.LSTM:
    """The one LSTM of a file."""
    skipped: dict[str, str] = {}
    layers = interop.layers(path, skipped)
    for name, reason in skipped.items():
        print(f"{name} was not read: {reason}")
    layer = layers["encoder"]
    if not isinstance(layer, fastrnn.LSTM):
        raise TypeError(f"expected an LSTM, got {layer!r}")
    return layer


kind: str = interop.detect("model.pt")
tensors = interop.pytorch.load_state_dict("model.pt")
print({name: tensor.shape for name, tensor in tensors.items()})
interop.onnx.export(fastrnn.GRU(2, 3), "model.onnx")
outputs = interop.onnx.run_node("GRU", {"X": np.ones((4, 1, 2), np.float32)}, {"hidden_size": 3})
try:
    fastrnn.load("broken.npz")
except fastrnn.ModelFormatError as error:
    print(error)
