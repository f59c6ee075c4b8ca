"""The network of a forecaster."""

import copy

import numpy as np

from ..nn import Gradients, Linear, Sequential


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
        Of W and b.

    Examples
    --------
    >>> from fastrnn import GRU
    >>> network = Network(GRU(3, 8, rng=0), 2, rng=0)
    >>> network(np.ones((5, 1, 3), np.float32))[0].shape, network.head
    ((5, 1, 2), Linear(11, 2))
    """

    def __init__(self, layer, size, rng=None):
        head = Linear(layer.hidden_size + layer.input_size, size, dtype=layer.dtype, rng=rng)
        self.modules, self.dtype, self.batch_first = (layer, head), layer.dtype, False

    def __copy__(self):
        twin = object.__new__(Network)
        vars(twin).update(vars(self), modules=tuple(map(copy.copy, self.modules)))
        return twin

    def stream(self, batch_size=1):
        """Refused: what streams is the forecaster."""
        raise TypeError("a forecaster's network does not stream by itself: take the forecaster's stream()")

    @property
    def layer(self):
        return self.modules[0]

    @property
    def head(self):
        return self.modules[1]

    def last(self, x, lengths):
        """y after the last valid step of each row."""
        _, state = self.layer(x, lengths=lengths)
        h = state[0] if isinstance(state, tuple) else state
        return self.head(np.concatenate([h[-1], x[lengths - 1, np.arange(len(lengths))]], -1))[0]

    def __call__(self, x, state=None, *, lengths=None):
        h, state = self.layer(x, state, lengths=lengths)
        return self.head(np.concatenate([h, x], -1))[0], state

    def forward(self, x, state=None, lengths=None, reset_mask=None, rng=None):
        h, state, cache = self.layer.forward(x, state, lengths, reset_mask, rng)
        y, _, of_head = self.head._keep(np.concatenate([h, x], -1))
        return y, state, (cache, of_head)

    def backward(self, cache, d_output, d_state=None, need_input=True):
        of_head = self.head.backward(cache[1], d_output)
        dh, dx = np.split(of_head.input, [self.layer.hidden_size], -1)
        of_layer = self.layer.backward(cache[0], dh, d_state, need_input)
        return Gradients(of_layer.input + dx if need_input else None, of_layer.state,
                         {f"{i}.{name}": value for i, part in enumerate((of_layer, of_head))
                          for name, value in part.parameters.items()})
