"""The network of a forecaster."""

import numpy as np

from .layers import Gradients
from .modules import Linear, Sequential, Trace


class Network(Sequential):
    """A recurrent layer and a linear map of its outputs h and inputs x, side by side:

        y_t = W [h_t, x_t] + b

    The network forecasts linearly from its inputs, and the recurrent layer adds what that misses. Where an output goes
    with one input of many (known columns, the values one season before), the layer's few units would be a bottleneck.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
    size : int
        Outputs.
    rng : numpy.random.Generator, int seed or None
        Of W; b begins at 0.

    Examples
    --------
    >>> from fastrnn import GRU
    >>> network = Network(GRU(3, 8, rng=0), 2, rng=0)
    >>> network(np.ones((5, 1, 3), np.float32))[0].shape, network[1]
    ((5, 1, 2), Linear(11, 2))
    """

    def __init__(self, layer, size, rng=None):
        head = Linear(layer.hidden_size + layer.input_size, size, rng=rng)
        self.modules, self.dtype, self.batch_first = (layer, head), layer.dtype, False

    def __call__(self, x, state=None, *, lengths=None):
        layer, head = self.modules
        h, state = layer(x, None if state is None else state[0], lengths=lengths)
        return head(np.concatenate([h, x], -1))[0], (state, None)

    def forward(self, x, state=None, lengths=None, reset_mask=None, rng=None):
        layer, head = self.modules
        h, state, cache = layer.forward(x, None if state is None else state[0], lengths, reset_mask, rng)
        y, _, joined = head._keep(np.concatenate([h, x], -1))
        return y, (state, None), Trace(self, [cache, joined], None)

    def backward(self, cache, d_output, d_state=None, need_input=True):
        layer, head = self.modules
        of_head = head.backward(cache.caches[1], d_output)
        dh, dx = np.split(of_head.input, [layer.hidden_size], -1)
        found = layer.backward(cache.caches[0], dh, None if d_state is None else d_state[0], need_input)
        return Gradients(found.input + dx if need_input else None, (found.state, None),
                         {f"{i}.{name}": value for i, part in enumerate((found, of_head))
                          for name, value in part.parameters.items()})
