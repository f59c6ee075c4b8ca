"""The network of a forecaster: a recurrent layer, and a linear map of its outputs and its inputs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from .._base import validation as check
from .._base.registry import in_files
from ..nn import Gradients, Linear, Stream
from ..nn.modules import Container, sizes
from ..nn.recurrent import Recurrent

if TYPE_CHECKING:
    from .._base.typing import Array, ArrayLike, BoolArray, IntArray, Parameters, Rng, TrainingPrecision
    from ..nn.quantized import Precision


@in_files
class ForecastNetwork(Container):
    """A recurrent layer and a linear map of its outputs h and inputs x, side by side.

    ::

        y_t = W [h_t, x_t] + b

    The network forecasts linearly from its inputs, and the recurrent layer adds what that misses. Where an output
    follows one input of many (known columns, the values one season before), the few units of the layer would be a
    bottleneck. It has the methods of the recurrent layers: ``forward`` and ``backward``, ``state_dict``, ``save``,
    ``stream``. Its state is the layer's.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        One that walks forward only.
    head : Linear
        The map [h_t, x_t] -> y_t: it reads as many values as the layer gives and reads together.

    Raises
    ------
    TypeError, ValueError
        An unsuitable argument, by name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import GRU, Linear
    >>> network = ForecastNetwork(GRU(3, 8, rng=0), Linear(8 + 3, 2, rng=1))
    >>> network
    ForecastNetwork(GRU(3, 8), Linear(11, 2))
    >>> x = np.ones((5, 3), np.float32)
    >>> y, state = network(x)
    >>> stream = network.stream()
    >>> bool(np.array_equal([stream.step(x_t) for x_t in x], y))
    True
    """

    _caches = (*Container._caches, "_narrow")
    _narrow: tuple[Parameters, ForecastNetwork] | None = None

    def __init__(self, layer: Recurrent, head: Linear) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"layer: expected an RNN, LSTM or GRU, got {type(layer).__name__}")
        if layer.bidirectional or layer.reverse:
            raise ValueError(f"layer: expected one that walks forward only, got {layer!r}")
        if not isinstance(head, Linear):
            raise TypeError(f"head: expected a Linear, got {type(head).__name__}")
        input_size = layer.input_size + sizes(layer)[1]
        if head.in_features != input_size:
            raise ValueError(f"head: expected a Linear of {input_size} values, as {layer!r} gives and reads together, "
                             f"got {head!r}")
        super().__init__(layer, head)
        self.layer, self.head = layer, head

    def __copy__(self) -> ForecastNetwork:
        twin = super().__copy__()
        vars(twin).update(zip(("layer", "head"), twin.modules, strict=True))
        return twin

    @property
    def input_size(self) -> int:
        """How many values it reads at every step."""
        return int(self.layer.input_size)

    @property
    def output_size(self) -> int:
        """How many values it gives at every step."""
        return int(self.head.out_features)

    def with_precision(self, precision: str) -> ForecastNetwork:
        """Make a network of the same numbers whose recurrent layer has narrow weights, for inference.

        Parameters
        ----------
        precision : {"float32", "int8", "bfloat16", "float16"}
            The precision of the layer's weights; "float32" gives this network. The head stays as it is: it is read
            once for each forecast, and rounding it would round the forecasts themselves.

        Returns
        -------
        ForecastNetwork
            The network.

        Examples
        --------
        >>> from fastrnn import GRU, Linear
        >>> ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1)).with_precision("int8")
        ForecastNetwork(GRU(3, 8, precision=int8), Linear(11, 2))
        """
        if precision in ("float32", self.layer.precision):
            return self
        narrow = self._narrow
        if narrow is not None:                  # of the last call, if it had these weights
            parameters, network = narrow
            if parameters is self.layer._parameters and network.head is self.head and (
                    network.layer.precision == precision):
                return network
        parameters = self.layer._parameters
        layer = copy.copy(self.layer)           # keeps the parameters of now, which another thread may replace
        network = ForecastNetwork(layer.quantized(cast("Precision", precision)), self.head)
        if self.layer._parameters is parameters:        # then the copy was of these
            self._narrow = parameters, network
        return network

    def last(self, x: Array, lengths: IntArray) -> Array:
        """Run the network over sequences, for the output after the last valid step of each row alone.

        Parameters
        ----------
        x : array, [T, N, I]
            Of the network's dtype.
        lengths : array of int, [N]
            Valid steps of each row, one at least.

        Returns
        -------
        array, [N, output_size]
            The same bits as in the output of a call.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> network = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1))
        >>> x = np.ones((5, 2, 3), np.float32)
        >>> bool(np.array_equal(network.last(x, np.array([5, 3]))[1], network(x)[0][2, 1]))
        True
        """
        _, state = self.layer(x, lengths=lengths)
        h = state[0] if isinstance(state, tuple) else state
        output: Array = self.head(np.concatenate([h[-1], x[lengths - 1, np.arange(len(lengths))]], -1))[0]
        return output

    # ---- Forward and backward -------------------------------------------------------------------

    def __call__(self, x: ArrayLike, state: Any = None, *, lengths: ArrayLike | None = None,
                 reset_mask: ArrayLike | None = None) -> tuple[Array, Any]:
        """Run the network over sequences; nothing is kept for ``backward``.

        Parameters
        ----------
        x : array_like
            [T, N, I], [N, T, I] of a batch_first layer, or unbatched [T, I].
        state : array, or pair of arrays for an LSTM, optional
            The layer's initial state; zeros if not given.
        lengths : array_like of int, optional
            Valid steps of each row; later outputs are exactly 0.
        reset_mask : array_like of bool, optional
            The state of row n is zeroed before step t, [T, N].

        Returns
        -------
        output : array
            [T, N, output_size], laid out as x.
        state : array, or pair of arrays for an LSTM
            The layer's last state.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> network = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1))
        >>> output, state = network(np.ones((5, 4, 3), np.float32), lengths=[5, 3, 0, 1])
        >>> output.shape, bool(output[3:, 1].any())
        ((5, 4, 2), False)
        """
        values: Array = check.array(x, "x", self.dtype)
        h, state = self.layer(values, state, lengths=lengths, reset_mask=reset_mask)
        output, past = self.head(np.concatenate([h, values], -1))[0], self._past(values, lengths)
        return output if past is None else _cleared(output, past), state

    def forward(self, x: ArrayLike, state: Any = None, lengths: ArrayLike | None = None,
                reset_mask: ArrayLike | None = None, rng: Rng = None, *,
                precision: TrainingPrecision | None = None) -> tuple[Array, Any, Trace]:
        """Run the network and keep what ``backward`` needs; dropout acts here.

        Parameters
        ----------
        x, state, lengths, reset_mask : array_like, optional
            As for a call; x is needed.
        rng : numpy.random.Generator, int or None
            For the dropout masks.
        precision : {"float32", "float64", "bfloat16"}, optional
            As for the layer's ``forward``.

        Returns
        -------
        output : array
            As from a call.
        state : array, or pair of arrays for an LSTM
            As from a call.
        cache : Trace
            For ``backward``, any number of times.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> network = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1))
        >>> output, state, cache = network.forward(np.ones((5, 4, 3), np.float32))
        >>> network.backward(cache, np.ones_like(output)).input.shape
        (5, 4, 3)
        """
        values: Array = check.array(x, "x", self.dtype)
        h, state, layer_cache = self.layer.forward(values, state, lengths, reset_mask, rng, precision=precision)
        output, _, head_cache = self.head._keep(np.concatenate([h, values], -1), precision)
        past = self._past(values, lengths)
        return (output if past is None else _cleared(output, past), state,
                Trace(self, layer_cache, head_cache, past))

    def _past(self, x: Array, lengths: ArrayLike | None) -> BoolArray | None:
        """Which steps lie past their row's end, as the leading axes of x; None where there are none."""
        if lengths is None:
            return None
        unbatched = x.ndim == 2
        T = x.shape[1 if self.batch_first and not unbatched else 0]
        past: BoolArray = np.arange(T)[:, None] >= np.atleast_1d(np.asarray(lengths))
        if not past.any():
            return None
        return past[:, 0] if unbatched else past.T if self.batch_first else past

    def backward(self, cache: Trace, d_output: ArrayLike, d_state: Any = None, need_input: bool = True) -> Gradients:
        """Compute the gradients of a loss L by back-propagation through time.

        Parameters
        ----------
        cache : Trace
            From this network's ``forward``.
        d_output : array_like
            The gradient dL/doutput, shaped as the output; values past a row's length are not used.
        d_state : array, or pair of arrays for an LSTM, optional
            The gradient dL/dstate, shaped as the last state.
        need_input : bool
            False: dL/dx is not computed, and is None.

        Returns
        -------
        Gradients
            Of the input, the initial state and the parameters.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> network = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1))
        >>> output, state, cache = network.forward(np.ones((5, 4, 3), np.float32))
        >>> list(network.backward(cache, np.ones_like(output)).parameters)[-2:]
        ['1.weight', '1.bias']
        """
        if not isinstance(cache, Trace):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache.network is not self:
            raise ValueError("cache: it is of another network's forward")
        dy = check.array(d_output, "d_output", self.dtype)
        if cache.past is not None:
            dy = _cleared(check.shaped(dy, "d_output", (*cache.past.shape, self.output_size)), cache.past)
        head = self.head.backward(cache.head, dy)
        dh, dx = np.split(head.input, [head.input.shape[-1] - self.input_size], -1)
        layer = self.layer.backward(cache.layer, dh, d_state, need_input)
        parameters = {f"{i}.{name}": value for i, part in enumerate((layer, head))
                      for name, value in part.parameters.items()}
        d_input: Any = layer.input + dx if need_input else None
        return Gradients(d_input, layer.state, parameters)

    # ---- Streaming ------------------------------------------------------------------------------

    def stream(self, batch_size: int = 1) -> NetworkStream:
        """Begin a stream: the weights as they are now, and a state of its own.

        Parameters
        ----------
        batch_size : int
            Rows that are stepped together.

        Returns
        -------
        NetworkStream
            From state zero. Updates of the network do not change it.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1)).stream(4).step(np.ones((4, 3), np.float32)).shape
        (4, 2)
        """
        return NetworkStream(self, batch_size)


