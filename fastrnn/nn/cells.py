"""The recurrent cells: one step of one layer, with the state in the caller's hands.

A cell is a layer of one step under torch's cell names. Where the same state is carried on and on, a stream
(``layer.stream()``) takes a step with a tenth of the overhead.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Generic, Literal, Self, cast

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from .._base.registry import in_files
from .._base.typing import (
    Activation,
    Array,
    ArrayLike,
    DTypeLike,
    FloatDType,
    LSTMState,
    LSTMStateLike,
    Parameters,
    Rng,
)
from .base import Gradients, Parametrised, StateLikeT, StateT
from .recurrent import GRU, LSTM, RNN, Cache, Recurrent

# Multiply-adds up to which a layer's call keeps to one thread: `worthwhile` in src/core/calls.pxi.
_ONE_THREAD = 2_000_000

CellCache = tuple[Cache, bool]      # the layer's cache, and whether x came as [I]


class Cell(Parametrised, Generic[StateT, StateLikeT]):
    """One step of a recurrent layer: the base of RNNCell, GRUCell and LSTMCell, which document the options.

    A cell holds a layer of its class; its parameters are the layer's, without the ending ``_l0``.
    """

    _layer: Recurrent[StateT, StateLikeT]
    # (parameters, instruction set, rows, stream) of the quick step: valid while all of the first three are current.
    _stepper: tuple[Parameters, str, int, _core.StreamCore] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_layer": self._layer}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)         # the layer has frozen its own parameters

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin._layer = copy.copy(self._layer)
        return twin

    @property
    def input_size(self) -> int:
        """Number of features of x."""
        return self._layer.input_size

    @property
    def hidden_size(self) -> int:
        """Number of units."""
        return self._layer.hidden_size

    @property
    def bias(self) -> bool:
        """Whether the biases are there."""
        return self._layer.bias

    @property
    def dtype(self) -> FloatDType:
        """Type of the parameters and of the state."""
        return self._layer.dtype

    @property
    def _parameters(self) -> Parameters:
        return {name.removesuffix("_l0"): value for name, value in self._layer._parameters.items()}

    @_parameters.setter
    def _parameters(self, values: Parameters) -> None:
        _core.set_attributes(self._replacements(values))

    def _replacements(self, values: Parameters) -> list[tuple[object, str, Parameters]]:
        return self._layer._replacements({name + "_l0": value for name, value in values.items()})

    def _prepare(self, x: ArrayLike, state: Any) -> tuple[Array, Any, bool]:
        """x as [1, N, I], the state as the layer takes it, and whether x came as [I]."""
        a = check.array(x, "x", self.dtype)
        if a.ndim not in (1, 2) or a.shape[-1] != self.input_size:
            raise ValueError(f"x: expected [N, {self.input_size}] or [{self.input_size}], got shape {a.shape}")
        unbatched = a.ndim == 1
        a = a.reshape(1, -1, self.input_size) if not unbatched else a[None, None]
        return a, self._wrap(state, "state", a.shape[1], unbatched), unbatched

    def _wrap(self, state: Any, name: str, N: int, unbatched: bool) -> Any:
        """A state in the cell's shape as the layer's [1, N, H]."""
        if state is None:
            return None
        shape = (self.hidden_size,) if unbatched else (N, self.hidden_size)

        def one(value: Any) -> Array:
            return check.shaped(check.array(value, name, self.dtype), name, shape).reshape(1, N, self.hidden_size)

        return tuple(one(value) for value in check.pair(state, name)) if self._layer._is_lstm else one(state)

    def _unwrap(self, state: Any, unbatched: bool) -> StateT:
        """A state of the layer's, [1, N, H], in the cell's shape."""
        def one(value: Array) -> Any:
            return value[0, 0] if unbatched else value[0]

        return cast(StateT, tuple(map(one, state)) if isinstance(state, tuple) else one(state))

    def __call__(self, x: ArrayLike, state: StateLikeT | None = None, out: StateT | None = None) -> StateT:
        """Take one step.

        Parameters
        ----------
        x : array
            The input [N, I], or [I].
        state : array, or pair of arrays for an LSTM, optional
            The state before the step: h [N, H] or [H], for an LSTM the pair (h, c) of such arrays; zeros if not given.
        out : array, or pair of arrays for an LSTM, optional
            Shaped as the state; written in place and returned.

        Returns
        -------
        array, or pair of arrays for an LSTM
            The state after the step.

        Raises
        ------
        TypeError, ValueError
            An argument is unsuitable; the message names it and says what was expected.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> cell = fastrnn.GRUCell(3, 5, rng=0)
        >>> h = cell(np.ones((2, 3), np.float32))
        >>> cell(np.ones((2, 3), np.float32), h).shape
        (2, 5)
        """
        if out is None and type(x) is np.ndarray and x.ndim in (1, 2):
            new: Any = self._quick_step(x, state)
            if new is not None:
                return new      # type: ignore[no-any-return]   # a cast would cost a tenth of the step
        a, wrapped, unbatched = self._prepare(x, state)
        targets = None if out is None else self._targets(out, a.shape[1], unbatched)
        new = self._unwrap(self._layer(a, wrapped)[1], unbatched)
        if out is None or targets is None:
            return cast(StateT, new)
        for target, value in zip(targets, new if self._layer._is_lstm else (new,), strict=True):
            target[...] = value
        return out

    def _targets(self, out: Any, N: int, unbatched: bool) -> tuple[Array, ...]:
        """The arrays to write the new state to: one, or two apart for an LSTM."""
        shape = (self.hidden_size,) if unbatched else (N, self.hidden_size)
        parts = check.pair(out, "out") if self._layer._is_lstm else (out,)
        targets = tuple(check.output(part, "out", shape, self.dtype) for part in parts)
        if len(targets) == 2 and np.may_share_memory(*targets) and np.shares_memory(*targets):
            raise ValueError("out: the two arrays overlap each other")
        return targets

    def _quick_step(self, x: Array, state: Any) -> Any:
        """The new state by a stream of the cell's own, at a tenth of the cost of a layer's call.

        None where a layer's call is due: for arrays that are not laid out as the kernels take them, for work that
        threads would share, and while another thread is in a step of that stream.
        """
        rows = x.shape[0] if x.ndim == 2 else 1
        values = self._layer._parameters
        stepper, isa = self._stepper, dispatch.active_isa()
        if stepper is None or stepper[0] is not values or stepper[1] != isa or stepper[2] != rows:
            packed = self._layer._packed_for_steps(rows, values)
            small = rows * packed[0].multiply_adds <= _ONE_THREAD or dispatch.get_num_threads() == 1
            if not rows or not small:
                return None
            stepper = self._stepper = (values, isa, rows, _core.StreamCore(packed, rows))
        return stepper[3]._step_from(x, state)

    def forward(self, x: ArrayLike, state: StateLikeT | None = None) -> tuple[StateT, CellCache]:
        """Take one step and keep what ``backward`` needs.

        Parameters
        ----------
        x : array
            The input [N, I], or [I].
        state : array, or pair of arrays for an LSTM, optional
            The state before the step, as in ``__call__``; zeros if not given.

        Returns
        -------
        state : array, or pair of arrays for an LSTM
            The state after the step.
        cache : tuple
            For ``backward``, which may be called with it any number of times.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> cell = fastrnn.GRUCell(3, 5, rng=0)
        >>> h, cache = cell.forward(np.ones((2, 3), np.float32))
        >>> cell.backward(cache, np.ones_like(h)).input.shape
        (2, 3)
        """
        a, wrapped, unbatched = self._prepare(x, state)
        _, new, cache = self._layer.forward(a, wrapped)
        return self._unwrap(new, unbatched), (cache, unbatched)

    def backward(self, cache: CellCache, d_state: StateLikeT) -> Gradients[StateT, Array]:
        """Compute the gradients of a loss L from its gradient with respect to the new state.

        Parameters
        ----------
        cache : tuple
            What this cell's ``forward`` returned.
        d_state : array, or pair of arrays for an LSTM
            The gradient dL/dh' of the new state; for an LSTM the pair dL/dh', dL/dc'.

        Returns
        -------
        Gradients
            The gradients ``input``, ``state`` and ``parameters``, shaped as x, the state and each parameter.

        Examples
        --------
        >>> import fastrnn
        >>> import numpy as np
        >>> cell = fastrnn.LSTMCell(3, 5, rng=0)
        >>> (h, c), cache = cell.forward(np.ones((2, 3), np.float32))
        >>> gradients = cell.backward(cache, (np.ones_like(h), np.zeros_like(c)))
        >>> gradients.parameters["weight_hh"].shape
        (20, 5)
        """
        if not isinstance(cache, tuple) or len(cache) != 2 or not isinstance(cache[0], Cache):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if d_state is None:
            raise TypeError("d_state: expected an array, got None")
        layer_cache, unbatched = cache
        N = layer_cache.shape[1]
        wrapped = self._wrap(d_state, "d_state", N, unbatched)
        gradients = self._layer.backward(layer_cache, np.zeros((1, N, self.hidden_size), self.dtype), wrapped)
        return Gradients(gradients.input[0, 0] if unbatched else gradients.input[0],
                         self._unwrap(gradients.state, unbatched),
                         {name.removesuffix("_l0"): value for name, value in gradients.parameters.items()})

    def __repr__(self) -> str:
        return repr(self._layer).replace(type(self._layer).__name__, type(self).__name__, 1)


@in_files
class RNNCell(Cell[Array, ArrayLike]):
    """One step of a plain RNN.

    The new state is ::

        h' = tanh(W_ih x + b_ih + W_hh h + b_hh)

    or max(0, ...) in the place of tanh. The parameters are ``weight_ih`` [H, I], ``weight_hh`` [H, H], ``bias_ih`` and
    ``bias_hh`` [H].

    Parameters
    ----------
    input_size : int
        Number of features I of x.
    hidden_size : int
        Number of units H.
    bias : bool, default True
        Whether the sums have the biases b_ih and b_hh.
    nonlinearity : {"tanh", "relu"}, default "tanh"
        The unit's activation; `activations` may name another.
    activations : sequence, optional
        Other activations, under ONNX's names: that of the unit. Each is a name, (name, alpha) or
        (name, alpha, beta), as :class:`fastrnn.RNN` explains.
    clip : float, optional
        Bound of the sums that activations are taken of: they are held to -clip...clip.
    dtype : {float32, float64}, default float32
        Type of the parameters, the state and all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters, which are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> fastrnn.RNNCell(3, 5, rng=0)(np.ones((2, 3), np.float32)).shape
    (2, 5)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: Literal["tanh", "relu"] = "tanh", *, activations: Sequence[Activation] | None = None,
                 clip: float | None = None, dtype: DTypeLike = np.float32, rng: Rng = None) -> None:
        self._layer = RNN(input_size, hidden_size, bias=bias, nonlinearity=nonlinearity, activations=activations,
                          clip=clip, dtype=dtype, rng=rng)


