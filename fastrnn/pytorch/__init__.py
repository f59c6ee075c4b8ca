"""PyTorch's recurrent modules on fastrnn's kernels: nn.LSTM, nn.GRU, nn.RNN and the three cells, autograd included.

``accelerate(model)`` turns every recurrent module of a CPU model into the class of the same name here, in place;
``restore(model)`` turns them back. The classes are subclasses of torch's, with torch's constructors, parameters and
results, so ``isinstance``, state_dict, hooks, optimizers, pickling and deepcopy know no difference.

What the kernels do not do runs torch's own code, the parent class's: other devices and dtypes, autocast, functorch
transforms, forward-mode AD, tracing, tensor subclasses, calls too small to gain - and wrong arguments, which torch
then explains in its own words. Dropout draws from torch's generator as torch does: one seed, one mask.
"""

try:
    import torch  # noqa: F401 - asked for first, so that its absence is told in one line
except ImportError as error:
    raise ImportError(f"fastrnn.pytorch needs PyTorch (pip install fastrnn[torch]): {error}") from error

from .accelerate import Report, accelerate, restore
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "Report", "accelerate", "restore"]