class Trace(NamedTuple):
    """The cache of a ForecastNetwork: the caches of its parts, and which outputs lie past a row's end."""

    network: ForecastNetwork
    layer: Any
    head: Any
    past: BoolArray | None


class NetworkStream:
    """A running ForecastNetwork: stepped like a layer's stream, with the bits of a call on the whole sequence.

    Parameters
    ----------
    network : ForecastNetwork
        Its weights are kept as they are now.
    batch_size : int
        Rows that are stepped together.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import LSTM, Linear
    >>> network = ForecastNetwork(LSTM(3, 8, rng=0), Linear(11, 2, rng=1))
    >>> stream = NetworkStream(network)
    >>> stream.step(np.ones(3, np.float32)).shape, stream
    ((2,), <NetworkStream of 1 row, ForecastNetwork(LSTM(3, 8), Linear(11, 2))>)
    """

    def __init__(self, network: ForecastNetwork, batch_size: int = 1) -> None:
        self._stream: Stream = network.layer.stream(batch_size)
        self.batch_size = batch_size
        self._network = copy.copy(network)      # keeps the parameters of now: an update replaces, never writes to them

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Take one time step.

        Parameters
        ----------
        x : array_like
            [N, I], or [I] where batch_size is 1.
        out : array, optional
            Written in place and returned.

        Returns
        -------
        array
            The network's output, [N, output_size] or [output_size].

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> stream = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1)).stream()
        >>> stream.step(np.ones(3, np.float32)).shape
        (2,)
        """
        values: Array = check.array(x, "x", self._network.dtype)
        if out is not None:
            check.output(out, "out", (*values.shape[:-1], self._network.output_size), self._network.dtype)
        y: Array = self._network.head(np.concatenate([self._stream.step(values), values], -1))[0]
        if out is None:
            return y
        out[...] = y
        return out

    def run(self, block: ArrayLike, out: Array | None = None) -> Array:
        """Take many steps in one call.

        Parameters
        ----------
        block : array_like
            [T, N, I], [N, T, I] of a batch_first layer, or [T, I] where batch_size is 1.
        out : array, optional
            Written in place and returned.

        Returns
        -------
        array
            The outputs of all steps, laid out as the block.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> stream = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1)).stream()
        >>> stream.run(np.ones((5, 3), np.float32)).shape
        (5, 2)
        """
        values: Array = check.array(block, "block", self._network.dtype)
        if out is not None:
            check.output(out, "out", (*values.shape[:-1], self._network.output_size), self._network.dtype)
        y: Array = self._network.head(np.concatenate([self._stream.run(values), values], -1))[0]
        if out is None:
            return y
        out[...] = y
        return out

    @property
    def state(self) -> Any:
        """The layer's state, h or the pair (h, c): copies. Assigning checks and copies."""
        return self._stream.state

    @state.setter
    def state(self, value: Any) -> None:
        self._stream.state = value

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Zero the state of all rows, or of some.

        Parameters
        ----------
        rows : int, array_like of int or bool mask, optional
            Which rows; all of them if not given.

        Examples
        --------
        >>> import numpy as np
        >>> from fastrnn import GRU, Linear
        >>> stream = ForecastNetwork(GRU(3, 8, rng=0), Linear(11, 2, rng=1)).stream()
        >>> first = stream.step(np.ones(3, np.float32))
        >>> stream.reset()
        >>> bool(np.array_equal(stream.step(np.ones(3, np.float32)), first))
        True
        """
        self._stream.reset(rows)

    @classmethod
    def _restored(cls, network: ForecastNetwork, batch_size: int, state: Any) -> NetworkStream:
        stream = cls(network, batch_size)
        stream.state = state
        return stream

    def __reduce__(self) -> tuple[Any, ...]:
        return self._restored, (self._network, self.batch_size, self.state)

    def __repr__(self) -> str:
        return f"<NetworkStream of {self.batch_size} row{'s' * (self.batch_size > 1)}, {self._network!r}>"


def _cleared(a: Array, past: BoolArray) -> Array:
    return np.where(past[..., None], a.dtype.type(0), a)
