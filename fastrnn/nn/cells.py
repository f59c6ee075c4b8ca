"""The recurrent cells: one step of one layer, with the state in the caller's hands.

A cell is a layer of one step under torch's cell names. Where the same state is carried on and on, a stream
(``layer.stream()``) does the step with a tenth of the overhead.
"""

import contextlib
import copy
import types

import numpy as np

from .. import _core
from .._base import dispatch
from .._base import validation as check
from .._base.registry import in_files
from . import files, parameters
from .base import Gradients
from .recurrent import GRU, LSTM, RNN, Cache

_ONE_THREAD = 2_000_000     # multiply-adds up to which a layer's call keeps to one thread (worthwhile in src/core/calls.pxi)


class Cell:
    """What RNNCell, LSTMCell and GRUCell share.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    dtype : float32 or float64
    rng : numpy.random.Generator, int seed or None
        Parameters start from U(-1/sqrt(H), 1/sqrt(H)). They are weight_ih [G*H, I], weight_hh [G*H, H], bias_ih and
        bias_hh [G*H].
    """

    _stepper = None         # (parameters, instruction set, rows, StreamCore): valid while all are current

    def _build(self, input_size, hidden_size, **options):
        self._layer = self._layer_class(input_size, hidden_size, **options)

    def __getstate__(self):
        return {"_layer": self._layer}

    def __copy__(self):
        twin = object.__new__(type(self))
        twin._layer = copy.copy(self._layer)
        return twin

    input_size = property(lambda self: self._layer.input_size)
    hidden_size = property(lambda self: self._layer.hidden_size)
    bias = property(lambda self: self._layer.bias)
    dtype = property(lambda self: self._layer.dtype)

    @property
    def parameters(self):
        """Name -> array, read-only; ``updating()`` gives writable ones."""
        return types.MappingProxyType({name.removesuffix("_l0"): value
                                       for name, value in self._layer.parameters.items()})

    def state_dict(self):
        """A copy of every parameter, by torch's names."""
        return {name: value.copy() for name, value in self.parameters.items()}

    def load_state_dict(self, mapping, strict=True):
        """As a layer's: a missing, unknown or wrongly shaped key is a ValueError and changes nothing."""
        loaded = parameters.load(mapping, self.parameters, self.dtype, check.flag(strict, "strict"))
        self._layer._parameters = {name + "_l0": value for name, value in loaded.items()}

    @contextlib.contextmanager
    def updating(self):
        """Gives a dict of writable copies of the parameters; on a regular end they become the cell's."""
        fresh = self.state_dict()
        yield fresh
        self.load_state_dict(fresh)

    def save(self, path):
        """As a layer's: .npz or, with safetensors, .safetensors, for ``fastrnn.load``."""
        files.save(self, path)

    def _prepare(self, x, state):
        """x as [1, N, I], the state as the layer takes it, and whether x came as [I]."""
        x = check.array(x, "x", self.dtype)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(f"x: expected [N, {self.input_size}] or [{self.input_size}], got shape {x.shape}")
        unbatched = x.ndim == 1
        x = x.reshape(1, -1, self.input_size) if not unbatched else x[None, None]
        return x, self._wrap(state, "state", x.shape[1], unbatched), unbatched

    def _wrap(self, state, name, N, unbatched):
        """A state in the cell's shape as the layer's [1, N, H]."""
        if state is None:
            return None
        shape = (self.hidden_size,) if unbatched else (N, self.hidden_size)

        def one(value):
            return check.shaped(check.array(value, name, self.dtype), name, shape).reshape(1, N, self.hidden_size)

        return tuple(one(value) for value in check.pair(state, name)) if self._layer._is_lstm else one(state)

    def _unwrap(self, state, unbatched):
        def one(value):
            return value[0, 0] if unbatched else value[0]

        return tuple(map(one, state)) if isinstance(state, tuple) else one(state)

    def __call__(self, x, state=None, out=None):
        """One step.

        Parameters
        ----------
        x : array [N, I] or [I]
        state : array [N, H] or [H], or a pair (h, c) of them for LSTM, optional
        out : like the state, optional
            Written in place and returned.

        Returns
        -------
        array, or pair of arrays for LSTM
            The new state.

        Raises
        ------
        TypeError, ValueError
            An unsuitable argument, by name, with what was expected.
        """
        if out is None and type(x) is np.ndarray and x.ndim in (1, 2):
            new = self._quick_step(x, state)
            if new is not None:
                return new
        x, wrapped, unbatched = self._prepare(x, state)
        targets = None
        if out is not None:
            shape = (self.hidden_size,) if unbatched else (x.shape[1], self.hidden_size)
            targets = check.pair(out, "out") if self._layer._is_lstm else (out,)
            targets = tuple(check.output(target, "out", shape, self.dtype) for target in targets)
            if len(targets) == 2 and np.may_share_memory(*targets) and np.shares_memory(*targets):
                raise ValueError("out: the two arrays overlap each other")
        _, new = self._layer(x, wrapped)
        new = self._unwrap(new, unbatched)
        if targets is None:
            return new
        for target, value in zip(targets, new if self._layer._is_lstm else (new,), strict=True):
            target[...] = value
        return out

    def _quick_step(self, x, state):
        """The new state by a stream of the cell's own, a tenth of the cost of a layer's call; None where that is due:
        arrays that are not laid out as the kernels take them, work that threads would share, other threads at it."""
        rows = x.shape[0] if x.ndim == 2 else 1
        stepper, isa = self._stepper, dispatch.active_isa()
        if stepper is None or stepper[0] is not self._layer._parameters or stepper[1] != isa or stepper[2] != rows:
            packed = self._layer._packed()[0]
            small = rows * packed[0].multiply_adds <= _ONE_THREAD or dispatch.get_num_threads() == 1
            if not rows or not small:
                return None
            stepper = self._stepper = (self._layer._parameters, isa, rows, _core.StreamCore(packed, rows))
        return stepper[3]._step_from(x, state)

    def forward(self, x, state=None):
        """As calling the cell, and keeps what ``backward`` needs.

        Returns
        -------
        state : array, or pair of arrays for LSTM
        cache : Cache
        """
        x, wrapped, unbatched = self._prepare(x, state)
        _, new, cache = self._layer.forward(x, wrapped)
        return self._unwrap(new, unbatched), (cache, unbatched)

    def backward(self, cache, d_state):
        """Gradients of a loss L from dL/dh (for LSTM the pair dL/dh, dL/dc) of the new state.

        Returns
        -------
        Gradients
            ``input``, ``state``, ``parameters``: shaped as x, the state, each parameter.
        """
        if not isinstance(cache, tuple) or len(cache) != 2 or not isinstance(cache[0], Cache):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if d_state is None:
            raise TypeError("d_state: expected an array, got None")
        cache, unbatched = cache
        N = cache.shape[1]
        wrapped = self._wrap(d_state, "d_state", N, unbatched)
        grads = self._layer.backward(cache, np.zeros((1, N, self.hidden_size), self.dtype), wrapped)
        return Gradients(grads.input[0, 0] if unbatched else grads.input[0], self._unwrap(grads.state, unbatched),
                         {name.removesuffix("_l0"): value for name, value in grads.parameters.items()})

    def __repr__(self):
        return repr(self._layer).replace(self._layer_class.__name__, type(self).__name__, 1)


