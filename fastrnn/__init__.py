"""Recurrent networks on a CPU: RNN, LSTM and GRU, forward, backward and streamed, NumPy in and NumPy out.

>>> import numpy as np, fastrnn
>>> layer = fastrnn.GRU(input_size=3, hidden_size=8, rng=0)
>>> output, h_n = layer(np.ones((20, 4, 3), np.float32))            # [T, N, I] -> [T, N, H]
>>> stream = layer.stream()                                         # one step at a time, the same bits
>>> stream.step(np.ones(3, np.float32)).shape
(8,)

Layers, cells and what stands beside them are here; ``fastrnn.training`` trains them, ``fastrnn.forecasting`` and
``fastrnn.anomaly`` put them to use on series, ``fastrnn.interop`` reads other frameworks' models, ``fastrnn.pytorch``
speeds PyTorch's up, ``fastrnn.diagnostics`` shows gradients. All are found after ``import fastrnn``.
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
    RNNCell,
    Sequential,
    Stream,
    load,
)

if TYPE_CHECKING:
    from . import anomaly, datasets, diagnostics, forecasting, interop, pytorch

__all__ = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Sequential", "Linear", "Embedding", "Gradients",
           "Stream", "load", "ModelFormatError", "active_isa", "available_isas", "get_num_threads", "set_num_threads",
           "show_config", "threads", "nn", "losses", "optim", "training", "forecasting", "anomaly", "diagnostics",
           "interop", "pytorch", "datasets"]

# Loaded when they are first named, so that `import fastrnn` stays quick.
_ON_FIRST_USE = frozenset(("forecasting", "anomaly", "diagnostics", "interop", "pytorch", "datasets"))


def __getattr__(name: str) -> object:
    if name in _ON_FIRST_USE:
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
