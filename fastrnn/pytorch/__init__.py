"""PyTorch's recurrent modules on fastrnn's kernels: nn.LSTM, nn.GRU, nn.RNN and the three cells, with autograd.

``accelerate(model)`` turns every recurrent module of a CPU model into the class of the same name here, in place;
``restore(model)`` turns them back. The classes are subclasses of torch's and have torch's constructors, parameters and
results, so that ``isinstance``, state_dict, hooks, optimizers, pickling and deepcopy work as with torch's.

Under ``torch.autocast("cpu", dtype=torch.bfloat16)`` the factors of the products are rounded to bfloat16 (see
``precision`` of ``fastrnn.LSTM.forward``), and results have the dtypes that torch's have.

What the kernels do not compute runs torch's own code, that of the parent class: other devices and dtypes, autocast to
float16, functorch transforms, forward-mode derivatives, tracing, tensor subclasses, calls too small to gain, and wrong
arguments, which torch then explains in its own words. Graphs of torch.compile have torch's code under autocast. Dropout
draws from torch's generator as torch does, so that one seed gives one mask.
"""

try:
    import torch  # noqa: F401 - asked for first, so that its absence is explained in one line
except ImportError as error:
    raise ImportError(f"fastrnn.pytorch needs PyTorch (pip install fastrnn[torch]): {error}") from error

from .accelerate import Report, accelerate, restore
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .policies import whole_sequences

__all__ = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "Report", "accelerate", "restore",
           "whole_sequences"]
