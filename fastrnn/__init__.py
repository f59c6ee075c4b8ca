"""Recurrent networks (RNN, LSTM, GRU) on a CPU: forward, backward and one step at a time; NumPy in, NumPy out.

Run a layer over sequences. Names, shapes and parameters are those of ``torch.nn``:

>>> import numpy as np
>>> import fastrnn
>>> layer = fastrnn.GRU(input_size=3, hidden_size=8, rng=0)
>>> x = np.ones((20, 4, 3), np.float32)             # 20 steps, 4 rows, 3 features
>>> output, h_n = layer(x)
>>> output.shape, h_n.shape
((20, 4, 8), (1, 4, 8))

Step it as data arrive. A stream keeps the weights it was made with, and gives the same bits:

>>> stream = layer.stream(batch_size=4)
>>> for x_t in x:
...     y = stream.step(x_t)
>>> bool(np.array_equal(y, output[-1]))
True

Take gradients of any loss:

>>> output, h_n, cache = layer.forward(x)
>>> gradients = layer.backward(cache, d_output=np.ones_like(output))
>>> gradients.parameters["weight_hh_l0"].shape
(24, 8)

Save a model, and load it:

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     layer.save(f"{folder}/model.npz")           # options and weights; or .safetensors
...     fastrnn.load(f"{folder}/model.npz")
GRU(3, 8)

Further on:

- ``fastrnn.training.fit`` trains a layer or a ``Sequential``; losses and optimizers are in ``fastrnn.losses`` and
  ``fastrnn.optim``.
- ``fastrnn.forecasting.RNNForecaster`` and ``fastrnn.anomaly.RNNAnomalyDetector`` learn from series.
- ``fastrnn.interop.layers`` reads models of PyTorch, Keras, ONNX and others; ``fastrnn.pytorch.accelerate`` makes a
  PyTorch model faster.
- ``fastrnn.scale`` forecasts and scores more series than memory holds, on many processes.
- ``fastrnn.diagnostics.gradient_flow`` shows how far back gradients reach; ``fastrnn.datasets`` has data to try.
- ``fastrnn.set_num_threads``, ``fastrnn.threads`` and ``fastrnn.show_config`` concern the whole process.

All of these are there after ``import fastrnn``. From a shell, ``fastrnn --help`` lists the commands.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

try:
    from ._core import isa_runs as _isa_runs  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != f"{__name__}._core":       # NumPy is missing
        raise
    from ._base.unbuilt import explanation
    raise ImportError(explanation(__path__[0]), name=error.name) from None

from . import losses, nn, optim, training
from ._base.dispatch import active_isa, available_isas, get_num_threads, set_num_threads, show_config, threads
from ._base.reading import ModelFormatError
from .nn import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    Gradients,
    GRUCell,
    Linear,
    LSTMCell,
    QuantizationReport,
    RNNCell,
    Sequential,
    Stream,
    load,
    quantize,
)

if TYPE_CHECKING:
    from . import anomaly, datasets, diagnostics, forecasting, interop, pytorch, scale

__all__ = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Sequential", "Linear", "Embedding", "Gradients",
           "Stream", "load", "quantize", "QuantizationReport", "ModelFormatError", "active_isa", "available_isas",
           "get_num_threads", "set_num_threads",
           "show_config", "threads", "nn", "losses", "optim", "training", "forecasting", "anomaly", "diagnostics",
           "interop", "pytorch", "scale", "datasets"]

# Loaded when they are first named, so that `import fastrnn` stays quick.
_ON_FIRST_USE = frozenset(("forecasting", "anomaly", "diagnostics", "interop", "pytorch", "scale", "datasets"))


def __getattr__(name: str) -> object:
    if name in _ON_FIRST_USE:
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