@in_files
class GRUCell(Cell[Array, ArrayLike]):
    """One step of a GRU.

    The gates stand in torch's order r, z, n, and the new state is ::

        r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
        z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
        n = tanh(W_in x + b_in + r (W_hn h + b_hn))
        h' = (1 - z) n + z h

    The parameters are ``weight_ih`` [3*H, I], ``weight_hh`` [3*H, H], ``bias_ih`` and ``bias_hh`` [3*H].

    Parameters
    ----------
    input_size : int
        Number of features I of x.
    hidden_size : int
        Number of units H.
    bias : bool, default True
        Whether the sums have the biases b_ih and b_hh.
    reset_after : bool, default True
        Whether the reset gate acts after the product with W_hn, as above; if False,
        n = tanh(W_in x + b_in + W_hn (r h) + b_hn).
    update : {"torch", "mirror"}, default "torch"
        How the update gate is read: as above, or "mirror" as h' = z n + (1 - z) h.
    activations : sequence, optional
        Other activations, under ONNX's names: of the gates r and z, then of n. Each is a name, (name, alpha) or
        (name, alpha, beta), as :class:`fastrnn.GRU` explains.
    clip : float, optional
        Bound of the sums that activations are taken of: they are held to -clip...clip.
    dtype : {float32, float64}, default float32
        Type of the parameters, the state and all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters, which are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> fastrnn.GRUCell(3, 5, rng=0)(np.ones(3, np.float32)).shape
    (5,)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, reset_after: bool = True,
                 update: Literal["torch", "mirror"] = "torch", activations: Sequence[Activation] | None = None,
                 clip: float | None = None, dtype: DTypeLike = np.float32, rng: Rng = None) -> None:
        self._layer = GRU(input_size, hidden_size, bias=bias, reset_after=reset_after, update=update,
                          activations=activations, clip=clip, dtype=dtype, rng=rng)


@in_files
class LSTMCell(Cell[LSTMState, LSTMStateLike]):
    """One step of an LSTM.

    The state is the pair (h, c), the gates stand in torch's order i, f, g, o, and the new state is ::

        i, f, o = sigmoid(W_i. x + b_i. + W_h. h + b_h.)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)
        c' = f c + i g
        h' = o tanh(c')

    The parameters are ``weight_ih`` [4*H, I], ``weight_hh`` [4*H, H], ``bias_ih`` and ``bias_hh`` [4*H].

    Parameters
    ----------
    input_size : int
        Number of features I of x.
    hidden_size : int
        Number of units H.
    bias : bool, default True
        Whether the sums have the biases b_ih and b_hh.
    peephole : bool, default False
        Whether p_i c and p_f c are added to the sums of i and f, p_o c' to that of o. The parameter ``peephole`` [3*H]
        holds p_i, p_f and p_o.
    coupled_gates : bool, default False
        Whether f = 1 - i.
    activations : sequence, optional
        Other activations, under ONNX's names: of the gates i, f and o, then of g, then of c'. Each is a name,
        (name, alpha) or (name, alpha, beta), as :class:`fastrnn.LSTM` explains.
    clip : float, optional
        Bound of the sums that activations are taken of: they are held to -clip...clip.
    dtype : {float32, float64}, default float32
        Type of the parameters, the state and all arithmetic.
    rng : numpy.random.Generator, int or None, default None
        Random generator, or its seed, of the initial parameters, which are drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Raises
    ------
    TypeError, ValueError
        An argument is unsuitable; the message names it.

    Examples
    --------
    >>> import fastrnn
    >>> import numpy as np
    >>> cell = fastrnn.LSTMCell(3, 5, rng=0)
    >>> h, c = cell(np.ones((2, 3), np.float32))
    >>> h, c = cell(np.ones((2, 3), np.float32), (h, c))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, peephole: bool = False,
                 coupled_gates: bool = False, activations: Sequence[Activation] | None = None,
                 clip: float | None = None, dtype: DTypeLike = np.float32, rng: Rng = None) -> None:
        self._layer = LSTM(input_size, hidden_size, bias=bias, peephole=peephole, coupled_gates=coupled_gates,
                           activations=activations, clip=clip, dtype=dtype, rng=rng)