_SHARED_DOC = Cell.__doc__ or ""         # None under python -OO


@in_files
class RNNCell(Cell):
    __doc__ = """One step of a plain RNN: h' = tanh or relu (W_ih x + b_ih + W_hh h + b_hh).

    nonlinearity: "tanh" or "relu"; activations, clip: as of the layer. Everything else:

    """ + _SHARED_DOC + """
    Examples
    --------
    >>> import numpy as np
    >>> RNNCell(3, 5, rng=0)(np.ones((2, 3), np.float32)).shape
    (2, 5)
    """
    _layer_class = RNN

    def __init__(self, input_size, hidden_size, bias=True, nonlinearity="tanh", *, activations=None,
                 clip=None, dtype=np.float32, rng=None):
        self._build(input_size, hidden_size, bias=bias, nonlinearity=nonlinearity, activations=activations, clip=clip,
                    dtype=dtype, rng=rng)


@in_files
class GRUCell(Cell):
    __doc__ = """One step of a GRU (equations: :class:`fastrnn.GRU`).

    reset_after, update, activations, clip: as of the layer. Everything else:

    """ + _SHARED_DOC + """
    Examples
    --------
    >>> import numpy as np
    >>> GRUCell(3, 5, rng=0)(np.ones(3, np.float32)).shape
    (5,)
    """
    _layer_class = GRU

    def __init__(self, input_size, hidden_size, bias=True, *, reset_after=True, update="torch", activations=None,
                 clip=None, dtype=np.float32, rng=None):
        self._build(input_size, hidden_size, bias=bias, reset_after=reset_after, update=update,
                    activations=activations, clip=clip, dtype=dtype, rng=rng)


@in_files
class LSTMCell(Cell):
    __doc__ = """One step of an LSTM (equations: :class:`fastrnn.LSTM`): h, c = cell(x, (h, c)).

    peephole, coupled_gates, activations, clip: as of the layer. Everything else:

    """ + _SHARED_DOC + """
    Examples
    --------
    >>> import numpy as np
    >>> h, c = LSTMCell(3, 5, rng=0)(np.ones((2, 3), np.float32))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """
    _layer_class = LSTM

    def __init__(self, input_size, hidden_size, bias=True, *, peephole=False, coupled_gates=False, activations=None,
                 clip=None, dtype=np.float32, rng=None):
        self._build(input_size, hidden_size, bias=bias, peephole=peephole, coupled_gates=coupled_gates,
                    activations=activations, clip=clip, dtype=dtype, rng=rng)
