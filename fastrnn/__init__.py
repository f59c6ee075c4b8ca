"""The fastest recurrent networks on a CPU.

Reading order: ``layers`` (RNN, LSTM, GRU over sequences, forward and backward), ``cells`` (one step), ``streaming``
(a running state), ``parameters`` (names, shapes, initialisation); ``_validation`` has every check and message,
``_dispatch`` picks the instruction set and the threads, ``_core`` and the kernel modules are compiled from src/.
``reference`` is all of it once more in plain NumPy: what the kernels are tested against.
"""

__version__ = "0.1.0"

from . import losses, optim, training  # noqa: F401 - so that fastrnn.optim.Adam is there
from ._dispatch import active_isa, available_isas, get_num_threads, set_num_threads, show_config, threads
from .cells import GRUCell, LSTMCell, RNNCell
from .files import ModelFormatError, load
from .layers import GRU, LSTM, RNN, Gradients
from .modules import Embedding, Linear, Sequential
from .streaming import Stream

__all__ = ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "Sequential", "Linear", "Embedding", "Gradients",
           "Stream", "load", "ModelFormatError", "active_isa", "available_isas", "get_num_threads", "set_num_threads",
           "show_config", "threads"]
