"""Recurrent layers, cells and the modules beside them, on the compiled kernels.

``recurrent`` has RNN, LSTM and GRU over sequences, ``cells`` one step of each, ``modules`` Linear, Embedding and
Sequential, ``streams`` the running state of a layer, ``files`` the models' own files, ``parameters`` names, shapes and
initialisation, ``reference`` all of it once more in plain NumPy: what the kernels are tested against.
"""

from .base import Gradients
from .cells import GRUCell, LSTMCell, RNNCell
from .files import load
from .modules import Embedding, Linear, Sequential
from .recurrent import GRU, LSTM, RNN
from .streams import Stream

__all__ = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Sequential", "Linear", "Embedding", "Gradients",
           "Stream", "load"]
