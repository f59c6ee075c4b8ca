"""Recurrent layers, cells and the modules beside them, on the compiled kernels.

``recurrent`` has RNN, LSTM and GRU over sequences and ``recurrent_base`` what they share, ``cells`` one step of each,
``pointwise`` Linear and Embedding, ``modules`` Sequential, ``streams`` the running state of a model, ``files`` the
models' own files, ``quantized`` narrow weights and ``quantization`` a report of them, ``parameters`` names, shapes and
initialisation, ``base`` what all models share. ``reference`` has the cells once more in plain NumPy: the
kernels are tested against it.
"""

from .base import Gradients
from .cells import GRUCell, LSTMCell, RNNCell
from .files import load
from .modules import Embedding, Linear, Sequential
from .quantization import LayerReport, QuantizationReport, quantize
from .recurrent import GRU, LSTM, RNN
from .streams import Stream

__all__ = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Sequential", "Linear", "Embedding", "Gradients",
           "Stream", "load", "quantize", "QuantizationReport", "LayerReport"]
